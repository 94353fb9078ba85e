"""The process that executes a learner's notebook and tests it: `python -m lmcourse.grading.worker`.

It reads a job, one JSON object, from its input, and writes what happens to its output, a line for each event: the
job's token, a space and JSON. When this process dies or hangs, the parent knows where it was.
"""

import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lmcourse.grading.cards import shortcuts_of
from lmcourse.grading.engine import ChecksError, run_checks
from lmcourse.grading.notebook import Runner, silent_cards
from lmcourse.grading.outcomes import Outcome, Test

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Do the job on standard input."""
    _die_with_parent()
    job = json.load(sys.stdin)
    token = job.pop("token")
    events = _take_over_streams()

    def tell(event: str, **what: Any) -> None:
        # The first line break ends whatever the notebook's code may have written here.
        print(f"\n{token} {json.dumps({'event': event, **what})}", file=events, flush=True)

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
        job: cells (sources), checks (a path), skip_cells, outcomes (those there are already), cell_seconds and
            test_seconds.
        tell: called with the name of an event and what belongs to it.

    Raises:
        ChecksError: if the checks cannot be run.
    """
    sys.path.insert(0, os.getcwd())  # as in a notebook's kernel
    runner = Runner()
    sys.modules["__main__"] = runner.main  # where dataclasses and pickle look a class's module up
    with silent_cards():
        for failure in runner.run(
            job["cells"],
            skip=set(job["skip_cells"]),
            seconds=job["cell_seconds"],
            on_start=lambda cell: tell("cell", cell=cell),
        ):
            tell("cell_failed", cell=failure.cell, error=failure.error)

    def collected(tests: list[Test]) -> None:
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
        Path(job["checks"]),
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


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent, even when that is killed; elsewhere the parent must stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _take_over_streams() -> TextIO:
    """Return the output for events, and leave the notebook's code streams that lead nowhere."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    return events


if __name__ == "__main__":
    main()
