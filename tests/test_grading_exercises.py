"""The stub generator, and the proofs themselves, on a made-up chapter 94: each proof must be able to fail."""

import copy
import sys

import nbformat
import pytest

from tests import exercise_proofs as proofs
from tests.wrong import wrong
from tools import make_exercises
from tools.make_exercises import SolutionError, hide_solutions, make_stub, solution_lengths

CHECKS = """
from lmcourse.grading import assert_equal, exercise

@exercise("94.1", hint="did you add instead?")
def test_double_of_three(double):
    assert_equal(double(3), 6)

@exercise("94.1", hint="the sign is lost")
def test_double_of_a_negative(double):
    assert double(-3) == -6

@exercise("94.2", hint="which end?")
def test_last_of_the_doubles(double, last):
    assert last([1, double(2)]) == 4
"""

SOLUTION = '''def double(number):
    """Double it."""
    ### BEGIN SOLUTION
    return 2 * number
    ### END SOLUTION'''

LAST = """def last(values):
    ### BEGIN SOLUTION
    return values[-1]
    ### END SOLUTION"""

WRONG = """
from tests.wrong import right, wrong

@wrong("94.1", caught_by="test_double_of_three")
def double__adding_two(number):
    return number + 2.5

@wrong("94.1", caught_by="test_double_of_a_negative", name="double")
def without_the_sign(number):
    return 2 * abs(number)

@wrong("94.2", caught_by="test_last_of_the_doubles")
def last__is_the_first(values):
    return values[0]

@right("94.1")
def double__as_a_sum(number):
    return number + number
"""


def markdown(text, **metadata):
    return nbformat.v4.new_markdown_cell(text, metadata=metadata)


def code(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def solution_notebook():
    return nbformat.v4.new_notebook(
        cells=[
            markdown("# Chapter 94"),
            code("from lmcourse.grading import check"),
            markdown("## Exercise 94.1: double\nAs in Exercise 12.7, ..."),
            code(SOLUTION),
            code("print('only the teacher sees this')", "solution-only"),
            code("1 + 1", "nbval-check-output"),
            markdown("## Exercise 94.2: last"),
            code(LAST),
        ]
    )


@pytest.fixture
def files(tmp_path):
    root = tmp_path / "course"
    for folder in ("solutions", "exercises", "checks"):
        (root / folder).mkdir(parents=True)
    files = proofs.Files(
        root / "checks" / "ch94_proofs.py",
        root / "solutions" / "ch94_proofs.ipynb",
        root / "exercises" / "ch94_proofs.ipynb",
        root / "wrong.py",
    )
    files.checks.write_text(CHECKS)
    files.wrong.write_text(WRONG)
    solution = solution_notebook()
    nbformat.write(solution, files.solution)
    nbformat.write(make_stub(solution, "ch94_proofs"), files.stub)
    yield files
    sys.modules.pop("ch94_proofs", None)  # pytest keeps the module by its name, not by its path


def test_stub_has_the_signature_and_the_docstring_but_not_the_solution():
    stub = make_stub(solution_notebook(), "ch94_proofs")
    assert stub.cells[3].source == (
        'def double(number):\n    """Double it."""\n    raise NotImplementedError("Exercise 94.1")'
    )


def test_stub_keeps_ids_tags_and_other_cells_and_drops_what_only_the_solution_has():
    solution = solution_notebook()
    before = copy.deepcopy(solution)
    stub = make_stub(solution, "ch94_proofs")
    assert solution == before
    assert [cell.id for cell in stub.cells] == [
        cell.id for cell in solution.cells if "only the teacher" not in cell.source
    ]
    assert stub.cells[4].metadata.tags == ["nbval-check-output"]
    assert stub.metadata.lmcourse == {"chapter": "94"}


def test_each_block_of_a_cell_becomes_one_line_at_its_indentation():
    source = (
        "class Pair:\n"
        "    def first(self):\n"
        "        ### BEGIN SOLUTION\n"
        "        a = 1\n"
        "        return a\n"
        "        ### END SOLUTION\n"
        "\n"
        "    def second(self):\n"
        "        ### BEGIN SOLUTION\n"
        "        return 2\n"
        "        ### END SOLUTION\n"
        "\n"
        "pair = Pair()"
    )
    todo = '        raise NotImplementedError("Exercise 1.2")\n'
    assert hide_solutions(source, "1.2", "") == (
        f"class Pair:\n    def first(self):\n{todo}\n    def second(self):\n{todo}\npair = Pair()"
    )
    assert solution_lengths(source) == [2, 1]


def test_comments_and_blank_lines_do_not_make_a_solution_long():
    block = "### BEGIN SOLUTION\n# why\n\nx = 1\n### END SOLUTION\ny = 2"
    assert solution_lengths(block) == [1]


def test_tag_of_a_cell_goes_before_the_heading():
    notebook = nbformat.v4.new_notebook(
        cells=[markdown("## Exercise 94.1"), code(SOLUTION, "exercise-94.2"), code(SOLUTION)]
    )
    stub = make_stub(notebook, "ch94_proofs")
    assert [cell.source.splitlines()[-1] for cell in stub.cells[1:]] == [
        '    raise NotImplementedError("Exercise 94.2")',
        '    raise NotImplementedError("Exercise 94.1")',
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("### BEGIN SOLUTION\nx = 1", "line 1: ### BEGIN SOLUTION without"),
        ("x = 1\n### END SOLUTION", "line 2: ### END SOLUTION without"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "line 2: .* inside the block of line 1"),
        ("x = 1  ### BEGIN SOLUTION\n### END SOLUTION", "line 1: .* alone on its line"),
    ],
)
def test_wrong_markers_are_refused_with_the_cell_and_the_line(source, message):
    with pytest.raises(SolutionError, match=f"here, {message}"):
        hide_solutions(source, "1.1", "here")


def test_solution_outside_any_exercise_is_refused():
    with pytest.raises(SolutionError, match=r"ch94_proofs, cell 1.*belongs to no exercise"):
        make_stub(nbformat.v4.new_notebook(cells=[code(SOLUTION)]), "ch94_proofs")


def test_check_exits_1_when_a_stub_is_missing_changed_or_without_solution(files, capsys):
    root = files.stub.parent.parent

    def check():
        return make_exercises.main(["--check"], root), capsys.readouterr().out

    assert check() == (0, "exercises/ is up to date.\n")
    stub = nbformat.read(files.stub, as_version=4)
    stub.cells[3].source += "\n# a word more"
    nbformat.write(stub, files.stub)
    assert check() == (1, "ch94_proofs.ipynb is not what its solution gives\n")
    files.stub.rename(files.stub.with_name("ch93_stray.ipynb"))
    assert check() == (1, "ch94_proofs.ipynb is missing\nch93_stray.ipynb has no solution\n")


def test_faulty_solution_exits_2_and_is_named(files, capsys):
    notebook = nbformat.v4.new_notebook(cells=[code("### END SOLUTION")])
    nbformat.write(notebook, files.solution)
    assert make_exercises.main([], files.stub.parent.parent) == 2
    assert "ch94_proofs, cell 1, line 1" in capsys.readouterr().err


def test_made_stubs_are_executed_and_the_same_every_time(files):
    root = files.stub.parent.parent
    assert make_exercises.main([], root) == 0
    once = files.stub.read_bytes()
    stub = nbformat.reads(once.decode(), as_version=4)
    assert stub.cells[4].outputs[0].data == {"text/plain": "2"}
    assert make_exercises.main(["94"], root) == 0
    assert files.stub.read_bytes() == once


def test_proofs_hold_for_a_chapter_that_is_right(files):
    assert set(proofs.states_of(files, files.stub).values()) == {"not implemented"}
    assert set(proofs.states_of(files, files.solution).values()) == {"passed"}
    answers = proofs.declared_answers(files)
    assert [proofs.first_failure(proofs.outcomes_of(files, answer)) for answer in answers] == [
        "test_double_of_three",
        "test_double_of_a_negative",
        "test_last_of_the_doubles",
        None,
    ]
    assert proofs.uncaught_tests(files) == set()
    assert proofs.undeclared_tests(files) == set()
    assert proofs.wrong_answers_by_exercise(files) == {"94.1": 2, "94.2": 1}
    assert list(proofs.answers_that_are_not_asked_for(files)) == []


def test_a_solution_left_in_the_stub_is_not_red(files):
    nbformat.write(solution_notebook(), files.stub)
    assert "not implemented" not in proofs.states_of(files, files.stub).values()


def test_a_stub_that_fails_when_it_is_executed_is_noticed(files):
    stub = make_stub(solution_notebook(), "ch94_proofs")
    stub.cells.append(code("double(1)"))
    nbformat.write(stub, files.stub)
    assert proofs.executed(files.stub)[1][0].error == "NotImplementedError: Exercise 94.1"


def test_a_test_without_a_wrong_answer_is_noticed(files):
    files.wrong.write_text(WRONG.replace("test_double_of_a_negative", "test_double_of_three"))
    assert proofs.uncaught_tests(files) == {"test_double_of_a_negative"}


def test_a_test_that_belongs_to_no_exercise_is_noticed(files):
    files.checks.write_text(f"{CHECKS}\ndef test_forgotten(double):\n    pass\n")
    assert proofs.undeclared_tests(files) == {"test_forgotten"}


def test_an_answer_under_a_name_that_nobody_asks_for_is_noticed(files):
    files.wrong.write_text(WRONG.replace('name="double"', 'name="duoble"'))
    faults = list(proofs.answers_that_are_not_asked_for(files))
    assert faults == ["94.1-without_the_sign stands for `duoble`; exercise 94.1 asks for ['double']"]


def test_caught_by_must_be_a_test():
    with pytest.raises(ValueError, match="name of a test"):
        wrong("94.1", caught_by="double_of_three")
