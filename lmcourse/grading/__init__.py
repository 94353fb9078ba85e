"""Exercises that check themselves: what a notebook, and whoever writes the checks, uses.

Example:
    In the notebook: `from lmcourse.grading import check, progress`, then `check("1.3")` after an answer and
    `progress("01")` for the whole chapter. In `lmcourse/grading/checks/ch01_ngram.py`:

        @exercise("1.3", points=2, hint="your rows do not sum to one: which axis did you divide along?")
        def test_rows_sum_to_one(bigram_probabilities):
            assert_distribution(bigram_probabilities([[1, 3], [2, 2]]))
"""

from lmcourse.grading.assertions import assert_close, assert_distribution, assert_equal, assert_shape
from lmcourse.grading.cards import check, progress
from lmcourse.grading.exercise import exercise

__all__ = [
    "assert_close",
    "assert_distribution",
    "assert_equal",
    "assert_shape",
    "check",
    "exercise",
    "progress",
]
