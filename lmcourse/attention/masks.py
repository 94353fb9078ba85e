"""Masks: which positions a query may attend to. True means it may.

Letters for shapes: `B` rows, `T` queries, `S` keys. Masks are combined with `&` and `|`; broadcasting gives a mask of
(T, S) and one of (B, 1, S) the shape (B, T, S).
"""

from typing import Any

from keras import ops

from lmcourse.core import check_positive


def padding_mask(lengths: Any, max_length: int | None = None) -> Any:
    """Return the mask that keeps padding from being attended to.

    Args:
        lengths: integers of shape (B,): how many tokens of each row are real; the rest is padding on the right.
        max_length: S, the rows' length with their padding; by default the longest length.

    Returns:
        bool tensor of shape (B, 1, S): the same keys for every query of a row.

    Raises:
        ValueError: if lengths is not of shape (B,) or max_length is below 1.

    Example:
        >>> padding_mask([2, 3]).numpy().astype(int).tolist()
        [[[1, 1, 0]], [[1, 1, 1]]]
    """
    lengths = ops.convert_to_tensor(lengths, dtype="int32")
    if len(lengths.shape) != 1:
        raise ValueError(
            f"lengths must have shape (B,), one number of tokens for each row; got {lengths.shape}."
        )
    if max_length is None:
        max_length = ops.max(lengths)
    else:
        check_positive(max_length=max_length)
    return (ops.arange(max_length) < lengths[:, None])[:, None, :]  # (B, 1, S)


def causal_mask(length: Any, offset: Any = 0) -> Any:
    """Return the mask that hides the future: the query at position t sees the keys at 0..t.

    Args:
        length: T, how many queries.
        offset: the position of the first query, when the keys before it are already there (as in a cache).

    Returns:
        bool tensor of shape (T, S) with S = offset + T.

    Raises:
        ValueError: if length is below 1 or offset is negative.

    Example:
        >>> causal_mask(3).numpy().astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        >>> causal_mask(1, offset=2).numpy().astype(int).tolist()
        [[1, 1, 1]]
    """
    queries, keys = _positions(length, offset)
    return keys <= queries


def sliding_window_mask(length: Any, window: int, offset: Any = 0) -> Any:
    """Return the causal mask that sees only the last keys: the query's own position and window - 1 before it.

    Args:
        length: T, how many queries.
        window: how many keys a query sees at most.
        offset: the position of the first query.

    Returns:
        bool tensor of shape (T, S) with S = offset + T.

    Raises:
        ValueError: if length or window is below 1 or offset is negative.

    Example:
        >>> sliding_window_mask(4, window=2).numpy().astype(int).tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]

    Reference: Child et al. 2019, "Generating long sequences with sparse transformers", arXiv:1904.10509, section 4.1;
    Beltagy, Peters and Cohan 2020, "Longformer", arXiv:2004.05150, section 3.1.
    """
    check_positive(window=window)
    queries, keys = _positions(length, offset)
    return (keys <= queries) & (keys > queries - window)


def prefix_mask(length: int, prefix: Any) -> Any:
    """Return the mask in which a prefix sees itself whole and what follows it is causal.

    Args:
        length: T = S.
        prefix: how many positions at the start see each other: one integer for all rows, or (B,) of them.

    Returns:
        bool tensor of shape (T, T), or (B, T, T).

    Raises:
        ValueError: if length is below 1, or prefix is neither a number nor (B,), or is negative or longer than the row.

    Example:
        >>> prefix_mask(4, prefix=2).numpy().astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]

    Reference: Raffel et al. 2020, "T5", arXiv:1910.10683, section 3.2.1 and figure 3.
    """
    if isinstance(prefix, int) and not 0 <= prefix <= length:
        raise ValueError(f"prefix must be between 0 and length = {length}; got {prefix}.")
    prefix = ops.convert_to_tensor(prefix, dtype="int32")
    if len(prefix.shape) > 1:
        raise ValueError(f"prefix must be one integer or have shape (B,); got {prefix.shape}.")
    queries, keys = _positions(length, 0)
    return (keys <= queries) | (keys < prefix[..., None, None])


def _positions(length: Any, offset: Any) -> tuple[Any, Any]:
    """Return the positions of the queries, (T, 1), and of the keys, (1, S)."""
    check_positive(length=length)
    if isinstance(offset, int) and offset < 0:
        raise ValueError(f"offset must not be negative; got {offset}.")
    return ops.arange(offset, offset + length)[:, None], ops.arange(offset + length)[None, :]
