"""Finds answers that call the course's own version of what an exercise asks for.

The answer is not run: its compiled code is read. Each chain of names it loads (`ngram.perplexity`, an alias,
a helper of its own) is followed to the object, and objects of lmcourse are reported.
"""

import contextlib
import dataclasses
import dis
import functools
import importlib
import inspect
import linecache
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

PACKAGE = "lmcourse"

_MODULE_NAME = re.compile(rf"{PACKAGE}(\.\w+)*")
# Between an import and the name it is bound to.
_NEUTRAL = frozenset({"CACHE", "COPY", "EXTENDED_ARG", "LOAD_CLOSURE", "NOP", "POP_TOP", "PUSH_NULL", "SWAP"})
_LOADS_LOCAL = frozenset({"LOAD_CLASSDEREF", "LOAD_DEREF", "LOAD_FAST", "LOAD_FAST_CHECK"})
_LOADS_GLOBAL = frozenset(
    {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS"}
)
_UNKNOWN = object()


@dataclasses.dataclass(frozen=True)
class Shortcut:
    """A place where an answer uses something of lmcourse.

    Attributes:
        answer: the name of the answer.
        uses: what it uses, as in "lmcourse.ngram.perplexity".
        line: the line in its cell or file, from one; None where it is not known.
        cell: the name of the cell or file.
        source: that line's text, where it is known.
    """

    answer: str
    uses: str
    line: int | None = None
    cell: str = ""
    source: str = ""


def find_shortcuts(answer: str, value: Any, allow: Collection[str] = ()) -> list[Shortcut]:
    """Find what an answer uses of lmcourse.

    Args:
        answer: what the notebook calls it.
        value: the function or class.
        allow: names that it may use: an object, or all of a module.

    Returns:
        One entry for each object, at its first use. What is reached only through computed names
        (`vars(module)[name]`) is reported as the module.

    Example:
        >>> from lmcourse import core
        >>> def mean_surprise(model, documents):
        ...     return core.perplexity(model, documents)
        >>> [shortcut.uses for shortcut in find_shortcuts("mean_surprise", mean_surprise)]
        ['lmcourse.core.perplexity']
    """
    reader = _Reader()
    reader.read(value, None)
    found: dict[str, Shortcut] = {}
    for uses, place in reader.found:
        if not _allowed(uses, allow):
            found.setdefault(uses, Shortcut(answer, uses, *(place or ())))
    return list(found.values())


class _Reader:
    """Walks from a value to everything that its code refers to, once each."""

    def __init__(self):
        self.found: list[tuple[str, tuple[int | None, str, str] | None]] = []
        self._seen: dict[int, Any] = {}

    def read(self, value: Any, place: tuple[int | None, str, str] | None) -> None:
        """Report the value if it is lmcourse's, else look into it."""
        if id(value) in self._seen and not _name_in_course(value):
            return
        self._seen[id(value)] = value  # held, so that no other object gets its id
        name = _name_in_course(value)
        if name:
            self.found.append((name, place))
        elif isinstance(value, FunctionType):
            self._read_function(value)
        elif isinstance(value, type):
            self._read_class(value, place)
        else:
            for part in _parts(value):
                self.read(part, place)

    def _read_function(self, function: FunctionType) -> None:
        if not _is_learners(function):
            return
        self._read_code(function.__code__, function.__globals__, _closure(function))
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.read(default, _place(function.__code__, function.__code__.co_firstlineno))
        if hasattr(function, "__wrapped__"):
            self.read(function.__wrapped__, None)

    def _read_class(self, cls: type, place: tuple[int | None, str, str] | None) -> None:
        for base in cls.__bases__:
            if _name_in_course(base):
                self.found.append((_name_in_course(base), place))
        if cls.__module__ == "builtins" or not _is_learners_class(cls):
            return
        for member in vars(cls).values():
            self.read(member, place)

    def _read_code(self, code: CodeType, names: Mapping[str, Any], local: dict[str, Any]) -> None:
        for value, line in _values(code, names, local):
            self.read(value, _place(code, line))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._read_code(constant, names, dict(local))


def _values(
    code: CodeType, names: Mapping[str, Any], local: dict[str, Any]
) -> Iterator[tuple[Any, int | None]]:
    """Yield every object that the code loads by name, attributes resolved, with its line.

    What the code binds to modules and to imported objects is kept in `local`.
    """
    value, value_line, imported, constant = _UNKNOWN, None, _UNKNOWN, None
    for operation, argument, line in _steps(code):
        if operation in ("LOAD_ATTR", "LOAD_METHOD"):
            value = _attribute(value, argument)
            continue
        bound = operation.startswith("STORE_") and isinstance(argument, str)
        if bound:
            local[argument] = value
        # A module that is only imported or given another name is no use of it yet.
        if value is not _UNKNOWN and not (isinstance(value, ModuleType) and (bound or "IMPORT" in operation)):
            yield value, value_line
        value, value_line = _UNKNOWN, line
        if operation == "IMPORT_NAME":
            # `import a.b` binds a; `from a.b import c` takes c from a.b.
            plain = constant is None
            imported = _import(argument.partition(".")[0] if plain else argument)
            value = imported if plain else _UNKNOWN
        elif operation == "IMPORT_FROM":
            value = _attribute(imported, argument)
            imported = value if plain else imported
        elif operation == "LOAD_CONST":
            constant = argument
            value = _import(argument) if isinstance(argument, str) and "." in argument else _UNKNOWN
        elif operation in _LOADS_LOCAL:
            value = local.get(argument, _UNKNOWN)
        elif operation in _LOADS_GLOBAL:
            value = local.get(argument, names.get(argument, _UNKNOWN))
    if value is not _UNKNOWN:
        yield value, value_line


def _steps(code: CodeType) -> Iterator[tuple[str, Any, int | None]]:
    """Yield (operation, argument, line), without the interpreter's bookkeeping."""
    line = code.co_firstlineno
    cells = {*code.co_cellvars, *code.co_freevars}
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno or line
        # Python 3.13 joins two neighbours into one instruction with a pair of names.
        pair = re.findall(r"(?:LOAD|STORE)_FAST", instruction.opname)
        if len(pair) == 2 and isinstance(instruction.argval, tuple):
            yield from (
                (operation, name, line) for operation, name in zip(pair, instruction.argval, strict=True)
            )
            continue
        hands_over_a_cell = instruction.opname.startswith("LOAD_FAST") and instruction.argval in cells
        if instruction.opname not in _NEUTRAL and not hands_over_a_cell:
            yield instruction.opname, instruction.argval, line


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute of a module, and of a class or object of lmcourse that class or object itself."""
    if isinstance(value, ModuleType):
        found = vars(value).get(name, _UNKNOWN)
        if found is _UNKNOWN and _name_in_course(value):
            found = getattr(value, name, _UNKNOWN)
        return _import(f"{value.__name__}.{name}") if found is _UNKNOWN else found
    return value if value is not _UNKNOWN and _name_in_course(value) else _UNKNOWN


def _import(name: str) -> Any:
    """Import a module of lmcourse; others are of no interest here."""
    if not _MODULE_NAME.fullmatch(name):
        return _UNKNOWN
    try:
        return importlib.import_module(name)
    except ImportError:
        return _UNKNOWN


def _name_in_course(value: Any) -> str | None:
    """Return the full name of an object of lmcourse, or None for anything else."""
    if isinstance(value, ModuleType):
        name = value.__name__
    elif isinstance(value, type | FunctionType):
        name = f"{value.__module__}.{value.__qualname__}"
    elif isinstance(value, MethodType):
        return _name_in_course(value.__func__)
    else:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
    inside = name == PACKAGE or name.startswith(f"{PACKAGE}.")
    return name if inside and not name.startswith(f"{PACKAGE}.grading") else None


def _parts(value: Any) -> tuple[Any, ...]:
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, MethodType | staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return tuple(part for part in (value.fget, value.fset) if part)
    if type(value) in (list, tuple, set, frozenset):
        return tuple(value) if len(value) <= 100 else ()
    if type(value) is dict:
        return tuple(value.values()) if len(value) <= 100 else ()
    wrapped = inspect.getattr_static(value, "__wrapped__", None)
    return () if wrapped is None else (value.__wrapped__,)


def _is_learners(function: FunctionType) -> bool:
    return "site-packages" not in function.__code__.co_filename and not _in_standard_library(
        function.__module__
    )


def _is_learners_class(cls: type) -> bool:
    return not _in_standard_library(cls.__module__) and any(
        isinstance(member, FunctionType) and _is_learners(member) for member in vars(cls).values()
    )


def _in_standard_library(module: str | None) -> bool:
    top = (module or "").partition(".")[0]
    return top in sys.stdlib_module_names and top != "__main__"


def _closure(function: FunctionType) -> dict[str, Any]:
    filled = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not bound yet
            filled[name] = cell.cell_contents
    return filled


def _place(code: CodeType, line: int | None) -> tuple[int | None, str, str]:
    return line, code.co_filename, linecache.getline(code.co_filename, line or 0).strip()


def _allowed(name: str, allow: Collection[str]) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in allow)
