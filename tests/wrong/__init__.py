"""Common wrong answers to the exercises, one module a chapter, and right ones in another style.

The answers of chapter 1 stand in `ch01_ngram.py`:

    @wrong("1.3", caught_by="test_rows_sum_to_one")
    def bigram_probabilities__divided_along_the_wrong_axis(counts): ...

    @right("1.3")
    def bigram_probabilities__with_a_loop(counts): ...

What a function is called before a double underscore is the name in the learner's notebook that it stands for;
`name=` gives it otherwise. Where an exercise asks for several functions the others are the solution's.
"""

import dataclasses
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer to an exercise, and what should become of it.

    Attributes:
        exercise: the exercise's number, as in "1.3".
        name: what the learner's notebook calls the function or class.
        value: the function or class.
        caught_by: the first test that fails on it, or None for a right answer.
    """

    exercise: str
    name: str
    value: Any
    caught_by: str | None

    @property
    def label(self) -> str:
        return f"{self.exercise}-{self.value.__name__}"


def wrong(exercise: str, *, caught_by: str, name: str | None = None) -> Callable[[Any], Any]:
    """Declare a wrong answer and the first test that fails on it."""
    if not caught_by.startswith("test_"):
        raise ValueError(
            f"caught_by must be the name of a test, as in 'test_rows_sum_to_one'; got {caught_by!r}."
        )
    return _declare(exercise, name, caught_by)


def right(exercise: str, *, name: str | None = None) -> Callable[[Any], Any]:
    """Declare a right answer written in another style than the solution."""
    return _declare(exercise, name, None)


def answers_in(module: ModuleType) -> list[Answer]:
    """Return the answers that a module declares, in its order."""
    return list(vars(module).get("_declared_answers", ()))


def _declare(exercise: str, name: str | None, caught_by: str | None) -> Callable[[Any], Any]:
    def declare(value: Any) -> Any:
        answer = Answer(exercise, name or value.__name__.partition("__")[0], value, caught_by)
        # On the module, not on the name: two answers may bear the same name.
        vars(sys.modules[value.__module__]).setdefault("_declared_answers", []).append(answer)
        return value

    return declare
