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


@wrong("3.1", caught_by="test_each_query_is_shifted_by_its_own_maximum")
def masked_softmax__shifted_by_the_largest_of_all_queries(scores, mask):
    powers = np.where(mask, np.exp(scores - np.max(scores, where=mask, initial=-1e9)), 0)
    totals = powers.sum(axis=-1, keepdims=True)
    return powers / np.where(totals > 0, totals, 1)


@wrong("3.1", caught_by="test_each_query_is_shifted_by_its_own_maximum")
def masked_softmax__shifted_by_the_largest_of_the_array(scores, mask):
    seen = np.where(mask, scores, -np.inf)
    powers = np.exp(seen - seen.max())
    totals = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, totals, out=np.zeros_like(powers), where=totals > 0)


@wrong("3.1", caught_by="test_each_query_is_shifted_by_its_own_maximum")
def masked_softmax__shifted_by_the_largest_of_each_matrix(scores, mask):
    seen = np.where(mask, scores, -np.inf)
    powers = np.exp(seen - seen.max(axis=(-2, -1), keepdims=True))
    totals = powers.sum(axis=-1, keepdims=True)
    return np.divide(powers, totals, out=np.zeros_like(powers), where=totals > 0)


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


@wrong("3.1", caught_by="test_forbidden_keys_have_no_say_in_the_shift")
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


@wrong("3.2", caught_by="test_the_output_comes_before_the_weights")
def attention__weights_first(query, key, value, mask=None):
    weights = _masked(_scores(query, key), True if mask is None else mask)
    return weights, weights @ value


@wrong("3.2", caught_by="test_the_output_comes_before_the_weights")
def attention__output_alone(query, key, value, mask=None):
    return _masked(_scores(query, key), True if mask is None else mask) @ value


@wrong("3.2", caught_by="test_output_and_weights_have_a_row_for_each_query")
def attention__all_axes_turned_round(query, key, value, mask=None):
    weights = _masked(query @ key.T / np.sqrt(query.shape[-1]), True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_a_single_key_hands_over_its_value")
def attention__on_a_softmax_that_needs_a_whole_mask(query, key, value, mask=None):
    weights = masked_softmax__mask_as_an_index(_scores(query, key), True if mask is None else mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_the_mask_is_heeded")
def attention__on_a_softmax_whose_true_hides(query, key, value, mask=None):
    weights = _masked(_scores(query, key), True if mask is None else ~mask)
    return weights @ value, weights


@wrong("3.2", caught_by="test_each_querys_weights_sum_to_one")
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


def _heads_of(attention):
    """Multi-head attention, right in itself, on somebody's answer to 3.2."""

    def multi_head_attention(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
        query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        return _join(attention(query, key, value, mask)[0]) @ w_output

    return multi_head_attention


@wrong("3.5", caught_by="test_one_head_is_attention_as_in_exercise_2")
def multi_head_attention__on_attention_not_scaled(*arguments):
    return _heads_of(attention__not_scaled)(*arguments)


@wrong("3.5", caught_by="test_tokens_attend_to_tokens")
def multi_head_attention__on_attention_with_weights_first(*arguments):
    return _heads_of(attention__weights_first)(*arguments)


@wrong("3.5", caught_by="test_tokens_attend_to_tokens")
def multi_head_attention__on_attention_with_all_axes_turned(*arguments):
    return _heads_of(attention__all_axes_turned_round)(*arguments)


@wrong("3.5", caught_by="test_one_head_heeds_a_mask")
def multi_head_attention__on_attention_without_a_mask(*arguments):
    return _heads_of(attention__mask_forgotten)(*arguments)


@wrong("3.5", caught_by="test_one_head_heeds_a_mask")
def multi_head_attention__on_attention_with_a_mask_after_the_softmax(*arguments):
    return _heads_of(attention__mask_after_the_softmax)(*arguments)


@wrong("3.5", caught_by="test_the_heads_are_more_than_one")
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


@wrong("3.5", caught_by="test_tokens_attend_to_tokens")
def multi_head_attention__heads_attend_to_each_other(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads).swapaxes(1, 2) for w in (w_query, w_key, w_value))
    return _join((_softmax(_scores(query, key)) @ value).swapaxes(1, 2)) @ w_output


@wrong("3.5", caught_by="test_each_matrix_has_its_place")
def multi_head_attention__key_and_value_confused(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    return multi_head_attention__head_by_head(x, w_query, w_value, w_key, w_output, num_heads, mask)


@wrong("3.5", caught_by="test_each_matrix_has_its_place")
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


@wrong("3.5", caught_by="test_one_head_heeds_a_mask")
def multi_head_attention__mask_forgotten(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    return multi_head_attention__head_by_head(x, w_query, w_key, w_value, w_output, num_heads)


@wrong("3.5", caught_by="test_the_mask_holds_in_every_head")
def multi_head_attention__always_three_axes(x, w_query, w_key, w_value, w_output, num_heads, mask=None):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    weights = _masked(_scores(query, key), True if mask is None else mask[:, None])
    return _join(weights @ value) @ w_output


@wrong("3.5", caught_by="test_the_mask_holds_in_every_head")
def multi_head_attention__on_a_softmax_that_needs_a_whole_mask(
    x, w_query, w_key, w_value, w_output, num_heads, mask=None
):
    query, key, value = (_in_heads(x, w, num_heads) for w in (w_query, w_key, w_value))
    scores = _scores(query, key)
    if mask is None:
        weights = _softmax(scores)
    else:
        weights = masked_softmax__mask_as_an_index(scores, mask[:, None] if mask.ndim == 3 else mask)
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


def _groups_of(attention, query, key, value):
    """Grouped-query attention, right in itself, on somebody's answer to 3.2."""
    group = query.shape[1] // key.shape[1]
    return attention(query, np.repeat(key, group, axis=1), np.repeat(value, group, axis=1))[0]


@wrong("3.6", caught_by="test_one_head_of_each_is_attention_as_in_exercise_2")
def grouped_query_attention__on_attention_not_scaled(query, key, value):
    return _groups_of(attention__not_scaled, query, key, value)


@wrong("3.6", caught_by="test_one_head_of_each_is_attention_as_in_exercise_2")
def grouped_query_attention__on_attention_with_weights_first(query, key, value):
    return _groups_of(attention__weights_first, query, key, value)


@wrong("3.6", caught_by="test_one_head_of_each_is_attention_as_in_exercise_2")
def grouped_query_attention__on_attention_that_returns_the_output_alone(query, key, value):
    return _groups_of(attention__output_alone, query, key, value)


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


def _gradients_of(attention, query, key, value, grad_output):
    """The gradients, right in themselves, with the weights of somebody's answer to 3.2."""
    weights = attention(query, key, value)[1]
    grad_weights = grad_output @ value.T
    grad_scores = weights * (grad_weights - (weights * grad_weights).sum(axis=-1, keepdims=True))
    grad_scores = grad_scores / np.sqrt(query.shape[-1])
    return grad_scores @ key, grad_scores.T @ query, weights.T @ grad_output


@wrong("3.7", caught_by="test_the_weights_are_those_of_exercise_2")
def attention_gradients__on_attention_not_scaled(query, key, value, grad_output):
    return _gradients_of(attention__not_scaled, query, key, value, grad_output)


@wrong("3.7", caught_by="test_the_weights_are_those_of_exercise_2")
def attention_gradients__on_attention_divided_by_the_width(query, key, value, grad_output):
    return _gradients_of(attention__divided_by_the_width, query, key, value, grad_output)


@wrong("3.7", caught_by="test_gradients_have_the_shapes_of_the_inputs")
def attention_gradients__on_attention_with_weights_first(query, key, value, grad_output):
    return _gradients_of(attention__weights_first, query, key, value, grad_output)


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
def attend_part__key_by_key(query, key, value, mask=True):
    mask = np.broadcast_to(mask, (len(query), len(key)))
    output, log_total = np.zeros((len(query), value.shape[1])), np.full(len(query), -np.inf)
    for t, seen in enumerate(mask):
        if seen.any():
            scores = key[seen] @ query[t] / np.sqrt(query.shape[1])
            highest = scores.max()
            log_total[t] = highest + np.log(np.exp(scores - highest).sum())
            output[t] = np.exp(scores - log_total[t]) @ value[seen]
    return output, log_total


@right("3.8")
def attend_part__by_merging_single_keys(query, key, value, mask=True):
    mask = np.broadcast_to(mask, (len(query), len(key)))
    part = np.zeros((len(query), value.shape[1])), np.full(len(query), -np.inf)
    for s in range(len(key)):
        seen = mask[:, s]
        scores = np.where(seen, query @ key[s] / np.sqrt(query.shape[1]), -np.inf)
        part = merge__with_a_share(part, (np.where(seen[:, None], value[s], 0.0), scores))
    return part


@right("3.8")
def merge__with_a_share(one, other):
    highest = np.maximum(one[1], other[1])
    base = np.where(np.isinf(highest), 0.0, highest)
    totals = [np.exp(part[1] - base) for part in (one, other)]
    together = totals[0] + totals[1]
    share = np.divide(totals[0], together, out=np.zeros_like(together), where=together > 0)[:, None]
    with np.errstate(divide="ignore"):
        return share * one[0] + (1 - share) * other[0], base + np.log(together)


def _seen_scores(query, key, mask):
    return np.where(mask, _scores(query, key), -np.inf)


def _part(query, key, value, mask=True, log_total=None):
    """A right part, with another logarithm where one is given."""
    scores = _seen_scores(query, key, mask)
    right_one = np.logaddexp.reduce(scores, axis=-1)
    return _masked(scores, mask) @ value, right_one if log_total is None else log_total


@wrong("3.8", caught_by="test_a_part_puts_out_its_own_attention")
def attend_part__not_divided(query, key, value, mask=True):
    output, log_total = _part(query, key, value, mask)
    return np.exp(log_total)[:, None] * output, log_total


@wrong("3.8", caught_by="test_a_part_puts_out_its_own_attention")
def attend_part__as_in_the_chapter(query, key, value, mask=True):
    scores = _seen_scores(query, key, mask)
    highest = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - highest)
    return powers @ value, powers.sum(axis=-1)


@wrong("3.8", caught_by="test_a_part_puts_out_its_own_attention")
def attend_part__on_attention_not_scaled(query, key, value, mask=True):
    return attention__not_scaled(query, key, value, mask)[0], _part(query, key, value, mask)[1]


@wrong("3.8", caught_by="test_log_total_is_the_logarithm_of_the_sum_of_exponentials")
def attend_part__total_without_the_logarithm(query, key, value, mask=True):
    output, log_total = _part(query, key, value, mask)
    return output, np.exp(log_total)


@wrong("3.8", caught_by="test_log_total_is_the_logarithm_of_the_sum_of_exponentials")
def attend_part__highest_score_for_the_total(query, key, value, mask=True):
    return _part(query, key, value, mask, _seen_scores(query, key, mask).max(axis=-1))


@wrong("3.8", caught_by="test_log_total_is_the_logarithm_of_the_sum_of_exponentials")
def attend_part__total_relative_to_the_highest(query, key, value, mask=True):
    scores = _seen_scores(query, key, mask)
    return _part(
        query, key, value, mask, np.log(np.exp(scores - scores.max(axis=-1, keepdims=True)).sum(axis=-1))
    )


@wrong("3.8", caught_by="test_log_total_is_the_logarithm_of_the_sum_of_exponentials")
def attend_part__total_of_scores_not_scaled(query, key, value, mask=True):
    scores = _seen_scores(query, key, mask) * np.sqrt(query.shape[-1])
    return _part(query, key, value, mask, np.logaddexp.reduce(scores, axis=-1))


@wrong("3.8", caught_by="test_what_is_not_seen_is_not_in_the_total")
def attend_part__forbidden_keys_in_the_total(query, key, value, mask=True):
    return _part(query, key, value, mask, np.logaddexp.reduce(_scores(query, key), axis=-1))


@wrong("3.8", caught_by="test_what_is_not_seen_is_not_in_the_total")
def attend_part__nan_where_nothing_is_seen(query, key, value, mask=True):
    scores = _seen_scores(query, key, mask)
    highest = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - highest)
    total = powers.sum(axis=-1, keepdims=True)
    return powers / total @ value, (highest + np.log(total))[:, 0]


@wrong("3.8", caught_by="test_what_is_not_seen_is_not_in_the_total")
def attend_part__on_a_softmax_with_equal_shares_for_an_empty_row(query, key, value, mask=True):
    weights = masked_softmax__equal_shares_for_an_empty_row(_scores(query, key), mask)
    return weights @ value, _part(query, key, value, mask)[1]


@wrong("3.8", caught_by="test_log_total_holds_for_scores_of_any_size")
def attend_part__on_a_softmax_without_the_maximum(query, key, value, mask=True):
    with np.errstate(all="ignore"):
        weights = masked_softmax__without_the_maximum(_scores(query, key), mask)
    return weights @ value, _part(query, key, value, mask)[1]


@wrong("3.8", caught_by="test_log_total_holds_for_scores_of_any_size")
def attend_part__sum_of_exponentials(query, key, value, mask=True):
    with np.errstate(divide="ignore", over="ignore"):
        return _part(query, key, value, mask, np.log(np.exp(_seen_scores(query, key, mask)).sum(axis=-1)))


@wrong("3.8", caught_by="test_parts_count_by_their_totals")
def merge__mean_of_the_outputs(one, other):
    return (one[0] + other[0]) / 2, np.logaddexp(one[1], other[1])


@wrong("3.8", caught_by="test_parts_count_by_their_totals")
def merge__outputs_added(one, other):
    return one[0] + other[0], np.logaddexp(one[1], other[1])


@wrong("3.8", caught_by="test_parts_count_by_their_totals")
def merge__by_the_logarithms(one, other):
    first, second = one[1][:, None], other[1][:, None]
    return (first * one[0] + second * other[0]) / (first + second), np.logaddexp(one[1], other[1])


@wrong("3.8", caught_by="test_parts_count_by_their_totals")
def merge__the_larger_one(one, other):
    larger = (one[1] > other[1])[:, None]
    return np.where(larger, one[0], other[0]), np.logaddexp(one[1], other[1])


@wrong("3.8", caught_by="test_what_was_merged_can_be_merged_again")
def merge__logarithms_added(one, other):
    return merge__with_a_share(one, other)[0], one[1] + other[1]


@wrong("3.8", caught_by="test_what_was_merged_can_be_merged_again")
def merge__higher_logarithm_kept(one, other):
    return merge__with_a_share(one, other)[0], np.maximum(one[1], other[1])


@wrong("3.8", caught_by="test_what_was_merged_can_be_merged_again")
def merge__total_without_the_logarithm(one, other):
    return merge__with_a_share(one, other)[0], np.exp(one[1]) + np.exp(other[1])


@wrong("3.8", caught_by="test_totals_of_any_size_can_be_merged")
def merge__with_the_totals_themselves(one, other):
    first, second = np.exp(one[1]), np.exp(other[1])
    total = first + second
    with np.errstate(all="ignore"):
        return (first[:, None] * one[0] + second[:, None] * other[0]) / total[:, None], np.log(total)


@wrong("3.8", caught_by="test_a_part_that_sees_nothing_changes_nothing")
def merge__nan_where_nothing_is_seen(one, other):
    log_total = np.logaddexp(one[1], other[1])
    with np.errstate(invalid="ignore"):
        first, second = np.exp(one[1] - log_total), np.exp(other[1] - log_total)
    return first[:, None] * one[0] + second[:, None] * other[0], log_total


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
