"""JupyterLab's interface in two languages: short texts that people translated, as pairs."""

import dataclasses
import functools
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmcourse.datasets import cache
from lmcourse.datasets.registry import DatasetError

LANGUAGES = ("fr", "zh")

# The first four bytes of a catalogue, read in its own byte order: GNU gettext manual, "The Format of GNU MO Files".
MO_MAGIC = 0x950412DE

# What stands between the context of a message and the message, and between its singular and its plural.
CONTEXT_ENDS, PLURAL_BEGINS = "\x04", "\x00"


@dataclasses.dataclass(frozen=True)
class TextPairs(Sequence):
    """A list of (source, target) texts, each pair once, with its identity and its split.

    Attributes:
        name: the dataset's name, and the part of it, if it is a part.
        pairs: the texts, in the dataset's order. A source may stand there with several translations.

    Example:
        >>> pairs = TextPairs("tiny", [("Open", "Ouvrir"), ("Close", "Fermer"), ("Open…", "Ouvrir…")])
        >>> len(pairs), pairs[1]
        (3, ('Close', 'Fermer'))
        >>> train, held_out = pairs.split(held_out=0.5)
        >>> len(train), len(held_out)
        (2, 1)
    """

    name: str
    pairs: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of all pairs, in hexadecimal: record it with every result."""
        return hashlib.sha256("\n\n".join("\n".join(pair) for pair in self.pairs).encode()).hexdigest()

    def describe(self) -> str:
        """Return the sizes and the identity in one line."""
        source, target = (sum(len(pair[side]) for pair in self.pairs) for side in (0, 1))
        return (
            f"{self.name}: {len(self.pairs):,} pairs, {source:,} and {target:,} characters, "
            f"SHA-256 {self.sha256[:12]}"
        )

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple["TextPairs", "TextPairs"]:
        """Hold out whole sources, so that what is to be translated was never seen with its translation.

        Sources with the same words are on the same side, whatever their capitals and punctuation: "Open…" beside
        "Open" would make a test of memory. They are ranked by a hash of the seed and their words.

        Args:
            held_out: the largest share of the pairs to hold out, between 0 and 1.
            seed: another seed makes another split.

        Returns:
            The training part and the held-out part, each in order.

        Raises:
            ValueError: if held_out is not between 0 and 1, or one side would be empty.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, both excluded; got {held_out}.")
        groups: dict[str, int] = {}
        for source, _ in self.pairs:
            groups[_words(source)] = groups.get(_words(source), 0) + 1
        room, chosen = held_out * len(self.pairs), set()
        for words in sorted(groups, key=lambda words: hashlib.sha256(f"{seed}\n{words}".encode()).digest()):
            if groups[words] <= room:
                chosen.add(words)
                room -= groups[words]
        train = [pair for pair in self.pairs if _words(pair[0]) not in chosen]
        held = [pair for pair in self.pairs if _words(pair[0]) in chosen]
        if not train or not held:
            raise ValueError(
                f"held_out={held_out} leaves one side of {self.name} empty: it has {len(self)} pairs."
            )
        return TextPairs(f"{self.name} (train)", train), TextPairs(f"{self.name} (held out)", held)


def load_interface_strings(language: str = "fr") -> TextPairs:
    """Return what JupyterLab and its extensions say, in English and in another language.

    About 3,300 short texts: commands, labels, settings, messages; half of them have at most 21 characters. A
    message that has a plural gives two pairs. Placeholders (`%1`, `{0}`) and line breaks stay as they are.

    Args:
        language: "fr" for French or "zh" for simplified Chinese.

    Raises:
        ValueError: if there is no such language.
        DatasetNotCached: if it has not been fetched; the message names the command.
        DatasetError: if a file is damaged.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}; got {language!r}.")
    folder = cache.path(f"language-pack-{language}")
    found = (pair for file in sorted(folder.glob("*.mo")) for pair in read_mo(file))
    # The same message stands in several catalogues, and under several contexts.
    return TextPairs(f"interface strings en-{language}", list(dict.fromkeys(found)))


def read_mo(path: Path) -> list[tuple[str, str]]:
    """Return the translated messages of a gettext catalogue, without the space around them.

    `gettext.GNUTranslations` looks messages up but does not list them, and forgets the plural's source.

    Args:
        path: a binary catalogue (`.mo`) in UTF-8.

    Returns:
        (source, target) in the catalogue's order. A message with a plural gives its singular and its plural; where
        the target has one form for both, they share it, and where it has more, the last goes with the plural.

    Raises:
        DatasetError: if the file is no whole catalogue in UTF-8.

    Reference: GNU gettext manual, "The Format of GNU MO Files".
    """
    pairs = []
    try:
        for message, translation in _entries(path.read_bytes()):
            sources = message.split(CONTEXT_ENDS, 1)[-1].split(PLURAL_BEGINS)
            targets = translation.split(PLURAL_BEGINS)
            forms = [(sources[0], targets[0]), (sources[-1], targets[-1])]
            pairs += [(s.strip(), t.strip()) for s, t in dict.fromkeys(forms) if s.strip() and t.strip()]
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise DatasetError(f"{path} is not a whole gettext catalogue in UTF-8: {error}.") from None
    return pairs


def _entries(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield (message, translation) as they stand in the file; the header has an empty message."""
    order = "<" if data[:4] == MO_MAGIC.to_bytes(4, "little") else ">"
    magic, _, count, sources, targets = struct.unpack_from(f"{order}5I", data)
    if magic != MO_MAGIC:
        raise ValueError(f"it begins with {data[:4].hex()}")
    for index in range(count):
        yield tuple(_text(data, order, table + 8 * index) for table in (sources, targets))


def _text(data: bytes, order: str, position: int) -> str:
    """Return the text whose length and offset stand at a position."""
    length, offset = struct.unpack_from(f"{order}2I", data, position)
    if offset + length > len(data):
        raise ValueError(f"a text ends at byte {offset + length} of {len(data)}")
    return data[offset : offset + length].decode()


def _words(text: str) -> str:
    """Return the text's words in small letters, or itself if it has none."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text
