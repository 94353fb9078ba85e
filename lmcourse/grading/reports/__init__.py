"""What a teacher gets from a graded class: gradebook, record, feedback pages, statistics, similar answers."""

from lmcourse.grading.reports.autograder import gradescope
from lmcourse.grading.reports.folder import ReportsError, write_reports
from lmcourse.grading.reports.gradebook import COLUMNS, gradebook
from lmcourse.grading.reports.record import Provenance, provenance, record
from lmcourse.grading.reports.similar import Answers, Similarities, answers_in, find_similar

__all__ = [
    "COLUMNS",
    "Answers",
    "Provenance",
    "ReportsError",
    "Similarities",
    "answers_in",
    "find_similar",
    "gradebook",
    "gradescope",
    "provenance",
    "record",
    "write_reports",
]
