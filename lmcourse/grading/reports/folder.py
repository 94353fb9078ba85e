"""Writes a class's reports into a folder, all of them or none."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmcourse.files import replacing
from lmcourse.grading.chapters import Chapter
from lmcourse.grading.reports.class_statistics import statistics_page
from lmcourse.grading.reports.gradebook import gradebook
from lmcourse.grading.reports.page import GENERATOR
from lmcourse.grading.reports.pages import feedback_page, index_page, similar_page
from lmcourse.grading.reports.record import Provenance, record
from lmcourse.grading.reports.similar import Similarities
from lmcourse.grading.submissions import Graded

# Windows gives these names to devices, whatever the ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
# File systems allow 255 bytes; the ending, what makes a name unique, and a path around it need room.
_NAME_BYTES = 100


class ReportsError(Exception):
    """The reports cannot be written; the message says why in one line."""


def write_reports(
    graded: Sequence[Graded],
    folder: str | os.PathLike,
    *,
    chapter: Chapter,
    columns: str = "plain",
    meta: Provenance,
    similarities: Similarities | None = None,
) -> list[Path]:
    """Write what a teacher gets: results.csv, results.json, index.html, statistics.html, feedback/NAME.html.

    similar.html is there where the answers were compared. All of it is written beside the old reports first and
    takes their place at the end; if that fails the old ones stay. Other files in the folder are left alone.

    Args:
        graded: the class, a learner once; read several times, one learner at a time.
        folder: made if it is not there.
        chapter: whose exercises they are.
        columns: of results.csv: plain, canvas or moodle (see `gradebook`).
        meta: how the grades came about (see `provenance`).
        similarities: what `find_similar` found.

    Returns:
        The files, in the order of what a teacher opens first.

    Raises:
        ValueError: if two submissions are the same learner's, or columns is not known.
        ReportsError: if the folder cannot be written, or its feedback/ holds files that no report wrote.
    """
    learners = [one.learner for one in graded]
    files = page_names(learners)
    assignment = f"Chapter {int(chapter.number)}"
    texts: dict[str, Iterable[str]] = {
        "index.html": index_page(graded, chapter, meta, files, similarities),
        "statistics.html": [statistics_page(graded, chapter)],
        "results.csv": gradebook(graded, columns, assignment=assignment),
        "results.json": record(graded, chapter, meta),
    }
    if similarities:
        texts["similar.html"] = similar_page(chapter, similarities)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder, texts)
        draft = folder / f".{secrets.token_hex(4)}.draft"
        try:
            (draft / "feedback").mkdir(parents=True)
            for one in graded:
                _write(draft / "feedback" / files[one.learner], [feedback_page(one, chapter)])
            for name, pieces in texts.items():
                _write(draft / name, pieces)
            _take_places(draft, folder, [*texts, "feedback"])
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ReportsError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return [folder / name for name in texts] + [folder / "feedback" / files[learner] for learner in learners]


def page_names(learners: Iterable[str]) -> dict[str, str]:
    """Return a file name for each learner that is safe on every system, and unique even where case is not told.

    Letters and digits of every script stay. Names that would clash each get a mark made from the whole name, so that
    which page is whose does not depend on the order of the class.

    Raises:
        ValueError: if a learner is there twice.

    Example:
        >>> page_names(["Ada Lovelace", "../../etc/passwd"])
        {'Ada Lovelace': 'Ada-Lovelace.html', '../../etc/passwd': 'etc-passwd.html'}
    """
    learners = list(learners)
    twice = [learner for learner, count in Counter(learners).items() if count > 1]
    if twice:
        raise ValueError(f"graded must have each learner once; {twice[0]!r} is there more than once.")
    safe = {learner: _safe(learner) for learner in learners}
    count = Counter(_folded(name) for name in safe.values())
    names: dict[str, str] = {}
    taken = {folded for folded, often in count.items() if often == 1}
    for learner, name in safe.items():
        if count[_folded(name)] > 1:
            digest = hashlib.sha256(learner.encode("utf-8", errors="surrogatepass")).hexdigest()
            name = next(
                marked
                for length in range(8, len(digest) + 1)
                if _folded(marked := f"{name}-{digest[:length]}") not in taken
            )
            taken.add(_folded(name))
        names[learner] = f"{name}.html"
    return names


def _safe(learner: str) -> str:
    text = unicodedata.normalize("NFC", learner.encode("utf-8", errors="replace").decode("utf-8"))
    text = re.sub(r"[^\w]+", "-", text).strip("-_")
    text = text.encode("utf-8")[:_NAME_BYTES].decode("utf-8", errors="ignore").strip("-_")
    return f"learner-{text}".rstrip("-") if not text or _DEVICES.fullmatch(text) else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _write(path: Path, pieces: Iterable[str]) -> None:
    with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(pieces)


def _refuse_foreign(folder: Path, names: Iterable[str]) -> None:
    """Raise if a report would take the place of a folder, or of a page that no report wrote."""
    feedback = folder / "feedback"
    pages = sorted(feedback.iterdir()) if feedback.is_dir() else [feedback]
    foreign = [path for path in pages if path.exists() and not _is_report(path)]
    foreign += [folder / name for name in names if (folder / name).is_dir()]
    if foreign:
        raise ReportsError(
            f"{foreign[0]} is no page of an earlier report and would be replaced: choose another folder."
        )


def _is_report(path: Path) -> bool:
    return path.suffix == ".html" and path.is_file() and GENERATOR.encode() in path.read_bytes()[:1000]


def _take_places(draft: Path, folder: Path, names: Sequence[str]) -> None:
    """Move everything from the draft to its place; if one cannot be, put all the old ones back."""
    old = draft / "old"
    old.mkdir()
    with contextlib.ExitStack() as undo:
        # A report of the last run that this one has not is no longer true.
        for name in dict.fromkeys([*names, "similar.html"]):
            if (folder / name).exists() or (folder / name).is_symlink():
                os.rename(folder / name, old / name)
                undo.callback(os.rename, old / name, folder / name)
            if name in names:
                os.rename(draft / name, folder / name)
                undo.callback(os.rename, folder / name, draft / name)
        undo.pop_all()
