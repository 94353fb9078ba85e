"""BERT: an encoder that reads in both directions and learns by guessing the words it is not shown.

Letters for shapes: `B` rows, `T` time, `D` width, `V` vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from lmcourse.training import check_known_ids, next_token_loss, values_are_known
from lmcourse.transformer.blocks import TransformerEncoder, normal
from lmcourse.transformer.config import BertConfig
from lmcourse.transformer.embeddings import TokenEmbedding
from lmcourse.transformer.norms import make_norm

# Of the two scores for the next sentence; BERT's published weights count in this order.
FOLLOWS, RANDOM = 0, 1


@keras.saving.register_keras_serializable(package="lmcourse")
class Bert(keras.Model):
    """Embeddings of tokens, positions and segments, an encoder, and heads to train it with.

    A call takes a dict: "ids" int (B, T); if need be "mask" bool (B, T), False on padding, and "segments" int (B, T),
    0 on the first text of a row and 1 on the second. With heads it returns logits: "tokens", (B, T, V), of the token
    that stands, or is hidden, at each position, and "next_sentence", (B, 2), for `FOLLOWS` and `RANDOM`. Without heads
    it returns "hidden", (B, T, D), and with a pooler "pooled", (B, D).

    Compiled without a loss it learns what its heads are for; see `compute_loss`, and `MaskedBatches` and
    `NextSentenceBatches` for the data.

    Args:
        config: a `BertConfig` or a dict of its fields.

    Raises:
        ValueError: if the config's fields are no such config; in a call, if the inputs are not of that form, an id is
            none, or a row is longer than `max_length`.

    Example:
        >>> model = Bert(BertConfig.preset("tiny", vocab_size=10))
        >>> scores = model({"ids": np.array([[1, 2, 3, 0]]), "mask": np.array([[True, True, True, False]])})
        >>> scores["tokens"].shape, scores["next_sentence"].shape
        (TensorShape([1, 4, 10]), TensorShape([1, 2]))
        >>> model.count_params() == model.config.parameter_count()
        True

    Reference: Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 3 and 3.1.
    """

    def __init__(self, config: BertConfig | Mapping, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config = BertConfig.from_dict(config)
        self.vocab_size, self.max_length = config.vocab_size, config.max_length
        # Nothing is dropped before the segments are added and the sum is normalised.
        plain = config.changed(dropout=0.0)
        own = {"dtype": self.dtype_policy}
        self.embedding = TokenEmbedding(config.vocab_size, config.max_length, plain, name="embedding", **own)
        self.segment_embedding = keras.layers.Embedding(
            config.segments,
            config.width,
            embeddings_initializer=normal(config),
            name="segment_embedding",
            **own,
        )
        self.embedding_norm = make_norm(config.norm, config.norm_epsilon, name="embedding_norm", **own)
        self.drop = keras.layers.Dropout(config.dropout, **own)
        self.encoder = TransformerEncoder(config, name="encoder", **own)
        self.pooler = self._dense(config.width, "pooler") if config.pooler else None
        if config.heads:
            self.token_dense = self._dense(config.width, "token_dense")
            self.token_norm = make_norm(config.norm, config.norm_epsilon, name="token_norm", **own)
            self.next_sentence_dense = self._dense(2, "next_sentence")

    def build(self, input_shape: Any = None) -> None:
        """Make all weights; they do not depend on the length."""
        rows, vectors = (None, self.config.width), (None, None, self.config.width)
        self.embedding.build()
        self.segment_embedding.build((None, None))
        self.embedding_norm.build(vectors)
        self.encoder.build(vectors)
        if self.pooler is not None:
            self.pooler.build(rows)
        if self.config.heads:
            self.token_dense.build(vectors)
            self.token_norm.build(vectors)
            self.token_bias = self.add_weight(
                name="token_bias", shape=(self.vocab_size,), initializer="zeros"
            )
            self.next_sentence_dense.build(rows)
        self.built = True

    def __call__(self, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the logits, or without heads the vectors; see the class."""
        self._check_inputs(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return the logits, or without heads the vectors; see the class."""
        hidden, pooled = self.encode(inputs, training=training)
        if self.config.heads:
            return {"tokens": self.token_logits(hidden), "next_sentence": self.next_sentence_dense(pooled)}
        return {"hidden": hidden} if pooled is None else {"hidden": hidden, "pooled": pooled}

    def encode(self, inputs: dict[str, Any], training: bool | None = None) -> tuple[Any, Any | None]:
        """Read rows, without the heads.

        Args:
            inputs: as in a call.
            training: whether to drop.

        Returns:
            What the encoder makes of each token, (B, T, D), and of the whole row, (B, D): the first token's vector
            through the pooler, None if there is none.

        Raises:
            ValueError: as in a call.
        """
        self._check_inputs(inputs)
        if not self.built:
            self.build()
        ids, segments = inputs["ids"], inputs.get("segments")
        segments = ops.zeros_like(ids) if segments is None else segments
        embedded = self.embedding(ids) + self.segment_embedding(segments)  # (B, T, D)
        embedded = self.drop(self.embedding_norm(embedded), training=training)
        hidden = self.encoder(embedded, mask=inputs.get("mask"), training=training)
        return hidden, None if self.pooler is None else ops.tanh(self.pooler(hidden[:, 0]))

    def token_logits(self, hidden: Any) -> Any:
        """Return how well each token of the vocabulary fits each position, (…, V), of what `encode` gives, (…, D)."""
        bent = self._bend(self.token_dense(hidden))
        logits = self.embedding.logits(self.token_norm(bent))
        return logits + ops.cast(self.token_bias, logits.dtype)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the cross-entropy of the tokens in nats, and for pairs of sentences that of the next one added.

        Args:
            x: the inputs.
            y: the tokens that stand at each position, int (B, T); for pairs a dict of "tokens" and "next_sentence",
                int (B,).
            y_pred: what a call returned.
            sample_weight: float (B, T), above 0 where a token was chosen to be guessed: the others do not count.
            training: as in Keras.

        Raises:
            ValueError: if the model has no heads and was compiled without a loss.

        Reference: Devlin et al. 2019, arXiv:1810.04805, appendix A.2.
        """
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if not self.config.heads:
            raise ValueError("heads must be True in the config, or compile be given a loss; got neither.")
        tokens, following = (y["tokens"], y["next_sentence"]) if isinstance(y, Mapping) else (y, None)
        loss = next_token_loss()(tokens, ops.cast(y_pred["tokens"], "float32"), sample_weight)
        next_sentence = ops.cast(y_pred["next_sentence"], "float32")
        if following is None:
            # The head that has nothing to learn gets gradients of zero: Keras warns of weights without any.
            return loss + 0.0 * ops.sum(next_sentence)
        return loss + next_token_loss()(following, next_sentence)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict()}

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units, kernel_initializer=normal(self.config), name=name, dtype=self.dtype_policy
        )

    def _bend(self, x: Any) -> Any:
        """Apply the feed-forward networks' activation; gates have none of their own and go with the exact GELU."""
        if self.config.activation == "relu":
            return ops.relu(x)
        return ops.gelu(x, approximate=self.config.activation == "gelu_tanh")

    def _check_inputs(self, inputs: Any) -> None:
        """Raise unless these can be the model's inputs."""
        known = {"ids", "mask", "segments"}
        if not isinstance(inputs, Mapping) or "ids" not in inputs or set(inputs) - known:
            got = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(
                f"inputs must be a dict with 'ids' and, if need be, 'mask' and 'segments'; got {got}."
            )
        given = {name: value for name, value in inputs.items() if value is not None}
        shapes = {name: tuple(getattr(value, "shape", np.shape(value))) for name, value in given.items()}
        if len(shapes["ids"]) != 2 or 0 in shapes["ids"]:
            raise ValueError(f"ids must have shape (B, T), neither of them zero; got {shapes['ids']}.")
        time = shapes["ids"][1]
        if time is not None and time > self.max_length:
            raise ValueError(
                f"ids must have at most max_length = {self.max_length} tokens a row; got {time}. "
                "Cut the text into shorter rows."
            )
        for name, shape in shapes.items():
            if len(shape) != 2 or any(
                None not in pair and pair[0] != pair[1] for pair in zip(shape, shapes["ids"], strict=True)
            ):
                raise ValueError(f"{name} must have the shape of ids, {shapes['ids']}; got {shape}.")
        check_known_ids(given["ids"], self.vocab_size)
        if "segments" in given and values_are_known(given["segments"]):
            self._check_segments(np.asarray(given["segments"]))

    def _check_segments(self, segments: np.ndarray) -> None:
        last = self.config.segments - 1
        if segments.min() < 0 or segments.max() > last:
            wrong = segments.min() if segments.min() < 0 else segments.max()
            raise ValueError(f"segments must be between 0 and {last}; got {wrong}.")
