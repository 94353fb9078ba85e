"""Grades a notebook in a fresh process, and starts another one when the notebook's code kills or blocks it."""

import contextlib
import dataclasses
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcourse.grading.chapters import Chapter, chapter_number_in, find_chapter
from lmcourse.grading.engine import DEFAULT_TIMEOUT_SECONDS, ChecksError
from lmcourse.grading.notebook import CellFailure, Notebook, NotebookError, read_notebook
from lmcourse.grading.outcomes import CRASHED, MISSING, PASSED, TOO_SLOW, Outcome, Test, hint_for
from lmcourse.grading.shortcuts import Shortcut
from lmcourse.grading.tampering import suspicious
from lmcourse.paths import PACKAGE, cache_root

if TYPE_CHECKING:
    from lmcourse.grading.warm import Warm, WarmProcess
    from lmcourse.sandbox import Completed, Process

# A cell may import TensorFlow, which takes up to 10 s on a busy machine, and train something small.
CELL_SECONDS = 60.0
# For the whole notebook, restarts included.
TOTAL_SECONDS = 600.0
# What the process gets to stop by itself before it is killed, and to start.
GRACE_SECONDS = 3.0
START_SECONDS = 60.0
# The longest event, a list of a chapter's tests, has tens of kilobytes.
_LINE_BYTES = 4_000_000
_DONE = "done"


class GradingError(Exception):
    """The notebook cannot be graded; the message says why in one line."""


@dataclasses.dataclass(frozen=True)
class Confinement:
    """What a submission is kept from, besides the network and files outside its folder.

    Attributes:
        hidden: files and folders that it must not read.
        memory: bytes that its processes may hold together.
        processes: how many there may be.
    """

    hidden: tuple[Path, ...] = ()
    memory: int = 2 * 1024**3
    processes: int = 32


@dataclasses.dataclass(frozen=True)
class ExerciseGrade:
    """What became of one exercise.

    Attributes:
        number: as in "1.3".
        tests: its tests, in the order of the checks.
        outcomes: what became of each.
        flags: where an answer uses lmcourse's own version; costs no points.
    """

    number: str
    tests: Sequence[Test]
    outcomes: Sequence[Outcome]
    flags: Sequence[Shortcut] = ()

    @property
    def points(self) -> float:
        """The points of the tests that passed."""
        return sum(
            test.points
            for test, outcome in zip(self.tests, self.outcomes, strict=True)
            if outcome.state == PASSED
        )

    @property
    def out_of(self) -> float:
        """The points of all tests."""
        return sum(test.points for test in self.tests)

    @property
    def failure(self) -> tuple[Test, Outcome] | None:
        """The first test that did not pass, and its outcome."""
        pairs = zip(self.tests, self.outcomes, strict=True)
        return next((pair for pair in pairs if pair[1].state != PASSED), None)

    @property
    def state(self) -> str:
        """Passed, or the state of the first test that did not."""
        return self.failure[1].state if self.failure else PASSED

    def as_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        tests = [
            {
                "name": test.name,
                "points": test.points if outcome.state == PASSED else 0,
                "out_of": test.points,
                "state": outcome.state,
                "hint": hint_for(test, outcome),
                "message": outcome.message,
                "expected": outcome.expected,
                "actual": outcome.actual,
            }
            for test, outcome in zip(self.tests, self.outcomes, strict=True)
        ]
        return {
            "number": self.number,
            "points": self.points,
            "out_of": self.out_of,
            "state": self.state,
            "tests": tests,
            "flags": [dataclasses.asdict(flag) for flag in self.flags],
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a notebook.

    Attributes:
        notebook: its path.
        chapter: the chapter's number in two digits.
        exercises: one grade for each exercise, in order.
        failed_cells: the code cells that raised, were too slow or killed the process.
    """

    notebook: str
    chapter: str
    exercises: Sequence[ExerciseGrade]
    failed_cells: Sequence[CellFailure]

    @property
    def points(self) -> float:
        """The points earned."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def out_of(self) -> float:
        """The points there are."""
        return sum(exercise.out_of for exercise in self.exercises)

    def as_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {
            "notebook": self.notebook,
            "chapter": self.chapter,
            "points": self.points,
            "out_of": self.out_of,
            "exercises": [exercise.as_json() for exercise in self.exercises],
            "failed_cells": [dataclasses.asdict(failure) for failure in self.failed_cells],
        }


def grade(
    notebook: Path,
    chapter: Chapter | None = None,
    *,
    test_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    cell_seconds: float = CELL_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
    hidden: Path | None = None,
    confinement: Confinement | None = None,
    warm: "Warm | None" = None,
) -> Report:
    """Grade one notebook.

    Its code runs in a process of its own, in the notebook's folder. When that process dies or hangs, the cell or
    test that was running is given up and a new process does the rest. Without `confinement` there is no other
    isolation: the code can do what its user can. It cannot pass off a line of its own as an outcome by writing to
    the process's output, for each line carries a token that it is not told; searching the memory that it shares
    with the tests, it could find that too.

    Args:
        notebook: the learner's notebook.
        chapter: whose exercises they are; default: what the notebook says (see `chapter_of_notebook`).
        test_seconds: how long one test may take.
        cell_seconds: how long one cell may take.
        total_seconds: how long everything may take; tests that are not reached count as too slow.
        hidden: a module of further checks, the teacher's own.
        confinement: what the code is kept from; None: nothing.
        warm: a process to copy instead of starting a fresh one; for confined code only.

    Raises:
        GradingError: if the notebook or its checks cannot be run, or it defines none of the answers.
        NotebookError: if the file is no notebook.
        UnknownChapter: if it is for no chapter with exercises.
    """
    notebook = Path(notebook).resolve()
    contents = read_notebook(notebook)
    chapter = chapter or chapter_of_notebook(notebook, contents)
    if not contents.code:
        raise GradingError(f"{notebook.name} has no code cell, so no answer.")
    grading = _Grading(
        notebook,
        contents,
        chapter,
        test_seconds,
        cell_seconds,
        time.monotonic() + total_seconds,
        hidden,
        confinement,
        warm,
    )
    grading.run()
    if not grading.defined:
        names = ", ".join(dict.fromkeys(name for test in grading.tests for name in test.answers))
        failures = "; ".join(_told(failure) for failure in grading.failures())
        raise GradingError(
            f"{notebook.name} defines no answer to chapter {chapter.number}: none of {names}. "
            + (" ".join(f"{failures}.".split()) or "Is it the notebook of another chapter (--chapter)?")
        )
    return grading.report()


def find_tests(
    chapter: Chapter,
    *,
    hidden: Path | None = None,
    confinement: Confinement | None = None,
    warm: "Warm | None" = None,
) -> list[Test]:
    """Return the tests of a chapter, found where submissions are graded: checks that import Keras need it only there.

    Args:
        chapter: whose tests they are.
        hidden: a module of further checks.
        confinement: as for `grade`.
        warm: as for `grade`.

    Raises:
        ChecksError: if the checks cannot be run, which is no submission's fault.
    """
    from lmcourse.sandbox import workspace

    with workspace() as folder:
        nothing = Notebook([], [], {})
        deadline = time.monotonic() + TOTAL_SECONDS
        place = folder / chapter.checks.name
        grading = _Grading(
            place, nothing, chapter, START_SECONDS, CELL_SECONDS, deadline, hidden, confinement, warm
        )
        try:
            grading.run()
        except GradingError as error:
            raise ChecksError(str(error)) from None
    return grading.tests


def chapter_of_notebook(path: Path, contents: Notebook) -> Chapter:
    """Return the chapter whose exercises a notebook holds.

    The stubs carry it in their metadata (`lmcourse.chapter`), so a learner may rename the file; otherwise the
    file's name says it.

    Raises:
        NotebookError: if neither says it.
        UnknownChapter: if there is no such chapter.
    """
    course = contents.metadata.get("lmcourse")
    number = (isinstance(course, dict) and course.get("chapter")) or chapter_number_in(path.name)
    if not number:
        raise NotebookError(f"{path.name} does not say which chapter it is for: add --chapter NN.")
    return find_chapter(number)


class _Grading:
    """The state of a grading across the processes it takes."""

    def __init__(
        self,
        notebook: Path,
        contents: Notebook,
        chapter: Chapter,
        test_seconds: float,
        cell_seconds: float,
        deadline: float,
        hidden: Path | None = None,
        confinement: Confinement | None = None,
        warm: "Warm | None" = None,
    ):
        self.notebook = notebook
        self.contents = contents
        self.chapter = chapter
        self.test_seconds = test_seconds
        self.cell_seconds = cell_seconds
        self.deadline = deadline
        self.checks = [chapter.checks, *([hidden] if hidden else [])]
        self.confinement = confinement
        self.warm = warm
        self.tests: list[Test] = []
        self.outcomes: dict[str, Outcome] = {}
        self.defined: set[str] = set()
        self.flags: dict[str, list[Shortcut]] = {}
        self.tampered: dict[str, int] = {}
        self.failed_cells: dict[int, CellFailure] = {}
        self.given_up: set[int] = set()
        self.running: tuple[str, Any] | None = None
        self.over_a_limit = False
        self.tried_again: list[tuple[str, Any] | None] = []

    def run(self) -> None:
        """Start processes until every test has an outcome or the time is up."""
        while True:
            self.running = None
            end = self._one_process()
            if end is None:
                return
            if time.monotonic() >= self.deadline:
                self._out_of_time()
                return
            if not self._may_be_anothers_fault():
                self._give_up(*end)

    def _may_be_anothers_fault(self) -> bool:
        """Tell, once of each cell or test, that what was running may not be what passed a limit.

        Memory and processes are counted now and then: what took them may have ended a moment before, with its outcome
        told. Then the next process gets past it without; if it was no other's fault, it will happen again. The last
        cell that failed may have left processes behind, so the next process leaves it out.
        """
        if not self.over_a_limit or self.running in self.tried_again:
            return False
        self.tried_again.append(self.running)
        self.given_up.update(sorted(set(self.failed_cells) - self.given_up)[-1:])
        return True

    def failures(self) -> list[CellFailure]:
        """Return the cells that failed, in order."""
        return [self.failed_cells[cell] for cell in sorted(self.failed_cells)]

    def report(self) -> Report:
        """Gather the outcomes by exercise."""
        failed = self.failures()
        exercises = []
        reaching = self._reaching()
        for number in dict.fromkeys(test.number for test in self.tests):
            tests = [test for test in self.tests if test.number == number]
            culprit = next((failure for failure in failed if failure.exercise == number), None)
            outcomes = [_blame(culprit, self.outcomes[test.name]) for test in tests]
            flags = [*self.flags.get(number, []), *reaching.get(number, [])]
            exercises.append(ExerciseGrade(number, tests, outcomes, flags))
        return Report(str(self.notebook), self.chapter.number, exercises, failed)

    def _reaching(self) -> dict[str, list[Shortcut]]:
        """Return, by exercise, where the notebook reaches for the grader; the first one has what belongs to none."""
        provided = read_notebook(self.chapter.exercises).code if self.chapter.exercises.exists() else []
        found = suspicious(self.contents.code, self.contents.exercises, provided)
        for name, cell in self.tampered.items():
            known = [flag for flags in found.values() for flag in flags]
            if cell and not any(flag.uses.startswith(name) for flag in known):
                flag = Shortcut("the notebook", f"{name}, which it replaces", None, f"code cell {cell}")
                found.setdefault(self.contents.exercises[cell - 1], []).append(flag)
        numbers = list(dict.fromkeys(test.number for test in self.tests))
        for exercise in [exercise for exercise in found if exercise not in numbers]:
            found[numbers[0]] = [*found.pop(exercise), *found.get(numbers[0], [])]
        return found

    def _one_process(self) -> tuple[str, str] | None:
        """Follow one process; return None when it did everything, else (state, message) of what it was at."""
        job = {
            "cells": self.contents.code,
            "checks": [
                {"name": path.name, "source": path.read_text(encoding="utf-8")} for path in self.checks
            ],
            "skip_cells": sorted(self.given_up),
            "outcomes": [dataclasses.asdict(outcome) for outcome in self.outcomes.values()],
            "cell_seconds": self.cell_seconds,
            "test_seconds": self.test_seconds,
        }
        if self.confinement is not None:
            return self._one_confined_process(job, self.confinement)
        with _process(job, self.notebook.parent) as process:
            while True:
                try:
                    event = process.next_event(self._patience())
                except TimeoutError:
                    return TOO_SLOW, "did not stop when its time was up"
                if event is None:
                    return CRASHED, process.how_it_died()
                if event["event"] == "done":
                    return None
                self._take(event)

    def _one_confined_process(self, job: dict[str, Any], confinement: Confinement) -> tuple[str, str] | None:
        from lmcourse.grading.warm import WarmError
        from lmcourse.sandbox import OUT_OF_MEMORY, TOO_MANY_PROCESSES, SandboxError

        try:
            try:
                completed = self._follow(job, confinement)
            except WarmError:
                self.warm = self.running = None  # what it was at is no fault of the submission's
                completed = self._follow(job, confinement)
        except SandboxError as error:
            raise GradingError(f"{self.notebook.name} could not be isolated: {error}") from None
        self.over_a_limit = completed.why in (OUT_OF_MEMORY, TOO_MANY_PROCESSES)
        if completed.why == _DONE:
            return None
        if completed.why == TOO_SLOW:
            return TOO_SLOW, "did not stop when its time was up"
        return CRASHED, f"the process was ended: {completed.why}" if completed.why else _how(completed)

    def _follow(self, job: dict[str, Any], confinement: Confinement) -> "Completed":
        """Take the events of one confined process, and return how it ended."""
        inbox = _Inbox()
        done = False
        process: Process | WarmProcess

        def listen(data: bytes) -> None:
            nonlocal done
            for event in inbox.events(data):
                if event["event"] == "done":
                    done = True
                    process.kill(_DONE)
                else:
                    self._take(event)
                    process.due = time.monotonic() + self._patience()

        heard, told = os.pipe()
        try:
            with self._start({**job, "token": inbox.token}, told, confinement) as process:
                os.close(told)
                told = -1
                completed = process.wait({heard: listen})
        finally:
            os.close(heard)
            if told >= 0:
                os.close(told)
        return dataclasses.replace(completed, why=_DONE) if done else completed

    def _start(self, job: dict[str, Any], told: int, confinement: Confinement) -> "Process | WarmProcess":
        """Start a confined worker that tells its events to a descriptor."""
        from lmcourse import sandbox

        limits = sandbox.Limits(
            seconds=max(0.001, self._patience()),
            cpu_seconds=2 * TOTAL_SECONDS,
            memory=confinement.memory,
            processes=confinement.processes,
        )
        places = {
            "folder": self.notebook.parent,
            "hidden": confinement.hidden,
            "readable": (PACKAGE, cache_root()),
        }
        if self.warm is not None:
            return self.warm.start(json.dumps(job), told, limits=limits, **places)
        return sandbox.start(
            [sys.executable, "-P", "-m", "lmcourse.grading.worker"],
            input=json.dumps({**job, "events": told}),
            env=confined_environment(),
            keep=(told,),
            limits=limits,
            **places,
        )

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "fault":
            raise GradingError(event["message"])
        if kind == "cell":
            self.running = ("cell", event["cell"])
        elif kind == "cell_failed":
            self._cell_failed(**event)
        elif kind == "test":
            self.running = ("test", event["test"])
        elif kind == "outcome":
            if self.running == ("test", event["test"]):
                self.outcomes.setdefault(event["test"], Outcome(**event))
        elif kind == "tampered":
            self.tampered.setdefault(event["name"], event["cell"])
        elif kind == "collected":
            self.tests = [Test(**test) for test in event["tests"]]
            self.defined = set(event["defined"])
            self.flags = {
                number: [Shortcut(**flag) for flag in flags] for number, flags in event["flags"].items()
            }

    def _cell_failed(self, cell: int, error: str) -> None:
        self.failed_cells[cell] = CellFailure(cell, error, self.contents.exercises[cell - 1])

    def _patience(self) -> float:
        """Return how many seconds may pass before the next event."""
        limits = {"cell": self.cell_seconds, "test": self.test_seconds}
        limit = limits[self.running[0]] + GRACE_SECONDS if self.running else START_SECONDS
        return max(0.0, min(limit, self.deadline - time.monotonic()))

    def _give_up(self, state: str, message: str) -> None:
        """Leave out what was running, so that the next process gets further."""
        if self.running is None:
            raise GradingError(f"{self.notebook.name} could not be started: {message}.")
        kind, which = self.running
        if kind == "cell":
            self.given_up.add(which)
            self._cell_failed(which, message)
        elif which not in self.outcomes:
            self.outcomes[which] = Outcome(which, state, message)
        else:  # it died between two tests: the next one must not be lost to the same cause again and again
            after = next((test.name for test in self.tests if test.name not in self.outcomes), None)
            if after:
                self.outcomes[after] = Outcome(after, state, message)

    def _out_of_time(self) -> None:
        if not self.tests:
            raise GradingError(f"{self.notebook.name} ran for too long before its first test.")
        for test in self.tests:
            self.outcomes.setdefault(test.name, Outcome(test.name, TOO_SLOW, "the notebook's time was up"))


def _blame(failure: CellFailure | None, outcome: Outcome) -> Outcome:
    """Say of a missing answer that a cell of its exercise failed, which may be the one that should define it."""
    if failure is None or outcome.state != MISSING:
        return outcome
    return dataclasses.replace(outcome, message=f"{outcome.message}; {_told(failure)}")


def _told(failure: CellFailure) -> str:
    return f"code cell {failure.cell} failed: {failure.error}"


def _how(completed: Any) -> str:
    """Say how a process ended that no limit has ended."""
    if completed.returncode < 0:
        return f"the process was ended by {signal.Signals(-completed.returncode).name}"
    return f"the process ended itself with status {completed.returncode}"


class _Inbox:
    """Takes events out of the bytes that come from a worker, and out of whatever else was written among them."""

    def __init__(self):
        self.token = secrets.token_hex()
        self._rest = b""

    def events(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that are complete now."""
        *lines, rest = (self._rest + data).split(b"\n")
        # A line that never ends is none of the worker's.
        self._rest = rest if len(rest) <= _LINE_BYTES else b""
        for line in lines:
            token, _, event = line.partition(b" ")
            if secrets.compare_digest(token, self.token.encode()):
                yield json.loads(event)


class _Process:
    """A worker and the stream of its events."""

    def __init__(self, job: dict[str, Any], folder: Path):
        self._token = secrets.token_hex()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "lmcourse.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=folder,
            env=_environment(),
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            self._worker.stdin.write(json.dumps({**job, "token": self._token}).encode())
            self._worker.stdin.close()

    def next_event(self, seconds: float) -> dict[str, Any] | None:
        """Return the next event, or None when the worker is dead.

        Lines without the token are not the worker's own: whatever else wrote them, they are passed over.

        Raises:
            TimeoutError: if none comes in so many seconds.
        """
        end = time.monotonic() + seconds
        while True:
            # A short wait each time: a child that the worker left behind may hold the stream open.
            dead = self._worker.poll() is not None
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=min(0.5, max(0.0, end - time.monotonic())))
                if not line:
                    return None
                token, _, event = line.partition(b" ")
                if secrets.compare_digest(token, self._token.encode()):
                    return json.loads(event)
                dead = False  # behind this line there may be more
            if dead:
                return None
            if time.monotonic() >= end:
                raise TimeoutError

    def how_it_died(self) -> str:
        """Return the signal or the exit status, and what the worker complained of last."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.wait(timeout=GRACE_SECONDS)
        status = self._worker.returncode
        if status is not None and status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        self._errors.seek(0)
        complaint = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f" ({complaint[-1]})" if complaint else ""
        return f"the process ended itself with status {status}{last}"

    def stop(self) -> None:
        """End the worker and everything it started."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.kill()
        self._worker.wait()
        self._worker.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in self._worker.stdout:
                self._lines.put(line)
        self._lines.put(b"")


@contextlib.contextmanager
def _process(job: dict[str, Any], folder: Path) -> Iterator[_Process]:
    process = _Process(job, folder)
    try:
        yield process
    finally:
        process.stop()


def confined_environment() -> dict[str, str]:
    """Return what a confined worker needs; nothing else of this process's environment is told to it."""
    return {
        **{
            name: _environment()[name]
            for name in ("PYTHONPATH", "PYTHONHASHSEED", "MPLBACKEND", "TF_CPP_MIN_LOG_LEVEL")
        },
        "LMCOURSE_CACHE": str(cache_root()),
    }


def _environment() -> dict[str, str]:
    """Return the environment of a worker: the course importable, no windows, the same hashes each time."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "Agg",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
