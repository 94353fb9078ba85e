"""What happens to a gradient on its way back through time: it fades, or it bursts.

Letters for shapes: `B` rows, `T` time, `D` width of the input, `H` units.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lmcourse.recurrent.layers import RecurrentLayer, SimpleRNN, layer_named


def recurrent_layer(kind: str, units: int, width: int, *, gain: float = 1.0, seed: int = 0) -> RecurrentLayer:
    """Return an untrained layer whose recurrent matrix is stretched.

    Args:
        kind: "simple", "gru" or "lstm".
        units: H.
        width: D.
        gain: what the recurrent matrix is multiplied by: it is drawn orthogonal, so that without the activation a
            step back in time multiplies the gradient of a simple RNN by `gain`.
        seed: of the weights.

    Raises:
        ValueError: if there is no such layer.
    """
    layer = layer_named(kind)(
        units,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(gain=gain, seed=seed + 1),
    )
    layer.build((None, None, width))
    return layer


def gradient_norms(
    layer: str | RecurrentLayer,
    length: int = 100,
    *,
    units: int = 64,
    gain: float = 1.0,
    inputs: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return how strongly the last output depends on each input, by distance.

    The loss is a random direction times the last output. Its gradient with respect to an input `distance` steps
    before passes through that many steps, and is multiplied by each one's Jacobian.

    Args:
        layer: "simple", "gru" or "lstm" for an untrained one of `units` and `gain`; or a built layer.
        length: T, how many steps.
        units: H.
        gain: see `recurrent_layer`.
        inputs: what is read, floats (B, T, D); default: 32 rows of standard normal numbers, D = H.
        seed: of the weights, inputs and directions.

    Returns:
        Norms |dL / dx_{T-1-distance}| for the distances 0, 1, … T - 1, (T,): the geometric mean over the rows; 0
        where one vanished entirely.

    Raises:
        ValueError: if length is less than 1, or inputs are not (B, T, D).

    Example:
        >>> norms = gradient_norms("simple", length=60, gain=0.5)
        >>> bool(norms[59] < 1e-10 * norms[0])  # halved at every step, and more by tanh: 2^-59 = 1.7e-18
        True

    Reference: Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is
    difficult", IEEE Trans. Neural Networks 5(2); Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 2.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1; got {length}.")
    if isinstance(layer, str):
        layer = recurrent_layer(layer, units, units, gain=gain, seed=seed)
    generator = np.random.default_rng(seed)
    if inputs is None:
        inputs = generator.normal(size=(32, length, layer.kernel.shape[0]))
    inputs = tf.convert_to_tensor(np.asarray(inputs, dtype=layer.compute_dtype))
    gradient = _last_output_gradient(layer, inputs, generator.normal(size=(len(inputs), layer.units)))
    norms = np.linalg.norm(gradient.numpy().astype(np.float64), axis=-1)[:, ::-1]  # (B, T) by distance
    with np.errstate(divide="ignore"):
        return np.exp(np.log(norms).mean(axis=0))


def _last_output_gradient(layer: RecurrentLayer, inputs: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
    """Return the gradient with respect to the inputs, (B, T, D). Run once, it is not worth compiling."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)  # (B, T, H)
        outputs = outputs[0] if layer.return_state else outputs
        loss = tf.reduce_sum(outputs[:, -1] * tf.cast(directions, outputs.dtype))
    return tape.gradient(loss, inputs)


@dataclasses.dataclass(frozen=True)
class TrainingCurve:
    """What `train_stretched` saw at each step.

    Attributes:
        loss: the mean squared error before the step; infinite or NaN once it has burst.
        gradient_norm: the global norm of the gradient before clipping.
    """

    loss: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]


def train_stretched(
    gain: float,
    *,
    clip: float | None = None,
    steps: int = 100,
    length: int = 30,
    units: int = 32,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> TrainingCurve:
    """Train a linear recurrent network with a stretched recurrent matrix to say the mean of what it read.

    Without an activation nothing bounds the state, so the gradient of a step `length` back is multiplied by about
    gain^length. Plain gradient descent takes steps in proportion to it.

    Args:
        gain: what the orthogonal recurrent matrix is multiplied by; above one the gradient bursts.
        clip: the largest global norm of a gradient; None does not clip.
        steps: of gradient descent, each on 32 new rows.
        length: T.
        units: H.
        learning_rate: of gradient descent.
        seed: of weights and data.

    Raises:
        ValueError: if steps or length is less than 1, or clip is not positive.

    Reference: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, section 3.2 (algorithm 1: clipping by norm).
    """
    if min(steps, length) < 1:
        raise ValueError(f"steps and length must be at least 1; got {steps} and {length}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None; got {clip}.")
    layer = SimpleRNN(
        units,
        activation="linear",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(gain=gain, seed=seed + 1),
    )
    layer.build((None, length, 1))
    head = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 2))
    head.build((None, units))
    weights = [*layer.trainable_variables, *head.trainable_variables]
    optimizer = keras.optimizers.SGD(learning_rate, global_clipnorm=clip)
    optimizer.build(weights)
    train = _step_of_descent(layer, head, weights, optimizer)
    generator = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        inputs = generator.normal(size=(32, length, 1)).astype("float32")
        seen.append([float(number) for number in train(inputs)])
    loss, norm = np.array(seen).T
    return TrainingCurve(loss, norm)


def _step_of_descent(layer: Any, head: Any, weights: list, optimizer: Any) -> Any:
    """Return a compiled step: inputs (B, T, 1) to the loss and the gradient's global norm."""

    @tf.function
    def train(inputs):
        with tf.GradientTape() as tape:
            said = head(layer(inputs)[:, -1])  # (B, 1)
            loss = tf.reduce_mean((said - tf.reduce_mean(inputs, axis=1)) ** 2)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.apply(gradients)
        return loss, tf.linalg.global_norm(gradients)

    return train
