"""Reads a notebook and executes its code, without a kernel: what grading needs of one."""

import ast
import contextlib
import dataclasses
import inspect
import json
import linecache
import re
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from lmcourse.grading.outcomes import shorten

# How the course's notebooks say which exercise a cell belongs to: by a tag, else by the heading before it.
EXERCISE_TAG = re.compile(r"exercise-(\d+\.\d+)")
EXERCISE_HEADING = re.compile(r"^#+ .*?\bExercise (\d+\.\d+)", re.MULTILINE)

# A notebook of answers has kilobytes; with figures in its outputs, a few megabytes.
MAX_BYTES = 20_000_000

# Cell magics that run the cell's body as Python; the others (%%bash, %%writefile, ...) are dropped.
_RUNS_THE_BODY = frozenset({"capture", "prun", "time", "timeit"})


class NotebookError(ValueError):
    """The file is no notebook that can be read; the message says what is wrong with it."""


class CellTimeout(BaseException):
    """A cell ran for too long. Not an Exception, so that the cell's own handlers let it pass."""


@dataclasses.dataclass(frozen=True)
class CellFailure:
    """A cell that did not run to its end.

    Attributes:
        cell: its place among the notebook's code cells, from 1.
        error: what happened.
        exercise: the exercise that the notebook says it belongs to, as in "1.3", or "".
    """

    cell: int
    error: str
    exercise: str = ""


@dataclasses.dataclass(frozen=True)
class Notebook:
    """What grading needs of a notebook.

    Attributes:
        code: the sources of the code cells, in order.
        exercises: the exercise that each of them belongs to, as in "1.3", or "".
        metadata: the notebook's own.
    """

    code: list[str]
    exercises: list[str]
    metadata: dict[str, Any]


def read_notebook(path: Path) -> Notebook:
    """Read a notebook of any version of the format.

    Raises:
        NotebookError: if there is no such file, it is too large, or it is no notebook.
    """
    try:
        size = Path(path).stat().st_size
        contents = Path(path).read_bytes() if size <= MAX_BYTES else b""
    except FileNotFoundError:
        raise NotebookError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise NotebookError(f"{path} is a folder; name the notebook in it.") from None
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror or error}.") from None
    if size > MAX_BYTES:
        raise NotebookError(
            f"{path} has {size / 1e6:.0f} MB; a notebook of answers has at most {MAX_BYTES / 1e6:.0f} MB: "
            "clear its outputs and save it again."
        )
    try:
        return _parse(contents.decode("utf-8"))
    except Exception:
        raise NotebookError(
            f"{path} cannot be read as a notebook; name one such as my/ch01_ngram.ipynb."
        ) from None


def _parse(text: str) -> Notebook:
    contents = json.loads(text)
    if not isinstance(contents, dict) or "nbformat" not in contents:
        raise ValueError("it has no `nbformat`.")
    if contents["nbformat"] != 4:
        # Imported only here: nbformat's validator takes seconds to load, and every grading waits for it.
        import nbformat

        contents = json.loads(nbformat.v4.writes(nbformat.reads(text, as_version=4)))
    code, exercises = [], []
    heading = ""
    for cell in contents["cells"]:
        source = "".join(cell["source"])  # a string, or a list of lines
        if cell["cell_type"] == "code":
            tags = str(cell.get("metadata", {}).get("tags"))
            code.append(source)
            exercises.append(_last(EXERCISE_TAG, tags) or heading)
        elif cell["cell_type"] == "markdown":
            heading = _last(EXERCISE_HEADING, source) or heading
    return Notebook(code, exercises, dict(contents.get("metadata", {})))


def _last(pattern: re.Pattern[str], text: str) -> str:
    return (pattern.findall(text) or [""])[-1]


class Runner:
    """Executes cells in one namespace, a module called `__main__`.

    Attributes:
        main: the module.
        namespace: its names.
    """

    def __init__(self):
        """Make an empty `__main__`; it is not put into `sys.modules`."""
        self.main = ModuleType("__main__")
        self.namespace: dict[str, Any] = vars(self.main)
        self.namespace["get_ipython"] = lambda: _Shell(self)
        self.namespace["display"] = lambda *values, **options: None

    def run(
        self,
        cells: list[str],
        *,
        skip: Collection[int] = (),
        seconds: float = 60.0,
        on_start: Callable[[int], None] = lambda cell: None,
    ) -> Iterator[CellFailure]:
        """Execute the cells one after the other; one that fails does not stop the next.

        Args:
            cells: sources of code cells; IPython's magics and shell lines may be among them and do nothing.
            skip: numbers of cells to leave out, from 1.
            seconds: how long one cell may take.
            on_start: called with a cell's number before it runs.

        Yields:
            The cells that failed.
        """
        for number, source in enumerate(cells, start=1):
            if number in skip:
                continue
            on_start(number)
            try:
                with time_limit(seconds):
                    self.execute(source, f"code cell {number}")
            except KeyboardInterrupt:
                raise
            except CellTimeout:
                yield CellFailure(number, f"still running after {seconds:g} s")
            except BaseException as error:
                yield CellFailure(number, shorten(f"{type(error).__name__}: {_text(error)}"))

    def execute(self, source: str, name: str) -> None:
        """Execute one cell's source; what it raises passes through."""
        try:
            code = _compile(source, name)
        except SyntaxError:
            source = _without_magics(source)
            code = _compile(source, name)
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)  # so that its lines can be quoted
        result = eval(code, self.namespace)  # runs the cell, or makes a coroutine of one that awaits
        if inspect.iscoroutine(result):
            import asyncio

            asyncio.run(result)


class _Shell:
    """Stands for IPython where a notebook calls it: does nothing, unless the line is Python after all."""

    def __init__(self, runner: Runner):
        self._runner = runner

    def run_line_magic(self, name: str, line: str, *args: Any, **options: Any) -> None:
        if name == "time":
            self._runner.execute(line, "line magic")

    def run_cell_magic(self, name: str, line: str, body: str) -> None:
        if name in _RUNS_THE_BODY:
            self._runner.execute(body, "cell magic")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


@contextlib.contextmanager
def silent_cards() -> Iterator[None]:
    """Make `check` and `progress` do nothing in a notebook that is executed here: its tests run afterwards."""
    import lmcourse.grading as grading

    before = grading.check, grading.progress
    grading.check = grading.progress = lambda *args, **options: None
    try:
        yield
    finally:
        grading.check, grading.progress = before


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise CellTimeout in the block after some seconds.

    Where the platform has no such alarm, or outside the main thread, there is no limit: a parent process sets one.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise CellTimeout

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _compile(source: str, name: str) -> CodeType:
    """Compile a cell, in which `await` may stand outside a function as in Jupyter."""
    return compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _without_magics(source: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be printed)"
