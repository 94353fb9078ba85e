"""The course's chapters: their numbers, their names, and how a reader may write a number."""

import re

# By number, as their files have it: `chapters/ch01_ngram.ipynb`, and the package `lmcourse.ngram`.
CHAPTERS = {
    "01": "ngram",
    "02": "recurrent",
    "03": "attention",
    "04": "transformer",
    "05": "pretraining",
    "06": "finetuning",
    "07": "evaluation",
    "08": "quantization",
    "09": "deployment",
    "10": "applications",
}


def two_digits(text: str | int) -> str | None:
    """Return a chapter's number as files have it, or None where the text is no number of a chapter.

    Example:
        >>> [two_digits(text) for text in (1, "1", "01", "ch01", "ngram")]
        ['01', '01', '01', '01', None]
    """
    match = re.fullmatch(r"(?:ch)?([0-9]{1,2})", str(text).strip())
    return f"{int(match[1]):02}" if match else None


def find(text: str | int) -> tuple[str, str]:
    """Return the number, in two digits, and the name of one of the course's chapters.

    Args:
        text: its number, as `two_digits` reads it.

    Raises:
        ValueError: if there is no such chapter.

    Example:
        >>> find("ch3")
        ('03', 'attention')
    """
    number = two_digits(text)
    if number not in CHAPTERS:
        raise ValueError(f"chapter must be one of ch{min(CHAPTERS)} to ch{max(CHAPTERS)}; got {text!r}.")
    return number, CHAPTERS[number]
