"""The tests of chapter 2's exercises.

Letters for shapes: `B` rows, `T` time, `D` width of the input, `H` width of the state, `V` vocabulary.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from lmcourse.grading import assert_close, assert_equal, assert_shape, exercise


def _expect(condition, message):
    """Assert without pytest's own words on the card: the message says it all."""
    if not condition:
        raise AssertionError(message)


def _listed(answer, what, count=None):
    """Return the answer as a list of what is asked for, whatever it came in."""
    _expect(answer is not None, f"expected {what}; got None (nothing was returned)")
    _expect(np.iterable(answer), f"expected {what}; got {type(answer).__name__}")
    answer = list(answer)
    _expect(count in (None, len(answer)), f"expected {what}; got {len(answer)} values")
    return answer


def _random(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def _unchanged(function, arguments, names):
    """Assert that a function leaves its arrays as they are."""
    before = [np.copy(argument) for argument in arguments]
    result = function(*arguments)
    _expect(result is not None, "expected an answer; got None (nothing was returned)")
    for name, old, new in zip(names, before, arguments, strict=True):
        assert_equal(new, old, f"{name} after the call")


# 23 ids, no two alike, so that each can be told from where it stands; 3 rows of 3 fill two windows.
STREAM = np.array([7, 21, 4, 16, 2, 11, 19, 8, 5, 14, 1, 23, 10, 17, 3, 22, 9, 13, 20, 6, 15, 12, 18])
WINDOWS = "a list of pairs (inputs, targets)"
WINDOW = "a pair (inputs, targets)"


def _windows(answer):
    """Return the windows' inputs and targets, (windows, B, T) each."""
    result = [_listed(window, WINDOW, 2) for window in _listed(answer(STREAM.copy(), 3, 3, 0), WINDOWS)]
    _expect(result, f"expected {WINDOWS}; got none")
    return [np.stack([np.asarray(window[part]) for window in result]) for part in (0, 1)]


@exercise(
    "2.1",
    points=0.5,
    hint="a window is batch_size rows of `time` ids, and only whole windows count: what became of the ids at "
    "the end that fill no further one?",
)
def test_all_windows_are_whole(windows):
    result = _listed(windows(STREAM.copy(), 3, 3, 0), WINDOWS)
    for window in result:
        inputs, targets = _listed(window, WINDOW, 2)
        assert_shape(inputs, (3, 3), "inputs")
        assert_shape(targets, (3, 3), "targets")
    assert_equal(len(result), 2, "the number of windows of (3, 3) in 23 ids")
    inputs, _ = _listed(windows(STREAM.copy(), 2, 5, 0), WINDOWS)[0]
    assert_shape(inputs, (2, 5), "inputs with batch_size 2 and time 5")


@exercise(
    "2.1",
    points=0.25,
    hint="`start_id` is read once, before the first id of the stream, and that id is a target too. Where "
    "another row or window begins, the id before is known.",
)
def test_the_start_is_read_once(windows):
    inputs, targets = _windows(windows)
    assert_equal(inputs[0, 0, 0], 0, "the first input")
    assert_equal(targets[0, 0, 0], 7, "the first target")
    assert_equal(int((inputs == 0).sum()), 1, "how often start_id is read")


@exercise(
    "2.1",
    points=0.5,
    hint="a target is what follows its input in the stream: did you shift the right one of the two, and by "
    "one?",
)
def test_inputs_are_the_ids_before_the_targets(windows):
    inputs, targets = _windows(windows)
    before = dict(zip(STREAM.tolist(), [0, *STREAM[:-1].tolist()], strict=True))
    for read, target in zip(inputs.ravel().tolist(), targets.ravel().tolist(), strict=True):
        assert_equal(read, before.get(target), f"the input whose target is {target}")


@exercise(
    "2.1",
    points=0.5,
    hint="a row must go on in the next window where it ended: which way through the stream did your reshape "
    "lay the rows?",
)
def test_rows_go_on_in_the_next_window(windows):
    _, targets = _windows(windows)
    after = dict(zip(STREAM.tolist(), [*STREAM[1:].tolist(), None], strict=True))
    for row, ids in enumerate(np.concatenate(list(targets), axis=1).tolist()):
        expected = [after[token] for token in ids[:-1]]
        assert_equal(
            ids[1:], expected, f"what follows {ids[0]} in row {row} of the targets, window by window"
        )


@exercise(
    "2.1",
    points=0.25,
    hint="what is left over is left at the end of the stream: between the rows, too, ids can get lost.",
)
def test_only_the_end_of_the_stream_is_left_over(windows):
    _, targets = _windows(windows)
    missing = [token for token in STREAM[:18].tolist() if token not in targets]
    assert_equal(missing, [], "the ids among the first 18 of 23 that are no target")


def _logits():
    """Return logits and targets of shapes (2, 3, 5) and (2, 3), and the nats of each target."""
    logits = _random((2, 3, 5), seed=1)[0] * 2
    targets = np.array([[0, 3, 1], [4, 2, 2]])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    nats = [[-math.log(probabilities[b, t, targets[b, t]]) for t in range(3)] for b in range(2)]
    return logits, targets, np.array(nats)


@exercise(
    "2.2",
    points=0.5,
    hint="with V equally likely tokens the loss is ln V: is yours the mean over the tokens, above zero, and in "
    "nats?",
)
def test_equal_logits_cost_ln_v(cross_entropy):
    targets, mask = np.zeros((4, 4), dtype=int), np.ones((4, 4), dtype=bool)
    assert_close(cross_entropy(np.zeros((4, 4, 4)), targets, mask), math.log(4), "the loss")


@exercise(
    "2.2",
    points=0.5,
    hint="one softmax for each token: over which axis do your probabilities sum to one, and whose logarithm "
    "did you pick?",
)
def test_the_softmax_runs_over_the_vocabulary(cross_entropy):
    logits, targets, nats = _logits()
    assert_close(cross_entropy(logits, targets, np.ones((2, 3), dtype=bool)), nats.mean(), "the loss")


@exercise(
    "2.2",
    points=1,
    hint="padding must neither add to the sum nor to the number you divide by, and each token counts alike, in "
    "a short row as in a long one.",
)
def test_padding_does_not_count(cross_entropy):
    logits, targets, nats = _logits()
    mask = np.array([[True, True, True], [True, False, False]])
    assert_close(cross_entropy(logits, targets, mask), nats[mask].mean(), "the loss over 3 + 1 tokens")


@exercise(
    "2.2",
    points=0.75,
    hint="exp(1000) is inf, and exp(-1000) is 0: what does that make of your softmax and its logarithm? A "
    "constant added to all logits of a token changes nothing.",
)
def test_large_logits_are_no_exception(cross_entropy):
    logits = np.array([[[1000.0, 0.0], [0.0, 1000.0]]])
    loss = cross_entropy(logits, np.array([[0, 0]]), np.array([[True, True]]))
    assert_close(loss, 500.0, "the loss of one token that was sure and one that cost 1,000 nats")
    loss = cross_entropy(logits - 5000, np.array([[0, 0]]), np.array([[True, True]]))
    assert_close(loss, 500.0, "the loss of the same logits, all less by 5,000")


@exercise("2.2", points=0.25, hint="the caller's arrays are not yours to change: did you subtract in place?")
def test_the_logits_are_left_as_they_are(cross_entropy):
    logits, targets, _ = _logits()
    _unchanged(cross_entropy, (logits, targets, np.ones((2, 3), dtype=bool)), ("logits", "targets", "mask"))


def _rnn_arguments(T, seed=2):
    """Return x, h0, W, U and b with B = 2, D = 3 and H = 4."""
    x, h0, W, U, b = _random((2, T, 3), (2, 4), (3, 4), (4, 4), (4,), seed=seed)
    return x, h0, W / 2, U / 2, b


def _states(x, h0, W, U, b):
    """Return the states of a simple RNN, (B, T, H), number by number."""
    B, T, D = x.shape
    H = len(b)
    states = np.zeros((B, T + 1, H))
    states[:, 0] = h0
    for row, t, j in np.ndindex(B, T, H):
        a = b[j] + sum(x[row, t, i] * W[i, j] for i in range(D))
        states[row, t + 1, j] = np.tanh(a + sum(states[row, t, i] * U[i, j] for i in range(H)))
    return states[:, 1:]


@exercise(
    "2.3",
    points=0.25,
    hint="every step's state is asked for, a vector for each row and each step: what became of those that "
    "are not the last?",
)
def test_the_state_of_every_step_is_returned(simple_rnn):
    states = simple_rnn(*_rnn_arguments(T=5))
    _expect(states is not None, "expected the states; got None (nothing was returned)")
    _expect(np.ndim(states) == 3, f"expected an array with three axes; got shape {np.shape(states)}")


@exercise(
    "2.3",
    points=0.25,
    hint="h0 is not among the states that are asked for: the first is the state *after* the first input. The "
    "chapter's `rnn_forward` returns h0 as well, T + 1 states in all.",
)
def test_h0_is_not_among_the_states(simple_rnn):
    for T in (1, 5):
        count = np.size(simple_rnn(*_rnn_arguments(T=T))) / (2 * 4)
        _expect(count == T, f"expected {T} states for {T} inputs; got {count:g}")


@exercise(
    "2.3",
    points=0.25,
    hint="the axes of the result are batch, time, width, as those of x: along which axis did you put the "
    "steps together?",
)
def test_the_axes_are_batch_time_and_width(simple_rnn):
    assert_shape(simple_rnn(*_rnn_arguments(T=5)), (2, 5, 4), "the states")
    assert_shape(simple_rnn(*_rnn_arguments(T=1)), (2, 1, 4), "the states of one step")


@exercise(
    "2.3",
    points=0.25,
    hint="one step from a state of zeros is tanh(x W + b): which part is missing, or stands outside the tanh?",
)
def test_one_step_equals_the_formula(simple_rnn):
    x, h0, W, U, b = _rnn_arguments(T=1)
    expected = _states(x, 0 * h0, W, U, b)
    assert_close(simple_rnn(x, 0 * h0, W, U, b), expected, "the state after one step from zeros")


@exercise(
    "2.3",
    points=0.25,
    hint="the first step has a state before it, h0, which meets U as in h U: on its left, with nothing "
    "transposed.",
)
def test_the_first_step_starts_from_h0(simple_rnn):
    expected = _states(*_rnn_arguments(T=1))
    assert_close(simple_rnn(*_rnn_arguments(T=1)), expected, "the state after one step from h0")


@exercise(
    "2.3",
    points=0.5,
    hint="each step reads its own input and the state of the step before; a state that was kept must not "
    "change afterwards.",
)
def test_each_step_starts_from_the_state_before(simple_rnn):
    expected = _states(*_rnn_arguments(T=4))
    assert_close(simple_rnn(*_rnn_arguments(T=4)), expected, "the states of four steps")


@exercise("2.3", points=0.25, hint="h0 belongs to the caller: your first step wrote over it.")
def test_the_initial_state_is_left_as_it_is(simple_rnn):
    _unchanged(simple_rnn, _rnn_arguments(T=2), ("x", "h0", "W", "U", "b"))


def _gradients():
    """Return gradients whose norm is sqrt(9 + 16 + 144) = 13, all together."""
    return [np.array([3.0, 0.0]), np.array([[-4.0]]), np.array([[0.0, 12.0], [0.0, 0.0]])]


def _clipped(answer, gradients, limit):
    clipped, norm = _listed(answer(gradients, limit), "a pair (gradients, norm)", 2)
    clipped = _listed(clipped, f"{len(gradients)} gradients", len(gradients))
    for index, (got, gradient) in enumerate(zip(clipped, gradients, strict=True)):
        assert_shape(got, gradient.shape, f"gradient {index}")
    return clipped, norm


@exercise(
    "2.4",
    points=0.5,
    hint="one norm for all gradients together, as if they were one vector, and before any clipping: norms do "
    "not add, their squares do.",
)
def test_the_norm_is_that_of_all_gradients_together(clip_by_global_norm):
    for limit in (1.0, 100.0):
        _, norm = _clipped(clip_by_global_norm, _gradients(), limit)
        assert_close(norm, 13.0, f"the norm of (3, 0), (-4) and (0, 12, 0, 0) with a limit of {limit:g}")


@exercise(
    "2.4",
    points=0.75,
    hint="the step must keep its direction: a factor of its own for each array, or for each number, bends it.",
)
def test_the_direction_stays(clip_by_global_norm):
    clipped, _ = _clipped(clip_by_global_norm, _gradients(), 6.5)
    for index, (got, gradient) in enumerate(zip(clipped, _gradients(), strict=True)):
        assert_close(got, gradient / 2, f"gradient {index} when the norm is twice the limit")


@exercise(
    "2.4",
    points=0.25,
    hint="gradients within the limit stay as they are: the limit is no length that every step should have.",
)
def test_small_gradients_stay(clip_by_global_norm):
    clipped, _ = _clipped(clip_by_global_norm, _gradients(), 14.0)
    for index, (got, gradient) in enumerate(zip(clipped, _gradients(), strict=True)):
        assert_close(got, gradient, f"gradient {index} when the norm is below the limit")


@exercise("2.4", points=0.25, hint="all gradients may be zero: what do you divide by then?")
def test_zero_gradients_stay_zero(clip_by_global_norm):
    clipped, norm = _clipped(clip_by_global_norm, [np.zeros(2), np.zeros((1, 3))], 1.0)
    assert_close(norm, 0.0, "the norm")
    for index, (got, zeros) in enumerate(zip(clipped, [np.zeros(2), np.zeros((1, 3))], strict=True)):
        assert_close(got, zeros, f"gradient {index}")


@exercise(
    "2.4",
    points=0.25,
    hint="the caller's gradients have changed: `*=` on an array works on the array itself.",
)
def test_the_gradients_are_left_as_they_are(clip_by_global_norm):
    gradients = _gradients()
    _clipped(clip_by_global_norm, gradients, 1.0)
    for index, (got, gradient) in enumerate(zip(gradients, _gradients(), strict=True)):
        assert_equal(got, gradient, f"gradient {index} after the call")


def _lstm_arguments(seed=3):
    """Return x, h, c, W, U and b with B = 2, D = 3 and H = 4."""
    return _random((2, 3), (2, 4), (2, 4), (3, 16), (4, 16), (16,), seed=seed)


def _zero_weights(answer, cell):
    """Return the state and the cell after a step with weights of zero, from a state of ones and this cell."""
    zeros = np.zeros((1, 8)), np.zeros((2, 8)), np.zeros(8)
    result = answer(np.ones((1, 1)), np.ones((1, 2)), np.array([cell], dtype=float), *zeros)
    return _listed(result, "a pair (h, c)", 2)


@exercise(
    "2.5",
    points=0.25,
    hint="two arrays are asked for, the new state first and the new cell second. Only a cell can hold numbers far "
    "beyond 1: are the two exchanged?",
)
def test_the_state_comes_before_the_cell(lstm_step):
    h, c = (np.abs(array) for array in _zero_weights(lstm_step, [20.0, -20.0]))
    _expect(c.shape == (1, 2), f"expected shape (1, 2) of the new cell; got shape {c.shape}")
    _expect(
        not (h.min() > 1 and c.max() <= 1),
        f"expected the half of the cell (20, -20) as the second array; got {c.max():.4g} there, {h.max():.4g} first",
    )


@exercise(
    "2.5",
    points=0.25,
    hint="with weights of zero there is nothing to put into an empty cell: the candidate is tanh 0, and no "
    "sigmoid, which would be a half.",
)
def test_zero_weights_leave_an_empty_cell_empty(lstm_step):
    _, c = _zero_weights(lstm_step, [0.0, 0.0])
    assert_close(c, [[0.0, 0.0]], "the new cell, where the old one is empty and the weights are zero")


@exercise(
    "2.5",
    points=0.25,
    hint="with weights of zero the forget gate is sigmoid(0), a half: is it a sigmoid of z and of nothing else? "
    "(The 1 that Keras gives a forget gate is where its bias *begins*; it is in `b` already.)",
)
def test_zero_weights_halve_the_cell(lstm_step):
    _, c = _zero_weights(lstm_step, [2.0, -1.0])
    assert_close(c, [[1.0, -0.5]], "the new cell, where the old one is (2, -1)")


@exercise(
    "2.5",
    points=0.25,
    hint="a state is never beyond 1, however much is in the cell: the cell goes through tanh before the output "
    "gate lets some of it out.",
)
def test_the_cell_goes_through_a_tanh(lstm_step):
    h, _ = _zero_weights(lstm_step, [20.0, -20.0])
    _expect(
        np.abs(h).max() <= 1, f"expected a state between -1 and 1 for a cell of (10, -10); got {np.ravel(h)}"
    )


@exercise(
    "2.5",
    points=0.25,
    hint="the new state is made of the *new* cell, c', after forgetting and adding: which one did you take?",
)
def test_the_state_is_made_of_the_new_cell(lstm_step):
    h, _ = _zero_weights(lstm_step, [2.0, -1.0])
    assert_close(
        h, [[math.tanh(1.0) / 2, math.tanh(-0.5) / 2]], "the new state, where the new cell is (1, -0.5)"
    )


def _gates(answer, i, f, g, o):
    """Return state and cell after a step from a cell of 3, with what stands in the quarters of z given."""
    W = np.array([[i, f, g, o]], dtype=float)
    zeros = np.zeros((1, 1)), np.array([[3.0]]), W, np.zeros((1, 4)), np.zeros(4)
    return _listed(answer(np.ones((1, 1)), *zeros), "a pair (h, c)", 2)


@exercise(
    "2.5",
    points=0.125,
    hint="a forget gate of 1 *keeps* the cell, one of 0 clears it: with you it is the other way round.",
)
def test_a_forget_gate_of_one_keeps_the_cell(lstm_step):
    kept, cleared = (abs(float(np.ravel(_gates(lstm_step, f, f, 0, 0)[1])[0])) for f in (40, -40))
    _expect(
        kept > cleared,
        f"expected more of the cell of 3 where the forget gate is 1 than where it is 0; "
        f"got {kept:.4g} and {cleared:.4g}",
    )


@exercise(
    "2.5",
    points=0.25,
    hint="the first two quarters of the 4H columns are exchanged: Keras has the input gate first, then the "
    "forget gate.",
)
def test_the_input_gate_comes_before_the_forget_gate(lstm_step):
    _, c = _gates(lstm_step, -40, 40, 0, 0)
    assert_close(c, [[3.0]], "the cell of 3, where z_i is -40, z_f 40 and z_g and z_o are 0")


@exercise(
    "2.5",
    points=0.25,
    hint="the last two quarters of the 4H columns are exchanged: Keras has the candidate third, the output "
    "gate last.",
)
def test_the_candidate_comes_before_the_output_gate(lstm_step):
    h, c = _gates(lstm_step, 40, -40, 40, -40)
    assert_close(c, [[1.0]], "the cell, where i is 1, g is 1 and f is 0")
    assert_close(h, [[0.0]], "the state, where o is 0")


@exercise(
    "2.5",
    points=0.125,
    hint="an LSTM may keep and add at once: the input gate has numbers of its own, and is not what the forget gate "
    "leaves over, as in a GRU.",
)
def test_the_input_gate_is_not_what_the_forget_gate_leaves(lstm_step):
    _, c = _gates(lstm_step, 40, 40, 40, 0)
    assert_close(c, [[4.0]], "the cell of 3, where i, f and g are 1")


def _equals_kerass_cell(answer, arguments):
    """Assert that a step equals that of Keras's cell with the same weights."""
    x, h, c, W, U, b = arguments
    cell = keras.layers.LSTMCell(4, dtype="float64")
    cell.build((None, 3))
    cell.set_weights([W, U, b])
    expected_h, expected_c = cell(x, [h, c])[1]
    new_h, new_c = _listed(answer(*map(np.copy, arguments)), "a pair (h, c)", 2)
    assert_close(new_c, np.array(expected_c), "the new cell")
    assert_close(new_h, np.array(expected_h), "the new state")


@exercise(
    "2.5",
    points=0.25,
    hint="where the old state is zero a step goes wrong: z is not x W alone, it has a bias for each of the 4H "
    "columns.",
)
def test_the_bias_is_added(lstm_step):
    x, h, c, W, U, b = (array[:1] if n < 3 else array for n, array in enumerate(_lstm_arguments()))
    _equals_kerass_cell(lstm_step, (x, 0 * h, c, W, U, b))


@exercise(
    "2.5",
    points=0.25,
    hint="from a state of zeros the step is right, from another one it is not: the gates read the state "
    "before, too, through U.",
)
def test_the_gates_read_the_state_before(lstm_step):
    _equals_kerass_cell(
        lstm_step, tuple(array[:1] if n < 3 else array for n, array in enumerate(_lstm_arguments()))
    )


@exercise(
    "2.5",
    points=0.25,
    hint="for one row the step is right, for several it is not: each row has its own four gates, which stand "
    "side by side in its row of z. Along which axis did you cut z?",
)
def test_each_row_has_its_own_gates(lstm_step):
    _equals_kerass_cell(lstm_step, _lstm_arguments())


@exercise(
    "2.5",
    points=0.25,
    hint="the old cell and state are the caller's, who may need them again: build new ones.",
)
def test_the_old_cell_is_left_as_it_is(lstm_step):
    _unchanged(lstm_step, _lstm_arguments(), ("x", "h", "c", "W", "U", "b"))


def _gru_case(reset_after, seed=4):
    """Return x, h, W, U and a bias with B = 2, D = 3 and H = 4, and the state that Keras's cell makes of them."""
    x, h, W, U, bias = _random((2, 3), (2, 4), (3, 12), (4, 12), (2, 12) if reset_after else (12,), seed=seed)
    cell = keras.layers.GRUCell(4, reset_after=reset_after, dtype="float64")
    cell.build((2, 3))
    cell.set_weights([W, U, bias])
    return (x, h, W, U, bias), np.array(cell(x, [h])[0])


@exercise(
    "2.6",
    points=0.5,
    hint="with weights of zero the update gate is a half and the candidate is zero: which of the functions are "
    "sigmoids, which is tanh, and what do z and 1 - z multiply?",
)
def test_zero_weights_halve_the_state(gru_step):
    x, h, W, U = np.ones((1, 1)), np.array([[2.0, -1.0]]), np.zeros((1, 6)), np.zeros((2, 6))
    assert_close(gru_step(x, h.copy(), W, U, np.zeros(6), False), h / 2, "the new state, reset before")
    assert_close(gru_step(x, h.copy(), W, U, np.zeros((2, 6)), True), h / 2, "the new state, reset after")


@exercise(
    "2.6",
    points=0.75,
    hint="an update gate of 1 keeps the old state, and one of 0 takes the candidate: either the two are "
    "swapped (some papers do), or what you took for z is another third of the columns.",
)
def test_the_update_gate_keeps_the_old_state(gru_step):
    x, h, U, bias = np.ones((1, 1)), np.array([[0.25]]), np.zeros((1, 3)), np.zeros(3)
    kept = gru_step(x, h.copy(), np.array([[40.0, 0.0, 40.0]]), U, bias, False)
    assert_close(kept, h, "the new state, where z is 1 and g is 1")
    taken = gru_step(x, h.copy(), np.array([[-40.0, 0.0, 40.0]]), U, bias, False)
    assert_close(taken, [[1.0]], "the new state, where z is 0 and g is 1")


@exercise(
    "2.6",
    points=0.75,
    hint="with reset_after=False the gate multiplies the old state *before* the matrix, and only for the "
    "candidate: r ⊙ h and r ⊙ (h U) differ as soon as H is more than one.",
)
def test_reset_before_equals_keras(gru_step):
    arguments, expected = _gru_case(reset_after=False)
    assert_close(gru_step(*arguments, False), expected, "the new state")


@exercise(
    "2.6",
    points=0.75,
    hint="with reset_after=True there are two biases, and the second belongs to h U: for the candidate it "
    "stands inside what the reset gate multiplies, for the gates it is added too.",
)
def test_reset_after_equals_keras(gru_step):
    arguments, expected = _gru_case(reset_after=True)
    assert_close(gru_step(*arguments, True), expected, "the new state")


@exercise(
    "2.6", points=0.25, hint="the old state has changed in the caller's hands: which line works in place?"
)
def test_the_old_state_is_left_as_it_is(gru_step):
    for reset_after in (False, True):
        arguments, _ = _gru_case(reset_after)
        _unchanged(
            lambda *arrays, after=reset_after: gru_step(*arrays, after),
            arguments,
            ("x", "h", "W", "U", "bias"),
        )


def _backward_case(T, seed=5):
    """Return x, h0, W, U and b, the states they lead to, and how a loss changes with each state directly."""
    arguments = _rnn_arguments(T, seed)
    return arguments, _states(*arguments), _random((2, T, 4), seed=seed + 1)[0]


def _backward(answer, arguments, states, d_states):
    x, h0, _, U, _ = arguments
    result = answer(*map(np.copy, (x, h0, states, d_states, U)))
    return _listed(result, "(dW, dU, db, dh0)", 4)


def _differences(arguments, index, d_states):
    """Return the gradient of sum(d_states * states) for one of x, h0, W, U and b, by central differences."""
    gradient = np.zeros(arguments[index].shape)
    for where in np.ndindex(gradient.shape):
        losses = []
        for step in (1e-5, -1e-5):
            moved = [np.copy(argument) for argument in arguments]
            moved[index][where] += step
            losses.append((d_states * _states(*moved)).sum())
        gradient[where] = (losses[0] - losses[1]) / 2e-5
    return gradient


@exercise(
    "2.7",
    points=0.5,
    hint="a gradient has the shape of what it is the gradient of: the weights are shared by all rows and "
    "steps, so they sum over both; h0 has a row for each.",
)
def test_gradients_have_the_shapes_of_their_arrays(rnn_gradients):
    dW, dU, db, dh0 = _backward(rnn_gradients, *_backward_case(T=3))
    assert_shape(dW, (3, 4), "dW")
    assert_shape(dU, (4, 4), "dU")
    assert_shape(db, (4,), "db")
    assert_shape(dh0, (2, 4), "dh0")


@exercise(
    "2.7",
    points=0.25,
    hint="L is what it is, the sum over rows included: two equal rows have twice the gradient of one. No mean "
    "over the rows is yours to take.",
)
def test_rows_are_summed(rnn_gradients):
    (x, h0, W, U, b), states, d_states = _backward_case(T=1)
    one = _backward(rnn_gradients, (x[:1], h0[:1], W, U, b), states[:1], d_states[:1])
    twice = [np.concatenate([array[:1]] * 2) for array in (x, h0, states, d_states)]
    two = _backward(rnn_gradients, (twice[0], twice[1], W, U, b), *twice[2:])
    for name, single, double in zip(("dW", "dU", "db"), one, two, strict=False):
        assert_close(double, 2 * np.asarray(single), f"{name} of two equal rows")


def _one_number(answer, state):
    """Return db for one row, one step and one number: the gradient at a, where the state is given."""
    arrays = (
        np.array([[[2.0]]]),
        np.array([[0.0]]),
        np.array([[[state]]]),
        np.array([[[1.0]]]),
        np.array([[3.0]]),
    )
    return float(np.ravel(_listed(answer(*arrays), "(dW, dU, db, dh0)", 4)[2])[0])


@exercise(
    "2.7",
    points=0.25,
    hint="the loss reaches W and b through the tanh, and a state near 1 hardly moves any more: where is the "
    "tanh's slope in your gradient?",
)
def test_one_step_goes_through_the_tanh(rnn_gradients):
    flat, steep = _one_number(rnn_gradients, 0.9), _one_number(rnn_gradients, 0.0)
    _expect(
        abs(flat) < abs(steep),
        f"expected a smaller db where the state is 0.9 than where it is 0; got {flat:.4g} and {steep:.4g}",
    )


@exercise(
    "2.7",
    points=0.5,
    hint="the slope at a is 1 - h², and `states` holds h itself: was a second tanh taken of it, or the square "
    "forgotten?",
)
def test_the_slope_is_one_minus_the_square_of_the_state(rnn_gradients):
    for state in (0.5, -0.9):
        assert_close(_one_number(rnn_gradients, state), 1 - state**2, f"db where the state is {state}")
    arguments, states, d_states = _backward_case(T=1)
    dW, _, db, _ = _backward(rnn_gradients, arguments, states, d_states)
    da = d_states[:, 0] * (1 - states[:, 0] ** 2)
    assert_close(db, da[0] + da[1], "db of one step")
    x = arguments[0]
    assert_close(dW, np.outer(x[0, 0], da[0]) + np.outer(x[1, 0], da[1]), "dW of one step")


def _dh0(answer, step, symmetric):
    """Return dh0 of a loss at one of three steps, as the answer has it and by finite differences."""
    (x, h0, W, U, b), _, d_states = _backward_case(T=3)
    arguments = x, h0, W, (U + U.T) / 2 if symmetric else U, b
    d_states[:, [other for other in range(3) if other != step]] = 0
    dh0 = _backward(answer, arguments, _states(*arguments), d_states)[3]
    return dh0, _differences(arguments, 1, d_states)


@exercise(
    "2.7",
    points=0.25,
    hint="every step has a loss of its own, in d_states[:, t], which joins what comes back from the step after it: "
    "do all of them take part, and do you go from the last step to the first?",
)
def test_every_step_has_a_loss_of_its_own(rnn_gradients):
    dh0, expected = _dh0(rnn_gradients, step=0, symmetric=True)
    assert_close(dh0, expected, "dh0 of a loss at step 1 of 3", rtol=1e-5, atol=1e-8)


@exercise(
    "2.7",
    points=0.25,
    hint="the same weights work at every step: their gradient is the sum over all steps, and yours is that of "
    "fewer.",
)
def test_the_weights_collect_from_every_step(rnn_gradients):
    (x, h0, W, U, b), states, d_states = _backward_case(T=3)
    dW, _, db, _ = _backward(rnn_gradients, (x, h0, W, 0 * U, b), states, d_states)
    da = d_states * (1 - states**2)
    assert_close(dW, sum(x[:, t].T @ da[:, t] for t in range(3)), "dW of three steps, where U is 0")
    assert_close(db, sum(da[:, t].sum(axis=0) for t in range(3)), "db of three steps, where U is 0")


def _without_recurrence(answer, t):
    """Return dU where U is zero and only step t has a loss, then da at t, h0 and the states."""
    (x, h0, W, U, b), states, d_states = _backward_case(T=3)
    d_states[:, [step for step in range(3) if step != t]] = 0
    dU = _backward(answer, (x, h0, W, 0 * U, b), states, d_states)[1]
    return dU, d_states[:, t] * (1 - states[:, t] ** 2), h0, states


@exercise(
    "2.7",
    points=0.25,
    hint="U multiplied the state *before* the step, not the one that the step made.",
)
def test_dU_pairs_with_the_state_before(rnn_gradients):
    dU, da, _, states = _without_recurrence(rnn_gradients, 2)
    assert_close(dU, states[:, 1].T @ da, "dU of a loss at the last of three steps, where U is 0")


@exercise(
    "2.7",
    points=0.25,
    hint="before the first step the state is h0: with t = 0, states[:, t - 1] is states[:, -1], the last one.",
)
def test_the_state_before_the_first_step_is_h0(rnn_gradients):
    dU, da, h0, _ = _without_recurrence(rnn_gradients, 0)
    assert_close(dU, h0.T @ da, "dU of a loss at the first of three steps, where U is 0")


@exercise(
    "2.7",
    points=0.25,
    hint="a loss at the last step has to reach h0, and yours does not leave its step: what is carried from one "
    "step to the one before?",
)
def test_the_last_loss_reaches_the_first_state(rnn_gradients):
    dh0, _ = _dh0(rnn_gradients, step=2, symmetric=True)
    _expect((np.asarray(dh0) != 0).any(), "expected some dh0 of a loss at step 3 of 3; got zeros")


@exercise(
    "2.7",
    points=0.25,
    hint="what is carried back goes through the tanh of each step on its way, as the step's own loss does: "
    "first add the two, then multiply by the slope, then by U.",
)
def test_what_is_carried_goes_through_every_tanh(rnn_gradients):
    dh0, expected = _dh0(rnn_gradients, step=2, symmetric=True)
    assert_close(dh0, expected, "dh0 of a loss at step 3, where U is symmetric", rtol=1e-5, atol=1e-8)


@exercise(
    "2.7",
    points=0.25,
    hint="where U is symmetric your dh0 is right, elsewhere it is not: forwards h met U, so which way round is "
    "the matrix on the way back?",
)
def test_the_way_back_is_through_U_transposed(rnn_gradients):
    dh0, expected = _dh0(rnn_gradients, step=2, symmetric=False)
    assert_close(dh0, expected, "dh0 of a loss at step 3", rtol=1e-5, atol=1e-8)


@exercise(
    "2.7",
    points=0.5,
    hint="dh0 is right, and the weights' gradients are not: at each step they take the whole of the gradient at "
    "a, what is carried back from later steps included.",
)
def test_gradients_equal_finite_differences(rnn_gradients):
    arguments, states, d_states = _backward_case(T=4)
    result = _backward(rnn_gradients, arguments, states, d_states)
    for name, got, index in zip(("dW", "dU", "db", "dh0"), result, (2, 3, 4, 1), strict=True):
        assert_close(got, _differences(arguments, index, d_states), name, rtol=1e-5, atol=1e-8)


@exercise(
    "2.7",
    points=0.25,
    hint="d_states is the caller's: what comes back from the next step is to be kept somewhere else.",
)
def test_the_given_gradients_are_left_as_they_are(rnn_gradients):
    (x, h0, _, U, _), states, d_states = _backward_case(T=3)
    _unchanged(rnn_gradients, (x, h0, states, d_states, U), ("x", "h0", "states", "d_states", "U"))


@functools.lru_cache(maxsize=1)  # no test changes the model, and building it takes longer than all tests
def _tied_model(model_class, vocab_size=12, width=6):
    """Return the model with random weights large enough that everything it reads shows in its logits."""
    model = model_class(vocab_size, width)
    _expect(isinstance(model, keras.Model), f"expected a keras.Model; got {type(model).__name__}")
    model(np.zeros((1, 2), dtype=np.int32))
    rng = np.random.default_rng(6)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    return model


def _logits_of(model, ids):
    logits = model(np.array(ids, dtype=np.int32))
    _expect(logits is not None, "expected logits; got None (`call` returned nothing)")
    return np.asarray(logits)


@exercise(
    "2.8",
    points=0.5,
    hint="an LSTM has four gates' worth of weights: for the input, for the state before, and one bias. The "
    "matrix that is shared counts once.",
)
def test_the_parameters_are_counted(tied_parameters):
    # 40 + 4 (16 + 16 + 4); 1,280,000 + 4 (16,384 + 16,384 + 128).
    assert_equal(tied_parameters(10, 4), 184, "a vocabulary of 10 and a width of 4")
    assert_equal(tied_parameters(10_000, 128), 1_411_584, "a vocabulary of 10,000 and a width of 128")


@exercise(
    "2.8",
    points=0.5,
    hint="the model predicts after every token, not only after the last one: (B, T, V).",
)
def test_every_position_has_logits(TiedLanguageModel):
    model = _tied_model(TiedLanguageModel)
    logits = _logits_of(model, [[1, 2, 3], [4, 5, 6]])
    assert_shape(logits, (2, 3, 12), "logits for ids (2, 3)")


@exercise(
    "2.8",
    points=0.5,
    hint="logits are numbers of any sign, which the loss turns into probabilities: what in your model "
    "did so before?",
)
def test_logits_are_no_probabilities(TiedLanguageModel):
    logits = _logits_of(_tied_model(TiedLanguageModel), [[1, 2, 3]])
    sums = np.exp(logits).sum(axis=-1)
    _expect((logits < 0).any(), f"expected logits of both signs; got none below {logits.min():.3g}")
    _expect(not np.allclose(sums, 1, atol=1e-4), "expected logits as the dot products give them; got ln P")


@exercise(
    "2.8",
    points=0.5,
    hint="a change of a later token changed an earlier prediction: the model reads what it should predict.",
)
def test_no_position_sees_what_follows(TiedLanguageModel):
    model = _tied_model(TiedLanguageModel)
    one, other = _logits_of(model, [[1, 2, 3, 4]]), _logits_of(model, [[1, 2, 9, 8]])
    assert_close(other[:, :2], one[:, :2], "the logits before the change", rtol=1e-4, atol=1e-5)


@exercise(
    "2.8",
    points=0.5,
    hint="id 0 is a token like any other here, and your model passes over it: what tells it that 0 is padding?",
)
def test_id_0_is_read(TiedLanguageModel):
    logits = _logits_of(_tied_model(TiedLanguageModel), [[1, 0, 2]])
    change = np.abs(logits[0, 1] - logits[0, 0]).max()
    _expect(change > 1e-3, f"expected other logits after id 0 than before it; got a change of {change:.2g}")


@exercise(
    "2.8",
    points=0.5,
    hint="the output's matrix is another one than the embedding's, or a copy that no gradient reaches: how "
    "many arrays of V × width does the model train?",
)
def test_the_output_is_the_embeddings_matrix(TiedLanguageModel):
    model = _tied_model(TiedLanguageModel)
    assert_equal(
        model.count_params(), 12 * 6 + 4 * (36 + 36 + 6), "the model's parameters (V = 12, width = 6)"
    )
    matrices = [variable for variable in model.trainable_variables if tuple(variable.shape) == (12, 6)]
    assert_equal(len(matrices), 1, "the number of trained matrices of (12, 6)")
    with tf.GradientTape() as tape:
        logit = model(np.array([[1]], dtype=np.int32))[0, 0, 5]
    # None where nothing depends on the matrix.
    gradient = tape.gradient(logit, matrices[0].value)
    row = np.zeros(6) if gradient is None else np.asarray(tf.convert_to_tensor(gradient))[5]
    _expect(
        (row != 0).any(),
        "expected the logit of token 5 to depend on its row of the embedding; its gradient is 0",
    )


class _CountedCell(keras.layers.LSTMCell):
    """An LSTM's cell that counts how often it is called, and keeps what it was given."""

    def __init__(self, units):
        super().__init__(units)
        self.calls, self.steps = 0, set()

    def call(self, inputs, states, training=False):
        self.calls += 1
        if tf.executing_eagerly():
            # By its bytes: a step that is only tried out, for its shapes, is the same as the one that counts.
            self.steps.add(b"".join(np.asarray(array).tobytes() for array in (inputs, *states)))
        return super().call(inputs, states, training=training)


class _CountedEmbedding(keras.layers.Embedding):
    """An embedding that counts the ids it was asked for."""

    def __init__(self, vocab_size, width):
        super().__init__(vocab_size, width)
        self.ids = 0

    def call(self, inputs):
        self.ids += int(np.prod(np.shape(inputs)))
        return super().call(inputs)


def _reading(answer):
    """Return how many ids are read for a prompt of 3 and 8 new ones, in how many unlike steps and calls."""
    embedding, cell, head = _generator(_CountedCell(6), embedding=_CountedEmbedding(9, 5))
    ids = answer(embedding, cell, head, [1, 2, 3], 8, np.argmax)
    assert_equal(len(_listed(ids, "a list of ids")), 8, "the number of ids")
    return embedding.ids, len(cell.steps), cell.calls


def _generator(cell, seed=87, embedding=None):
    """Return an embedding (V = 9, D = 5), the cell (H = 6) and a head with random weights.

    With this seed the greedy ids hang on every id of the prompt and on the state, by clear margins.
    """
    layers = embedding or keras.layers.Embedding(9, 5), cell, keras.layers.Dense(9)
    rng = np.random.default_rng(seed)
    for layer, shape in zip(layers, ((None,), (None, 5), (None, 6)), strict=True):
        layer.build(shape)
        layer.set_weights([1.5 * rng.normal(size=weight.shape) for weight in layer.weights])
    return layers


def _logits_after(layers, ids):
    """Return the logits (V,) after ids, all read from the beginning: an LSTM or a simple RNN, in NumPy."""
    embedding, cell, head = layers
    W, U, b = cell.get_weights()
    h, c = np.zeros(6), np.zeros(6)
    for vector in embedding.get_weights()[0][ids]:
        z = vector @ W + h @ U + b
        if isinstance(cell, keras.layers.LSTMCell):
            i, f, g, o = np.split(z, 4)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
        else:
            h = np.tanh(z)
    kernel, bias = head.get_weights()
    return h @ kernel + bias


def _greedy(layers, prompt, length):
    ids = list(prompt)
    for _ in range(length):
        ids.append(int(np.argmax(_logits_after(layers, ids))))
    return ids[len(prompt) :]


@exercise(
    "2.9",
    points=0.5,
    hint="the `length` new ids are asked for, without the prompt; the caller's prompt stays as it is.",
)
def test_only_the_new_ids_come_back(generate):
    layers = _generator(keras.layers.LSTMCell(6))
    for length in (1, 3):
        prompt = [3, 1]
        ids = generate(*layers, prompt, length, np.argmax)
        assert_equal(len(_listed(ids, "a list of ids")), length, f"the number of ids with length {length}")
        assert_equal(prompt, [3, 1], "the prompt after the call")


@exercise(
    "2.9",
    points=1,
    hint="what follows depends on all that came before, every token read once and in order: is the state of "
    "each step handed to the next, from the prompt's first token on?",
)
def test_ids_equal_those_of_reading_all_again(generate):
    layers = _generator(keras.layers.LSTMCell(6))
    for prompt in ([2], [5, 0, 0, 8]):
        ids = generate(*layers, prompt, 6, np.argmax)
        assert_equal(
            [int(token) for token in _listed(ids, "a list of ids")],
            _greedy(layers, prompt, 6),
            f"the ids after {prompt}",
        )


@exercise(
    "2.9",
    points=0.5,
    hint="`choose` is asked once for each new token, with the V logits of one position, and its answer is what "
    "is read next.",
)
def test_what_was_chosen_is_read_next(generate):
    layers, seen = _generator(keras.layers.LSTMCell(6)), []
    script = iter([3, 8, 0, 3])

    def choose(logits):
        seen.append(np.array(logits))
        return next(script)

    generate(*layers, [6, 2], 4, choose)
    assert_equal(len(seen), 4, "how often `choose` was asked for 4 tokens")
    for step, logits in enumerate(seen):
        read = [6, 2, 3, 8, 0][: 2 + step]
        assert_close(logits, _logits_after(layers, read), f"the logits after {read}", rtol=1e-4, atol=1e-5)


@exercise(
    "2.9",
    points=0.5,
    hint="the cell was called more often than there are tokens: who reads again what the state already knows?",
)
def test_n_tokens_cost_n_steps(generate):
    read, steps, calls = _reading(generate)
    # keras.layers.RNN calls the cell once more for each piece of text, to find its shapes: at most 18 in all.
    # Reading all again takes 52 calls, and reading the prompt twice hands 13 ids to the embedding.
    _expect(
        calls <= 20 and read <= 11 and steps <= 11,
        f"expected 10 ids to be read in 10 calls of the cell, for 3 + 8 tokens; got {read} and {calls}",
    )


@exercise(
    "2.9",
    points=0.25,
    hint="one call of the cell too many: the last new token was read, too, though nobody asks what would follow "
    "it.",
)
def test_the_last_new_token_is_not_read(generate):
    read, steps, _ = _reading(generate)
    _expect(
        read <= 10 and steps <= 10,
        f"expected 10 ids to be read for 3 + 8 tokens, all but the last; got {max(read, steps)}",
    )


@exercise(
    "2.9",
    points=0.25,
    hint="an LSTM's states are two arrays, those of other cells one: hand them on as they come, without "
    "looking inside.",
)
def test_any_cell_will_do(generate):
    layers = _generator(keras.layers.SimpleRNNCell(6))
    ids = generate(*layers, [4, 1], 5, np.argmax)
    assert_equal(
        [int(token) for token in _listed(ids, "a list of ids")],
        _greedy(layers, [4, 1], 5),
        "the ids of a SimpleRNNCell",
    )
