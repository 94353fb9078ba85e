"""How well a query matches a key, and the mixture of values that follows from it.

Letters for shapes: `B` rows, `T` queries, `S` keys, `D` width, `U` units, `H` heads, `K` head width.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from lmcourse.core import check_positive

# Low enough that its exponential is exactly zero beside any score; finite, so that no difference of two is NaN.
MASKED_SCORE = -1e9


def masked_softmax(scores: Any, mask: Any | None = None) -> Any:
    """Turn scores into weights over the keys that may be attended to.

    Computed in float32 whatever the dtype of the scores: float16 reaches no further than 65,504, and the sum of
    many small weights loses digits in bfloat16, which has eight bits of them.

    Args:
        scores: float tensor of shape (..., S).
        mask: bool tensor broadcastable to scores; True where attending is allowed.

    Returns:
        float32 weights in the shape of scores. Each row sums to one over the allowed keys and is exactly zero
        elsewhere; a row that allows nothing is all zero, and so are its gradients.

    Example:
        >>> masked_softmax([[0.0, 0.0, 5.0], [1.0, 2.0, 3.0]], [[True, True, False], [False] * 3]).numpy().tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    scores = ops.cast(scores, "float32")
    if mask is None:
        return tf.nn.softmax(scores)
    mask = ops.cast(mask, "bool")
    # Added, not selected: the gradient of a sum passes by without another look at all scores.
    weights = tf.nn.softmax(scores + ops.where(mask, 0.0, MASKED_SCORE))
    # Where nothing is allowed all scores are equally low, and the softmax would spread its weight over them.
    return ops.where(mask, weights, 0.0)


def dot_product_scores(query: Any, key: Any) -> Any:
    """Return how well each query matches each key: their dot product over the square root of the width.

    Args:
        query: float tensor of shape (B, H, T, K).
        key: float tensor of shape (B, H, S, K).

    Returns:
        The scores, (B, H, T, S).
    """
    # Dot products of K unit-variance terms have variance K: dividing by sqrt(K) keeps the softmax off its flat ends.
    # The query is divided rather than the scores: there are fewer numbers in it, and float16 overflows later.
    return ops.einsum("bhtk,bhsk->bhts", query * query.shape[-1] ** -0.5, key)


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, mask: Any | None = None
) -> tuple[Any, Any]:
    """Mix the values by how well each query matches each key.

    Args:
        query: float tensor of shape (B, H, T, K).
        key: float tensor of shape (B, H, S, K).
        value: float tensor of shape (B, H, S, K); its width may differ from the keys'.
        mask: bool tensor broadcastable to (B, H, T, S); True where attending is allowed.

    Returns:
        The mixed values, (B, H, T, K), and the weights, (B, H, T, S), in the dtype of value. Each row of weights sums
        to one, or is all zero where the mask allows nothing.

    Raises:
        ValueError: if a rank is not 4, query and key have different widths, or key and value different lengths.

    Example:
        >>> query = ops.ones((1, 1, 1, 4))
        >>> key = ops.stack([query[0, 0, 0], -query[0, 0, 0]])[None, None]
        >>> mixed, weights = scaled_dot_product_attention(query, key, [[[[1.0], [0.0]]]])
        >>> weights.numpy().round(3).tolist()  # e^2 and e^-2, normalised
        [[[[0.9819999933242798, 0.017999999225139618]]]]

    Reference: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """
    query, key, value = (ops.convert_to_tensor(tensor) for tensor in (query, key, value))
    check_heads(query, key, value)
    scores = dot_product_scores(query, key)  # (B, H, T, S)
    weights = ops.cast(masked_softmax(scores, mask), value.dtype)
    return mix(weights, value), weights


def mix(weights: Any, value: Any) -> Any:
    """Return the values mixed by the weights.

    Args:
        weights: float tensor of shape (B, H, T, S).
        value: float tensor of shape (B, H, S, K).

    Returns:
        (B, H, T, K).
    """
    return ops.einsum("bhts,bhsk->bhtk", weights, value)


@keras.saving.register_keras_serializable(package="lmcourse")
class AdditiveScore(keras.layers.Layer):
    """Bahdanau's score: a network with one hidden layer looks at query and key together.

    score(q, k) = v · tanh(W q + U k), with W q computed once for each query and U k once for each key.

    Args:
        units: U, the width of the hidden layer.

    Example:
        >>> AdditiveScore(units=8)(ops.ones((2, 3, 5)), ops.ones((2, 4, 6))).shape
        TensorShape([2, 3, 4])

    Reference: Bahdanau, Cho and Bengio 2015, arXiv:1409.0473, section 3.1 and appendix A.1.2.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        check_positive(units=units)
        self.units = units
        self.query_dense = keras.layers.Dense(units, use_bias=False, name="query", dtype=self.dtype_policy)
        self.key_dense = keras.layers.Dense(units, use_bias=False, name="key", dtype=self.dtype_policy)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        """Make W, U and v."""
        _check_shape(3, "(B, T, D)", query=query_shape, key=key_shape)
        self.query_dense.build(query_shape)
        self.key_dense.build(key_shape)
        self.direction = self.add_weight(name="direction", shape=(self.units,), initializer="glorot_uniform")
        super().build(query_shape)

    def call(self, query: Any, key: Any) -> Any:
        """Return the scores.

        Args:
            query: float tensor of shape (B, T, D).
            key: float tensor of shape (B, S, D); its width may differ from the queries'.

        Returns:
            (B, T, S).
        """
        _check_rank(3, "(B, T, D)", query=query, key=key)
        return self.score_projected(self.query_dense(query), self.project_keys(key))

    def project_keys(self, key: Any) -> Any:
        """Return what of the keys does not depend on the query, (B, S, U): a decoder computes it once."""
        return self.key_dense(key)

    def score_projected(self, query: Any, key: Any) -> Any:
        """Return the scores, (B, T, S), of a query (B, T, U) and a key (B, S, U) that went through W and U."""
        hidden = ops.tanh(query[:, :, None, :] + key[:, None, :, :])  # (B, T, S, U)
        return ops.matmul(hidden, ops.cast(self.direction, hidden.dtype)[:, None])[..., 0]

    def compute_output_shape(self, query_shape: tuple, key_shape: tuple) -> tuple:
        """Return (B, T, S)."""
        return (query_shape[0], query_shape[1], key_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="lmcourse")
class MultiplicativeScore(keras.layers.Layer):
    """Luong's "general" score: one matrix between query and key.

    score(q, k) = q · W k. With W the identity it is the dot product.

    Example:
        >>> MultiplicativeScore()(ops.ones((2, 3, 5)), ops.ones((2, 4, 6))).shape
        TensorShape([2, 3, 4])

    Reference: Luong, Pham and Manning 2015, arXiv:1508.04025, section 3.1.
    """

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        """Make W."""
        _check_shape(3, "(B, T, D)", query=query_shape, key=key_shape)
        self.key_dense = keras.layers.Dense(
            query_shape[-1], use_bias=False, name="key", dtype=self.dtype_policy
        )
        self.key_dense.build(key_shape)
        super().build(query_shape)

    def call(self, query: Any, key: Any) -> Any:
        """Return the scores.

        Args:
            query: float tensor of shape (B, T, D).
            key: float tensor of shape (B, S, D); its width may differ from the queries'.

        Returns:
            (B, T, S).
        """
        _check_rank(3, "(B, T, D)", query=query, key=key)
        return self.score_projected(query, self.project_keys(key))

    def project_keys(self, key: Any) -> Any:
        """Return W k, (B, S, D): a decoder computes it once."""
        return self.key_dense(key)

    def score_projected(self, query: Any, key: Any) -> Any:
        """Return the scores, (B, T, S), of queries (B, T, D) and keys that went through W, (B, S, D)."""
        return ops.einsum("btd,bsd->bts", query, key)

    def compute_output_shape(self, query_shape: tuple, key_shape: tuple) -> tuple:
        """Return (B, T, S)."""
        return (query_shape[0], query_shape[1], key_shape[1])


def check_heads(query: Any, key: Any, value: Any) -> None:
    """Refuse queries, keys and values of heads, (B, H, T, K), that do not fit each other."""
    _check_rank(4, "(B, H, T, K)", query=query, key=key, value=value)
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query and key must have the same width; got {query.shape[-1]} and {key.shape[-1]}."
        )
    check_same_length(key.shape[2], value.shape[2])


def check_same_length(key_length: int | None, value_length: int | None) -> None:
    """Refuse keys and values that are not one to one, as far as their numbers are known."""
    if None not in (key_length, value_length) and key_length != value_length:
        raise ValueError(
            f"key and value must have the same length S, a value for each key; got {key_length} and {value_length}."
        )


def _check_rank(rank: int, letters: str, **tensors: Any) -> None:
    _check_shape(rank, letters, **{name: tensor.shape for name, tensor in tensors.items()})


def _check_shape(rank: int, letters: str, **shapes: Any) -> None:
    for name, shape in shapes.items():
        if len(shape) != rank:
            raise ValueError(f"{name} must have shape {letters}; got {tuple(shape)}.")
