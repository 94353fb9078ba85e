"""`lmcourse grade`: run the answers of a notebook, or of a class, through the checks, and print a table of points."""

import argparse
import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmcourse.cli import UsageError
from lmcourse.files import write_text
from lmcourse.grading.chapters import Chapter, UnknownChapter, find_chapter
from lmcourse.grading.engine import DEFAULT_TIMEOUT_SECONDS, ChecksError
from lmcourse.grading.grader import ExerciseGrade, GradingError, Report, chapter_of_notebook, grade
from lmcourse.grading.handed_in import ClassError, Submission
from lmcourse.grading.notebook import CellFailure, NotebookError, read_notebook
from lmcourse.grading.outcomes import CRASHED, MISSING, NOT_IMPLEMENTED, PASSED, TOO_SLOW, hint_for
from lmcourse.grading.submissions import Graded
from lmcourse.paths import PACKAGE

if TYPE_CHECKING:
    from lmcourse.grading.reports import Similarities

_CLASS_COLUMNS = ("Learner", "Points", "To look at", "Not passed")
_PORTION = 50

_STYLES = {PASSED: "green", NOT_IMPLEMENTED: "yellow", MISSING: "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the notebook and the options."""
    parser.epilog = (
        "The exit status is 0 when the notebook was graded, whatever its points, and 2 when it cannot be. A class is "
        "graded also where single submissions cannot be: each has its row."
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        type=Path,
        help="the notebook to grade; or a class: a folder of notebooks, or the zip of Moodle or Canvas",
    )
    parser.add_argument(
        "--chapter", metavar="NN", help="the chapter's number; default: what the notebook says"
    )
    parser.add_argument(
        "--hidden",
        metavar="FOLDER",
        type=Path,
        help="your own checks besides the course's, in files called like its own (ch01_ngram.py)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where a class's reports go (default: grades)"
    )
    parser.add_argument(
        "--columns",
        choices=("plain", "canvas", "moodle"),
        default="plain",
        help="whose gradebook results.csv is for (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("reports", "gradescope"),
        default="reports",
        help="gradescope: write only its results.json, for one submission (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", metavar="N", type=_count, help="how many submissions at a time (default: the cores)"
    )
    parser.add_argument(
        "--again", action="store_true", help="grade also what has not changed since the last run"
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
        if _is_class(args):
            return _grade_class(args, chapter)
        return _grade_one(args, chapter)
    except (ChecksError, ClassError, GradingError, NotebookError, UnknownChapter) as error:
        raise UsageError(str(error)) from None


def _grade_one(args: argparse.Namespace, chapter: Chapter | None) -> int:
    notebook = args.paths[0]
    hidden = None
    if args.hidden:
        chapter = chapter or chapter_of_notebook(notebook, read_notebook(notebook))
        hidden = _hidden_checks(args.hidden, chapter)
    report = grade(notebook, chapter, test_seconds=args.timeout, hidden=hidden)
    if args.json == "-":
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
        return 0
    if args.json:
        _write_json(report, Path(args.json))
    print_report(report)
    return 0


def _is_class(args: argparse.Namespace) -> bool:
    first = args.paths[0]
    return (
        len(args.paths) > 1
        or first.is_dir()
        or first.suffix.lower() == ".zip"
        or args.out is not None
        or args.format == "gradescope"
    )


def _grade_class(args: argparse.Namespace, chapter: Chapter | None) -> int:
    from lmcourse.grading import reports
    from lmcourse.grading.classroom import JOURNAL, Limits, chapter_of_class, cores, grade_class, isolation
    from lmcourse.grading.handed_in import submissions_in
    from lmcourse.sandbox import missing, workspace

    if args.json:
        raise UsageError("--json is for one notebook; of a class, results.json holds all grades.")
    out = args.out or Path("grades")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}.") from None
    limits = Limits(test_seconds=args.timeout)
    gaps = missing()
    if gaps:
        print(gaps)
    with workspace() as scratch:
        submissions = submissions_in(args.paths, scratch, skip=out)
        if args.format == "gradescope" and len(submissions) != 1:
            raise UsageError(f"--format gradescope is for one submission; there are {len(submissions)}.")
        chapter = chapter or chapter_of_class(submissions)
        hidden = _hidden_checks(args.hidden, chapter) if args.hidden else None
        secret = [*args.paths, scratch, out, *([args.hidden] if args.hidden else [])]
        with _progress(len(submissions)) as advance:
            graded = grade_class(
                submissions,
                chapter,
                journal=out / JOURNAL,
                hidden=hidden,
                limits=limits,
                jobs=args.jobs or cores(),
                again=args.again,
                secret=[path for path in secret if not _holds_the_course(path)],
                on_graded=advance,
            )
        try:
            if args.format == "gradescope":
                text = json.dumps(reports.gradescope(graded[0]), indent=2, ensure_ascii=False)
                write_text(out / "results.json", f"{text}\n")
            else:
                meta = reports.provenance(
                    chapter,
                    hidden=args.hidden,
                    limits=dataclasses.asdict(limits),
                    isolation=[isolation(), *([gaps] if gaps else [])],
                )
                reports.write_reports(
                    graded,
                    out,
                    chapter=chapter,
                    columns=args.columns,
                    meta=meta,
                    similarities=_similarities(submissions, chapter),
                )
        except (OSError, reports.ReportsError) as error:
            raise UsageError(str(error)) from None
    if args.format == "gradescope":
        print(f"{out / 'results.json'}: {graded[0].points:g} points")
        return 0
    print_class(graded)
    print(
        f"Reports: {out / 'index.html'}, {out / 'results.csv'}; a page for each learner in {out / 'feedback'}"
    )
    return 0


def _holds_the_course(path: Path) -> bool:
    """Tell whether hiding a folder would hide the course itself, as when a clone is graded from within."""
    return PACKAGE.is_relative_to(path.resolve())


def _similarities(submissions: Sequence[Submission], chapter: Chapter) -> "Similarities | None":
    from lmcourse.grading.reports import Answers, find_similar

    if not chapter.exercises.exists():
        return None
    notebooks = {one.learner: one.notebook for one in submissions if one.notebook is not None}
    answers = Answers(notebooks, read_notebook(chapter.exercises))
    return find_similar(answers) if len(answers) > 1 else None


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[Graded], None]]:
    """Draw a bar on the terminal's error stream; in a file or pipe there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[learner]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, learner="")
        yield lambda graded: progress.update(task, advance=1, learner=graded.learner[:30])


def print_class(graded: Sequence[Graded]) -> None:
    """Print a table with a line for each learner, in portions: memory must not grow with the class."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    faults, widths = 0, [len(heading) for heading in _CLASS_COLUMNS]
    for one in graded:
        faults += bool(one.fault)
        widths = [max(width, len(cell)) for width, cell in zip(widths, _class_row(one), strict=True)]
    console = Console()
    widths = _fitting(widths, console.width)
    title = f"{len(graded)} submissions" + (f", {faults} of them could not be graded" if faults else "")
    for start in range(0, max(1, len(graded)), _PORTION):
        table = Table(title=None if start else title, show_header=not start, show_edge=False)
        for heading, width in zip(_CLASS_COLUMNS, widths, strict=True):
            table.add_column(heading, justify="right" if heading == "Points" else "left", width=width)
        for one in graded[start : start + _PORTION]:
            *cells, why = map(Text, _class_row(one))
            why.stylize("red" if one.fault else "")
            table.add_row(*cells, why)
        console.print(table)


def _fitting(widths: Sequence[int], width: int) -> list[int]:
    """Return what the columns get of a line: the same in every portion of the table, so that its rules meet."""
    learner, points, flags, why = widths
    room = width - 3 * (len(widths) - 1)  # a rule and a space on either side between two columns
    learner = min(learner, max(10, room // 3))
    return [learner, points, flags, min(why, max(10, room - learner - points - flags))]


def _class_row(one: Graded) -> list[str]:
    if one.report is None:
        return [one.learner, "", "", one.fault]
    flags = sum(len(exercise.flags) for exercise in one.report.exercises)
    failed = [exercise.number for exercise in one.report.exercises if exercise.state != PASSED]
    return [one.learner, f"{one.points:g} of {one.report.out_of:g}", str(flags or ""), ", ".join(failed)]


def _hidden_checks(folder: Path, chapter: Chapter) -> Path:
    """Return the teacher's own checks of a chapter."""
    found = sorted(folder.glob(f"ch{chapter.number}_*.py"))
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise UsageError(
            f"--hidden {folder} holds {what} ch{chapter.number}_*.py; it must hold one, such as {chapter.stem}.py."
        )
    return found[0]


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


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above zero; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above zero; got {text!r}")
    return seconds
