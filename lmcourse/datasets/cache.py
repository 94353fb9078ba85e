"""Where the data is on this machine, and whether it is what the registry says.

A dataset's folder in the cache carries a fingerprint of its hashes, so that a new version never mixes with an
old one. The folder appears in one step when everything in it has been checked: what exists is whole.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Literal

from lmcourse import paths
from lmcourse.datasets.registry import DatasetError, Entry, File, entry, human_size

State = Literal["here", "damaged", "absent"]


class DatasetNotCached(DatasetError):
    """The data has not been fetched yet; the message names the command that does, and what to use instead."""


def path(name: str, member: str | None = None) -> Path:
    """Return where a dataset's file is; nothing is downloaded.

    Args:
        name: the dataset's name in the registry.
        member: which of its files; may be left out where it has only one.

    Returns:
        The file. Without `member`, for a dataset of several files: the folder that holds them.

    Raises:
        DatasetNotCached: if it has to be fetched first.
        DatasetError: if there is no such dataset or file, it is damaged, or the dataset is made by a loader.
    """
    found = entry(name)
    if not found.files:
        raise DatasetError(f"{name} has no file: lmcourse.datasets.load_{name}() makes it.")
    if member is not None and member not in [file.name for file in found.files]:
        names = ", ".join(file.name for file in found.files)
        raise DatasetError(f"{name} has no file {member!r}; it has {names}.")
    _require_files(found)
    if state(found) == "damaged":
        raise DatasetError(f"{name} is damaged: {_restore(found)}.")
    if member is None and len(found.files) == 1:
        member = found.files[0].name
    return folder(found) / (member or "")


def available(name: str) -> bool:
    """Return whether a dataset can be used without fetching it.

    Sizes are looked at, hashes are not: `verify` does that.

    Raises:
        DatasetError: if there is no such dataset.
    """
    return state(entry(name)) == "here"


def verify(name: str) -> None:
    """Check the SHA-256 of every file of a dataset.

    A damaged download is removed, whole, so that nothing can read it by mistake. A bundled file is left as it is.

    Raises:
        DatasetNotCached: if it has to be fetched first.
        DatasetError: if a file is not what the registry says.
    """
    found = entry(name)
    _require_files(found)
    damages = [damage for file in found.files if (damage := _damage(folder(found) / file.name, file))]
    if not damages:
        return
    removed = ""
    if found.is_downloaded:
        shutil.rmtree(folder(found))
        removed = " and has been removed"
    raise DatasetError(f"{name} was damaged ({damages[0]}){removed}: {_restore(found)}.")


def folder(found: Entry) -> Path:
    """Return the folder that holds, or would hold, an entry's files."""
    if not found.is_downloaded:
        return paths.course_root() / "data"
    fingerprint = hashlib.sha256("".join(file.sha256 for file in found.files).encode()).hexdigest()
    return downloads() / f"{found.name}-{fingerprint[:12]}"


def downloads() -> Path:
    """Return the folder of all downloaded datasets; it may not exist yet."""
    return paths.cache_root() / "datasets"


def state(found: Entry) -> State:
    """Return "absent" if no file of an entry is there, "damaged" if one is missing or of a wrong size, else "here"."""
    if _is_absent(found):
        return "absent"
    whole = all(_has_right_size(folder(found) / file.name, file) for file in found.files)
    return "here" if whole else "damaged"


def sha256(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_right_size(location: Path, file: File) -> bool:
    return location.is_file() and file.bytes in (None, location.stat().st_size)


def _damage(location: Path, file: File) -> str:
    """Say what is wrong with a file; nothing if it is what the registry says."""
    if not location.is_file():
        return f"{file.name} is missing"
    if not _has_right_size(location, file):
        return f"{file.name} has {location.stat().st_size:,} bytes, not {file.bytes:,}"
    return "" if sha256(location) == file.sha256 else f"{file.name} has the wrong SHA-256"


def _is_absent(found: Entry) -> bool:
    return bool(found.files) and not any((folder(found) / file.name).is_file() for file in found.files)


def _require_files(found: Entry) -> None:
    if not _is_absent(found):
        return
    if not found.is_downloaded:
        raise DatasetNotCached(f"{found.name} is missing from {folder(found)}: {_restore(found)}.")
    instead = f" Without it: {found.fallback}." if found.fallback else ""
    raise DatasetNotCached(f"{found.name} is not in the cache: {_restore(found)}.{instead}")


def _restore(found: Entry) -> str:
    """Say how to get an entry's files."""
    if not found.is_downloaded:
        return "restore data/"
    size = f" ({human_size(found.download_bytes)})" if found.download_bytes else ""
    return f"run `lmcourse data fetch {found.name}`{size}"
