"""Where the data is on this machine, and whether it is what the registry says.

A dataset's folder in the cache carries a fingerprint of its hashes, so that a new version never mixes with an
old one. The folder appears in one step when everything in it has been checked: what exists is whole.
"""

import hashlib
from pathlib import Path

from lmcourse import paths
from lmcourse.datasets.registry import DatasetError, Entry, File, entry, human_size


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
        DatasetError: if there is no such dataset or file, or the dataset is made by a loader.
    """
    found = entry(name)
    if not found.files:
        raise DatasetError(f"{name} has no file: lmcourse.datasets.load_{name}() makes it.")
    if member is not None and member not in [file.name for file in found.files]:
        names = ", ".join(file.name for file in found.files)
        raise DatasetError(f"{name} has no file {member!r}; it has {names}.")
    if not is_present(found):
        raise DatasetNotCached(_absent(found))
    if member is None and len(found.files) == 1:
        member = found.files[0].name
    return folder(found) / (member or "")


def available(name: str) -> bool:
    """Return whether a dataset can be used without fetching it.

    Sizes are looked at, hashes are not: `verify` does that.

    Raises:
        DatasetError: if there is no such dataset.
    """
    return is_present(entry(name))


def verify(name: str) -> None:
    """Check the SHA-256 of every file of a dataset.

    A damaged download is removed, so that nothing can read it by mistake. A bundled file is left as it is.

    Raises:
        DatasetNotCached: if it has to be fetched first.
        DatasetError: if a file is not what the registry says.
    """
    found = entry(name)
    if not is_present(found):
        raise DatasetNotCached(_absent(found))
    damaged = [file.name for file in found.files if sha256(folder(found) / file.name) != file.sha256]
    if not damaged:
        return
    if not found.is_downloaded:
        raise DatasetError(
            f"{name}: {damaged[0]} has been changed (its SHA-256 is not the registry's): restore data/."
        )
    for file in damaged:
        (folder(found) / file).unlink(missing_ok=True)
    raise DatasetError(
        f"{name}: {damaged[0]} was damaged (wrong SHA-256) and has been removed; "
        f"run `lmcourse data fetch {name}`."
    )


def folder(found: Entry) -> Path:
    """Return the folder that holds, or would hold, an entry's files."""
    if not found.is_downloaded:
        return paths.course_root() / "data"
    fingerprint = hashlib.sha256("".join(file.sha256 for file in found.files).encode()).hexdigest()
    return downloads() / f"{found.name}-{fingerprint[:12]}"


def downloads() -> Path:
    """Return the folder of all downloaded datasets; it may not exist yet."""
    return paths.cache_root() / "datasets"


def is_present(found: Entry) -> bool:
    """Return whether every file of an entry is there and has the right size."""
    return all(_has_right_size(folder(found) / file.name, file) for file in found.files)


def sha256(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_right_size(location: Path, file: File) -> bool:
    return location.is_file() and file.bytes in (None, location.stat().st_size)


def _absent(found: Entry) -> str:
    if not found.is_downloaded:
        return f"{found.name} is missing from {folder(found)}: restore data/."
    instead = f" Without it: {found.fallback}." if found.fallback else ""
    size = f" ({human_size(found.download_bytes)})" if found.download_bytes else ""
    return f"{found.name} is not in the cache: run `lmcourse data fetch {found.name}`{size}.{instead}"
