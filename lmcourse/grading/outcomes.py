"""What becomes of a test: its state, and what the learner reads about it."""

import dataclasses
import linecache
import re
import traceback
from collections.abc import Mapping
from typing import Any

from lmcourse.grading.assertions import CheckFailure, brief

PASSED = "passed"
WRONG = "wrong"
NOT_IMPLEMENTED = "not implemented"
MISSING = "missing"
CRASHED = "crashed"
TOO_SLOW = "too slow"

# A symbol and a word carry the state, colour only repeats it. Every common font has these symbols.
SYMBOLS = {PASSED: "✔", WRONG: "✘", TOO_SLOW: "◷", CRASHED: "!", NOT_IMPLEMENTED: "○", MISSING: "?"}

# What helps with a test that took too long, whatever mistake the test itself looks for.
SLOW_HINT = "does your loop end? If it does, what does it compute again and again that it could compute once?"

# A card stays small: longer messages are cut here.
MESSAGE_CHARACTERS = 400


class MissingAnswer(Exception):
    """The notebook does not define what a test takes."""


class NotRun(Exception):
    """A test was not started, because what it takes was too slow in an earlier test."""


@dataclasses.dataclass(frozen=True)
class Test:
    """A test of an exercise.

    Attributes:
        name: the test function's name.
        number: the exercise it belongs to, as in "1.3".
        points: what it is worth.
        hint: the mistake it catches.
        answers: the names in the learner's notebook that it takes.
        allow: the names in lmcourse that an answer may use.
    """

    name: str
    number: str
    points: float
    hint: str
    answers: tuple[str, ...]
    allow: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.removeprefix("test_").replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a test.

    Attributes:
        test: the test's name.
        state: one of the states above.
        message: what happened, in a line or a few; empty where the test passed.
        expected: what was expected, where the check said so.
        actual: what came instead.
    """

    test: str
    state: str
    message: str = ""
    expected: str = ""
    actual: str = ""


def hint_for(test: Test, outcome: Outcome) -> str:
    """Return the hint that fits what became of a test; none where there is no answer yet that it could help."""
    if outcome.state in (PASSED, NOT_IMPLEMENTED, MISSING):
        return ""
    return SLOW_HINT if outcome.state == TOO_SLOW else test.hint


def notes_on(test: Test, outcome: Outcome) -> list[tuple[str, str]]:
    """Explain a test that did not pass, as (heading, text), in the order in which a learner needs it.

    The hint is kept until there is an answer that it could help.
    """
    if outcome.state in (NOT_IMPLEMENTED, MISSING):
        return [("To do", outcome.message)]
    hint = ("Hint", hint_for(test, outcome))
    if outcome.expected:
        return [hint, ("Expected", outcome.expected), ("Got", outcome.actual)]
    happened = [("What happened", outcome.message)] if outcome.message else []
    return [*happened, hint] if outcome.state in (CRASHED, TOO_SLOW) else [hint, *happened]


def outcome_of(test: str, error: BaseException | None, checks: Mapping[str, Any] | None = None) -> Outcome:
    """Classify what a test raised; an exception that cannot even be printed is classified too.

    Args:
        test: the test's name.
        error: what it raised, or None if it passed.
        checks: the names of the test's module, so that a crash is told by the line of the answer it came from.
    """
    if error is None:
        return Outcome(test, PASSED)
    if isinstance(error, MissingAnswer):
        return Outcome(test, MISSING, _text(error))
    if isinstance(error, NotRun):
        return Outcome(test, TOO_SLOW, _text(error))
    if isinstance(error, NotImplementedError) and _is_a_stubs(error):
        return Outcome(test, NOT_IMPLEMENTED, f"{_text(error) or 'the answer'} is not written yet")
    if isinstance(error, CheckFailure):
        return Outcome(test, WRONG, shorten(str(error)), shorten(error.expected), shorten(error.actual))
    if isinstance(error, AssertionError):
        return Outcome(test, WRONG, _text(error))
    if _is_pytests_failure(error):
        slow = _text(error).startswith("Timeout (>")
        return Outcome(test, TOO_SLOW if slow else WRONG, _slow_message(error) if slow else _text(error))
    what = f"{type(error).__name__}: {_text(error)}".rstrip(": ")
    return Outcome(test, CRASHED, shorten(f"{what}{_line_of_the_answer(error, checks)}"))


def _is_a_stubs(error: NotImplementedError) -> bool:
    """Return whether this is what a stub raises, and not what a library says of a method that it misses."""
    return not _text(error) or _text(error).startswith("Exercise ")


def shorten(text: str) -> str:
    """Cut a text to a card's size, without what cannot be printed or differs from run to run.

    Lone surrogates, which no encoding has, are escaped; memory addresses are taken out.
    """
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text).strip()
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…"


def _line_of_the_answer(error: BaseException, checks: Mapping[str, Any] | None) -> str:
    """Return the last line that ran in the module of the function that the test called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    inside = [position for position, (frame, _) in enumerate(frames) if frame.f_globals is checks]
    called = frames[inside[-1] + 1 :] if inside else []
    own = [(frame, line) for frame, line in called if frame.f_globals is called[0][0].f_globals]
    if not own:
        return ""
    frame, line = own[-1]
    return f"\nin line {line}: {linecache.getline(frame.f_code.co_filename, line).strip()}"


def _is_pytests_failure(error: BaseException) -> bool:
    import pytest

    return isinstance(error, pytest.fail.Exception)


def _slow_message(error: BaseException) -> str:
    seconds = re.search(r"[\d.]+", _text(error))
    return f"still running after {float(seconds[0]):g} s" if seconds else "still running"


def _text(error: BaseException) -> str:
    try:
        return shorten(str(error))
    except Exception:
        return shorten(brief(error))
