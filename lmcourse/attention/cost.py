"""What attention costs as rows get longer: time and memory, measured, and the power of the length that they follow.

Letters for shapes: `B` rows, `H` heads, `T` time, `K` head width.
"""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import tensorflow as tf
from numpy.typing import ArrayLike

from lmcourse.attention.chunked import chunked_attention
from lmcourse.attention.scores import scaled_dot_product_attention

Kind = Literal["plain", "chunked"]

ATTENTIONS: dict[str, Callable[..., tf.Tensor]] = {
    "plain": lambda query, key, value: scaled_dot_product_attention(query, key, value)[0],
    "chunked": chunked_attention,
}

# Where Linux lets a process reset the highest point of its memory.
PEAK_RESET = Path("/proc/self/clear_refs")

# A call that takes less than this is repeated: below, the clock and other programs disturb too much.
MEASURED_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one forward and backward pass over a row took.

    Attributes:
        length: T.
        seconds: the fastest of the passes measured.
        mebibytes: the most memory that the pass needed beyond its inputs, or NaN if it was not measured.
    """

    length: int
    seconds: float
    mebibytes: float = float("nan")


def measure_cost(
    kind: Kind, lengths: Sequence[int], *, heads: int = 4, width: int = 32, memory: bool = False
) -> list[Cost]:
    """Measure self-attention, forward and backward, at several lengths.

    Args:
        kind: "plain" or "chunked".
        lengths: the values of T.
        heads: H.
        width: K.
        memory: whether to measure memory, too: each length in a process of its own, which takes some seconds, since a
            process's memory only ever grows to its highest point.

    Raises:
        ValueError: if kind is unknown, or a length is below 1.
    """
    if kind not in ATTENTIONS:
        raise ValueError(f"kind must be one of {list(ATTENTIONS)}; got {kind!r}.")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths must be one or more numbers, 1 or more; got {list(lengths)}.")
    return [
        Cost(
            length,
            _seconds(kind, length, heads, width),
            peak_mebibytes(kind, length, heads=heads, width=width) if memory else float("nan"),
        )
        for length in lengths
    ]


def fit_exponent(lengths: ArrayLike, costs: ArrayLike) -> float:
    """Return the power p with which a cost grows: the slope of its logarithm over the length's.

    Args:
        lengths: two or more different lengths.
        costs: what was measured at each, above zero.

    Raises:
        ValueError: if there are fewer than two different lengths, or a number is not above zero.

    Example:
        >>> round(fit_exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
        2.0
    """
    lengths, costs = np.asarray(lengths, dtype=float), np.asarray(costs, dtype=float)
    if lengths.shape != costs.shape or len(np.unique(lengths)) < 2:
        raise ValueError(
            f"lengths and costs must be equally many, at two lengths or more; got {lengths} and {costs}."
        )
    if not (lengths > 0).all() or not (costs > 0).all():
        raise ValueError(f"lengths and costs must be above zero; got {lengths} and {costs}.")
    return float(np.polyfit(np.log(lengths), np.log(costs), 1)[0])


def peak_mebibytes(kind: Kind, length: int, *, heads: int = 4, width: int = 32) -> float:
    """Return how much memory a pass, forward and backward, needs at its highest point beyond its inputs, in MiB.

    Measured in a fresh process, which first passes over a short row, so that what TensorFlow takes for itself does not
    count. Only on Linux, where a process can have its highest point counted anew; elsewhere NaN.
    """
    if not PEAK_RESET.exists():
        return float("nan")
    code = "from lmcourse.attention.cost import _peak_of_this_process as peak; print(peak"
    call = [sys.executable, "-c", f"{code}{(kind, length, heads, width)})"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _peak_of_this_process(kind: str, length: int, heads: int, width: int) -> float:
    step = _compiled(kind, heads, width)
    step(_row(16, heads, width))
    row = _row(length, heads, width)
    before = psutil.Process().memory_info().rss / 2**20
    PEAK_RESET.write_text("5")  # see proc(5)
    step(row).numpy()
    status = Path("/proc/self/status").read_text()
    highest = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(highest.split()[1]) / 2**10 - before


def _seconds(kind: str, length: int, heads: int, width: int) -> float:
    step, row = _compiled(kind, heads, width), _row(length, heads, width)
    step(row)
    fastest, spent = float("inf"), 0.0
    while spent < MEASURED_SECONDS:
        began = time.perf_counter()
        step(row).numpy()
        took = time.perf_counter() - began
        fastest, spent = min(fastest, took), spent + took
    return fastest


@functools.lru_cache(maxsize=8)
def _compiled(kind: str, heads: int, width: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the gradient of self-attention as one graph, for rows of any length."""
    attend = ATTENTIONS[kind]

    def gradient(row: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(row)
            loss = tf.reduce_sum(attend(row, row, row) ** 2)
        return tape.gradient(loss, row)

    return tf.function(gradient, [tf.TensorSpec((1, heads, None, width), tf.float32)])


def _row(length: int, heads: int, width: int) -> tf.Tensor:
    return tf.random.stateless_normal((1, heads, length, width), seed=[0, length])
