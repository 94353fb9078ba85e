"""`check`, `progress`, the engine and the assertions, on a made-up chapter 99."""

import sys
import textwrap
import types
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from lmcourse.grading import (
    assert_close,
    assert_distribution,
    assert_equal,
    chapters,
    check,
    exercise,
    progress,
)
from lmcourse.grading.engine import ChecksError, collect, run_checks
from lmcourse.grading.outcomes import Outcome

CHECKS = """
import pytest
from lmcourse.grading import assert_distribution, assert_equal, exercise

@pytest.fixture
def three():
    return 3

@exercise("99.1", points=1, hint="did you add instead?")
def test_double_of_three(double, three):
    assert_equal(double(three), 6, "double(3)")

@exercise("99.1", points=2, hint="the sign is lost")
def test_double_of_a_negative(double):
    assert double(-3) == -6

@exercise("99.2", points=2, hint="which axis?", allow=("lmcourse.core.score",))
def test_rows_sum_to_one(rows, tmp_path):
    assert_distribution(rows([[1, 3], [2, 2]]))
"""

RIGHT = {
    "double": lambda number: 2 * number,
    "rows": lambda counts: np.array(counts) / np.sum(counts, axis=1, keepdims=True),
}


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    path = tmp_path_factory.mktemp("checks") / "ch99_grading.py"
    path.write_text(CHECKS)
    return path


@pytest.fixture(autouse=True)
def made_up_chapter(checks, monkeypatch):
    monkeypatch.setattr(chapters, "CHECKS", checks.parent)


def states(answers, checks, **options):
    return [outcome.state for outcome in run_checks(checks, answers, **options)[1]]


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def leave(number):
    raise SystemExit(0)


def leave_pytest(number):
    pytest.exit("bye")


def skip(number):
    pytest.skip("pass me")


def recurse(number):
    return recurse(number)


def loop(number):
    while True:
        pass


def fail_unprintably(number):
    raise UnprintableError


def fail_with_a_surrogate(number):
    raise ValueError("caf\udce9")


def todo(number):
    raise NotImplementedError("Exercise 99.1")


def only_positive(number):
    return 2 * abs(number)


def test_right_answers_pass_every_test_in_the_order_of_the_file(checks):
    tests, outcomes = run_checks(checks, RIGHT)
    assert [outcome.test for outcome in outcomes] == [
        "test_double_of_three",
        "test_double_of_a_negative",
        "test_rows_sum_to_one",
    ]
    assert {outcome.state for outcome in outcomes} == {"passed"}
    assert [test.answers for test in tests] == [("double",), ("double",), ("rows",)]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (todo, "not implemented"),
        (abs, "wrong"),
        (lambda number: Unprintable(), "wrong"),
        (lambda number: number["x"], "crashed"),
        (leave, "crashed"),
        (leave_pytest, "crashed"),
        (skip, "crashed"),
        (recurse, "crashed"),
        (fail_unprintably, "crashed"),
        (lambda: 0, "crashed"),
        (7, "crashed"),
    ],
)
def test_each_way_to_fail_has_its_state(answer, state, checks):
    assert states({**RIGHT, "double": answer}, checks, number="99.1") == [state, state]


def test_missing_answer_is_missing_and_the_others_are_tested(checks):
    assert states({"double": RIGHT["double"]}, checks) == ["passed", "passed", "missing"]


def test_endless_loop_costs_its_time_once_and_other_answers_are_tested(checks):
    calls = []

    def slow_first(number):
        calls.append(number)
        return loop(number) if number > 0 else 2 * number

    answers = {**RIGHT, "double": slow_first}
    outcomes = run_checks(checks, answers, timeout=0.2)[1]
    assert [outcome.state for outcome in outcomes] == ["too slow", "too slow", "passed"]
    assert outcomes[1].message == "not run, for `double` was too slow before"
    assert calls == [3]


def test_slow_test_leaves_the_points_of_those_before_it(checks):
    slow_last = {"double": lambda number: loop(number) if number < 0 else 2 * number}
    assert states(slow_last, checks, number="99.1", timeout=0.2) == ["passed", "too slow"]


def test_slowness_that_is_known_already_is_not_tried_again(checks):
    known = [Outcome("test_double_of_three", "too slow")]
    assert states(RIGHT, checks, number="99.1", known=known) == ["too slow"]


def test_partial_answers_earn_the_points_of_the_tests_they_pass():
    card = check("99.1", {"double": only_positive})
    assert card.title == "Exercise 99.1: 1 of 3 points"


def test_card_gives_the_hint_what_was_expected_and_what_came():
    card = check("99.1", {"double": lambda number: number + 2})
    assert ("Hint", "did you add instead?") in card.notes
    assert ("Expected", "6 for double(3)") in card.notes
    assert ("Got", "5") in card.notes


def test_card_of_a_crash_quotes_the_line_of_the_answer():
    namespace = {}
    exec(compile("def double(number):\n    return number / 0", __file__, "exec"), namespace)
    happened = dict(check("99.1", namespace).notes)["What happened"]
    assert happened.startswith("ZeroDivisionError: division by zero\nin line 2:")


@pytest.mark.parametrize("answer", [fail_with_a_surrogate, lambda number: "caf\udce9"])
def test_what_no_terminal_can_print_is_escaped(answer):
    card = repr(check("99.1", {"double": answer}))
    assert "caf\\udce9" in card
    assert card.encode()


def test_card_of_a_crash_gives_the_exception_first_and_the_hint_after_it():
    names = [name for name, _ in check("99.1", {"double": lambda number: number["x"]}).notes]
    assert names == ["What happened", "Hint"]


def test_card_of_a_slow_answer_asks_for_the_loop_and_not_for_a_wrong_value():
    (_, happened), (name, hint) = check("99.1", {"double": loop}, timeout=0.2).notes
    assert happened == "still running after 0.2 s"
    assert name == "Hint"
    assert "does your loop end?" in hint


def test_card_of_a_stub_gives_no_hint():
    assert check("99.1", {"double": todo}).notes == [("To do", "Exercise 99.1 is not written yet")]


def test_card_is_the_same_every_time():
    def double(number):
        return object()

    assert repr(check("99.1", {"double": double})) == repr(check("99.1", {"double": double}))


def test_html_card_escapes_what_the_answer_returned():
    html = check("99.1", {"double": lambda number: "<script>alert(1)</script>"})._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_html_card_says_in_words_what_colour_and_symbol_say():
    html = check("99.1", {"double": only_positive})._repr_html_()
    assert "✔ passed" in html
    assert "✘ wrong" in html


@pytest.mark.parametrize(
    "answer", [leave, leave_pytest, recurse, fail_unprintably, loop, Unprintable(), None, pytest.fail]
)
def test_check_and_progress_return_a_card_whatever_the_answer_does(answer):
    namespace = {"double": answer}
    assert "0 of 3 points" in repr(check("99.1", namespace, timeout=0.2))
    assert "0 of 5 points" in repr(progress("99", namespace, timeout=0.2))


def test_interruption_by_the_user_passes_through(checks):
    def interrupted(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("99.1", {"double": interrupted})


@pytest.mark.parametrize("number", [99.1, 99, None, []])
def test_number_that_is_no_string_is_refused_for_a_float_has_lost_its_zeros(number):
    card = check(number, RIGHT)
    assert card.rows == ()
    assert 'number must be a string, check("1.10")' in repr(card)


def test_unknown_exercise_lists_the_numbers_there_are():
    card = repr(check("99.7", RIGHT))
    assert "There is no exercise 99.7" in card
    assert "99.1, 99.2" in card


def test_number_without_its_dot_is_asked_about():
    assert repr(check("991", RIGHT)) == "There is no exercise 991\nDid you mean 99.1?"


@pytest.mark.parametrize("number", ["98.1", "1", "999", "", "99.1.2"])
def test_impossible_number_gets_a_card_that_says_what_would_be_right(number):
    card = repr(check(number, RIGHT))
    assert "99 (grading)" in card or 'as in "1.3"' in card


def test_progress_has_a_line_for_each_exercise():
    card = progress(99, {**RIGHT, "double": only_positive})
    assert card.title == "Chapter 99: 3 of 5 points"
    assert [(row.state, row.label, row.points) for row in card.rows] == [
        ("wrong", "exercise 99.1", "1 of 3 points"),
        ("passed", "exercise 99.2", "2 of 2 points"),
    ]


def test_unknown_chapter_gets_a_card_that_lists_the_chapters():
    assert "99 (grading)" in repr(progress("12", RIGHT))


def test_check_finds_the_functions_of_the_module_that_calls_it():
    namespace = {}
    exec("from lmcourse.grading import check\ndouble = lambda x: 2 * x\ncard = check('99.1')", namespace)
    assert namespace["card"].title == "Exercise 99.1: 3 of 3 points"


def test_check_finds_the_functions_of_the_notebook(monkeypatch):
    import IPython

    shell = types.SimpleNamespace(user_ns=RIGHT)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    assert check("99.1").title == "Exercise 99.1: 3 of 3 points"


def test_card_names_an_answer_that_is_lmcourses_own():
    from lmcourse import core

    def double(number):
        return core.perplexity(number, [])

    note = dict(check("99.1", {"double": double}).notes)["Note"]
    assert "lmcourse.core.perplexity" in note
    assert "return core.perplexity(number, [])" in note


def test_exercise_may_allow_something_of_lmcourse():
    from lmcourse import core

    def rows(counts):
        return RIGHT["rows"](counts) if core.score else None

    assert check("99.2", {"rows": rows}).notes == []


def test_what_an_answer_prints_stays_off_the_page(checks, capsys):
    run_checks(checks, {"double": print}, number="99.1")
    assert capsys.readouterr() == ("", "")


def test_checks_leave_the_environment_and_the_alarm_as_they_were(checks, monkeypatch):
    import os
    import signal

    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    before, limit = dict(os.environ), sys.getrecursionlimit()
    run_checks(checks, {"double": recurse})
    assert dict(os.environ) == before
    assert sys.getrecursionlimit() == limit
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_configuration_in_the_learners_folder_is_not_read(checks, tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path)
    assert states(RIGHT, checks) == ["passed"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conftest.py", "pytest.ini"]


def test_module_without_a_test_is_an_error(tmp_path):
    path = tmp_path / "ch98_empty.py"
    path.write_text("def test_without_an_exercise():\n    pass\n")
    with pytest.raises(ChecksError, match="holds no test"):
        collect(path)


def test_module_that_cannot_be_imported_is_an_error_that_says_why(tmp_path):
    path = tmp_path / "ch97_broken.py"
    path.write_text("import no_such_module\n")
    with pytest.raises(ChecksError, match="no_such_module"):
        collect(path)


def test_checks_run_outside_the_main_thread(checks):
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.extend(states(RIGHT, checks)))
    thread.start()
    thread.join()
    assert found == ["passed"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": "1", "hint": "x"}, "chapter and exercise"),
        ({"number": "1.0", "hint": "x"}, "chapter and exercise"),
        ({"number": "1.1", "hint": " "}, "hint"),
        ({"number": "1.1", "hint": "x", "points": 0}, "points"),
        ({"number": "1.1", "hint": "x", "allow": "lmcourse.core"}, "allow"),
    ],
)
def test_exercise_refuses_what_would_be_no_exercise(arguments, message):
    with pytest.raises(ValueError, match=message):
        exercise(**arguments)


@pytest.mark.parametrize(
    ("assertion", "message"),
    [
        (lambda: assert_equal({"a": 1}, {"a": 2}, "counts"), "expected 2 for ['a'] of counts; got 1"),
        (lambda: assert_equal({}, {"a": 2}), "expected the key 'a'; got the keys []"),
        (lambda: assert_equal({"a": 2, "b": 1}, {"a": 2}), "expected no key 'b'; got 1 there"),
        (lambda: assert_equal([1, 2], [1, 2, 3]), "expected 3 elements, [1, 2, 3]; got 2, [1, 2]"),
        (lambda: assert_equal((1, 2), (1, 3)), "expected 3 at [1]; got 2"),
        (lambda: assert_equal(3, 4, "f(x)"), "expected 4 for f(x); got 3"),
        (lambda: assert_equal([[1, 2], [3, 5]], np.array([[1, 2], [3, 4]])), "expected 4 at [1, 1]; got 5"),
        (lambda: assert_equal(None, 4), "expected 4; got None (nothing was returned, or nothing is there)"),
        (lambda: assert_close([1, 2], [[1, 2]]), "expected shape (1, 2); got shape (2,)"),
        (lambda: assert_close("a", 1.0), "expected numbers of shape (); got 'a'"),
        (lambda: assert_close(float("nan"), 1.0), "expected 1.0; got nan"),
        (lambda: assert_close({"a": 0.5}, {"a": 0.25}), "expected 0.25 for ['a']; got 0.5"),
        (lambda: assert_distribution([1.5, -0.5]), "expected no probability below 0; got -0.5 at [1]"),
        (lambda: assert_distribution([[1, 0], [0.5, 0.25]]), "expected a sum of 1 over [1, :]; got 0.75"),
        (lambda: assert_distribution([float("nan"), 1]), "expected no probability below 0; got nan at [0]"),
        (lambda: assert_distribution([]), "expected one probability or more; got []"),
        (
            lambda: assert_distribution(None),
            "expected probabilities; got None (nothing was returned, or nothing is there)",
        ),
        (lambda: assert_distribution([1.0], axis=1), "expected probabilities along axis 1; got shape (1,)"),
        (
            lambda: assert_distribution({"a": [0.5, 0.5]}),
            "expected one number for each key; got values of shape (2,)",
        ),
        (lambda: assert_equal(np.array([1, 2]), [1, 2, 3]), "expected 3 elements, [1, 2, 3]; got 2, [1, 2]"),
        (lambda: assert_equal({"a": np.array([1, 2])}, {"a": [1, 3]}), "expected 3 at [1] of ['a']; got 2"),
        (lambda: assert_equal([1, [2, 3]], [1, [2, 4]]), "expected [2, 4] at [1]; got [2, 3]"),
    ],
)
def test_assertions_tell_the_first_difference(assertion, message):
    with pytest.raises(AssertionError) as caught:
        assertion()
    assert str(caught.value) == message


class EqualToAnything:
    __hash__ = None

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


class NumberEqualToAnything(int):
    __hash__ = int.__hash__
    __eq__ = EqualToAnything.__eq__


class DictEqualToAnything(dict):
    __eq__ = EqualToAnything.__eq__
    __hash__ = None


@pytest.mark.parametrize(
    "answer",
    [
        np.array([]),
        np.full(3, 5),
        np.array([5]),
        EqualToAnything(),
        NumberEqualToAnything(4),
        np.array(EqualToAnything(), dtype=object),
    ],
    ids=repr,
)
@pytest.mark.parametrize("expected", [5, 5.0, "abc", [5, 5], (5, 5), {"a": 5}, {5}, np.array([5, 5]), None])
def test_nothing_but_an_equal_value_is_equal(answer, expected):
    for actual, wanted in [(answer, expected), ([answer], [expected]), ({"a": answer}, {"a": expected})]:
        with pytest.raises(AssertionError):
            assert_equal(actual, wanted)


@pytest.mark.parametrize("answer", [DictEqualToAnything(), DictEqualToAnything(a=1)])
def test_a_mapping_is_compared_key_by_key_whatever_it_says_of_itself(answer):
    with pytest.raises(AssertionError):
        assert_equal(answer, {"a": 2})


def test_elements_of_an_array_of_objects_have_no_say():
    with pytest.raises(AssertionError):
        assert_equal(np.array([EqualToAnything()], dtype=object), np.array(["a"]))


def test_an_array_of_infinities_is_not_close_to_infinity():
    with pytest.raises(AssertionError, match=r"expected shape \(\); got shape \(2,\)"):
        assert_close(np.full(2, np.inf), np.inf)


@pytest.mark.parametrize(
    "assertion",
    [
        lambda: assert_equal({"a": np.array([1, 2])}, {"a": [1, 2]}),
        lambda: assert_equal(np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        lambda: assert_equal(np.array(5), 5),
        lambda: assert_equal(1, 1.0),
        lambda: assert_equal(1.0, True),
        lambda: assert_equal(Fraction(1, 2), 0.5),
        lambda: assert_equal(np.array(["a", "b"]), ["a", "b"]),
        lambda: assert_equal(["a", "b"], np.array(["a", "b"])),
        lambda: assert_equal(frozenset({1}), {1}),
        lambda: assert_equal(Counter("aab"), {"a": 2, "b": 1}),
        lambda: assert_equal([np.nan], np.array([np.nan])),
        lambda: assert_equal({"a": np.int64(1)}, {"a": 1}),
        lambda: assert_equal([np.array([1, 2])], [[1, 2]]),
        lambda: assert_equal(None, None),
        lambda: assert_close(np.float32(0.1), 0.1),
        lambda: assert_close([float("-inf")], [-np.inf]),
        lambda: assert_distribution({"a": 0.25, "b": 0.75}),
        lambda: assert_distribution(np.full((2, 3), 0.5), axis=0),
    ],
)
def test_assertions_accept_what_is_right(assertion):
    assert assertion() is None


def test_a_mean_one_part_in_a_hundred_thousand_off_is_not_close():
    with pytest.raises(AssertionError):
        assert_close(1.00001, 1.0)


def test_importing_the_grading_does_not_import_tensorflow():
    import subprocess

    program = textwrap.dedent("""
        import sys, lmcourse.grading, lmcourse.grading.grader
        print([name for name in ("tensorflow", "keras") if name in sys.modules])
    """)
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
