"""What every way of generating asks of its arguments."""

import numbers
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from lmcourse.core import document_ids


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless the value is an integer from low to high, or from low on if high is None."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_integer and low <= value and (high is None or value <= high)):
        allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ValueError(f"{name} must be an integer {allowed}; got {value!r}.")


def is_number(value: object) -> bool:
    """Return whether the value is a real number, Python's or NumPy's."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_prompts(prompts: Iterable[Sequence[int]], vocab_size: int) -> list[list[int]]:
    """Return the prompts as lists of ids, or say which one is wrong and why.

    Raises:
        ValueError: if prompts does not hold sequences of integers between 0 and V - 1.
    """
    rows = [prompts] if isinstance(prompts, str) or not isinstance(prompts, Iterable) else list(prompts)
    if any(np.ndim(row) == 0 for row in rows):
        raise ValueError(
            f"prompts must be a list of sequences of ids; got {_shortened(prompts)}. "
            "Encode text first, and for one prompt pass [prompt]."
        )
    return [ids.tolist() for ids in document_ids(rows, vocab_size, "prompts")]


def check_stop(stop: Collection[int], vocab_size: int) -> frozenset[int]:
    """Return the stop tokens as a set, or say which one is wrong.

    Raises:
        ValueError: unless stop is a collection of ids between 0 and V - 1.
    """
    if isinstance(stop, str) or not isinstance(stop, Collection):
        raise ValueError(f"stop must be a collection of ids, such as [0]; got {stop!r}.")
    for token in stop:
        check_integer("each id in stop", token, 0, vocab_size - 1)
    return frozenset(int(token) for token in stop)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
