"""What test_exercises.py proves of each chapter's exercises, as functions over one chapter's files."""

import ast
import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmcourse.grading import chapters
from lmcourse.grading.engine import collect, run_checks
from lmcourse.grading.notebook import CellFailure, Runner, read_notebook, silent_cards
from lmcourse.grading.outcomes import PASSED, Outcome, Test
from tests.wrong import Answer, answers_in

ROOT = Path(__file__).resolve().parent.parent

# Long enough for a right answer on a busy machine; an endless wrong one costs this much of the tests' time.
SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Files:
    """A chapter's four files."""

    checks: Path
    solution: Path
    stub: Path
    wrong: Path

    @property
    def stem(self) -> str:
        return self.checks.stem


def all_files(root: Path = ROOT) -> list[Files]:
    """Return the files of every chapter that has checks."""
    return [
        Files(
            chapter.checks,
            root / "solutions" / f"{chapter.stem}.ipynb",
            root / "exercises" / f"{chapter.stem}.ipynb",
            root / "tests" / "wrong" / f"{chapter.stem}.py",
        )
        for chapter in chapters.chapters()
    ]


@functools.cache
def tests_of(files: Files) -> list[Test]:
    """Return the tests of a chapter, in order."""
    return collect(files.checks)


@functools.cache
def executed(notebook: Path) -> tuple[Mapping[str, Any], list[CellFailure]]:
    """Execute a notebook; return what it defines and the cells that failed."""
    runner = Runner()
    with silent_cards():
        failures = list(runner.run(read_notebook(notebook).code))
    return runner.namespace, failures


@functools.cache
def declared_answers(files: Files) -> list[Answer]:
    """Return the wrong answers of a chapter and the right ones in another style."""
    if not files.wrong.exists():
        return []
    name = f"tests.wrong.{files.stem}"
    spec = importlib.util.spec_from_file_location(name, files.wrong)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return answers_in(module)


def outcomes_of(files: Files, answer: Answer) -> list[Outcome]:
    """Run an exercise's tests on an answer; what else the exercise asks for is the solution's."""
    namespace, _ = executed(files.solution)
    answers = {**namespace, answer.name: answer.value}
    return run_checks(files.checks, answers, number=answer.exercise, timeout=SECONDS)[1]


def first_failure(outcomes: list[Outcome]) -> str | None:
    """Return the name of the first test that did not pass, or None."""
    return next((outcome.test for outcome in outcomes if outcome.state != PASSED), None)


def states_of(files: Files, notebook: Path) -> dict[str, str]:
    """Return the state of every test of the chapter on what a notebook defines."""
    namespace, _ = executed(notebook)
    return {outcome.test: outcome.state for outcome in run_checks(files.checks, namespace)[1]}


def undeclared_tests(files: Files) -> set[str]:
    """Return the tests in the module that are not part of an exercise, so that nothing would run them."""
    tree = ast.parse(files.checks.read_text(encoding="utf-8"))
    written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in written if name.startswith("test_")} - {test.name for test in tests_of(files)}


def uncaught_tests(files: Files) -> set[str]:
    """Return the tests that no wrong answer is the proof of."""
    caught = {(answer.exercise, answer.caught_by) for answer in declared_answers(files)}
    return {test.name for test in tests_of(files) if (test.number, test.name) not in caught}


def wrong_answers_by_exercise(files: Files) -> dict[str, int]:
    """Return how many wrong answers each exercise has."""
    wrong = [answer.exercise for answer in declared_answers(files) if answer.caught_by]
    return {number: wrong.count(number) for number in dict.fromkeys(test.number for test in tests_of(files))}


def answers_that_are_not_asked_for(files: Files) -> Iterator[str]:
    """Yield the declared answers whose name no test of their exercise takes."""
    for answer in declared_answers(files):
        names = {name for test in tests_of(files) if test.number == answer.exercise for name in test.answers}
        if answer.name not in names:
            yield f"{answer.label} stands for `{answer.name}`; exercise {answer.exercise} asks for {sorted(names)}"
