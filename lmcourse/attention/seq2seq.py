"""Translation by two LSTMs: one reads the source, one writes the target, with attention between them or without.

Letters for shapes: `B` rows, `S` source length, `T` target length, `D` embedding width, `U` units, `V` target
vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.attention.pairs import checked_pairs, laid_out, padded
from lmcourse.attention.scores import AdditiveScore, MultiplicativeScore, masked_softmax
from lmcourse.core import LanguageModel, check_ids, document_ids
from lmcourse.recurrent import LSTM
from lmcourse.training import next_token_loss

Attention = Literal["none", "bahdanau", "luong"]

# Sources translated at once: a step of the decoder takes little longer for them than for one.
TRANSLATED_TOGETHER = 256


class Memory(NamedTuple):
    """What the decoder may look at.

    Attributes:
        annotations: what is known of each source position, (B, S, U + D): the encoder's output there, in which the
            tokens before have their part, beside the embedding of the token itself.
        keys: what of the scores does not depend on the query, (B, S, U); without attention nobody asks for it.
        mask: True on source tokens, (B, 1, S).
    """

    annotations: Any
    keys: Any
    mask: Any


@keras.saving.register_keras_serializable(package="lmcourse")
class Seq2Seq(keras.Model):
    """An LSTM encoder and an LSTM decoder.

    Without attention the decoder knows of the source only the encoder's last state (Sutskever). Bahdanau's decoder
    looks at the source before each step, with the state it has, and what it sees goes into the step. Luong's looks
    after the step, so that all steps of training are made first and all looks at once. In both a linear layer joins
    what was seen with the decoder's state before the output.

    A call takes a dict: "source" int (B, S), "source_mask" bool (B, S), "target" int (B, T), the target one token
    behind with `start_id` in front. It returns logits (B, T, V) of the tokens that follow. `PairBatches` has this form.

    Args:
        source_vocab: how many ids a source has.
        target_vocab: V.
        attention: "none", "bahdanau" (additive) or "luong" (general).
        units: U, of each LSTM.
        embedding_dim: D, of source and target.
        dropout: the share of embeddings' and outputs' numbers that is dropped in training.
        start_id: what the decoder reads first.
        end_id: what ends a target.

    Raises:
        ValueError: if a size is below 1, attention is unknown, or an id is not in the target's vocabulary.

    Example:
        >>> model = Seq2Seq(10, 12, attention="luong", units=8, embedding_dim=4)
        >>> [len(ids) <= 5 for ids in model.translate([[3, 4, 0], [5, 0]], max_length=5)]
        [True, True]
        >>> weights = model.alignments([3, 4, 0], [7, 0])
        >>> weights.shape, bool(np.allclose(weights.sum(axis=1), 1))
        ((2, 3), True)

    Reference: Sutskever, Vinyals and Le 2014, arXiv:1409.3215; Bahdanau, Cho and Bengio 2015, arXiv:1409.0473; Luong,
    Pham and Manning 2015, arXiv:1508.04025, section 3.1 (global attention, without input feeding).
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        *,
        attention: Attention = "bahdanau",
        units: int = 128,
        embedding_dim: int = 64,
        dropout: float = 0.0,
        start_id: int = 0,
        end_id: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.source_vocab, self.target_vocab = source_vocab, target_vocab
        self.attention, self.units, self.embedding_dim = attention, units, embedding_dim
        self.dropout, self.start_id, self.end_id = dropout, start_id, end_id
        self._check_arguments()
        # Keras's own start, within 0.05 of zero, would let a word vanish in the mean of a whole source, which is what
        # attention gives before it has learned where to look.
        spread = keras.initializers.RandomNormal
        self.source_embedding = keras.layers.Embedding(source_vocab, embedding_dim, spread(stddev=1.0))
        self.target_embedding = keras.layers.Embedding(target_vocab, embedding_dim, spread(stddev=1.0))
        self.encoder = LSTM(units, return_state=True)
        self.decoder = LSTM(units)
        self.score = {"none": None, "bahdanau": AdditiveScore(units), "luong": MultiplicativeScore()}[
            attention
        ]
        # Luong ends this layer in a tanh; without it a source word reaches the output undistorted.
        self.combine = keras.layers.Dense(units) if self.score else None
        self.output_dense = keras.layers.Dense(target_vocab)
        self.drop = keras.layers.Dropout(dropout)

    def build(self, input_shape: Any = None) -> None:
        """Make all weights; they do not depend on the lengths."""
        width = self.units + self.embedding_dim
        embedded, outputs = (None, None, self.embedding_dim), (None, None, self.units)
        self.source_embedding.build((None, None))
        self.target_embedding.build((None, None))
        self.encoder.build(embedded)
        seen = width if self.attention == "bahdanau" else 0
        self.decoder.build((None, None, self.embedding_dim + seen))
        if self.score is not None:
            self.score.build(outputs, (None, None, width))
            self.combine.build((None, None, self.units + width))
        self.output_dense.build(outputs)
        self.built = True

    def compile(self, optimizer: Any = "adam", loss: Any = None, **options: Any) -> None:
        """Prepare for training; the default loss is the cross-entropy of the next target token, in nats."""
        super().compile(optimizer=optimizer, loss=next_token_loss() if loss is None else loss, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as it was when it was saved; Keras asks for this method where `compile` has its own defaults."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Return the logits of the target's tokens; see the class."""
        _check_inputs(inputs)
        memory, states = self.encode(inputs["source"], inputs["source_mask"], training=training)
        readout, _ = self._decode(inputs["target"], memory, states, training)
        return self.output_dense(readout)  # (B, T, V)

    def encode(
        self, source: Any, source_mask: Any, training: bool | None = None
    ) -> tuple[Memory, tuple[Any, ...]]:
        """Read the source.

        Args:
            source: int (B, S).
            source_mask: bool (B, S), False on padding.
            training: whether to drop.

        Returns:
            What the decoder may look at, and the states it starts from, each (B, U).
        """
        embedded = self.drop(self.source_embedding(source), training=training)  # (B, S, D)
        outputs, *states = self.encoder(embedded, mask=source_mask)
        annotations = ops.concatenate([outputs, embedded], axis=-1)  # (B, S, U + D)
        keys = annotations if self.score is None else self.score.project_keys(annotations)
        return Memory(annotations, keys, source_mask[:, None, :]), tuple(states)

    def step(
        self, ids: Any, memory: Memory, states: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...], Any | None]:
        """Write one token: what generation repeats.

        Args:
            ids: the token written before, int (B,).
            memory: from `encode`.
            states: the decoder's, each (B, U).

        Returns:
            The next token's logits (B, V), the states after, and the weights over the source (B, S), None without
            attention.
        """
        readout, states, weights = self._advance(self.target_embedding(ids), memory, states)
        return self.output_dense(readout), states, weights

    def translate(self, sources: Sequence[ArrayLike], max_length: int = 64) -> list[list[int]]:
        """Translate greedily: the likeliest token at each step, in one compiled loop for all rows.

        Args:
            sources: sequences of source ids, each as in training (with the end token, if there was one).
            max_length: the most tokens of a translation, its end token included.

        Returns:
            For each source the ids of its translation, up to and including `end_id` if it was reached.

        Raises:
            ValueError: if a source is empty or has an id that is none, or max_length is below 1.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1; got {max_length}.")
        sources = self._checked_sources(sources)
        translations: list[list[int]] = [[] for _ in sources]
        for rows in _rows_by_length(sources):
            written = self._graphs.translate(*padded([sources[i] for i in rows]), max_length).numpy()
            for row, ids in zip(rows, written, strict=True):
                ends = np.flatnonzero(ids == self.end_id)
                translations[row] = ids[: ends[0] + 1 if len(ends) else None].tolist()
        return translations

    def alignments(self, source: ArrayLike, target: ArrayLike) -> NDArray[np.float32]:
        """Return where the decoder looks while it writes a given target.

        Args:
            source: source ids, (S,).
            target: target ids, (T,).

        Returns:
            (T, S): row t holds the weights over the source for the look that predicts target[t]; each sums to one.

        Raises:
            ValueError: if the model has no attention, or an id is none.
        """
        if self.score is None:
            raise ValueError("attention must be 'bahdanau' or 'luong' for alignments; this model has 'none'.")
        (source,) = self._checked_sources([source])
        ids, _ = check_ids([target], self.target_vocab)
        inputs = np.concatenate([[[self.start_id]], ids[:, :-1]], axis=1)
        return self._graphs.align(*padded([source]), inputs.astype(np.int32)).numpy()[0, :, : len(source)]

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
            ValueError: if a text is empty or has an id that is none.
        """
        checked_pairs(pairs)
        sources = self._checked_sources([source for source, _ in pairs])
        targets = document_ids([target for _, target in pairs], self.target_vocab, "targets")
        likeliest: list[NDArray] = [np.empty(0)] * len(pairs)
        log_probs: list[NDArray] = [np.empty(0)] * len(pairs)
        for rows in _rows_by_length(sources):
            inputs, y, _ = laid_out([sources[i] for i in rows], [targets[i] for i in rows], self.start_id)
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
            ValueError: if source is empty or has an id that is none.
        """
        return GivenSource(self, self._checked_sources([source])[0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("source_vocab", "target_vocab", "attention", "units", "embedding_dim")
        others = ("dropout", "start_id", "end_id")
        return {**super().get_config(), **{name: getattr(self, name) for name in (*names, *others)}}

    def _decode(
        self, target: Any, memory: Memory, states: tuple[Any, ...], training: bool | None
    ) -> tuple[Any, Any | None]:
        """Return what the logits are read from, (B, T, U), and the weights, (B, T, S), of a whole target."""
        embedded = self.drop(self.target_embedding(target), training=training)  # (B, T, D)
        if self.attention == "bahdanau":
            readout, weights = self._decode_in_steps(embedded, memory, states)
        else:
            outputs = self.decoder(embedded, initial_state=states)  # (B, T, U)
            readout, weights = self._look_after(outputs, memory)
        return self.drop(readout, training=training), weights

    def _decode_in_steps(self, embedded: Any, memory: Memory, states: tuple[Any, ...]) -> tuple[Any, Any]:
        """Where each step needs what the look before it saw, the steps are made one by one."""

        def carry_on(before: tuple[Any, ...], one: Any) -> tuple[Any, Any]:
            _, context, after, weights = self._look_then_advance(one, memory, before[:2])
            return (*after, context, weights), (*after, context, weights)

        # TensorFlow's scan wants every step's results in the form of what it carries along.
        nothing_seen = ops.zeros_like(memory.annotations[:, 0]), ops.zeros_like(memory.annotations[:, :, 0])
        _, seen = ops.scan(carry_on, (*states, *nothing_seen), ops.swapaxes(embedded, 0, 1))
        outputs, _, contexts, weights = (ops.swapaxes(steps, 0, 1) for steps in seen)
        return self.combine(ops.concatenate([contexts, outputs], axis=-1)), weights

    def _advance(
        self, embedded: Any, memory: Memory, states: tuple[Any, ...]
    ) -> tuple[Any, tuple[Any, ...], Any | None]:
        """Make one step from an embedded token, (B, D); return the readout (B, U), states and weights (B, S)."""
        if self.attention == "bahdanau":
            output, context, states, weights = self._look_then_advance(embedded, memory, states)
            return self.combine(ops.concatenate([context, output], axis=-1)), states, weights
        output, states = self.decoder.advance(embedded, states)
        readout, weights = self._look_after(output[:, None], memory)
        return readout[:, 0], states, None if weights is None else weights[:, 0]

    def _look_then_advance(self, embedded: Any, memory: Memory, states: tuple[Any, ...]) -> tuple:
        """Return a step's output (B, U) and context (B, U + D), the states after it, and the weights, (B, S)."""
        context, weights = self._look(self.score.query_dense(states[0][:, None]), memory)
        context = context[:, 0]
        output, states = self.decoder.advance(ops.concatenate([embedded, context], axis=-1), states)
        return output, context, states, weights[:, 0]

    def _look_after(self, outputs: Any, memory: Memory) -> tuple[Any, Any | None]:
        """Return the readout, (B, T, U), and the weights, (B, T, S), of steps already made."""
        if self.score is None:
            return outputs, None
        context, weights = self._look(outputs, memory)
        return self.combine(ops.concatenate([context, outputs], axis=-1)), weights

    def _look(self, queries: Any, memory: Memory) -> tuple[Any, Any]:
        """Return the mixed annotations, (B, T, U + D), and the weights, (B, T, S)."""
        weights = masked_softmax(self.score.score_projected(queries, memory.keys), memory.mask)
        weights = ops.cast(weights, memory.annotations.dtype)
        return ops.matmul(weights, memory.annotations), weights

    @property
    def _graphs(self) -> "_Graphs":
        """The compiled loops; they are made once, and hold the variables that the model had then."""
        if not self.built:
            self.build()
        graphs = getattr(self, "_compiled_graphs", None)
        if graphs is None or not graphs.are_of(self):
            graphs = self._compiled_graphs = _Graphs(self)
        return graphs

    def _checked_sources(self, sources: Sequence[ArrayLike]) -> list[NDArray[np.int64]]:
        sources = document_ids(sources, self.source_vocab, "sources")
        for index, source in enumerate(sources):
            if not source.size:
                raise ValueError(f"sources[{index}] must hold at least one token; got none.")
        return sources

    def _check_arguments(self) -> None:
        for name in ("source_vocab", "target_vocab", "units", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.attention not in get_args(Attention):
            raise ValueError(f"attention must be one of {get_args(Attention)}; got {self.attention!r}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}.")
        for name in ("start_id", "end_id"):
            if not 0 <= getattr(self, name) < self.target_vocab:
                raise ValueError(
                    f"{name} must be between 0 and target_vocab - 1 = {self.target_vocab - 1}; "
                    f"got {getattr(self, name)}."
                )


class GivenSource(LanguageModel):
    """The distribution over the translations of one source; made by `Seq2Seq.given`.

    Attributes:
        model: the translator.
        source: its source's ids.
    """

    def __init__(self, model: Seq2Seq, source: NDArray[np.int64]):
        self.model = model
        self.source = source
        self.vocab_size = model.target_vocab
        self._padded_source = padded([source])

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token of each row; see `LanguageModel.token_log_probs`."""
        ids, mask = check_ids(ids, self.vocab_size, mask)
        if not ids.size:
            return np.zeros(ids.shape)
        rows, _ = padded(ids)
        inputs = np.concatenate([np.full((len(rows), 1), self.model.start_id), rows[:, :-1]], axis=1)
        log_probs = self.model._graphs.score(*self._padded_source, inputs.astype(np.int32), rows).numpy()
        return np.where(mask, log_probs[:, : ids.shape[1]], 0.0).astype(np.float64)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution of the token after each prefix; see `LanguageModel.next_log_probs`."""
        rows = document_ids(prefixes, self.vocab_size, "prefixes")
        if not rows:
            return np.zeros((0, self.vocab_size))
        inputs, _ = padded([np.concatenate([[self.model.start_id], row]) for row in rows])
        last = np.array([len(row) for row in rows], dtype=np.int32)
        return self.model._graphs.follow(*self._padded_source, inputs, last).numpy().astype(np.float64)


class _Graphs:
    """What a model's generation and scoring compile to: one trace each, for any number of rows of any length."""

    def __init__(self, model: Seq2Seq):
        ids, mask = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.bool)
        self._model, self._variables = model, list(model.variables)
        self.translate = tf.function(self._translate, [ids, mask, tf.TensorSpec((), tf.int32)])
        self.align = tf.function(self._align, [ids, mask, ids])
        self.score = tf.function(self._score, [ids, mask, ids, ids])
        self.predict = tf.function(self._predict, [ids, mask, ids, ids])
        self.follow = tf.function(self._follow, [ids, mask, ids, tf.TensorSpec((None,), tf.int32)])

    def are_of(self, model: Seq2Seq) -> bool:
        """Return whether they compute with the variables that the model has now."""
        now = model.variables
        return len(now) == len(self._variables) and all(
            a is b for a, b in zip(now, self._variables, strict=True)
        )

    def _translate(self, source: tf.Tensor, source_mask: tf.Tensor, max_length: tf.Tensor) -> tf.Tensor:
        """Return the ids written, (B, T); behind a row's end token there are only end tokens."""
        model = self._model
        memory, states = model.encode(source, source_mask, training=False)
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
        return self._model._decode(target, memory, states, training=False)[1]

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
        memory, states = self._model.encode(source, source_mask, training=False)
        repeated = tf.nest.map_structure(
            lambda part: tf.repeat(part, tf.shape(x)[0], axis=0), (memory, states)
        )
        readout, _ = self._model._decode(x, *repeated, training=False)
        return tf.cast(self._model.output_dense(readout), tf.float32)  # (B, T, V)


def _rows_by_length(sources: Sequence[NDArray]) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of sources to be read together: by length, so that little is padding."""
    order = np.argsort([len(source) for source in sources], kind="stable")
    for start in range(0, len(order), TRANSLATED_TOGETHER):
        yield order[start : start + TRANSLATED_TOGETHER]


def _check_inputs(inputs: dict[str, Any]) -> None:
    wanted = {"source": "(B, S)", "source_mask": "(B, S)", "target": "(B, T)"}
    if not isinstance(inputs, dict) or set(inputs) != set(wanted):
        got = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
        raise ValueError(f"inputs must be a dict with {', '.join(wanted)}; got {got}.")
    for name, letters in wanted.items():
        shape = tuple(inputs[name].shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"{name} must have shape {letters}, neither of them zero; got {shape}.")
