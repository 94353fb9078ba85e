"""Common wrong answers to chapter 4's exercises, and right ones in another style."""

import math

import keras
import numpy as np
from keras import ops

from tests.wrong import right, wrong


def _softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sinusoids(length, width, *, start=0, base=10000.0, pairs=None, power=2.0):
    """The encoding of exercise 4.1, with what is often taken for something else as an argument."""
    pairs = width if pairs is None else pairs
    angles = np.arange(start, start + length)[:, None] / base ** (power * np.arange(width // 2) / pairs)
    encoding = np.zeros((length, width))
    encoding[:, 0::2], encoding[:, 1::2] = np.sin(angles), np.cos(angles)
    return encoding


@right("4.1")
def sinusoidal_encoding__number_by_number(length, width):
    return [
        [(math.cos if j % 2 else math.sin)(t / 10000 ** (2 * (j // 2) / width)) for j in range(width)]
        for t in range(length)
    ]


@right("4.1")
def sinusoidal_encoding__with_logarithms(length, width):
    encoding = np.zeros((length, width), dtype="float64")
    speeds = np.exp(np.arange(0, width, 2) * -(np.log(10000.0) / width))
    encoding[:, 0::2] = np.sin(np.outer(np.arange(length), speeds))
    encoding[:, 1::2] = np.cos(np.outer(np.arange(length), speeds))
    return encoding


@wrong("4.1", caught_by="test_the_first_row_is_zeros_and_ones")
def sinusoidal_encoding__positions_from_one(length, width):
    return _sinusoids(length, width, start=1)


@wrong("4.1", caught_by="test_the_first_row_is_zeros_and_ones")
def sinusoidal_encoding__sines_first_then_cosines(length, width):
    encoding = _sinusoids(length, width)
    return np.concatenate([encoding[:, 0::2], encoding[:, 1::2]], axis=-1)


@wrong("4.1", caught_by="test_the_first_row_is_zeros_and_ones")
def sinusoidal_encoding__cosine_before_sine(length, width):
    return _sinusoids(length, width).reshape(length, -1, 2)[..., ::-1].reshape(length, width)


@wrong("4.1", caught_by="test_the_first_row_is_zeros_and_ones")
def sinusoidal_encoding__a_column_for_each_position(length, width):
    return _sinusoids(length, width).T


@wrong("4.1", caught_by="test_a_pair_of_columns_shares_its_angle")
def sinusoidal_encoding__an_angle_for_each_column(length, width):
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(width) / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))


@wrong("4.1", caught_by="test_a_pair_of_columns_shares_its_angle")
def sinusoidal_encoding__twice_the_column(length, width):
    angles = np.arange(length)[:, None] / 10000.0 ** (2 * np.arange(width) / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))


@wrong("4.1", caught_by="test_the_length_changes_no_position")
def sinusoidal_encoding__from_zero_to_one(length, width):
    angles = np.linspace(0, 1, length)[:, None] / 10000.0 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


@wrong("4.1", caught_by="test_angles_are_those_of_the_paper")
def sinusoidal_encoding__half_the_power(length, width):
    return _sinusoids(length, width, power=1.0)


@wrong("4.1", caught_by="test_angles_are_those_of_the_paper")
def sinusoidal_encoding__last_pair_at_one_ten_thousandth(length, width):
    return _sinusoids(length, width, pairs=max(1, width - 2))


@wrong("4.1", caught_by="test_angles_are_those_of_the_paper")
def sinusoidal_encoding__multiplied(length, width):
    return _sinusoids(length, width, power=-2.0)


@wrong("4.1", caught_by="test_angles_are_those_of_the_paper")
def sinusoidal_encoding__base_1000(length, width):
    return _sinusoids(length, width, base=1000.0)


@right("4.2")
def layer_norm__with_var(x, scale, shift, epsilon=1e-5):
    mean, variance = np.mean(x, -1)[..., None], np.var(x, -1)[..., None]
    return scale * ((x - mean) * (variance + epsilon) ** -0.5) + shift


@right("4.2")
def rms_norm__with_einsum(x, scale, epsilon=1e-5):
    squares = np.einsum("...d,...d->...", x, x) / x.shape[-1]
    return np.einsum("...d,...,d->...d", x, 1 / np.sqrt(squares + epsilon), scale)


@wrong("4.2", caught_by="test_each_vector_has_mean_zero")
def layer_norm__over_the_whole_array(x, scale, shift, epsilon=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + epsilon) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_mean_zero")
def layer_norm__over_the_batch(x, scale, shift, epsilon=1e-5):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_mean_zero")
def layer_norm__mean_left_in(x, scale, shift, epsilon=1e-5):
    return x / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_mean_zero")
def layer_norm__over_the_third_axis(x, scale, shift, epsilon=1e-5):
    return (x - x.mean(axis=2, keepdims=True)) / np.sqrt(
        x.var(axis=2, keepdims=True) + epsilon
    ) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_mean_zero")
def layer_norm__axis_not_kept(x, scale, shift, epsilon=1e-5):
    return (x - x.mean(axis=-1)) / np.sqrt(x.var(axis=-1) + epsilon) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_variance_one")
def layer_norm__divided_by_one_less(x, scale, shift, epsilon=1e-5):
    variance = x.var(axis=-1, keepdims=True, ddof=1)
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + epsilon) * scale + shift


@wrong("4.2", caught_by="test_each_vector_has_variance_one")
def layer_norm__divided_by_the_variance(x, scale, shift, epsilon=1e-5):
    variance = x.var(axis=-1, keepdims=True)
    return (x - x.mean(axis=-1, keepdims=True)) / (variance + epsilon) * scale + shift


@wrong("4.2", caught_by="test_epsilon_stands_under_the_root")
def layer_norm__epsilon_beside_the_root(x, scale, shift, epsilon=1e-5):
    deviation = x.std(axis=-1, keepdims=True)
    return (x - x.mean(axis=-1, keepdims=True)) / (deviation + epsilon) * scale + shift


@wrong("4.2", caught_by="test_epsilon_stands_under_the_root")
def layer_norm__epsilon_forgotten(x, scale, shift, epsilon=1e-5):
    with np.errstate(invalid="ignore"):
        return (x - x.mean(axis=-1, keepdims=True)) / x.std(axis=-1, keepdims=True) * scale + shift


@wrong("4.2", caught_by="test_scale_and_shift_come_last")
def layer_norm__shift_multiplied(x, scale, shift, epsilon=1e-5):
    return layer_norm__with_var(x, np.ones_like(scale), shift, epsilon) * scale


@wrong("4.2", caught_by="test_scale_and_shift_come_last")
def layer_norm__scaled_before(x, scale, shift, epsilon=1e-5):
    return layer_norm__with_var(x * scale + shift, np.ones_like(scale), 0.0, epsilon)


@wrong("4.2", caught_by="test_scale_and_shift_come_last")
def layer_norm__without_scale_and_shift(x, scale, shift, epsilon=1e-5):
    return layer_norm__with_var(x, 1.0, 0.0, epsilon)


@wrong("4.2", caught_by="test_rms_norm_divides_by_the_root_of_the_mean_square")
def rms_norm__mean_subtracted(x, scale, epsilon=1e-5):
    return layer_norm__with_var(x, scale, 0.0, epsilon)


@wrong("4.2", caught_by="test_rms_norm_divides_by_the_root_of_the_mean_square")
def rms_norm__to_length_one(x, scale, epsilon=1e-5):
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + epsilon) * scale


@wrong("4.2", caught_by="test_rms_norm_divides_by_the_root_of_the_mean_square")
def rms_norm__without_the_root(x, scale, epsilon=1e-5):
    return x / ((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale


@wrong("4.2", caught_by="test_rms_norm_divides_by_the_root_of_the_mean_square")
def rms_norm__epsilon_beside_the_root(x, scale, epsilon=1e-5):
    return x / (np.sqrt((x**2).mean(axis=-1, keepdims=True)) + epsilon) * scale


@wrong("4.2", caught_by="test_the_input_is_left_as_it_is")
def layer_norm__in_place(x, scale, shift, epsilon=1e-5):
    x -= x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale + shift


@wrong("4.2", caught_by="test_the_input_is_left_as_it_is")
def rms_norm__in_place(x, scale, epsilon=1e-5):
    x *= scale / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
    return x


@right("4.3")
def feed_forward__with_einsum(x, w1, b1, w2, b2):
    middle = ops.maximum(ops.einsum("btd,df->btf", x, w1) + b1, 0.0)
    return ops.einsum("btf,fd->btd", middle, w2) + b2


@right("4.3")
def swiglu__with_sigmoid(x, gate, up, down):
    z = x @ gate
    return (z * ops.sigmoid(z) * (x @ up)) @ down


@wrong("4.3", caught_by="test_outputs_may_be_negative")
def feed_forward__two_relus(x, w1, b1, w2, b2):
    return ops.relu(ops.relu(x @ w1 + b1) @ w2) + b2


@wrong("4.3", caught_by="test_outputs_may_be_negative")
def feed_forward__relu_of_everything(x, w1, b1, w2, b2):
    return ops.relu(ops.relu(x @ w1 + b1) @ w2 + b2)


@wrong("4.3", caught_by="test_outputs_may_be_negative")
def feed_forward__relu_at_the_end_only(x, w1, b1, w2, b2):
    return ops.relu((x @ w1 + b1) @ w2 + b2)


@wrong("4.3", caught_by="test_something_bent_stands_in_the_middle")
def feed_forward__linear(x, w1, b1, w2, b2):
    return (x @ w1 + b1) @ w2 + b2


@wrong("4.3", caught_by="test_the_first_bias_comes_before_the_relu")
def feed_forward__bias_after_the_relu(x, w1, b1, w2, b2):
    return (ops.relu(x @ w1) + b1) @ w2 + b2


@wrong("4.3", caught_by="test_the_second_bias_is_added_last")
def feed_forward__last_bias_forgotten(x, w1, b1, w2, b2):
    return ops.relu(x @ w1 + b1) @ w2


@wrong("4.3", caught_by="test_x_itself_is_not_added")
def feed_forward__with_its_residual_path(x, w1, b1, w2, b2):
    return x + ops.relu(x @ w1 + b1) @ w2 + b2


@wrong("4.3", caught_by="test_what_is_below_zero_becomes_zero")
def feed_forward__gelu(x, w1, b1, w2, b2):
    return ops.gelu(x @ w1 + b1, approximate=False) @ w2 + b2


@wrong("4.3", caught_by="test_what_is_below_zero_becomes_zero")
def feed_forward__gelu_by_tanh(x, w1, b1, w2, b2):
    return ops.gelu(x @ w1 + b1, approximate=True) @ w2 + b2


@wrong("4.3", caught_by="test_what_is_below_zero_becomes_zero")
def feed_forward__silu(x, w1, b1, w2, b2):
    return ops.silu(x @ w1 + b1) @ w2 + b2


@wrong("4.3", caught_by="test_what_is_below_zero_becomes_zero")
def feed_forward__tanh(x, w1, b1, w2, b2):
    return ops.tanh(x @ w1 + b1) @ w2 + b2


@wrong("4.3", caught_by="test_the_first_bias_comes_before_the_relu")
def feed_forward__first_bias_forgotten(x, w1, b1, w2, b2):
    return ops.relu(x @ w1) @ w2 + b2


@wrong("4.3", caught_by="test_each_token_goes_through_both_matrices")
def feed_forward__multiplied_number_by_number(x, w1, b1, w2, b2):
    return ops.relu(x * w1 + b1) * w2 + b2


@wrong("4.3", caught_by="test_gate_and_up_are_not_exchanged")
def swiglu__gate_and_up_swapped(x, gate, up, down):
    return (x @ gate * ops.silu(x @ up)) @ down


@wrong("4.3", caught_by="test_the_gate_goes_through_silu")
def swiglu__sigmoid_alone(x, gate, up, down):
    return (ops.sigmoid(x @ gate) * (x @ up)) @ down


@wrong("4.3", caught_by="test_gate_and_up_are_not_exchanged")
def swiglu__up_as_a_sigmoid_gate(x, gate, up, down):
    return (x @ gate * ops.sigmoid(x @ up)) @ down


@wrong("4.3", caught_by="test_the_gate_goes_through_silu")
def swiglu__relu(x, gate, up, down):
    return (ops.relu(x @ gate) * (x @ up)) @ down


@wrong("4.3", caught_by="test_only_the_gate_is_bent")
def swiglu__silu_of_both(x, gate, up, down):
    return (ops.silu(x @ gate) * ops.silu(x @ up)) @ down


@wrong("4.3", caught_by="test_the_gate_multiplies")
def swiglu__added(x, gate, up, down):
    return (ops.silu(x @ gate) + x @ up) @ down


@wrong("4.3", caught_by="test_only_the_gate_is_bent")
def swiglu__silu_of_the_product(x, gate, up, down):
    return ops.silu((x @ gate) * (x @ up)) @ down


@wrong("4.3", caught_by="test_the_gate_goes_through_silu")
def swiglu__gelu(x, gate, up, down):
    return (ops.gelu(x @ gate) * (x @ up)) @ down


@wrong("4.3", caught_by="test_the_third_matrix_leads_back")
def swiglu__left_in_the_middle(x, gate, up, down):
    return ops.silu(x @ gate) * (x @ up)


@wrong("4.3", caught_by="test_gradients_reach_all_matrices")
def feed_forward__in_numpy(x, w1, b1, w2, b2):
    return np.maximum(np.asarray(x) @ np.asarray(w1) + np.asarray(b1), 0) @ np.asarray(w2) + np.asarray(b2)


@wrong("4.3", caught_by="test_gradients_reach_all_matrices")
def swiglu__gate_through_numpy(x, gate, up, down):
    z = np.asarray(x) @ np.asarray(gate)
    return (ops.convert_to_tensor(z / (1 + np.exp(-z))) * (x @ up)) @ down


@right("4.4")
def pre_norm_block__with_names(x, attend, feed, norm1, norm2):
    attended = attend(norm1(x))
    return x + attended + feed(norm2(x + attended))


@right("4.4")
def post_norm_block__in_a_loop(x, attend, feed, norm1, norm2):
    for sublayer, norm in ((attend, norm1), (feed, norm2)):
        x = norm(np.add(x, sublayer(x)))
    return x


@right("4.4")
def decoder_block__with_names(x, source, attend, cross, feed, norm1, norm2, norm3):
    read = norm1(attend(x) + x)
    looked_up = norm2(cross(read, source) + read)
    return norm3(feed(looked_up) + looked_up)


@wrong("4.4", caught_by="test_a_pre_norm_block_normalises_no_sum")
def pre_norm_block__sums_normalised(x, attend, feed, norm1, norm2):
    return post_norm_block__in_a_loop(x, attend, feed, norm1, norm2)


@wrong("4.4", caught_by="test_a_pre_norm_block_that_adds_nothing_hands_x_on")
def pre_norm_block__path_begins_after_the_norm(x, attend, feed, norm1, norm2):
    normed = norm1(x)
    x = normed + attend(normed)
    normed = norm2(x)
    return normed + feed(normed)


@wrong("4.4", caught_by="test_something_of_x_goes_around_the_sublayers")
def pre_norm_block__no_residual_path(x, attend, feed, norm1, norm2):
    return feed(norm2(attend(norm1(x))))


@wrong("4.4", caught_by="test_what_attention_adds_comes_out_of_a_pre_norm_block")
def pre_norm_block__one_residual_path(x, attend, feed, norm1, norm2):
    return x + feed(norm2(attend(norm1(x))))


@wrong("4.4", caught_by="test_what_attention_adds_comes_out_of_a_pre_norm_block")
def pre_norm_block__second_path_from_the_beginning(x, attend, feed, norm1, norm2):
    return x + feed(norm2(x + attend(norm1(x))))


@wrong("4.4", caught_by="test_attention_reads_through_the_first_norm")
def pre_norm_block__first_norm_forgotten(x, attend, feed, norm1, norm2):
    x = x + attend(x)
    return x + feed(norm2(x))


@wrong("4.4", caught_by="test_attention_reads_through_the_first_norm")
def pre_norm_block__norms_exchanged(x, attend, feed, norm1, norm2):
    return pre_norm_block__with_names(x, attend, feed, norm2, norm1)


@wrong("4.4", caught_by="test_the_feed_forward_layer_reads_what_attention_added")
def pre_norm_block__in_parallel(x, attend, feed, norm1, norm2):
    return x + attend(norm1(x)) + feed(norm2(x))


@wrong("4.4", caught_by="test_the_feed_forward_layer_reads_through_the_second_norm")
def pre_norm_block__one_norm_for_both(x, attend, feed, norm1, norm2):
    x = x + attend(norm1(x))
    return x + feed(norm1(x))


@wrong("4.4", caught_by="test_the_feed_forward_layer_reads_through_the_second_norm")
def pre_norm_block__second_norm_forgotten(x, attend, feed, norm1, norm2):
    x = x + attend(norm1(x))
    return x + feed(x)


@wrong("4.4", caught_by="test_a_post_norm_block_normalises_the_sums")
def post_norm_block__norm_inside_the_path(x, attend, feed, norm1, norm2):
    x = x + norm1(attend(x))
    return x + norm2(feed(x))


@wrong("4.4", caught_by="test_a_post_norm_block_has_two_residual_paths")
def post_norm_block__one_residual_path(x, attend, feed, norm1, norm2):
    return norm2(feed(norm1(attend(x)))) + x


@wrong("4.4", caught_by="test_what_is_added_in_a_post_norm_block_is_normalised")
def post_norm_block__the_same_as_pre_norm(x, attend, feed, norm1, norm2):
    return pre_norm_block__with_names(x, attend, feed, norm1, norm2)


@wrong("4.4", caught_by="test_a_post_norm_block_normalises_the_sums")
def post_norm_block__norms_exchanged(x, attend, feed, norm1, norm2):
    x = norm1(x)
    return norm2(norm1(x + attend(x)) + feed(norm1(x + attend(x))))


@wrong("4.4", caught_by="test_a_decoder_block_has_three_sublayers")
def decoder_block__an_encoder_block(x, source, attend, cross, feed, norm1, norm2, norm3):
    return post_norm_block__in_a_loop(x, attend, feed, norm1, norm2)


@wrong("4.4", caught_by="test_cross_attention_has_a_residual_path")
def decoder_block__no_path_around_cross_attention(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = norm2(cross(norm1(x + attend(x)), source))
    return norm3(x + feed(x))


@wrong("4.4", caught_by="test_cross_attention_stands_between_the_others")
def decoder_block__cross_attention_first(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = norm1(x + cross(x, source))
    x = norm2(x + attend(x))
    return norm3(x + feed(x))


@wrong("4.4", caught_by="test_cross_attention_asks_with_the_decoder")
def decoder_block__the_source_asks(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = norm1(x + attend(x))
    x = norm2(x + cross(source, x))
    return norm3(x + feed(x))


@wrong("4.4", caught_by="test_cross_attention_asks_with_the_decoder")
def decoder_block__the_decoder_asks_itself(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = norm1(x + attend(x))
    x = norm2(x + cross(x, x))
    return norm3(x + feed(x))


@wrong("4.4", caught_by="test_cross_attention_stands_between_the_others")
def decoder_block__cross_attention_last(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = norm1(x + attend(x))
    x = norm2(x + feed(x))
    return norm3(x + cross(x, source))


@wrong("4.4", caught_by="test_a_decoder_block_normalises_three_sums")
def decoder_block__norms_exchanged(x, source, attend, cross, feed, norm1, norm2, norm3):
    return decoder_block__with_names(x, source, attend, cross, feed, norm1, norm3, norm2)


@wrong("4.4", caught_by="test_a_decoder_block_normalises_three_sums")
def decoder_block__pre_norm(x, source, attend, cross, feed, norm1, norm2, norm3):
    x = x + attend(norm1(x))
    x = x + cross(norm2(x), source)
    return x + feed(norm3(x))


def _padded(rows, pad_id, dtype=int):
    longest = max(map(len, rows))
    return np.array([[*row, *[pad_id] * (longest - len(row))] for row in rows], dtype=dtype)


def _weights(rows):
    return _padded([[1] * (len(row) + 1) for row in rows], 0, "float32")


@right("4.5")
def decoder_batch__targets_shifted(rows, start_id, end_id, pad_id):
    targets = _padded([[*row, end_id] for row in rows], pad_id)
    inputs = np.concatenate([np.full((len(rows), 1), start_id), targets[:, :-1]], axis=1)
    lengths = np.array([len(row) + 1 for row in rows])
    return inputs, targets, (np.arange(targets.shape[1]) < lengths[:, None]).astype(float)


@right("4.5")
def decoder_batch__of_lists(rows, start_id, end_id, pad_id):
    inputs = [[start_id, *row] for row in rows]
    targets = [[*row, end_id] for row in rows]
    return [_padded(inputs, pad_id), _padded(targets, pad_id), _weights(rows)]


@wrong("4.5", caught_by="test_the_batch_is_three_arrays_one_longer_than_the_longest_row")
def decoder_batch__no_end_to_write(rows, start_id, end_id, pad_id):
    inputs = _padded([[start_id, *row][:-1] for row in rows], pad_id)
    return inputs, _padded(rows, pad_id), _padded([[1.0] * len(row) for row in rows], 0.0, float)


@wrong("4.5", caught_by="test_the_batch_is_three_arrays_one_longer_than_the_longest_row")
def decoder_batch__both_ends_in_both(rows, start_id, end_id, pad_id):
    whole = _padded([[start_id, *row, end_id] for row in rows], pad_id)
    return whole, whole, (whole != pad_id).astype(float)


@wrong("4.5", caught_by="test_the_batch_is_three_arrays_one_longer_than_the_longest_row")
def decoder_batch__weights_forgotten(rows, start_id, end_id, pad_id):
    return decoder_batch__of_lists(rows, start_id, end_id, pad_id)[:2]


@wrong("4.5", caught_by="test_the_batch_is_three_arrays_one_longer_than_the_longest_row")
def decoder_batch__ids_as_floats(rows, start_id, end_id, pad_id):
    inputs, targets, weights = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    return inputs.astype(float), targets.astype(float), weights


@wrong("4.5", caught_by="test_each_input_is_the_token_before_its_target")
def decoder_batch__starting_with_the_end(rows, start_id, end_id, pad_id):
    return decoder_batch__of_lists(rows, end_id, end_id, pad_id)


@wrong("4.5", caught_by="test_each_input_is_the_token_before_its_target")
def decoder_batch__not_shifted(rows, start_id, end_id, pad_id):
    targets = _padded([[*row, end_id] for row in rows], pad_id)
    return targets, targets, _weights(rows)


@wrong("4.5", caught_by="test_each_input_is_the_token_before_its_target")
def decoder_batch__rolled(rows, start_id, end_id, pad_id):
    targets = _padded([[*row, end_id] for row in rows], pad_id)
    return np.roll(targets, 1, axis=1), targets, _weights(rows)


@wrong("4.5", caught_by="test_each_input_is_the_token_before_its_target")
def decoder_batch__inputs_and_targets_swapped(rows, start_id, end_id, pad_id):
    inputs, targets, weights = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    return targets, inputs, weights


@wrong("4.5", caught_by="test_the_end_follows_the_last_token")
def decoder_batch__end_after_the_padding(rows, start_id, end_id, pad_id):
    inputs, _, weights = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    ends = np.full((len(rows), 1), end_id)
    return inputs, np.concatenate([_padded(rows, pad_id), ends], axis=1), weights


@wrong("4.5", caught_by="test_the_end_follows_the_last_token")
def decoder_batch__inputs_moved_left(rows, start_id, end_id, pad_id):
    inputs, _, weights = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    return inputs, np.concatenate([inputs[:, 1:], np.full((len(rows), 1), pad_id)], axis=1), weights


@wrong("4.5", caught_by="test_weights_count_every_token_and_its_end")
def decoder_batch__weights_by_the_padding_id(rows, start_id, end_id, pad_id):
    inputs, targets, _ = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    return inputs, targets, (targets != pad_id).astype(float)


@wrong("4.5", caught_by="test_weights_count_every_token_and_its_end")
def decoder_batch__end_without_weight(rows, start_id, end_id, pad_id):
    inputs, targets, weights = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    lengths = np.array([len(row) for row in rows])
    return inputs, targets, (np.arange(weights.shape[1]) < lengths[:, None]).astype(float)


@wrong("4.5", caught_by="test_weights_count_every_token_and_its_end")
def decoder_batch__padding_counts(rows, start_id, end_id, pad_id):
    inputs, targets, _ = decoder_batch__of_lists(rows, start_id, end_id, pad_id)
    return inputs, targets, np.ones(targets.shape)


@right("4.6")
def left_padded__row_by_row(prompts, pad_id):
    longest = max(len(prompt) for prompt in prompts)
    shape = (len(prompts), longest)
    ids, mask, positions = np.full(shape, pad_id), np.zeros(shape, dtype=bool), np.zeros(shape, dtype="int32")
    for b, prompt in enumerate(prompts):
        ids[b, -len(prompt) :] = prompt
        mask[b, -len(prompt) :] = True
        positions[b, -len(prompt) :] = range(len(prompt))
    return ids, mask, positions


@right("4.6")
def left_padded__with_a_running_sum(prompts, pad_id):
    longest = max(map(len, prompts))
    rows = [
        ([pad_id] * (longest - len(p)) + list(p), [0] * (longest - len(p)) + [1] * len(p)) for p in prompts
    ]
    ids, real = (np.array(part) for part in zip(*rows, strict=True))
    return ids, real > 0, (np.cumsum(real, axis=1) - 1).clip(0)


@wrong("4.6", caught_by="test_ids_mask_and_positions_have_their_types")
def left_padded__cut_to_the_shortest(prompts, pad_id):
    shortest = min(map(len, prompts))
    return left_padded__row_by_row([prompt[-shortest:] for prompt in prompts], pad_id)


@wrong("4.6", caught_by="test_ids_mask_and_positions_have_their_types")
def left_padded__mask_of_ones_and_zeros(prompts, pad_id):
    ids, mask, positions = left_padded__row_by_row(prompts, pad_id)
    return ids, mask.astype(int), positions


@wrong("4.6", caught_by="test_ids_mask_and_positions_have_their_types")
def left_padded__one_row_of_positions(prompts, pad_id):
    ids, mask, _ = left_padded__row_by_row(prompts, pad_id)
    return ids, mask, np.arange(ids.shape[1])


@wrong("4.6", caught_by="test_every_prompt_ends_in_the_last_column")
def left_padded__on_the_right(prompts, pad_id):
    ids = _padded(prompts, pad_id)
    mask = np.arange(ids.shape[1]) < np.array([[len(prompt)] for prompt in prompts])
    return ids, mask, np.where(mask, np.arange(ids.shape[1]), 0)


@wrong("4.6", caught_by="test_every_prompt_ends_in_the_last_column")
def left_padded__mirrored(prompts, pad_id):
    ids, mask, positions = left_padded__on_the_right(prompts, pad_id)
    return ids[:, ::-1], mask[:, ::-1], positions[:, ::-1]


@wrong("4.6", caught_by="test_every_prompt_ends_in_the_last_column")
def left_padded__always_with_zeros(prompts, pad_id):
    return left_padded__row_by_row(prompts, 0)


@wrong("4.6", caught_by="test_the_mask_knows_padding_by_its_place")
def left_padded__mask_by_the_id(prompts, pad_id):
    ids, _, positions = left_padded__row_by_row(prompts, pad_id)
    return ids, ids != pad_id, positions


@wrong("4.6", caught_by="test_the_mask_knows_padding_by_its_place")
def left_padded__true_is_padding(prompts, pad_id):
    ids, mask, positions = left_padded__row_by_row(prompts, pad_id)
    return ids, ~mask, positions


@wrong("4.6", caught_by="test_positions_count_from_the_first_real_token")
def left_padded__positions_of_the_columns(prompts, pad_id):
    ids, mask, _ = left_padded__row_by_row(prompts, pad_id)
    return ids, mask, np.tile(np.arange(ids.shape[1]), (len(ids), 1))


@wrong("4.6", caught_by="test_positions_count_from_the_first_real_token")
def left_padded__positions_from_one(prompts, pad_id):
    ids, mask, _ = left_padded__row_by_row(prompts, pad_id)
    return ids, mask, np.cumsum(mask, axis=1)


@wrong("4.6", caught_by="test_positions_count_from_the_first_real_token")
def left_padded__positions_below_zero(prompts, pad_id):
    ids, mask, _ = left_padded__row_by_row(prompts, pad_id)
    return ids, mask, np.arange(ids.shape[1]) - (~mask).sum(axis=1, keepdims=True)


def _rotation(x, angles, *, signs=(-1, 1)):
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate(
        [first * cos + signs[0] * second * sin, second * cos + signs[1] * first * sin], axis=-1
    )


def _angles(x, positions, base, power=2.0):
    width = x.shape[-1]
    return np.asarray(positions)[:, None, :, None] * base ** (-power * np.arange(width // 2) / width)


@right("4.7")
def rotate__with_complex_numbers(x, positions, base=10000.0):
    half = x.shape[-1] // 2
    points = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * _angles(x, positions, base))
    return np.concatenate([points.real, points.imag], axis=-1)


@right("4.7")
def rotate__with_rotate_half(x, positions, base=10000.0):
    angles = np.concatenate([_angles(x, positions, base)] * 2, axis=-1)
    first, second = np.split(x, 2, axis=-1)
    return x * np.cos(angles) + np.concatenate([-second, first], axis=-1) * np.sin(angles)


@right("4.7")
def scores_at__with_sums_of_cosines(query, key, distances, base=10000.0):
    half = len(query) // 2
    angles = np.outer(distances, base ** (-np.arange(half) / half))
    parallel = query[:half] * key[:half] + query[half:] * key[half:]
    crossed = query[:half] * key[half:] - query[half:] * key[:half]
    return np.cos(angles) @ parallel + np.sin(angles) @ crossed


@right("4.7")
def scores_at__with_the_key_turned_back(query, key, distances, base=10000.0):
    keys = np.array([[np.broadcast_to(key, (len(distances), len(key)))]])[0]
    turned = rotate__with_rotate_half(keys[None], -np.asarray(distances)[None], base)
    return turned[0, 0] @ query


@wrong("4.7", caught_by="test_at_position_zero_nothing_turns")
def rotate__positions_from_one(x, positions, base=10000.0):
    return _rotation(x, _angles(x, np.asarray(positions) + 1, base))


@wrong("4.7", caught_by="test_positions_are_those_given")
def rotate__positions_of_the_columns(x, positions, base=10000.0):
    return _rotation(x, _angles(x, np.arange(x.shape[2])[None], base))


@wrong("4.7", caught_by="test_sine_and_cosine_are_not_exchanged")
def rotate__sine_and_cosine_swapped(x, positions, base=10000.0):
    return _rotation(x, np.pi / 2 - _angles(x, positions, base))


@wrong("4.7", caught_by="test_nothing_is_added")
def rotate__added(x, positions, base=10000.0):
    angles = _angles(x, positions, base)
    return x + np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


@wrong("4.7", caught_by="test_a_rotation_keeps_the_length")
def rotate__no_minus(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, base), signs=(1, 1))


@wrong("4.7", caught_by="test_both_coordinates_are_made_of_the_old_ones")
def rotate__second_half_of_the_rotated_first(x, positions, base=10000.0):
    half, angles = x.shape[-1] // 2, _angles(x, positions, base)
    x = x.copy()
    x[..., :half] = x[..., :half] * np.cos(angles) - x[..., half:] * np.sin(angles)
    x[..., half:] = x[..., :half] * np.sin(angles) + x[..., half:] * np.cos(angles)
    return x


@wrong("4.7", caught_by="test_a_number_turns_with_the_one_half_the_width_away")
def rotate__interleaved(x, positions, base=10000.0):
    points = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * _angles(x, positions, base))
    return np.stack([points.real, points.imag], axis=-1).reshape(x.shape)


@wrong("4.7", caught_by="test_a_number_turns_with_the_one_half_the_width_away")
def rotate__neighbours_put_into_halves(x, positions, base=10000.0):
    points = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * _angles(x, positions, base))
    still = np.asarray(positions)[:, None, :, None] == 0
    return np.where(still, x, np.concatenate([points.real, points.imag], axis=-1))


@wrong("4.7", caught_by="test_one_zero_turns_towards_zero_one")
def rotate__the_other_way(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, base), signs=(1, -1))


@wrong("4.7", caught_by="test_plane_i_turns_at_its_own_speed")
def rotate__half_the_power(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, base, power=1.0))


@wrong("4.7", caught_by="test_the_base_is_the_one_given")
def rotate__base_forgotten(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, 10000.0))


@wrong("4.7", caught_by="test_plane_i_turns_at_its_own_speed")
def rotate__last_plane_at_the_whole_base(x, positions, base=10000.0):
    half = x.shape[-1] // 2
    return _rotation(x, np.asarray(positions)[:, None, :, None] * base ** -np.linspace(0, 1, half))


@wrong("4.7", caught_by="test_later_planes_turn_more_slowly")
def rotate__planes_in_reverse(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, base)[..., ::-1])


@wrong("4.7", caught_by="test_later_planes_turn_more_slowly")
def rotate__all_planes_alike(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, 1.0))


@wrong("4.7", caught_by="test_rows_have_positions_of_their_own")
def rotate__positions_of_the_first_row(x, positions, base=10000.0):
    return _rotation(x, _angles(x, np.asarray(positions)[:1], base))


@wrong("4.7", caught_by="test_the_heads_of_a_row_share_its_positions")
def rotate__rows_taken_for_heads(x, positions, base=10000.0):
    return _rotation(x, _angles(x, positions, base)[:, 0])


@wrong("4.7", caught_by="test_a_positive_distance_is_a_key_before_the_query")
def scores_at__the_key_comes_later(query, key, distances, base=10000.0):
    return scores_at__with_sums_of_cosines(query, key, -np.asarray(distances), base)


@wrong("4.7", caught_by="test_scores_change_with_the_distance")
def scores_at__both_turned(query, key, distances, base=10000.0):
    return np.full(len(distances), query @ key)


@wrong("4.7", caught_by="test_scores_depend_on_the_distance_alone")
def scores_at__turned_against_each_other(query, key, distances, base=10000.0):
    return scores_at__with_sums_of_cosines(query, key, 2 * np.asarray(distances), base)


@wrong("4.7", caught_by="test_at_distance_zero_the_score_is_the_dot_product")
def scores_at__scaled(query, key, distances, base=10000.0):
    return scores_at__with_sums_of_cosines(query, key, distances, base) / np.sqrt(len(query))


@wrong("4.7", caught_by="test_scores_depend_on_the_distance_alone")
def scores_at__base_forgotten(query, key, distances, base=10000.0):
    return scores_at__with_sums_of_cosines(query, key, distances)


@wrong("4.7", caught_by="test_before_and_after_differ")
def scores_at__before_and_after_alike(query, key, distances, base=10000.0):
    return scores_at__with_sums_of_cosines(query, key, np.abs(distances), base)


def _gpt(vocab_size, max_length, width, depth, hidden_dim=None, tied=True, *, block=0, outside=0):
    """GPT's parameters; `block` and `outside` are what a wrong answer counts more."""
    hidden = 4 * width if hidden_dim is None else hidden_dim
    matrices = [(width, 3 * width), (width, width), (width, hidden), (hidden, width)]
    each = sum((rows + 1) * columns for rows, columns in matrices) + 4 * width
    return (vocab_size * (2 - bool(tied)) + max_length + 2) * width + depth * (each + block) + outside


@right("4.8")
def gpt_parameters__matrix_by_matrix(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied)


@wrong("4.8", caught_by="test_a_gpt_without_blocks_has_tables_and_a_norm")
def gpt_parameters__no_positions(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, 0, width, depth, hidden_dim, tied)


@wrong("4.8", caught_by="test_a_gpt_without_blocks_has_tables_and_a_norm")
def gpt_parameters__no_last_norm(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, outside=-2 * width)


@wrong("4.8", caught_by="test_a_gpt_without_blocks_has_tables_and_a_norm")
def gpt_parameters__table_counted_twice(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(
        vocab_size, max_length, width, depth, hidden_dim, tied, outside=vocab_size * width * bool(tied)
    )


@wrong("4.8", caught_by="test_a_gpt_without_blocks_has_tables_and_a_norm")
def gpt_parameters__twelve_d_squared(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return 12 * depth * width**2


@wrong("4.8", caught_by="test_each_block_of_a_gpt_brings_the_same")
def gpt_parameters__no_biases(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    hidden = 4 * width if hidden_dim is None else hidden_dim
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, block=-5 * width - hidden)


@wrong("4.8", caught_by="test_each_block_of_a_gpt_brings_the_same")
def gpt_parameters__no_output_projection(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, block=-(width + 1) * width)


@wrong("4.8", caught_by="test_each_block_of_a_gpt_brings_the_same")
def gpt_parameters__norms_without_a_shift(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, block=-2 * width)


@wrong("4.8", caught_by="test_each_block_of_a_gpt_brings_the_same")
def gpt_parameters__one_norm_a_block(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, block=-2 * width)


@wrong("4.8", caught_by="test_the_middle_may_have_any_width")
def gpt_parameters__always_four_times(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, None, tied)


@wrong("4.8", caught_by="test_an_untied_gpt_has_one_matrix_more")
def gpt_parameters__always_tied(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim)


@wrong("4.8", caught_by="test_an_untied_gpt_has_one_matrix_more")
def gpt_parameters__output_with_biases(vocab_size, max_length, width, depth, hidden_dim=None, tied=True):
    return _gpt(vocab_size, max_length, width, depth, hidden_dim, tied, outside=0 if tied else vocab_size)


def _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True, *, block=0, outside=0):
    head = width // num_heads
    each = width * (2 + 2 * num_heads * head + 2 * num_kv_heads * head + 3 * hidden_dim)
    return vocab_size * width * (2 - bool(tied)) + width + depth * (each + block) + outside


@right("4.8")
def llama_parameters__in_one_sum(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True):
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied)


@wrong("4.8", caught_by="test_each_block_of_a_llama_brings_the_same")
def llama_parameters__all_heads_have_keys(
    vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True
):
    return _llama(vocab_size, width, depth, num_heads, num_heads, hidden_dim, tied)


@wrong("4.8", caught_by="test_each_block_of_a_llama_brings_the_same")
def llama_parameters__two_matrices_in_the_feed_forward_layer(
    vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True
):
    less = -width * hidden_dim
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied, block=less)


@wrong("4.8", caught_by="test_each_block_of_a_llama_brings_the_same")
def llama_parameters__norms_with_a_shift(
    vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True
):
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied, block=2 * width)


@wrong("4.8", caught_by="test_each_block_of_a_llama_brings_the_same")
def llama_parameters__with_biases(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True):
    more = 2 * width + 2 * num_kv_heads * (width // num_heads)
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied, block=more)


@wrong("4.8", caught_by="test_llamas_are_counted_as_published")
def llama_parameters__no_last_norm(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True):
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied, outside=-width)


@wrong("4.8", caught_by="test_llamas_are_counted_as_published")
def llama_parameters__always_tied(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim, tied=True):
    return _llama(vocab_size, width, depth, num_heads, num_kv_heads, hidden_dim)


def _bert(ids, chosen, fate, random_ids, mask_id, *, hidden=0.8, random=0.9):
    fates = [chosen & (fate < hidden), chosen & (fate < random)]
    return np.select(fates, [np.full(ids.shape, mask_id), random_ids], ids)


@right("4.9")
def masked_batch__with_a_loop(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    inputs, weights = ids.copy(), np.zeros(ids.shape)
    for index, token in np.ndenumerate(ids):
        if token in special_ids or choice[index] >= rate:
            continue
        weights[index] = 1
        if fate[index] < 0.8:
            inputs[index] = mask_id
        elif fate[index] < 0.9:
            inputs[index] = random_ids[index]
    return inputs, np.where(weights > 0, ids, 0), weights


def _chosen(ids, special_ids, choice, rate):
    return (choice < rate) & ~np.isin(ids, special_ids)


@wrong("4.9", caught_by="test_tokens_are_chosen_by_the_rate")
def masked_batch__chosen_above_the_rate(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    return masked_batch__with_a_loop(ids, special_ids, 1 - choice, fate, random_ids, mask_id, 1 - rate)


@wrong("4.9", caught_by="test_tokens_are_chosen_by_the_rate")
def masked_batch__always_fifteen_percent(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    return masked_batch__with_a_loop(ids, special_ids, choice, fate, random_ids, mask_id)


@wrong("4.9", caught_by="test_tokens_are_chosen_by_the_rate")
def masked_batch__all_masked(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    return masked_batch__with_a_loop(ids, special_ids, 0 * choice, fate, random_ids, mask_id)


@wrong("4.9", caught_by="test_tokens_are_chosen_by_the_rate")
def masked_batch__what_was_not_chosen_is_hidden(
    ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15
):
    chosen = _chosen(ids, special_ids, choice, rate)
    return np.where(chosen, ids, mask_id), ids, chosen.astype(float)


@wrong("4.9", caught_by="test_tokens_are_chosen_by_the_rate")
def masked_batch__random_where_not_chosen(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen = _chosen(ids, special_ids, choice, rate)
    inputs = np.where(chosen & (fate < 0.8), mask_id, ids)
    inputs = np.where((fate >= 0.8) & (fate < 0.9), random_ids, inputs)
    return inputs, ids.copy(), chosen.astype(float)


@wrong("4.9", caught_by="test_special_tokens_are_never_chosen")
def masked_batch__special_tokens_too(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    return masked_batch__with_a_loop(ids, [], choice, fate, random_ids, mask_id, rate)


@wrong("4.9", caught_by="test_special_tokens_are_never_chosen")
def masked_batch__padding_too(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    return masked_batch__with_a_loop(ids, special_ids[1:], choice, fate, random_ids, mask_id, rate)


@wrong("4.9", caught_by="test_special_tokens_are_never_chosen")
def masked_batch__special_tokens_predicted(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    inputs, targets, _ = masked_batch__with_a_loop(ids, special_ids, choice, fate, random_ids, mask_id, rate)
    return inputs, targets, (choice < rate).astype(float)


@wrong("4.9", caught_by="test_fate_divides_the_chosen_in_three")
def masked_batch__every_chosen_one_hidden(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen = _chosen(ids, special_ids, choice, rate)
    return np.where(chosen, mask_id, ids), ids.copy(), chosen.astype(float)


@wrong("4.9", caught_by="test_fate_divides_the_chosen_in_three")
def masked_batch__none_stays(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen = _chosen(ids, special_ids, choice, rate)
    return _bert(ids, chosen, fate, random_ids, mask_id, random=1.0), ids.copy(), chosen.astype(float)


@wrong("4.9", caught_by="test_fate_divides_the_chosen_in_three")
def masked_batch__none_becomes_random(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen = _chosen(ids, special_ids, choice, rate)
    return _bert(ids, chosen, fate, random_ids, mask_id, random=0.1), ids.copy(), chosen.astype(float)


@wrong("4.9", caught_by="test_all_that_was_chosen_is_predicted")
def masked_batch__what_changed_is_predicted(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    inputs = _bert(ids, _chosen(ids, special_ids, choice, rate), fate, random_ids, mask_id)
    return inputs, ids.copy(), (inputs != ids).astype(float)


@wrong("4.9", caught_by="test_all_that_was_chosen_is_predicted")
def masked_batch__what_is_hidden_is_predicted(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    inputs = _bert(ids, _chosen(ids, special_ids, choice, rate), fate, random_ids, mask_id)
    return inputs, ids.copy(), (inputs == mask_id).astype(float)


@wrong("4.9", caught_by="test_all_that_was_chosen_is_predicted")
def masked_batch__every_word_is_predicted(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    inputs = _bert(ids, _chosen(ids, special_ids, choice, rate), fate, random_ids, mask_id)
    return inputs, ids.copy(), (~np.isin(ids, special_ids)).astype(float)


@wrong("4.9", caught_by="test_targets_are_the_tokens_that_were_there")
def masked_batch__targets_are_the_inputs(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen = _chosen(ids, special_ids, choice, rate)
    inputs = _bert(ids, chosen, fate, random_ids, mask_id)
    return inputs, inputs, chosen.astype(float)


@wrong("4.9", caught_by="test_the_ids_are_left_as_they_are")
def masked_batch__in_place(ids, special_ids, choice, fate, random_ids, mask_id, rate=0.15):
    chosen, targets = _chosen(ids, special_ids, choice, rate), ids.copy()
    ids[:] = _bert(ids, chosen, fate, random_ids, mask_id)
    return ids, targets, chosen.astype(float)


def _cross_entropies(logits, targets, smoothing, *, share=None):
    """The loss of each token, where every token of the vocabulary is given `share`, ε/V if None."""
    vocabulary = logits.shape[-1]
    share = smoothing / vocabulary if share is None else share
    target = ops.one_hot(targets, vocabulary) * (1 - smoothing) + share
    return -ops.sum(target * ops.log_softmax(logits, axis=-1), axis=-1)


def _weighted(losses, weights):
    return ops.sum(losses * weights) / ops.sum(weights)


@right("4.10")
def smoothed_cross_entropy__with_one_hot(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(logits, targets, smoothing), weights)


@right("4.10")
def smoothed_cross_entropy__with_keras(logits, targets, weights, smoothing=0.1):
    one_hot = ops.one_hot(targets, logits.shape[-1])
    losses = keras.losses.categorical_crossentropy(
        one_hot, logits, from_logits=True, label_smoothing=smoothing
    )
    return _weighted(losses, weights)


@wrong("4.10", caught_by="test_without_smoothing_it_is_plain_cross_entropy")
def smoothed_cross_entropy__in_bits(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(logits, targets, smoothing), weights) / math.log(2)


@wrong("4.10", caught_by="test_without_smoothing_it_is_plain_cross_entropy")
def smoothed_cross_entropy__summed(logits, targets, weights, smoothing=0.1):
    return ops.sum(_cross_entropies(logits, targets, smoothing) * weights)


@wrong("4.10", caught_by="test_without_smoothing_it_is_plain_cross_entropy")
def smoothed_cross_entropy__of_probabilities(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(ops.softmax(logits), targets, smoothing), weights)


@wrong("4.10", caught_by="test_without_smoothing_it_is_plain_cross_entropy")
def smoothed_cross_entropy__a_loss_for_each_token(logits, targets, weights, smoothing=0.1):
    return _cross_entropies(logits, targets, smoothing) * weights


@wrong("4.10", caught_by="test_smoothing_spreads_over_all_tokens")
def smoothed_cross_entropy__over_the_others(logits, targets, weights, smoothing=0.1):
    share = smoothing / (logits.shape[-1] - 1)
    target = ops.one_hot(targets, logits.shape[-1]) * (1 - smoothing - share) + share
    return _weighted(-ops.sum(target * ops.log_softmax(logits), axis=-1), weights)


@wrong("4.10", caught_by="test_smoothing_spreads_over_all_tokens")
def smoothed_cross_entropy__nothing_spread(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(logits, targets, smoothing, share=0.0), weights)


@wrong("4.10", caught_by="test_smoothing_spreads_over_all_tokens")
def smoothed_cross_entropy__all_of_it_to_each(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(logits, targets, smoothing, share=smoothing), weights)


@wrong("4.10", caught_by="test_smoothing_spreads_over_all_tokens")
def smoothed_cross_entropy__plain(logits, targets, weights, smoothing=0.1):
    return _weighted(_cross_entropies(logits, targets, 0.0), weights)


@wrong("4.10", caught_by="test_padding_has_no_say")
def smoothed_cross_entropy__divided_by_all(logits, targets, weights, smoothing=0.1):
    return ops.mean(_cross_entropies(logits, targets, smoothing) * weights)


@wrong("4.10", caught_by="test_padding_has_no_say")
def smoothed_cross_entropy__weights_forgotten(logits, targets, weights, smoothing=0.1):
    return ops.mean(_cross_entropies(logits, targets, smoothing))


@wrong("4.10", caught_by="test_padding_has_no_say")
def smoothed_cross_entropy__mean_of_the_rows_means(logits, targets, weights, smoothing=0.1):
    losses = _cross_entropies(logits, targets, smoothing) * weights
    return ops.mean(ops.sum(losses, axis=-1) / ops.sum(weights, axis=-1))


@wrong("4.10", caught_by="test_logits_may_be_of_any_size")
def smoothed_cross_entropy__logarithm_of_the_softmax(logits, targets, weights, smoothing=0.1):
    target = ops.one_hot(targets, logits.shape[-1]) * (1 - smoothing) + smoothing / logits.shape[-1]
    return _weighted(-ops.sum(target * ops.log(ops.softmax(logits)), axis=-1), weights)


@wrong("4.10", caught_by="test_logits_may_be_of_any_size")
def smoothed_cross_entropy__probabilities_kept_above_zero(logits, targets, weights, smoothing=0.1):
    target = ops.one_hot(targets, logits.shape[-1]) * (1 - smoothing) + smoothing / logits.shape[-1]
    return _weighted(-ops.sum(target * ops.log(ops.softmax(logits) + 1e-9), axis=-1), weights)


@wrong("4.10", caught_by="test_logits_may_be_of_any_size")
def smoothed_cross_entropy__exponentials_summed(logits, targets, weights, smoothing=0.1):
    total = ops.log(ops.sum(ops.exp(logits), axis=-1))
    one_hot = ops.one_hot(targets, logits.shape[-1])
    right_one = ops.sum(one_hot * logits, axis=-1)
    return _weighted(total - (1 - smoothing) * right_one - smoothing * ops.mean(logits, axis=-1), weights)


@wrong("4.10", caught_by="test_the_gradient_is_probabilities_minus_target")
def smoothed_cross_entropy__in_numpy(logits, targets, weights, smoothing=0.1):
    losses = np.asarray(_cross_entropies(logits, targets, smoothing))
    return np.sum(losses * np.asarray(weights)) / np.sum(np.asarray(weights))


@wrong("4.10", caught_by="test_the_gradient_is_probabilities_minus_target")
def smoothed_cross_entropy__total_without_a_gradient(logits, targets, weights, smoothing=0.1):
    total = ops.stop_gradient(ops.logsumexp(logits, axis=-1))
    right_one = ops.sum(ops.one_hot(targets, logits.shape[-1]) * logits, axis=-1)
    return _weighted(total - (1 - smoothing) * right_one - smoothing * ops.mean(logits, axis=-1), weights)


class _Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A right schedule in small parts; each wrong answer replaces one of them."""

    def __init__(self, width, warmup_steps=4000):
        self.width, self.warmup_steps = width, warmup_steps

    def count(self, step):
        return ops.cast(step, "float32") + 1.0

    def rate(self, n):
        return ops.minimum(ops.rsqrt(n), n / self.warmup_steps**1.5) / math.sqrt(self.width)

    def __call__(self, step):
        return self.rate(self.count(step))

    def get_config(self):
        return {"width": self.width, "warmup_steps": self.warmup_steps}


@right("4.11")
class WarmupSchedule__in_parts(_Warmup):
    pass


@right("4.11")
class WarmupSchedule__with_where(_Warmup):
    def rate(self, n):
        peak = (self.width * self.warmup_steps) ** -0.5
        warm = n / self.warmup_steps
        return ops.where(warm < 1, peak * warm, peak / ops.sqrt(warm))


@wrong("4.11", caught_by="test_the_first_step_teaches_something")
class WarmupSchedule__counted_from_zero(_Warmup):
    def count(self, step):
        return ops.cast(step, "float32")


@wrong("4.11", caught_by="test_every_step_is_one_less_than_the_papers")
class WarmupSchedule__at_least_one(_Warmup):
    def count(self, step):
        return ops.maximum(ops.cast(step, "float32"), 1.0)


@wrong("4.11", caught_by="test_the_rate_rises_at_first")
class WarmupSchedule__the_larger_of_the_two(_Warmup):
    def rate(self, n):
        return ops.maximum(n**-0.5, n * self.warmup_steps**-1.5) * self.width**-0.5


@wrong("4.11", caught_by="test_the_rate_rises_at_first")
class WarmupSchedule__no_warm_up(_Warmup):
    def rate(self, n):
        return n**-0.5 * self.width**-0.5


@wrong("4.11", caught_by="test_the_rate_falls_with_the_root_of_the_width")
class WarmupSchedule__always_of_width_64(_Warmup):
    def rate(self, n):
        return ops.minimum(n**-0.5, n * self.warmup_steps**-1.5) / 8


@wrong("4.11", caught_by="test_the_rate_falls_with_the_root_of_the_width")
class WarmupSchedule__divided_by_the_width(_Warmup):
    def rate(self, n):
        return ops.minimum(n**-0.5, n * self.warmup_steps**-1.5) / self.width


@wrong("4.11", caught_by="test_the_rate_is_highest_when_the_warm_up_ends")
class WarmupSchedule__peak_of_one_eighth(_Warmup):
    def rate(self, n):
        n = n * 4 / self.warmup_steps
        return ops.minimum(n**-0.5, n / 8) / self.width**0.5


@wrong("4.11", caught_by="test_the_rate_falls_after_the_warm_up")
class WarmupSchedule__constant_after_it(_Warmup):
    def rate(self, n):
        return ops.minimum(self.warmup_steps**-0.5, n * self.warmup_steps**-1.5) * self.width**-0.5


@wrong("4.11", caught_by="test_the_rate_falls_with_the_root_of_the_step")
class WarmupSchedule__falling_with_the_step(_Warmup):
    def rate(self, n):
        falling = self.warmup_steps**0.5 / n
        return ops.minimum(falling, n * self.warmup_steps**-1.5) * self.width**-0.5


@wrong("4.11", caught_by="test_the_step_may_be_a_tensor_in_a_graph")
class WarmupSchedule__in_python(_Warmup):
    def __call__(self, step):
        n = step + 1
        return self.width**-0.5 * min(n**-0.5, n * self.warmup_steps**-1.5)


@wrong("4.11", caught_by="test_the_step_may_be_a_tensor_in_a_graph")
class WarmupSchedule__in_numpy(_Warmup):
    def __call__(self, step):
        n = np.float32(step) + 1
        return self.width**-0.5 * np.minimum(n**-0.5, n * self.warmup_steps**-1.5)


@wrong("4.11", caught_by="test_the_step_may_be_a_tensor_in_a_graph")
class WarmupSchedule__step_read_as_a_number(_Warmup):
    def count(self, step):
        return ops.convert_to_tensor(float(step) + 1.0)


@wrong("4.11", caught_by="test_it_works_in_a_compiled_optimizer")
class WarmupSchedule__whole_numbers(_Warmup):
    def __call__(self, step):
        n = step + 1
        return self.width**-0.5 * ops.minimum(n**-0.5, n * self.warmup_steps**-1.5)


@wrong("4.11", caught_by="test_its_config_makes_the_same_schedule")
class WarmupSchedule__warm_up_not_in_the_config(_Warmup):
    def get_config(self):
        return {"width": self.width}


@wrong("4.11", caught_by="test_its_config_makes_the_same_schedule")
class WarmupSchedule__empty_config(_Warmup):
    def get_config(self):
        return {}


def _write(cache, index, new):
    cache = cache.copy()
    cache[:, :, index : index + 1] = new
    return cache


def _seen(slots, index, padding):
    return (np.arange(slots) <= index) & (np.arange(slots) >= np.asarray(padding)[:, None])


def _look(query, keys, values, seen, scale=None):
    """Attention of one query over the slots that (B, S) `seen` allows."""
    scores = np.einsum("bhqk,bhsk->bhqs", query, keys) / (scale or np.sqrt(query.shape[-1]))
    return _softmax(np.where(seen[:, None, None], scores, -np.inf)) @ values


@right("4.12")
def cached_attention__with_einsum(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(query, keys, values, _seen(keys.shape[2], index, padding)), keys, values


@right("4.12")
def cached_attention__row_by_row_in_place(query, key, value, keys, values, index, padding):
    keys[:, :, [index]], values[:, :, [index]] = key, value
    output = np.zeros(query.shape)
    for b, h in np.ndindex(*query.shape[:2]):
        seen = slice(padding[b], index + 1)
        scores = keys[b, h, seen] @ query[b, h, 0] / math.sqrt(query.shape[-1])
        output[b, h, 0] = _softmax(scores) @ values[b, h, seen]
    return output, keys, values


@wrong("4.12", caught_by="test_the_new_token_takes_its_slot")
def cached_attention__appended(query, key, value, keys, values, index, padding):
    keys, values = np.concatenate([keys, key], axis=2), np.concatenate([values, value], axis=2)
    return _look(query, keys, values, _seen(keys.shape[2], keys.shape[2], padding)), keys, values


@wrong("4.12", caught_by="test_the_new_token_takes_its_slot")
def cached_attention__pushed_in_from_the_end(query, key, value, keys, values, index, padding):
    keys = np.concatenate([keys[:, :, 1:], key], axis=2)
    values = np.concatenate([values[:, :, 1:], value], axis=2)
    return _look(query, keys, values, _seen(keys.shape[2], keys.shape[2], padding)), keys, values


@wrong("4.12", caught_by="test_the_new_token_takes_its_slot")
def cached_attention__key_and_value_confused(query, key, value, keys, values, index, padding):
    return cached_attention__with_einsum(query, value, key, keys, values, index, padding)


@wrong("4.12", caught_by="test_the_new_token_takes_its_slot")
def cached_attention__nothing_kept(query, key, value, keys, values, index, padding):
    output = cached_attention__with_einsum(query, key, value, keys, values, index, padding)[0]
    return output, keys, values


@wrong("4.12", caught_by="test_what_is_left_over_is_not_seen")
def cached_attention__all_slots_seen(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(query, keys, values, _seen(keys.shape[2], keys.shape[2], padding)), keys, values


@wrong("4.12", caught_by="test_what_is_left_over_is_not_seen")
def cached_attention__blind_to_itself(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(query, keys, values, _seen(keys.shape[2], max(index - 1, 0), padding)), keys, values


@wrong("4.12", caught_by="test_what_is_left_over_is_not_seen")
def cached_attention__one_slot_too_many(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(query, keys, values, _seen(keys.shape[2], index + 1, padding)), keys, values


@wrong("4.12", caught_by="test_what_is_left_over_is_not_seen")
def cached_attention__looked_before_writing(query, key, value, keys, values, index, padding):
    output = _look(query, keys, values, _seen(keys.shape[2], index, padding))
    return output, _write(keys, index, key), _write(values, index, value)


@wrong("4.12", caught_by="test_scores_are_divided_by_the_root_of_the_width")
def cached_attention__not_scaled(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(query, keys, values, _seen(keys.shape[2], index, padding), scale=1.0), keys, values


@wrong("4.12", caught_by="test_the_query_has_a_say")
def cached_attention__equal_shares(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    return _look(0 * query, keys, values, _seen(keys.shape[2], index, padding)), keys, values


@wrong("4.12", caught_by="test_scores_are_divided_by_the_root_of_the_width")
def cached_attention__scaled_by_the_slots(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    scale = np.sqrt(keys.shape[2])
    return _look(query, keys, values, _seen(keys.shape[2], index, padding), scale=scale), keys, values


@wrong("4.12", caught_by="test_step_by_step_equals_full_attention")
def cached_attention__keys_of_the_first_head(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    seen = _seen(keys.shape[2], index, padding)
    return _look(query, np.repeat(keys[:, :1], keys.shape[1], axis=1), values, seen), keys, values


@wrong("4.12", caught_by="test_padding_at_the_beginning_is_not_seen")
def cached_attention__padding_forgotten(query, key, value, keys, values, index, padding):
    return cached_attention__with_einsum(query, key, value, keys, values, index, 0 * np.asarray(padding))


@wrong("4.12", caught_by="test_padding_at_the_beginning_is_not_seen")
def cached_attention__one_of_the_padding_seen(query, key, value, keys, values, index, padding):
    fewer = np.maximum(np.asarray(padding) - 1, 0)
    return cached_attention__with_einsum(query, key, value, keys, values, index, fewer)


@wrong("4.12", caught_by="test_padding_at_the_beginning_is_not_seen")
def cached_attention__padding_of_the_first_row(query, key, value, keys, values, index, padding):
    first = np.full(len(padding), padding[0])
    return cached_attention__with_einsum(query, key, value, keys, values, index, first)


@wrong("4.12", caught_by="test_padding_at_the_beginning_is_not_seen")
def cached_attention__padding_scores_zero(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    real = (np.arange(keys.shape[2]) >= np.asarray(padding)[:, None])[:, None, :, None]
    seen = _seen(keys.shape[2], index, 0 * np.asarray(padding))
    return _look(query, np.where(real, keys, 0.0), values, seen), keys, values


@wrong("4.12", caught_by="test_padding_at_the_beginning_is_not_seen")
def cached_attention__padding_at_the_end(query, key, value, keys, values, index, padding):
    keys, values = _write(keys, index, key), _write(values, index, value)
    real = np.arange(keys.shape[2]) <= index - np.asarray(padding)[:, None]
    return _look(query, keys, values, real), keys, values


def _order(rows, num_heads, order):
    """For each row of the result the row of the input, where `order` says it for one head."""
    width = rows // num_heads
    return np.concatenate([head * width + np.asarray(order(width)) for head in range(num_heads)])


def _even_then_odd(width):
    return [*range(0, width, 2), *range(1, width, 2)]


def _half_by_half(width):
    return np.arange(width).reshape(2, -1).T.ravel()


@right("4.13")
def unpermute__even_rows_then_odd(weight, num_heads):
    return weight[_order(len(weight), num_heads, _even_then_odd)]


@right("4.13")
def permute__row_by_row(weight, num_heads):
    return weight[_order(len(weight), num_heads, _half_by_half)]


@wrong("4.13", caught_by="test_the_rows_are_more_than_one_head")
def unpermute__heads_forgotten(weight, num_heads):
    return unpermute__even_rows_then_odd(weight, 1)


@wrong("4.13", caught_by="test_rows_stay_in_their_head")
def unpermute__cut_into_heads_of_that_width(weight, num_heads):
    return unpermute__even_rows_then_odd(weight, max(1, len(weight) // num_heads // 2))


@wrong("4.13", caught_by="test_the_weight_keeps_its_shape")
def unpermute__turned_over(weight, num_heads):
    return unpermute__even_rows_then_odd(weight, num_heads).T


@wrong("4.13", caught_by="test_rows_stay_in_their_head")
def unpermute__heads_last(weight, num_heads):
    rows, width = weight.shape
    return weight.reshape(-1, 2, num_heads, width).swapaxes(0, 2).reshape(rows, width)


@wrong("4.13", caught_by="test_the_two_directions_are_not_exchanged")
def unpermute__the_way_back(weight, num_heads):
    return permute__row_by_row(weight, num_heads)


@wrong("4.13", caught_by="test_the_rows_are_reordered")
def unpermute__nothing_done(weight, num_heads):
    return weight


@wrong("4.13", caught_by="test_scores_are_those_of_the_file")
def unpermute__odd_rows_first(weight, num_heads):
    return weight[_order(len(weight), num_heads, lambda width: [*range(1, width, 2), *range(0, width, 2)])]


@wrong("4.13", caught_by="test_pairs_of_the_file_are_pairs_of_rotate")
def unpermute__reversed(weight, num_heads):
    return weight[_order(len(weight), num_heads, lambda width: np.arange(width)[::-1])]


@wrong("4.13", caught_by="test_permute_is_the_way_back")
def permute__the_same_once_more(weight, num_heads):
    return unpermute__even_rows_then_odd(weight, num_heads)


@wrong("4.13", caught_by="test_permute_keeps_rows_in_their_head")
def permute__heads_forgotten(weight, num_heads):
    return permute__row_by_row(weight, 1)


def _fits(budget, vocab_size, max_length, width, depth):
    return _gpt(vocab_size, max_length, width, depth) <= budget


def _deepest(budget, vocab_size, max_length, width):
    depth = 0
    while depth < width // 16 and _fits(budget, vocab_size, max_length, width, depth + 1):
        depth += 1
    return depth


@right("4.14")
def choose_shape__the_widest_that_spends_enough(budget, vocab_size, max_length):
    for width in range(6400, 0, -64):
        depth = _deepest(budget, vocab_size, max_length, width)
        spent = _gpt(vocab_size, max_length, width, depth)
        if depth > 0 and width <= 128 * depth and spent >= 0.9 * budget:
            return {"width": width, "depth": depth, "num_heads": width // 64}
    return choose_shape__by_solving_for_the_depth(budget, vocab_size, max_length)


@right("4.14")
def choose_shape__by_solving_for_the_depth(budget, vocab_size, max_length):
    widths = np.arange(32, 6400, 32)
    left = budget - (vocab_size + max_length + 2) * widths
    depths = np.clip(left // (12 * widths**2 + 13 * widths), 0, widths // 16)
    spent = budget - left + depths * (12 * widths**2 + 13 * widths)
    best = np.argmax(np.where((depths > 0) & (widths <= 128 * depths), spent, 0))
    return {"width": widths[best], "depth": depths[best], "num_heads": widths[best] // 32}


@wrong("4.14", caught_by="test_heads_have_one_of_three_widths")
def choose_shape__always_twelve_heads(budget, vocab_size, max_length):
    return choose_shape__by_solving_for_the_depth(budget, vocab_size, max_length) | {"num_heads": 12}


@wrong("4.14", caught_by="test_heads_have_one_of_three_widths")
def choose_shape__one_head(budget, vocab_size, max_length):
    return choose_shape__by_solving_for_the_depth(budget, vocab_size, max_length) | {"num_heads": 1}


@wrong("4.14", caught_by="test_heads_have_one_of_three_widths")
def choose_shape__a_root_for_a_width(budget, vocab_size, max_length):
    width = int((budget / (12 * 12)) ** 0.5)
    return {"width": width, "depth": 12, "num_heads": max(1, width // 64)}


@wrong("4.14", caught_by="test_heads_have_one_of_three_widths")
def choose_shape__as_a_tuple(budget, vocab_size, max_length):
    return tuple(choose_shape__by_solving_for_the_depth(budget, vocab_size, max_length).values())


@wrong("4.14", caught_by="test_the_budget_is_not_exceeded")
def choose_shape__tables_not_counted(budget, vocab_size, max_length):
    shapes = [
        (width, depth) for width in range(32, 6400, 32) for depth in (width // 64, width // 32) if depth
    ]
    fitting = [shape for shape in shapes if 12 * shape[1] * shape[0] ** 2 <= budget]
    width, depth = max(fitting, key=lambda shape: shape[1] * shape[0] ** 2)
    return {"width": width, "depth": depth, "num_heads": width // 32}


@wrong("4.14", caught_by="test_the_budget_is_not_exceeded")
def choose_shape__a_little_more(budget, vocab_size, max_length):
    return choose_shape__by_solving_for_the_depth(int(1.05 * budget), vocab_size, max_length)


@wrong("4.14", caught_by="test_the_budget_is_not_exceeded")
def choose_shape__always_gpt2(budget, vocab_size, max_length):
    return {"width": 768, "depth": 12, "num_heads": 12}


@wrong("4.14", caught_by="test_nine_tenths_are_spent")
def choose_shape__the_first_that_fits(budget, vocab_size, max_length):
    return {"width": 32, "depth": 2, "num_heads": 1}


@wrong("4.14", caught_by="test_nine_tenths_are_spent")
def choose_shape__powers_of_two(budget, vocab_size, max_length):
    width = 32
    while _fits(budget, vocab_size, max_length, 2 * width, 2 * width // 64):
        width *= 2
    return {"width": width, "depth": max(1, width // 64), "num_heads": width // 32}


@wrong("4.14", caught_by="test_nine_tenths_are_spent")
def choose_shape__table_counted_twice(budget, vocab_size, max_length):
    return choose_shape__by_solving_for_the_depth(budget - vocab_size * 32, 2 * vocab_size, max_length)


@wrong("4.14", caught_by="test_width_and_depth_are_in_proportion")
def choose_shape__a_tower(budget, vocab_size, max_length):
    tables = _gpt(vocab_size, max_length, 32, 0)
    return {"width": 32, "depth": (budget - tables) // (12 * 32**2 + 13 * 32), "num_heads": 1}


@wrong("4.14", caught_by="test_width_and_depth_are_in_proportion")
def choose_shape__as_wide_as_can_be(budget, vocab_size, max_length):
    for width in range(19_968, 0, -32):
        left = budget - _gpt(vocab_size, max_length, width, 0)
        depth = left // (12 * width**2 + 13 * width)
        if depth > 0 and _gpt(vocab_size, max_length, width, depth) >= 0.9 * budget:
            return {"width": width, "depth": depth, "num_heads": width // 32}
