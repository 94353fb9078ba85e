"""How the reports write states, points and whatever a learner's code has printed."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from lmcourse.grading import outcomes
from lmcourse.grading.grader import ExerciseGrade
from lmcourse.grading.outcomes import CRASHED, MISSING, NOT_IMPLEMENTED, PASSED, TOO_SLOW, WRONG
from lmcourse.grading.submissions import Graded

# In the order in which a class is drawn, from what is done to what is not begun.
STATES = (PASSED, WRONG, TOO_SLOW, CRASHED, NOT_IMPLEMENTED, MISSING)

# Messages are cut to a few hundred characters where they arise. What the process of a submission wrote is not
# to be trusted with that: nothing longer gets into a report.
TEXT_CHARACTERS = 2_000
NAME_CHARACTERS = 120

# Characters that turn the direction of the text after them: a name could pose as another one.
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(value: object, limit: int = TEXT_CHARACTERS) -> str:
    r"""Return a text that every encoding, browser and spreadsheet can take; lines and tabs stay.

    Lone surrogates, control characters and marks of direction are shown by their code; the end of a long text
    is cut.

    Args:
        value: what to show.
        limit: the most characters.

    Example:
        >>> clean("a\x00b\ud800")
        'a\\x00b\\ud800'
    """
    text = value if isinstance(value, str) else str(value)
    # Cut first: nothing is spent on a megabyte of which a page shows a part.
    text = text[: limit + 1].replace("\r\n", "\n").replace("\r", "\n")
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    text = _DIRECTION.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(value: object, limit: int = NAME_CHARACTERS) -> str:
    r"""Return a clean text in one line.

    Example:
        >>> one_line("Ada\n  Lovelace")
        'Ada Lovelace'
    """
    return " ".join(clean(value, limit).split())


def points_of(points: float) -> str:
    """Write points without an end of zeros.

    Example:
        >>> points_of(2.0), points_of(0.1 + 0.2)
        ('2', '0.3')
    """
    return f"{round(points, 4):.10g}"


def state_of(exercise: ExerciseGrade) -> str:
    """Return the exercise's state; one that there is not, which only a forged grade has, counts as wrong."""
    return exercise.state if exercise.state in STATES else WRONG


def notes_on(exercise: ExerciseGrade) -> list[tuple[str, str]]:
    """Explain the first test that failed, as (heading, text); nothing where all passed."""
    if exercise.failure is None:
        return []
    test, outcome = exercise.failure
    notes = outcomes.notes_on(test, dataclasses.replace(outcome, state=state_of(exercise)))
    return [(heading, clean(text)) for heading, text in notes]


@dataclasses.dataclass(frozen=True)
class Overview:
    """What must be known of a whole class before the first line about it can be written.

    Attributes:
        numbers: the exercises in order: 1.2 before 1.10.
        points: what each learner has who could be graded.
        out_of: the points there are in all; 0 where nothing could be graded.
        flags: how many places there are to look at.
        faults: how many submissions could not be graded.
    """

    numbers: Sequence[str]
    points: Sequence[float]
    out_of: float
    flags: int
    faults: int


def overview(graded: Iterable[Graded]) -> Overview:
    """Read a class once, learner by learner."""
    numbers: set[str] = set()
    points: list[float] = []
    out_of, flags, faults = 0.0, 0, 0
    for one in graded:
        if one.report is None:
            faults += 1
            continue
        numbers.update(exercise.number for exercise in one.report.exercises)
        points.append(one.points)
        out_of = max(out_of, one.report.out_of)
        flags += flags_of(one)
    in_order = sorted(numbers, key=lambda number: [int(part) for part in re.findall(r"\d+", number)])
    return Overview(in_order, points, out_of, flags, faults)


def flags_of(one: Graded) -> int:
    """Return how many places in a submission a teacher should look at."""
    return sum(len(exercise.flags) for exercise in one.report.exercises) if one.report else 0
