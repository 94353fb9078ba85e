"""Byte-level byte-pair encoding, as GPT-2 and its successors use it.

A text is split into chunks (about words), a chunk into its UTF-8 bytes, and the bytes are joined by the merges,
earliest learned first. Since every byte is a token, no text is unknown and none is lost.

Reference: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2; the merging:
Sennrich, Haddow and Birch 2016, arXiv:1508.07909.
"""

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self, get_args

import regex

from lmcourse.files import write_text
from lmcourse.text.base import Tokenizer, between_special_tokens, check_utf8, special_ids, visible
from lmcourse.text.bpe_training import BYTE_ORDER, learn_merges

Split = Literal["gpt2", "smollm2"]

# No merge crosses from one chunk to the next. GPT-2: an English contraction's ending; a run of letters, of digits or
# of other marks, each with the space before it; white space, whose last one is left to the word after it.
_SPLITS = {
    "gpt2": regex.compile(
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ),
    # SmolLM2 first cuts every digit out, then splits what is left like GPT-2: so a digit takes no space before
    # it, and white space before a digit counts as white space at the end.
    "smollm2": regex.compile(
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+",
    ),
}

# Distinct chunks remembered with their ids. In 5 million characters of documentation and code, 6,545 of 30,077
# distinct chunks make up 95 %; 100,000 entries take about 17 MiB.
CACHE_ENTRIES = 100_000

# Longer chunks (a line of dashes, a page without a space) seldom come again.
CACHED_CHUNK_CHARACTERS = 64


class BPETokenizer(Tokenizer):
    """A byte-level byte-pair tokenizer.

    The ids are those of the `tokenizers` library on the same files. Only characters that are younger than one
    of the two libraries' tables of Unicode may be cut into other chunks.

    Tokens are written as in GPT-2's files: each byte as one printable character; see `byte_characters`.

    `decode` shows bytes that are not UTF-8 (part of a character, say) as U+FFFD; `decode_bytes` gives them exactly.

    Args:
        vocab: the id of each token. The ids are 0 to V - 1.
        merges: pairs of tokens to join, the earliest learned first; each pair and what it makes is in vocab.
        special_tokens: tokens that stand for no text, as they are spelled. Those that vocab lacks get the next ids.
            None may be spelled like the written form of a byte or of what a merge makes: GPT-2's files have one id
            for both.
        split: the rule that cuts text into chunks, "gpt2" or "smollm2".

    Raises:
        ValueError: if the ids have gaps, a merge's token is missing, a token is no bytes, a special token is
            written like text, or split is unknown.

    Example:
        >>> tokenizer = BPETokenizer.train("low lower lowest " * 3, merges=4, special_tokens=["<end>"])
        >>> ids = tokenizer.encode("lowest newer<end>")
        >>> [tokenizer.tokens[i] for i in ids]
        ['low', 'e', 's', 't', '␣', 'n', 'e', 'w', 'e', 'r', '<end>']
        >>> tokenizer.decode(ids)
        'lowest newer<end>'
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        special_tokens: Sequence[str] = (),
        split: Split = "gpt2",
    ):
        if split not in get_args(Split):
            raise ValueError(f"split must be one of {get_args(Split)}; got {split!r}.")
        self.split: Split = split
        new_specials = [token for token in special_tokens if token not in vocab]
        self._vocab = {**vocab, **special_ids(new_specials, first=len(vocab))}
        self._merges = [(left, right) for left, right in merges]
        specials = {token: self._vocab[token] for token in special_ids(special_tokens)}
        _check_not_text(specials, merges)
        self._token_bytes = _bytes_by_id(self._vocab, specials)
        self._byte_ids = {byte: vocab.get(character) for byte, character in byte_characters().items()}
        self._ranks: dict[tuple[int, int], int] = {}
        self._products: list[int] = []  # the id that each merge makes
        self._learn_ranks()
        self._cache: dict[str, list[int]] = {}
        tokens = [visible(token) for token in self._token_bytes]
        super().__init__(tokens, specials)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        *,
        vocab_size: int | None = None,
        merges: int | None = None,
        special_tokens: Sequence[str] = (),
        split: Split = "gpt2",
        min_count: int = 2,
        progress: bool = False,
    ) -> Self:
        """Learn merges from texts.

        The ids are those of the special tokens, then of the 256 bytes, then of the merges as they were learned: the
        ids that the trainer of the `tokenizers` library gives. Of pairs that are equally frequent, the older
        parts are merged first; see `lmcourse.text.bpe_training.learn_merges`.

        Args:
            texts: one text or several.
            vocab_size: V, with special tokens and bytes; or give merges.
            merges: how many merges to learn; or give vocab_size.
            special_tokens: tokens that stand for no text; they are found in the texts and not learned from.
            split: the rule that cuts text into chunks.
            min_count: how often a pair must occur to be merged.
            progress: whether to show a progress bar.

        Raises:
            ValueError: if not exactly one of vocab_size and merges is given, vocab_size is too small, split is
                unknown, a special token is written like a byte or a learned token, or a text holds a lone surrogate.
        """
        vocab = special_ids(special_tokens)
        _check_not_text(vocab)  # before the minutes that learning takes
        for byte in BYTE_ORDER:
            vocab[byte_characters()[byte]] = len(vocab)
        num_merges = _number_of_merges(len(vocab), vocab_size, merges)
        chunk_counts: Counter[str] = Counter()
        for part in between_special_tokens(texts, special_tokens):
            chunk_counts.update(split_chunks(part, split))
        counts = {chunk.encode("utf-8"): count for chunk, count in chunk_counts.items()}
        pairs = learn_merges(counts, num_merges, min_count=min_count, progress=progress)
        learned = [(_written(left), _written(right)) for left, right in pairs]
        for left, right in learned:
            vocab[left + right] = len(vocab)
        return cls(vocab, learned, special_tokens, split)

    @classmethod
    def from_files(
        cls,
        vocab: str | os.PathLike[str],
        merges: str | os.PathLike[str],
        *,
        special_tokens: Sequence[str] = ("<|endoftext|>",),
        split: Split = "gpt2",
    ) -> Self:
        """Read the two files in which GPT-2's tokenizer is published.

        Args:
            vocab: vocab.json, an object from token to id.
            merges: merges.txt, one pair a line, after an optional line that begins with "#version".
            special_tokens: tokens that stand for no text.
            split: the rule that cuts text into chunks.

        Raises:
            ValueError: if a file is not of that form; the message names the file, and the line.
        """
        return cls(_read_vocab(Path(vocab)), _read_merges(Path(merges)), special_tokens, split)

    def save_files(self, vocab: str | os.PathLike[str], merges: str | os.PathLike[str]) -> None:
        """Write the two files that `from_files` and other libraries read; see there."""
        write_text(vocab, json.dumps(self._vocab, ensure_ascii=False) + "\n")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self._merges)]
        write_text(merges, "\n".join(lines) + "\n")

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The pairs of tokens, as GPT-2's files write them, the earliest learned first."""
        return list(self._merges)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Return the ids of any bytes, UTF-8 or not; special tokens in them count as text.

        `decode_bytes` gives the bytes back. For the bytes of a text the ids are those of the text.
        """
        return self._encode_chunks(data.decode("utf-8", "surrogateescape"))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids stand for, exactly; a special token gives the bytes of its name.

        Raises:
            ValueError: if an id is no integer, or outside the vocabulary.
        """
        return b"".join([self._token_bytes[i] for i in self._check_ids(ids)])

    def to_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "vocab": self._vocab,
            "merges": self._merges,
            "special_tokens": list(self.special_tokens),
            "split": self.split,
        }

    def _encode_text(self, text: str) -> list[int]:
        check_utf8(text)
        return self._encode_chunks(text)

    def _decode_ids(self, ids: list[int]) -> str:
        return b"".join([self._token_bytes[i] for i in ids]).decode("utf-8", "replace")

    def _encode_chunks(self, text: str) -> list[int]:
        ids: list[int] = []
        remembered = self._cache
        for chunk in split_chunks(text, self.split):
            found = remembered.get(chunk)
            ids += self._encode_chunk(chunk) if found is None else found
        return ids

    def _encode_chunk(self, chunk: str) -> list[int]:
        data = chunk.encode("utf-8", "surrogateescape")
        ids = [self._byte_ids[byte] for byte in data]
        if None in ids:
            byte = data[ids.index(None)]
            raise ValueError(
                f"text must consist of bytes in the vocabulary; it has no token for 0x{byte:02x}."
            )
        ids = self._merge(ids)
        if len(self._cache) < CACHE_ENTRIES and len(chunk) <= CACHED_CHUNK_CHARACTERS:
            self._cache[chunk] = ids
        return ids

    def _merge(self, ids: list[int]) -> list[int]:
        """Join neighbours by the earliest learned merge, the leftmost first, until none applies.

        A heap of candidates and a doubly linked list make this O(n log n), so that a chunk of a million
        characters does no harm. Joined positions hold -1, which no merge knows.
        """
        rank_of = self._ranks.get
        after = list(range(1, len(ids) + 1))
        before = list(range(-1, len(ids) - 1))
        candidates = [
            (rank, i) for i, pair in enumerate(pairwise(ids)) if (rank := rank_of(pair)) is not None
        ]
        heapq.heapify(candidates)
        while candidates:
            rank, left = heapq.heappop(candidates)
            right = after[left]
            if right == len(ids) or rank_of((ids[left], ids[right])) != rank:
                continue  # one of the two was joined to another neighbour meanwhile
            ids[left], ids[right] = self._products[rank], -1
            after[left] = after[right]
            if after[left] < len(ids):
                before[after[left]] = left
            for start, end in ((before[left], left), (left, after[left])):
                if start >= 0 and end < len(ids) and (new := rank_of((ids[start], ids[end]))) is not None:
                    heapq.heappush(candidates, (new, start))
        return [i for i in ids if i >= 0]

    def _learn_ranks(self) -> None:
        for rank, (left, right) in enumerate(self._merges):
            missing = [token for token in (left, right, left + right) if token not in self._vocab]
            if missing:
                raise ValueError(f"merges must join tokens of vocab; merge {rank} needs {missing[0]!r}.")
            # A pair given twice counts with its last rank, as in the `tokenizers` library.
            self._ranks[self._vocab[left], self._vocab[right]] = rank
            self._products.append(self._vocab[left + right])


def split_chunks(text: str, split: Split = "gpt2") -> list[str]:
    """Cut a text into the chunks that no merge crosses; joined, they are the text.

    Raises:
        ValueError: if split is unknown.

    Example:
        >>> split_chunks("It's 42  times 7."), split_chunks("It's 42  times 7.", "smollm2")[:5]
        (['It', "'s", ' 42', ' ', ' times', ' 7', '.'], ['It', "'s", ' ', '4', '2'])
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {get_args(Split)}; got {split!r}.")
    return _SPLITS[split].findall(text)


@cache
def byte_characters() -> dict[int, str]:
    r"""Return the printable character that GPT-2's files write for each byte.

    Bytes that Latin-1 prints visibly stand for themselves; the other 68 are numbered from U+0100.

    Example:
        >>> [byte_characters()[byte] for byte in b"a \n"]
        ['a', 'Ġ', 'Ċ']
    """
    unprintable = BYTE_ORDER[188:]
    return {byte: chr(byte) for byte in BYTE_ORDER[:188]} | {
        byte: chr(0x100 + i) for i, byte in enumerate(unprintable)
    }


@cache
def _bytes_of_characters() -> dict[str, int]:
    return {character: byte for byte, character in byte_characters().items()}


def _written(data: bytes) -> str:
    return "".join([byte_characters()[byte] for byte in data])


def _check_not_text(special_tokens: Iterable[str], merges: Iterable[tuple[str, str]] = ()) -> None:
    """Refuse special tokens whose id text would get: those written like a byte or like what a merge makes."""
    of_text = {*_bytes_of_characters(), *(left + right for left, right in merges)}
    for token in special_tokens:
        if token in of_text:
            raise ValueError(
                f"special_tokens must not be what GPT-2's files write for a byte or a merge; got {token!r}. "
                f"Spell it another way, such as '<{token}>'."
            )


def _bytes_by_id(vocab: Mapping[str, int], specials: Mapping[str, int]) -> list[bytes]:
    """Return what each id stands for, and check that every id from 0 to V - 1 has a token."""
    by_id: dict[int, bytes] = {}
    for token, i in vocab.items():
        try:
            by_id[i] = token.encode() if token in specials else bytes(map(_bytes_of_characters().get, token))
        except TypeError:
            raise ValueError(
                f"vocab must write tokens as bytes in GPT-2's characters; got {token!r}. "
                "If it is a special token, name it in special_tokens."
            ) from None
    if set(by_id) != set(range(len(vocab))):
        gaps = sorted(set(range(len(vocab))) - set(by_id))
        raise ValueError(
            f"vocab must give each id from 0 to {len(vocab) - 1} once; nothing has id {gaps[0]}."
        )
    return [by_id[i] for i in range(len(vocab))]


def _number_of_merges(others: int, vocab_size: int | None, merges: int | None) -> int:
    if (vocab_size is None) == (merges is None):
        raise ValueError(f"give one of vocab_size and merges; got {vocab_size} and {merges}.")
    number = merges if merges is not None else vocab_size - others
    if number < 0:
        raise ValueError(
            f"vocab_size must hold the {others} bytes and special tokens; got {vocab_size}."
            if merges is None
            else f"merges must not be negative; got {merges}."
        )
    return number


def _read_vocab(path: Path) -> dict[str, int]:
    try:
        vocab = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise ValueError(f"{path} must hold one JSON object from token to id.")
    return vocab


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2:
            raise ValueError(
                f"{path}, line {number}: a merge is two tokens with a space between; got {line!r}."
            )
        merges.append((parts[0], parts[1]))
    return merges
