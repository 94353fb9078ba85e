"""Translation by two LSTMs: one reads the source, one writes the target, with attention between them or without.

Letters for shapes: `B` rows, `S` source length, `T` target length, `D` embedding width, `U` units, `V` target
vocabulary.
"""

from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.attention.scores import AdditiveScore, MultiplicativeScore, masked_softmax
from lmcourse.attention.translation_model import TranslationModel
from lmcourse.recurrent import LSTM

Attention = Literal["none", "bahdanau", "luong"]


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
class Seq2Seq(TranslationModel):
    """An LSTM encoder and an LSTM decoder.

    Without attention the decoder knows of the source only the encoder's last state (Sutskever). Bahdanau's decoder
    looks at the source before each step, with the state it has, and what it sees goes into the step. Luong's looks
    after the step, so that all steps of training are made first and all looks at once. In both a linear layer joins
    what was seen with the decoder's state before the output.

    A call takes a dict; see `TranslationModel`.

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

    def decode(
        self, target: Any, memory: Memory, states: tuple[Any, ...], training: bool | None = None
    ) -> Any:
        """Return the logits, (B, T, V), of the tokens that follow those of a whole target, (B, T)."""
        return self.output_dense(self._decode(target, memory, states, training)[0])

    def look(self, target: Any, memory: Memory, states: tuple[Any, ...]) -> Any:
        """Return the weights over the source, (B, T, S), with which each token after those of a target is written."""
        return self._decode(target, memory, states, training=False)[1]

    def alignments(self, source: ArrayLike, target: ArrayLike) -> NDArray[np.float32]:
        """Return where the decoder looks while it writes a given target; see `TranslationModel.alignments`.

        Raises:
            ValueError: if the model has no attention, or an id is none.
        """
        if self.score is None:
            raise ValueError("attention must be 'bahdanau' or 'luong' for alignments; this model has 'none'.")
        return super().alignments(source, target)

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
