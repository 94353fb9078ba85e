"""What every translator does, whatever it is made of: training, translation, scoring, and P(target | source).

Letters for shapes: `B` rows, `S` source length, `T` target length, `V` target vocabulary.
"""

import abc
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lmcourse.attention.pairs import checked_pairs, laid_out, padded
from lmcourse.core import LanguageModel, check_ids, document_ids
from lmcourse.training import ModelGraphs, NextTokenModel, check_known_ids

# Sources translated at once: a step of the decoder takes little longer for them than for one.
TRANSLATED_TOGETHER = 256

# Most tokens that a translation has where nobody says how many.
DEFAULT_LENGTH = 64

# A compiled function whose Python branches never ask a tensor, so that its code need not be rewritten before it is
# traced, which would take as long as the tracing.
compiled = functools.partial(tf.function, autograph=False)


class TranslationGraphs(ModelGraphs):
    """What a model's generation and scoring compile to: one trace each, for any number of rows of any length."""

    def __init__(self, model: "TranslationModel"):
        super().__init__(model)
        ids, mask = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.bool)
        self._model = model
        self.translate = compiled(self._translate, [ids, mask, tf.TensorSpec((), tf.int32)])
        self.align = compiled(self._align, [ids, mask, ids])
        self.score = compiled(self._score, [ids, mask, ids, ids])
        self.predict = compiled(self._predict, [ids, mask, ids, ids])
        self.follow = compiled(self._follow, [ids, mask, ids, tf.TensorSpec((None,), tf.int32)])

    def _translate(self, source: tf.Tensor, source_mask: tf.Tensor, max_length: tf.Tensor) -> tf.Tensor:
        """Return the ids written, (B, T); behind a row's end token there are only end tokens."""
        model = self._model
        memory, states = model.encode(source, source_mask, training=False)
        states = model.begin(memory, states, max_length)
        rows = tf.shape(source)[0]

        def write(index, ids, done, states, written):
            logits, states, _ = model.step(ids, memory, states)
            ids = tf.where(done, model.end_id, tf.argmax(logits, axis=-1, output_type=tf.int32))
            return index + 1, ids, done | (ids == model.end_id), states, written.write(index, ids)

        *_, written = tf.while_loop(
            lambda index, ids, done, states, written: (index < max_length) & ~tf.reduce_all(done),
            write,
            (
                0,
                tf.fill((rows,), model.start_id),
                tf.fill((rows,), False),
                states,
                tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=(None,)),
            ),
        )
        return tf.transpose(written.stack())

    def _align(self, source: tf.Tensor, source_mask: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        memory, states = self._model.encode(source, source_mask, training=False)
        return self._model.look(target, memory, states)

    def _score(self, source: tf.Tensor, source_mask: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        logits = self._logits(source, source_mask, x)
        return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)  # (B, T)

    def _predict(
        self, source: tf.Tensor, source_mask: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the likeliest tokens, (B, T), and ln P of those in y, (B, T), each row with a source of its own."""
        inputs = {"source": source, "source_mask": source_mask, "target": x}
        logits = tf.cast(self._model(inputs, training=False), tf.float32)
        log_probs = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        return tf.argmax(logits, axis=-1, output_type=tf.int32), log_probs

    def _follow(self, source: tf.Tensor, source_mask: tf.Tensor, x: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        logits = self._logits(source, source_mask, x)
        return tf.nn.log_softmax(tf.gather(logits, last, batch_dims=1))  # (B, V)

    def _logits(self, source: tf.Tensor, source_mask: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return the logits of several targets of one source, which is encoded once."""
        memory, states = repeated(self._model.encode(source, source_mask, training=False), tf.shape(x)[0])
        return tf.cast(self._model.decode(x, memory, states, training=False), tf.float32)  # (B, T, V)


class TranslationModel(NextTokenModel, abc.ABC):
    """A model of a target given a source, written token by token.

    A subclass defines `encode`, `decode`, `step` and `look`, and sets the attributes below. Whatever it knows of the
    source is in two structures of tensors with the row as their first axis: a *memory*, which stays as it is while the
    target is written, and *states*, which change with each token.

    A call takes a dict: "source" int (B, S), "source_mask" bool (B, S), "target" int (B, T), the target one token
    behind with `start_id` in front. It returns logits (B, T, V) of the tokens that follow. `PairBatches` has this form.

    Attributes:
        source_vocab: how many ids a source has.
        target_vocab: V.
        start_id: what is read before the first target token.
        end_id: what ends a target.
        max_length: the most tokens of a source or a target, or None if there is no limit.
    """

    graphs_class: ClassVar[type[TranslationGraphs]] = TranslationGraphs

    source_vocab: int
    target_vocab: int
    start_id: int = 0
    end_id: int = 0
    max_length: int | None = None

    @abc.abstractmethod
    def encode(self, source: Any, source_mask: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Read the source.

        Args:
            source: int (B, S).
            source_mask: bool (B, S), False on padding.
            training: whether to drop.

        Returns:
            The memory, and the states before the first target token.
        """

    @abc.abstractmethod
    def decode(self, target: Any, memory: Any, states: Any, training: bool | None = None) -> Any:
        """Read a whole target, int (B, T), and return the logits, (B, T, V), of the tokens that follow."""

    @abc.abstractmethod
    def step(self, ids: Any, memory: Any, states: Any) -> tuple[Any, Any, Any | None]:
        """Write one token: what generation repeats.

        Args:
            ids: the token written before, int (B,).
            memory: from `encode`.
            states: from `begin`, or from the step before.

        Returns:
            The next token's logits (B, V), the states after, and the weights over the source (B, S), or None.
        """

    @abc.abstractmethod
    def look(self, target: Any, memory: Any, states: Any) -> Any:
        """Return how much of each look that follows a token of a whole target falls on each source token, (B, T, S)."""

    def begin(self, memory: Any, states: Any, steps: Any) -> Any:
        """Return the states of the first step, with room for so many steps; where they do not grow they stay as is."""
        return states

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Return the logits of the target's tokens; see the class."""
        self._check_inputs(inputs)
        memory, states = self.encode(inputs["source"], inputs["source_mask"], training=training)
        return self.decode(inputs["target"], memory, states, training=training)  # (B, T, V)

    def translate(self, sources: Sequence[ArrayLike], max_length: int | None = None) -> list[list[int]]:
        """Translate greedily: the likeliest token at each step, in one compiled loop for all rows.

        Args:
            sources: sequences of source ids, each as in training (with the end token, if there was one).
            max_length: the most tokens of a translation, its end token included; by default 64, or as many as the
                model can write if that is fewer.

        Returns:
            For each source the ids of its translation, up to and including `end_id` if it was reached.

        Raises:
            ValueError: if a source is empty, too long, or has an id that is none, or max_length is below 1 or more
                than the model can write.
        """
        max_length = self.most_tokens(DEFAULT_LENGTH) if max_length is None else max_length
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1; got {max_length}.")
        self._check_length(max_length, "max_length must be at most the model's max_length = {}")
        sources = self._checked_sources(sources)
        translations: list[list[int]] = [[] for _ in sources]
        for rows in _rows_by_length(sources):
            batch = padded([sources[i] for i in rows], self.max_length)
            written = self._graphs.translate(*batch, max_length).numpy()
            for row, ids in zip(rows, written, strict=True):
                ends = np.flatnonzero(ids == self.end_id)
                translations[row] = ids[: ends[0] + 1 if len(ends) else None].tolist()
        return translations

    def most_tokens(self, wanted: int) -> int:
        """Return how many tokens the model can write, up to as many as are wanted."""
        return wanted if self.max_length is None else min(wanted, self.max_length)

    def alignments(self, source: ArrayLike, target: ArrayLike) -> NDArray[np.float32]:
        """Return where the decoder looks while it writes a given target.

        Args:
            source: source ids, (S,).
            target: target ids, (T,).

        Returns:
            (T, S): row t holds the weights over the source for the look that predicts target[t]; each sums to one.

        Raises:
            ValueError: if the model has no attention, an id is none, or a text is too long.
        """
        (source,) = self._checked_sources([source])
        ids, _ = check_ids([target], self.target_vocab, name="target")
        if not ids.size:
            raise ValueError("target must hold at least one token; got none.")
        self._check_length(ids.shape[1], "target must have at most max_length = {} tokens")
        inputs = np.concatenate([[[self.start_id]], ids[:, :-1]], axis=1)
        batch = padded([source], self.max_length)
        return self._graphs.align(*batch, inputs.astype(np.int32)).numpy()[0, :, : len(source)]

    def predictions(
        self, pairs: Sequence[tuple[ArrayLike, ArrayLike]]
    ) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float64]]]:
        """Predict each target token from the source and the target's own tokens before it.

        Args:
            pairs: (source ids, target ids).

        Returns:
            For each pair the likeliest token at each position of the target, (T,), and ln P of the token that stands
            there, (T,), in nats.

        Raises:
            ValueError: if a text is empty, too long, or has an id that is none.
        """
        checked_pairs(pairs)
        sources = self._checked_sources([source for source, _ in pairs])
        targets = document_ids([target for _, target in pairs], self.target_vocab, "targets")
        for index, target in enumerate(targets):
            self._check_length(len(target), f"targets[{index}] must have at most max_length = {{}} tokens")
        likeliest: list[NDArray] = [np.empty(0)] * len(pairs)
        log_probs: list[NDArray] = [np.empty(0)] * len(pairs)
        for rows in _rows_by_length(sources):
            inputs, y, _ = laid_out(
                [sources[i] for i in rows], [targets[i] for i in rows], self.start_id, self.max_length
            )
            best, scores = self._graphs.predict(*inputs.values(), y)
            for row, ids, nats in zip(rows, best.numpy(), scores.numpy(), strict=True):
                likeliest[row] = ids[: len(targets[row])]
                log_probs[row] = nats[: len(targets[row])].astype(np.float64)
        return likeliest, log_probs

    def given(self, source: ArrayLike) -> "GivenSource":
        """Return the language model of this source's translations: P(target token | source, target so far).

        Args:
            source: source ids, (S,).

        Raises:
            ValueError: if source is empty, too long, or has an id that is none.
        """
        return GivenSource(self, self._checked_sources([source])[0])

    @property
    def _graphs(self) -> TranslationGraphs:
        """The compiled loops of the model as it is now."""
        return self.graphs_class.of(self)

    def _checked_sources(self, sources: Sequence[ArrayLike]) -> list[NDArray[np.int64]]:
        sources = document_ids(sources, self.source_vocab, "sources")
        for index, source in enumerate(sources):
            if not source.size:
                raise ValueError(f"sources[{index}] must hold at least one token; got none.")
            self._check_length(len(source), f"sources[{index}] must have at most max_length = {{}} tokens")
        return sources

    def _check_length(self, length: int | None, rule: str) -> None:
        """Raise if this is more than the model can read; in a graph a length may be unknown."""
        if None not in (length, self.max_length) and length > self.max_length:
            raise ValueError(f"{rule.format(self.max_length)}; got {length}.")

    def _check_inputs(self, inputs: dict[str, Any]) -> None:
        wanted = {"source": "(B, S)", "source_mask": "(B, S)", "target": "(B, T)"}
        if not isinstance(inputs, dict) or set(inputs) != set(wanted):
            got = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(f"inputs must be a dict with {', '.join(wanted)}; got {got}.")
        for name, letters in wanted.items():
            shape = tuple(inputs[name].shape)
            if len(shape) != 2 or 0 in shape:
                raise ValueError(f"{name} must have shape {letters}, neither of them zero; got {shape}.")
            self._check_length(shape[1], f"{name} must have at most max_length = {{}} tokens a row")
        _check_same_rows(*(tuple(inputs[name].shape) for name in wanted))
        for name, vocab_size in (("source", self.source_vocab), ("target", self.target_vocab)):
            check_known_ids(inputs[name], vocab_size, name)


class GivenSource(LanguageModel):
    """The distribution over the translations of one source; made by `TranslationModel.given`.

    Attributes:
        model: the translator.
        source: its source's ids.
    """

    def __init__(self, model: TranslationModel, source: NDArray[np.int64]):
        self.model = model
        self.source = source
        self.vocab_size = model.target_vocab
        self._padded_source = padded([source], model.max_length)

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token of each row; see `LanguageModel.token_log_probs`."""
        ids, mask = check_ids(ids, self.vocab_size, mask)
        self.model._check_length(ids.shape[1], "ids must have at most max_length = {} tokens a row")
        if not ids.size:
            return np.zeros(ids.shape)
        rows, _ = padded(ids, self.model.max_length)
        inputs = np.concatenate([np.full((len(rows), 1), self.model.start_id), rows[:, :-1]], axis=1)
        log_probs = self.model._graphs.score(*self._padded_source, inputs.astype(np.int32), rows).numpy()
        return np.where(mask, log_probs[:, : ids.shape[1]], 0.0).astype(np.float64)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution of the token after each prefix; see `LanguageModel.next_log_probs`."""
        rows = self._started(prefixes)
        if not rows:
            return np.zeros((0, self.vocab_size))
        inputs, _ = padded(rows, self.model.max_length)
        last = np.array([len(row) - 1 for row in rows], dtype=np.int32)
        return self.model._graphs.follow(*self._padded_source, inputs, last).numpy().astype(np.float64)

    def _started(self, prefixes: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
        """Return the prefixes with the start id in front: what the decoder reads."""
        rows = document_ids(prefixes, self.vocab_size, "prefixes")
        longest = max((len(row) for row in rows), default=0)
        self.model._check_length(
            longest + 1, "prefixes must have, with start_id, at most max_length = {} tokens"
        )
        return [np.concatenate([[self.model.start_id], row]) for row in rows]


def repeated(tensors: Any, rows: Any) -> Any:
    """Return a structure of tensors of one row with that row so many times: several targets of one source."""
    return tf.nest.map_structure(lambda tensor: tf.repeat(tensor, rows, axis=0), tensors)


def _rows_by_length(sources: Sequence[NDArray]) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of sources to be read together: by length, so that little is padding."""
    order = np.argsort([len(source) for source in sources], kind="stable")
    for start in range(0, len(order), TRANSLATED_TOGETHER):
        yield order[start : start + TRANSLATED_TOGETHER]


def _check_same_rows(source: tuple, source_mask: tuple, target: tuple) -> None:
    """Refuse shapes that do not fit each other; in a graph a part of them may be unknown."""
    if any(None not in sizes and sizes[0] != sizes[1] for sizes in zip(source, source_mask, strict=True)):
        raise ValueError(f"source_mask must have the shape of source, {source}; got {source_mask}.")
    if None not in (source[0], target[0]) and source[0] != target[0]:
        raise ValueError(f"target must have as many rows as source, {source[0]}; got {target[0]}.")
