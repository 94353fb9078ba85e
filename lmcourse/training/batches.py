"""Where training reads: documents as rows, or as one long stream.

Letters for shapes: `B` rows, `T` time (tokens in a row).

Batches are endless and made from (seed, position) alone: the batch at a position is the same whether the ones before
it were read or not. So a run can be taken up where it stopped by setting `position`.
"""

import abc
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids

# (x, y, weight): ids read, ids to predict, and 1 where the prediction counts.
Batch = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]

# Widths that rows are padded to: with six, about a twentieth of what Fableworld's batches hold is padding.
WIDTHS = 6


class Batches(abc.ABC):
    """An endless sequence of batches with a position that can be saved and set.

    A subclass says what the batch at a position is, and how many make an epoch.

    Attributes:
        position: how many batches have been given, and so the index of the next one.
        fixed_shape: whether all batches have one shape; else dimensions after the first may differ.
    """

    position: int = 0
    fixed_shape: bool = False

    @property
    @abc.abstractmethod
    def steps_per_epoch(self) -> int:
        """How many batches it takes to see everything once."""

    @abc.abstractmethod
    def at(self, position: int) -> Any:
        """Return the batch at a position: (x, y, weight), where x may be a nest of arrays."""

    @property
    def identity(self) -> str:
        """What tells these batches from others; a checkpoint is refused with data of another identity."""
        return type(self).__name__

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        batch = self.at(self.position)
        self.position += 1
        return batch


class DocumentBatches(Batches):
    """Every document is a row of its own, read from its beginning.

    A row reads `start_id` and all of the document but its last token, and predicts all of the document. Rows are
    shuffled each epoch; rows of similar length come together, padded to one of a few widths. The last batch of
    an epoch may have rows without any token that counts, so that all batches have the same number of rows.

    Args:
        documents: sequences of ids, none of them empty.
        batch_size: B.
        start_id: the id that is read before a document.
        max_length: the most tokens in a row. A longer document is cut into several rows, of which each goes on where
            the one before ended, and reads the token before it first.
        seed: of the order.

    Raises:
        ValueError: if there is no document, one is empty or no sequence of ids, or a number is not positive.

    Example:
        >>> batches = DocumentBatches([[5, 6, 7], [8, 9]], batch_size=2)
        >>> x, y, weight = next(batches)
        >>> order = y[:, 0].argsort()
        >>> x[order].tolist(), y[order].tolist(), weight.sum(axis=1)[order].tolist()
        ([[0, 5, 6], [0, 8, 0]], [[5, 6, 7], [8, 9, 0]], [3.0, 2.0])
    """

    def __init__(
        self,
        documents: Sequence[ArrayLike],
        batch_size: int,
        *,
        start_id: int = 0,
        max_length: int | None = None,
        seed: int = 0,
    ):
        self._documents = _checked(documents, batch_size, start_id)
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, or None; got {max_length}.")
        self.batch_size, self.start_id, self.max_length, self.seed = batch_size, start_id, max_length, seed
        self._rows = _rows(self._documents, start_id, max_length)
        self._lengths = np.array([len(row) - 1 for row in self._rows])
        self.widths = _choose_widths(self._lengths)
        self.fixed_shape = len(self.widths) == 1
        self._plan: tuple[int, list[tuple[int, NDArray]]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """How many batches it takes to see every document once."""
        return -(-len(self._rows) // self.batch_size)

    @functools.cached_property
    def identity(self) -> str:
        """The documents' hash and everything that decides their order."""
        settings = (self.batch_size, self.start_id, self.max_length, self.seed)
        return f"{type(self).__name__}{settings} {_sha256(self._documents)}"

    @property
    def largest_id(self) -> int:
        """The largest id in the documents: it has to be below the model's vocabulary."""
        return max(int(document.max()) for document in self._documents)

    def at(self, position: int) -> Batch:
        """Return the batch at a position.

        Returns:
            x int32 (B, T), y int32 (B, T), weight float32 (B, T).
        """
        epoch, step = divmod(position, self.steps_per_epoch)
        if self._plan[0] != epoch:
            self._plan = (epoch, self._plan_epoch(epoch))
        width, chosen = self._plan[1][step]
        x = np.zeros((self.batch_size, width), dtype=np.int32)
        y, weight = np.zeros_like(x), np.zeros(x.shape, dtype=np.float32)
        for b, index in enumerate(chosen):
            row, length = self._rows[index], self._lengths[index]
            x[b, :length], y[b, :length], weight[b, :length] = row[:-1], row[1:], 1
        return x, y, weight

    def _plan_epoch(self, epoch: int) -> list[tuple[int, NDArray]]:
        """Return each batch's width and rows: rows of one width together, what is left over goes to the next."""
        generator = np.random.default_rng([self.seed, epoch])
        shuffled = generator.permutation(len(self._rows))
        bucket = np.searchsorted(self.widths, self._lengths[shuffled])
        plan, left = [], shuffled[:0]
        for index, width in enumerate(self.widths):
            rows = np.concatenate([left, shuffled[bucket == index]])
            full = len(rows) // self.batch_size * self.batch_size
            plan += [(width, part) for part in rows[:full].reshape(-1, self.batch_size)]
            left = rows[full:]
        if len(left):
            plan.append((self.widths[-1], left))
        return [plan[i] for i in generator.permutation(len(plan))]


class StreamBatches(Batches):
    """The documents joined into one stream, which is cut into B parts that are read side by side.

    Row b of a batch goes on where row b of the batch before ended, so that a recurrent network can carry its state
    from batch to batch (truncated backpropagation through time); to a model without state they are windows of text.
    The documents are shuffled each epoch. What does not fill a whole batch, at most B * T - 1 tokens, is left out,
    another part of the text each epoch.

    Args:
        documents: sequences of ids, none of them empty. Let each end with an end token, or none shows the border.
        batch_size: B, the number of parts.
        time: T, the tokens in a row.
        start_id: the id that is read before each document: the end token of the one before.
        seed: of the order.

    Raises:
        ValueError: if there is no document, one is empty or no sequence of ids, they do not fill one batch, or a
            number is not positive.

    Example:
        >>> batches = StreamBatches([[1, 2, 3, 4, 5, 6, 7, 8]], batch_size=2, time=2)
        >>> [next(batches)[0].tolist() for _ in range(2)]
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """

    fixed_shape = True

    def __init__(
        self,
        documents: Sequence[ArrayLike],
        batch_size: int,
        time: int,
        *,
        start_id: int = 0,
        seed: int = 0,
    ):
        self._documents = _checked(documents, batch_size, start_id)
        if time < 1:
            raise ValueError(f"time must be at least 1; got {time}.")
        self.batch_size, self.time, self.start_id, self.seed = batch_size, time, start_id, seed
        self._tokens = sum(len(document) for document in self._documents)
        if self._tokens < batch_size * time:
            raise ValueError(
                f"documents must fill one batch of {batch_size} x {time} = {batch_size * time} tokens; "
                f"they have {self._tokens}. Give more text, or a smaller batch_size or time."
            )
        self._stream: tuple[int, NDArray, NDArray] = (-1, np.empty(0), np.empty(0))

    @property
    def steps_per_epoch(self) -> int:
        """How many batches it takes to see the stream once."""
        return self._tokens // (self.batch_size * self.time)

    @functools.cached_property
    def identity(self) -> str:
        """The documents' hash and everything that decides their order."""
        settings = (self.batch_size, self.time, self.start_id, self.seed)
        return f"{type(self).__name__}{settings} {_sha256(self._documents)}"

    @property
    def largest_id(self) -> int:
        """The largest id in the documents: it has to be below the model's vocabulary."""
        return max(int(document.max()) for document in self._documents)

    def at(self, position: int) -> Batch:
        """Return the batch at a position.

        Returns:
            x int32 (B, T), y int32 (B, T), weight float32 (B, T), all ones.
        """
        epoch, step = divmod(position, self.steps_per_epoch)
        if self._stream[0] != epoch:
            self._stream = (epoch, *self._join(epoch))
        window = slice(step * self.time, (step + 1) * self.time)
        x, y = (np.ascontiguousarray(part[:, window]) for part in self._stream[1:])
        return x, y, np.ones(x.shape, dtype=np.float32)

    def _join(self, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return what is read and what is to be predicted in an epoch, each (B, tokens in a part)."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._documents))
        y = np.concatenate([self._documents[i] for i in order])
        starts = np.cumsum([0] + [len(self._documents[i]) for i in order[:-1]])
        x = np.concatenate([[self.start_id], y[:-1]])
        x[starts] = self.start_id
        used = self.steps_per_epoch * self.batch_size * self.time
        return tuple(part[:used].reshape(self.batch_size, -1).astype(np.int32) for part in (x, y))


def _checked(documents: Sequence[ArrayLike], batch_size: int, start_id: int) -> list[NDArray[np.int64]]:
    """Return the documents as arrays, or say what is wrong."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    if start_id < 0:
        raise ValueError(f"start_id must be an id, 0 or more; got {start_id}.")
    arrays = document_ids(documents)
    if not arrays:
        raise ValueError("documents must hold at least one document; got none.")
    for index, document in enumerate(arrays):
        if not document.size:
            raise ValueError(f"documents[{index}] must hold at least one token; got none.")
        if document.min() < 0:
            raise ValueError(f"documents[{index}] must hold ids, 0 or more; got {document.min()}.")
    return arrays


def _rows(documents: list[NDArray], start_id: int, max_length: int | None) -> list[NDArray[np.int32]]:
    """Return each row as the id read first and then its tokens: one id more than it predicts."""
    rows = []
    for document in documents:
        whole = np.concatenate([[start_id], document]).astype(np.int32)
        step = max_length or len(document)
        rows += [whole[start : start + step + 1] for start in range(0, len(document), step)]
    return rows


def _choose_widths(lengths: NDArray) -> list[int]:
    """Return at most `WIDTHS` widths: equally many rows fall to each, and the last is the longest row's."""
    longest = int(lengths.max())
    shares = np.arange(1, WIDTHS + 1) / WIDTHS
    cuts = np.quantile(lengths, shares, method="higher")
    return sorted({min(longest, -(-int(cut) // 8) * 8) for cut in cuts})


def _sha256(documents: list[NDArray[np.int64]]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(len(document).to_bytes(8, "little"))
        digest.update(document.astype("<i8").tobytes())
    return digest.hexdigest()
