"""Self-attention that knows positions and can remember what it has read.

Letters for shapes: `B` rows, `T` time, `S` slots of the cache, `D` width, `H` heads, `G` heads of keys and values, `K`
width of a head.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lmcourse.attention import MultiHeadAttention
from lmcourse.attention.multi_head import sizes
from lmcourse.transformer.config import Pairing
from lmcourse.transformer.positions import check_pairing, rotate


@keras.saving.register_keras_serializable(package="lmcourse")
class SelfAttention(MultiHeadAttention):
    """Multi-head attention of a row to itself, with rotary positions or a bias for distance, and with a cache.

    Args:
        num_heads: H.
        key_dim: K.
        num_kv_heads: G; H by default.
        rotary_pairing: which numbers of a head turn together; see `rotate`.
        **kwargs: of `MultiHeadAttention`.

    Example:
        >>> layer = SelfAttention(num_heads=4, key_dim=2, num_kv_heads=2)
        >>> layer(ops.ones((1, 3, 8))).shape
        TensorShape([1, 3, 8])
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        num_kv_heads: int | None = None,
        rotary_pairing: Pairing = "half",
        **kwargs: Any,
    ):
        super().__init__(num_heads, key_dim, num_kv_heads=num_kv_heads, **kwargs)
        check_pairing(rotary_pairing=rotary_pairing)
        self.rotary_pairing = rotary_pairing

    def build(self, x_shape: tuple) -> None:
        """Make the four projections."""
        super().build(x_shape)

    def call(
        self,
        x: Any,
        mask: Any | None = None,
        rotation: tuple[Any, Any] | None = None,
        bias: Any | None = None,
        return_weights: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Attend.

        Args:
            x: float tensor of shape (B, T, D).
            mask: bool tensor broadcastable to (B, H, T, T); True where attending is allowed. By default the mask of
                padding that x carries, if there is one.
            rotation: cosines and sines of the positions' angles, from `rotary_angles`.
            bias: float tensor broadcastable to (B, H, T, T), added to the scores.
            return_weights: whether to return the weights, too.
            training: whether to drop weights.

        Returns:
            (B, T, D), and with `return_weights` also the weights, (B, H, T, T).

        Raises:
            ValueError: if x is not (B, T, D).
        """
        if len(x.shape) != 3:
            raise ValueError(f"x must have shape (B, T, D); got {tuple(x.shape)}.")
        mask = mask_of_pairs(mask, x)
        query, key, value = self._project(x, rotation)
        mixed, weights = self.attend(query, key, value, mask, bias, training=training)
        joined = self.join_heads(mixed)
        return (joined, weights) if return_weights else joined

    def read(
        self,
        x: Any,
        keys: Any,
        values: Any,
        index: Any,
        mask: Any,
        rotation: tuple[Any, Any] | None = None,
        bias: Any | None = None,
    ) -> tuple[Any, Any, Any]:
        """Attend to what was read before, too, and remember what is read now: what generation repeats.

        Args:
            x: float tensor of shape (B, T, D), the tokens that are new.
            keys: the cache, (B, G, S, K), filled up to `index`, and zero from there on: what is read is added there.
                So a cache cannot be taken back to a smaller index.
            values: the cache, (B, G, S, K).
            index: the slot of the first new token; index + T is at most S.
            mask: bool tensor broadcastable to (B, H, T, S); it must hide the slots that are still empty.
            rotation: as in `call`, of the new tokens' positions.
            bias: float tensor broadcastable to (B, H, T, S).

        Returns:
            (B, T, D), and the cache with the new tokens in it.
        """
        query, key, value = self._project(x, rotation)
        keys, values = _written(keys, values, index, key, value)
        mixed, _ = self.attend(query, keys, values, mask, bias, training=False)
        return self.join_heads(mixed), keys, values

    def project_queries(self, query: Any) -> Any:
        """Return each head's queries, (B, H, T, K), of (B, T, D)."""
        return _heads_of(self.query_dense, query)

    def project_keys_and_values(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Return the keys, (B, G, S, K), and the values of each of the G heads: what a cache keeps."""
        return _heads_of(self.key_dense, key), _heads_of(self.value_dense, value)

    def join_heads(self, mixed: Any) -> Any:
        """Return (B, T, D) of each head's result, (B, H, T, K)."""
        rows, heads, time, width = sizes(mixed)
        flat = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (1, -1, heads, width))
        joined = self.output_dense(flat)  # (1, B·T, D)
        return ops.reshape(joined, (rows, time, joined.shape[-1]))

    def compute_mask(self, x: Any, previous_mask: Any | None = None) -> Any | None:
        """Return the mask that the result carries: that of x, of positions, not the call's, which is of pairs."""
        return getattr(x, "_keras_mask", None)

    def compute_output_shape(self, x_shape: tuple) -> tuple:
        """Return (B, T, D)."""
        return super().compute_output_shape(x_shape)

    def compute_output_spec(self, x: Any, *args: Any, return_weights: bool = False, **kwargs: Any) -> Any:
        """Return the shape and dtype of what a call gives."""
        return super().compute_output_spec(x, return_weights=return_weights)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rotary_pairing": self.rotary_pairing}

    def _project(self, x: Any, rotation: tuple[Any, Any] | None) -> tuple[Any, Any, Any]:
        """Return queries (B, H, T, K), keys and values (B, G, T, K); queries and keys know their positions."""
        query = self.project_queries(x)
        key, value = self.project_keys_and_values(x, x)
        if rotation is not None:
            query = rotate(query, rotation, self.rotary_pairing)
            key = rotate(key, rotation, self.rotary_pairing)
        return query, key, value


def mask_of_pairs(mask: Any | None, x: Any) -> Any | None:
    """Return the mask of a call, or else the one that x carries, (B, T), as one of pairs, (B, 1, 1, T)."""
    carried = getattr(x, "_keras_mask", None)
    if carried is not None and (mask is None or mask is carried):  # Keras may have handed it on
        return ops.cast(carried, "bool")[:, None, None, :]
    return mask


def _heads_of(dense: keras.layers.EinsumDense, x: Any) -> Any:
    """Return what each head makes of x, (B, heads, T, K).

    The rows go through the matrix as one long row: one product of matrices in place of B, each of which would read the
    whole matrix again.
    """
    rows, time, width = sizes(x)
    heads = dense(ops.reshape(x, (1, -1, width)))  # (1, B·T, heads, K)
    heads = ops.reshape(heads, (rows, time, *heads.shape[2:]))
    return ops.transpose(heads, (0, 2, 1, 3))


def _written(keys: Any, values: Any, index: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """Return keys and values, (B, G, S, K), with new ones, (B, G, T, K), from slot `index` on."""
    rows, heads, slots, width = shape = sizes(keys)
    first = tf.range(index, rows * heads * slots, slots)  # (B·G,): of each row and head
    places = tf.reshape(tf.expand_dims(first, 1) + tf.range(sizes(key)[2]), (-1, 1))  # (B·G·T, 1)

    def write(cache: Any, new: Any) -> Any:
        flat, new = tf.reshape(cache, (-1, width)), tf.reshape(new, (-1, width))
        # An empty slot is zero, so that adding is writing. This is the one operation that works in place where
        # nobody else holds the tensor: `ops.slice_update` copies the whole cache for each token.
        flat = tf.raw_ops.ScatterNdNonAliasingAdd(input=flat, indices=places, updates=new)
        return tf.reshape(flat, shape)

    return write(keys, key), write(values, value)
