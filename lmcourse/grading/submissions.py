"""What a class hands in, and what became of it."""

import dataclasses
from typing import Any

from lmcourse.grading.grader import Report


@dataclasses.dataclass(frozen=True)
class Graded:
    """One submission and its grade.

    Attributes:
        learner: who handed it in, as the file or folder names them; unique in a class.
        source: the notebook's path in the folder or archive that was graded, with forward slashes.
        report: the grade, or None where the submission could not be graded.
        fault: why it could not be graded, in one line; empty where it was.
        seconds: how long grading took by the clock.
    """

    learner: str
    source: str
    report: Report | None = None
    fault: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """The points earned; 0 where there is no grade."""
        return self.report.points if self.report else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        grade = self.report.as_json() if self.report else None
        return {
            "learner": self.learner,
            "source": self.source,
            "fault": self.fault,
            "seconds": round(self.seconds, 3),
            "grade": grade,
        }
