"""Common wrong answers to chapter 3's exercises, and right ones in another style."""

import keras
import numpy as np
from keras import ops

from tests.wrong import right, wrong


def _softmax(scores, axis=-1):
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _masked(scores, mask):
    """What exercise 3.1 asks for, in another style: for the wrong answers to the later exercises."""
    weights = _softmax(np.where(mask, scores, -1e30))
    return np.where(mask, weights, 0.0)


def _scores(query, key):
    return query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])


@right("3.1")
def masked_softmax__with_a_large_negative_number(scores, mask):
    return _masked(scores, mask)


@right("3.1")
def masked_softmax__row_by_row(scores, mask):
    mask = np.broadcast_to(mask, scores.shape)
    weights = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        seen = mask[row]
        if seen.any():
            weights[row][seen] = _softmax(scores[row][seen])
    return weights


@wrong("3.1", caught_by="test_scores_may_be_of_any_size")
def masked_softmax__shifted_by_the_largest_of_all_queries(scores, mask):
    powers = np.where(mask, np.exp(scores - np.max(scores, where=mask, initial=-1e9)), 0)
    totals = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(totals > 0, totals, 1)


@wrong("3.1", caught_by="test_forbidden_keys_get_exactly_nothing")
def masked_softmax__true_hides(scores, mask):
    return _masked(scores, ~mask)


@wrong("3.1", caught_by="test_forbidden_keys_get_exactly_nothing")
def masked_softmax__scores_times_the_mask(scores, mask):
    return _softmax(scores * mask)


@wrong("3.1", caught_by="test_forbidden_keys_get_exactly_nothing")
def masked_softmax__too_small_a_penalty(scores, mask):
    return _softmax(scores - 10.0 * (1 - mask))


@wrong("3.1", caught_by="test_forbidden_keys_get_exactly_nothing")
def masked_softmax__penalty_of_the_wrong_sign(scores, mask):
    return _softmax(scores + 1e9 * (1 - mask))


@wrong("3.1", caught_by="test_forbidden_keys_get_exactly_nothing")
def masked_softmax__mask_forgotten(scores, mask):
    return _softmax(scores)


@wrong("3.1", caught_by="test_weights_sum_to_one_over_the_keys")
def masked_softmax__over_the_queries(scores, mask):
    return np.where(mask, _softmax(np.where(mask, scores, -1e30), axis=-2), 0.0)


@wrong("3.1", caught_by="test_weights_sum_to_one_over_the_keys")
def masked_softmax__over_the_whole_matrix(scores, mask):
    powers = np.where(mask, np.exp(scores - scores.max()), 0.0)
    return powers / powers.sum()


@wrong("3.1", caught_by="test_weights_sum_to_one_over_the_keys")
def masked_softmax__mask_after_the_softmax(scores, mask):
    return _softmax(scores) * mask


@wrong("3.1", caught_by="test_weights_are_in_proportion_to_the_exponentials")
def masked_softmax__powers_of_two(scores, mask):
    return _masked(scores * np.log(2), mask)


@wrong("3.1", caught_by="test_weights_are_in_proportion_to_the_exponentials")
def masked_softmax__of_the_distance(scores, mask):
    return _masked(-scores, mask)


@wrong("3.1", caught_by="test_scores_may_be_of_any_size")
def masked_softmax__without_the_maximum(scores, mask):
    powers = np.where(mask, np.exp(scores), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


@wrong("3.1", caught_by="test_scores_may_be_of_any_size")
def masked_softmax__maximum_of_the_forbidden_too(scores, mask):
    powers = np.where(mask, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0.0)
    total = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


@wrong("3.1", caught_by="test_a_query_that_sees_nothing_gets_zeros")
def masked_softmax__nan_for_an_empty_row(scores, mask):
    return _softmax(np.where(mask, scores, -np.inf))


@wrong("3.1", caught_by="test_a_query_that_sees_nothing_gets_zeros")
def masked_softmax__equal_shares_for_an_empty_row(scores, mask):
    return _softmax(np.where(mask, scores, -1e9))


@wrong("3.1", caught_by="test_the_mask_broadcasts")
def masked_softmax__mask_as_an_index(scores, mask):
    scores = scores.copy()
    scores[~mask] = -1e30
    return _softmax(scores) * mask


@wrong("3.1", caught_by="test_the_scores_are_left_as_they_are")
def masked_softmax__in_place(scores, mask):
    scores -= np.where(mask, scores, -1e30).max(axis=-1, keepdims=True)
    return _masked(scores, mask)


@right("3.2")
def attention__with_einsum(query, key, value, mask=None):
    scores = np.einsum("...tk,...sk->...ts", query * query.shape[-1] ** -0.5, key)
    weights = _masked(scores, np.True_ if mask is None else mask)
    return np.einsum("...ts,...sv->...tv", weights, value), weights


@wrong("3.2", caught_by="test_output_and_weights_have_a_row_for_each_query")
def attention__weights_first(query, key, value, mask=None):
    weights = _masked(_scores(query, key), True if mask is None else mask)
    return weights, weights @ value


@wrong("3.2", caught_by="test_output_and_weights_have_a_row_for_each_query")
def attention__output_alone(query, key, value, mask=None):
    return _masked(_scores(query, key), True if mask is None else mask) @ value


@wrong("3.2", caught_by="test_output_and_weights_have_a_row_for_each_query")
def attention__all_axes_turned_round(query, key, value, mask=None):
    weights = _masked(query @ key.T / np.sqrt(query.shape[-1]), True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_output_and_weights_have_a_row_for_each_query")
def attention__softmax_over_the_queries(query, key, value, mask=None):
    weights = _softmax(_scores(query, key), axis=-2)
    return weights @ value, weights


@wrong("3.2", caught_by="test_a_single_key_hands_over_its_value")
def attention__scaled_twice(query, key, value, mask=None):
    weights = _masked(_scores(query, key), True if mask is None else mask)
    return weights @ value / np.sqrt(query.shape[-1]), weights


@wrong("3.2", caught_by="test_a_single_key_hands_over_its_value")
def attention__keys_mixed(query, key, value, mask=None):
    weights = _masked(_scores(query, key), True if mask is None else mask)
    return weights @ key, weights


@wrong("3.2", caught_by="test_scores_are_divided_by_the_root_of_the_width")
def attention__not_scaled(query, key, value, mask=None):
    weights = _masked(query @ np.swapaxes(key, -1, -2), True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_scores_are_divided_by_the_root_of_the_width")
def attention__divided_by_the_width(query, key, value, mask=None):
    weights = _masked(_scores(query, key) / np.sqrt(query.shape[-1]), True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_scores_are_divided_by_the_root_of_the_width")
def attention__root_of_the_number_of_keys(query, key, value, mask=None):
    scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(key.shape[-2])
    weights = _masked(scores, True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_the_mask_is_heeded")
def attention__mask_forgotten(query, key, value, mask=None):
    weights = _softmax(_scores(query, key))
    return weights @ value, weights


@wrong("3.2", caught_by="test_the_mask_is_heeded")
def attention__mask_after_the_softmax(query, key, value, mask=None):
    weights = _softmax(_scores(query, key)) * (True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_the_mask_is_heeded")
def attention__mask_added(query, key, value, mask=None):
    weights = _softmax(_scores(query, key) + (0 if mask is None else mask))
    return weights @ value, weights


@right("3.3")
def attention_mask__with_loops(lengths, max_length, window=None):
    mask = np.zeros((len(lengths), max_length, max_length), dtype=bool)
    for b, t, s in np.ndindex(mask.shape):
        mask[b, t, s] = max_length - lengths[b] <= s <= t and (window is None or t - s < window)
    return mask


@right("3.3")
def attention_mask__with_tri(lengths, max_length, window=None):
    mask = np.tri(max_length, dtype=bool)
    if window:
        mask &= ~np.tri(max_length, k=-window, dtype=bool)
    return mask[None] & (np.arange(max_length)[::-1] < lengths[:, None])[:, None]


@wrong("3.3", caught_by="test_the_mask_is_bool_for_every_row_query_and_key")
def attention_mask__as_a_penalty(lengths, max_length, window=None):
    return np.where(attention_mask__with_tri(lengths, max_length, window), 0.0, -np.inf)


@wrong("3.3", caught_by="test_the_mask_is_bool_for_every_row_query_and_key")
def attention_mask__of_ones_and_zeros(lengths, max_length, window=None):
    return attention_mask__with_tri(lengths, max_length, window).astype(int)


@wrong("3.3", caught_by="test_the_mask_is_bool_for_every_row_query_and_key")
def attention_mask__one_for_all_rows(lengths, max_length, window=None):
    return np.tri(max_length, dtype=bool)


@wrong("3.3", caught_by="test_no_query_sees_the_future")
def attention_mask__turned_over(lengths, max_length, window=None):
    return attention_mask__with_tri(lengths, max_length, window).swapaxes(1, 2)


@wrong("3.3", caught_by="test_no_query_sees_the_future")
def attention_mask__window_to_both_sides(lengths, max_length, window=None):
    place = np.arange(max_length)
    near = abs(place[:, None] - place) < (window or max_length)
    return near & (place >= max_length - lengths[:, None, None])


@wrong("3.3", caught_by="test_no_query_sees_the_future")
def attention_mask__true_hides(lengths, max_length, window=None):
    return ~attention_mask__with_tri(lengths, max_length, window)


@wrong("3.3", caught_by="test_every_query_sees_the_past_and_itself")
def attention_mask__blind_to_itself(lengths, max_length, window=None):
    return attention_mask__with_tri(lengths, max_length, window) & np.tri(max_length, k=-1, dtype=bool)


@wrong("3.3", caught_by="test_the_window_counts_the_query_itself")
def attention_mask__window_and_itself(lengths, max_length, window=None):
    return attention_mask__with_tri(lengths, max_length, window and window + 1)


@wrong("3.3", caught_by="test_the_window_counts_the_query_itself")
def attention_mask__window_forgotten(lengths, max_length, window=None):
    return attention_mask__with_tri(lengths, max_length)


@wrong("3.3", caught_by="test_the_window_counts_the_query_itself")
def attention_mask__window_and_nothing_else(lengths, max_length, window=None):
    mask = attention_mask__with_tri(lengths, max_length)
    return mask if window is None else mask & (np.arange(max_length) < window)


def _unpadded(lengths, max_length, window):
    return attention_mask__with_tri(np.full(len(lengths), max_length), max_length, window)


@wrong("3.3", caught_by="test_padding_is_seen_by_nobody")
def attention_mask__padding_on_the_right(lengths, max_length, window=None):
    return _unpadded(lengths, max_length, window) & (np.arange(max_length) < lengths[:, None, None])


@wrong("3.3", caught_by="test_padding_is_seen_by_nobody")
def attention_mask__padding_as_queries(lengths, max_length, window=None):
    real = np.arange(max_length) >= max_length - lengths[:, None]
    return _unpadded(lengths, max_length, window) & real[:, :, None]


@wrong("3.3", caught_by="test_padding_is_seen_by_nobody")
def attention_mask__first_real_token_hidden(lengths, max_length, window=None):
    real = np.arange(max_length) > max_length - lengths[:, None, None]
    return _unpadded(lengths, max_length, window) & (real | (lengths == max_length)[:, None, None])


@wrong("3.3", caught_by="test_the_three_rules_hold_together")
def attention_mask__either_window_or_padding(lengths, max_length, window=None):
    if window is not None:
        return _unpadded(lengths, max_length, window)
    return attention_mask__with_tri(lengths, max_length)


@wrong("3.3", caught_by="test_the_three_rules_hold_together")
def attention_mask__padding_sees_itself(lengths, max_length, window=None):
    mask = attention_mask__with_tri(lengths, max_length, window)
    return mask if window is None else mask | np.eye(max_length, dtype=bool)


@right("3.4")
def additive_scores__pair_by_pair(query, key, w, u, v):
    columns = [
        ops.einsum("btn,n->bt", ops.tanh(query @ w + (key[:, s] @ u)[:, None]), v)
        for s in range(key.shape[1])
    ]
    return ops.stack(columns, axis=-1)


@wrong("3.4", caught_by="test_every_query_has_a_score_for_every_key")
def additive_scores__keys_by_queries(query, key, w, u, v):
    return ops.swapaxes(additive_scores__pair_by_pair(query, key, w, u, v), 1, 2)


@wrong("3.4", caught_by="test_every_query_has_a_score_for_every_key")
def additive_scores__without_new_axes(query, key, w, u, v):
    return ops.sum(v * ops.tanh(query @ w + key @ u), axis=-1)


@wrong("3.4", caught_by="test_every_query_has_a_score_for_every_key")
def additive_scores__units_left(query, key, w, u, v):
    return v * ops.tanh((query @ w)[:, :, None] + (key @ u)[:, None])


@wrong("3.4", caught_by="test_scores_equal_the_formula")
def additive_scores__without_tanh(query, key, w, u, v):
    return ops.sum(v * ((query @ w)[:, :, None] + (key @ u)[:, None]), axis=-1)


@wrong("3.4", caught_by="test_scores_equal_the_formula")
def additive_scores__tanh_last(query, key, w, u, v):
    return ops.tanh(ops.sum(v * ((query @ w)[:, :, None] + (key @ u)[:, None]), axis=-1))


@wrong("3.4", caught_by="test_scores_equal_the_formula")
def additive_scores__multiplied(query, key, w, u, v):
    return ops.sum(v * ops.tanh((query @ w)[:, :, None] * (key @ u)[:, None]), axis=-1)


@wrong("3.4", caught_by="test_scores_equal_the_formula")
def additive_scores__mean_of_the_units(query, key, w, u, v):
    return ops.mean(v * ops.tanh((query @ w)[:, :, None] + (key @ u)[:, None]), axis=-1)


@wrong("3.4", caught_by="test_queries_and_keys_have_a_matrix_each")
def additive_scores__mixing_up_the_rows(query, key, w, u, v):
    return ops.sum(v * ops.tanh((query @ w)[:, :, None] + (key[::-1] @ u)[:, None]), axis=-1)


@wrong("3.4", caught_by="test_queries_and_keys_have_a_matrix_each")
def additive_scores__one_matrix_for_both(query, key, w, u, v):
    u = w if query.shape[-1] == key.shape[-1] else u
    return ops.sum(v * ops.tanh((query @ w)[:, :, None] + (key @ u)[:, None]), axis=-1)


@wrong("3.4", caught_by="test_gradients_reach_the_parameters")
def additive_scores__in_numpy(query, key, w, u, v):
    hidden = np.tanh((query @ w)[:, :, None] + (key @ u)[:, None])
    return np.sum(v * hidden, axis=-1)


@wrong("3.4", caught_by="test_gradients_reach_the_parameters")
def additive_scores__through_numpy_and_back(query, key, w, u, v):
    hidden = np.tanh((query @ w)[:, :, None] + (key @ u)[:, None])
    return ops.sum(v * ops.convert_to_tensor(hidden), axis=-1)


@right("3.5")
def split_heads__by_stacking(x, num_heads):
    return np.stack(np.split(x, num_heads, axis=-1), axis=1)


@wrong("3.5", caught_by="test_a_head_is_a_slice_of_the_width")
def split_heads__reshape_only(x, num_heads):
    rows, time, width = x.shape
    return x.reshape(rows, num_heads, time, width // num_heads)


@wrong("3.5", caught_by="test_a_head_is_a_slice_of_the_width")
def split_heads__every_other_number(x, num_heads):
    rows, time, width = x.shape
    return np.moveaxis(x.reshape(rows, time, width // num_heads, num_heads), 3, 1)


@wrong("3.5", caught_by="test_a_head_is_a_slice_of_the_width")
def split_heads__heads_not_in_front(x, num_heads):
    return x.reshape(*x.shape[:2], num_heads, -1)


@right("3.5")
def join_heads__by_concatenating(x):
    return np.concatenate(list(np.moveaxis(x, 1, 0)), axis=-1)


@wrong("3.5", caught_by="test_joining_lays_a_tokens_heads_side_by_side")
def join_heads__reshape_only(x):
    rows, heads, time, width = x.shape
    return x.reshape(rows, time, heads * width)


@wrong("3.5", caught_by="test_joining_lays_a_tokens_heads_side_by_side")
def join_heads__interleaved(x):
    rows, heads, time, width = x.shape
    return x.transpose(0, 2, 3, 1).reshape(rows, time, heads * width)


@wrong("3.5", caught_by="test_joining_lays_a_tokens_heads_side_by_side")
def join_heads__added_up(x):
    return x.sum(axis=1)


def _in_heads(x, w, num_heads):
    return split_heads__by_stacking(x @ w, num_heads)


def _join(x):
    return join_heads__by_concatenating(x)


@right("3.5")
def multi_head_attention__head_by_head(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    parts = [np.split(w, num_heads, axis=1) for w in (w_query, w_key, w_value)]
    total = 0.0
    for q, k, v, o in zip(*parts, np.split(w_output, num_heads), strict=True):
        weights = _masked(_scores(x @ q, x @ k), True if mask is None else mask)
        total = total + weights @ (x @ v) @ o
    return total


@wrong("3.5", caught_by="test_each_head_attends_for_itself")
def multi_head_attention__one_large_head(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    weights = _masked(_scores(x @ w_query, x @ w_key), True if mask is None else mask)
    return weights @ (x @ w_value) @ w_output


@wrong("3.5", caught_by="test_each_head_attends_for_itself")
def multi_head_attention__scaled_by_the_whole_width(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    weights = _softmax(_scores(query, key) / np.sqrt(num_heads))
    return _join(weights @ value) @ w_output


@wrong("3.5", caught_by="test_each_head_attends_for_itself")
def multi_head_attention__heads_attend_to_each_other(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads).swapaxes(1, 2) for w in (w_query, w_key, w_value))
    return _join((_softmax(_scores(query, key)) @ value).swapaxes(1, 2)) @ w_output


@wrong("3.5", caught_by="test_each_head_attends_for_itself")
def multi_head_attention__key_and_value_confused(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    return multi_head_attention__head_by_head(x, w_query, w_value, w_key, w_output, num_heads, mask)


@wrong("3.5", caught_by="test_each_head_attends_for_itself")
def multi_head_attention__without_the_output_matrix(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    return _join(_softmax(_scores(query, key)) @ value)


@wrong("3.5", caught_by="test_the_mask_holds_in_every_head")
def multi_head_attention__rows_of_the_mask_taken_for_heads(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    weights = _masked(_scores(query, key), True if mask is None else mask)
    return _join(weights @ value) @ w_output


@wrong("3.5", caught_by="test_the_mask_holds_in_every_head")
def multi_head_attention__mask_forgotten(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    return multi_head_attention__head_by_head(x, w_query, w_key, w_value, w_output, num_heads)


@wrong("3.5", caught_by="test_the_mask_holds_in_every_head")
def multi_head_attention__always_three_axes(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    weights = _masked(_scores(query, key), True if mask is None else mask[:, None])
    return _join(weights @ value) @ w_output


@wrong("3.5", caught_by="test_it_equals_keras_with_the_same_weights")
def multi_head_attention__squeezed(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    return multi_head_attention__head_by_head(x, w_query, w_key, w_value, w_output, num_heads, mask).squeeze()


def _mixed(query, key, value):
    return _softmax(_scores(query, key)) @ value


@right("3.6")
def grouped_query_attention__with_a_group_axis(query, key, value):
    rows, heads, time, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, time, width)
    return _mixed(grouped, key[:, :, None], value[:, :, None]).reshape(rows, heads, time, -1)


@wrong("3.6", caught_by="test_every_query_head_has_an_output")
def grouped_query_attention__queries_averaged(query, key, value):
    grouped = query.reshape(len(query), key.shape[1], -1, *query.shape[2:])
    return _mixed(grouped.mean(axis=2), key, value)


@wrong("3.6", caught_by="test_every_query_head_has_an_output")
def grouped_query_attention__nothing_repeated(query, key, value):
    return _mixed(query, key, value)


@wrong("3.6", caught_by="test_every_query_head_has_an_output")
def grouped_query_attention__more_keys_instead_of_heads(query, key, value):
    group = query.shape[1] // key.shape[1]
    return _mixed(query, np.repeat(key, group, axis=2), np.repeat(value, group, axis=2))


@wrong("3.6", caught_by="test_every_query_head_has_an_output")
def grouped_query_attention__group_axis_left(query, key, value):
    grouped = query.reshape(len(query), key.shape[1], -1, *query.shape[2:])
    return _mixed(grouped, key[:, :, None], value[:, :, None])


@wrong("3.6", caught_by="test_neighbouring_query_heads_share_keys_and_values")
def grouped_query_attention__tiled(query, key, value):
    group = query.shape[1] // key.shape[1]
    return _mixed(query, np.tile(key, (1, group, 1, 1)), np.tile(value, (1, group, 1, 1)))


@wrong("3.6", caught_by="test_neighbouring_query_heads_share_keys_and_values")
def grouped_query_attention__values_tiled(query, key, value):
    group = query.shape[1] // key.shape[1]
    return _mixed(query, np.repeat(key, group, axis=1), np.tile(value, (1, group, 1, 1)))


@wrong("3.6", caught_by="test_neighbouring_query_heads_share_keys_and_values")
def grouped_query_attention__all_use_the_first(query, key, value):
    return _mixed(query, key[:, :1], value[:, :1])


@wrong("3.6", caught_by="test_groups_may_be_of_any_size")
def grouped_query_attention__two_groups_assumed(query, key, value):
    heads = query.shape[1]
    chosen = [min(h // (heads // 2), key.shape[1] - 1) if heads > 1 else 0 for h in range(heads)]
    return _mixed(query, key[:, chosen], value[:, chosen])


@right("3.6")
def attention_parameters__matrix_by_matrix(width, num_heads, num_kv_heads, head_width, use_bias=True):
    shapes = [(width, num_heads * head_width), (num_heads * head_width, width)]
    shapes += [(width, num_kv_heads * head_width)] * 2
    return sum((rows + bool(use_bias)) * columns for rows, columns in shapes)


@wrong("3.6", caught_by="test_matrices_are_counted_as_keras_counts_them")
def attention_parameters__output_forgotten(width, num_heads, num_kv_heads, head_width, use_bias=True):
    outputs = (num_heads + 2 * num_kv_heads) * head_width
    return (width + use_bias) * outputs


@wrong("3.6", caught_by="test_matrices_are_counted_as_keras_counts_them")
def attention_parameters__all_heads_have_keys(width, num_heads, num_kv_heads, head_width, use_bias=True):
    return attention_parameters__matrix_by_matrix(width, num_heads, num_heads, head_width, use_bias)


@wrong("3.6", caught_by="test_matrices_are_counted_as_keras_counts_them")
def attention_parameters__heads_of_the_whole_width(width, num_heads, num_kv_heads, head_width, use_bias=True):
    return attention_parameters__matrix_by_matrix(width, num_heads, num_kv_heads, width, use_bias)


@wrong("3.6", caught_by="test_matrices_are_counted_as_keras_counts_them")
def attention_parameters__heads_that_divide_the_width(
    width, num_heads, num_kv_heads, head_width, use_bias=True
):
    return attention_parameters__matrix_by_matrix(
        width, num_heads, num_kv_heads, width // num_heads, use_bias
    )


@wrong("3.6", caught_by="test_biases_are_counted_as_keras_counts_them")
def attention_parameters__without_biases(width, num_heads, num_kv_heads, head_width, use_bias=True):
    return attention_parameters__matrix_by_matrix(width, num_heads, num_kv_heads, head_width, False)


@wrong("3.6", caught_by="test_biases_are_counted_as_keras_counts_them")
def attention_parameters__biases_of_what_goes_in(width, num_heads, num_kv_heads, head_width, use_bias=True):
    matrices = attention_parameters__matrix_by_matrix(width, num_heads, num_kv_heads, head_width, False)
    return matrices + use_bias * (3 * width + num_heads * head_width)


@wrong("3.6", caught_by="test_biases_are_counted_as_keras_counts_them")
def attention_parameters__output_without_a_bias(width, num_heads, num_kv_heads, head_width, use_bias=True):
    total = attention_parameters__matrix_by_matrix(width, num_heads, num_kv_heads, head_width, use_bias)
    return total - use_bias * width


def _backward(query, key, value, grad_output, *, jacobian="whole"):
    """The weights, and the gradient of the scores before they were divided."""
    weights = _softmax(_scores(query, key))
    grad_weights = grad_output @ value.T
    if jacobian == "diagonal":
        return weights, weights * (1 - weights) * grad_weights
    if jacobian == "none":
        return weights, grad_weights
    if jacobian == "log":
        return weights, grad_weights - weights * grad_weights.sum(axis=-1, keepdims=True)
    return weights, weights * (grad_weights - (weights * grad_weights).sum(axis=-1, keepdims=True))


@right("3.7")
def attention_gradients__with_jacobians(query, key, value, grad_output):
    weights = _softmax(_scores(query, key))
    root = np.sqrt(query.shape[1])
    grad_scores = np.zeros_like(weights)
    for t, p in enumerate(weights):
        grad_scores[t] = (np.diag(p) - np.outer(p, p)) @ (value @ grad_output[t])
    return grad_scores @ (key / root), (query / root).T.dot(grad_scores).T, weights.T @ grad_output


@wrong("3.7", caught_by="test_gradients_have_the_shapes_of_the_inputs")
def attention_gradients__value_first(query, key, value, grad_output):
    return attention_gradients__with_jacobians(query, key, value, grad_output)[::-1]


@wrong("3.7", caught_by="test_gradients_have_the_shapes_of_the_inputs")
def attention_gradients__weights_not_transposed(query, key, value, grad_output):
    grad_query, grad_key, _ = attention_gradients__with_jacobians(query, key, value, grad_output)
    return grad_query, grad_key, _softmax(_scores(query, key)) @ grad_output


@wrong("3.7", caught_by="test_gradients_have_the_shapes_of_the_inputs")
def attention_gradients__of_the_scores(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output)
    return grad_scores, grad_scores.T, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_values")
def attention_gradients__equal_shares_for_the_values(query, key, value, grad_output):
    grad_query, grad_key, _ = attention_gradients__with_jacobians(query, key, value, grad_output)
    return grad_query, grad_key, np.ones((len(key), len(query))) @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_values")
def attention_gradients__values_scaled(query, key, value, grad_output):
    grad_query, grad_key, grad_value = attention_gradients__with_jacobians(query, key, value, grad_output)
    return grad_query, grad_key, grad_value / np.sqrt(query.shape[1])


@wrong("3.7", caught_by="test_what_moves_all_keys_alike_changes_nothing")
def attention_gradients__diagonal_of_the_jacobian(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output, jacobian="diagonal")
    root = np.sqrt(query.shape[1])
    return grad_scores @ key / root, grad_scores.T @ query / root, weights.T @ grad_output


@wrong("3.7", caught_by="test_what_moves_all_keys_alike_changes_nothing")
def attention_gradients__softmax_skipped(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output, jacobian="none")
    root = np.sqrt(query.shape[1])
    return grad_scores @ key / root, grad_scores.T @ query / root, weights.T @ grad_output


@wrong("3.7", caught_by="test_what_moves_all_keys_alike_changes_nothing")
def attention_gradients__mean_over_the_queries(query, key, value, grad_output):
    weights, root = _softmax(_scores(query, key)), np.sqrt(query.shape[1])
    grad_weights = grad_output @ value.T
    grad_scores = weights * (grad_weights - (weights * grad_weights).sum(axis=0, keepdims=True))
    return grad_scores @ key / root, grad_scores.T @ query / root, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_query")
def attention_gradients__not_scaled(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output)
    return grad_scores @ key, grad_scores.T @ query, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_query")
def attention_gradients__of_the_log_of_the_weights(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output, jacobian="log")
    root = np.sqrt(query.shape[1])
    return grad_scores @ key / root, grad_scores.T @ query / root, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_query")
def attention_gradients__multiplied_by_the_root(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output)
    root = np.sqrt(query.shape[1])
    return grad_scores @ key * root, grad_scores.T @ query * root, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_gradient_for_the_keys")
def attention_gradients__scale_on_the_query_only(query, key, value, grad_output):
    weights, grad_scores = _backward(query, key, value, grad_output)
    return grad_scores @ key / np.sqrt(query.shape[1]), grad_scores.T @ query, weights.T @ grad_output


@right("3.8")
def chunked_attention__query_by_query(query, chunks):
    state = [(-np.inf, 0.0, 0.0)] * len(query)
    for key, value in chunks:
        for t, (highest, total, mixed) in enumerate(state):
            scores = key @ query[t] / np.sqrt(query.shape[1])
            new = max(highest, scores.max())
            powers = np.exp(scores - new)
            kept = np.exp(highest - new)
            state[t] = new, total * kept + powers.sum(), mixed * kept + powers @ value
    return np.array([mixed / total for _, total, mixed in state])


@right("3.8")
def chunked_attention__normalised_as_it_goes(query, chunks):
    log_total, output = None, None
    for key, value in chunks:
        scores = _scores(query, key)
        new = np.logaddexp.reduce(scores, axis=1, keepdims=True)
        mixed = _softmax(scores) @ value
        if output is None:
            log_total, output = new, mixed
            continue
        joint = np.logaddexp(log_total, new)
        output = output * np.exp(log_total - joint) + mixed * np.exp(new - joint)
        log_total = joint
    return output


def _online(query, chunks, *, sum_kept=True, mix_kept=True, divide_each=False, scalar=False, follow=False):
    highest = np.full((len(query), 1), -np.inf)
    total = mixed = 0.0
    for key, value in chunks:
        scores = _scores(query, key)
        now = scores.max() if scalar else scores.max(axis=1, keepdims=True)
        new = now + 0 * highest if follow and np.isfinite(highest).all() else np.maximum(highest, now)
        powers, kept = np.exp(scores - new), np.exp(highest - new)
        total = total * (kept if sum_kept else 1.0) + powers.sum(axis=1, keepdims=True)
        mixed = mixed * (kept if mix_kept else 1.0) + powers @ value
        if divide_each:
            mixed = mixed / total
        highest = new
    return mixed if divide_each else mixed / total


@wrong("3.8", caught_by="test_one_chunk_is_plain_attention")
def chunked_attention__not_scaled(query, chunks):
    return chunked_attention__query_by_query(query * np.sqrt(query.shape[1]), chunks)


@wrong("3.8", caught_by="test_one_chunk_is_plain_attention")
def chunked_attention__never_divided(query, chunks):
    return sum(np.exp(_scores(query, key)) @ value for key, value in chunks)


@wrong("3.8", caught_by="test_one_chunk_is_plain_attention")
def chunked_attention__softmax_over_the_queries(query, chunks):
    return sum(_softmax(_scores(query, key), axis=0) @ value for key, value in chunks)


@wrong("3.8", caught_by="test_chunks_count_by_their_keys")
def chunked_attention__mean_of_the_chunks(query, chunks):
    return np.mean([_mixed(query, key, value) for key, value in chunks], axis=0)


@wrong("3.8", caught_by="test_chunks_count_by_their_keys")
def chunked_attention__last_chunk_only(query, chunks):
    for key, value in chunks:
        output = _mixed(query, key, value)
    return output


@wrong("3.8", caught_by="test_chunks_count_by_their_keys")
def chunked_attention__divided_after_each_chunk(query, chunks):
    return _online(query, chunks, divide_each=True)


@wrong("3.8", caught_by="test_the_highest_score_may_rise_or_stay")
def chunked_attention__nothing_corrected(query, chunks):
    return _online(query, chunks, sum_kept=False, mix_kept=False)


@wrong("3.8", caught_by="test_the_highest_score_may_rise_or_stay")
def chunked_attention__sum_not_corrected(query, chunks):
    return _online(query, chunks, sum_kept=False)


@wrong("3.8", caught_by="test_the_highest_score_may_rise_or_stay")
def chunked_attention__mixture_not_corrected(query, chunks):
    return _online(query, chunks, mix_kept=False)


@wrong("3.8", caught_by="test_scores_far_apart_do_not_overflow")
def chunked_attention__without_a_maximum(query, chunks):
    total = mixed = 0.0
    for key, value in chunks:
        powers = np.exp(_scores(query, key))
        total, mixed = total + powers.sum(axis=1, keepdims=True), mixed + powers @ value
    return mixed / total


@wrong("3.8", caught_by="test_scores_far_apart_do_not_overflow")
def chunked_attention__maximum_of_the_first_chunk(query, chunks):
    highest, total, mixed = None, 0.0, 0.0
    for key, value in chunks:
        scores = _scores(query, key)
        if highest is None:
            highest = scores.max(axis=1, keepdims=True)
        powers = np.exp(scores - highest)
        total, mixed = total + powers.sum(axis=1, keepdims=True), mixed + powers @ value
    return mixed / total


@wrong("3.8", caught_by="test_scores_far_apart_do_not_overflow")
def chunked_attention__one_maximum_for_all_queries(query, chunks):
    return _online(query, chunks, scalar=True)


@wrong("3.8", caught_by="test_scores_far_apart_do_not_overflow")
def chunked_attention__maximum_of_the_last_chunk(query, chunks):
    return _online(query, chunks, follow=True)


@wrong("3.8", caught_by="test_nothing_grows_with_the_number_of_chunks")
def chunked_attention__chunks_joined(query, chunks):
    keys, values = zip(*chunks, strict=True)
    return _mixed(query, np.concatenate(keys), np.concatenate(values))


@wrong("3.8", caught_by="test_nothing_grows_with_the_number_of_chunks")
def chunked_attention__scores_and_values_kept(query, chunks):
    scores, values = [], []
    for key, value in chunks:
        scores.append(_scores(query, key))
        values.append(value)
    return _softmax(np.concatenate(scores, axis=1)) @ np.concatenate(values)


@wrong("3.8", caught_by="test_nothing_grows_with_the_number_of_chunks")
def chunked_attention__an_output_kept_of_each(query, chunks):
    sums, outputs = [], []
    for key, value in chunks:
        scores = _scores(query, key)
        sums.append(np.logaddexp.reduce(scores, axis=1))
        outputs.append(_softmax(scores) @ value)
    return np.einsum("ct,ctv->tv", _softmax(np.array(sums), axis=0), np.array(outputs))


class _Luong(keras.layers.Layer):
    """A right layer in small parts; each wrong answer replaces one of them."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, query_shape, value_shape):
        self.w = self.add_weight(shape=(value_shape[-1], query_shape[-1]))
        self.c = self.add_weight(shape=(value_shape[-1] + query_shape[-1], self.units))

    def score(self, query, value):
        return ops.einsum("btd,bsd->bts", query, ops.matmul(value, self.w))

    def weigh(self, scores, value_mask):
        if value_mask is not None:
            scores = ops.where(ops.expand_dims(value_mask, 1), scores, -1e9)
        return ops.softmax(scores)

    def join(self, context, query):
        return ops.tanh(ops.matmul(ops.concatenate([context, query], axis=-1), self.c))

    def call(self, query, value, value_mask=None):
        return self.join(ops.matmul(self.weigh(self.score(query, value), value_mask), value), query)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@right("3.9")
class LuongAttention__with_dense_layers(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, query_shape, value_shape):
        self.key_dense = keras.layers.Dense(query_shape[-1], use_bias=False)
        self.key_dense.build(value_shape)
        self.output_dense = keras.layers.Dense(self.units, use_bias=False, activation="tanh")
        self.output_dense.build((*query_shape[:-1], value_shape[-1] + query_shape[-1]))

    def call(self, query, value, value_mask=None):
        scores = ops.matmul(query, ops.transpose(self.key_dense(value), (0, 2, 1)))
        mask = None if value_mask is None else value_mask[:, None, :]
        context = ops.matmul(keras.layers.Softmax()(scores, mask=mask), value)
        return self.output_dense(ops.concatenate([context, query], axis=-1))

    def get_config(self):
        config = super().get_config()
        config["units"] = self.units
        return config


@right("3.9")
class LuongAttention__in_parts(_Luong):
    pass


@wrong("3.9", caught_by="test_the_layer_has_its_two_weights")
class LuongAttention__w_turned_over(_Luong):
    def build(self, query_shape, value_shape):
        self.w = self.add_weight(shape=(query_shape[-1], value_shape[-1]))
        self.c = self.add_weight(shape=(value_shape[-1] + query_shape[-1], self.units))

    def score(self, query, value):
        return ops.einsum("btd,bse,de->bts", query, value, self.w)


@wrong("3.9", caught_by="test_the_layer_has_its_two_weights")
class LuongAttention__with_biases(_Luong):
    def build(self, query_shape, value_shape):
        super().build(query_shape, value_shape)
        self.bias = self.add_weight(shape=(self.units,))

    def join(self, context, query):
        return ops.tanh(ops.matmul(ops.concatenate([context, query], axis=-1), self.c) + self.bias)


@wrong("3.9", caught_by="test_the_layer_has_its_two_weights")
class LuongAttention__weights_that_keras_does_not_see(_Luong):
    def build(self, query_shape, value_shape):
        self.w = keras.random.normal((value_shape[-1], query_shape[-1]))
        self.c = keras.random.normal((value_shape[-1] + query_shape[-1], self.units))


@wrong("3.9", caught_by="test_the_output_equals_the_formula")
class LuongAttention__scaled(_Luong):
    def score(self, query, value):
        return super().score(query, value) / query.shape[-1] ** 0.5


@wrong("3.9", caught_by="test_the_output_equals_the_formula")
class LuongAttention__over_the_queries(_Luong):
    def weigh(self, scores, value_mask):
        return ops.softmax(scores, axis=1)


@wrong("3.9", caught_by="test_the_output_equals_the_formula")
class LuongAttention__query_in_front(_Luong):
    def join(self, context, query):
        return ops.tanh(ops.matmul(ops.concatenate([query, context], axis=-1), self.c))


@wrong("3.9", caught_by="test_the_output_equals_the_formula")
class LuongAttention__without_tanh(_Luong):
    def join(self, context, query):
        return ops.matmul(ops.concatenate([context, query], axis=-1), self.c)


@wrong("3.9", caught_by="test_padding_does_not_matter")
class LuongAttention__mask_forgotten(_Luong):
    def weigh(self, scores, value_mask):
        return ops.softmax(scores)


@wrong("3.9", caught_by="test_padding_does_not_matter")
class LuongAttention__true_is_padding(_Luong):
    def weigh(self, scores, value_mask):
        return super().weigh(scores, None if value_mask is None else ~value_mask)


@wrong("3.9", caught_by="test_padding_does_not_matter")
class LuongAttention__mask_after_the_softmax(_Luong):
    def weigh(self, scores, value_mask):
        weights = ops.softmax(scores)
        return weights if value_mask is None else weights * ops.cast(value_mask[:, None], weights.dtype)


@wrong("3.9", caught_by="test_padding_does_not_matter")
class LuongAttention__padding_scores_zero(_Luong):
    def weigh(self, scores, value_mask):
        return ops.softmax(
            scores if value_mask is None else scores * ops.cast(value_mask[:, None], scores.dtype)
        )


@wrong("3.9", caught_by="test_it_works_in_a_model_for_any_length")
class LuongAttention__in_numpy(_Luong):
    def weigh(self, scores, value_mask):
        return _masked(np.asarray(scores), True if value_mask is None else np.asarray(value_mask)[:, None])


@wrong("3.9", caught_by="test_it_works_in_a_model_for_any_length")
class LuongAttention__a_loop_over_the_queries(_Luong):
    def call(self, query, value, value_mask=None):
        steps = [super(LuongAttention__a_loop_over_the_queries, self).call(query[:, t : t + 1], value, value_mask)
                 for t in range(query.shape[1])]  # fmt: skip
        return ops.concatenate(steps, axis=1)


@wrong("3.9", caught_by="test_its_config_makes_the_same_layer")
class LuongAttention__units_not_in_the_config(_Luong):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


@wrong("3.9", caught_by="test_its_config_makes_the_same_layer")
class LuongAttention__only_units_in_the_config(_Luong):
    def get_config(self):
        return {"units": self.units}
