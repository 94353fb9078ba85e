"""Make raw text fit to learn from: one form for each character, no debris, no line twice.

Each function takes a text and returns a text; `clean` applies them in order. What to remove is a decision about
the data: every step can be left out, and nothing here guesses a language.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

import regex

UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]

# Whole lines that web pages and scanned books carry beside their text. The list is short on purpose: a pattern
# that also fits prose would silently remove what should be learned.
BOILERPLATE: tuple[str, ...] = (
    r"page\s+\d+(?:\s*(?:of|/)\s*\d+)?",  # a number alone may be data
    r"(?:copyright\b|©|\(c\)\s+\d).*",
    r".{0,80}\ball rights reserved\b.{0,80}",
    r"skip to (?:main )?content",
    r".{0,80}\b(?:we|this (?:web)?site|our (?:web)?site) uses? cookies\b.*",
    r"(?:please )?enable javascript\b.*",
    r"(?:terms of (?:use|service)|privacy policy|cookie policy)",
    r"lorem ipsum\b.*",
)

_LINE_BREAKS = regex.compile(r"\r\n?|[\x85\u2028\u2029]")


def normalize_unicode(text: str, form: UnicodeForm = "NFC") -> str:
    r"""Write each character in one way only.

    Args:
        text: any text.
        form: "NFC" composes accents and changes nothing that is seen; "NFKC" also replaces compatibility
            characters (ﬁ by fi, ² by 2), which loses what they meant; "NFD" and "NFKD" decompose.

    Raises:
        ValueError: if form is none of the four.

    Example:
        >>> len("e\u0301"), len(normalize_unicode("e\u0301")), normalize_unicode("ﬁt²", "NFKC")
        (2, 1, 'fit2')

    Reference: Unicode Standard Annex 15, "Unicode Normalization Forms".
    """
    if form not in get_args(UnicodeForm):
        raise ValueError(f"form must be one of {get_args(UnicodeForm)}; got {form!r}.")
    return unicodedata.normalize(form, text)


def normalize_line_breaks(text: str) -> str:
    r"""Write every line break as "\n": those of Windows and old Macs, and the three of Unicode."""
    return _LINE_BREAKS.sub("\n", text)


def remove_control_characters(text: str, keep: Collection[str] = "\n\t") -> str:
    r"""Remove characters that have an effect but no shape.

    These are the control characters (category Cc), lone surrogates (Cs: halves of a character, which UTF-8
    cannot write), the byte order mark, the zero-width space, the soft hyphen and the marks that
    embed or override a direction of writing. The joiners that Persian, Hindi and emoji need stay.

    Args:
        text: any text.
        keep: characters to leave alone.

    Example:
        >>> remove_control_characters("\ufeffwo\xadrd\x00\ud800\n")
        'word\n'
    """
    return _CONTROL.sub(lambda match: match.group() if match.group() in keep else "", text)


# Soft hyphen, zero-width space, directional embeddings and isolates, word joiner, byte order mark.
_CONTROL = regex.compile(r"[\p{Cc}\p{Cs}\u00ad\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


def remove_boilerplate(text: str, patterns: Sequence[str] = BOILERPLATE) -> str:
    r"""Remove the lines that match a pattern from end to end, ignoring case and surrounding space.

    Args:
        text: any text.
        patterns: regular expressions.

    Example:
        >>> remove_boilerplate("A fox ran.\nPage 3 of 10\n© 2024 The Press")
        'A fox ran.'

    Reference: the idea of removing lines by such signs: Raffel et al. 2020, arXiv:1910.10683, section 2.2.
    """
    if not patterns:
        return text
    whole_line = regex.compile("|".join(f"(?:{pattern})" for pattern in patterns), regex.IGNORECASE)
    return "\n".join(line for line in text.split("\n") if not whole_line.fullmatch(line.strip()))


def repeated_lines(documents: Iterable[str], min_share: float = 0.5) -> set[str]:
    """Find the lines that many documents share: their headers, footers and menus.

    Args:
        documents: texts of one source.
        min_share: in what part of the documents a line must stand, above 0 and at most 1. A line that stands in
            only one document is never returned.

    Returns:
        The lines without surrounding space; give them to `remove_lines`.

    Raises:
        ValueError: if min_share is not in (0, 1].
    """
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share must be above 0 and at most 1; got {min_share}.")
    counts: Counter[str] = Counter()
    total = 0
    for document in documents:
        counts.update({line.strip() for line in document.split("\n")} - {""})
        total += 1
    return {line for line, count in counts.items() if count >= max(2, min_share * total)}


def remove_lines(text: str, lines: Collection[str]) -> str:
    """Remove these lines, compared without surrounding space; see `repeated_lines`."""
    return "\n".join(line for line in text.split("\n") if line.strip() not in lines)


def remove_duplicate_lines(text: str, min_length: int = 20, seen: set[str] | None = None) -> str:
    r"""Keep the first of equal lines.

    Args:
        text: any text.
        min_length: lines shorter than this many characters stay, since a short line ("Yes.", "}") may rightly
            come twice.
        seen: lines already met, extended here: one set shared by calls removes duplicates across documents.

    Example:
        >>> remove_duplicate_lines("See the index.\nNo.\nSee the index.\nNo.", min_length=10)
        'See the index.\nNo.\nNo.'

    Reference: what duplicates do to a model: Lee et al. 2022, arXiv:2107.06499.
    """
    seen = set() if seen is None else seen
    kept = []
    for line in text.split("\n"):
        content = line.strip()
        if len(content) >= min_length:
            if content in seen:
                continue
            seen.add(content)
        kept.append(line)
    return "\n".join(kept)


def collapse_blank_space(text: str) -> str:
    """Remove space at the ends of lines and of the text, and leave at most one empty line in a row.

    Indentation stays: in code it has meaning.
    """
    text = regex.sub(r"[^\S\n]+$", "", text, flags=regex.MULTILINE)
    return regex.sub(r"\n{3,}", "\n\n", text).strip("\n")


def clean(
    text: str,
    *,
    form: UnicodeForm | None = "NFC",
    control_characters: bool = True,
    boilerplate: Sequence[str] = BOILERPLATE,
    duplicate_lines: bool = True,
    blank_space: bool = True,
) -> str:
    r"""Apply every step of this module that is asked for, in the order of the arguments.

    Line breaks become "\n" first, since the steps that look at lines need them. Cleaning a second time changes
    nothing.

    Args:
        text: any text.
        form: the Unicode form, or None to leave characters as they are.
        control_characters: whether to remove them.
        boilerplate: patterns of lines to remove; () for none.
        duplicate_lines: whether to keep only the first of equal lines of 20 characters or more.
        blank_space: whether to remove space at line ends and repeated empty lines.

    Example:
        >>> clean("Cafe\u0301\x00 \r\n\r\n\r\n\r\nPage 7\r\nThe fox ran.\r\n")
        'Café\n\nThe fox ran.'
    """
    text = normalize_line_breaks(text)
    if control_characters:
        text = remove_control_characters(text)
    # After the removal, which can bring a letter and its accent together.
    if form is not None:
        text = normalize_unicode(text, form)
    text = remove_boilerplate(text, boilerplate)
    if duplicate_lines:
        text = remove_duplicate_lines(text)
    return collapse_blank_space(text) if blank_space else text
