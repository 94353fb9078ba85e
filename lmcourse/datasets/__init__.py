"""The course's data: a registry of what there is, fetching with checked hashes, and loaders.

A loader never downloads. Where its data is absent it raises `DatasetNotCached`, whose message names the command
that fetches it (`lmcourse data fetch NAME`) and what to use instead.

Example:
    >>> from lmcourse import datasets
    >>> datasets.entry("pythondocs").kind
    'stdlib'
    >>> train, held_out = datasets.load_littleplay().split()
    >>> held_out.utf8_bytes <= 0.1 * datasets.load_littleplay().utf8_bytes
    True
"""

import importlib
from typing import Any

from lmcourse.datasets.cache import DatasetNotCached, available, path, verify
from lmcourse.datasets.corpus import Corpus
from lmcourse.datasets.download import fetch
from lmcourse.datasets.interface_strings import TextPairs, load_interface_strings
from lmcourse.datasets.real_text import load_littleplay, load_scripts, load_tinyshakespeare
from lmcourse.datasets.registry import DatasetError, Entry, File, entries, entry
from lmcourse.datasets.stdlib_text import load_pythoncode, load_pythondocs

__all__ = [
    "Corpus",
    "DatasetError",
    "DatasetNotCached",
    "Entry",
    "File",
    "TextPairs",
    "available",
    "entries",
    "entry",
    "fableworld",
    "fetch",
    "load_fableworld",
    "load_interface_strings",
    "load_littleplay",
    "load_pythoncode",
    "load_pythondocs",
    "load_scripts",
    "load_tinyshakespeare",
    "path",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import Fableworld when it is first asked for: most uses of this package do without it."""
    if name in ("fableworld", "load_fableworld"):
        fableworld = importlib.import_module("lmcourse.datasets.fableworld")
        return fableworld if name == "fableworld" else fableworld.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
