"""What BERT learns from: texts in which some tokens are hidden, and pairs of sentences that may or may not follow.

Letters for shapes: `B` rows, `T` time, `V` vocabulary, `N` hidden tokens.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import check_ids, document_ids, pad_rows
from lmcourse.training import Batches, DocumentBatches, ModelGraphs
from lmcourse.transformer.bert import FOLLOWS, Bert
from lmcourse.transformer.config import Bounds, Size, check_field, check_fields, check_id

# Widths are rounded up to a multiple of this: few different shapes, little padding.
WIDTH_STEP = 8

# Documents that are scored in one call.
SCORED_TOGETHER = 32

Share = Annotated[float, Bounds("at least 0 and at most 1", lambda number: 0 <= number <= 1)]
ShareOfSome = Annotated[float, Bounds("above 0 and at most 1", lambda number: 0 < number <= 1)]

Inputs = dict[str, NDArray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hiding:
    """How tokens are hidden for a model to guess.

    In each row a share of the tokens is chosen, at least one. Of the chosen most become the mask's id; some become
    another token, so that the model cannot rely on what it sees; and some stay, so that it has to know about each
    token, hidden or not. The model guesses all of the chosen.

    Attributes:
        vocab_size: V.
        mask_id: the id that hides a token.
        start_id: the id that opens each row, or None for none ([CLS]).
        end_id: the id that closes each text of a row, or None for none ([SEP]).
        special_ids: further ids that are no text. Special ids are never chosen, and nothing becomes one of them.
        share: of a row's tokens, how many are chosen.
        masked: of the chosen, how many become the mask's id.
        random: of the chosen, how many become another token.

    Raises:
        ValueError: if an id is none, a share makes no sense, or all ids are special.

    Example:
        >>> hiding = Hiding(vocab_size=20, mask_id=0, share=0.5, masked=1.0, random=0.0)
        >>> ids = np.array([[5, 6, 7, 8]])
        >>> seen, chosen = hiding.hide(ids, np.ones_like(ids, dtype=bool), np.random.default_rng(0))
        >>> bool((seen[chosen] == 0).all()), bool((seen[~chosen] == ids[~chosen]).all()), int(chosen.sum())
        (True, True, 2)

    Reference: Devlin et al. 2019, arXiv:1810.04805, section 3.1, "Task #1", and appendix A.1.
    """

    vocab_size: Size
    mask_id: int
    start_id: int | None = None
    end_id: int | None = None
    special_ids: tuple[int, ...] = ()
    share: ShareOfSome = 0.15
    masked: Share = 0.8
    random: Share = 0.1

    def __post_init__(self):
        check_fields(self)
        if not isinstance(self.special_ids, Iterable) or isinstance(self.special_ids, str):
            raise ValueError(
                f"special_ids must be several ids; got {self.special_ids!r}. For one, pass (id,)."
            )
        object.__setattr__(self, "special_ids", tuple(self.special_ids))
        marks = {"mask_id": self.mask_id, "start_id": self.start_id, "end_id": self.end_id}
        check_id(self.vocab_size, **{name: number for name, number in marks.items() if number is not None})
        for number in self.special_ids:
            check_id(self.vocab_size, special_ids=number)
        # 0.8 + 0.2 may come out a little above 1
        if self.masked + self.random > 1 + 1e-9:
            raise ValueError(
                f"masked and random must be shares that add up to at most 1; got {self.masked} and {self.random}."
            )
        if not self.ordinary.size:
            raise ValueError(f"special_ids must leave some ids to be text; got all {self.vocab_size}.")

    @functools.cached_property
    def special(self) -> NDArray[np.int64]:
        """All ids that are no text, in order."""
        marks = (number for number in (self.start_id, self.end_id) if number is not None)
        return np.unique([self.mask_id, *marks, *self.special_ids])

    @functools.cached_property
    def ordinary(self) -> NDArray[np.int64]:
        """All ids that are text, in order."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special)

    def hide(
        self, ids: NDArray, mask: NDArray, generator: np.random.Generator
    ) -> tuple[NDArray, NDArray[np.bool_]]:
        """Hide tokens.

        Args:
            ids: integers of shape (B, T).
            mask: bool (B, T), False on padding.
            generator: what draws.

        Returns:
            What the model sees, (B, T) and of the dtype of ids, and which tokens it is to guess, bool (B, T). In a row
            of special ids alone there are none.

        Raises:
            ValueError: if ids is not (B, T), holds a number that is no id, or mask has another shape.
        """
        dtype = np.asarray(ids).dtype
        ids, mask = check_ids(ids, self.vocab_size, mask)
        chosen = self._choose(mask & ~np.isin(ids, self.special), generator)
        fate = generator.random(ids.shape)
        another = self.ordinary[generator.integers(len(self.ordinary), size=ids.shape)]
        seen = np.where(chosen & (fate < self.masked), self.mask_id, ids)
        replaced = chosen & (self.masked <= fate) & (fate < self.masked + self.random)
        return np.where(replaced, another, seen).astype(dtype), chosen

    def row(self, *texts: NDArray) -> NDArray[np.int64]:
        """Return texts as one row.

        Args:
            *texts: ids, each of shape (length of the text,).

        Returns:
            The start, and each text with the end behind it, of shape (T,).
        """
        start = [] if self.start_id is None else [self.start_id]
        end = [] if self.end_id is None else [self.end_id]
        return np.concatenate([start, *(part for text in texts for part in (text, end))]).astype(np.int64)

    def room(self, max_length: int, texts: int = 1) -> int:
        """Return how many tokens of text fit into a row beside the start and the ends.

        Args:
            max_length: the most tokens in a row.
            texts: how many texts share it.

        Returns:
            The number of tokens of all texts together, at least one for each.

        Raises:
            ValueError: if there is no room for so many.
        """
        room = max_length - len(self.row(*[np.empty(0)] * texts))
        if room < texts:
            raise ValueError(f"max_length must leave room for {texts} token(s) of text; got {max_length}.")
        return room

    def _choose(self, allowed: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.bool_]:
        """Choose the share of each row's allowed positions, rounded, and at least one where there is one."""
        order = np.where(allowed, generator.random(allowed.shape), np.inf)
        rank = order.argsort(axis=1).argsort(axis=1)  # (B, T): the allowed come first, in a random order
        wanted = np.maximum(np.rint(self.share * allowed.sum(axis=1)), 1)
        return allowed & (rank < wanted[:, None])


class MaskedBatches(Batches):
    """Documents as rows with hidden tokens; the same document hides other tokens each time.

    Rows of similar length come together, padded to one of a few widths. The last batch of an epoch may have rows
    without any token, so that all batches have the same number of rows.

    Args:
        documents: sequences of ids, none of them empty, without start and end.
        batch_size: B.
        hiding: how tokens are hidden.
        max_length: the most tokens in a row, start and end included. A longer document is cut into several rows.
        seed: of the order and of what is hidden.

    Raises:
        ValueError: if there is no document, one is empty or has an id that is none, none has a token that can be
            hidden, or a number makes no sense.

    Example:
        >>> hiding = Hiding(vocab_size=20, mask_id=2, start_id=0, end_id=1)
        >>> batches = MaskedBatches([[5, 6, 7], [8, 9]], batch_size=2, hiding=hiding)
        >>> inputs, y, weight = next(batches)
        >>> sorted(y.tolist()), weight.sum(axis=1).tolist()  # 15 % of three is none: at least one is hidden
        ([[0, 5, 6, 7, 1], [0, 8, 9, 1, 0]], [1.0, 1.0])
        >>> inputs["mask"].sum(axis=1).tolist()[::1 if y[0, 1] == 5 else -1]
        [5, 4]
    """

    def __init__(
        self,
        documents: Sequence[ArrayLike],
        batch_size: int,
        hiding: Hiding,
        *,
        max_length: int | None = None,
        seed: int = 0,
    ):
        self.hiding, self.seed = hiding, seed
        # DocumentBatches knows how to lay out rows; what it reads before them is not needed here.
        self._rows = DocumentBatches(_whole_rows(documents, hiding, max_length), batch_size, seed=seed)
        self.batch_size, self.fixed_shape = batch_size, self._rows.fixed_shape

    @property
    def steps_per_epoch(self) -> int:
        """How many batches it takes to see every document once."""
        return self._rows.steps_per_epoch

    @functools.cached_property
    def identity(self) -> str:
        """The documents' hash and everything that decides their order and what is hidden."""
        return f"{type(self).__name__}({self.hiding}) {self._rows.identity}"

    @property
    def largest_id(self) -> int:
        """The largest id that may occur: it has to be below the model's vocabulary."""
        return self.hiding.vocab_size - 1

    def at(self, position: int) -> tuple[Inputs, NDArray[np.int32], NDArray[np.float32]]:
        """Return the batch at a position.

        Args:
            position: how many batches come before it.

        Returns:
            `Bert`'s inputs, a dict of "ids" int32 (B, T) and "mask" bool (B, T); the tokens that stand there, int32
            (B, T); and float32 (B, T), 1 on those to be guessed.
        """
        _, ids, real = self._rows.at(position)
        mask = real > 0
        seen, chosen = self.hiding.hide(ids, mask, np.random.default_rng([self.seed, 1, position]))
        return {"ids": seen, "mask": mask}, ids, chosen.astype(np.float32)


class NextSentenceBatches(Batches):
    """Pairs of sentences with hidden tokens: half of them follow each other, half are from two documents.

    Args:
        documents: each a sequence of sentences, which are sequences of ids, none of them empty. At least two
            documents, and one with two sentences or more.
        batch_size: B.
        hiding: how tokens are hidden; its `end_id` separates the sentences.
        max_length: the most tokens in a row; of a longer pair the ends of both sentences are left out.
        seed: of everything that is drawn.

    Raises:
        ValueError: if the documents are not of that form, an id is none, or a number makes no sense.

    Reference: Devlin et al. 2019, arXiv:1810.04805, section 3.1, "Task #2".
    """

    def __init__(
        self,
        documents: Sequence[Sequence[ArrayLike]],
        batch_size: int,
        hiding: Hiding,
        *,
        max_length: int = 512,
        seed: int = 0,
    ):
        batch_size, max_length = (
            check_field(name, Size, size)
            for name, size in (("batch_size", batch_size), ("max_length", max_length))
        )
        self.hiding, self.batch_size, self.max_length, self.seed = hiding, batch_size, max_length, seed
        self._room = hiding.room(max_length, texts=2)
        self._documents = [
            _texts(sentences, hiding, f"documents[{i}]") for i, sentences in enumerate(documents)
        ]
        # (document, sentence) of each sentence that another follows
        self._firsts = [(d, s) for d, found in enumerate(self._documents) for s in range(len(found) - 1)]
        if len(self._documents) < 2 or not self._firsts:
            raise ValueError(
                "documents must be at least two, one of them with two sentences or more; "
                f"got {[len(found) for found in self._documents][:8]} sentences."
            )

    @property
    def steps_per_epoch(self) -> int:
        """How many batches it takes for every sentence that another follows to be the first of a pair once."""
        return -(-len(self._firsts) // self.batch_size)

    @functools.cached_property
    def identity(self) -> str:
        """The documents' hash and everything that decides what is drawn."""
        digest = hashlib.sha256()
        for sentences in self._documents:
            digest.update(len(sentences).to_bytes(8, "little"))
            for sentence in sentences:
                digest.update(len(sentence).to_bytes(8, "little") + sentence.astype("<i8").tobytes())
        settings = (self.hiding, self.batch_size, self.max_length, self.seed)
        return f"{type(self).__name__}{settings} {digest.hexdigest()}"

    @property
    def largest_id(self) -> int:
        """The largest id that may occur: it has to be below the model's vocabulary."""
        return self.hiding.vocab_size - 1

    def at(self, position: int) -> tuple[Inputs, dict[str, NDArray[np.int32]], NDArray[np.float32]]:
        """Return the batch at a position.

        Args:
            position: how many batches come before it.

        Returns:
            `Bert`'s inputs, "ids" int32, "mask" bool and "segments" int32, each (B, T); "tokens", what stands there,
            int32 (B, T), and "next_sentence", `FOLLOWS` or `RANDOM`, int32 (B,); and float32 (B, T), 1 on tokens to
            be guessed.
        """
        generator = np.random.default_rng([self.seed, position])
        labels = (np.arange(self.batch_size) + generator.integers(2)) % 2  # FOLLOWS and RANDOM by turns
        firsts = self._firsts_at(position)
        pairs = [self._pair(*first, label, generator) for first, label in zip(firsts, labels, strict=True)]
        ids, mask = _padded([self.hiding.row(*pair) for pair in pairs], self.max_length)
        opening = np.array([len(self.hiding.row(first)) for first, _ in pairs])
        segments = (mask & (np.arange(ids.shape[1]) >= opening[:, None])).astype(np.int32)
        seen, chosen = self.hiding.hide(ids, mask, generator)
        y = {"tokens": ids, "next_sentence": labels.astype(np.int32)}
        return {"ids": seen, "mask": mask, "segments": segments}, y, chosen.astype(np.float32)

    def _firsts_at(self, position: int) -> list[tuple[int, int]]:
        """Return the first sentences of a batch; the last batch of an epoch is filled from its beginning."""
        epoch, step = divmod(position, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self._firsts))
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size) % len(order)
        return [self._firsts[i] for i in order[places]]

    def _pair(
        self, document: int, sentence: int, label: int, generator: np.random.Generator
    ) -> tuple[NDArray, NDArray]:
        """Return two sentences, cut so that they fit into a row together."""
        first = self._documents[document][sentence]
        if label == FOLLOWS:
            second = self._documents[document][sentence + 1]
        else:
            other = (document + 1 + generator.integers(len(self._documents) - 1)) % len(self._documents)
            second = self._documents[other][generator.integers(len(self._documents[other]))]
        # Of two long ones each gets half; what a short one does not need goes to the other.
        kept = min(len(second), max(self._room // 2, self._room - len(first)))
        return first[: self._room - kept], second[:kept]


@dataclasses.dataclass(frozen=True)
class MaskedScores:
    """How well a model guesses hidden tokens, one entry for each.

    Attributes:
        documents: in which document each stood, (N,).
        positions: where in it, (N,).
        right: whether the likeliest token was the true one, (N,).
        nats: the true token's surprisal, (N,).
    """

    documents: NDArray[np.int64]
    positions: NDArray[np.int64]
    right: NDArray[np.bool_]
    nats: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """The share of hidden tokens that were guessed."""
        return float(self.right.mean())

    @property
    def nats_per_token(self) -> float:
        """The mean surprisal of a hidden token."""
        return float(self.nats.mean())


def score_masked(
    model: Bert,
    documents: Sequence[ArrayLike],
    hiding: Hiding,
    *,
    repeats: int = 1,
    seed: int = 0,
) -> MaskedScores:
    """Hide tokens of documents, and see how well the model guesses them.

    All chosen tokens are masked, none is replaced or kept: those are tricks of training.

    Args:
        model: with heads.
        documents: sequences of ids, without start and end, that fit into the model with them.
        hiding: which share is chosen, and the special ids.
        repeats: how often each document is read, each time with others hidden.
        seed: of what is hidden.

    Returns:
        What became of each hidden token. A document of special ids alone has none.

    Raises:
        ValueError: if the model is no `Bert` with heads, or knows fewer ids than `hiding`; if a document is empty, too
            long or has an id that is none; or if no document has a token that can be hidden.
    """
    repeats = check_field("repeats", Size, repeats)
    if not isinstance(model, Bert) or not model.config.heads:
        kind = "one without" if isinstance(model, Bert) else f"a {type(model).__name__}"
        raise ValueError(f"model must be a Bert with heads to guess tokens; got {kind}.")
    if hiding.vocab_size > model.vocab_size:
        raise ValueError(
            f"hiding must have a vocab_size of at most the model's {model.vocab_size}; got {hiding.vocab_size}."
        )
    texts = _texts(documents, hiding, "documents")
    _require_text(texts, hiding)
    room = hiding.room(model.max_length)
    too_long = next((i for i, text in enumerate(texts) if len(text) > room), None)
    if too_long is not None:
        raise ValueError(
            f"documents[{too_long}] must have at most {room} tokens, max_length = {model.max_length} less start and "
            f"end; got {len(texts[too_long])}."
        )
    masked = dataclasses.replace(hiding, masked=1.0, random=0.0)
    order = np.argsort([len(text) for text in texts], kind="stable")
    guess = MaskingGraphs.of(model).guess
    found = []
    for repeat in range(repeats):
        for start in range(0, len(order), SCORED_TOGETHER):
            rows = order[start : start + SCORED_TOGETHER]
            ids, mask = _padded([hiding.row(texts[i]) for i in rows], model.max_length)
            seen, chosen = masked.hide(ids, mask, np.random.default_rng([seed, repeat, start]))
            best, nats = (result.numpy() for result in guess(seen, mask, ids))
            row, position = np.nonzero(chosen)
            shift = 0 if hiding.start_id is None else 1
            found.append((rows[row], position - shift, (best == ids)[chosen], nats[chosen]))
    parts = [np.concatenate(part) for part in zip(*found, strict=True)]
    return MaskedScores(parts[0], parts[1], parts[2], parts[3].astype(np.float64))


def masked_accuracy(
    model: Bert, documents: Sequence[ArrayLike], hiding: Hiding, *, repeats: int = 1, seed: int = 0
) -> float:
    """Return the share of hidden tokens that the model guesses.

    Args:
        model: with heads.
        documents: as for `score_masked`.
        hiding: which share is chosen, and the special ids.
        repeats: how often each document is read.
        seed: of what is hidden.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: as `score_masked`.
    """
    return score_masked(model, documents, hiding, repeats=repeats, seed=seed).accuracy


class MaskingGraphs(ModelGraphs):
    """What `score_masked` computes of a model, compiled once for rows of any number and length.

    Args:
        model: with heads.

    Attributes:
        guess: from what is seen, int32 (B, T), its mask, bool (B, T), and what truly stands there, int32 (B, T), to the
            likeliest ids, int32 (B, T), and the true tokens' surprisals in nats, float32 (B, T).
    """

    def __init__(self, model: Bert):
        super().__init__(model)
        ids = tf.TensorSpec((None, None), tf.int32)

        def guess(seen: tf.Tensor, mask: tf.Tensor, truth: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            scores = model({"ids": seen, "mask": mask}, training=False)
            logits = tf.cast(scores["tokens"], tf.float32)  # (B, T, V)
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits)
            return tf.argmax(logits, axis=-1, output_type=tf.int32), nats  # (B, T) each

        signature = [ids, tf.TensorSpec((None, None), tf.bool), ids]
        self.guess: Callable = tf.function(guess, input_signature=signature, autograph=False)


def _whole_rows(documents: Sequence[ArrayLike], hiding: Hiding, max_length: int | None) -> list[NDArray]:
    """Return the documents, cut where they are too long, with start and end."""
    max_length = check_field("max_length", Size | None, max_length)
    texts = _texts(documents, hiding, "documents")
    _require_text(texts, hiding)
    rows = []
    for text in texts:
        room = len(text) if max_length is None else hiding.room(max_length)
        rows += [hiding.row(text[start : start + room]) for start in range(0, len(text), room)]
    return rows


def _texts(texts: Sequence[ArrayLike], hiding: Hiding, name: str) -> list[NDArray[np.int64]]:
    """Return texts as arrays, or say what is wrong with them."""
    arrays = document_ids(texts, hiding.vocab_size, name)
    if not arrays:
        raise ValueError(f"{name} must hold at least one text; got none.")
    empty = next((i for i, array in enumerate(arrays) if not array.size), None)
    if empty is not None:
        raise ValueError(f"{name}[{empty}] must hold at least one token; got none.")
    return arrays


def _require_text(texts: Sequence[NDArray], hiding: Hiding) -> None:
    """Raise if there is nothing to guess: a mean over no token would be no number."""
    if not any(np.isin(text, hiding.ordinary).any() for text in texts):
        raise ValueError("documents must hold a token that can be hidden; got special ids only.")


def _padded(rows: Sequence[NDArray], limit: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return `pad_rows` of the rows, the width rounded up so that few shapes occur, but not beyond the limit."""
    ids, mask = pad_rows(rows)
    width = min(-(-ids.shape[1] // WIDTH_STEP) * WIDTH_STEP, limit)
    more = ((0, 0), (0, width - ids.shape[1]))
    return np.pad(ids, more).astype(np.int32), np.pad(mask, more)
