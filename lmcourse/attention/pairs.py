"""Pairs of a source and a target for training: laid out in batches, and scored by length.

Letters for shapes: `B` rows, `S` source length, `T` target length.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids, pad_rows
from lmcourse.training import Batches

# Widths are rounded up to a multiple of this: few different shapes, little padding.
WIDTH_STEP = 8

# Pairs among which those of similar length are put together, in batches: enough that rows of a batch fit each other,
# few enough that a batch is still a random one.
BATCHES_SORTED_TOGETHER = 20

# Most tokens of a translation that is scored: more than the passages and sentences of the course have.
MOST_TOKENS = 128

PairInputs = dict[str, NDArray]


class PairBatches(Batches):
    """Endless batches of (source, target) pairs; in each, the decoder reads the target one token behind.

    Args:
        pairs: (source ids, target ids); let each end with its end token.
        batch_size: B. The last batch of an epoch is left out if it is not full.
        start_id: the id that the decoder reads before the first target token.
        seed: of the order.
        max_length: the most tokens that the model reads, if there is a limit: widths, which are rounded up, stay
            within it.

    Raises:
        ValueError: if there are fewer pairs than batch_size, a text is empty, longer than max_length or no sequence of
            ids, or batch_size is below 1.

    Example:
        >>> inputs, y, weight = next(PairBatches([([5, 6, 0], [7, 0])], batch_size=1))
        >>> inputs["source"].tolist(), inputs["source_mask"].sum(axis=1).tolist()
        ([[5, 6, 0, 0, 0, 0, 0, 0]], [3])
        >>> inputs["target"][:, :3].tolist(), y[:, :3].tolist(), weight[:, :3].tolist()
        ([[0, 7, 0]], [[7, 0, 0]], [[1.0, 1.0, 0.0]])
    """

    def __init__(
        self,
        pairs: Sequence[tuple[ArrayLike, ArrayLike]],
        batch_size: int,
        *,
        start_id: int = 0,
        seed: int = 0,
        max_length: int | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        if len(pairs) < batch_size:
            raise ValueError(f"pairs must hold at least batch_size = {batch_size} of them; got {len(pairs)}.")
        self._sources, self._targets = checked_pairs(pairs)
        self.batch_size, self.start_id, self.seed = batch_size, start_id, seed
        self.max_length = max_length
        self._check_lengths()
        self._order: tuple[int, NDArray] = (-1, np.empty(0))

    @property
    def steps_per_epoch(self) -> int:
        """How many batches it takes to see the pairs once."""
        return len(self._sources) // self.batch_size

    @property
    def identity(self) -> str:
        """The pairs' hash and everything that decides their order."""
        digest = hashlib.sha256()
        for text in (*self._sources, *self._targets):
            digest.update(len(text).to_bytes(8, "little") + text.astype("<i8").tobytes())
        limit = () if self.max_length is None else (self.max_length,)
        settings = (self.batch_size, self.start_id, self.seed, *limit)
        return f"{type(self).__name__}{settings} {digest.hexdigest()}"

    def at(self, position: int) -> tuple[PairInputs, NDArray[np.int32], NDArray[np.float32]]:
        """Return the batch at a position.

        Returns:
            A `TranslationModel`'s inputs, a dict of "source" int32 (B, S), "source_mask" bool (B, S) and "target" int32
            (B, T); what is to be predicted, int32 (B, T); and float32 (B, T), 1 on tokens.
        """
        epoch, step = divmod(position, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._order_of(epoch))
        chosen = self._order[1][step]
        sources, targets = ([texts[i] for i in chosen] for texts in (self._sources, self._targets))
        return laid_out(sources, targets, self.start_id, self.max_length)

    def _check_lengths(self) -> None:
        if self.max_length is None:
            return
        for name, texts in (("source", self._sources), ("target", self._targets)):
            for index, text in enumerate(texts):
                if len(text) > self.max_length:
                    raise ValueError(
                        f"pairs[{index}] must have at most max_length = {self.max_length} {name} tokens; "
                        f"got {len(text)}."
                    )

    def _order_of(self, epoch: int) -> NDArray:
        """Return the indices of each batch's pairs, (steps, B)."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self._sources))
        lengths = np.array([len(source) for source in self._sources])
        together = self.batch_size * BATCHES_SORTED_TOGETHER
        parts = [order[start : start + together] for start in range(0, len(order), together)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        used = self.steps_per_epoch * self.batch_size
        return generator.permutation(order[:used].reshape(-1, self.batch_size))


def laid_out(
    sources: Sequence[NDArray], targets: Sequence[NDArray], start_id: int, max_length: int | None = None
) -> tuple[PairInputs, NDArray[np.int32], NDArray[np.float32]]:
    """Return pairs as a batch: inputs, what is to be predicted, and its weights; see `PairBatches.at`."""
    source, source_mask = padded(sources, max_length)
    y, real = padded(targets, max_length)
    target = np.concatenate([np.full((len(y), 1), start_id, dtype=np.int32), y[:, :-1]], axis=1)
    return {"source": source, "source_mask": source_mask, "target": target}, y, real.astype(np.float32)


def padded(
    texts: Sequence[ArrayLike], max_length: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return `pad_rows` of the texts, the width rounded up so that few shapes occur, but not beyond max_length."""
    ids, mask = pad_rows(texts)
    width = ids.shape[1] + -ids.shape[1] % WIDTH_STEP
    if max_length is not None:
        width = max(ids.shape[1], min(width, max_length))
    more = ((0, 0), (0, width - ids.shape[1]))
    return np.pad(ids, more).astype(np.int32), np.pad(mask, more)


def checked_pairs(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Return the sources and the targets as arrays, or say what is wrong with them."""
    sources = document_ids([source for source, _ in pairs], name="sources")
    targets = document_ids([target for _, target in pairs], name="targets")
    for name, texts in (("source", sources), ("target", targets)):
        empty = next((i for i, text in enumerate(texts) if not text.size), None)
        if empty is not None:
            raise ValueError(f"pairs[{empty}] must have at least one {name} token; got none.")
    return sources, targets


@dataclasses.dataclass(frozen=True)
class TranslationScores:
    """How well a model translates pairs, pair by pair.

    Attributes:
        exact: whether the greedy translation is one of the right ones, (N,).
        right_tokens: how many target tokens were predicted right, given the right ones before them, (N,).
        tokens: how many target tokens there are, (N,).
        nats: the surprisal of the target, -ln P(target | source), (N,).
        source_lengths: how many source tokens there are, (N,).
    """

    exact: NDArray[np.bool_]
    right_tokens: NDArray[np.int64]
    tokens: NDArray[np.int64]
    nats: NDArray[np.float64]
    source_lengths: NDArray[np.int64]

    @property
    def exact_match(self) -> float:
        """The share of sources whose greedy translation is right, whole."""
        return float(self.exact.mean())

    @property
    def token_accuracy(self) -> float:
        """The share of target tokens predicted right, given the source and the right tokens before."""
        return float(self.right_tokens.sum() / self.tokens.sum())

    @property
    def nats_per_token(self) -> float:
        """The mean surprisal of a target token."""
        return float(self.nats.sum() / self.tokens.sum())

    def where(self, chosen: ArrayLike) -> "TranslationScores":
        """Return the scores of some of the pairs, given a bool array, (N,)."""
        kept = np.asarray(chosen, dtype=bool)
        if kept.shape != self.exact.shape or not kept.any():
            raise ValueError(
                f"chosen must be a bool array of shape {self.exact.shape} with a True; got {kept.shape}."
            )
        return TranslationScores(**{f.name: getattr(self, f.name)[kept] for f in dataclasses.fields(self)})

    def by_length(self, edges: Sequence[int]) -> dict[str, "TranslationScores"]:
        """Return the scores of the sources of up to `edges[0]` tokens, of up to `edges[1]`, …, and of the longer ones.

        Ranges without a source are left out.
        """
        parts, low = {}, 0
        for high in (*edges, int(self.source_lengths.max()) + 1):
            chosen = (self.source_lengths > low) & (self.source_lengths <= high)
            if chosen.any():
                name = f"{low + 1}–{high}" if high in edges else f"{low + 1} and more"
                parts[name] = self.where(chosen)
            low = high
        return parts


def score_translations(
    model: Any,
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    accepted: Sequence[Collection[tuple[int, ...]]] | None = None,
    max_length: int | None = None,
) -> TranslationScores:
    """Translate the sources greedily and compare.

    Args:
        model: a `TranslationModel`.
        pairs: (source ids, target ids).
        accepted: for each pair the right translations, tuples of ids; by default its target alone.
        max_length: the most tokens of a translation; by default 128, or as many as the model can write if that is
            fewer.

    Raises:
        ValueError: if there is no pair, or accepted has another length.
    """
    sources, targets = checked_pairs(pairs)
    if not sources:
        raise ValueError("pairs must hold at least one; got none.")
    accepted = [{tuple(target.tolist())} for target in targets] if accepted is None else accepted
    if len(accepted) != len(pairs):
        raise ValueError(
            f"accepted must have an entry for each of the {len(pairs)} pairs; got {len(accepted)}."
        )
    written = model.translate(sources, model.most_tokens(MOST_TOKENS) if max_length is None else max_length)
    likeliest, log_probs = model.predictions(list(zip(sources, targets, strict=True)))
    return TranslationScores(
        np.array([tuple(ids) in right for ids, right in zip(written, accepted, strict=True)]),
        np.array([(best == target).sum() for best, target in zip(likeliest, targets, strict=True)]),
        np.array([len(target) for target in targets]),
        np.array([-scores.sum() for scores in log_probs]),
        np.array([len(source) for source in sources]),
    )
