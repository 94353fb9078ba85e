"""What data the course knows: the entries of data/registry.toml."""

import dataclasses
import difflib
import functools
import re
import tomllib
from typing import Any

from lmcourse import paths

KINDS = ("bundled", "stdlib", "wheel", "url")

# What an entry of each kind must say besides what every entry says.
REQUIRED = {
    "bundled": (),
    "stdlib": (),
    "wheel": ("package", "wheel_sha256", "wheel_bytes", "root", "files"),
    "url": ("url", "hash_source", "files"),
}


class DatasetError(Exception):
    """Data cannot be had; the message is one line that says which, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: its path in the dataset, with forward slashes.
        sha256: its SHA-256 in hexadecimal.
        bytes: its size, or None where only the hash is known.
    """

    name: str
    sha256: str
    bytes: int | None = None

    def __post_init__(self):
        _check_sha256("sha256", self.sha256)
        if (
            not isinstance(self.name, str)
            or not self.name
            or self.name.startswith("/")
            or ".." in self.name.split("/")
        ):
            raise ValueError(f"name must be a path inside the dataset; got {self.name!r}.")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One dataset, or one set of weights.

    Attributes:
        name: what `lmcourse data fetch` calls it: lower-case letters, digits and hyphens.
        kind: `bundled`, `stdlib`, `wheel` or `url`; see data/registry.toml.
        title: its full name.
        version: which version this is.
        licence: under what terms it may be used, as an SPDX identifier where there is one.
        licence_note: what the identifier does not say.
        citation: what to cite.
        description: what is in it, in a sentence or two.
        fallback: what the course does or uses where it is absent.
        files: its files; none where a loader makes the text.
        package: the distribution whose wheel carries it (kind `wheel`).
        wheel_sha256: the wheel's SHA-256.
        wheel_bytes: the wheel's size.
        root: the folder in the wheel that the files' names are relative to.
        url: the folder on the server that the files' names are relative to (kind `url`).
        hash_source: where the hashes come from (kind `url`).
    """

    name: str
    kind: str
    title: str
    version: str
    licence: str
    citation: str
    description: str
    licence_note: str = ""
    fallback: str = ""
    files: tuple[File, ...] = ()
    package: str = ""
    wheel_sha256: str = ""
    wheel_bytes: int = 0
    root: str = ""
    url: str = ""
    hash_source: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(
                f"name must be lower-case letters, digits and single hyphens; got {self.name!r}."
            )
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        missing = [field for field in REQUIRED[self.kind] if not getattr(self, field)]
        if missing:
            raise ValueError(f"an entry of kind {self.kind} must have {', '.join(missing)}.")
        if self.kind == "wheel":
            _check_sha256("wheel_sha256", self.wheel_sha256)

    @property
    def is_downloaded(self) -> bool:
        """Whether it has to be fetched before it can be used."""
        return self.kind in ("wheel", "url")

    @property
    def download_bytes(self) -> int | None:
        """How much `fetch` downloads; None where that is not known."""
        return self.wheel_bytes if self.kind == "wheel" else self.content_bytes

    @property
    def content_bytes(self) -> int | None:
        """The size of its files together; None where one is not known, 0 where there is none."""
        sizes = [file.bytes for file in self.files]
        return None if None in sizes else sum(sizes)


def entries() -> dict[str, Entry]:
    """Return every entry of the registry by name, in the registry's order.

    Raises:
        DatasetError: if data/registry.toml is absent or says something that makes no sense.

    Example:
        >>> entries()["human-eval"].licence
        'MIT'
    """
    source = paths.course_root() / "data" / "registry.toml"
    try:
        return dict(_parse(source.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DatasetError(f"the registry of the course's data is missing: {source}.") from None
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(f"{source} is not valid TOML: {error}.") from None


def entry(name: str) -> Entry:
    """Return the entry of this name.

    Raises:
        DatasetError: if there is none; the message names the closest.
    """
    known = entries()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    raise DatasetError(f"there is no dataset {name!r}. {suggestion}`lmcourse data list` shows them all.")


def human_size(size: int | None) -> str:
    """Return a size for people: in bytes, kB (10^3 bytes) or MB (10^6 bytes).

    Example:
        >>> human_size(92_871_040), human_size(3_180), human_size(37), human_size(None)
        ('92.9 MB', '3.2 kB', '37 bytes', 'unknown')
    """
    if size is None:
        return "unknown"
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


@functools.lru_cache(maxsize=1)  # parsing takes 12 ms, and every question about a dataset asks for its entry
def _parse(text: str) -> dict[str, Entry]:
    return {name: _entry_of(name, table) for name, table in tomllib.loads(text).items()}


def _entry_of(name: str, table: Any) -> Entry:
    """Return the entry that a table of the registry describes."""
    try:
        if not isinstance(table, dict):
            raise TypeError(f"an entry must be a table; got {table!r}.")
        files = tuple(File(**file) for file in table.get("files", ()))
        return Entry(**{**table, "name": name, "files": files})
    except (TypeError, ValueError) as error:
        raise DatasetError(f"data/registry.toml, entry {name!r}: {error}") from None


def _check_sha256(field: str, value: str) -> None:
    """Raise unless the value is a SHA-256 in lower-case hexadecimal."""
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{field} must be 64 lower-case hexadecimal digits; got {value!r}.")
