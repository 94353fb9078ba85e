"""Finds what in a notebook reaches for the grader: a human decides what to make of it, points are not taken.

`suspicious` reads the cells without running them; `Guard` compares what the tests rely on before and after. Neither
stops someone who works at it: the sandbox does that.
"""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

from lmcourse.grading.shortcuts import Shortcut

# Modules whose contents the tests rely on.
GUARDED = ("builtins", "inspect", "itertools", "json", "math", "numpy", "pytest", "random", "sys", "time")
_GUARDED_PACKAGES = ("_pytest", "keras", "lmcourse", "numpy", "pytest", "tensorflow")

# What no exercise of the course needs.
_SUSPICIOUS = (
    "__import__",
    "atexit",
    "ctypes",
    "eval",
    "exec",
    "gc.get_objects",
    "gc.get_referrers",
    "inspect.currentframe",
    "inspect.stack",
    "lmcourse.grading.checks",
    "multiprocessing",
    "os._exit",
    "os.close",
    "os.closerange",
    "os.environ",
    "os.execv",
    "os.fork",
    "os.kill",
    "os.killpg",
    "os.popen",
    "os.remove",
    "os.rmdir",
    "os.setsid",
    "os.system",
    "os.unlink",
    "os.write",
    "shutil.rmtree",
    "signal",
    "socket",
    "subprocess",
    "sys._getframe",
    "sys.exit",
    "sys.modules",
    "sys.settrace",
    "threading",
    "unittest.mock",
    "urllib",
)
_PLACES = re.compile(
    r"solutions\b.*\.ipynb|\bch\d\d_\w+\.(ipynb|py)\b|grading[/.\\]+checks|/proc/|tests[/\\]wrong"
)
_CHARACTERS = 200


def suspicious(
    cells: Sequence[str], exercises: Sequence[str], provided: Collection[str] = ()
) -> dict[str, list[Shortcut]]:
    """Find where cells patch what the tests rely on, or use what an answer has no need of.

    Args:
        cells: the sources of a notebook's code cells.
        exercises: the exercise that each belongs to, or "".
        provided: the sources of cells that the course itself gives out.

    Returns:
        The findings, each at its first place, by exercise; "" for the cells that belong to none.

    Example:
        >>> found = suspicious(["import numpy as np", "np.allclose = lambda *a: True"], ["", "1.1"])
        >>> [(flag.uses, flag.cell, flag.line) for flag in found["1.1"]]
        [('numpy.allclose, which it replaces', 'code cell 2', 1)]
    """
    names: dict[str, str] = {}
    found: dict[str, list[Shortcut]] = {}
    seen = set()
    for number, (source, exercise) in enumerate(zip(cells, exercises, strict=True), start=1):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # it does not run either; magics are dropped where it does
        lines = source.splitlines()
        try:
            uses = list(_uses(tree, names))
        except RecursionError:
            uses = [("code too deeply nested to be read", 1)]
        for what, line in uses:
            if what not in seen and source not in provided:
                seen.add(what)
                text = _printable(lines[line - 1].strip()) if line <= len(lines) else ""
                flag = Shortcut("the notebook", what, line, f"code cell {number}", text)
                found.setdefault(exercise, []).append(flag)
    return found


def _uses(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Yield what a cell does, with its line; `names` learns what its imports are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imported(node, names)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Attribute | ast.Name):
            name = _full_name(node, names)
            # Also what is assigned through: `sys.modules["numpy"] = …` loads sys.modules.
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load) and _is_guarded(name):
                yield f"{name}, which it replaces", line
            elif _is_suspicious(name):
                yield name, line
        elif isinstance(node, ast.Call) and _full_name(node.func, names) in ("setattr", "delattr"):
            if node.args and _is_guarded(f"{_full_name(node.args[0], names)}."):
                yield f"{_full_name(node.args[0], names)}, in which it replaces something", line
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _PLACES.search(node.value[:2000])
            and not _is_documentation(node, tree)
        ):
            yield f"the path {_printable(node.value[:60])!r}", line


def _imported(node: ast.Import | ast.ImportFrom, names: dict[str, str]) -> Iterator[tuple[str, int]]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            full = alias.name
            names[alias.asname or full.partition(".")[0]] = full if alias.asname else full.partition(".")[0]
        else:
            full = f"{node.module}.{alias.name}"
            names[alias.asname or alias.name] = full
        if _is_suspicious(full):
            yield full, node.lineno


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return what a chain of names refers to, as in "numpy.allclose", or "" if it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def _is_suspicious(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in _SUSPICIOUS)


def _is_guarded(name: str) -> bool:
    package, dot, _ = name.partition(".")
    return bool(dot) and package in {*GUARDED, *_GUARDED_PACKAGES, "__builtins__"}


def _is_documentation(constant: ast.Constant, tree: ast.AST) -> bool:
    """Tell whether a text stands by itself, as docstrings do."""
    return any(isinstance(node, ast.Expr) and node.value is constant for node in ast.walk(tree))


def _printable(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"


class Guard:
    """Remembers what modules hold, and puts back what a notebook replaces in them."""

    def __init__(self, modules: Sequence[str]):
        """Look at modules that are imported already.

        Args:
            modules: their names; those that are not imported are passed over.
        """
        self._modules: dict[str, ModuleType] = {
            name: sys.modules[name] for name in modules if isinstance(sys.modules.get(name), ModuleType)
        }
        self._contents = {name: dict(vars(module)) for name, module in self._modules.items()}
        self._code = {
            f"{name}.{attribute}": (value, value.__code__)
            for name, contents in self._contents.items()
            for attribute, value in contents.items()
            if isinstance(value, FunctionType)
        }

    def restore(self) -> list[str]:
        """Put back what has been replaced or removed, and return its names."""
        changed = []
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                changed.append(f"sys.modules[{name!r}]")
                sys.modules[name] = module
            now = vars(module)
            for attribute, value in self._contents[name].items():
                if now.get(attribute, _GONE) is not value and not _may_change(name, attribute):
                    changed.append(f"{name}.{attribute}")
                    now[attribute] = value
        for name, (function, code) in self._code.items():
            if function.__code__ is not code:
                changed.append(name)
                function.__code__ = code
        return changed


_GONE: Any = object()


def _may_change(module: str, attribute: str) -> bool:
    """Tell whether Python itself, or what is allowed to a notebook, changes this."""
    if attribute.startswith("__") and attribute != "__import__":
        return True
    return attribute == "_" or (module == "sys" and attribute in _CHANGING_IN_SYS)


_CHANGING_IN_SYS = frozenset(
    {
        "argv",
        "displayhook",
        "exc_info",
        "last_exc",
        "last_traceback",
        "last_type",
        "last_value",
        "path",
        "ps1",
        "ps2",
        "stderr",
        "stdin",
        "stdout",
    }
)
