"""A grade as Gradescope's autograder wants it."""

from typing import Any

from lmcourse.grading.grader import ExerciseGrade
from lmcourse.grading.outcomes import PASSED
from lmcourse.grading.reports.words import clean, notes_on, one_line, points_of, state_of
from lmcourse.grading.submissions import Graded


def gradescope(graded: Graded) -> dict[str, Any]:
    """Return what an autograder writes to /autograder/results/results.json.

    Each exercise is one test there. What a teacher should look at is a test for no points that only the staff
    see. All output is plain text: whatever an answer printed is shown, not interpreted.

    Args:
        graded: the one submission.

    Reference: https://gradescope-autograders.readthedocs.io/en/latest/specs/
    """
    if graded.report is None:
        return {
            "score": 0,
            "output": clean(f"This could not be graded: {graded.fault}"),
            "output_format": "text",
            "visibility": "visible",
            "tests": [],
        }
    report = graded.report
    failed = [f"Code cell {cell.cell} failed: {clean(cell.error)}" for cell in report.failed_cells]
    earned = f"{points_of(report.points)} of {points_of(report.out_of)} points in chapter {report.chapter}."
    remarks = [remark for exercise in report.exercises for remark in _remarks(exercise)]
    return {
        "score": round(report.points, 4),
        "output": "\n".join([earned, *failed]),
        "output_format": "text",
        "visibility": "visible",
        "tests": [_test(exercise) for exercise in report.exercises] + remarks,
    }


def _test(exercise: ExerciseGrade) -> dict[str, Any]:
    notes = [f"{name}: {text}" for name, text in notes_on(exercise)]
    return {
        "name": f"Exercise {exercise.number}: {state_of(exercise)}",
        "name_format": "text",
        "number": exercise.number,
        "score": round(exercise.points, 4),
        "max_score": round(exercise.out_of, 4),
        "status": "passed" if exercise.state == PASSED else "failed",
        "output": "\n".join(notes),
        "output_format": "text",
        "visibility": "visible",
    }


def _remarks(exercise: ExerciseGrade) -> list[dict[str, Any]]:
    return [
        {
            "name": one_line(f"For a look, exercise {exercise.number}: {flag.answer} uses {flag.uses}"),
            "name_format": "text",
            "score": 0,
            "max_score": 0,
            "status": "failed",
            "output": clean(f"{flag.cell}, line {flag.line}: {flag.source}") if flag.source else "",
            "output_format": "text",
            "visibility": "hidden",
        }
        for flag in exercise.flags
    ]
