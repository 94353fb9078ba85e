"""Scores, masks, multi-head attention, chunked attention and their costs."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lmcourse.attention import (
    AdditiveScore,
    AttentionSize,
    MultiHeadAttention,
    MultiplicativeScore,
    causal_mask,
    chunked_attention,
    masked_softmax,
    padding_mask,
    prefix_mask,
    scaled_dot_product_attention,
    sliding_window_mask,
)

# Sums of some tens of float32 products of numbers of order one, in another order: a few units of the 24th bit.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def by_hand(query, key, value, mask=None):
    """Equation 1 in float64, one query at a time."""
    rows, heads, queries, width = query.shape
    mixed = np.zeros((rows, heads, queries, value.shape[-1]))
    weights = np.zeros((rows, heads, queries, key.shape[2]))
    allowed = np.broadcast_to(True if mask is None else mask, weights.shape)
    for b, h, t in np.ndindex(rows, heads, queries):
        seen = np.flatnonzero(allowed[b, h, t])
        if len(seen):
            exponentials = np.exp(key[b, h, seen].astype("float64") @ query[b, h, t] / math.sqrt(width))
            weights[b, h, t, seen] = exponentials / exponentials.sum()
    for b, h in np.ndindex(rows, heads):
        mixed[b, h] = weights[b, h] @ value[b, h]
    return mixed, weights


class TestScores:
    def test_one_query_and_one_key_return_the_value_itself(self):
        # softmax of a single score is 1, whatever the score: 32 / sqrt(3) here
        query, key, value = (
            np.array(row, "float32").reshape(1, 1, 1, 3) for row in ([1, 2, 3], [4, 5, 6], [7, 8, 9])
        )
        mixed, weights = scaled_dot_product_attention(query, key, value)
        assert weights.numpy().item() == 1.0
        np.testing.assert_array_equal(mixed, value)

    @pytest.mark.parametrize("masked", [False, True])
    def test_attention_is_equation_1(self, masked):
        query, key, value = normal(2, 3, 4, 5), normal(2, 3, 6, 5, seed=1), normal(2, 3, 6, 7, seed=2)
        mask = np.random.default_rng(3).random((2, 1, 4, 6)) < 0.5 if masked else None
        for got, expected in zip(
            scaled_dot_product_attention(query, key, value, mask),
            by_hand(query, key, value, mask),
            strict=True,
        ):
            np.testing.assert_allclose(got, expected, **FLOAT32)

    def test_scores_of_unit_variance_have_unit_variance_at_any_width(self):
        from lmcourse.attention import dot_product_scores

        for width in (4, 64, 1024):
            scores = dot_product_scores(normal(1, 1, 200, width), normal(1, 1, 200, width, seed=1)).numpy()
            # the variance of 40,000 dependent scores: its standard error is below 0.1
            assert abs(scores.var() - 1) < 0.3

    def test_the_additive_score_is_bahdanaus_formula(self):
        layer = AdditiveScore(units=3)
        query, key = normal(2, 4, 5), normal(2, 6, 7, seed=1)
        got = layer(query, key).numpy()
        w, u, v = (
            weight.numpy() for weight in (layer.query_dense.kernel, layer.key_dense.kernel, layer.direction)
        )
        for b, t, s in np.ndindex(2, 4, 6):
            assert got[b, t, s] == pytest.approx(v @ np.tanh(query[b, t] @ w + key[b, s] @ u), abs=1e-5)

    def test_the_multiplicative_score_with_the_identity_is_the_dot_product(self):
        layer = MultiplicativeScore()
        query, key = normal(2, 4, 5), normal(2, 6, 5, seed=1)
        layer.build(query.shape, key.shape)
        layer.set_weights([np.eye(5)])
        np.testing.assert_allclose(layer(query, key), query @ key.transpose(0, 2, 1), **FLOAT32)

    def test_wrong_shapes_are_refused_by_name(self):
        q, k = normal(1, 1, 2, 3), normal(1, 1, 2, 4)
        with pytest.raises(ValueError, match="query and key must have the same width; got 3 and 4"):
            scaled_dot_product_attention(q, k, k)
        with pytest.raises(ValueError, match=r"value must have shape \(B, H, T, K\); got \(2, 3\)"):
            scaled_dot_product_attention(q, q, q[0, 0])
        with pytest.raises(ValueError, match="a value for each key; got 2 and 1"):
            scaled_dot_product_attention(q, q, q[:, :, :1])
        with pytest.raises(ValueError, match="units must be at least 1; got 0"):
            AdditiveScore(0)


class TestSafeSoftmax:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_a_row_with_nothing_to_attend_to_is_zero_with_zero_gradients(self, dtype):
        query, key, value = (ops.cast(normal(1, 1, 3, 4, seed=seed), dtype) for seed in range(3))
        mask = np.array([[True, False, False], [False] * 3, [True, True, True]])
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            mixed, weights = scaled_dot_product_attention(query, key, value, mask)
            loss = ops.sum(ops.cast(mixed, "float32") ** 2)
        assert weights.dtype == mixed.dtype == dtype
        assert not ops.cast(mixed[0, 0, 1], "float32").numpy().any()
        assert not ops.cast(weights[0, 0, 1], "float32").numpy().any()
        gradients = [ops.cast(g, "float32").numpy() for g in tape.gradient(loss, [query, key, value])]
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        assert not gradients[0][0, 0, 1].any()

    def test_large_float16_scores_do_not_overflow(self):
        # The row's exponentials, e^300 and above, overflow float16 and float32 unless the largest is subtracted.
        scores = ops.cast([[300.0, 301.0, 60_000.0]], "float16")
        np.testing.assert_allclose(
            masked_softmax(scores, [[True, True, False]])[0, :2], [0.26894, 0.73106], atol=1e-5
        )

    def test_masked_keys_have_exactly_no_weight_even_if_all_scores_are_low(self):
        weights = masked_softmax([[-5_000.0, -5_000.0, 0.0]], [[True, True, False]]).numpy()
        assert weights.tolist() == [[0.5, 0.5, 0.0]]

    def test_a_thousand_equal_bfloat16_scores_share_the_weight(self):
        # Added up in bfloat16, 1,000 ones would stop at 256: the next number it has is 258.
        weights = masked_softmax(ops.zeros((1, 1000), "bfloat16")).numpy()
        np.testing.assert_allclose(weights, 1 / 1000, rtol=1e-6)


class TestMasks:
    def test_masks_of_length_four(self):
        # drawn by hand
        assert causal_mask(4).numpy().astype(int).tolist() == [
            [1, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [1, 1, 1, 1],
        ]
        assert sliding_window_mask(4, 1).numpy().tolist() == np.eye(4, dtype=bool).tolist()
        assert padding_mask([1, 4], 4).numpy().astype(int).tolist() == [[[1, 0, 0, 0]], [[1, 1, 1, 1]]]
        assert prefix_mask(3, np.array([0, 2])).numpy().astype(int).tolist() == [
            [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
            [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
        ]

    def test_a_window_as_long_as_the_row_is_the_causal_mask(self):
        np.testing.assert_array_equal(sliding_window_mask(6, 6), causal_mask(6))
        np.testing.assert_array_equal(prefix_mask(6, 0), causal_mask(6))
        assert prefix_mask(6, 6).numpy().all()

    def test_an_offset_gives_the_last_rows(self):
        for mask in (causal_mask, lambda n, **offset: sliding_window_mask(n, 3, **offset)):
            np.testing.assert_array_equal(mask(2, offset=5), mask(7)[5:])

    def test_masks_combine_to_the_batch(self):
        both = causal_mask(3) & padding_mask([1, 3])
        assert both.shape == (2, 3, 3)
        assert both.numpy()[0].astype(int).tolist() == [[1, 0, 0]] * 3

    def test_masks_are_made_in_a_graph_of_any_length(self):
        made = tf.function(lambda ids: causal_mask(tf.shape(ids)[1]), [tf.TensorSpec((None, None), tf.int32)])
        np.testing.assert_array_equal(made(np.zeros((1, 5), "int32")), causal_mask(5))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: causal_mask(0), "length must be at least 1; got 0"),
            (lambda: causal_mask(2, -1), "offset must not be negative; got -1"),
            (lambda: sliding_window_mask(3, 0), "window must be at least 1; got 0"),
            (lambda: prefix_mask(3, 4), "prefix must be between 0 and length = 3; got 4"),
            (lambda: padding_mask(3), r"lengths must have shape \(B,\)"),
            (lambda: padding_mask([1], 0), "max_length must be at least 1; got 0"),
        ],
    )
    def test_wrong_sizes_are_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestMultiHeadAttention:
    """Against Keras 3.15's layers with the same weights."""

    @pytest.fixture(params=[True, False], ids=["bias", "no bias"])
    def use_bias(self, request):
        return request.param

    @staticmethod
    def randomly(layer, *shapes):
        """Build a layer with weights of order 1/sqrt(width), biases included."""
        layer.build(*shapes)
        rng = np.random.default_rng(0)
        layer.set_weights([rng.normal(size=weight.shape) / math.sqrt(12) for weight in layer.get_weights()])
        return layer

    def compare(self, ours, theirs, inputs, **arguments):
        shapes = [array.shape for array in inputs]
        self.randomly(theirs, *(shapes if len(shapes) > 1 else shapes * 2))
        ours.build(*shapes)
        ours.set_weights(theirs.get_weights())
        assert ours.count_params() == theirs.count_params()
        got = ours(*inputs, return_weights=True, **arguments)
        expected = theirs(
            *(inputs if len(inputs) > 1 else inputs * 2), return_attention_scores=True, **arguments
        )
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, **FLOAT32)
        np.testing.assert_array_equal(ours(*inputs, **arguments), got[0])

    @pytest.mark.parametrize("causal", [False, True])
    def test_self_attention_equals_keras(self, use_bias, causal):
        self.compare(
            MultiHeadAttention(3, 4, use_bias=use_bias),
            keras.layers.MultiHeadAttention(3, 4, use_bias=use_bias),
            [normal(2, 5, 12)],
            use_causal_mask=causal,
        )

    def test_cross_attention_with_masks_equals_keras(self, use_bias):
        mask = np.random.default_rng(3).random((2, 5, 7)) < 0.5
        mask[:, :, 0] = True  # where nothing is allowed the two differ on purpose
        self.compare(
            MultiHeadAttention(3, 4, value_dim=6, use_bias=use_bias, output_dim=8),
            keras.layers.MultiHeadAttention(3, 4, value_dim=6, use_bias=use_bias, output_shape=8),
            [normal(2, 5, 12), normal(2, 7, 10, seed=1), normal(2, 7, 9, seed=2)],
            attention_mask=mask,
            value_mask=np.arange(7) < np.array([[4], [7]]),
        )

    @pytest.mark.parametrize("kv_heads", [1, 2, 6])
    def test_grouped_and_multi_query_attention_equal_keras(self, use_bias, kv_heads):
        mask = np.random.default_rng(3).random((2, 5, 7)) < 0.8
        mask[:, :, 0] = True
        self.compare(
            MultiHeadAttention(6, 4, num_kv_heads=kv_heads, use_bias=use_bias),
            keras.layers.GroupQueryAttention(4, 6, kv_heads, use_bias=use_bias),
            [normal(2, 5, 12), normal(2, 7, 12, seed=1)],
            attention_mask=mask,
        )

    def test_padding_that_an_embedding_marks_is_not_attended_to(self):
        embed = keras.layers.Embedding(9, 8, mask_zero=True)
        layer = MultiHeadAttention(2, 4)
        whole, short = embed(np.array([[3, 4, 5, 0, 0]])), embed(np.array([[3, 4, 5]]))
        mixed, weights = layer(whole, return_weights=True)
        assert not weights.numpy()[..., 3:].any()
        np.testing.assert_allclose(mixed[:, :3], layer(short), **FLOAT32)
        query = normal(1, 2, 8)
        np.testing.assert_allclose(layer(query, whole), layer(query, short), **FLOAT32)

    def test_a_query_that_may_attend_to_nothing_gets_the_bias_alone(self):
        layer = self.randomly(MultiHeadAttention(2, 4), (1, 3, 8))
        mixed, weights = layer(normal(1, 3, 8), attention_mask=np.zeros((3, 3), bool), return_weights=True)
        assert not weights.numpy().any()
        np.testing.assert_array_equal(mixed[0], np.tile(layer.output_dense.bias, (3, 1)))

    def test_a_mask_per_head_reaches_its_head(self):
        mask = np.ones((1, 2, 3, 3), bool)
        mask[:, 1] = np.eye(3, dtype=bool)
        _, weights = MultiHeadAttention(2, 4)(normal(1, 3, 8), attention_mask=mask, return_weights=True)
        np.testing.assert_array_equal(weights[0, 1], np.eye(3))
        assert (weights.numpy()[0, 0] > 0).all()

    def test_the_parts_make_up_the_whole(self):
        layer = self.randomly(MultiHeadAttention(4, 3, num_kv_heads=2), (2, 5, 8))
        x = normal(2, 5, 8)
        keys, values = layer.project_keys_and_values(x, x)
        assert keys.shape == values.shape == (2, 2, 5, 3)
        # the last query alone, over keys and values kept from before: what a decoder with a cache does
        mixed, _ = layer.attend(layer.project_queries(x[:, 4:]), keys, values, causal_mask(1, offset=4))
        np.testing.assert_allclose(layer.join_heads(mixed), layer(x, use_causal_mask=True)[:, 4:], **FLOAT32)

    def test_dropout_drops_only_in_training_and_not_in_the_weights_shown(self):
        layer = MultiHeadAttention(2, 4, dropout=0.5)
        x = normal(2, 6, 8)
        calm, weights = layer(x, return_weights=True)
        wild, same = layer(x, return_weights=True, training=True)
        np.testing.assert_array_equal(weights, same)
        assert not np.allclose(calm, wild)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: MultiHeadAttention(0, 4), "num_heads must be at least 1; got 0"),
            (lambda: MultiHeadAttention(2, 0), "key_dim must be at least 1; got 0"),
            (
                lambda: MultiHeadAttention(6, 4, num_kv_heads=4),
                "num_kv_heads must divide num_heads = 6.*got 4",
            ),
            (
                lambda: MultiHeadAttention(2, 4, dropout=1.0),
                "dropout must be at least 0 and below 1; got 1.0",
            ),
            (lambda: MultiHeadAttention(2, 4)(normal(5, 8)), r"query must have shape \(B, T, D\).*\(5, 8\)"),
            (lambda: MultiHeadAttention(2, 4)(normal(1, 0, 8)), "query must have at least one position"),
            (
                lambda: MultiHeadAttention(2, 4)(normal(1, 3, 8), normal(1, 4, 8), normal(1, 5, 8)),
                "a value for each key; got 5 and 4",
            ),
            (
                lambda: MultiHeadAttention(2, 4)(normal(1, 3, 8), attention_mask=np.ones(3, bool)),
                "attention_mask must have shape",
            ),
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestCounting:
    def test_the_papers_layer_and_the_one_with_heads_as_wide_as_the_model(self):
        # 4 * (512 * 512 + 512), by hand
        assert AttentionSize(512, num_heads=8, key_dim=64).parameters == 1_050_624
        # 3 * (512 * 4096 + 4096) + 4096 * 512 + 512
        assert AttentionSize(512, num_heads=8, key_dim=512).parameters == 8_401_408

    @pytest.mark.parametrize("use_bias", [True, False])
    @pytest.mark.parametrize("kv_heads", [1, 2, 4])
    def test_parameters_are_those_of_the_layer(self, use_bias, kv_heads):
        layer = MultiHeadAttention(4, 6, value_dim=5, num_kv_heads=kv_heads, use_bias=use_bias, output_dim=7)
        layer.build((None, None, 12), (None, None, 9))
        size = AttentionSize(
            12, 4, 6, value_dim=5, num_kv_heads=kv_heads, source_width=9, output_dim=7, use_bias=use_bias
        )
        assert size.parameters == layer.count_params()
        parts = (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense)
        assert list(size.parameters_by_part.values()) == [part.count_params() for part in parts]

    def test_flops_of_a_small_layer_by_hand(self):
        # T = 2, S = 3, D = 4, H = 2, K = 2, one head of keys: each product counts 2 for each multiplication.
        by_hand = {
            "query": 2 * (2 * 4) * 4,
            "key": 2 * (3 * 4) * 2,
            "value": 2 * (3 * 4) * 2,
            "scores": 2 * (2 * 2 * 3) * 2,
            "mix": 2 * (2 * 2 * 3) * 2,
            "output": 2 * (2 * 4) * 4,
        }
        size = AttentionSize(4, num_heads=2, key_dim=2, num_kv_heads=1)
        assert size.flops_by_part(2, 3) == by_hand
        assert size.flops(2, 3) == sum(by_hand.values())

    def test_doubling_the_length_doubles_projections_and_quadruples_scores(self):
        size = AttentionSize(64, 4, 16)
        short, long = size.flops_by_part(10, 10), size.flops_by_part(20, 20)
        assert {part: long[part] // short[part] for part in short} == {
            "query": 2, "key": 2, "value": 2, "scores": 4, "mix": 4, "output": 2
        }  # fmt: skip

    def test_a_cache_shrinks_with_the_heads_of_keys_and_values(self):
        # SmolLM2-135M: width 576, 9 and 3 heads of 64; 2 * 3 * 64 numbers a token and layer
        assert AttentionSize(576, 9, 64, num_kv_heads=3).cached_numbers(keys=10) == 10 * 384
        assert AttentionSize(576, 9, 64).cached_numbers(keys=10) == 10 * 1152

    def test_sizes_below_one_are_refused(self):
        with pytest.raises(ValueError, match="key_dim must be at least 1; got 0"):
            AttentionSize(4, 2, 0)


class TestChunked:
    @pytest.mark.parametrize("compiled", [False, True])
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("chunk", [4, 100])
    def test_it_equals_plain_attention_with_gradients(self, chunk, causal, compiled):
        inputs = [tf.constant(normal(2, 3, 11, 8)), tf.constant(normal(2, 3, 13, 8, seed=1))]
        inputs.append(tf.constant(normal(2, 3, 13, 5, seed=2)))
        padding = (np.arange(13) < np.array([9, 0])[:, None])[:, None, None]  # the second row: nothing at all
        mask = padding & causal_mask(13)[:11] if causal else padding

        def gradients(attend):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                mixed = attend(*inputs)
                loss = tf.reduce_sum(mixed**2)
            return [mixed, *tape.gradient(loss, inputs)]

        def chunked(q, k, v):
            return chunked_attention(q, k, v, padding, causal=causal, chunk=chunk)

        got = gradients(tf.function(chunked) if compiled else chunked)
        expected = gradients(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0])
        for a, b in zip(got, expected, strict=True):
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, **FLOAT32)

    def test_a_full_mask_is_cut_with_the_keys(self):
        query, key = normal(2, 2, 5, 4), normal(2, 2, 9, 4, seed=1)
        mask = np.random.default_rng(2).random((2, 1, 5, 9)) < 0.5
        plain, _ = scaled_dot_product_attention(query, key, key, mask)
        np.testing.assert_allclose(chunked_attention(query, key, key, mask, chunk=4), plain, **FLOAT32)

    def test_scores_that_grow_from_chunk_to_chunk_do_not_overflow(self):
        # e^400 is beyond float32; the second chunk's larger score rescales what the first one gave
        query, key = np.ones((1, 1, 1, 1), "float32"), np.array([[[[0.0], [400.0]]]], "float32")
        mixed = chunked_attention(query, key, [[[[1.0], [2.0]]]], chunk=1)
        assert mixed.numpy().item() == 2.0

    def test_the_dtype_is_the_values(self):
        half = ops.cast(normal(1, 1, 4, 2), "float16")
        assert chunked_attention(half, half, half, chunk=2).dtype == tf.float16

    def test_no_tensor_of_its_graph_has_queries_times_keys_numbers(self):
        length, chunk = 1024, 64
        spec = tf.TensorSpec((1, 1, length, 4), tf.float32)

        def loss_and_gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(chunked_attention(x, x, x, causal=True, chunk=chunk))
            return tape.gradient(loss, x)

        graph = tf.function(loss_and_gradient, input_signature=[spec]).get_concrete_function().graph
        graphs = [
            graph,
            *(function.graph for function in graph._functions.values() if hasattr(function, "graph")),
        ]
        sizes = [
            math.prod(output.shape)
            for each in graphs
            for operation in each.get_operations()
            for output in operation.outputs
            if output.shape.is_fully_defined()
        ]
        assert sizes
        assert max(sizes) <= length * chunk

    def test_wrong_arguments_are_refused(self):
        x = normal(1, 1, 4, 2)
        with pytest.raises(ValueError, match="chunk must be at least 1; got 0"):
            chunked_attention(x, x, x, chunk=0)
        with pytest.raises(ValueError, match="query and key must have the same width; got 1 and 2"):
            chunked_attention(x[..., :1], x, x)
        with pytest.raises(ValueError, match=r"mask must be broadcastable to \(B, H, T, S\) with S = 4"):
            chunked_attention(x, x, x, np.ones((4, 3), bool))
