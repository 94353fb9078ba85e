"""Multi-head attention: several attentions side by side, each in a small space of its own.

Letters for shapes: `B` rows, `T` queries, `S` keys, `D` width, `H` heads, `G` heads of keys and values (it divides H),
`K` width of a head's queries and keys.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lmcourse.attention.masks import causal_mask
from lmcourse.attention.scores import check_same_length, dot_product_scores, masked_softmax, mix


@keras.saving.register_keras_serializable(package="lmcourse")
class MultiHeadAttention(keras.layers.Layer):
    """Attend with H heads: to the row itself, or to another one.

    Each head projects queries, keys and values to a width of its own, and mixes the values by scaled dot-product
    attention; one last projection joins the heads. With `num_kv_heads` below `num_heads`, H / G heads of queries share
    the keys and values of one: grouped-query attention, or multi-query attention where G = 1.

    The weights have the layout and the order of `keras.layers.MultiHeadAttention` and of `GroupQueryAttention`:
    `ours.set_weights(theirs.get_weights())` makes the two equal. Where a query may attend to nothing ours gives zeros
    (before the last projection's bias), theirs the mean of everything.

    Args:
        num_heads: H.
        key_dim: K, the width of each head's queries and keys; the paper's is D // H.
        value_dim: the width of each head's values; K by default.
        num_kv_heads: G, the heads of keys and values; H by default. It divides H.
        dropout: the share of the weights that is dropped in training.
        use_bias: whether the four projections have biases.
        output_dim: the width of the result; the queries' by default.
        kernel_initializer: of the four projections.
        output_initializer: of the last one, if it is to start otherwise.

    Raises:
        ValueError: if a size is below 1, num_kv_heads does not divide num_heads, or dropout is not in [0, 1).

    Example:
        >>> layer = MultiHeadAttention(num_heads=2, key_dim=4)
        >>> mixed, weights = layer(ops.ones((1, 3, 8)), use_causal_mask=True, return_weights=True)
        >>> mixed.shape
        TensorShape([1, 3, 8])
        >>> (weights[0, 0] * 6).numpy().round(3).tolist()  # equal keys share the weight: 1, 1/2, 1/3
        [[6.0, 0.0, 0.0], [3.0, 3.0, 0.0], [2.0, 2.0, 2.0]]

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2; Shazeer 2019, "Fast transformer decoding",
    arXiv:1911.02150 (multi-query); Ainslie et al. 2023, "GQA", arXiv:2305.13245 (grouped-query).
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        num_kv_heads: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_dim: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        output_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = key_dim if value_dim is None else value_dim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.dropout = dropout
        self.use_bias = use_bias
        self.output_dim = output_dim
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = self.kernel_initializer
        if output_initializer is not None:
            self.output_initializer = keras.initializers.get(output_initializer)
        self._check_arguments()
        self.supports_masking = True
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(
        self, query_shape: tuple, value_shape: tuple | None = None, key_shape: tuple | None = None
    ) -> None:
        """Make the four projections."""
        value_shape = query_shape if value_shape is None else value_shape
        key_shape = value_shape if key_shape is None else key_shape
        _check_shapes(query=query_shape, value=value_shape, key=key_shape)
        # The arrays stay three-dimensional, so that a head is a slice, and fans are counted as Keras counts them.
        self.query_dense = self._projection("btd,dhk->bthk", "query", self.num_heads, self.key_dim)
        self.key_dense = self._projection("bsd,dgk->bsgk", "key", self.num_kv_heads, self.key_dim)
        self.value_dense = self._projection("bsd,dgk->bsgk", "value", self.num_kv_heads, self.value_dim)
        width = query_shape[-1] if self.output_dim is None else self.output_dim
        self.output_dense = keras.layers.EinsumDense(
            "bthk,hkd->btd",
            output_shape=(None, width),
            bias_axes="d" if self.use_bias else None,
            name="output",
            **self._common(self.output_initializer),
        )
        for dense in (self.query_dense, self.key_dense, self.value_dense):
            dense.supports_masking = (
                True  # a mask of padding passes by: it is about positions, not about heads
            )
        self.query_dense.build(query_shape)
        self.key_dense.build(key_shape)
        self.value_dense.build(value_shape)
        self.output_dense.build((query_shape[0], query_shape[1], self.num_heads, self.value_dim))
        super().build(query_shape)

    def call(
        self,
        query: Any,
        value: Any | None = None,
        key: Any | None = None,
        value_mask: Any | None = None,
        key_mask: Any | None = None,
        attention_mask: Any | None = None,
        use_causal_mask: bool = False,
        return_weights: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Attend.

        Args:
            query: float tensor of shape (B, T, D).
            value: float tensor of shape (B, S, D); the queries by default (self-attention).
            key: float tensor of shape (B, S, D); the values by default.
            value_mask: bool tensor of shape (B, S), False on padding. By default the mask that the values carry, as an
                `Embedding` with `mask_zero=True` gives them one.
            key_mask: the same for the keys.
            attention_mask: bool tensor of shape (T, S), (B, T, S) or (B, H, T, S), or broadcastable to it; True where
                attending is allowed.
            use_causal_mask: whether the query at position t sees only the keys at 0..t.
            return_weights: whether to return the weights, too.
            training: whether to drop weights.

        Returns:
            (B, T, D), and with `return_weights` also the weights, (B, H, T, S).

        Raises:
            ValueError: if a rank or a length is wrong.
        """
        if value is None:
            # Keras hands on the masks of several inputs, but of a single one only under the name `mask`.
            value = query
            value_mask = getattr(query, "_keras_mask", None) if value_mask is None else value_mask
        key = value if key is None else key
        _check_shapes(query=query.shape, value=value.shape, key=key.shape)
        check_same_length(key.shape[1], value.shape[1])
        mask = self._joint_mask(query, key, (value_mask, key_mask), attention_mask, use_causal_mask)
        mixed, weights = self.attend(
            self.project_queries(query), *self.project_keys_and_values(key, value), mask, training=training
        )
        joined = self.join_heads(mixed)
        return (joined, weights) if return_weights else joined

    def project_queries(self, query: Any) -> Any:
        """Return each head's queries, (B, H, T, K), of (B, T, D)."""
        return _swap(self.query_dense(query))

    def project_keys_and_values(self, key: Any, value: Any) -> tuple[Any, Any]:
        """Return the keys, (B, G, S, K), and the values of each of the G heads: what a cache keeps."""
        return _swap(self.key_dense(key)), _swap(self.value_dense(value))

    def attend(
        self,
        query: Any,
        key: Any,
        value: Any,
        mask: Any | None = None,
        bias: Any | None = None,
        training: bool | None = None,
    ) -> tuple[Any, Any]:
        """Mix the values head by head.

        Args:
            query: (B, H, T, K).
            key: (B, G, S, K).
            value: (B, G, S, K).
            mask: bool tensor broadcastable to (B, H, T, S).
            bias: float tensor broadcastable to (B, H, T, S), added to the scores.
            training: whether to drop weights.

        Returns:
            The mixed values, (B, H, T, K), and the weights before dropout, (B, H, T, S).
        """
        scores = self._ungroup(dot_product_scores(self._group(query), key))  # (B, H, T, S)
        if bias is not None:
            scores = ops.cast(scores, "float32") + ops.cast(bias, "float32")
        weights = ops.cast(masked_softmax(scores, mask), self.compute_dtype)
        kept = self.dropout_layer(weights, training=training) if self.dropout else weights
        return self._ungroup(mix(self._group(kept), value)), weights

    def _group(self, heads: Any) -> Any:
        """Return (B, G, H/G · T, ·) of (B, H, T, ·): the heads that share keys become more queries of one head."""
        if self.num_kv_heads == self.num_heads:
            return heads
        rows, _, time, width = sizes(heads)
        return ops.reshape(heads, (rows, self.num_kv_heads, self._shared_by * time, width))

    def _ungroup(self, heads: Any) -> Any:
        """Return (B, H, T, ·) of (B, G, H/G · T, ·): heads 0..H/G - 1 share keys and values 0, and so on."""
        if self.num_kv_heads == self.num_heads:
            return heads
        rows, _, grouped, width = sizes(heads)
        return ops.reshape(heads, (rows, self.num_heads, grouped // self._shared_by, width))

    @property
    def _shared_by(self) -> int:
        """H / G, the heads of queries that share keys and values."""
        return self.num_heads // self.num_kv_heads

    def join_heads(self, mixed: Any) -> Any:
        """Return (B, T, D) of each head's result, (B, H, T, K)."""
        return self.output_dense(_swap(mixed))

    def compute_output_shape(
        self, query_shape: tuple, value_shape: tuple | None = None, key_shape: tuple | None = None
    ) -> tuple:
        """Return (B, T, D)."""
        return (*query_shape[:-1], query_shape[-1] if self.output_dim is None else self.output_dim)

    def compute_output_spec(
        self, query: Any, value: Any | None = None, *args: Any, return_weights: bool = False, **kwargs: Any
    ) -> Any:
        """Return the shape and dtype of what a call gives."""
        joined = keras.KerasTensor(self.compute_output_shape(query.shape), self.compute_dtype)
        if not return_weights:
            return joined
        sources = (query if value is None else value).shape[1]
        weights = (query.shape[0], self.num_heads, query.shape[1], sources)
        return joined, keras.KerasTensor(weights, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "num_kv_heads": self.num_kv_heads,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_dim": self.output_dim,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }

    def _projection(self, equation: str, name: str, heads: int, width: int) -> keras.layers.EinsumDense:
        return keras.layers.EinsumDense(
            equation,
            output_shape=(None, heads, width),
            bias_axes=equation[-2:] if self.use_bias else None,
            name=name,
            **self._common(self.kernel_initializer),
        )

    def _common(self, initializer: keras.initializers.Initializer) -> dict[str, Any]:
        """Return what the projections share; each has an initializer of its own, so that no two start equal."""
        return {"kernel_initializer": initializer.clone(), "dtype": self.dtype_policy}

    def _joint_mask(
        self, query: Any, key: Any, key_masks: tuple, attention_mask: Any | None, use_causal_mask: bool
    ) -> Any | None:
        """Return all masks in one, broadcastable to (B, H, T, S), or None."""
        masks = [ops.cast(mask, "bool")[:, None, None, :] for mask in key_masks if mask is not None]
        if attention_mask is not None:
            masks.append(_with_heads(ops.cast(ops.convert_to_tensor(attention_mask), "bool")))
        if use_causal_mask:
            lengths = ops.shape(query)[1], ops.shape(key)[1]
            masks.append(causal_mask(ops.maximum(*lengths))[: lengths[0], : lengths[1]])
        joint = None
        for mask in masks:
            joint = mask if joint is None else joint & mask
        return joint

    def _check_arguments(self) -> None:
        sizes = {"num_heads": self.num_heads, "key_dim": self.key_dim, "value_dim": self.value_dim}
        for name, size in {**sizes, "num_kv_heads": self.num_kv_heads}.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}.")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads = {self.num_heads}, so that equally many heads share each; "
                f"got {self.num_kv_heads}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}.")


def _swap(tensor: Any) -> Any:
    """Exchange the axes of positions and heads, so that a matrix product works on each head's positions."""
    return ops.transpose(tensor, (0, 2, 1, 3))


def _with_heads(mask: Any) -> Any:
    """Return a mask of (T, S), (B, T, S) or (B, H, T, S) with an axis for the heads."""
    rank = len(mask.shape)
    if rank not in (2, 3, 4):
        raise ValueError(
            f"attention_mask must have shape (T, S), (B, T, S) or (B, H, T, S); got {tuple(mask.shape)}."
        )
    return mask[:, None] if rank == 3 else mask


def _check_shapes(**shapes: Any) -> None:
    for name, shape in shapes.items():
        if len(shape) != 3:
            raise ValueError(f"{name} must have shape (B, T, D), batch first; got {tuple(shape)}.")
        if shape[1] == 0:
            raise ValueError(f"{name} must have at least one position; got shape {tuple(shape)}.")


def sizes(tensor: Any) -> list[Any]:
    """Return the sizes of a tensor's axes, as numbers where they are known.

    The same as `ops.shape`, with one operation for all that are not: a graph of a deep model has thousands of them.
    """
    known = list(tensor.shape)
    if None not in known:
        return known
    asked = tf.unstack(tf.shape(tensor), num=len(known))
    return [there if size is None else size for size, there in zip(known, asked, strict=True)]
