"""Which chapters have exercises, and where the files of each are."""

import dataclasses
import re
from pathlib import Path

from lmcourse.chapters import two_digits
from lmcourse.paths import course_root

CHECKS = Path(__file__).resolve().parent / "checks"

_STEM = re.compile(r"ch(\d\d)_(\w+)")


class UnknownChapter(ValueError):
    """There is no such chapter; the message lists those there are."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A chapter with exercises.

    Attributes:
        stem: what its files are called, as in "ch01_ngram".
        checks: the module of its tests.
    """

    stem: str
    checks: Path

    @property
    def number(self) -> str:
        """The chapter's number in two digits."""
        return self.stem[2:4]

    @property
    def name(self) -> str:
        """The chapter's name, as in "ngram"."""
        return self.stem[5:]

    @property
    def exercises(self) -> Path:
        """The notebook of stubs that a learner starts from."""
        return course_root() / "exercises" / f"{self.stem}.ipynb"


def chapters(checks: Path | None = None) -> list[Chapter]:
    """Return the chapters whose exercises have checks, in order.

    Args:
        checks: the folder of the checks; default: the course's.
    """
    modules = sorted((checks or CHECKS).glob("ch[0-9][0-9]_*.py"))
    return [Chapter(module.stem, module) for module in modules]


def find_chapter(number: str | int, checks: Path | None = None) -> Chapter:
    """Return a chapter by its number.

    Args:
        number: as in 1, "1", "01" or "ch01".
        checks: the folder of the checks; default: the course's.

    Raises:
        UnknownChapter: if there is none.

    Example:
        >>> find_chapter("x")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lmcourse.grading.chapters.UnknownChapter: There is no chapter 'x' with exercises; there is ...
    """
    known = chapters(checks)
    digits = two_digits(number)
    for chapter in known:
        if chapter.number == digits:
            return chapter
    there_is = ", ".join(f"{chapter.number} ({chapter.name})" for chapter in known) or "none yet"
    raise UnknownChapter(f"There is no chapter {str(number)!r} with exercises; there is {there_is}.")


def chapter_number_in(file_name: str) -> str | None:
    """Return the chapter that a file's name begins with, or None.

    Example:
        >>> chapter_number_in("ch03_attention-2.ipynb")
        '03'
    """
    match = _STEM.match(file_name)
    return match[1] if match else None
