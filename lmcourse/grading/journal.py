"""Keeps a class's grades on disk, and reads them back one at a time.

What this process holds of a grade is where it stands in the file: memory does not grow with what a class has handed in.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

from lmcourse.files import replacing
from lmcourse.grading.grader import ExerciseGrade, Report
from lmcourse.grading.handed_in import Submission
from lmcourse.grading.notebook import CellFailure
from lmcourse.grading.outcomes import Outcome, Test
from lmcourse.grading.shortcuts import Shortcut
from lmcourse.grading.submissions import Graded


class Journal:
    """Grades in a file, a line of JSON each, under a hash of everything that they depend on.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike):
        """Open the journal of earlier runs, or begin one; what a run that was killed left of a line is removed."""
        self.path = Path(path)
        self._places: dict[str, int] = {}  # where the latest line of each key begins
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        with self.path.open("rb") as file:
            lines = dict(_keys_and_places(file))
            whole = list(lines.values()) == list(_places(file))
        if whole:
            self._places = lines
        else:
            self._keep_only(lines)

    def place(self, key: str) -> int | None:
        """Return where the grade with this key stands, or None where there is none."""
        return self._places.get(key)

    def add(self, key: str, graded: Graded) -> int:
        """Keep a grade, on disk at once, and return where it stands; what is there already is not written again."""
        entry = _as_json(key, graded)
        known = self._places.get(key)
        if known is not None and self._entry(known)["report"] == entry["report"]:
            return known
        with self.path.open("ab") as file:
            place = file.seek(0, os.SEEK_END)
            file.write(f"{json.dumps(entry)}\n".encode())
        self._places[key] = place
        return place

    def read(self, place: int, submission: Submission) -> Graded:
        """Return the grade that stands at a place, as that of a submission."""
        return _from_json(self._entry(place), submission)

    def _entry(self, place: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def _keep_only(self, lines: dict[str, int]) -> None:
        """Write the journal again with these lines, so that the next one does not grow onto a torn one."""
        with replacing(self.path) as draft, draft.open("wb") as kept, self.path.open("rb") as file:
            for key, place in lines.items():
                file.seek(place)
                self._places[key] = kept.tell()
                kept.write(file.readline().rstrip(b"\n") + b"\n")


class Grades(Sequence[Graded]):
    """The grades of a class in the order of its submissions, each read from the journal when it is asked for."""

    def __init__(self, journal: Journal, submissions: Sequence[Submission]):
        """Begin with none; each is set when it is there."""
        self._journal = journal
        self._submissions = submissions
        self._found: list[int | Graded | None] = [None] * len(submissions)

    def set(self, number: int, graded: Graded, place: int | None) -> None:
        """Keep in mind what became of a submission.

        Args:
            number: which one.
            graded: its grade.
            place: where the journal has it; None keeps the grade itself, as that of a file that is no notebook.
        """
        self._found[number] = graded if place is None else place

    def __len__(self) -> int:
        return len(self._submissions)

    @overload
    def __getitem__(self, number: int) -> Graded: ...

    @overload
    def __getitem__(self, number: slice) -> list[Graded]: ...

    def __getitem__(self, number: int | slice) -> Graded | list[Graded]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        found, submission = self._found[number], self._submissions[number]
        if found is None:
            raise ValueError(f"{submission.source} has not been graded yet.")
        return self._journal.read(found, submission) if isinstance(found, int) else found


def _places(file: IO[bytes]) -> Iterator[int]:
    """Yield where each line begins, one that was torn included."""
    place = file.seek(0)
    for line in file:
        yield place
        place += len(line)
        if not line.endswith(b"\n"):
            yield place  # of the line that would grow onto it


def _keys_and_places(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Yield the key of each line and where it begins; lines that are no grade are left out."""
    place = file.seek(0)
    for line in file:
        try:
            entry = json.loads(line)
            if entry.keys() >= {"key", "fault", "seconds", "report"}:
                yield str(entry["key"]), place
        except (ValueError, AttributeError):
            pass
        place += len(line)


def _as_json(key: str, graded: Graded) -> dict[str, Any]:
    """Return what the journal keeps, which is more than a record shows: all that makes the same grade again."""
    report = dataclasses.asdict(graded.report) if graded.report else None
    # Through JSON, so that tuples compare equal with the lists they become.
    return json.loads(
        json.dumps({"key": key, "fault": graded.fault, "seconds": graded.seconds, "report": report})
    )


def _from_json(entry: dict[str, Any], submission: Submission) -> Graded:
    report = entry["report"]
    if report is not None:
        report = Report(
            submission.source,
            report["chapter"],
            [_exercise(exercise) for exercise in report["exercises"]],
            [CellFailure(**failure) for failure in report["failed_cells"]],
        )
    return Graded(submission.learner, submission.source, report, entry["fault"], entry["seconds"])


def _exercise(entry: dict[str, Any]) -> ExerciseGrade:
    tests = [
        Test(**{**test, "answers": tuple(test["answers"]), "allow": tuple(test["allow"])})
        for test in entry["tests"]
    ]
    outcomes = [Outcome(**outcome) for outcome in entry["outcomes"]]
    return ExerciseGrade(entry["number"], tests, outcomes, [Shortcut(**flag) for flag in entry["flags"]])
