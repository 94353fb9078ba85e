"""The process that executes a learner's notebook and tests it: `python -m lmcourse.grading.worker`.

It reads a job, one JSON object, from its input, and writes what happens to its output or to the descriptor that the
job names, a line for each event: the job's token, a space and JSON. When this process dies or hangs, the parent
knows where it was.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lmcourse.grading.cards import shortcuts_of
from lmcourse.grading.engine import ChecksError, run_checks
from lmcourse.grading.notebook import Runner, silent_cards
from lmcourse.grading.outcomes import Outcome, Test
from lmcourse.grading.tampering import GUARDED, Guard

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Do the job on standard input."""
    _die_with_parent()
    serve(json.load(sys.stdin))


def serve(job: dict[str, Any], events: int = 1) -> NoReturn:
    """Do one job, and end this process.

    Args:
        job: as for `work`, with the events' token.
        events: the descriptor to write events to, unless the job names one.
    """
    token = job.pop("token")
    stream = _take_over_streams(job.pop("events", events))

    def tell(event: str, **what: Any) -> None:
        # The first line break ends whatever the notebook's code may have written here.
        print(f"\n{token} {json.dumps({'event': event, **what})}", file=stream, flush=True)

    try:
        work(job, tell)
    except ChecksError as error:
        tell("fault", message=str(error))
    tell("done")
    # What the notebook left running must not keep the process alive.
    os._exit(0)


def work(job: dict[str, Any], tell: Any) -> None:
    """Execute the notebook and run the tests.

    Args:
        job: cells (sources), checks (for each module its name and source), skip_cells, outcomes
            (those there are already), cell_seconds and test_seconds.
        tell: called with the name of an event and what belongs to it.

    Raises:
        ChecksError: if the checks cannot be run.
    """
    # As in a notebook's kernel, but last: a file of the learner's must not take the place of a module that tests use.
    sys.path.append(os.getcwd())
    restore_surroundings = _surroundings()
    runner = Runner()
    sys.modules["__main__"] = runner.main  # where dataclasses and pickle look a class's module up
    with silent_cards():
        guard = Guard([*GUARDED, *(name for name in sys.modules if name.partition(".")[0] == "lmcourse")])
        running = 0

        def starts(cell: int) -> None:
            nonlocal running
            _tell_tampering(guard, running, tell)
            running = cell
            tell("cell", cell=cell)

        for failure in runner.run(
            job["cells"],
            skip=set(job["skip_cells"]),
            seconds=job["cell_seconds"],
            on_start=starts,
        ):
            tell("cell_failed", cell=failure.cell, error=failure.error)
        _tell_tampering(guard, running, tell)

    restore_surroundings()
    # The modules exist as files only while pytest imports them: an answer that looks for them finds none.
    with tempfile.TemporaryDirectory() as folder:
        _run_checks(job, Path(folder), runner, tell)


def _run_checks(job: dict[str, Any], folder: Path, runner: Runner, tell: Any) -> None:
    modules = []
    for number, module in enumerate(job["checks"]):
        path = folder / str(number) / module["name"]
        path.parent.mkdir()
        path.write_text(module["source"], encoding="utf-8")
        modules.append(path)

    def collected(tests: list[Test]) -> None:
        for path in modules:
            path.unlink()
        names = {name for test in tests for name in test.answers}
        tell(
            "collected",
            tests=[dataclasses.asdict(test) for test in tests],
            defined=sorted(names & runner.namespace.keys()),
            flags=_flags(tests, runner.namespace),
        )

    def finished(outcome: Outcome) -> None:
        tell("outcome", **dataclasses.asdict(outcome))

    run_checks(
        modules,
        runner.namespace,
        known=[Outcome(**outcome) for outcome in job["outcomes"]],
        timeout=job["test_seconds"],
        on_collected=collected,
        on_start=lambda test: tell("test", test=test.name),
        on_outcome=finished,
    )


def _flags(tests: Sequence[Test], namespace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return, for each exercise, where its answers use lmcourse's own version."""
    flags = {}
    for number in dict.fromkeys(test.number for test in tests):
        own = [test for test in tests if test.number == number]
        flags[number] = [dataclasses.asdict(shortcut) for shortcut in shortcuts_of(own, namespace)]
    return flags


def _surroundings() -> Callable[[], None]:
    """Return what brings back the folder, the variables and the search path of now; what was added stays, behind."""
    folder, variables, paths = os.getcwd(), dict(os.environ), list(sys.path)

    def restore() -> None:
        with contextlib.suppress(OSError):  # it may have been removed
            os.chdir(folder)
        os.environ.update(variables)
        sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]

    return restore


def _tell_tampering(guard: Guard, cell: int, tell: Any) -> None:
    for name in guard.restore():
        tell("tampered", name=name, cell=cell)


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent, even when that is killed; elsewhere the parent must stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _take_over_streams(descriptor: int) -> TextIO:
    """Return the stream for events, and leave the notebook's code streams that lead nowhere."""
    events = os.fdopen(os.dup(descriptor), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    return events


if __name__ == "__main__":
    main()
