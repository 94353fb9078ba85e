"""Attention in memory that grows with the length, not with its square: chunk by chunk, by an online softmax.

Letters for shapes: `B` rows, `H` heads, `T` queries, `S` keys, `C` keys of a chunk, `K` head width.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lmcourse.attention.scores import MASKED_SCORE, check_heads

# On a CPU from 128 to 1,024 differ little in time; the memory for the scores is in proportion to it.
CHUNK = 256


def chunked_attention(
    query: Any, key: Any, value: Any, mask: Any | None = None, *, causal: bool = False, chunk: int = CHUNK
) -> tf.Tensor:
    """Return what `scaled_dot_product_attention` returns, and never hold its (T, S) scores.

    The keys are visited in chunks of C. For each query three things are kept: the largest score so far, the sum of
    exp(score - largest), and the values mixed so far. A larger score found later rescales the other two. The gradient
    visits the chunks again and computes their weights anew from the logarithm of the sum: time for memory.

    Args:
        query: float tensor of shape (B, H, T, K).
        key: float tensor of shape (B, H, S, K).
        value: float tensor of shape (B, H, S, K); its width may differ from the keys'.
        mask: bool tensor broadcastable to (B, H, T, S), True where attending is allowed. A padding mask of shape
            (B, 1, 1, S) stays linear in S; one of (T, S) does not.
        causal: whether the query at position t sees only the keys at 0..t, without a mask to be held.
        chunk: C. Smaller needs less memory; below about 64 the loop's own time shows.

    Returns:
        The mixed values, (B, H, T, K), in the dtype of value; computed in float32. A query that may attend to nothing
        gets zeros. The weights do not exist, so they cannot be returned. There is no second derivative.

    Raises:
        ValueError: if a rank is not 4, the widths or lengths do not fit, or chunk is below 1.

    Example:
        >>> from lmcourse.attention.scores import scaled_dot_product_attention
        >>> q, k, v = tf.unstack(tf.random.stateless_normal((3, 1, 2, 10, 4), seed=[0, 1]))
        >>> mixed, _ = scaled_dot_product_attention(q, k, v)
        >>> bool(tf.reduce_max(tf.abs(mixed - chunked_attention(q, k, v, chunk=3))) < 1e-6)
        True

    Reference: Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3; Rabe and Staats 2021, arXiv:2112.05682; the
    gradient: Dao et al. 2022, "FlashAttention", arXiv:2205.14135, appendix B.2.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}.")
    query, key, value = (tf.convert_to_tensor(tensor) for tensor in (query, key, value))
    check_heads(query, key, value)
    keep = _keeper(query, key, mask, causal)
    chunks = _Chunks(tf.shape(key)[2], chunk)

    @tf.custom_gradient
    def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        mixed, log_sums = _forward(query, key, value, keep, chunks)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return _backward(upstream, query, key, value, mixed, log_sums, keep, chunks)

        return mixed, gradient

    # The custom gradient sees float32 alone; the casts around it have gradients of their own.
    as_float32 = [tf.cast(tensor, tf.float32) for tensor in (query * key.shape[-1] ** -0.5, key, value)]
    return tf.cast(attend(*as_float32), value.dtype)


class _Chunks:
    """The keys cut into chunks, and a loop over them that compiles to one piece of graph."""

    def __init__(self, length: tf.Tensor, size: int):
        self.length, self.size = length, size
        self.count = (length + size - 1) // size

    def cut(self, tensor: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Return the chunk's part of a tensor of shape (B, H, S, K); the last one may be shorter."""
        return tensor[:, :, index * self.size : (index + 1) * self.size]

    def fold(self, step: Callable, start: tuple, arrays: int = 0) -> tuple:
        """Call state = step(index, *state) for every chunk; no two at a time, or memory would grow again."""
        made = [tf.TensorArray(tf.float32, self.count, infer_shape=False) for _ in range(arrays)]
        return tf.while_loop(
            lambda index, *_: index < self.count,
            lambda index, *state: (index + 1, *step(index, *state)),
            (tf.constant(0), *start, *made),
            parallel_iterations=1,
        )[1:]


def _forward(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, keep: Callable, chunks: _Chunks
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the mixed values, (B, H, T, K), and ln of each query's sum of exp(score), (B, H, T, 1)."""

    def step(index: tf.Tensor, largest: tf.Tensor, total: tf.Tensor, mixed: tf.Tensor) -> tuple:
        scores, allowed = _scores(query, key, keep, chunks, index)  # (B, H, T, C)
        new_largest = tf.maximum(largest, tf.reduce_max(scores, axis=-1, keepdims=True))
        weights = tf.where(allowed, tf.exp(scores - new_largest), 0.0)
        rescale = tf.exp(largest - new_largest)
        total = total * rescale + tf.reduce_sum(weights, axis=-1, keepdims=True)
        mixed = mixed * rescale + tf.matmul(weights, chunks.cut(value, index))
        return new_largest, total, mixed

    ones = tf.ones_like(query[..., :1])  # (B, H, T, 1)
    nothing = tf.zeros_like(ones) * tf.zeros((value.shape[-1],))  # (B, H, T, K)
    largest, total, mixed = chunks.fold(step, (MASKED_SCORE * ones, 0 * ones, nothing))
    found = total > 0
    total = tf.where(found, total, 1.0)
    return mixed / total, tf.where(found, largest, 0.0) + tf.math.log(total)


def _backward(
    upstream: tf.Tensor,
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    mixed: tf.Tensor,
    log_sums: tf.Tensor,
    keep: Callable,
    chunks: _Chunks,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the gradients of query, key and value."""
    # The softmax's Jacobian needs sum_s weight_s * d weight_s, which is d mixed · mixed: no need to see all keys.
    mean = tf.reduce_sum(upstream * mixed, axis=-1, keepdims=True)  # (B, H, T, 1)

    def step(index: tf.Tensor, d_query: tf.Tensor, d_keys: tf.TensorArray, d_values: tf.TensorArray) -> tuple:
        scores, allowed = _scores(query, key, keep, chunks, index)
        weights = tf.where(allowed, tf.exp(scores - log_sums), 0.0)  # (B, H, T, C)
        d_weights = tf.matmul(upstream, chunks.cut(value, index), transpose_b=True)
        d_scores = weights * (d_weights - mean)
        d_key = tf.matmul(d_scores, query, transpose_a=True)  # (B, H, C, K)
        d_value = tf.matmul(weights, upstream, transpose_a=True)
        return (
            d_query + tf.matmul(d_scores, chunks.cut(key, index)),
            d_keys.write(index, _chunk_first(d_key)),
            d_values.write(index, _chunk_first(d_value)),
        )

    d_query, d_keys, d_values = chunks.fold(step, (tf.zeros_like(query),), arrays=2)
    return (
        d_query,
        tf.ensure_shape(_chunk_first(d_keys.concat()), key.shape),
        tf.ensure_shape(_chunk_first(d_values.concat()), value.shape),
    )


def _scores(
    query: tf.Tensor, key: tf.Tensor, keep: Callable, chunks: _Chunks, index: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a chunk's scores, (B, H, T, C), and which of them are allowed."""
    scores = tf.matmul(query, chunks.cut(key, index), transpose_b=True)
    start = index * chunks.size
    allowed = keep(start, tf.minimum(start + chunks.size, chunks.length))
    return tf.where(allowed, scores, MASKED_SCORE), allowed


def _keeper(query: tf.Tensor, key: tf.Tensor, mask: Any | None, causal: bool) -> Callable:
    """Return a function from a range of keys to the mask for it, broadcastable to (B, H, T, C)."""
    queries = tf.range(tf.shape(query)[2])[:, None]
    mask = None if mask is None else tf.cast(tf.convert_to_tensor(mask), tf.bool)
    if mask is not None and mask.shape[-1] not in (None, 1, key.shape[2]):
        raise ValueError(
            f"mask must be broadcastable to (B, H, T, S) with S = {key.shape[2]}; got {tuple(mask.shape)}."
        )

    def keep(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        allowed = tf.constant(True)
        if causal:
            allowed &= tf.range(start, stop)[None, :] <= queries  # (T, C)
        if mask is not None:
            allowed &= mask if mask.shape[-1] == 1 else mask[..., start:stop]
        return allowed

    return keep


def _chunk_first(tensor: tf.Tensor) -> tf.Tensor:
    """Exchange the axes of keys and rows, so that chunks of unequal length can be joined along the first."""
    return tf.transpose(tensor, (2, 1, 0, 3))
