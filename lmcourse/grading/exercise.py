"""What a test of an exercise carries: its number, its points, its hint."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

_NUMBER = re.compile(r"([1-9]\d?)\.([1-9]\d?)")

# What pytest itself offers to a test; every other parameter of a test is a name in the learner's notebook.
PYTEST_FIXTURES = frozenset({"capsys", "monkeypatch", "recwarn", "request", "tmp_path"})


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One test's part of an exercise.

    Attributes:
        number: the exercise, as in "1.3": chapter 1, exercise 3.
        points: what the test is worth.
        hint: what the learner reads when the test fails: the mistake, not the remedy.
        allow: names in lmcourse that an answer may use, for instance "lmcourse.core.LanguageModel" or, for
            all of a module, "lmcourse.text".
    """

    number: str
    points: float
    hint: str
    allow: tuple[str, ...] = ()


def exercise(
    number: str, *, points: float = 1, hint: str, allow: Sequence[str] = ()
) -> Callable[[Test], Test]:
    """Declare that a test belongs to an exercise.

    The test's parameters are names of functions or classes that the learner defines. A parameter that pytest
    offers (`tmp_path`, `monkeypatch`, ...) or that the module defines with `@pytest.fixture` is what it is there.

    Args:
        number: the exercise, as in "1.3".
        points: what the test is worth, more than zero.
        hint: the mistake that this test catches, in the learner's words.
        allow: what an answer may use from lmcourse; anything else of lmcourse that it uses is pointed out.

    Returns:
        A decorator that leaves the test as it is, with an attribute `exercise`.

    Raises:
        ValueError: if the number is not like "1.3", the points are not positive or the hint is empty.

    Example:
        >>> @exercise("1.1", points=2, hint="two counts are swapped: which word comes first?")
        ... def test_order_of_the_pair(count_bigrams):
        ...     assert count_bigrams("a b") == {("a", "b"): 1}
        >>> test_order_of_the_pair.exercise.points
        2
    """
    if not _NUMBER.fullmatch(number):
        raise ValueError(f'number must be chapter and exercise, as in "1.3"; got {number!r}.')
    if not points > 0:
        raise ValueError(f"points must be more than zero; got {points!r}.")
    if not hint.strip():
        raise ValueError(f"hint must say what the mistake is; it is empty for exercise {number}.")
    if isinstance(allow, str):
        raise ValueError(
            f'allow must be a tuple of names, as in ("lmcourse.core",); got the string {allow!r}.'
        )

    def declare(test: Test) -> Test:
        test.exercise = Exercise(number, points, hint, tuple(allow))
        return test

    return declare


def chapter_of(number: str) -> str:
    """Return the chapter of an exercise in two digits.

    Raises:
        ValueError: if the number is not like "1.3".

    Example:
        >>> chapter_of("1.3")
        '01'
    """
    match = _NUMBER.fullmatch(number)
    if not match:
        raise ValueError(f'An exercise is chapter and number, as in "1.3"; got {number!r}.')
    return f"{int(match[1]):02}"


def answer_names(test: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names in the learner's notebook that a test takes."""
    module = inspect.unwrap(test).__globals__
    return tuple(
        name
        for name in inspect.signature(test).parameters
        if name not in PYTEST_FIXTURES and not _is_fixture(module.get(name))
    )


def _is_fixture(value: object) -> bool:
    # pytest 8.4 made fixtures a type of their own; before, they were functions with the other attribute.
    return hasattr(value, "_fixture_function_marker") or hasattr(value, "_pytestfixturefunction")
