"""Counting n-grams: one pass over the text for each order, in sorted integer keys.

Letters: `V` vocabulary, `N` tokens of text, `G` distinct n-grams of one order, `C` distinct contexts.

An n-gram is named by an integer. The ids of the unigrams are the token ids, with `V` for the start of a document.
An n-gram's *key* is `(id of its first n-1 tokens) * (V + 1) + (its last token)`; the distinct keys, sorted, are its
order's table, and its id is its row there. Keys stay small (G × V, at most about 10¹³ for a corpus of 10⁸ tokens)
where one number for all n tokens, V⁵, would overflow 64 bits beyond V = 6,208.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids


@dataclasses.dataclass(frozen=True)
class NgramTable:
    """The distinct n-grams of one order.

    Attributes:
        order: n.
        keys: (G,) sorted; `context * (V + 1) + token`.
        counts: (G,) how often each occurs.
        suffixes: (G,) the id of the n-gram without its first token, in the table of order n - 1.
        starts_document: (G,) whether the first token is the start of a document: such an n-gram has nothing to
            its left.
        vocab_size: V.
    """

    order: int
    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    suffixes: NDArray[np.int64]
    starts_document: NDArray[np.bool_]
    vocab_size: int

    def __len__(self) -> int:
        """Return G, the number of distinct n-grams."""
        return len(self.keys)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The last token of each n-gram, (G,)."""
        return self.keys % (self.vocab_size + 1)

    @property
    def contexts(self) -> NDArray[np.int64]:
        """The id of each n-gram's first n - 1 tokens, in the table of order n - 1, (G,); 0 for unigrams."""
        return self.keys // (self.vocab_size + 1)


def find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of each wanted key in the sorted keys, or -1 where it is absent.

    Example:
        >>> find(np.array([2, 5, 9]), np.array([9, 3, 2])).tolist()
        [2, -1, 0]
    """
    if not len(keys):
        return np.full(wanted.shape, -1, dtype=np.int64)
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[rows] == wanted, rows, -1)


def check_sizes(order: int, vocab_size: int) -> None:
    """Raise a ValueError that says which of the two is not a whole number of at least 1."""
    for name, value in (("order", order), ("vocab_size", vocab_size)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number, at least 1; got {value!r}.")


def pick(values: NDArray, rows: NDArray[np.int64], absent: ArrayLike) -> NDArray:
    """Return the value at each row, and `absent` (broadcast) where the row is -1.

    Example:
        >>> pick(np.array([5, 6, 7]), np.array([2, -1]), absent=0).tolist()
        [7, 0]
    """
    result = np.array(np.broadcast_to(absent, rows.shape), dtype=values.dtype)
    present = rows >= 0
    result[present] = values[rows[present]]
    return result


class NgramCounts:
    """How often every n-gram up to an order occurs in a corpus.

    Args:
        documents: sequences of token ids. An n-gram never spans two documents; each document begins with a start
            symbol, so that its first tokens have a context too.
        order: the longest n-gram to count, at least 1.
        vocab_size: V; ids run from 0 to V - 1.

    Raises:
        ValueError: if order or vocab_size is less than 1, there is no token, a document is not a sequence of integers,
            or an id is outside 0..V-1.

    Example:
        >>> counts = NgramCounts([[0, 1, 0, 1, 1]], order=2, vocab_size=2)
        >>> counts.count([0, 1]), counts.count([1, 0]), counts.count([0, 0])
        (2, 1, 0)
    """

    def __init__(self, documents: Sequence[ArrayLike], order: int, vocab_size: int):
        check_sizes(order, vocab_size)
        self.vocab_size = vocab_size
        stream, depth = with_starts(documents, vocab_size)
        self.tokens = int((depth > 0).sum())
        self.tables = [_unigrams(stream, depth, vocab_size)]
        grams = stream  # (N,) the id of the n-gram that ends at each position
        for n in range(2, order + 1):
            grams = self._count_order(n, stream, depth, grams)

    @property
    def order(self) -> int:
        """The longest n-gram counted."""
        return len(self.tables)

    def _count_order(self, n: int, stream: NDArray, depth: NDArray, shorter: NDArray) -> NDArray:
        """Add the table of order n; return the id of the n-gram that ends at each position, -1 where none does."""
        ends = np.flatnonzero(depth >= n - 1)
        keys, first, rows, counts = np.unique(
            shorter[ends - 1] * (self.vocab_size + 1) + stream[ends],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        self.tables.append(
            NgramTable(
                order=n,
                keys=keys,
                counts=counts,
                suffixes=shorter[ends[first]],
                starts_document=depth[ends[first]] == n - 1,
                vocab_size=self.vocab_size,
            )
        )
        grams = np.full(len(stream), -1, dtype=np.int64)
        grams[ends] = rows
        return grams

    def up_to(self, order: int) -> "NgramCounts":
        """Return the counts of the orders up to this one, without counting again."""
        if not 1 <= order <= self.order:
            raise ValueError(f"order must be between 1 and {self.order}, the order counted; got {order}.")
        shorter = object.__new__(NgramCounts)
        shorter.vocab_size, shorter.tokens, shorter.tables = self.vocab_size, self.tokens, self.tables[:order]
        return shorter

    def count(self, ngram: Sequence[int]) -> int:
        """Return how often the n-gram occurs; `V` as its first token stands for the start of a document."""
        if not 1 <= len(ngram) <= self.order:
            raise ValueError(f"ngram must have 1 to {self.order} tokens; got {len(ngram)}.")
        if any(not 0 <= token <= self.vocab_size for token in ngram):
            raise ValueError(f"ngram must hold ids between 0 and {self.vocab_size}; got {list(ngram)}.")
        ids = gram_ids(np.array([ngram]), self.tables[: len(ngram)])
        return int(pick(self.tables[len(ngram) - 1].counts, ids[-1][:, -1], absent=0)[0])


def with_starts(
    documents: Sequence[ArrayLike], vocab_size: int, name: str = "documents"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join documents into one stream, a start symbol (id V) before each.

    Args:
        documents: sequences of ids.
        vocab_size: V.
        name: what the caller calls the documents, for messages.

    Returns:
        The stream, and for each position how many tokens of its document lie to its left (0 at a start).

    Raises:
        ValueError: if there is no token, a document is not a sequence of integers, or an id is outside 0..V-1.
    """
    parts = document_ids(documents, vocab_size, name)
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    if not lengths.sum():
        raise ValueError(f"{name} must hold at least one token; got none.")
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    depth = np.arange(int((lengths + 1).sum())) - np.repeat(starts, lengths + 1)
    stream = np.full(len(depth), vocab_size, dtype=np.int64)
    stream[depth > 0] = np.concatenate(parts)
    return stream, depth


def _unigrams(stream: NDArray, depth: NDArray, vocab_size: int) -> NgramTable:
    """Return the dense table of order 1: a row for every token, seen or not, and one for the start (count 0)."""
    return NgramTable(
        order=1,
        keys=np.arange(vocab_size + 1),
        counts=np.bincount(stream[depth > 0], minlength=vocab_size + 1),
        suffixes=np.zeros(vocab_size + 1, dtype=np.int64),
        starts_document=np.arange(vocab_size + 1) == vocab_size,
        vocab_size=vocab_size,
    )


def gram_ids(stream: NDArray[np.int64], tables: Sequence[NgramTable]) -> list[NDArray[np.int64]]:
    """Look up the n-grams of every order that end at each position of rows of tokens.

    Args:
        stream: (B, T) ids; V stands for the start of a document.
        tables: the tables of order 1, 2, …

    Returns:
        For each table, ids of shape (B, T): the row of the n-gram that ends there, -1 where it was never seen or
        the row is too short.
    """
    ids = [stream]
    for table in tables[1:]:
        found = np.full(stream.shape, -1, dtype=np.int64)
        rows, columns = np.nonzero(ids[-1][:, :-1] >= 0)
        contexts = ids[-1][rows, columns]
        found[rows, columns + 1] = find(
            table.keys, contexts * (table.vocab_size + 1) + stream[rows, columns + 1]
        )
        ids.append(found)
    return ids
