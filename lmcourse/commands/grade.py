"""`lmcourse grade`: run a notebook's answers through the checks, and print a table of points."""

import argparse
import json
import math
from pathlib import Path

from lmcourse.cli import UsageError
from lmcourse.grading.chapters import UnknownChapter, find_chapter
from lmcourse.grading.engine import DEFAULT_TIMEOUT_SECONDS
from lmcourse.grading.grader import ExerciseGrade, GradingError, Report, grade
from lmcourse.grading.notebook import CellFailure, NotebookError
from lmcourse.grading.outcomes import CRASHED, MISSING, NOT_IMPLEMENTED, PASSED, TOO_SLOW, hint_for

_STYLES = {PASSED: "green", NOT_IMPLEMENTED: "yellow", MISSING: "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the notebook and the options."""
    parser.epilog = (
        "The exit status is 0 when the notebook was graded, whatever its points, and 2 when it cannot be."
    )
    parser.add_argument("notebook", type=Path, help="the notebook to grade")
    parser.add_argument(
        "--chapter", metavar="NN", help="the chapter's number; default: what the notebook says"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the report as JSON; - prints it instead of the table"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        help="how long one test may take (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Grade and print."""
    try:
        chapter = find_chapter(args.chapter) if args.chapter else None
        report = grade(args.notebook, chapter, test_seconds=args.timeout)
    except (GradingError, NotebookError, UnknownChapter) as error:
        raise UsageError(str(error)) from None
    if args.json == "-":
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
        return 0
    if args.json:
        _write_json(report, Path(args.json))
    print_report(report)
    return 0


def print_report(report: Report) -> None:
    """Print a table with a line for each exercise, and below it what the teacher should look at."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{Path(report.notebook).name}: {report.points:g} of {report.out_of:g} points")
    for column in ("Exercise", "Points", "State", "Why"):
        table.add_column(column, justify="right" if column == "Points" else "left")
    for exercise in report.exercises:
        state = Text(exercise.state, style=_STYLES.get(exercise.state, "red"))
        points = f"{exercise.points:g} of {exercise.out_of:g}"
        table.add_row(exercise.number, points, state, Text(_why(exercise)))
    console = Console()
    console.print(table)
    for line in _remarks(report):
        console.print(line, markup=False, highlight=False)


def _why(exercise: ExerciseGrade) -> str:
    """Return what the learner should read about the first failure."""
    if exercise.failure is None:
        return ""
    test, outcome = exercise.failure
    if outcome.state in (MISSING, NOT_IMPLEMENTED):
        return outcome.message
    hint = f"Hint: {hint_for(test, outcome)}"
    return f"{outcome.message}\n{hint}" if outcome.state in (CRASHED, TOO_SLOW) else hint


def _remarks(report: Report) -> list[str]:
    flags = [
        f"Exercise {exercise.number}: `{flag.answer}` uses {flag.uses}"
        + (f" ({flag.cell}, line {flag.line}: {flag.source})" if flag.source else "")
        for exercise in report.exercises
        for flag in exercise.flags
    ]
    return flags + [f"{_place(failure)} failed: {failure.error}" for failure in report.failed_cells]


def _place(failure: CellFailure) -> str:
    exercise = f" (exercise {failure.exercise})" if failure.exercise else ""
    return f"Code cell {failure.cell}{exercise}"


def _write_json(report: Report, path: Path) -> None:
    try:
        path.write_text(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above zero; got {text!r}")
    return seconds
