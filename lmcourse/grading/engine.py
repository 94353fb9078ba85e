"""The one engine: pytest, in this process, over a chapter's checks and a learner's functions."""

import contextlib
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmcourse.grading.exercise import answer_names
from lmcourse.grading.outcomes import TOO_SLOW, MissingAnswer, NotRun, Outcome, Test, outcome_of

DEFAULT_TIMEOUT_SECONDS = 10.0

# What a check does not need: plugins that write files, open debuggers or take over the notebook's streams.
_SWITCHED_OFF = ("cacheprovider", "capture", "debugging", "doctest", "faulthandler", "junitxml", "logging")
_MORE_SWITCHED_OFF = (
    "pastebin",
    "setuponly",
    "stepwise",
    "threadexception",
    "unittest",
    "unraisableexception",
)


class ChecksError(Exception):
    """A chapter's checks cannot be run: a fault of the course, not of the answer."""


def run_checks(
    checks: Path | Sequence[Path],
    answers: Mapping[str, Any],
    *,
    number: str | None = None,
    known: Sequence[Outcome] = (),
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    on_collected: Callable[[list[Test]], None] = lambda tests: None,
    on_start: Callable[[Test], None] = lambda test: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Test], list[Outcome]]:
    """Run the tests of a chapter, or of one exercise, on a learner's functions.

    Once a test was too slow, the exercise's later tests of the same functions are not run and count as too slow:
    an endless loop costs its time once.

    Args:
        checks: the chapter's module of tests, or several, in which no two tests have the same name.
        answers: what the learner's notebook defines, by name.
        number: the exercise to run, as in "1.3"; default: all.
        known: outcomes of an earlier run; their tests are left out.
        timeout: how long one test may take, in seconds. What hangs inside compiled code or swallows every
            exception is not stopped, and nothing is outside the main thread or without SIGALRM: that takes a
            process of its own, as `grade` has.
        on_collected: called with all tests of the chapter before the first runs.
        on_start: called before each test.
        on_outcome: called after each test.

    Returns:
        All tests of the chapter, in the order of the file, and the outcomes of those that ran.

    Raises:
        ChecksError: if the module cannot be imported or holds no test of an exercise.
        KeyboardInterrupt: if the user interrupted it.
    """
    session = _Session(answers, number, known, on_collected, on_start, on_outcome)
    modules = [checks] if isinstance(checks, Path) else list(checks)
    names = " and ".join(module.name for module in modules)
    status = _pytest(modules, session, timeout)
    if session.errors:
        raise ChecksError(f"{names} cannot be imported: {session.errors[0]}")
    twice = [name for name, times in Counter(test.name for test in session.tests).items() if times > 1]
    if twice:
        raise ChecksError(f"{names} have two tests called {twice[0]}; rename one.")
    if not session.tests:
        raise ChecksError(f"{names} holds no test with @exercise.")
    if status == "interrupted":
        raise KeyboardInterrupt
    if len(session.outcomes) < len(session.chosen):
        raise ChecksError(f"{names} stopped after {len(session.outcomes)} tests.")
    return session.tests, session.outcomes


def collect(checks: Path | Sequence[Path]) -> list[Test]:
    """Return the tests of a chapter, in the order of the file, without running any.

    Raises:
        ChecksError: if the module cannot be imported or holds no test of an exercise.
    """
    return run_checks(checks, {}, number="none")[0]


class _Session:
    """A pytest plugin: hands the answers to the tests and takes down what becomes of each."""

    def __init__(
        self,
        answers: Mapping[str, Any],
        number: str | None,
        known: Sequence[Outcome],
        on_collected: Callable[[list[Test]], None],
        on_start: Callable[[Test], None],
        on_outcome: Callable[[Outcome], None],
    ):
        self.answers = answers
        self.number = number
        self.known = {outcome.test: outcome for outcome in known}
        self.on_collected = on_collected
        self.on_start = on_start
        self.on_outcome = on_outcome
        self.tests: list[Test] = []
        self.chosen: list[Test] = []
        self.outcomes: list[Outcome] = []
        self.errors: list[str] = []

    def finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.on_outcome(outcome)

    def too_slow(self, number: str) -> set[str]:
        """Return the answers that the exercise's tests which were too slow take."""
        outcomes = {**self.known, **{outcome.test: outcome for outcome in self.outcomes}}
        slow = {name for name, outcome in outcomes.items() if outcome.state == TOO_SLOW}
        return {
            name
            for test in self.tests
            if test.number == number and test.name in slow
            for name in test.answers
        }

    def pytest_generate_tests(self, metafunc: Any) -> None:
        for name in answer_names(metafunc.function):
            # An id of our own keeps pytest from looking into the learner's object for one.
            metafunc.parametrize(name, [self.answers.get(name)], ids=[name])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        declared = [(item, item.function.exercise) for item in items if hasattr(item.function, "exercise")]
        chosen = []
        for item, exercise in declared:
            test = Test(
                item.originalname,
                exercise.number,
                exercise.points,
                exercise.hint,
                answer_names(item.function),
                exercise.allow,
            )
            self.tests.append(test)
            if self.number in (None, test.number) and test.name not in self.known:
                self.chosen.append(test)
                item.course_test = test
                chosen.append(item)
        items[:] = chosen
        if self.tests:
            self.on_collected(self.tests)

    def pytest_runtest_setup(self, item: Any) -> None:
        self.on_start(item.course_test)
        for name in item.course_test.answers:
            if name not in self.answers:
                raise MissingAnswer(f"the notebook defines no `{name}`")
            if name in self.too_slow(item.course_test.number):
                raise NotRun(f"not run, for `{name}` was too slow before")

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: Any) -> Any:
        """Keep an answer that calls `pytest.exit` from ending the session."""
        try:
            return (yield)
        except pytest.exit.Exception as error:
            raise RuntimeError("the answer tried to stop the tests") from error

    def pytest_runtest_makereport(self, item: Any, call: Any) -> Any:
        """Take the exception itself: pytest's own report would print the learner's objects, which may fail."""
        error = call.excinfo.value if call.excinfo else None
        if error is not None or call.when == "call":
            done = self.outcomes and self.outcomes[-1].test == item.course_test.name
            if not done:
                self.finish(outcome_of(item.course_test.name, error, item.function.__globals__))
        state = "passed" if error is None else "failed"
        return pytest.TestReport(item.nodeid, item.location, {}, state, None, call.when)


def _pytest(checks: Sequence[Path], session: _Session, timeout: float) -> str:
    """Run pytest with nothing of the learner's folder: no configuration, no plugins, no files written."""
    options = [f"-pno:{plugin}" for plugin in (*_SWITCHED_OFF, *_MORE_SWITCHED_OFF)]
    options += ["-ppytest_timeout", f"--timeout={timeout if _has_alarm() else 0}", "--timeout-method=signal"]
    options += ["--timeout-disable-debugger-detection"]
    options += [f"--rootdir={checks[0].parent}", f"-c{os.devnull}", "--noconftest", "--import-mode=importlib"]
    options += ["--quiet", "--no-header", "--no-summary", "-Wignore", *map(str, checks)]
    with _quiet(), _own_settings():
        status = pytest.main(options, plugins=[session])
    if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        raise ChecksError(f"pytest could not run {checks[0].name}.")
    return "interrupted" if status == pytest.ExitCode.INTERRUPTED and not session.errors else "done"


def _has_alarm() -> bool:
    """Tell whether a test can be stopped here; pytest-timeout's other way would end the whole process."""
    return hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what the tests and the answers print nowhere."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """Keep pytest from reading the environment's options, and undo what it and the answers change."""
    environment = dict(os.environ)
    limit = sys.getrecursionlimit()
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        os.environ.clear()
        os.environ.update(environment)
