"""A text as a list of documents, with its identity and its split."""

import dataclasses
import functools
import hashlib

from lmcourse.text.cleaning import remove_duplicate_lines

# What stands between two documents in a corpus's text.
SEPARATOR = "\n\n"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A named list of documents.

    Attributes:
        name: the dataset's name, and the part of it, if it is a part.
        documents: the texts, in the dataset's order.

    Example:
        >>> corpus = Corpus("tiny", ["A ship.", "A lamp.", "Née à Brest."])
        >>> corpus.utf8_bytes, corpus.sha256[:12]
        (32, '4188e8a4412d')
        >>> train, held_out = corpus.split(held_out=0.3)
        >>> len(train.documents), len(held_out.documents)
        (2, 1)
    """

    name: str
    documents: list[str]

    @functools.cached_property
    def text(self) -> str:
        """All documents as one text, an empty line between two."""
        return SEPARATOR.join(self.documents)

    @functools.cached_property
    def utf8_bytes(self) -> int:
        """The length of `text` in UTF-8: what bits per byte are counted by."""
        return len(self.text.encode())

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of `text` in UTF-8, in hexadecimal: record it with every result."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def describe(self) -> str:
        """Return the corpus's sizes and identity in one line."""
        return (
            f"{self.name}: {len(self.documents):,} documents, {len(self.text):,} characters, "
            f"{self.utf8_bytes:,} bytes of UTF-8, SHA-256 {self.sha256[:12]}"
        )

    def deduplicated(self) -> "Corpus":
        """Return the corpus with every line of 20 characters or more kept only where it comes first.

        Without this, what is held out may stand in the training part as well: then memory passes for skill.
        """
        seen: set[str] = set()
        documents = [remove_duplicate_lines(document, seen=seen) for document in self.documents]
        return Corpus(f"{self.name} (deduplicated)", [document for document in documents if document.strip()])

    def split(self, held_out: float = 0.1, seed: int = 0) -> tuple["Corpus", "Corpus"]:
        """Hold out whole documents, so that no sentence of one is on both sides.

        Documents are ranked by a hash of the seed and of what they say, and held out in that order as long as
        they fit. Equal documents are therefore on the same side. Another order of the documents gives the same
        two sides.

        Args:
            held_out: the largest share of the bytes to hold out, between 0 and 1.
            seed: another seed makes another split.

        Returns:
            The training part and the held-out part, each in the corpus's order.

        Raises:
            ValueError: if held_out is not between 0 and 1, or one side would be empty.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, both excluded; got {held_out}.")
        chosen = self._choose(held_out, seed)
        train = [document for document in self.documents if document not in chosen]
        held = [document for document in self.documents if document in chosen]
        if not train or not held:
            raise ValueError(
                f"held_out={held_out} leaves one side of {self.name} empty: it has {len(self.documents)} "
                "documents. Give a larger share or a corpus of more, shorter documents."
            )
        return Corpus(f"{self.name} (train)", train), Corpus(f"{self.name} (held out)", held)

    def _choose(self, held_out: float, seed: int) -> set[str]:
        """Return the documents to hold out."""
        sizes: dict[str, int] = {}
        for document in self.documents:
            sizes[document] = sizes.get(document, 0) + len(document.encode()) + len(SEPARATOR)
        room = held_out * self.utf8_bytes
        chosen = set()
        for document in sorted(sizes, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest()):
            if sizes[document] <= room:
                chosen.add(document)
                room -= sizes[document]
        return chosen
