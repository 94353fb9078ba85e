"""Grades a class: each submission isolated, several at a time, and only what has changed since the last run."""

import contextlib
import dataclasses
import hashlib
import json
import os
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lmcourse import __version__
from lmcourse.grading.chapters import Chapter, UnknownChapter, chapter_number_in, find_chapter
from lmcourse.grading.engine import DEFAULT_TIMEOUT_SECONDS, ChecksError
from lmcourse.grading.grader import (
    CELL_SECONDS,
    TOTAL_SECONDS,
    Confinement,
    GradingError,
    Report,
    confined_environment,
    find_tests,
    grade,
)
from lmcourse.grading.handed_in import ClassError, Submission
from lmcourse.grading.journal import Grades, Journal
from lmcourse.grading.notebook import NotebookError, read_notebook
from lmcourse.grading.submissions import Graded
from lmcourse.paths import PACKAGE, course_root

if TYPE_CHECKING:
    from lmcourse.grading.warm import Warm

JOURNAL = "journal.jsonl"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a submission may take.

    Attributes:
        test_seconds: one test.
        cell_seconds: one cell.
        total_seconds: all of it, restarts included.
        memory: bytes that its processes may hold together.
        processes: how many there may be.
    """

    test_seconds: float = DEFAULT_TIMEOUT_SECONDS
    cell_seconds: float = CELL_SECONDS
    total_seconds: float = TOTAL_SECONDS
    memory: int = 2 * 1024**3
    processes: int = 32


def grade_class(
    submissions: Sequence[Submission],
    chapter: Chapter,
    *,
    journal: Path,
    hidden: Path | None = None,
    limits: Limits | None = None,
    jobs: int = 1,
    again: bool = False,
    secret: Sequence[Path] = (),
    on_graded: Callable[[Graded], None] = lambda graded: None,
) -> Grades:
    """Grade what a class handed in.

    What cannot be graded becomes a `Graded` with a fault; nothing in a submission ends the run. Every grade is kept
    in the journal at once, so that a run that was interrupted goes on where it was.

    Args:
        submissions: as `submissions_in` returns them.
        chapter: whose exercises they are.
        journal: the file of grades already given; made if it is not there.
        hidden: a module of the teacher's own checks.
        limits: what each may take.
        jobs: how many to grade at a time.
        again: grade also what has not changed.
        secret: files and folders that no submission may read; the course's solutions and checks are such anyway.
        on_graded: called after each, in this thread.

    Returns:
        The grades, in the order of the submissions, to be read from the journal one at a time.

    Raises:
        ChecksError: if the checks cannot be run, before any answer has.
        ValueError: if jobs is not above zero.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1; got {jobs}.")
    limits = limits or Limits()
    confinement = Confinement(
        hidden=(*hidden_places(), *([hidden] if hidden else []), journal, *secret),
        memory=limits.memory,
        processes=limits.processes,
    )
    kept = Journal(journal)
    grades = Grades(kept, submissions)
    with _warm(chapter, hidden, jobs) as warm:
        grading = _Class(chapter, hidden, limits, confinement, None if again else kept, warm)
        for number, (key, place, graded) in _in_parallel(grading.grade, submissions, jobs):
            if key and place is None:
                place = kept.add(key, graded)
            grades.set(number, graded, place)
            on_graded(graded)
    return grades


def isolation() -> str:
    """Return how submissions are isolated here: copies of a warm process in namespaces, else as the sandbox can."""
    from lmcourse.grading.warm import possible
    from lmcourse.sandbox import capabilities

    return capabilities("fork" if possible() else "run").how


def hidden_places() -> tuple[Path, ...]:
    """Return what no submission may read: the solutions, the checks, and what tests them."""
    root = course_root()
    return PACKAGE / "grading" / "checks", root / "solutions", root / "tests", root / ".git"


def chapter_of_class(submissions: Sequence[Submission]) -> Chapter:
    """Return the chapter that most of the notebooks are for.

    Raises:
        ClassError: if none says it.
    """
    said = Counter(filter(None, map(_chapter_said, submissions)))
    for number, _ in said.most_common():
        try:
            return find_chapter(number)
        except UnknownChapter:
            continue
    raise ClassError("No notebook says which chapter it is for: add --chapter NN.")


def _chapter_said(submission: Submission) -> str | None:
    """Return the chapter in a notebook's metadata, else in its file's name."""
    if submission.notebook is None:
        return None
    try:
        course = read_notebook(submission.notebook).metadata.get("lmcourse")
    except NotebookError:
        return None
    number = course.get("chapter") if isinstance(course, dict) else None
    return str(number) if number else chapter_number_in(PurePosixPath(submission.source).name)


class _Class:
    """Grades single submissions, from several threads."""

    def __init__(
        self,
        chapter: Chapter,
        hidden: Path | None,
        limits: Limits,
        confinement: Confinement,
        known: Journal | None,
        warm: "Sequence[Warm]" = (),
    ):
        self.chapter = chapter
        self.hidden = hidden
        self.limits = limits
        self.confinement = confinement
        self.known = known
        self._warm: queue.SimpleQueue[Warm] = queue.SimpleQueue()  # those that nobody uses now
        for process in warm:
            self._warm.put(process)
        self._rules = hashlib.sha256(
            json.dumps([__version__, chapter.stem, dataclasses.asdict(limits)]).encode()
        )
        for checks in (chapter.checks, hidden):
            self._rules.update(checks.read_bytes() if checks else b"")
            self._rules.update(b"\0")
        self._one_at_a_time = threading.Lock()
        self._checks_run = False

    def grade(self, submission: Submission) -> tuple[str, int | None, Graded]:
        """Return the key for the journal ("" for what it does not keep), where it has the grade, and the grade."""
        start = time.monotonic()
        key, report, fault, seconds = "", None, submission.fault, 0.0
        if submission.notebook is not None:
            try:
                key = self._key(submission.notebook)
                place = self.known.place(key) if self.known else None
                if place is not None:
                    return key, place, self.known.read(place, submission)
                report = self._report(submission)
            except (GradingError, NotebookError, UnknownChapter) as error:
                fault = str(error).replace(str(submission.notebook), PurePosixPath(submission.source).name)
            except ChecksError:
                raise
            except Exception as error:  # the grader's own fault: the rest of the class must not suffer for it
                key, fault = "", f"the grader failed: {type(error).__name__}: {error}"
            seconds = time.monotonic() - start
        graded = Graded(submission.learner, submission.source, report, " ".join(fault.split()), seconds)
        return key, None, graded

    def _key(self, notebook: Path) -> str:
        rules = self._rules.copy()
        with notebook.open("rb") as file:
            rules.update(hashlib.file_digest(file, "sha256").digest())
        return rules.hexdigest()

    def _report(self, submission: Submission) -> Report:
        from lmcourse.sandbox import workspace

        said = _chapter_said(submission)
        if said and said.removeprefix("ch").zfill(2) != self.chapter.number:
            raise GradingError(f"it is for chapter {said[:20]}, not for {self.chapter.number}.")
        with workspace() as folder:
            copy = folder / "notebook.ipynb"
            shutil.copyfile(submission.notebook, copy)
            try:
                report = self._graded(copy)
            except (GradingError, NotebookError) as error:
                name = PurePosixPath(submission.source).name
                raise GradingError(str(error).replace(str(copy), name).replace(copy.name, name)) from None
        return dataclasses.replace(report, notebook=submission.source)

    def _graded(self, notebook: Path) -> Report:
        with self._a_warm_process() as warm:
            self._see_that_the_checks_run(warm)
            return grade(
                notebook,
                self.chapter,
                test_seconds=self.limits.test_seconds,
                cell_seconds=self.limits.cell_seconds,
                total_seconds=self.limits.total_seconds,
                hidden=self.hidden,
                confinement=self.confinement,
                warm=warm,
            )

    def _see_that_the_checks_run(self, warm: "Warm | None") -> None:
        """Raise if they do not; looked at once, and only where something has to be graded."""
        with self._one_at_a_time:
            if not self._checks_run:
                find_tests(self.chapter, hidden=self.hidden, confinement=self.confinement, warm=warm)
                self._checks_run = True

    @contextlib.contextmanager
    def _a_warm_process(self) -> "Iterator[Warm | None]":
        """Borrow one that is ready, if there are any."""
        try:
            warm = self._warm.get_nowait()
        except queue.Empty:
            yield None
            return
        try:
            yield warm if warm.ready() else None
        finally:
            self._warm.put(warm)


@contextlib.contextmanager
def _warm(chapter: Chapter, hidden: Path | None, jobs: int) -> "Iterator[Sequence[Warm]]":
    """Provide a process to copy for each job, where copies can be isolated."""
    from lmcourse.grading.warm import Warm, expensive_imports, possible

    if not possible():
        yield []
        return
    sources = [checks.read_text(encoding="utf-8") for checks in (chapter.checks, hidden) if checks]
    for notebook in (chapter.exercises, course_root() / "solutions" / chapter.exercises.name):
        if notebook.exists():
            sources += read_notebook(notebook).code
    with contextlib.ExitStack() as stack:
        modules, environment = expensive_imports(sources), confined_environment()
        yield [stack.enter_context(Warm(modules, environment)) for _ in range(jobs)]


def _in_parallel(
    work: Callable[[Submission], Any], submissions: Sequence[Submission], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Yield what becomes of each, numbered, as soon as it is there.

    The threads are daemons: when the user interrupts the run, nobody waits for them, and what they started ends with
    this process.
    """
    todo: queue.SimpleQueue[tuple[int, Submission] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def take() -> None:
        while (item := todo.get()) is not None:
            number, submission = item
            try:
                done.put((number, work(submission)))
            except BaseException as error:
                done.put((number, error))

    for item in enumerate(submissions):
        todo.put(item)
    for _ in range(jobs):
        todo.put(None)
        threading.Thread(target=take, daemon=True).start()
    for _ in submissions:
        number, result = done.get()
        if isinstance(result, BaseException):
            raise result
        yield number, result


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
