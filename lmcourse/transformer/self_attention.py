"""Self-attention that knows positions and can remember what it has read.

Letters for shapes: `B` rows, `T` time, `S` slots of the cache, `D` width, `H` heads, `G` heads of keys and values, `K`
width of a head.
"""

from typing import Any

import keras
from keras import ops

from lmcourse.attention import MultiHeadAttention
from lmcourse.transformer.config import Pairing
from lmcourse.transformer.positions import rotate


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
            mask: bool tensor broadcastable to (B, H, T, T); True where attending is allowed.
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
            keys: the cache, (B, G, S, K), filled up to `index`.
            values: the cache, (B, G, S, K).
            index: the slot of the first new token; index + T is at most S.
            mask: bool tensor broadcastable to (B, H, T, S); it must hide the slots that are still empty.
            rotation: as in `call`, of the new tokens' positions.
            bias: float tensor broadcastable to (B, H, T, S).

        Returns:
            (B, T, D), and the cache with the new tokens in it.
        """
        query, key, value = self._project(x, rotation)
        keys = ops.slice_update(keys, (0, 0, index, 0), key)
        values = ops.slice_update(values, (0, 0, index, 0), value)
        mixed, _ = self.attend(query, keys, values, mask, bias, training=False)
        return self.join_heads(mixed), keys, values

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
