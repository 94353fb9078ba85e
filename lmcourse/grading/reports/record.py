"""The record of a run: every grade, and all it takes to say how it came about."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcourse import __version__
from lmcourse.grading.chapters import Chapter
from lmcourse.grading.reports.words import TEXT_CHARACTERS
from lmcourse.grading.submissions import Graded

# Another version of these may grade an answer differently.
_PACKAGES = ("numpy", "tensorflow", "tensorflow-text", "keras", "pytest", "copydetect")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How the grades came about.

    Attributes:
        date: when, in ISO 8601 with the zone.
        versions: of Python, of the course and of the packages that answers and checks use.
        checks: the SHA-256 of each of the chapter's checks, by file name.
        hidden: the same of the teacher's own checks.
        limits: on time, memory and the like, as the run was started with.
        isolation: what kept submissions from the rest of the machine, and what was missing.
    """

    date: str
    versions: Mapping[str, str]
    checks: Mapping[str, str]
    hidden: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    isolation: Sequence[str] = ()


def provenance(
    chapter: Chapter,
    *,
    hidden: Path | None = None,
    limits: Mapping[str, Any] | None = None,
    isolation: Sequence[str] = (),
    date: datetime.datetime | None = None,
) -> Provenance:
    """Gather how grades come about: versions, hashes, limits.

    Args:
        chapter: whose exercises are graded.
        hidden: the folder of the teacher's own checks.
        limits: names and values.
        isolation: one line for each protection that there is or that is missing.
        date: default: now.
    """
    date = date or datetime.datetime.now(datetime.UTC)
    return Provenance(
        date.isoformat(timespec="seconds"),
        {"python": platform.python_version(), "lmcourse": __version__, **_versions()},
        {chapter.checks.name: _sha256(chapter.checks)},
        {path.relative_to(hidden).as_posix(): _sha256(path) for path in sorted(hidden.rglob("*.py"))}
        if hidden
        else {},
        dict(limits or {}),
        tuple(isolation),
    )


def record(graded: Iterable[Graded], chapter: Chapter, meta: Provenance) -> Iterator[str]:
    """Yield, piece by piece, a JSON object of all grades and their provenance.

    Lone surrogates, which UTF-8 cannot write, are escaped, long texts cut, and numbers that JSON has no word for
    are null.
    """
    about = {
        "format": 1,
        "chapter": {"number": chapter.number, "name": chapter.name},
        "run": dataclasses.asdict(meta),
        "submissions": [],
    }
    yield _json(about).removesuffix("]\n}")
    separator = "\n    "
    for one in graded:
        # Within strings JSON writes a line break as two letters: each one here is between two of its words.
        yield separator + _json(one.as_json()).replace("\n", "\n    ")
        separator = ",\n    "
    yield "\n  ]\n}\n"


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _versions() -> dict[str, str]:
    """Read the versions of what is installed without importing it: TensorFlow takes seconds."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        value = value if len(value) <= TEXT_CHARACTERS else value[: TEXT_CHARACTERS - 1] + "…"
        return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else _plain(str(value))
