"""Makes exercises/ from solutions/: `python -m tools.make_exercises`, or with `--check` only compares.

In a solution notebook, what a learner has to write stands between two markers:

    def bigram_counts(words):
        ### BEGIN SOLUTION
        return collections.Counter(itertools.pairwise(words))
        ### END SOLUTION

Each such block becomes `raise NotImplementedError("Exercise 1.1")` at the marker's indentation. The number is
the one in a cell's tag (`exercise-1.1`), else the one in the nearest heading before it ("## Exercise 1.1: ...").
Cells tagged `solution-only` are left out. The result is executed, so that it is committed with its cards, all red.
"""

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lmcourse.chapters import two_digits
from lmcourse.grading.notebook import EXERCISE_HEADING, EXERCISE_TAG
from tools import notebooks

ROOT = Path(__file__).resolve().parent.parent

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"

# Importing TensorFlow alone can take ten seconds on a busy machine.
CELL_SECONDS = 120


class SolutionError(ValueError):
    """A solution notebook's markers are not as they must be; the message names the cell."""


def make_stub(solution: NotebookNode, name: str) -> NotebookNode:
    """Return the notebook of stubs for a notebook of solutions, without outputs.

    Args:
        solution: the solution notebook; it is left as it is.
        name: its file's stem, as in "ch03_attention", for messages and for the chapter in the metadata.

    Raises:
        SolutionError: if markers are unbalanced or nested, or a block belongs to no exercise.
    """
    stub = copy.deepcopy(solution)
    stub.metadata["lmcourse"] = {"chapter": name[2:4]}
    stub.cells = []
    number = None
    for position, cell in enumerate(solution.cells, start=1):
        if cell.cell_type == "markdown":
            number = _last(EXERCISE_HEADING.findall(cell.source)) or number
        tags = cell.metadata.get("tags", [])
        if "solution-only" in tags:
            continue
        kept = copy.deepcopy(cell)
        if cell.cell_type == "code":
            tagged = _last([match[1] for match in map(EXERCISE_TAG.fullmatch, tags) if match])
            kept.source = hide_solutions(cell.source, tagged or number, f"{name}, cell {position}")
            kept.outputs, kept.execution_count = [], None
            kept.metadata.pop("execution", None)
        stub.cells.append(kept)
    return stub


def hide_solutions(source: str, number: str | None, where: str) -> str:
    r"""Replace each marked block of a cell by a line that raises NotImplementedError.

    Args:
        source: the cell's source.
        number: the exercise the cell belongs to, or None.
        where: the cell, in words, for messages.

    Raises:
        SolutionError: if markers are unbalanced or nested, or there is a block and no number.

    Example:
        >>> print(hide_solutions("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION", "1.1", ""))
        def f():
            raise NotImplementedError("Exercise 1.1")
    """
    lines = []
    begun = None
    for line_number, line in enumerate(source.split("\n"), start=1):
        marker = line.strip()
        if marker == BEGIN:
            if begun:
                raise SolutionError(f"{where}, line {line_number}: {BEGIN} inside the block of line {begun}.")
            if number is None:
                raise SolutionError(
                    f"{where}, line {line_number}: the solution belongs to no exercise; give the cell a tag such as "
                    'exercise-1.3, or a heading "## Exercise 1.3" before it.'
                )
            begun = line_number
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f'{indent}raise NotImplementedError("Exercise {number}")')
        elif marker == END:
            if not begun:
                raise SolutionError(f"{where}, line {line_number}: {END} without {BEGIN}.")
            begun = None
        elif BEGIN in line or END in line:
            raise SolutionError(
                f"{where}, line {line_number}: a marker must stand alone on its line; got {line!r}."
            )
        elif not begun:
            lines.append(line)
    if begun:
        raise SolutionError(f"{where}, line {begun}: {BEGIN} without {END}.")
    return "\n".join(lines)


def solution_lengths(source: str) -> list[int]:
    """Return how many lines of code each marked block of a cell has; blank lines and comments do not count."""
    lengths: list[int] = []
    inside = False
    for line in map(str.strip, source.split("\n")):
        if line == BEGIN:
            lengths.append(0)
        elif inside and line != END and line and not line.startswith("#"):
            lengths[-1] += 1
        inside = line == BEGIN or (inside and line != END)
    return lengths


def same_sources(one: NotebookNode, other: NotebookNode) -> bool:
    """Tell whether two notebooks have the same cells, outputs aside."""

    def essence(notebook: NotebookNode) -> list[tuple[str, str, str, list[str]]]:
        return [
            (cell.cell_type, cell.get("id", ""), cell.source, list(cell.metadata.get("tags", [])))
            for cell in notebook.cells
        ]

    return essence(one) == essence(other) and one.metadata.get("lmcourse") == other.metadata.get("lmcourse")


def out_of_date(solutions: Path, exercises: Path) -> list[str]:
    """Return, for each notebook in exercises/ that is not what its solution gives, a line that says why.

    Raises:
        SolutionError: if a solution's markers are wrong.
    """
    faults = []
    expected = {path.name: path for path in _notebooks(solutions)}
    for name, path in expected.items():
        stub = exercises / name
        if not stub.exists():
            faults.append(f"{stub.name} is missing")
        elif not same_sources(make_stub(_read(path), path.stem), _read(stub)):
            faults.append(f"{stub.name} is not what its solution gives")
    faults += [f"{path.name} has no solution" for path in _notebooks(exercises) if path.name not in expected]
    return faults


def make(solutions: Path, exercises: Path, chapters: Sequence[str] = ()) -> Iterator[Path]:
    """Write the notebooks of stubs, executed.

    Args:
        solutions: the folder of the solution notebooks.
        exercises: the folder to write to.
        chapters: numbers of the chapters to make; default: all.

    Yields:
        The files, as they are written.

    Raises:
        SolutionError: if a solution's markers are wrong.
        nbclient.exceptions.CellExecutionError: if a cell raises, which a stub's never should.
    """
    exercises.mkdir(parents=True, exist_ok=True)
    wanted = {two_digits(chapter) for chapter in chapters}
    for path in _notebooks(solutions):
        if wanted and path.name[2:4] not in wanted:
            continue
        stub = make_stub(_read(path), path.stem)
        notebooks.run(stub, exercises, CELL_SECONDS)
        notebooks.write(stub, exercises / path.name)
        yield exercises / path.name


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Make exercises/, or compare it with --check.

    Returns:
        0 when it is up to date, 1 when --check found it is not, 2 when a solution is faulty.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_exercises", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if exercises/ is not up to date"
    )
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="only these chapters, as in 03; default: all"
    )
    args = parser.parse_args(argv)
    try:
        if args.check:
            faults = out_of_date(root / "solutions", root / "exercises")
            print("\n".join(faults) or "exercises/ is up to date.")
            return 1 if faults else 0
        for path in make(root / "solutions", root / "exercises", args.chapters):
            print(f"wrote {path.relative_to(root)}")
    except SolutionError as error:
        print(f"make_exercises: {error}", file=sys.stderr)
        return 2
    return 0


def _notebooks(folder: Path) -> list[Path]:
    return sorted(folder.glob("ch[0-9][0-9]_*.ipynb"))


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _last(values: Sequence[str]) -> str | None:
    return values[-1] if values else None


if __name__ == "__main__":
    sys.exit(main())
