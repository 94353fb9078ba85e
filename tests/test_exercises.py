"""Every chapter's exercises: stubs are red, solutions green, wrong answers caught by the hint written for them."""

import re

import nbformat
import pytest

from lmcourse.grading.cards import shortcuts_of
from lmcourse.grading.outcomes import NOT_IMPLEMENTED, PASSED
from tests import exercise_proofs as proofs
from tools import make_exercises

CHAPTERS = proofs.all_files()
ANSWERS = [(files, answer) for files in CHAPTERS for answer in proofs.declared_answers(files)]

# DESIGN of the exercises: an answer that needs more is two exercises.
LONGEST_SOLUTION = 15
FEWEST_WRONG_ANSWERS = 4

each_chapter = pytest.mark.parametrize("files", CHAPTERS, ids=lambda files: files.stem)


def each_answer(*, wrong):
    chosen = [(files, answer) for files, answer in ANSWERS if bool(answer.caught_by) == wrong]
    return pytest.mark.parametrize(
        ("files", "answer"), chosen, ids=[f"{files.stem}-{answer.label}" for files, answer in chosen]
    )


@each_chapter
def test_stub_notebook_runs_and_every_test_is_red_as_not_implemented(files):
    assert proofs.executed(files.stub)[1] == []
    states = proofs.states_of(files, files.stub)
    assert {test: state for test, state in states.items() if state != NOT_IMPLEMENTED} == {}


@each_chapter
def test_solution_notebook_runs_and_every_test_is_green(files):
    assert proofs.executed(files.solution)[1] == []
    states = proofs.states_of(files, files.solution)
    assert {test: state for test, state in states.items() if state != PASSED} == {}


@each_answer(wrong=True)
def test_wrong_answer_is_caught_first_by_the_test_written_for_it(files, answer):
    assert proofs.first_failure(proofs.outcomes_of(files, answer)) == answer.caught_by


@each_answer(wrong=False)
def test_right_answer_in_another_style_passes(files, answer):
    outcomes = proofs.outcomes_of(files, answer)
    assert [outcome for outcome in outcomes if outcome.state != PASSED] == []


@each_chapter
def test_every_test_has_a_wrong_answer_that_it_catches(files):
    assert proofs.uncaught_tests(files) == set()


@each_chapter
def test_every_exercise_has_four_wrong_answers(files):
    counts = proofs.wrong_answers_by_exercise(files)
    assert {number: count for number, count in counts.items() if count < FEWEST_WRONG_ANSWERS} == {}


@each_chapter
def test_every_answer_is_one_that_its_exercise_asks_for(files):
    assert list(proofs.answers_that_are_not_asked_for(files)) == []


@each_chapter
def test_every_test_belongs_to_an_exercise_of_its_chapter(files):
    assert proofs.undeclared_tests(files) == set()
    chapter = int(files.stem[2:4])
    assert {
        test.number for test in proofs.tests_of(files) if int(test.number.split(".")[0]) != chapter
    } == set()


@each_chapter
def test_no_two_tests_share_a_hint(files):
    hints = [test.hint for test in proofs.tests_of(files)]
    assert {hint for hint in hints if hints.count(hint) > 1} == set()


@each_chapter
def test_solutions_use_nothing_of_the_course_that_the_exercise_asks_for(files):
    namespace, _ = proofs.executed(files.solution)
    tests = proofs.tests_of(files)
    for number in dict.fromkeys(test.number for test in tests):
        own = [test for test in tests if test.number == number]
        assert shortcuts_of(own, namespace) == []


@each_chapter
def test_no_solution_is_longer_than_fifteen_lines(files):
    for cell in nbformat.read(files.solution, as_version=4).cells:
        lengths = make_exercises.solution_lengths(cell.source)
        assert sum(lengths) <= LONGEST_SOLUTION, cell.source


@each_chapter
def test_the_notebook_checks_each_exercise_once(files):
    cells = nbformat.read(files.stub, as_version=4).cells
    checked = [
        number
        for cell in cells
        if cell.cell_type == "code"
        for number in re.findall(r"""check\(["']([\d.]+)["']\)""", cell.source)
    ]
    assert sorted(checked) == sorted({test.number for test in proofs.tests_of(files)})


def test_exercises_are_what_the_solutions_give():
    faults = make_exercises.out_of_date(proofs.ROOT / "solutions", proofs.ROOT / "exercises")
    assert faults == []
