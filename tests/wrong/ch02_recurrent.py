"""Common wrong answers to chapter 2's exercises, and right ones in another style."""

import math

import keras
import numpy as np

from tests.wrong import right, wrong


@right("2.1")
def windows__row_by_row(stream, batch_size, time, start_id):
    count = len(stream) // (batch_size * time)
    shifted = [start_id, *stream]
    for i in range(count):
        begins = [(row * count + i) * time for row in range(batch_size)]
        inputs = np.array([shifted[b : b + time] for b in begins])
        yield inputs, np.array([stream[b : b + time] for b in begins])


@wrong("2.1", caught_by="test_all_windows_are_whole")
def windows__with_a_stump_at_the_end(stream, batch_size, time, start_id):
    length = len(stream) // batch_size
    targets = stream[: length * batch_size].reshape(batch_size, length)
    inputs = np.concatenate([[start_id], stream])[: length * batch_size].reshape(batch_size, length)
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, length, time)]


@wrong("2.1", caught_by="test_all_windows_are_whole")
def windows__time_before_batch(stream, batch_size, time, start_id):
    return [
        (inputs.T, targets.T) for inputs, targets in windows__row_by_row(stream, batch_size, time, start_id)
    ]


@wrong("2.1", caught_by="test_the_start_is_read_once")
def windows__without_a_start(stream, batch_size, time, start_id):
    inputs, targets = stream[:-1], stream[1:]
    used = len(targets) // (batch_size * time) * batch_size * time
    inputs, targets = (ids[:used].reshape(batch_size, -1) for ids in (inputs, targets))
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, inputs.shape[1], time)]


@wrong("2.1", caught_by="test_the_start_is_read_once")
def windows__a_start_for_each_window(stream, batch_size, time, start_id):
    start = np.full((batch_size, 1), start_id)
    return [
        (np.concatenate([start, targets[:, :-1]], axis=1), targets)
        for _, targets in windows__row_by_row(stream, batch_size, time, start_id)
    ]


@wrong("2.1", caught_by="test_the_start_is_read_once")
def windows__inputs_that_are_the_targets(stream, batch_size, time, start_id):
    return [(targets, targets) for _, targets in windows__row_by_row(stream, batch_size, time, start_id)]


@wrong("2.1", caught_by="test_inputs_are_the_ids_before_the_targets")
def windows__shifted_by_two(stream, batch_size, time, start_id):
    used = len(stream) // (batch_size * time) * batch_size * time
    inputs = np.concatenate([[start_id], stream])[:used].reshape(batch_size, -1)
    targets = np.roll(stream[:used], -1).reshape(batch_size, -1)
    targets[0, 0] = stream[0]
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, inputs.shape[1], time)]


@wrong("2.1", caught_by="test_inputs_are_the_ids_before_the_targets")
def windows__each_row_shifted_within_itself(stream, batch_size, time, start_id):
    used = len(stream) // (batch_size * time) * batch_size * time
    targets = stream[:used].reshape(batch_size, -1)
    inputs = np.roll(targets, 1, axis=1)
    inputs[0, 0] = start_id
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, inputs.shape[1], time)]


@wrong("2.1", caught_by="test_rows_go_on_in_the_next_window")
def windows__one_after_the_other(stream, batch_size, time, start_id):
    used = len(stream) // (batch_size * time) * batch_size * time
    inputs = np.concatenate([[start_id], stream])[:used].reshape(-1, batch_size, time)
    return list(zip(inputs, stream[:used].reshape(-1, batch_size, time), strict=True))


@wrong("2.1", caught_by="test_rows_go_on_in_the_next_window")
def windows__dealt_like_cards(stream, batch_size, time, start_id):
    used = len(stream) // (batch_size * time) * batch_size * time
    inputs = np.concatenate([[start_id], stream])[:used].reshape(-1, batch_size).T
    targets = stream[:used].reshape(-1, batch_size).T
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, inputs.shape[1], time)]


@wrong("2.1", caught_by="test_only_the_end_of_the_stream_is_left_over")
def windows__losing_the_end_of_each_row(stream, batch_size, time, start_id):
    length = len(stream) // batch_size
    targets = stream[: length * batch_size].reshape(batch_size, length)
    inputs = np.concatenate([[start_id], stream])[: length * batch_size].reshape(batch_size, length)
    whole = length // time * time
    return [(inputs[:, s : s + time], targets[:, s : s + time]) for s in range(0, whole, time)]


def _softmax(logits, axis=-1):
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def _nats(logits, targets):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


@right("2.2")
def cross_entropy__with_one_hot_targets(logits, targets, mask):
    largest = logits.max(axis=-1)
    normalizers = largest + np.log(np.exp(logits - largest[..., None]).sum(axis=-1))
    chosen = (logits * np.eye(logits.shape[-1])[targets]).sum(axis=-1)
    return ((normalizers - chosen) * mask).sum() / mask.sum()


@right("2.2")
def cross_entropy__token_by_token(logits, targets, mask):
    total, count = 0.0, 0
    for b, t in np.argwhere(mask):
        others = logits[b, t] - logits[b, t, targets[b, t]]
        total += np.logaddexp.reduce(others)
        count += 1
    return total / count


@wrong("2.2", caught_by="test_equal_logits_cost_ln_v")
def cross_entropy__summed(logits, targets, mask):
    return _nats(logits, targets)[mask].sum()


@wrong("2.2", caught_by="test_equal_logits_cost_ln_v")
def cross_entropy__for_each_row(logits, targets, mask):
    return _nats(logits, targets)[mask].sum() / len(logits)


@wrong("2.2", caught_by="test_equal_logits_cost_ln_v")
def cross_entropy__in_bits(logits, targets, mask):
    return _nats(logits, targets)[mask].mean() / math.log(2)


@wrong("2.2", caught_by="test_equal_logits_cost_ln_v")
def cross_entropy__without_the_minus(logits, targets, mask):
    return -_nats(logits, targets)[mask].mean()


@wrong("2.2", caught_by="test_equal_logits_cost_ln_v")
def cross_entropy__over_the_one_hot(logits, targets, mask):
    one_hot = np.eye(logits.shape[-1])[targets]
    return -(one_hot * np.log(_softmax(logits)))[mask].mean()


@wrong("2.2", caught_by="test_the_softmax_runs_over_the_vocabulary")
def cross_entropy__softmax_over_time(logits, targets, mask):
    picked = np.take_along_axis(_softmax(logits, axis=1), targets[..., None], axis=-1)[..., 0]
    return -np.log(picked)[mask].mean()


@wrong("2.2", caught_by="test_the_softmax_runs_over_the_vocabulary")
def cross_entropy__the_largest_for_the_target(logits, targets, mask):
    return -np.log(_softmax(logits).max(axis=-1))[mask].mean()


@wrong("2.2", caught_by="test_padding_does_not_count")
def cross_entropy__with_the_padding(logits, targets, mask):
    return _nats(logits, targets).mean()


@wrong("2.2", caught_by="test_padding_does_not_count")
def cross_entropy__divided_by_all_places(logits, targets, mask):
    return (_nats(logits, targets) * mask).mean()


@wrong("2.2", caught_by="test_padding_does_not_count")
def cross_entropy__mean_of_the_rows_means(logits, targets, mask):
    rows = (_nats(logits, targets) * mask).sum(axis=1) / mask.sum(axis=1)
    return rows.mean()


@wrong("2.2", caught_by="test_large_logits_are_no_exception")
def cross_entropy__exp_of_the_logits(logits, targets, mask):
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(probabilities, targets[..., None], axis=-1))[..., 0][mask].mean()


@wrong("2.2", caught_by="test_large_logits_are_no_exception")
def cross_entropy__log_of_the_softmax(logits, targets, mask):
    picked = np.take_along_axis(_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -np.log(picked)[mask].mean()


@wrong("2.2", caught_by="test_large_logits_are_no_exception")
def cross_entropy__zero_hidden_by_an_epsilon(logits, targets, mask):
    picked = np.take_along_axis(_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -np.log(picked + 1e-12)[mask].mean()


@wrong("2.2", caught_by="test_the_logits_are_left_as_they_are")
def cross_entropy__in_place(logits, targets, mask):
    logits -= logits.max(axis=-1, keepdims=True)
    return _nats(logits, targets)[mask].mean()


@right("2.3")
def simple_rnn__input_products_at_once(x, h0, W, U, b):
    projected = x @ W + b
    states = np.empty_like(projected)
    for t in range(x.shape[1]):
        before = h0 if t == 0 else states[:, t - 1]
        states[:, t] = np.tanh(projected[:, t] + before @ U)
    return states


@right("2.3")
def simple_rnn__one_matrix(x, h0, W, U, b):
    states = [h0]
    both = np.concatenate([W, U])
    for step in np.swapaxes(x, 0, 1):
        states.append(np.tanh(np.concatenate([step, states[-1]], axis=-1) @ both + b))
    return np.array(states[1:]).transpose(1, 0, 2)


@wrong("2.3", caught_by="test_the_state_of_every_step_is_returned")
def simple_rnn__only_the_last(x, h0, W, U, b):
    return simple_rnn__one_matrix(x, h0, W, U, b)[:, -1]


@wrong("2.3", caught_by="test_the_axes_are_batch_time_and_width")
def simple_rnn__time_first(x, h0, W, U, b):
    return simple_rnn__one_matrix(x, h0, W, U, b).transpose(1, 0, 2)


@wrong("2.3", caught_by="test_h0_is_not_among_the_states")
def simple_rnn__with_h0(x, h0, W, U, b):
    return np.concatenate([h0[:, None], simple_rnn__one_matrix(x, h0, W, U, b)], axis=1)


@wrong("2.3", caught_by="test_h0_is_not_among_the_states")
def simple_rnn__as_in_the_chapter(x, h0, W, U, b):
    states = [h0]
    for t in range(x.shape[1]):
        states.append(np.tanh(x[:, t] @ W + states[-1] @ U + b))
    return np.array(states)


@wrong("2.3", caught_by="test_one_step_equals_the_formula")
def simple_rnn__without_the_bias(x, h0, W, U, b):
    return simple_rnn__one_matrix(x, h0, W, U, 0 * b)


@wrong("2.3", caught_by="test_one_step_equals_the_formula")
def simple_rnn__bias_outside_the_tanh(x, h0, W, U, b):
    h, states = h0, []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ W + h @ U) + b
        states.append(h)
    return np.stack(states, axis=1)


@wrong("2.3", caught_by="test_one_step_equals_the_formula")
def simple_rnn__linear(x, h0, W, U, b):
    h, states = h0, []
    for t in range(x.shape[1]):
        h = x[:, t] @ W + h @ U + b
        states.append(h)
    return np.stack(states, axis=1)


@wrong("2.3", caught_by="test_the_first_step_starts_from_h0")
def simple_rnn__from_zeros(x, h0, W, U, b):
    return simple_rnn__one_matrix(x, np.zeros_like(h0), W, U, b)


@wrong("2.3", caught_by="test_the_first_step_starts_from_h0")
def simple_rnn__recurrent_matrix_transposed(x, h0, W, U, b):
    return simple_rnn__one_matrix(x, h0, W, U.T, b)


@wrong("2.3", caught_by="test_each_step_starts_from_the_state_before")
def simple_rnn__every_step_from_h0(x, h0, W, U, b):
    return np.tanh(x @ W + (h0 @ U)[:, None] + b)


@wrong("2.3", caught_by="test_each_step_starts_from_the_state_before")
def simple_rnn__one_array_for_all_states(x, h0, W, U, b):
    h, states = h0.copy(), []
    for t in range(x.shape[1]):
        h[:] = np.tanh(x[:, t] @ W + h @ U + b)
        states.append(h)
    return np.stack(states, axis=1)


@wrong("2.3", caught_by="test_each_step_starts_from_the_state_before")
def simple_rnn__always_the_first_input(x, h0, W, U, b):
    return simple_rnn__one_matrix(np.repeat(x[:, :1], x.shape[1], axis=1), h0, W, U, b)


@wrong("2.3", caught_by="test_the_initial_state_is_left_as_it_is")
def simple_rnn__writing_over_h0(x, h0, W, U, b):
    states = []
    for t in range(x.shape[1]):
        h0[:] = np.tanh(x[:, t] @ W + h0 @ U + b)
        states.append(h0.copy())
    return np.stack(states, axis=1)


@right("2.4")
def clip_by_global_norm__as_one_vector(gradients, limit):
    norm = np.linalg.norm(np.concatenate([np.ravel(g) for g in gradients]))
    if norm > limit:
        gradients = [limit / norm * g for g in gradients]
    return gradients, norm


@wrong("2.4", caught_by="test_the_norm_is_that_of_all_gradients_together")
def clip_by_global_norm__sum_of_the_norms(gradients, limit):
    norm = sum(np.linalg.norm(g) for g in gradients)
    return [g * limit / max(norm, limit) for g in gradients], norm


@wrong("2.4", caught_by="test_the_norm_is_that_of_all_gradients_together")
def clip_by_global_norm__squared(gradients, limit):
    norm = sum((g**2).sum() for g in gradients)
    return [g * limit / max(norm, limit) for g in gradients], norm


@wrong("2.4", caught_by="test_the_norm_is_that_of_all_gradients_together")
def clip_by_global_norm__norm_after_clipping(gradients, limit):
    clipped, norm = clip_by_global_norm__as_one_vector(gradients, limit)
    return clipped, min(norm, limit)


@wrong("2.4", caught_by="test_the_norm_is_that_of_all_gradients_together")
def clip_by_global_norm__largest_of_the_norms(gradients, limit):
    norm = max(np.linalg.norm(g) for g in gradients)
    return [g * limit / max(norm, limit) for g in gradients], norm


@wrong("2.4", caught_by="test_the_norm_is_that_of_all_gradients_together")
def clip_by_global_norm__without_the_norm(gradients, limit):
    return clip_by_global_norm__as_one_vector(gradients, limit)[0]


@wrong("2.4", caught_by="test_the_direction_stays")
def clip_by_global_norm__each_array_by_itself(gradients, limit):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g * limit / max(np.linalg.norm(g), limit) for g in gradients], norm


@wrong("2.4", caught_by="test_the_direction_stays")
def clip_by_global_norm__each_number_by_itself(gradients, limit):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [np.clip(g, -limit, limit) for g in gradients], norm


@wrong("2.4", caught_by="test_the_direction_stays")
def clip_by_global_norm__divided_by_the_limit_too(gradients, limit):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g / norm if norm > limit else g for g in gradients], norm


@wrong("2.4", caught_by="test_small_gradients_stay")
def clip_by_global_norm__always_to_the_limit(gradients, limit):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    return [g * limit / max(norm, 1e-12) for g in gradients], norm


@wrong("2.4", caught_by="test_zero_gradients_stay_zero")
def clip_by_global_norm__zero_by_zero(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(limit, norm) / norm for g in gradients], norm


@wrong("2.4", caught_by="test_the_gradients_are_left_as_they_are")
def clip_by_global_norm__in_place(gradients, limit):
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    for g in gradients:
        g *= limit / max(norm, limit)
    return gradients, norm


def _sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


def _lstm(z, c):
    i, f, g, o = np.split(z, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


@right("2.5")
def lstm_step__gate_by_gate(x, h, c, W, U, b):
    H = h.shape[-1]
    gates = []
    for n, function in enumerate((_sigmoid, _sigmoid, np.tanh, _sigmoid)):
        columns = slice(n * H, (n + 1) * H)
        gates.append(function(x @ W[:, columns] + h @ U[:, columns] + b[columns]))
    i, f, g, o = gates
    new_c = f * c + i * g
    return o * np.tanh(new_c), new_c


@wrong("2.5", caught_by="test_the_state_comes_before_the_cell")
def lstm_step__cell_first(x, h, c, W, U, b):
    return _lstm(x @ W + h @ U + b, c)[::-1]


@wrong("2.5", caught_by="test_the_state_is_made_of_the_new_cell")
def lstm_step__state_of_the_old_cell(x, h, c, W, U, b):
    z = x @ W + h @ U + b
    return _sigmoid(np.split(z, 4, axis=-1)[3]) * np.tanh(c), _lstm(z, c)[1]


@wrong("2.5", caught_by="test_zero_weights_leave_an_empty_cell_empty")
def lstm_step__sigmoid_for_the_candidate(x, h, c, W, U, b):
    i, f, g, o = np.split(_sigmoid(x @ W + h @ U + b), 4, axis=-1)
    c = f * c + i * g
    return o * np.tanh(c), c


@wrong("2.5", caught_by="test_the_cell_goes_through_a_tanh")
def lstm_step__no_tanh_on_the_cell(x, h, c, W, U, b):
    z = x @ W + h @ U + b
    c = _lstm(z, c)[1]
    return _sigmoid(np.split(z, 4, axis=-1)[3]) * c, c


@wrong("2.5", caught_by="test_zero_weights_halve_the_cell")
def lstm_step__forget_bias_added_at_each_step(x, h, c, W, U, b):
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    return _lstm(np.concatenate([i, f + 1, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_zero_weights_leave_an_empty_cell_empty")
def lstm_step__candidate_and_input_gate_exchange_their_functions(x, h, c, W, U, b):
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    c = _sigmoid(f) * c + (1 + np.tanh(i)) * _sigmoid(g)
    return _sigmoid(o) * np.tanh(c), c


@wrong("2.5", caught_by="test_the_candidate_comes_before_the_output_gate")
def lstm_step__candidate_last(x, h, c, W, U, b):
    i, f, o, g = np.split(x @ W + h @ U + b, 4, axis=-1)
    return _lstm(np.concatenate([i, f, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_the_input_gate_comes_before_the_forget_gate")
def lstm_step__forget_gate_first(x, h, c, W, U, b):
    f, i, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    return _lstm(np.concatenate([i, f, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_a_forget_gate_of_one_keeps_the_cell")
def lstm_step__forget_gate_that_forgets(x, h, c, W, U, b):
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    return _lstm(np.concatenate([i, -f, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_the_input_gate_is_not_what_the_forget_gate_leaves")
def lstm_step__coupled_gates(x, h, c, W, U, b):
    _, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    return _lstm(np.concatenate([-f, f, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_zero_weights_halve_the_cell")
def lstm_step__tanh_for_every_gate(x, h, c, W, U, b):
    i, f, g, o = np.split(np.tanh(x @ W + h @ U + b), 4, axis=-1)
    c = f * c + i * g
    return o * np.tanh(c), c


@wrong("2.5", caught_by="test_the_bias_is_added")
def lstm_step__without_the_bias(x, h, c, W, U, b):
    return _lstm(x @ W + h @ U, c)


@wrong("2.5", caught_by="test_the_gates_read_the_state_before")
def lstm_step__without_the_state_before(x, h, c, W, U, b):
    return _lstm(x @ W + b, c)


@wrong("2.5", caught_by="test_each_row_has_its_own_gates")
def lstm_step__cut_by_a_reshape(x, h, c, W, U, b):
    i, f, g, o = (x @ W + h @ U + b).reshape(4, *c.shape)
    return _lstm(np.concatenate([i, f, g, o], axis=-1), c)


@wrong("2.5", caught_by="test_the_old_cell_is_left_as_it_is")
def lstm_step__in_place(x, h, c, W, U, b):
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    c *= _sigmoid(f)
    c += _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(x, h, W, U, bias, reset_after):
    H = h.shape[-1]
    b, b_recurrent = bias if reset_after else (bias, np.zeros(3 * H))
    z, r = np.split(_sigmoid((x @ W + h @ U + b + b_recurrent)[:, : 2 * H]), 2, axis=-1)
    if reset_after:
        g = np.tanh(x @ W[:, 2 * H :] + b[2 * H :] + r * (h @ U[:, 2 * H :] + b_recurrent[2 * H :]))
    else:
        g = np.tanh(x @ W[:, 2 * H :] + b[2 * H :] + (r * h) @ U[:, 2 * H :])
    return z, r, g


@right("2.6")
def gru_step__candidate_moved_towards(x, h, W, U, bias, reset_after):
    z, _, g = _gru(x, h, W, U, bias, reset_after)
    return g + z * (h - g)


@right("2.6")
def gru_step__nine_matrices(x, h, W, U, bias, reset_after):
    W_z, W_r, W_g = np.hsplit(W, 3)
    U_z, U_r, U_g = np.hsplit(U, 3)
    b_z, b_r, b_g = np.split(np.atleast_2d(bias)[0], 3)
    c_z, c_r, c_g = np.split(bias[1], 3) if reset_after else (0, 0, 0)
    z = _sigmoid(x @ W_z + b_z + h @ U_z + c_z)
    r = _sigmoid(x @ W_r + b_r + h @ U_r + c_r)
    recurrent = r * (h @ U_g + c_g) if reset_after else (r * h) @ U_g
    return z * h + (1 - z) * np.tanh(x @ W_g + b_g + recurrent)


@wrong("2.6", caught_by="test_zero_weights_halve_the_state")
def gru_step__sigmoid_for_the_candidate(x, h, W, U, bias, reset_after):
    z, _, g = _gru(x, h, W, U, bias, reset_after)
    return z * h + (1 - z) * _sigmoid(np.arctanh(g))


@wrong("2.6", caught_by="test_zero_weights_halve_the_state")
def gru_step__all_of_the_old_state(x, h, W, U, bias, reset_after):
    z, _, g = _gru(x, h, W, U, bias, reset_after)
    return h + (1 - z) * g


@wrong("2.6", caught_by="test_the_update_gate_keeps_the_old_state")
def gru_step__update_gate_swapped(x, h, W, U, bias, reset_after):
    z, _, g = _gru(x, h, W, U, bias, reset_after)
    return (1 - z) * h + z * g


@wrong("2.6", caught_by="test_the_update_gate_keeps_the_old_state")
def gru_step__reset_gate_first(x, h, W, U, bias, reset_after):
    def swapped(array):
        z, r, g = np.split(array, 3, axis=-1)
        return np.concatenate([r, z, g], axis=-1)

    return gru_step__nine_matrices(x, h, swapped(W), swapped(U), swapped(bias), reset_after)


@wrong("2.6", caught_by="test_the_update_gate_keeps_the_old_state")
def gru_step__reset_gate_for_both(x, h, W, U, bias, reset_after):
    _, r, g = _gru(x, h, W, U, bias, reset_after)
    return r * h + (1 - r) * g


@wrong("2.6", caught_by="test_reset_before_equals_keras")
def gru_step__always_after(x, h, W, U, bias, reset_after):
    bias = bias if reset_after else np.stack([bias, np.zeros_like(bias)])
    return gru_step__nine_matrices(x, h, W, U, bias, True)


@wrong("2.6", caught_by="test_reset_before_equals_keras")
def gru_step__no_reset_at_all(x, h, W, U, bias, reset_after):
    b = bias.sum(axis=0) if reset_after else bias
    H = h.shape[-1]
    z = _sigmoid(x @ W + h @ U + b)[:, :H]
    return z * h + (1 - z) * np.tanh((x @ W + h @ U + b)[:, 2 * H :])


@wrong("2.6", caught_by="test_zero_weights_halve_the_state")
def gru_step__reset_of_the_old_state_too(x, h, W, U, bias, reset_after):
    z, r, g = _gru(x, h, W, U, bias, reset_after)
    return z * (h if reset_after else r * h) + (1 - z) * g


@wrong("2.6", caught_by="test_reset_after_equals_keras")
def gru_step__always_before(x, h, W, U, bias, reset_after):
    return gru_step__nine_matrices(x, h, W, U, bias.sum(axis=0) if reset_after else bias, False)


@wrong("2.6", caught_by="test_reset_after_equals_keras")
def gru_step__second_bias_outside_the_reset(x, h, W, U, bias, reset_after):
    bias = np.stack([bias.sum(axis=0), np.zeros_like(bias[0])]) if reset_after else bias
    return gru_step__nine_matrices(x, h, W, U, bias, reset_after)


@wrong("2.6", caught_by="test_reset_after_equals_keras")
def gru_step__second_bias_forgotten(x, h, W, U, bias, reset_after):
    bias = np.stack([bias[0], np.zeros_like(bias[0])]) if reset_after else bias
    return gru_step__nine_matrices(x, h, W, U, bias, reset_after)


@wrong("2.6", caught_by="test_the_old_state_is_left_as_it_is")
def gru_step__in_place(x, h, W, U, bias, reset_after):
    z, _, g = _gru(x, h, W, U, bias, reset_after)
    h *= z
    h += (1 - z) * g
    return h


def _steps(x, h0, states, d_states, U):
    """Yield (t, state before, dL/da) from the last step to the first, and (-1, None, dL/dh0) at the end."""
    dh = np.zeros_like(h0)
    for t in range(x.shape[1] - 1, -1, -1):
        da = (d_states[:, t] + dh) * (1 - states[:, t] ** 2)
        yield t, states[:, t - 1] if t else h0, da
        dh = da @ U.T
    yield -1, None, dh


@right("2.7")
def rnn_gradients__sums_at_the_end(x, h0, states, d_states, U):
    da, dh = np.zeros_like(states), np.zeros_like(h0)
    for t in range(x.shape[1])[::-1]:
        da[:, t] = (1 - states[:, t] ** 2) * (d_states[:, t] + dh)
        dh = da[:, t] @ U.T
    before = np.concatenate([h0[:, None], states[:, :-1]], axis=1)
    return np.einsum("btd,bth->dh", x, da), np.einsum("btk,bth->kh", before, da), da.sum(axis=(0, 1)), dh


@right("2.7")
def rnn_gradients__carried_to_the_step_before(x, h0, states, d_states, U):
    grown = np.concatenate([np.zeros_like(h0)[:, None], d_states], axis=1)
    states = np.concatenate([h0[:, None], states], axis=1)
    dW = dU = db = 0
    for t in range(x.shape[1], 0, -1):
        da = grown[:, t] * (1 - states[:, t] ** 2)
        dW = dW + x[:, t - 1].T @ da
        dU = dU + states[:, t - 1].T @ da
        db = db + da.sum(axis=0)
        grown[:, t - 1] += da @ U.T
    return dW, dU, db, grown[:, 0]


@wrong("2.7", caught_by="test_gradients_have_the_shapes_of_their_arrays")
def rnn_gradients__bias_for_each_row(x, h0, states, d_states, U):
    steps = list(_steps(x, h0, states, d_states, U))
    dW, dU, _, dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)
    return dW, dU, sum(da for _, _, da in steps[:-1]), dh0


@wrong("2.7", caught_by="test_gradients_have_the_shapes_of_their_arrays")
def rnn_gradients__matrices_transposed(x, h0, states, d_states, U):
    dW, dU, db, dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)
    return dW.T, dU.T, db, dh0


@wrong("2.7", caught_by="test_one_step_goes_through_the_tanh")
def rnn_gradients__without_the_slope_of_tanh(x, h0, states, d_states, U):
    return rnn_gradients__sums_at_the_end(x, h0, 0 * states, d_states, U)


@wrong("2.7", caught_by="test_the_slope_is_one_minus_the_square_of_the_state")
def rnn_gradients__tanh_of_the_state(x, h0, states, d_states, U):
    return rnn_gradients__sums_at_the_end(x, h0, np.tanh(states), d_states, U)


@wrong("2.7", caught_by="test_the_slope_is_one_minus_the_square_of_the_state")
def rnn_gradients__square_forgotten(x, h0, states, d_states, U):
    return rnn_gradients__sums_at_the_end(x, h0, np.sqrt(np.abs(states)), d_states, U)


@wrong("2.7", caught_by="test_rows_are_summed")
def rnn_gradients__mean_over_the_rows(x, h0, states, d_states, U):
    dW, dU, db, dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)
    return dW / len(x), dU / len(x), db / len(x), dh0


@wrong("2.7", caught_by="test_dU_pairs_with_the_state_before")
def rnn_gradients__state_of_the_same_step(x, h0, states, d_states, U):
    dW, _, db, dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)
    steps = _steps(x, h0, states, d_states, U)
    return dW, sum(states[:, t].T @ da for t, _, da in steps if t >= 0), db, dh0


@wrong("2.7", caught_by="test_the_state_before_the_first_step_is_h0")
def rnn_gradients__minus_one_is_the_last(x, h0, states, d_states, U):
    dW, _, db, dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)
    steps = _steps(x, h0, states, d_states, U)
    return dW, sum(states[:, t - 1].T @ da for t, _, da in steps if t >= 0), db, dh0


@wrong("2.7", caught_by="test_the_last_loss_reaches_the_first_state")
def rnn_gradients__each_step_alone(x, h0, states, d_states, U):
    da = d_states * (1 - states**2)
    before = np.concatenate([h0[:, None], states[:, :-1]], axis=1)
    dW, dU = np.einsum("btd,bth->dh", x, da), np.einsum("btk,bth->kh", before, da)
    return dW, dU, da.sum(axis=(0, 1)), da[:, 0] @ U.T


@wrong("2.7", caught_by="test_the_way_back_is_through_U_transposed")
def rnn_gradients__recurrent_matrix_not_transposed(x, h0, states, d_states, U):
    return rnn_gradients__sums_at_the_end(x, h0, states, d_states, U.T)


@wrong("2.7", caught_by="test_what_is_carried_goes_through_every_tanh")
def rnn_gradients__slope_for_the_direct_loss_only(x, h0, states, d_states, U):
    dW, dU, db, dh = np.zeros((x.shape[-1], len(U))), np.zeros_like(U), np.zeros(len(U)), np.zeros_like(h0)
    for t in reversed(range(x.shape[1])):
        da = d_states[:, t] * (1 - states[:, t] ** 2) + dh
        dW += x[:, t].T @ da
        dU += (states[:, t - 1] if t else h0).T @ da
        db += da.sum(axis=0)
        dh = da @ U.T
    return dW, dU, db, dh


@wrong("2.7", caught_by="test_gradients_equal_finite_differences")
def rnn_gradients__weights_from_the_direct_loss_only(x, h0, states, d_states, U):
    dh0 = rnn_gradients__sums_at_the_end(x, h0, states, d_states, U)[3]
    return *rnn_gradients__each_step_alone(x, h0, states, d_states, U)[:3], dh0


@wrong("2.7", caught_by="test_the_weights_collect_from_every_step")
def rnn_gradients__the_first_step_only(x, h0, states, d_states, U):
    for t, before, da in _steps(x, h0, states, d_states, U):
        if t >= 0:
            dW, dU, db = x[:, t].T @ da, before.T @ da, da.sum(axis=0)
    return dW, dU, db, da


@wrong("2.7", caught_by="test_every_step_has_a_loss_of_its_own")
def rnn_gradients__from_the_first_step_to_the_last(x, h0, states, d_states, U):
    dW, dU, db, dh = np.zeros((x.shape[-1], len(U))), np.zeros_like(U), np.zeros(len(U)), np.zeros_like(h0)
    for t in range(x.shape[1]):
        da = (d_states[:, t] + dh) * (1 - states[:, t] ** 2)
        dW += x[:, t].T @ da
        dU += (states[:, t - 1] if t else h0).T @ da
        db += da.sum(axis=0)
        dh = da @ U.T
    return dW, dU, db, dh


@wrong("2.7", caught_by="test_every_step_has_a_loss_of_its_own")
def rnn_gradients__loss_of_the_last_step_only(x, h0, states, d_states, U):
    last = np.zeros_like(d_states)
    last[:, -1] = d_states[:, -1]
    return rnn_gradients__sums_at_the_end(x, h0, states, last, U)


@wrong("2.7", caught_by="test_the_given_gradients_are_left_as_they_are")
def rnn_gradients__adding_to_d_states(x, h0, states, d_states, U):
    dW, dU, db = np.zeros((x.shape[-1], len(U))), np.zeros_like(U), np.zeros(len(U))
    for t in reversed(range(x.shape[1])):
        da = d_states[:, t] * (1 - states[:, t] ** 2)
        dW += x[:, t].T @ da
        dU += (states[:, t - 1] if t else h0).T @ da
        db += da.sum(axis=0)
        if t:
            d_states[:, t - 1] += da @ U.T
    return dW, dU, db, da @ U.T


@right("2.8")
def tied_parameters__as_one_matrix(vocab_size, width):
    rows_of_the_lstm = 2 * width + 1  # the input, the state and a constant one
    return width * (vocab_size + 4 * rows_of_the_lstm)


@wrong("2.8", caught_by="test_the_parameters_are_counted")
def tied_parameters__without_the_biases(vocab_size, width):
    return vocab_size * width + 4 * 2 * width * width


@wrong("2.8", caught_by="test_the_parameters_are_counted")
def tied_parameters__without_the_recurrent_matrix(vocab_size, width):
    return vocab_size * width + 4 * (width * width + width)


@wrong("2.8", caught_by="test_the_parameters_are_counted")
def tied_parameters__three_gates(vocab_size, width):
    return vocab_size * width + 3 * (2 * width * width + width)


@wrong("2.8", caught_by="test_the_parameters_are_counted")
def tied_parameters__two_matrices(vocab_size, width):
    return 2 * vocab_size * width + 4 * (2 * width * width + width)


class _Model(keras.Model):
    """What the answers below share: an embedding and an LSTM."""

    def __init__(self, vocab_size, width):
        super().__init__()
        self.embedding = keras.layers.Embedding(vocab_size, width)
        self.lstm = keras.layers.LSTM(width, return_sequences=True)

    def call(self, ids):
        return keras.ops.matmul(self.states(ids), keras.ops.transpose(self.embedding.embeddings))

    def states(self, ids):
        return self.lstm(self.embedding(ids))


@right("2.8")
class TiedLanguageModel__step_by_step(keras.Model):
    def __init__(self, vocab_size, width):
        super().__init__()
        self.matrix = self.add_weight(shape=(vocab_size, width), initializer="glorot_uniform")
        self.recurrent = keras.layers.RNN(keras.layers.LSTMCell(width), return_sequences=True)

    def call(self, ids):
        return keras.ops.einsum(
            "bth,vh->btv", self.recurrent(keras.ops.take(self.matrix, ids, axis=0)), self.matrix
        )


@wrong("2.8", caught_by="test_every_position_has_logits")
class TiedLanguageModel__only_the_last(_Model):
    def states(self, ids):
        return super().states(ids)[:, -1]


@wrong("2.8", caught_by="test_every_position_has_logits")
class TiedLanguageModel__states_for_logits(_Model):
    def call(self, ids):
        return self.states(ids)


@wrong("2.8", caught_by="test_logits_are_no_probabilities")
class TiedLanguageModel__with_a_softmax(_Model):
    def call(self, ids):
        return keras.ops.softmax(super().call(ids))


@wrong("2.8", caught_by="test_logits_are_no_probabilities")
class TiedLanguageModel__with_a_log_softmax(_Model):
    def call(self, ids):
        return keras.ops.log_softmax(super().call(ids))


@wrong("2.8", caught_by="test_no_position_sees_what_follows")
class TiedLanguageModel__in_both_directions(_Model):
    def __init__(self, vocab_size, width):
        super().__init__(vocab_size, width)
        self.both = keras.layers.Bidirectional(self.lstm, merge_mode="sum")

    def states(self, ids):
        return self.both(self.embedding(ids))


@wrong("2.8", caught_by="test_no_position_sees_what_follows")
class TiedLanguageModel__last_state_everywhere(_Model):
    def states(self, ids):
        states = super().states(ids)
        return keras.ops.broadcast_to(states[:, -1:], states.shape)


@wrong("2.8", caught_by="test_id_0_is_read")
class TiedLanguageModel__zero_as_padding(_Model):
    def __init__(self, vocab_size, width):
        super().__init__(vocab_size, width)
        self.embedding = keras.layers.Embedding(vocab_size, width, mask_zero=True)


@wrong("2.8", caught_by="test_the_output_is_the_embeddings_matrix")
class TiedLanguageModel__with_a_dense_layer(_Model):
    def __init__(self, vocab_size, width):
        super().__init__(vocab_size, width)
        self.head = keras.layers.Dense(vocab_size, use_bias=False)

    def call(self, ids):
        return self.head(self.states(ids))


@wrong("2.8", caught_by="test_the_output_is_the_embeddings_matrix")
class TiedLanguageModel__with_a_bias(_Model):
    def __init__(self, vocab_size, width):
        super().__init__(vocab_size, width)
        self.bias = self.add_weight(shape=(vocab_size,), initializer="zeros")

    def call(self, ids):
        return super().call(ids) + self.bias


@wrong("2.8", caught_by="test_the_output_is_the_embeddings_matrix")
class TiedLanguageModel__with_a_copy_of_the_matrix(_Model):
    def call(self, ids):
        states = self.states(ids)
        matrix = keras.ops.convert_to_numpy(self.embedding.embeddings)
        return keras.ops.matmul(states, keras.ops.transpose(matrix))


def _read(embedding, cell, ids, states):
    for token in ids:
        output, states = cell(embedding(np.array([token])), states)
    return output, states


def _first_states(cell):
    return cell.get_initial_state(batch_size=1)


@right("2.9")
def generate__prompt_first(embedding, cell, head, prompt, length, choose):
    output, states = _read(embedding, cell, prompt, _first_states(cell))
    new = [choose(head(output)[0])]
    while len(new) < length:
        output, states = cell(embedding(np.array([new[-1]])), states)
        new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_the_last_new_token_is_not_read")
def generate__reading_the_last_token_too(embedding, cell, head, prompt, length, choose):
    output, states = _read(embedding, cell, prompt, _first_states(cell))
    new = []
    for _ in range(length):
        token = int(choose(keras.ops.convert_to_numpy(head(output))[0]))
        new.append(token)
        output, states = cell(embedding(np.array([token])), states)
    return new


@right("2.9")
def generate__with_an_rnn_layer(embedding, cell, head, prompt, length, choose):
    rnn = keras.layers.RNN(cell, return_state=True)
    new, unread, states = [], prompt, None
    while len(new) < length:
        output, *states = rnn(embedding(np.array([unread])), initial_state=states)
        unread = [choose(head(output)[0])]
        new += unread
    return new


@wrong("2.9", caught_by="test_only_the_new_ids_come_back")
def generate__with_the_prompt(embedding, cell, head, prompt, length, choose):
    return [*prompt, *generate__prompt_first(embedding, cell, head, prompt, length, choose)]


@wrong("2.9", caught_by="test_only_the_new_ids_come_back")
def generate__growing_the_callers_prompt(embedding, cell, head, prompt, length, choose):
    output, states = _read(embedding, cell, prompt, _first_states(cell))
    for _ in range(length):
        prompt.append(int(choose(head(output)[0])))
        output, states = cell(embedding(np.array(prompt[-1:])), states)
    return prompt[-length:]


@wrong("2.9", caught_by="test_only_the_new_ids_come_back")
def generate__only_the_last(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(embedding, cell, head, prompt, length, choose)[-1]


@wrong("2.9", caught_by="test_only_the_new_ids_come_back")
def generate__one_too_few(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(embedding, cell, head, prompt, length, choose)[: length - 1]


@wrong("2.9", caught_by="test_ids_equal_those_of_reading_all_again")
def generate__state_forgotten_at_each_step(embedding, cell, head, prompt, length, choose):
    output, _ = _read(embedding, cell, prompt, _first_states(cell))
    new = [choose(head(output)[0])]
    while len(new) < length:
        output, _ = cell(embedding(np.array([new[-1]])), _first_states(cell))
        new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_ids_equal_those_of_reading_all_again")
def generate__state_of_the_prompt_kept(embedding, cell, head, prompt, length, choose):
    output, states = _read(embedding, cell, prompt, _first_states(cell))
    new = [choose(head(output)[0])]
    while len(new) < length:
        output, _ = cell(embedding(np.array([new[-1]])), states)
        new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_ids_equal_those_of_reading_all_again")
def generate__last_of_the_prompt_twice(embedding, cell, head, prompt, length, choose):
    _, states = _read(embedding, cell, prompt, _first_states(cell))
    new = [prompt[-1]]
    for _ in range(length):
        output, states = cell(embedding(np.array([new[-1]])), states)
        new.append(choose(head(output)[0]))
    return new[1:]


@wrong("2.9", caught_by="test_ids_equal_those_of_reading_all_again")
def generate__only_the_last_of_the_prompt(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(embedding, cell, head, prompt[-1:], length, choose)


@wrong("2.9", caught_by="test_what_was_chosen_is_read_next")
def generate__always_the_best(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(embedding, cell, head, prompt, length, np.argmax)


@wrong("2.9", caught_by="test_what_was_chosen_is_read_next")
def generate__reading_the_best(embedding, cell, head, prompt, length, choose):
    output, states = _read(embedding, cell, prompt, _first_states(cell))
    new = []
    for _ in range(length):
        logits = np.array(head(output))[0]
        new.append(int(choose(logits)))
        output, states = cell(embedding(np.array([np.argmax(logits)])), states)
    return new


@wrong("2.9", caught_by="test_what_was_chosen_is_read_next")
def generate__choosing_from_a_batch(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(embedding, cell, lambda o: head(o)[None], prompt, length, choose)


@wrong("2.9", caught_by="test_what_was_chosen_is_read_next")
def generate__choosing_from_probabilities(embedding, cell, head, prompt, length, choose):
    return generate__prompt_first(
        embedding, cell, lambda o: keras.ops.softmax(head(o)), prompt, length, choose
    )


@wrong("2.9", caught_by="test_n_tokens_cost_n_steps")
def generate__reading_all_again(embedding, cell, head, prompt, length, choose):
    new = []
    for _ in range(length):
        output, _ = _read(embedding, cell, [*prompt, *new], _first_states(cell))
        new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_n_tokens_cost_n_steps")
def generate__prompt_read_twice(embedding, cell, head, prompt, length, choose):
    _read(embedding, cell, prompt, _first_states(cell))
    return generate__prompt_first(embedding, cell, head, prompt, length, choose)


@wrong("2.9", caught_by="test_the_last_new_token_is_not_read")
def generate__one_turn_too_many(embedding, cell, head, prompt, length, choose):
    states, new = _first_states(cell), []
    for step in range(len(prompt) + length):
        token = prompt[step] if step < len(prompt) else new[-1]
        output, states = cell(embedding(np.array([token])), states)
        if len(prompt) - 1 <= step < len(prompt) + length - 1:
            new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_n_tokens_cost_n_steps")
def generate__prompt_read_again_at_each_step(embedding, cell, head, prompt, length, choose):
    new, states = [], None
    for _ in range(length):
        output, states = _read(embedding, cell, prompt, _first_states(cell))
        if new:
            output, states = _read(embedding, cell, new, states)
        new.append(choose(head(output)[0]))
    return new


@wrong("2.9", caught_by="test_any_cell_will_do")
def generate__two_states_expected(embedding, cell, head, prompt, length, choose):
    h, c = _first_states(cell)
    new = []
    for step in range(len(prompt) + length - 1):
        token = prompt[step] if step < len(prompt) else new[-1]
        _, (h, c) = cell(embedding(np.array([token])), [h, c])
        if step >= len(prompt) - 1:
            new.append(choose(head(h)[0]))
    return new
