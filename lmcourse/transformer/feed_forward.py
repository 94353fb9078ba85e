"""The feed-forward network of a block: it looks at each position alone, where attention looks at all of them.

Letters for shapes: `B` rows, `T` time, `D` width, `F` width of the hidden layer.
"""

from typing import Any, get_args

import keras
from keras import ops

from lmcourse.attention.multi_head import sizes
from lmcourse.core import check_positive
from lmcourse.transformer.config import Activation


@keras.saving.register_keras_serializable(package="lmcourse")
class FeedForward(keras.layers.Layer):
    """Widen each vector to F numbers, bend them, and narrow the result to D again.

    With "relu", "gelu" and "gelu_tanh" it is W₂ f(W₁ x + b₁) + b₂: nothing bends what the second matrix gives. With
    "swiglu" a second matrix opens or closes a gate for each hidden number: W₂ (silu(W_g x) · W₁ x).

    Args:
        hidden_dim: F.
        activation: f: "relu", "gelu" (exact), "gelu_tanh" (the approximation that GPT-2 uses) or "swiglu".
        use_bias: whether the matrices have biases.
        kernel_initializer: of the matrices that widen.
        output_initializer: of the matrix that narrows; as the others by default.

    Raises:
        ValueError: if hidden_dim is below 1 or the activation unknown; in a call, if x is not (B, T, D).

    Example:
        >>> layer = FeedForward(8, activation="swiglu")
        >>> layer(ops.ones((1, 3, 4))).shape, layer.count_params()  # 2 · (4 + 1) · 8 + (8 + 1) · 4
        (TensorShape([1, 3, 4]), 116)

    Reference: Vaswani et al. 2017, arXiv:1706.03762, equation 2; Hendrycks and Gimpel 2016, arXiv:1606.08415 (GELU);
    Shazeer 2020, "GLU variants improve Transformer", arXiv:2002.05202, equation 6 (SwiGLU).
    """

    def __init__(
        self,
        hidden_dim: int,
        activation: Activation = "gelu",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        output_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(hidden_dim=hidden_dim)
        if activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {get_args(Activation)}; got {activation!r}.")
        self.hidden_dim, self.activation, self.use_bias = hidden_dim, activation, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_initializer = self.kernel_initializer
        if output_initializer is not None:
            self.output_initializer = keras.initializers.get(output_initializer)
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Make the matrices."""
        _check_shape(input_shape)
        self.widen = self._dense(self.hidden_dim, self.kernel_initializer, "widen")
        self.gate = None
        if self.activation == "swiglu":
            self.gate = self._dense(self.hidden_dim, self.kernel_initializer, "gate")
            self.gate.build(input_shape)
        self.narrow = self._dense(input_shape[-1], self.output_initializer, "narrow")
        self.widen.build(input_shape)
        self.narrow.build((*input_shape[:-1], self.hidden_dim))
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """Return (B, T, D) of (B, T, D)."""
        _check_shape(x.shape)
        # What happens to a token does not depend on its row: for matrices all rows are one.
        tokens = ops.reshape(x, (-1, x.shape[-1]))  # (B·T, D)
        hidden = self.widen(tokens)  # (B·T, F)
        if self.gate is not None:
            hidden = ops.silu(self.gate(tokens)) * hidden
        elif self.activation == "relu":
            hidden = ops.relu(hidden)
        else:
            hidden = ops.gelu(hidden, approximate=self.activation == "gelu_tanh")
        return ops.reshape(self.narrow(hidden), sizes(x))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return (B, T, D)."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }

    def _dense(self, units: int, initializer: Any, name: str) -> keras.layers.Dense:
        fresh = initializer.clone()  # so that no two matrices start equal
        return keras.layers.Dense(
            units, use_bias=self.use_bias, kernel_initializer=fresh, name=name, dtype=self.dtype_policy
        )


def _check_shape(shape: tuple) -> None:
    if len(shape) != 3:
        raise ValueError(f"x must have shape (B, T, D); got {tuple(shape)}.")
