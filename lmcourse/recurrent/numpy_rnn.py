"""A simple recurrent network in NumPy: forward, backward through time, and the check of its gradient.

Letters for shapes: `B` rows, `T` time, `D` width of the input, `H` units.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]


@dataclasses.dataclass(frozen=True)
class RNNWeights:
    """The weights of a simple RNN, laid out as in `keras.layers.SimpleRNN.get_weights()`.

    Attributes:
        kernel: from the input, (D, H).
        recurrent_kernel: from the state before, (H, H).
        bias: (H,).

    Raises:
        ValueError: if the shapes do not fit together.
    """

    kernel: Floats
    recurrent_kernel: Floats
    bias: Floats

    def __post_init__(self):
        shapes = [np.shape(weights) for weights in (self.kernel, self.recurrent_kernel, self.bias)]
        units = shapes[-1][0] if shapes[-1] else 0
        if len(shapes[0]) != 2 or [shapes[0][1:], *shapes[1:]] != [(units,), (units, units), (units,)]:
            raise ValueError(
                "kernel, recurrent_kernel and bias must have shapes (D, H), (H, H) and (H,); "
                f"got {shapes[0]}, {shapes[1]} and {shapes[2]}."
            )


@dataclasses.dataclass(frozen=True)
class RNNGradients:
    """The gradient of a loss with respect to all that a simple RNN reads.

    Attributes:
        inputs: (B, T, D).
        initial_state: (B, H).
        weights: with respect to the weights, in their layout.
    """

    inputs: Floats
    initial_state: Floats
    weights: RNNWeights


def rnn_forward(inputs: ArrayLike, weights: RNNWeights, initial_state: ArrayLike | None = None) -> Floats:
    """Return the states of a simple RNN: h_t = tanh(x_t W + h_{t-1} U + b).

    Args:
        inputs: floats of shape (B, T, D).
        weights: W, U and b.
        initial_state: h before the first step, (B, H); zeros by default.

    Returns:
        The state after each step, (B, T, H).

    Raises:
        ValueError: if inputs is not (B, T, D), or initial_state not (B, H).

    Example:
        >>> weights = RNNWeights(kernel=np.eye(1), recurrent_kernel=np.eye(1), bias=np.zeros(1))
        >>> rnn_forward([[[1.0], [0.0]]], weights).round(4).tolist()  # tanh(1), then tanh(tanh(1))
        [[[0.7616], [0.642]]]

    Reference: Elman 1990, "Finding structure in time", Cognitive Science 14(2).
    """
    inputs, state = _checked(inputs, weights, initial_state)
    states = np.empty((*inputs.shape[:2], state.shape[1]), dtype=state.dtype)  # (B, T, H)
    for t in range(inputs.shape[1]):
        state = np.tanh(inputs[:, t] @ weights.kernel + state @ weights.recurrent_kernel + weights.bias)
        states[:, t] = state
    return states


def rnn_backward(
    state_gradients: ArrayLike,
    inputs: ArrayLike,
    states: ArrayLike,
    weights: RNNWeights,
    initial_state: ArrayLike | None = None,
) -> RNNGradients:
    """Return a loss's gradients by backpropagation through time.

    A state acts on the loss twice: directly, and through the state after it. So the steps are walked from the last
    to the first, and what comes back from step t + 1 is added to what the loss says of step t.

    Args:
        state_gradients: the gradient of the loss with respect to each state, directly, (B, T, H).
        inputs: what `rnn_forward` read, (B, T, D).
        states: what it returned, (B, T, H).
        weights: as given to it.
        initial_state: as given to it.

    Raises:
        ValueError: if a shape does not fit.

    Reference: Werbos 1990, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78(10).
    """
    inputs, first = _checked(inputs, weights, initial_state)
    states, state_gradients = np.asarray(states), np.asarray(state_gradients)
    expected = (*inputs.shape[:2], first.shape[1])
    if not states.shape == state_gradients.shape == expected:
        raise ValueError(
            f"states and state_gradients must both be (B, T, H) = {expected}; "
            f"got {states.shape} and {state_gradients.shape}."
        )
    before = np.concatenate([first[:, None], states[:, :-1]], axis=1)  # (B, T, H): the state each step read
    sums = np.empty_like(states)  # (B, T, H): the gradient inside the tanh
    from_later = np.zeros_like(first)  # (B, H)
    for t in reversed(range(inputs.shape[1])):
        # tanh' = 1 - tanh²
        sums[:, t] = (state_gradients[:, t] + from_later) * (1 - states[:, t] ** 2)
        from_later = sums[:, t] @ weights.recurrent_kernel.T
    return RNNGradients(
        inputs=sums @ weights.kernel.T,
        initial_state=from_later,
        # The weights are the same at every step, so their gradient is the sum over rows and steps.
        weights=RNNWeights(
            kernel=np.einsum("btd,bth->dh", inputs, sums),
            recurrent_kernel=np.einsum("btg,bth->gh", before, sums),
            bias=sums.sum(axis=(0, 1)),
        ),
    )


def finite_differences(loss: Callable[[Floats], float], at: ArrayLike, step: float = 1e-5) -> Floats:
    """Return the gradient of a function by moving each number a little up and down.

    Args:
        loss: a function of an array; what it returns must not depend on calls before.
        at: where to take the gradient; any shape, float64.
        step: how far to move. The error is of the order step² from the curvature plus 1e-16 / step from rounding:
            least near 1e-5.

    Returns:
        (loss(at + step) - loss(at - step)) / (2 step) for each entry, in the shape of `at`.

    Raises:
        ValueError: if step is not positive.

    Example:
        >>> finite_differences(lambda x: float((x**2).sum()), [1.0, -3.0]).round(6).tolist()
        [2.0, -6.0]
    """
    if not step > 0:
        raise ValueError(f"step must be positive; got {step}.")
    at = np.array(at, dtype=np.float64)
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        moved = [at.copy(), at.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
    return gradient


def _checked(
    inputs: ArrayLike, weights: RNNWeights, initial_state: ArrayLike | None
) -> tuple[Floats, Floats]:
    """Return the inputs and the first state as arrays, or say what is wrong with them."""
    inputs = np.asarray(inputs)
    width, units = np.shape(weights.kernel)
    if inputs.ndim != 3 or inputs.shape[2] != width:
        raise ValueError(f"inputs must be (B, T, D) with D = {width} as in kernel; got {inputs.shape}.")
    if initial_state is None:
        return inputs, np.zeros((len(inputs), units), dtype=np.result_type(inputs, weights.kernel))
    state = np.asarray(initial_state)
    if state.shape != (len(inputs), units):
        raise ValueError(f"initial_state must be (B, H) = {(len(inputs), units)}; got {state.shape}.")
    return inputs, state
