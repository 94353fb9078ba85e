"""From ids to vectors that know their positions, and from vectors back to scores of ids.

Letters for shapes: `B` rows, `T` time, `D` width, `V` vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lmcourse.core import check_positive
from lmcourse.training import check_known_ids
from lmcourse.transformer.blocks import as_stack, normal
from lmcourse.transformer.config import StackConfig
from lmcourse.transformer.positions import sinusoidal_encoding

# From about this many ids on the table stands on the left of the product with a few hundred vectors, or with the few
# that generation has: there it is read as it lies, on the right it would be rearranged first. With 49,152 ids of width
# 576, on one core, 8 vectors take 21 ms in place of 249, and 256 take 300 in place of 692.
LARGE_VOCABULARY = 2**14


@keras.saving.register_keras_serializable(package="lmcourse")
class TokenEmbedding(keras.layers.Layer):
    """Look up a vector for each id, and add one for its position where the config's positions are added.

    Beside sinusoids, whose length is √(D/2), vectors that start with a length of one would be lost: there they are
    multiplied by √D, as in the paper of 2017.

    Args:
        vocab_size: V.
        max_length: the most positions.
        config: a `StackConfig` or a dict of its fields.

    Raises:
        ValueError: if a size is below 1; in a call, if ids is not (B, T) or longer than max_length, or (outside a
            graph, where the values are known) holds a number that is no id.

    Example:
        >>> layer = TokenEmbedding(10, 4, StackConfig(width=8, depth=1, num_heads=2, positions="learned"))
        >>> layer(ops.convert_to_tensor([[1, 2, 3]])).shape, layer.count_params()  # (10 + 4) · 8
        (TensorShape([1, 3, 8]), 112)

    Reference: Press and Wolf 2017, arXiv:1608.05859 (one matrix for embedding and output); Vaswani et al. 2017,
    arXiv:1706.03762, section 3.4.
    """

    def __init__(self, vocab_size: int, max_length: int, config: StackConfig | Mapping, **kwargs: Any):
        super().__init__(**kwargs)
        check_positive(vocab_size=vocab_size, max_length=max_length)
        self.vocab_size, self.max_length = vocab_size, max_length
        self.config = config = as_stack(config)
        self.scaled = config.positions == "sinusoidal"
        if self.scaled:
            self.sinusoids = sinusoidal_encoding(max_length, config.width)
        self.drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        """Make the table of ids, (V, D), and for learned positions theirs, (max_length, D)."""
        # What is multiplied by √D starts at 1/√D, so that their product starts at one.
        initializer = (
            keras.initializers.RandomNormal(stddev=self.config.width**-0.5)
            if self.scaled
            else normal(self.config)
        )
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.vocab_size, self.config.width), initializer=initializer
        )
        self.position_embeddings = None
        if self.config.positions == "learned":
            self.position_embeddings = self.add_weight(
                name="position_embeddings",
                shape=(self.max_length, self.config.width),
                initializer=normal(self.config),
            )
        self.built = True

    def call(self, ids: Any, positions: Any | None = None, training: bool | None = None) -> Any:
        """Return vectors, (B, T, D).

        Args:
            ids: integers of shape (B, T).
            positions: integers of shape (B, T) or (T,), where the tokens stand; 0, 1, 2, … by default.
            training: whether to drop.
        """
        ids = ops.cast(ids, "int32")
        self._check_shape(ids.shape)
        check_known_ids(ids, self.vocab_size)
        embedded = ops.cast(ops.take(self.embeddings, ids, axis=0), self.compute_dtype)  # (B, T, D)
        if self.scaled:
            embedded = embedded * self.config.width**0.5
        return self.drop(embedded + self._of_positions(ops.shape(ids)[1], positions), training=training)

    def logits(self, hidden: Any) -> Any:
        """Return how well each vector, (…, D), fits each id, (…, V): its dot product with the id's vector."""
        table = ops.cast(self.embeddings, hidden.dtype)
        vectors = tf.reshape(hidden, (-1, self.config.width))
        if len(hidden.shape) == 2 or self.vocab_size >= LARGE_VOCABULARY:
            flat = tf.transpose(tf.matmul(table, vectors, transpose_b=True))
        else:
            flat = tf.matmul(vectors, table, transpose_b=True)
        return tf.reshape(flat, tf.concat([tf.shape(hidden)[:-1], [self.vocab_size]], axis=0))

    def compute_output_shape(self, ids_shape: tuple) -> tuple:
        """Return (B, T, D)."""
        return (*ids_shape, self.config.width)

    def compute_output_spec(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the shape and dtype of what a call gives."""
        return keras.KerasTensor(self.compute_output_shape(ids.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"vocab_size": self.vocab_size, "max_length": self.max_length}
        return {**super().get_config(), **own, "config": self.config.to_dict()}

    def _of_positions(self, time: Any, positions: Any | None) -> Any:
        """Return what is added for the positions: (T, D), (B, T, D), or zero."""
        if self.config.positions == "sinusoidal":
            table = ops.convert_to_tensor(self.sinusoids, dtype=self.compute_dtype)
        elif self.config.positions == "learned":
            table = ops.cast(self.position_embeddings, self.compute_dtype)
        else:
            return 0.0
        # A range is cut out, not looked up: its gradient is a range, too, not a sum over scattered rows.
        return table[:time] if positions is None else ops.take(table, positions, axis=0)

    def _check_shape(self, shape: tuple) -> None:
        if len(shape) != 2:
            raise ValueError(f"ids must have shape (B, T); got {tuple(shape)}.")
        if shape[1] is not None and shape[1] > self.max_length:
            raise ValueError(
                f"ids must have at most max_length = {self.max_length} tokens a row; got {shape[1]}."
            )
