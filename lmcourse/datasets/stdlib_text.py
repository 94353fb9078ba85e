"""English and code that every Python carries: no download, but other bytes in another patch release."""

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from lmcourse.datasets.corpus import SEPARATOR, Corpus
from lmcourse.datasets.registry import DatasetError

# Folders of the standard library that are not library code: tests; programs; what others installed; the help
# topics, which are `pythondocs`; and the code pages, which are tables of characters.
NOT_LIBRARY_CODE = frozenset(
    {
        *("test", "tests", "idle_test"),
        *("idlelib", "turtledemo"),
        *("site-packages", "dist-packages", "__pycache__"),
        *("pydoc_data", "encodings"),
    }
)


def load_pythondocs(docstrings: bool = False) -> Corpus:
    """Return the English of the Python documentation.

    Args:
        docstrings: whether to add the standard library's docstrings, one document a module.

    Returns:
        The help topics of this Python, one document a topic, in the order of their names.

    Raises:
        DatasetError: if docstrings are asked for and the standard library's sources are not installed.

    Example:
        >>> corpus = load_pythondocs()
        >>> any("Function definitions" in document for document in corpus.documents)
        True
    """
    from pydoc_data.topics import topics

    documents = [topics[name] for name in sorted(topics)]
    if docstrings:
        documents += list(_docstrings())
    return Corpus("pythondocs with docstrings" if docstrings else "pythondocs", documents)


def load_pythoncode() -> Corpus:
    """Return the source code of the standard library, one document a file, in the order of their paths.

    Tests, programs (IDLE, the turtle demonstrations), character tables, what the build generated and what is
    not UTF-8 are left out.

    Raises:
        DatasetError: if the standard library's sources are not installed.
    """
    return Corpus("pythoncode", list(_sources()))


def _docstrings() -> Iterator[str]:
    """Yield the docstrings of each module that has any. The sources are parsed, never imported."""
    for source in _sources():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old modules hold escapes that newer parsers warn of
            tree = ast.parse(source)
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
        texts = [text for text in found if text and text.strip()]
        if texts:
            yield SEPARATOR.join(texts)


def _sources() -> Iterator[str]:
    """Yield the text of each of the standard library's modules."""
    for file in _files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield text


def _files() -> list[Path]:
    """Return the standard library's source files, sorted by their paths in it."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if _is_library_code(name)]
        files += [Path(folder, name) for name in names if name.endswith(".py") and _is_library_code(name)]
    if not files:
        raise DatasetError(
            f"this Python has no source of its standard library in {root}; "
            "use one that has, such as python.org's or your system's full package."
        )
    return sorted(files, key=lambda file: file.relative_to(root).parts)


def _is_library_code(name: str) -> bool:
    # config-… and _sysconfigdata… hold the paths and flags of the machine that built this Python.
    return name not in NOT_LIBRARY_CODE and not name.startswith(("config-", "_sysconfigdata"))
