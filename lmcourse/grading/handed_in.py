"""Finds the notebooks of a class: in folders and archives as learning platforms hand them out."""

import dataclasses
import re
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lmcourse.grading.notebook import MAX_BYTES

# Far beyond a class of thousands; an archive that unpacks to more is a bomb.
MAX_ENTRIES = 20_000
MAX_UNPACKED_BYTES = 2 * 1024**3

# Moodle: a folder `Ada Lovelace_12345_assignsubmission_file_` a learner.
_MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_\w*")
# Canvas: a file `lovelaceada_12345_67890_ch01_ngram.ipynb`, with `_LATE` after the name where it came late.
_CANVAS = re.compile(r"(?P<name>.+?)(_LATE)?_(?P<id>\d+)_\d+_.+")
_SKIPPED = frozenset({"__MACOSX", ".ipynb_checkpoints", ".git"})


class ClassError(Exception):
    """There is nothing to grade; the message says why in one line."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """What one learner handed in.

    Attributes:
        learner: as the file or folder names them; unique in a class.
        source: where it was found, with forward slashes.
        notebook: the file to grade, or None where there is none.
        fault: why there is none, in one line.
    """

    learner: str
    source: str
    notebook: Path | None = None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class _Found:
    """A notebook, or what stands where one should be, before learners are told apart."""

    place: PurePosixPath  # below the folder or archive that was named
    notebook: Path | None
    fault: str = ""


def submissions_in(paths: Sequence[Path], scratch: Path, *, skip: Path | None = None) -> list[Submission]:
    """Find what a class handed in.

    A learner is named by the folder they have in a Moodle download, by the first part of a Canvas file name, else by
    their folder, else by the file. Notebooks are never run or even parsed here, links are not followed, and nothing
    is unpacked outside `scratch`.

    Args:
        paths: notebooks, folders and zip archives.
        scratch: an existing folder for what archives hold.
        skip: a folder to leave out: that of the grades may lie among the submissions.

    Raises:
        ClassError: if a path does not exist or is nothing of these, or there is no submission at all.
    """
    found = []
    for number, path in enumerate(map(Path, paths)):
        if path.is_dir():
            found += _in_folder(path, skip)
        elif path.suffix.lower() == ".zip":
            found += _in_archive(path, scratch / str(number))
        elif path.suffix.lower() == ".ipynb" and path.exists():
            found.append(_Found(PurePosixPath(path.name), path))
        elif path.exists():
            raise ClassError(
                f"{path} is no notebook, folder or zip archive; name one such as submissions.zip."
            )
        else:
            raise ClassError(f"There is no file or folder {path}.")
    if not found:
        raise ClassError(f"There is no notebook (.ipynb) in {', '.join(map(str, paths))}.")
    return _told_apart(found)


def learner_of(place: PurePosixPath) -> tuple[str, str]:
    """Return a learner's name and, where the platform gives one, their number there.

    Example:
        >>> learner_of(PurePosixPath("Ada Lovelace_12345_assignsubmission_file_/ch01_ngram.ipynb"))
        ('Ada Lovelace', '12345')
        >>> learner_of(PurePosixPath("lovelaceada_LATE_12345_67890_ch01_ngram-1.ipynb"))
        ('lovelaceada', '12345')
        >>> learner_of(PurePosixPath("ada/my/ch01_ngram.ipynb"))
        ('ada', '')
        >>> learner_of(PurePosixPath("ada.ipynb"))
        ('ada', '')
    """
    for part in place.parts[:-1]:
        if match := _MOODLE.fullmatch(part):
            return match["name"], match["id"]
    if match := _CANVAS.fullmatch(place.name):
        return match["name"], match["id"]
    stem = place.name.removesuffix(place.suffix)
    if len(place.parts) == 1:
        return stem, ""
    return place.parts[0], ""


def _in_folder(folder: Path, skip: Path | None) -> Iterator[_Found]:
    """Yield the notebooks of a folder, and its learners' folders that hold none."""
    for entry in sorted(folder.iterdir()):
        place = PurePosixPath(entry.name)
        if entry.name in _SKIPPED or entry.name.startswith(".") or _same(entry, skip):
            continue
        if entry.is_symlink():
            yield _Found(place, None, "it is a link, which is not followed: hand in the file itself.")
        elif entry.is_dir():
            yield from _in_learners_folder(folder, entry)
        elif _may_be_one(place):
            yield _file(place, entry)


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


def _in_learners_folder(folder: Path, own: Path) -> Iterator[_Found]:
    others = []
    notebooks = 0
    for path in sorted(own.rglob("*")):
        place = PurePosixPath(path.relative_to(folder).as_posix())
        if _SKIPPED & set(place.parts) or (path.is_dir() and not path.is_symlink()):
            continue
        if path.suffix.lower() != ".ipynb":
            others.append(path.name)
            continue
        notebooks += 1
        if path.is_symlink():
            yield _Found(place, None, "it is a link, which is not followed: hand in the file itself.")
        else:
            yield _file(place, path)
    if not notebooks:
        yield _Found(PurePosixPath(own.name, "."), None, _no_notebook(others))


def _file(place: PurePosixPath, path: Path) -> _Found:
    if place.suffix.lower() != ".ipynb":
        return _Found(place, None, f"{place.name} is no notebook: hand in the .ipynb file.")
    if not path.is_file():
        return _Found(place, None, f"{place.name} is no ordinary file.")
    return _Found(place, path)


def _in_archive(path: Path, target: Path) -> Iterator[_Found]:
    """Unpack the notebooks of an archive, under names of our own; each entry that is refused is a fault."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise ClassError(f"{path} holds {len(entries)} files; at most {MAX_ENTRIES} are unpacked.")
            yield from _entries(archive, entries, target)
    except (zipfile.BadZipFile, OSError) as error:
        raise ClassError(f"{path} cannot be read as a zip archive: {error}.") from None


def _entries(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], target: Path) -> Iterator[_Found]:
    left = MAX_UNPACKED_BYTES
    folders: dict[str, list[str]] = {}
    with_notebook = set()
    for number, entry in enumerate(entries):
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if _SKIPPED & set(place.parts) or place.name.startswith("."):
            continue
        if len(place.parts) > 1:
            folders.setdefault(place.parts[0], []).append(place.name)
        if not _may_be_one(place):
            continue
        if len(place.parts) > 1:
            with_notebook.add(place.parts[0])
        fault = _refused(entry, place, left)
        if fault:
            yield _Found(place, None, fault)
            continue
        # A folder for each: the name may be anyone's, and two learners' files are often called the same.
        own = target / str(number)
        own.mkdir(parents=True)
        copy = own / "notebook.ipynb"
        try:
            with archive.open(entry) as packed, copy.open("wb") as unpacked:
                left -= _copy(packed, unpacked)
        except Exception as error:  # whatever a damaged entry makes zipfile raise
            yield _Found(place, None, f"it cannot be unpacked: {type(error).__name__}: {error}.")
            continue
        yield _Found(place, copy)
    for name, others in folders.items():
        if name not in with_notebook and ".." not in PurePosixPath(name).parts and name != "/":
            yield _Found(PurePosixPath(name, "."), None, _no_notebook(others))


def _refused(entry: zipfile.ZipInfo, place: PurePosixPath, left: int) -> str:
    if place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", entry.filename):
        return "its path leads out of the archive, so it is not unpacked."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link, which is not followed: hand in the file itself."
    if entry.flag_bits & 1:
        return "it is encrypted."
    if place.suffix.lower() != ".ipynb":
        return f"{place.name} is no notebook: hand in the .ipynb file."
    if entry.file_size > MAX_BYTES:
        return too_large(entry.file_size)
    return "the archive unpacks to more than 2 GiB." if entry.file_size > left else ""


def _copy(packed: BinaryIO, unpacked: BinaryIO) -> int:
    """Copy what an entry holds, and no more than it declared: zipfile stops there, and checks the sum."""
    shutil.copyfileobj(packed, unpacked, 1 << 16)
    return unpacked.tell()


def too_large(size: int) -> str:
    """Return the fault of a notebook that is too large to be one of answers."""
    return (
        f"it is {size / 1e6:.0f} MB; a notebook of answers is at most {MAX_BYTES / 1e6:.0f} MB: "
        "clear its outputs and save it again."
    )


def _may_be_one(place: PurePosixPath) -> bool:
    """Tell whether a file is a notebook, or was handed in as one through Canvas."""
    return place.suffix.lower() == ".ipynb" or (len(place.parts) == 1 and bool(_CANVAS.fullmatch(place.name)))


def _no_notebook(others: list[str]) -> str:
    what = f"only {', '.join(others[:3])}{' …' if len(others) > 3 else ''}" if others else "nothing"
    return f"there is no notebook (.ipynb), {what}."


def _told_apart(found: Iterable[_Found]) -> list[Submission]:
    """Give each submission a name that no other has: with the platform's number, the file's name or a count."""
    found = list(found)
    named = [learner_of(one.place) for one in found]
    people = Counter(name for name, _ in set(named))
    files = Counter(named)
    taken: set[str] = set()
    submissions = []
    for one, (name, number) in zip(found, named, strict=True):
        learner = f"{name} ({number})" if people[name] > 1 and number else name
        if files[name, number] > 1 and len(one.place.parts) > 1:
            learner = f"{learner}: {PurePosixPath(*one.place.parts[1:])}"
        unique, count = learner, 1
        while unique in taken:
            count += 1
            unique = f"{learner} ({count})"
        taken.add(unique)
        submissions.append(Submission(_line(unique), _line(str(one.place)), one.notebook, _line(one.fault)))
    return submissions


def _line(text: str) -> str:
    """Return the text in one line that can be printed and written."""
    return " ".join(text.encode("utf-8", errors="backslashreplace").decode("utf-8").split())
