"""Assertions that say what was expected and what came, in few words."""

import reprlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_NOTHING = "None (nothing was returned, or nothing is there)"
# Numbers that one another's comparison does not know, as int.__eq__(1, 1.0), but that can be trusted.
_NUMBERS = frozenset({bool, int, float, complex, Fraction, Decimal})


class CheckFailure(AssertionError):
    """An answer gave something else than expected.

    Attributes:
        expected: what was right, in words or as a repr.
        actual: what came.
    """

    def __init__(self, expected: str, actual: str, where: str = ""):
        """Keep both sides, and where they differ."""
        self.expected = f"{expected} {where.strip()}".strip()
        self.actual = actual
        super().__init__(f"expected {self.expected}; got {self.actual}")


class _Brief(reprlib.Repr):
    """A repr for a card: short, and never an exception."""

    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = 160
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 12

    def repr_instance(self, x: object, level: int) -> str:
        if isinstance(x, np.generic):
            return repr(x.item())
        if isinstance(x, np.ndarray):
            return np.array2string(x, threshold=12, edgeitems=3, precision=6, separator=", ")
        return super().repr_instance(x, level)

    repr_ndarray = repr_instance


def brief(value: object) -> str:
    """Return a repr of at most a few lines; a value that cannot be shown is named by its type."""
    try:
        return _Brief().repr(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be printed>"


def assert_equal(actual: Any, expected: Any, what: str = "") -> None:
    """Assert that two values are equal; mappings, sequences and arrays are told by their first difference.

    Nothing is broadcast: an array equals an array or a list of the same shape, and a number only a number. The
    expected value decides what equals it; the `__eq__` of an answer's own class is not asked.

    Args:
        actual: what the answer returned.
        expected: what is right.
        what: words for the value, as in "the counts of 'a rose is a rose'".

    Raises:
        AssertionError: with the first difference.

    Example:
        >>> assert_equal([1, 2, 4], [1, 2, 3], "the counts")
        Traceback (most recent call last):
        ...
        lmcourse.grading.assertions.CheckFailure: expected 3 at [2] of the counts; got 4
    """
    if expected is not None:
        _assert_returned(actual, expected, what)
    if isinstance(expected, np.ndarray):
        _assert_arrays(_array(actual, expected, what), expected, what, rtol=0, atol=0)
        return
    if hasattr(actual, "__array__"):  # an array or a tensor: its elements are compared one by one
        array = _array(actual, np.empty(0, dtype=object), what)
        actual = list(array) if array.ndim else array[()]
        if array.ndim and isinstance(expected, tuple):
            actual = tuple(actual)
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        _assert_mappings(actual, expected, what)
    elif _same_kind_of_sequence(actual, expected):
        _assert_sequences(actual, expected, what)
    elif not _same(actual, expected):
        raise CheckFailure(brief(expected), brief(actual), _of(what, "for "))


def assert_close(
    actual: ArrayLike, expected: ArrayLike, what: str = "", *, rtol: float = 1e-6, atol: float = 1e-9
) -> None:
    """Assert that numbers are as good as equal: |actual - expected| <= atol + rtol * |expected|.

    Args:
        actual: what the answer returned: a number, nested lists, an array or a tensor; or a mapping, whose
            values are compared.
        expected: what is right, of the same shape.
        what: words for the value.
        rtol: the tolerance in proportion to the expected value.
        atol: the tolerance beside zero.

    Raises:
        AssertionError: with the first difference, or with the two shapes where they differ.

    Example:
        >>> assert_close([0.5, 0.4], [0.5, 0.5], "P(next | the)")
        Traceback (most recent call last):
        ...
        lmcourse.grading.assertions.CheckFailure: expected 0.5 at [1] of P(next | the); got 0.4
    """
    _assert_returned(actual, expected, what)
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            raise CheckFailure("a mapping such as a dict", brief(actual), _of(what, "for "))
        _assert_keys(actual, expected, what)
        for key, value in expected.items():
            assert_close(actual[key], value, f"[{brief(key)}]{_of(what)}", rtol=rtol, atol=atol)
        return
    wanted = np.asarray(expected)
    _assert_arrays(_array(actual, wanted, what), wanted, what, rtol, atol)


def assert_shape(actual: ArrayLike, shape: tuple[int, ...], what: str = "") -> None:
    """Assert that something was returned, in the shape of an array.

    Args:
        actual: what the answer returned.
        shape: what is right.
        what: words for the value.

    Raises:
        AssertionError: with the two shapes.

    Example:
        >>> assert_shape([1, 2], (3,), "the weights")
        Traceback (most recent call last):
        ...
        lmcourse.grading.assertions.CheckFailure: expected shape (3,) of the weights; got shape (2,)
    """
    if actual is None:
        raise CheckFailure(f"shape {shape}", _NOTHING, _of(what))
    if np.shape(actual) != shape:
        raise CheckFailure(f"shape {shape}", f"shape {np.shape(actual)}", _of(what))


def assert_distribution(
    probabilities: ArrayLike | Mapping[Any, float], what: str = "", *, axis: int = -1, atol: float = 1e-6
) -> None:
    """Assert that numbers are probabilities: none below zero, and their sum along the axis one.

    Args:
        probabilities: an array, or a mapping whose values are the probabilities.
        what: words for the value.
        axis: the axis that sums to one.
        atol: how far from one a sum may be.

    Raises:
        AssertionError: with the first value below zero or the first sum that is not one.

    Example:
        >>> assert_distribution({"a": 0.5, "b": 0.25})
        Traceback (most recent call last):
        ...
        lmcourse.grading.assertions.CheckFailure: expected a sum of 1; got 0.75
    """
    if probabilities is None:
        raise CheckFailure("probabilities", _NOTHING, _of(what, "for "))
    mapping = isinstance(probabilities, Mapping)
    if mapping:
        probabilities = list(probabilities.values())
    array = _array(probabilities, np.zeros(()), what)
    if array.ndim == 0 or array.size == 0:
        raise CheckFailure("one probability or more", brief(probabilities), _of(what, "for "))
    if mapping and array.ndim > 1:
        raise CheckFailure("one number for each key", f"values of shape {array.shape[1:]}", _of(what, "in "))
    if not -array.ndim <= axis < array.ndim:
        raise CheckFailure(f"probabilities along axis {axis}", f"shape {array.shape}", _of(what, "for "))
    if not (array >= 0).all():
        where = _first(~(array >= 0))
        raise CheckFailure(
            "no probability below 0", f"{brief(array[where])} {_at(where)}".strip(), _of(what, "in ")
        )
    sums = array.sum(axis=axis)
    wrong = ~(np.abs(sums - 1) <= atol)
    if wrong.any():
        where = _first(wrong)
        raise CheckFailure(
            "a sum of 1", brief(sums[where]), f"{_along(where, axis, array.ndim)}{_of(what)}".strip()
        )


def _assert_returned(actual: object, expected: object, what: str) -> None:
    if actual is None:
        raise CheckFailure(brief(expected), _NOTHING, _of(what, "for "))


def _array(actual: object, expected: np.ndarray, what: str) -> np.ndarray:
    try:
        array = np.asarray(actual)
    except Exception:
        array = np.empty(0, dtype=object)
    numeric = np.issubdtype(expected.dtype, np.number) or expected.dtype == bool
    if numeric and not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise CheckFailure(f"numbers of shape {expected.shape}", brief(actual), _of(what, "for "))
    return array


def _assert_arrays(actual: np.ndarray, expected: np.ndarray, what: str, rtol: float, atol: float) -> None:
    if actual.shape != expected.shape:
        raise CheckFailure(f"shape {expected.shape}", f"shape {actual.shape}", _of(what))
    if np.issubdtype(expected.dtype, np.number) or expected.dtype == bool:
        wrong = ~np.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    else:
        pairs = zip(actual.ravel(), expected.ravel(), strict=True)
        wrong = np.reshape([not _equal(got, wanted) for got, wanted in pairs], expected.shape)
    if wrong.any():
        where = _first(wrong)
        raise CheckFailure(brief(expected[where]), brief(actual[where]), _where(where, what))


def _assert_keys(actual: Mapping, expected: Mapping, what: str) -> None:
    for key in expected:
        if key not in actual:
            raise CheckFailure(f"the key {brief(key)}", f"the keys {brief(list(actual))}", _of(what, "in "))
    for key in actual:
        if key not in expected:
            raise CheckFailure(f"no key {brief(key)}", f"{brief(actual[key])} there", _of(what, "in "))


def _assert_mappings(actual: Mapping, expected: Mapping, what: str) -> None:
    _assert_keys(actual, expected, what)
    for key, value in expected.items():
        assert_equal(actual[key], value, f"[{brief(key)}]{_of(what)}")


def _same_kind_of_sequence(actual: object, expected: object) -> bool:
    return any(isinstance(actual, kind) and isinstance(expected, kind) for kind in (list, tuple))


def _assert_sequences(actual: Sequence, expected: Sequence, what: str) -> None:
    for index, (got, wanted) in enumerate(zip(actual, expected, strict=False)):
        if not _equal(got, wanted):
            raise CheckFailure(brief(wanted), brief(got), f"at [{index}]{_of(what)}")
    if len(actual) != len(expected):
        raise CheckFailure(
            f"{len(expected)} elements, {brief(expected)}", f"{len(actual)}, {brief(actual)}", _of(what)
        )


def _equal(actual: object, expected: object) -> bool:
    try:
        assert_equal(actual, expected)
    except CheckFailure:
        return False
    return True


def _same(actual: object, expected: object) -> bool:
    """Compare what has no elements, without asking a class of the answer's own."""
    said = type(expected).__eq__(expected, actual)
    if said is NotImplemented and (type(actual) in _NUMBERS or isinstance(actual, np.generic)):
        said = expected == actual
    return isinstance(said, bool | np.bool_) and bool(said)


def _first(wrong: np.ndarray) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argwhere(wrong)[0])


def _at(where: tuple[int, ...]) -> str:
    return f"at [{', '.join(map(str, where))}]" if where else ""


def _where(where: tuple[int, ...], what: str) -> str:
    return f"{_at(where)}{_of(what)}" if where else _of(what, "for ")


def _along(where: tuple[int, ...], axis: int, dimensions: int) -> str:
    if dimensions == 1:
        return ""
    index = list(map(str, where))
    index.insert(axis % dimensions, ":")
    return f"over [{', '.join(index)}]"


def _of(what: str, joint: str = " of ") -> str:
    return f"{joint}{what}" if what else ""
