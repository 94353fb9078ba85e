"""What the learner sees: a card for an exercise, and one for a chapter."""

import contextlib
import dataclasses
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmcourse.grading import chapters
from lmcourse.grading.assertions import brief
from lmcourse.grading.engine import DEFAULT_TIMEOUT_SECONDS, ChecksError, collect, run_checks
from lmcourse.grading.exercise import chapter_of
from lmcourse.grading.outcomes import (
    MISSING,
    NOT_IMPLEMENTED,
    PASSED,
    SYMBOLS,
    WRONG,
    Outcome,
    Test,
    notes_on,
    shorten,
)
from lmcourse.grading.shortcuts import Shortcut, find_shortcuts

# These colours read on white and on black.
_COLOURS = {PASSED: "#1f9254", NOT_IMPLEMENTED: "#b07800", MISSING: "#b07800"}
_FAILED_COLOUR = "#d5493a"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a card: a state, what is in it, and its points."""

    state: str
    label: str
    points: str


@dataclasses.dataclass(frozen=True)
class Card:
    """The state of an exercise or of a chapter, as text and as HTML.

    Attributes:
        title: what the card is about, with the points.
        rows: one line for each test, or for each exercise.
        notes: (name, text) pairs below them: the hint, what was expected, what came.
    """

    title: str
    rows: Sequence[Row] = ()
    notes: Sequence[tuple[str, str]] = ()

    def __repr__(self) -> str:
        width = max((len(row.state) for row in self.rows), default=0)
        lines = [self.title]
        lines += [f"  {_symbol(r.state)} {r.state:<{width}}  {r.label} ({r.points})" for r in self.rows]
        lines += [f"{name}: {text}" if name else text for name, text in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(_html_row(row) for row in self.rows)
        table = f"<table style='margin:.3em 0;color:inherit'>{rows}</table>" if rows else ""
        notes = "".join(_html_note(name, text) for name, text in self.notes)
        return (
            "<div style='border-left:3px solid currentColor;padding:.2em .8em;max-width:50em'>"
            f"<strong>{html.escape(self.title)}</strong>{table}{notes}</div>"
        )


def check(
    number: str, namespace: Mapping[str, Any] | None = None, *, timeout: float = DEFAULT_TIMEOUT_SECONDS
) -> Card:
    """Test your answer to an exercise; call it in the notebook, after the answer.

    Whatever the answer does, this returns a card; only an interruption by you passes through.

    Args:
        number: the exercise, as in "1.3".
        namespace: where your functions are; default: the notebook, or the module that calls.
        timeout: how long one test may take, in seconds.

    Returns:
        A card that shows itself in the notebook.
    """
    names = _namespace(sys._getframe(1).f_globals) if namespace is None else namespace
    return _card("Exercise", _exercise_card, number, names, timeout)


def progress(
    chapter: str, namespace: Mapping[str, Any] | None = None, *, timeout: float = DEFAULT_TIMEOUT_SECONDS
) -> Card:
    """Test all answers of a chapter, as `check` does one.

    Args:
        chapter: its number, as in "01".
        namespace: where your functions are; default: the notebook, or the module that calls.
        timeout: how long one test may take, in seconds.

    Returns:
        A card with a line for each exercise.
    """
    names = _namespace(sys._getframe(1).f_globals) if namespace is None else namespace
    return _card("Chapter", _chapter_card, chapter, names, timeout)


def state_of(outcomes: Sequence[Outcome]) -> str:
    """Return the state of an exercise: passed, or the state of the first test that did not pass."""
    return next((outcome.state for outcome in outcomes if outcome.state != PASSED), PASSED)


def points_text(points: float) -> str:
    """Write points as people do.

    Example:
        >>> points_text(1), points_text(2.5)
        ('1 point', '2.5 points')
    """
    return f"{points:g} point{'' if points == 1 else 's'}"


def _card(
    what: str,
    make: Callable[[str, Mapping[str, Any], float], Card],
    number: str,
    namespace: Mapping[str, Any],
    timeout: float,
) -> Card:
    """Make a card; what cannot be checked has one too."""
    try:
        return make(number, namespace, timeout)
    except Exception as error:
        return _fault(f"{what} {number}", error)


def _exercise_card(number: str, namespace: Mapping[str, Any], timeout: float) -> Card:
    if not isinstance(number, str):
        raise ValueError(
            f'number must be a string, check("1.10"), for the float 1.10 is 1.1; got {brief(number)}.'
        )
    number = number.strip()
    if meant := _with_a_dot(number):
        return Card(f"There is no exercise {number}", notes=[("", f"Did you mean {' or '.join(meant)}?")])
    chapter = chapters.find_chapter(chapter_of(number))
    tests, outcomes = run_checks(chapter.checks, namespace, number=number, timeout=timeout)
    if not outcomes:
        numbers = ", ".join(dict.fromkeys(test.number for test in tests))
        return Card(
            f"There is no exercise {number}", notes=[("", f"Chapter {chapter.number} has {numbers}.")]
        )
    by_name = {test.name: test for test in tests}
    rows = [
        Row(outcome.state, by_name[outcome.test].title, points_text(by_name[outcome.test].points))
        for outcome in outcomes
    ]
    own = [test for test in tests if test.number == number]
    notes = [*_failure_notes(by_name, outcomes), *_shortcut_notes(own, namespace)]
    return Card(f"Exercise {number}: {_points(by_name, outcomes)}", rows, notes)


def _with_a_dot(number: str) -> list[str]:
    """Return the exercises that a number without its dot may stand for."""
    meant = []
    for cut in range(1, len(number)):
        candidate = f"{number[:cut]}.{number[cut:]}"
        with contextlib.suppress(ValueError):
            chapter = chapters.find_chapter(chapter_of(candidate))
            if any(test.number == candidate for test in collect(chapter.checks)):
                meant.append(candidate)
    return meant


def _chapter_card(number: str, namespace: Mapping[str, Any], timeout: float) -> Card:
    chapter = chapters.find_chapter(number)
    tests, outcomes = run_checks(chapter.checks, namespace, timeout=timeout)
    by_name = {test.name: test for test in tests}
    rows = []
    for exercise in dict.fromkeys(test.number for test in tests):
        own = [outcome for outcome in outcomes if by_name[outcome.test].number == exercise]
        rows.append(Row(state_of(own), f"exercise {exercise}", _points(by_name, own)))
    return Card(f"Chapter {chapter.number}: {_points(by_name, outcomes)}", rows)


def _points(tests: Mapping[str, Test], outcomes: Sequence[Outcome]) -> str:
    earned = sum(tests[outcome.test].points for outcome in outcomes if outcome.state == PASSED)
    return f"{earned:g} of {points_text(sum(tests[outcome.test].points for outcome in outcomes))}"


def _failure_notes(tests: Mapping[str, Test], outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Explain the first failure."""
    failure = next((outcome for outcome in outcomes if outcome.state != PASSED), None)
    return notes_on(tests[failure.test], failure) if failure else []


def _shortcut_notes(tests: Sequence[Test], namespace: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            "Note",
            f"your `{shortcut.answer}` uses {shortcut.uses}{_line(shortcut)}; the exercise is to write it.",
        )
        for shortcut in shortcuts_of(tests, namespace)
    ]


def shortcuts_of(tests: Sequence[Test], namespace: Mapping[str, Any]) -> list[Shortcut]:
    """Return where the answers to an exercise use lmcourse's own version.

    Args:
        tests: the exercise's tests.
        namespace: what the learner's notebook defines.
    """
    allow = {name for test in tests for name in test.allow}
    names = dict.fromkeys(name for test in tests for name in test.answers if name in namespace)
    return [shortcut for name in names for shortcut in find_shortcuts(name, namespace[name], allow)]


def _line(shortcut: Shortcut) -> str:
    return f" (line {shortcut.line}: {shortcut.source})" if shortcut.source else ""


def _fault(title: str, error: Exception) -> Card:
    ours = isinstance(error, ValueError | ChecksError)
    text = str(error) if ours else f"{type(error).__name__}: {error}"
    return Card(title, notes=[("This could not be checked", shorten(text))])


def _namespace(callers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the notebook's names where there is a notebook, else the caller's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell.user_ns if shell else callers


def _symbol(state: str) -> str:
    return SYMBOLS.get(state, SYMBOLS[WRONG])


def _html_row(row: Row) -> str:
    colour = _COLOURS.get(row.state, _FAILED_COLOUR)
    cell = "style='text-align:left;padding:.1em .6em .1em 0'"
    return (
        f"<tr><td {cell}><span style='color:{colour}'>{_symbol(row.state)} {html.escape(row.state)}</span></td>"
        f"<td {cell}>{html.escape(row.label)}</td><td {cell}>{html.escape(row.points)}</td></tr>"
    )


def _html_note(name: str, text: str) -> str:
    lead = f"<em>{html.escape(name)}:</em> " if name else ""
    return f"<div style='white-space:pre-wrap'>{lead}{html.escape(text)}</div>"
