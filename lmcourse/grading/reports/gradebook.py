"""The class as a table for a spreadsheet, or for the gradebook of Canvas or Moodle."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from lmcourse.grading.reports.words import (
    clean,
    flags_of,
    notes_on,
    one_line,
    overview,
    points_of,
    state_of,
)
from lmcourse.grading.submissions import Graded

# What a spreadsheet takes for the start of a formula, with the full-width forms that some take for it too.
# Source: OWASP, "CSV Injection", https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = tuple("=+-@\t＝＋－＠")

# How Canvas names what it hands out: NAME, at times LATE, the user's ID, the submission's ID, the learner's own
# file name.
_CANVAS_FILE = re.compile(r"[^_/]+_(?:LATE_)?(\d+)_\d+_[^/]*$")
# How Moodle names the folder of a participant.
_MOODLE_FOLDER = re.compile(r"(?:^|/)[^/]*_(\d+)_assignsubmission_(?:file|onlinetext)")


def gradebook(
    graded: Sequence[Graded], columns: str = "plain", *, assignment: str = "Chapter"
) -> Iterator[str]:
    """Return the class as CSV, piece by piece: UTF-8 without a byte order mark, one row a learner.

    `plain`: learner, points, out_of, the points of each exercise, flags (how many), fault.

    `canvas`: the columns of Canvas's gradebook export, which its import asks for, and the row of points possible.
    Canvas finds a student by ID, SIS User ID or SIS Login ID, not by name. The ID is taken from the file's name
    where Canvas gave it (`lovelaceada_1234_5678_ch01.ipynb`); otherwise the learner's name as handed in is taken
    for the login, which is right only if the files are called so. Section is left empty.

    `moodle`: username, email, identifier, grade, feedback, for Grades > Import > CSV file, where the teacher says
    which column names the user and which is the grade. The learner's name as handed in stands under email where it
    holds an @, else under username; the identifier, as in "Participant 1234", is taken from the folder where Moodle
    gave it.

    A submission that could not be graded has no grade in Canvas's and Moodle's columns, not a zero: what it
    deserves is the teacher's to say. A text that a spreadsheet would run as a formula gets an apostrophe in front.

    Args:
        graded: the class; read several times.
        columns: plain, canvas or moodle.
        assignment: the heading of Canvas's column of grades; with the assignment's ID in parentheses, as in
            "Chapter 1 (4711)", Canvas finds the assignment, otherwise it offers to make one.

    Raises:
        ValueError: if columns is none of these.
    """
    if columns not in COLUMNS:
        raise ValueError(f"columns must be one of {', '.join(COLUMNS)}; got {columns!r}.")
    return map(_as_csv, COLUMNS[columns](graded, assignment))


def _as_csv(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_harmless(cell) for cell in row])
    return text.getvalue()


def _plain(graded: Sequence[Graded], assignment: str) -> Iterator[list[str]]:
    whole = overview(graded)
    yield ["learner", "points", "out_of", *whole.numbers, "flags", "fault"]
    for one in graded:
        earned = {e.number: points_of(e.points) for e in one.report.exercises} if one.report else {}
        yield [
            one_line(one.learner),
            points_of(one.points),
            points_of(whole.out_of),
            *(earned.get(number, "") for number in whole.numbers),
            str(flags_of(one)),
            one_line(one.fault, 400),
        ]


def _canvas(graded: Sequence[Graded], assignment: str) -> Iterator[list[str]]:
    yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", one_line(assignment)]
    # Canvas tells this row from a student by these words; its export indents them.
    yield ["    Points Possible", "", "", "", "", points_of(overview(graded).out_of)]
    for one in graded:
        found = _CANVAS_FILE.search(one.source)
        learner = one_line(one.learner)
        grade = points_of(one.points) if one.report else ""
        yield [learner, found[1] if found else "", "", "" if found else learner, "", grade]


def _moodle(graded: Sequence[Graded], assignment: str) -> Iterator[list[str]]:
    yield ["username", "email", "identifier", "grade", "feedback"]
    for one in graded:
        learner = one_line(one.learner)
        found = _MOODLE_FOLDER.search(one.source)
        yield [
            "" if "@" in learner else learner,
            learner if "@" in learner else "",
            f"Participant {found[1]}" if found else "",
            points_of(one.points) if one.report else "",
            _feedback(one),
        ]


def _feedback(one: Graded) -> str:
    """Return a line for each exercise: a gradebook has no room for a page."""
    if one.report is None:
        return clean(one.fault)
    lines = []
    for exercise in one.report.exercises:
        earned = f"{points_of(exercise.points)} of {points_of(exercise.out_of)}"
        hint = next((f" Hint: {text}" for name, text in notes_on(exercise) if name == "Hint"), "")
        lines.append(f"{exercise.number}: {earned}, {state_of(exercise)}.{hint}")
    return "\n".join(lines)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) else cell


COLUMNS: dict[str, Callable[[Sequence[Graded], str], Iterator[list[str]]]] = {
    "plain": _plain,
    "canvas": _canvas,
    "moodle": _moodle,
}
