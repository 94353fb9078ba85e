"""Chapter 2's layers and the network by hand, against Keras's layers, finite differences and TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.recurrent.layers import GRU, LAYERS, LSTM, SimpleRNN, layer_named
from lmcourse.recurrent.numpy_rnn import RNNWeights, finite_differences, rnn_backward, rnn_forward

B, T, D, H = 3, 7, 4, 5
PAIRS = {
    "simple": (SimpleRNN(H), keras.layers.SimpleRNN(H, return_sequences=True)),
    "lstm": (LSTM(H), keras.layers.LSTM(H, return_sequences=True)),
    "gru": (GRU(H), keras.layers.GRU(H, return_sequences=True)),
    "gru reset before": (
        GRU(H, reset_after=False),
        keras.layers.GRU(H, return_sequences=True, reset_after=False),
    ),
}

# One float32 rounding is 6e-8 relative; values are below 1 and pass through 7 steps of sums of about 10 terms.
ROUNDING = 1e-6


@pytest.fixture(params=list(PAIRS))
def pair(request):
    """Our layer and Keras's with the same weights, none of them zero."""
    ours, theirs = (type(layer).from_config(layer.get_config()) for layer in PAIRS[request.param])
    inputs = normal(B, T, D)
    ours(inputs), theirs(inputs)
    theirs.set_weights([normal(*w.shape, seed=i) / 2 for i, w in enumerate(theirs.get_weights())])
    ours.set_weights(theirs.get_weights())
    return ours, theirs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gradients(layer, inputs, **kwargs):
    inputs = tf.convert_to_tensor(inputs)
    weighing = normal(B, T, H, seed=9)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs, **kwargs) * weighing)
    return tape.gradient(loss, [inputs, *(w.value for w in layer.trainable_variables)])


def test_outputs_equal_keras_with_the_same_weights(pair):
    ours, theirs = pair
    inputs = normal(B, T, D, seed=1)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), atol=ROUNDING, rtol=0)


def test_gradients_equal_keras_with_the_same_weights(pair):
    ours, theirs = pair
    inputs = normal(B, T, D, seed=1)
    for mine, keras_own in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        # Gradients of the weights are sums over B T = 21 terms of size 1 to 10.
        np.testing.assert_allclose(mine, keras_own, atol=2e-5, rtol=1e-5)


def test_initial_and_last_states_equal_keras(pair):
    ours, theirs = pair
    config = {"return_state": True}
    ours_with_state = type(ours).from_config({**ours.get_config(), **config})
    theirs_with_state = type(theirs).from_config({**theirs.get_config(), **config})
    inputs = normal(B, T, D, seed=1)
    states = [normal(B, H, seed=20 + i) for i in range(ours.state_tensors)]
    for layer in (ours_with_state, theirs_with_state):
        layer(inputs)
        layer.set_weights(ours.get_weights())
    mine = ours_with_state(inputs, initial_state=states)
    keras_own = theirs_with_state(inputs, initial_state=states)
    assert len(mine) == len(keras_own) == 1 + ours.state_tensors
    for a, b in zip(mine, keras_own, strict=True):
        np.testing.assert_allclose(a, b, atol=ROUNDING, rtol=0)


def test_masked_steps_pass_the_state_over_as_keras_does(pair):
    ours, theirs = pair
    inputs = normal(B, T, D, seed=1)
    mask = np.array([[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 1]], bool)
    np.testing.assert_allclose(ours(inputs, mask=mask), theirs(inputs, mask=mask), atol=ROUNDING, rtol=0)
    short = ours(inputs[:1, :3])[0, -1]
    np.testing.assert_allclose(ours(inputs, mask=mask)[0, -1], short, atol=ROUNDING, rtol=0)


def test_step_by_step_equals_the_whole_sequence(pair):
    ours, _ = pair
    inputs = normal(B, T, D, seed=1)
    whole, states = ours(inputs), ours.get_initial_state(B)
    for t in range(T):
        output, states = ours.advance(inputs[:, t], states)
        np.testing.assert_allclose(output, whole[:, t], atol=ROUNDING, rtol=0)


def test_one_layer_serves_any_batch_and_length_in_one_graph(pair):
    ours, _ = pair
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, D))])
    def run(inputs):
        traces.append(1)
        return ours(inputs)

    for rows, time in ((1, 1), (2, 9), (5, 3)):
        inputs = normal(rows, time, D)
        np.testing.assert_allclose(run(inputs), ours(inputs), atol=ROUNDING, rtol=0)
    assert len(traces) == 1


def test_untrained_weights_are_drawn_as_keras_draws_them():
    for ours, theirs in PAIRS.values():
        mine, keras_own = (type(layer).from_config(layer.get_config()) for layer in (ours, theirs))
        mine.build((None, None, 200))
        keras_own.build((None, None, 200))
        assert [w.shape for w in mine.weights] == [w.shape for w in keras_own.weights]
        (kernel, recurrent, bias), theirs = mine.get_weights(), keras_own.get_weights()
        # 1,000 to 4,000 uniform entries: their standard deviation is known to about 2 %.
        np.testing.assert_allclose(kernel.std(), theirs[0].std(), rtol=0.1)
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(H), atol=1e-5)
        np.testing.assert_array_equal(bias, theirs[2])
    without = LSTM(H, unit_forget_bias=False)
    without.build((None, None, D))
    assert not np.any(without.bias)


def test_a_mask_travels_through_a_model_of_layers():
    ids = np.array([[3, 1, 2, 0, 0], [2, 2, 1, 3, 1]])
    for kind in LAYERS.values():
        keras.utils.set_random_seed(0)
        stack = keras.Sequential([keras.layers.Embedding(4, D, mask_zero=True), kind(H), kind(H)])
        padded = stack(ids)
        np.testing.assert_allclose(padded[0, 2], stack(ids[:1, :3])[0, 2], atol=ROUNDING, rtol=0)
        np.testing.assert_allclose(padded[0, 4], padded[0, 2], atol=0, rtol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_bad_shapes_are_refused_by_name(kind):
    layer = LAYERS[kind](H)
    with pytest.raises(ValueError, match=r"sequences must have shape \(B, T, D\); got \(3, 4\)"):
        layer(np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match=r"at least one row, step and feature; got \(0, 7, 4\)"):
        LAYERS[kind](H)(np.zeros((0, T, D), "float32"))
    layer = LAYERS[kind](H)
    layer(np.zeros((B, T, D), "float32"))
    with pytest.raises(ValueError, match="width this layer was built for, 4; got 6"):
        layer(np.zeros((B, T, 6), "float32"))
    with pytest.raises(ValueError, match=r"initial_state must be \d tensor"):
        layer(np.zeros((B, T, D), "float32"), initial_state=[np.zeros((B, H + 1), "float32")])
    with pytest.raises(ValueError, match=r"mask must have shape \(B, T\); got \(3, 7, 1\)"):
        layer(np.zeros((B, T, D), "float32"), mask=np.ones((B, T, 1), bool))
    with pytest.raises(ValueError, match="units must be at least 1; got 0"):
        LAYERS[kind](0)


def test_an_unknown_kind_of_layer_lists_those_there_are():
    with pytest.raises(ValueError, match=r"layer must be one of simple, gru, lstm; got 'rnn'"):
        layer_named("rnn")


def hand_weights(seed=0):
    rng = np.random.default_rng(seed)
    return RNNWeights(rng.normal(size=(D, H)), rng.normal(size=(H, H)) / 2, rng.normal(size=H))


def test_the_network_by_hand_equals_a_step_worked_out():
    weights = RNNWeights(kernel=[[2.0]], recurrent_kernel=[[0.5]], bias=[0.1])
    states = rnn_forward([[[0.3], [-0.2]]], weights, [[0.4]])
    first = np.tanh(2 * 0.3 + 0.5 * 0.4 + 0.1)
    np.testing.assert_allclose(states[0, :, 0], [first, np.tanh(2 * -0.2 + 0.5 * first + 0.1)], rtol=1e-15)


def test_the_network_by_hand_equals_the_layer():
    weights = hand_weights()
    layer = SimpleRNN(H, dtype="float64")
    inputs, first = (
        np.random.default_rng(1).normal(size=(B, T, D)),
        np.random.default_rng(2).normal(size=(B, H)),
    )
    layer.build(inputs.shape)
    layer.set_weights([weights.kernel, weights.recurrent_kernel, weights.bias])
    np.testing.assert_allclose(
        rnn_forward(inputs, weights, first), layer(inputs, initial_state=first), atol=1e-14, rtol=0
    )


def test_backpropagation_through_time_equals_finite_differences():
    weights, rng = hand_weights(), np.random.default_rng(3)
    inputs, first, weighing = rng.normal(size=(B, T, D)), rng.normal(size=(B, H)), rng.normal(size=(B, T, H))
    found = rnn_backward(weighing, inputs, rnn_forward(inputs, weights, first), weights, first)

    def loss(inputs=inputs, first=first, **changed):
        parts = {name: changed.get(name, getattr(weights, name)) for name in vars(weights)}
        return float((rnn_forward(inputs, RNNWeights(**parts), first) * weighing).sum())

    pairs = [(found.inputs, finite_differences(lambda x: loss(inputs=x), inputs))]
    pairs += [(found.initial_state, finite_differences(lambda x: loss(first=x), first))]
    for name in vars(weights):
        numeric = finite_differences(lambda x, name=name: loss(**{name: x}), getattr(weights, name))
        pairs += [(getattr(found.weights, name), numeric)]
    for exact, numeric in pairs:
        # step² = 1e-10 times third derivatives of a sum of 105 terms, and rounding of 1e-15 · 10 / 1e-5.
        np.testing.assert_allclose(exact, numeric, atol=1e-8, rtol=1e-8)


def test_backpropagation_through_time_equals_tensorflow():
    weights, rng = hand_weights(), np.random.default_rng(4)
    inputs, first, weighing = rng.normal(size=(B, T, D)), rng.normal(size=(B, H)), rng.normal(size=(B, T, H))
    found = rnn_backward(weighing, inputs, rnn_forward(inputs, weights, first), weights, first)
    x, h0 = tf.constant(inputs), tf.constant(first)
    parts = [tf.constant(part) for part in vars(weights).values()]
    with tf.GradientTape() as tape:
        tape.watch([x, h0, *parts])
        h, loss = h0, 0.0
        for t in range(T):
            h = tf.tanh(x[:, t] @ parts[0] + h @ parts[1] + parts[2])
            loss += tf.reduce_sum(h * weighing[:, t])
    expected = tape.gradient(loss, [x, h0, *parts])
    for mine, theirs in zip(
        [found.inputs, found.initial_state, *vars(found.weights).values()], expected, strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-13, rtol=1e-13)


def test_the_network_by_hand_refuses_shapes_that_do_not_fit():
    weights = hand_weights()
    with pytest.raises(
        ValueError, match=r"inputs must be \(B, T, D\) with D = 4 as in kernel; got \(2, 3, 9\)"
    ):
        rnn_forward(np.zeros((2, 3, 9)), weights)
    with pytest.raises(ValueError, match=r"initial_state must be \(B, H\) = \(2, 5\); got \(5,\)"):
        rnn_forward(np.zeros((2, 3, D)), weights, np.zeros(H))
    with pytest.raises(
        ValueError, match=r"must both be \(B, T, H\) = \(2, 3, 5\); got \(2, 3, 5\) and \(2, 5\)"
    ):
        rnn_backward(np.zeros((2, H)), np.zeros((2, 3, D)), np.zeros((2, 3, H)), weights)
    with pytest.raises(ValueError, match=r"got \(4, 5\), \(5, 4\) and \(5,\)"):
        RNNWeights(np.zeros((4, 5)), np.zeros((5, 4)), np.zeros(5))
    with pytest.raises(ValueError, match="step must be positive; got 0"):
        finite_differences(lambda x: 0.0, [1.0], step=0)
