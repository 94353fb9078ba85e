"""Texts that stand in files: bundled, or fetched once with `lmcourse data fetch`."""

from lmcourse.datasets import cache
from lmcourse.datasets.corpus import SEPARATOR, Corpus


def load_tinyshakespeare() -> Corpus:
    """Return tiny Shakespeare, one document a speech.

    Raises:
        DatasetNotCached: if it has not been fetched; `load_littleplay` has the same layout and is always there.
    """
    return _load("tinyshakespeare")


def load_littleplay() -> Corpus:
    """Return the course's own play, one document a speech: small, and the same on every machine.

    Example:
        >>> print(load_littleplay().documents[0])
        KEEPER:
        Who knocks so late? The tide is at the door,
        And no one walks the causeway after dark.
    """
    return _load("littleplay")


def load_scripts() -> Corpus:
    """Return lines in many scripts, one document a line: what a tokenizer must not lose.

    Example:
        >>> load_scripts().documents[13]
        '灯每九秒转一圈，大海睡着了。'
    """
    return _load("scripts")


def _load(name: str) -> Corpus:
    text = cache.path(name).read_text(encoding="utf-8")
    return Corpus(name, text.strip("\n").split(SEPARATOR))
