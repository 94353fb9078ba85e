"""Simple RNN, LSTM and GRU as Keras layers: each one's `step` is its equations, the loop is shared.

The weights have the layout of Keras's own layers, so `ours.set_weights(keras_layer.get_weights())` and the
reverse work. Whatever does not wait for the state before, the product with the inputs, is one matrix product for
all steps; only the product with the state stays in the loop. On a CPU this is faster than Keras's loop, and takes
memory for what it prepares (`python -m benchmarks recurrent` shows both). On a GPU Keras's own LSTM and GRU call
cuDNN's fused kernels where they can, which should be faster than any loop (not measured here): move the weights over.

Letters for shapes: `B` rows, `T` time, `D` width of the input, `H` units, `G` gates.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf
from keras import ops

States = tuple[Any, ...]


class RecurrentLayer(keras.layers.Layer):
    """A layer that reads a sequence step by step and carries a state along.

    A subclass says how many gates and state tensors it has and what one step does.

    Call arguments:
        sequences: floats of shape (B, T, D).
        initial_state: the state tensors before the first step, each (B, H); zeros by default.
        mask: bool of shape (B, T). Where it is False the step is passed over: state and output stay as they were.

    Returns:
        The output of every step, (B, T, H); with `return_state` followed by the state tensors after the last
        step, each (B, H).

    Args:
        units: H, at least 1.
        return_state: whether to return the last state too.
        kernel_initializer: of the weights from the input.
        recurrent_initializer: of the weights from the state. Orthogonal ones neither shrink nor stretch a vector.
        **kwargs: what every Keras layer takes (name, dtype, trainable).

    Raises:
        ValueError: if units is less than 1; when called, if a shape does not fit.
    """

    gates: ClassVar[int]
    state_tensors: ClassVar[int] = 1

    def __init__(
        self,
        units: int,
        *,
        return_state: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1; got {units}.")
        self.units = units
        self.return_state = return_state
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.supports_masking = True

    def project(self, inputs: Any) -> Any:
        """Return what the inputs, (…, D), add to the gates, (…, G * H): x W + b."""
        return ops.matmul(inputs, self.kernel) + self.bias

    def step(self, projected: Any, states: States) -> States:
        """Return the states after one step.

        Args:
            projected: `project` of this step's input, (B, G * H).
            states: the states before, each (B, H).

        Returns:
            The states after; the first of them is also the output.
        """
        raise NotImplementedError

    def advance(self, inputs: Any, states: States) -> tuple[Any, States]:
        """Read one token's input: a step of generation.

        Args:
            inputs: (B, D).
            states: the states before, each (B, H).

        Returns:
            The output, (B, H), and the states after.
        """
        states = self.step(self.project(inputs), tuple(states))
        return states[0], states

    def get_initial_state(self, batch_size: int) -> States:
        """Return states of zeros, each (B, H)."""
        return tuple(
            ops.zeros((batch_size, self.units), self.compute_dtype) for _ in range(self.state_tensors)
        )

    def build(self, sequences_shape: Sequence[int | None], initial_state_shape: Any = None) -> None:
        """Make the weights for inputs of this shape, (B, T, D)."""
        self._check_shape(sequences_shape)
        width, gates = sequences_shape[-1], self.gates * self.units
        self.kernel = self.add_weight(
            name="kernel", shape=(width, gates), initializer=self.kernel_initializer
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, gates), initializer=self.recurrent_initializer
        )
        self.bias = self._add_bias()
        self.built = True

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None) -> Any:
        """Read sequences; see the class."""
        self._check_shape(sequences.shape)
        states = self._first_states(sequences, initial_state)
        if mask is not None and len(mask.shape) != 2:
            raise ValueError(f"mask must have shape (B, T); got {tuple(mask.shape)}.")
        outputs, *last = self._loop(self.project(sequences), states, mask)
        return (outputs, *last) if self.return_state else outputs

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """Pass the mask on with the outputs; the last states have none."""
        return (mask, *(None,) * self.state_tensors) if self.return_state else mask

    def compute_output_shape(
        self, sequences_shape: Sequence[int | None], initial_state_shape: Any = None
    ) -> Any:
        """Return (B, T, H), with `return_state` followed by (B, H) for each state tensor."""
        rows, time = sequences_shape[:2]
        outputs = (rows, time, self.units)
        return (outputs, *((rows, self.units),) * self.state_tensors) if self.return_state else outputs

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "return_state": self.return_state,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
        }

    def _loop(self, projected: Any, states: States, mask: Any) -> tuple[Any, ...]:
        """Return the outputs of all steps, (B, T, H), and the last states.

        `ops.scan` would be shorter, but takes no mask where the length is not known in advance, and keeps every
        state tensor's history. `tf.gather(projected, t)` for the arrays would be slow: its gradient fills a tensor
        of all steps at each one.
        """
        shape = projected.shape
        steps = tf.shape(projected)[1]
        inputs = _by_step(projected)
        real = None if mask is None else _by_step(ops.cast(mask, "bool")[..., None])  # (B, 1) each
        outputs = tf.TensorArray(projected.dtype, steps, element_shape=(shape[0], self.units))

        def read_one(t, before, outputs):
            after = self.step(inputs.read(t), before)
            if real is not None:
                kept = real.read(t)
                after = tuple(ops.where(kept, new, old) for new, old in zip(after, before, strict=True))
            return t + 1, after, outputs.write(t, after[0])

        _, states, outputs = tf.while_loop(
            lambda t, *_: t < steps,
            read_one,
            (0, states, outputs),
            shape_invariants=(
                tf.TensorShape([]),
                (tf.TensorShape((None, self.units)),) * self.state_tensors,
                tf.TensorShape(None),
            ),
        )
        outputs = ops.swapaxes(outputs.stack(), 0, 1)  # (B, T, H)
        outputs.set_shape((shape[0], shape[1], self.units))
        return (outputs, *states)

    def _add_bias(self) -> Any:
        return self.add_weight(name="bias", shape=(self.gates * self.units,), initializer="zeros")

    def _first_states(self, sequences: Any, initial_state: Any) -> States:
        if initial_state is None:
            return self.get_initial_state(ops.shape(sequences)[0])
        states = tuple(initial_state) if isinstance(initial_state, (list, tuple)) else (initial_state,)
        shapes = [tuple(state.shape) for state in states]
        if len(states) != self.state_tensors or any(
            len(shape) != 2 or shape[1] != self.units for shape in shapes
        ):
            raise ValueError(
                f"initial_state must be {self.state_tensors} tensor(s) of shape (B, {self.units}); got {shapes}."
            )
        return tuple(ops.cast(state, self.compute_dtype) for state in states)

    def _check_shape(self, shape: Sequence[int | None]) -> None:
        if len(shape) != 3 or shape[-1] is None:
            raise ValueError(f"sequences must have shape (B, T, D); got {tuple(shape)}.")
        if 0 in shape:
            raise ValueError(f"sequences must have at least one row, step and feature; got {tuple(shape)}.")
        if self.built and shape[-1] != self.kernel.shape[0]:
            raise ValueError(
                f"sequences must have the width this layer was built for, {self.kernel.shape[0]}; got {shape[-1]}."
            )


@keras.saving.register_keras_serializable(package="lmcourse")
class SimpleRNN(RecurrentLayer):
    """h_t = activation(x_t W + h_{t-1} U + b).

    Args:
        units: H.
        activation: a function's name, "tanh" by default.
        **kwargs: see `RecurrentLayer`.

    Example:
        >>> SimpleRNN(5)(ops.ones((2, 3, 4))).shape
        TensorShape([2, 3, 5])

    Reference: Elman 1990, "Finding structure in time", Cognitive Science 14(2).
    """

    gates = 1

    def __init__(self, units: int, *, activation: Any = "tanh", **kwargs: Any):
        super().__init__(units, **kwargs)
        self.activation = keras.activations.get(activation)

    def step(self, projected: Any, states: States) -> States:
        """Return the state after one step; see `RecurrentLayer.step`."""
        (h,) = states
        return (self.activation(projected + ops.matmul(h, self.recurrent_kernel)),)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable(package="lmcourse")
class LSTM(RecurrentLayer):
    """A state that gates write to, erase and read: c_t = f c_{t-1} + i g, h_t = o tanh(c_t).

    The gates stand in Keras's order in the weights: input i, forget f, candidate g, output o.

    Args:
        units: H.
        unit_forget_bias: whether the forget gate's bias starts at one, so that an untrained cell rather keeps
            (Jozefowicz, Zaremba and Sutskever 2015).
        **kwargs: see `RecurrentLayer`.

    Example:
        >>> outputs, h, c = LSTM(5, return_state=True)(ops.ones((2, 3, 4)))
        >>> outputs.shape, h.shape, c.shape
        (TensorShape([2, 3, 5]), TensorShape([2, 5]), TensorShape([2, 5]))

    Reference: Hochreiter and Schmidhuber 1997, "Long short-term memory", Neural Computation 9(8); the forget gate:
    Gers, Schmidhuber and Cummins 2000, "Learning to forget", Neural Computation 12(10).
    """

    gates = 4
    state_tensors = 2

    def __init__(self, units: int, *, unit_forget_bias: bool = True, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    def step(self, projected: Any, states: States) -> States:
        """Return the states h and c after one step; see `RecurrentLayer.step`."""
        h, c = states
        i, f, g, o = ops.split(projected + ops.matmul(h, self.recurrent_kernel), 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, c

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}

    def _add_bias(self) -> Any:
        def initial(shape, dtype=None):
            bias = ops.zeros((4, self.units), dtype)
            if self.unit_forget_bias:
                bias += ops.reshape(ops.cast([0, 1, 0, 0], dtype), (4, 1))
            return ops.reshape(bias, shape)

        return self.add_weight(name="bias", shape=(4 * self.units,), initializer=initial)


@keras.saving.register_keras_serializable(package="lmcourse")
class GRU(RecurrentLayer):
    """A state that moves part of the way to a candidate: h_t = z h_{t-1} + (1 - z) g.

    The gates stand in Keras's order in the weights: update z, reset r, candidate g. The reset gate can act at two
    places, and the two are different functions with different weights:

    - after the product (the default, and what cuDNN computes): g = tanh(x W + b + r (h U + b'));
    - before it (as Cho et al. wrote it): g = tanh(x W + b + (r h) U).

    Args:
        units: H.
        reset_after: whether the reset gate acts after the product.
        **kwargs: see `RecurrentLayer`.

    Example:
        >>> layer = GRU(5)
        >>> layer(ops.ones((2, 3, 4))).shape
        TensorShape([2, 3, 5])
        >>> [tuple(weight.shape) for weight in layer.weights]
        [(4, 15), (5, 15), (2, 15)]

    Reference: Cho et al. 2014, arXiv:1406.1078, section 2.3.
    """

    gates = 3

    def __init__(self, units: int, *, reset_after: bool = True, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.reset_after = reset_after

    def project(self, inputs: Any) -> Any:
        """Return what the inputs, (…, D), add to the gates, (…, 3 * H)."""
        return ops.matmul(inputs, self.kernel) + (self.bias[0] if self.reset_after else self.bias)

    def step(self, projected: Any, states: States) -> States:
        """Return the state after one step; see `RecurrentLayer.step`."""
        (h,) = states
        xz, xr, xg = ops.split(projected, 3, axis=-1)
        if self.reset_after:
            hz, hr, hg = ops.split(ops.matmul(h, self.recurrent_kernel) + self.bias[1], 3, axis=-1)
            z, r = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
            g = ops.tanh(xg + r * hg)
        else:
            gates = ops.matmul(h, self.recurrent_kernel[:, : 2 * self.units])
            hz, hr = ops.split(gates, 2, axis=-1)
            z, r = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
            g = ops.tanh(xg + ops.matmul(r * h, self.recurrent_kernel[:, 2 * self.units :]))
        return (z * h + (1 - z) * g,)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "reset_after": self.reset_after}

    def _add_bias(self) -> Any:
        width = 3 * self.units
        return self.add_weight(
            name="bias", shape=(2, width) if self.reset_after else (width,), initializer="zeros"
        )


def _by_step(sequences: Any) -> tf.TensorArray:
    """Return (B, T, …) as an array of T tensors (B, …)."""
    steps = ops.swapaxes(sequences, 0, 1)
    return tf.TensorArray(steps.dtype, tf.shape(steps)[0], element_shape=steps.shape[1:]).unstack(steps)


LAYERS: dict[str, type[RecurrentLayer]] = {"simple": SimpleRNN, "gru": GRU, "lstm": LSTM}


def layer_named(kind: str) -> type[RecurrentLayer]:
    """Return a layer's class by its short name.

    Raises:
        ValueError: if there is none.
    """
    if kind not in LAYERS:
        raise ValueError(f"layer must be one of {', '.join(LAYERS)}; got {kind!r}.")
    return LAYERS[kind]
