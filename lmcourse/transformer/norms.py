"""Norms: bring each position's vector to a standard size, so that no layer's numbers run away.

Letters for shapes: `D` width.
"""

from typing import Any

import keras
from keras import ops

from lmcourse.transformer.config import Norm


class _Norm(keras.layers.Layer):
    """What the norms share: a learned scale, and arithmetic in float32."""

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0; got {epsilon}.")
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Make the scale, (D,), which starts at one."""
        self.scale = self.add_weight(name="scale", shape=input_shape[-1:], initializer="ones")
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})
        super().build(input_shape)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="lmcourse")
class LayerNorm(_Norm):
    """Subtract the mean of the D numbers, divide by their standard deviation, then scale and shift by learned vectors.

    Args:
        epsilon: added to the variance.

    Example:
        >>> LayerNorm()(ops.convert_to_tensor([[1.0, 3.0]])).numpy().round(3).tolist()
        [[-1.0, 1.0]]

    Reference: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv:1607.06450, equation 4.
    """

    def build(self, input_shape: tuple) -> None:
        """Make the scale and the offset, each (D,)."""
        super().build(input_shape)
        self.offset = self.add_weight(name="offset", shape=input_shape[-1:], initializer="zeros")

    def call(self, x: Any) -> Any:
        """Return the normalised vectors, in the shape of x."""
        exact = ops.cast(x, "float32")
        centred = exact - ops.mean(exact, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        normalised = centred * ops.rsqrt(variance + self.epsilon)
        scale, offset = ops.cast(self.scale, "float32"), ops.cast(self.offset, "float32")
        return ops.cast(normalised * scale + offset, self.compute_dtype)


@keras.saving.register_keras_serializable(package="lmcourse")
class RMSNorm(_Norm):
    """Divide by the root of the mean square of the D numbers, then scale by a learned vector.

    The mean is not subtracted, and nothing is shifted.

    Args:
        epsilon: added to the mean square.

    Example:
        >>> RMSNorm()(ops.convert_to_tensor([[1.0, 7.0]])).numpy().round(3).tolist()  # √((1 + 49) / 2) = 5
        [[0.20000000298023224, 1.399999976158142]]

    Reference: Zhang and Sennrich 2019, "Root mean square layer normalization", arXiv:1910.07467, equation 4.
    """

    def call(self, x: Any) -> Any:
        """Return the normalised vectors, in the shape of x."""
        exact = ops.cast(x, "float32")
        mean_square = ops.mean(ops.square(exact), axis=-1, keepdims=True)
        normalised = exact * ops.rsqrt(mean_square + self.epsilon)
        return ops.cast(normalised * ops.cast(self.scale, "float32"), self.compute_dtype)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}


def make_norm(norm: Norm, epsilon: float, **kwargs: Any) -> keras.layers.Layer:
    """Return a norm by its name in a config: "layer" or "rms", or for "none" a layer that changes nothing."""
    return keras.layers.Identity(**kwargs) if norm == "none" else NORMS[norm](epsilon, **kwargs)
