"""How a Transformer knows where a token stands; attention alone would not notice if two tokens changed places.

Letters for shapes: `B` rows, `T` time, `S` keys, `D` width, `H` heads, `K` width of a head.
"""

from typing import Any, get_args

import numpy as np
from keras import ops
from numpy.typing import NDArray

from lmcourse.core import check_positive
from lmcourse.transformer.config import Pairing

# The slowest sinusoid, and by default the slowest rotation, takes 2π times this many positions.
BASE = 10_000.0


def sinusoidal_encoding(length: int, width: int) -> NDArray[np.float32]:
    """Return a vector for each position: sines and cosines of wavelengths from 2π to 2π · 10,000 positions.

    Column 2i is sin(t / 10000^(2i/D)), column 2i + 1 the cosine of the same angle. It is added to the embedding.

    Args:
        length: T.
        width: D, even.

    Returns:
        (T, D).

    Raises:
        ValueError: if a size is below 1, or width is odd.

    Example:
        >>> sinusoidal_encoding(2, 4).round(3).tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.8410000205039978, 0.5400000214576721, 0.009999999776482582, 1.0]]

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    check_positive(length=length, width=width)
    if width % 2:
        raise ValueError(f"width must be even, a sine and a cosine for each wavelength; got {width}.")
    frequencies = BASE ** (-np.arange(0, width, 2) / width)  # (D/2,)
    angles = np.arange(length)[:, None] * frequencies  # (T, D/2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width).astype(np.float32)


def rotary_angles(positions: Any, width: int, base: float = BASE) -> tuple[Any, Any]:
    """Return the cosine and the sine of the angles by which each pair of a head's numbers turns.

    Args:
        positions: integers of shape (..., T).
        width: K, even.
        base: pair i turns by t / base^(2i/K) at position t.

    Returns:
        Two float32 tensors, (..., T, K/2).

    Raises:
        ValueError: if width is odd.
    """
    if width % 2:
        raise ValueError(f"width must be even: rotation turns pairs of numbers; got {width}.")
    # The frequencies in float64, rounded once; the angles are float32, as in published models.
    frequencies = (base ** (-np.arange(0, width, 2) / width)).astype(np.float32)
    angles = ops.cast(positions, "float32")[..., None] * frequencies  # (..., T, K/2)
    return ops.cos(angles), ops.sin(angles)


def rotate(heads: Any, rotation: tuple[Any, Any], pairing: Pairing = "half") -> Any:
    """Turn each pair of numbers by its angle, as points in a plane.

    The dot product of a query turned by its position and a key turned by its own depends on the distance of the two
    alone: rotations by a and by b leave the angle a - b between them.

    Args:
        heads: queries or keys, (B, H, T, K).
        rotation: cosines and sines, each (T, K/2) or (B, 1, T, K/2), from `rotary_angles`.
        pairing: whether number i turns with number i + K/2 ("half"), or 2i with 2i + 1 ("interleaved").

    Returns:
        (B, H, T, K), in the dtype of heads.

    Raises:
        ValueError: if there is no such pairing.

    Example:
        A quarter turn takes the point (1, 0) to (0, 1):

        >>> quarter = ops.cos([[np.pi / 2]]), ops.sin([[np.pi / 2]])
        >>> (rotate(ops.convert_to_tensor([[[[1.0, 0.0]]]]), quarter).numpy().round(6) + 0).tolist()
        [[[[0.0, 1.0]]]]

    Reference: Su et al. 2021, "RoFormer", arXiv:2104.09864, section 3.4.2 (interleaved); the half-split form has the
    same effect up to an order of the columns, and is that of most published weights.
    """
    check_pairing(pairing=pairing)
    cos, sin = (ops.cast(part, heads.dtype) for part in rotation)
    if pairing == "half":
        first, second = ops.split(heads, 2, axis=-1)  # (B, H, T, K/2)
        return ops.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    first, second = heads[..., 0::2], heads[..., 1::2]
    turned = ops.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)  # (B, H, T, K/2, 2)
    return ops.reshape(turned, ops.shape(heads))


def check_pairing(**pairing: Any) -> None:
    """Refuse a pairing that there is not; it comes by the name of the argument it came as."""
    for name, value in pairing.items():
        if value not in get_args(Pairing):
            raise ValueError(f"{name} must be one of {get_args(Pairing)}; got {value!r}.")


def alibi_slopes(num_heads: int) -> NDArray[np.float32]:
    """Return how fast each head's scores fall with distance: for 8 heads 1/2, 1/4, … 1/256.

    For a number of heads that is no power of two, the slopes of the next smaller power come first, then every other
    one of the next larger power's.

    Args:
        num_heads: H.

    Returns:
        (H,).

    Example:
        >>> alibi_slopes(4).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625]

    Reference: Press, Smith and Lewis 2022, "Train short, test long", arXiv:2108.12409, section 3.
    """
    check_positive(num_heads=num_heads)
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    between = [2.0 ** (-4.0 * (2 * i + 1) / power) for i in range(num_heads - power)]
    return np.array(slopes + between, dtype=np.float32)


def alibi_bias(num_heads: int, query_positions: Any, key_positions: Any) -> Any:
    """Return what is added to the scores: minus the distance of query and key, times the head's slope.

    Args:
        num_heads: H.
        query_positions: integers of shape (..., T).
        key_positions: integers of shape (..., S).

    Returns:
        float32, (..., H, T, S).
    """
    distance = ops.cast(query_positions[..., :, None] - key_positions[..., None, :], "float32")  # (..., T, S)
    return -ops.abs(distance)[..., None, :, :] * alibi_slopes(num_heads)[:, None, None]
