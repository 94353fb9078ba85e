"""The Transformer's parts against other libraries, values by hand, and properties that hold for any weights.

`reference/transformer.npz` holds tiny models of other libraries with what they compute; `reference/make_transformer.py`
says how it was made, and with which versions.
"""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.attention import MultiHeadAttention, causal_mask
from lmcourse.transformer import (
    GPT,
    FeedForward,
    GPTConfig,
    LayerNorm,
    Llama,
    LlamaConfig,
    RMSNorm,
    SelfAttention,
    StackConfig,
    TransformerBlock,
    TransformerDecoder,
    TransformerEncoder,
    alibi_bias,
    alibi_slopes,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)

REFERENCE = np.load(Path(__file__).parent / "reference" / "transformer.npz")

# float32 carries 24 bits; two layers with weights of size 0.3 lose some of them, in another order of summation.
MODEL = {"rtol": 1e-5, "atol": 2e-5}
# A handful of operations on numbers of order one.
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomised(layer, seed=0):
    """Set every weight at random, norms' scales and biases too, so that whatever is left out shows."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.5, size=weight.shape) for weight in layer.get_weights()])
    return layer


def gpt2():
    """Return our model with the weights of `transformers`' GPT2LMHeadModel."""

    def weight(name):
        return REFERENCE[f"gpt2/weights/transformer.{name}"]

    model = GPT(GPTConfig(width=16, depth=2, num_heads=4, vocab_size=40, max_length=24))
    model.build()
    model.embedding.embeddings.assign(weight("wte.weight"))
    model.embedding.position_embeddings.assign(weight("wpe.weight"))
    set_norm(model.stack.final_norm, weight("ln_f.weight"), weight("ln_f.bias"))
    for i, block in enumerate(model.stack.blocks):
        attention, network = block.attention, block.feed_forward
        set_norm(block.attention_norm, weight(f"h.{i}.ln_1.weight"), weight(f"h.{i}.ln_1.bias"))
        set_norm(block.feed_forward_norm, weight(f"h.{i}.ln_2.weight"), weight(f"h.{i}.ln_2.bias"))
        kernels = np.split(weight(f"h.{i}.attn.c_attn.weight"), 3, axis=1)
        biases = np.split(weight(f"h.{i}.attn.c_attn.bias"), 3)
        projections = (attention.query_dense, attention.key_dense, attention.value_dense)
        for dense, kernel, bias in zip(projections, kernels, biases, strict=True):
            dense.kernel.assign(kernel.reshape(16, 4, 4))
            dense.bias.assign(bias.reshape(4, 4))
        attention.output_dense.kernel.assign(weight(f"h.{i}.attn.c_proj.weight").reshape(4, 4, 16))
        attention.output_dense.bias.assign(weight(f"h.{i}.attn.c_proj.bias"))
        for dense, name in ((network.widen, "c_fc"), (network.narrow, "c_proj")):
            dense.kernel.assign(weight(f"h.{i}.mlp.{name}.weight"))
            dense.bias.assign(weight(f"h.{i}.mlp.{name}.bias"))
    return model


def set_norm(norm, scale, offset):
    norm.scale.assign(scale)
    norm.offset.assign(offset)


def llama(pairing="half", base=10_000.0):
    """Return our model with the weights of `transformers`' LlamaForCausalLM, whose pairs are half a head apart."""
    config = LlamaConfig(
        width=32,
        depth=2,
        num_heads=4,
        num_kv_heads=2,
        hidden_dim=48,
        norm_epsilon=1e-3,
        vocab_size=40,
        max_length=24,
        rotary_pairing=pairing,
        rotary_base=base,
    )
    model = Llama(config)
    model.build()
    # Numbers i and i + 4 of a head become numbers 2i and 2i + 1.
    order = np.arange(8) if pairing == "half" else np.arange(8).reshape(2, 4).T.ravel()

    def weight(name):
        return REFERENCE[f"llama/weights/{name}.weight"].T

    model.embedding.embeddings.assign(weight("model.embed_tokens").T)
    model.stack.final_norm.scale.assign(weight("model.norm"))
    for i, block in enumerate(model.stack.blocks):
        layer, attention, network = f"model.layers.{i}", block.attention, block.feed_forward
        block.attention_norm.scale.assign(weight(f"{layer}.input_layernorm"))
        block.feed_forward_norm.scale.assign(weight(f"{layer}.post_attention_layernorm"))
        attention.query_dense.kernel.assign(weight(f"{layer}.self_attn.q_proj").reshape(32, 4, 8)[..., order])
        attention.key_dense.kernel.assign(weight(f"{layer}.self_attn.k_proj").reshape(32, 2, 8)[..., order])
        attention.value_dense.kernel.assign(weight(f"{layer}.self_attn.v_proj").reshape(32, 2, 8))
        attention.output_dense.kernel.assign(weight(f"{layer}.self_attn.o_proj").reshape(4, 8, 32))
        network.gate.kernel.assign(weight(f"{layer}.mlp.gate_proj"))
        network.widen.kernel.assign(weight(f"{layer}.mlp.up_proj"))
        network.narrow.kernel.assign(weight(f"{layer}.mlp.down_proj"))
    return model


class TestModels:
    @pytest.mark.parametrize(
        ("name", "make"),
        [
            ("gpt2", gpt2),
            ("llama", llama),
            ("llama", lambda: llama("interleaved")),
            ("llama_base_100000", lambda: llama(base=100_000.0)),
        ],
        ids=["gpt2", "llama", "llama with neighbours paired", "llama with base 100000"],
    )
    def test_it_computes_what_transformers_computes(self, name, make):
        model, ids = make(), REFERENCE[f"{name}/ids"]
        np.testing.assert_allclose(model(ids), REFERENCE[f"{name}/logits"], **MODEL)
        trace = model.trace(ids)
        for i in (0, 1):
            np.testing.assert_allclose(trace.hidden[i], REFERENCE[f"{name}/hidden/{i}"], **MODEL)
        finished = model.stack.finish(trace.hidden[2])
        np.testing.assert_allclose(finished, REFERENCE[f"{name}/hidden/2"], **MODEL)
        np.testing.assert_allclose(trace.logits[2], REFERENCE[f"{name}/logits"], **MODEL)

    def test_the_wrong_pairing_the_wrong_base_and_the_wrong_epsilon_show(self):
        right, ids = llama(), REFERENCE["llama/ids"]
        for changes in ({"rotary_pairing": "interleaved"}, {"rotary_base": 1e5}, {"norm_epsilon": 1e-5}):
            wrong = Llama(right.config.changed(**changes))
            wrong.build()
            wrong.set_weights(right.get_weights())
            assert np.abs(wrong(ids) - REFERENCE["llama/logits"]).max() > 0.001, changes

    def test_the_logits_are_those_of_the_trace_and_its_weights_are_distributions(self):
        model, ids = gpt2(), REFERENCE["gpt2/ids"]
        trace = model.trace(ids)
        assert trace.hidden.shape == (3, 3, 11, 16)
        assert trace.weights.shape == (2, 3, 4, 11, 11)
        np.testing.assert_allclose(trace.logits[-1], model(ids), **MODEL)
        np.testing.assert_allclose(trace.weights.sum(axis=-1), 1, rtol=1e-6)
        assert not trace.weights[..., *np.triu_indices(11, 1)].any()
        together = model.attention_weights(ids)  # layer after layer
        np.testing.assert_allclose(together[:, 4:], trace.weights[1], **EXACT)


class TestPositions:
    def test_sinusoids_are_those_of_keras_hub(self):
        np.testing.assert_allclose(sinusoidal_encoding(12, 16), REFERENCE["sinusoidal"], **EXACT)

    def test_dot_products_of_sinusoids_depend_on_the_distance_alone(self):
        encoding = sinusoidal_encoding(200, 32).astype("float64")
        products = encoding @ encoding.T
        for distance in (0, 1, 7, 100):
            # sin a sin b + cos a cos b = cos(a - b); each number is rounded to float32 once
            expected = np.cos(distance * 10_000.0 ** (-np.arange(16) / 16)).sum()
            np.testing.assert_allclose(np.diagonal(products, distance), expected, atol=2e-6)

    @pytest.mark.parametrize("key", ["half/10000", "half/100000", "interleaved/10000"])
    def test_rotations_are_those_of_keras_hub_and_gptj(self, key):
        pairing, base = key.split("/")
        heads = REFERENCE["rotary/input"].transpose(0, 2, 1, 3)  # (B, H, T, K)
        turned = rotate(heads, rotary_angles(np.arange(5, 11), 8, float(base)), pairing)
        expected = REFERENCE[f"rotary/{key}"].transpose(0, 2, 1, 3)
        np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=2e-6)

    @pytest.mark.parametrize("pairing", ["half", "interleaved"])
    def test_scores_of_rotated_heads_depend_on_the_distance_alone(self, pairing):
        query, key = floats(1, 1, 1, 8, seed=1), floats(1, 1, 1, 8, seed=2)

        def score(t, s):
            turned = (rotate(x, rotary_angles([p], 8), pairing) for x, p in ((query, t), (key, s)))
            return float(np.sum(np.prod([np.asarray(x) for x in turned], axis=0)))

        for t, s in ((5, 0), (3, 3), (17, 16)):
            for shift in (1, 10, 1000):
                # float32 rounds an angle of 1000 radians by up to 3e-5
                assert score(t + shift, s + shift) == pytest.approx(score(t, s), abs=2e-4)
        assert abs(score(5, 0) - score(0, 0)) > 0.1
        assert abs(score(5, 0) - score(0, 5)) > 0.1  # before is not behind

    def test_rotation_keeps_lengths_and_leaves_position_zero_alone(self):
        heads = floats(2, 3, 4, 8)
        turned = np.asarray(rotate(heads, rotary_angles(np.arange(4), 8)))
        np.testing.assert_allclose(turned[:, :, 0], heads[:, :, 0], **EXACT)
        np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(heads, axis=-1), rtol=1e-6)

    def test_a_pairing_that_there_is_not_and_an_odd_width_are_refused(self):
        with pytest.raises(ValueError, match=r"pairing must be one of .*; got 'halves'"):
            rotate(floats(1, 1, 2, 4), rotary_angles([0, 1], 4), "halves")
        with pytest.raises(ValueError, match=r"rotary_pairing must be one of .*; got 'halves'"):
            SelfAttention(2, 4, rotary_pairing="halves")
        with pytest.raises(ValueError, match=r"width must be even.*; got 3"):
            rotary_angles([0], 3)

    @pytest.mark.parametrize("heads", [4, 8, 12])
    def test_slopes_are_those_of_bloom(self, heads):
        np.testing.assert_allclose(alibi_slopes(heads), REFERENCE[f"alibi/{heads}"], rtol=1e-6)

    def test_slopes_by_hand(self):
        # Press et al. 2022, section 3: 8 heads have 1/2 … 1/256; 16 heads halve each ratio.
        assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
        np.testing.assert_allclose(alibi_slopes(16), 2.0 ** -(0.5 * np.arange(1, 17)), rtol=1e-6)

    def test_the_bias_falls_with_the_distance(self):
        bias = np.asarray(alibi_bias(2, np.arange(3), np.arange(3)))
        assert bias[0].tolist() == [[0, -1 / 16, -2 / 16], [-1 / 16, 0, -1 / 16], [-2 / 16, -1 / 16, 0]]
        assert (bias[1] * 16 == bias[0]).all()

    @pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
    def test_without_absolute_positions_where_a_text_begins_does_not_matter(self, positions):
        config = StackConfig(width=8, depth=2, num_heads=2, positions=positions)
        decoder = TransformerDecoder(config)
        x = floats(1, 5, 8)
        alone = decoder(x)
        before = np.concatenate([floats(1, 3, 8, seed=3), x], axis=1)
        hidden = np.arange(8)[None] >= 3
        np.testing.assert_allclose(decoder(before, mask=hidden)[:, 3:], alone, rtol=1e-5, atol=1e-5)

    def test_without_positions_the_order_of_what_came_before_is_unknown(self):
        for positions, known in (("none", False), ("sinusoidal", True), ("rotary", True), ("alibi", True)):
            config = GPTConfig(
                width=8, depth=1, num_heads=2, positions=positions, vocab_size=9, initializer_stddev=0.5
            )
            model = GPT(config)
            last = model(np.array([[1, 2, 3, 4], [2, 1, 3, 4]]))[:, -1]
            assert (np.abs(last[0] - last[1]).max() > 1e-3) == known, positions


class TestNorms:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (LayerNorm, keras.layers.LayerNormalization),
            (RMSNorm, keras.layers.RMSNormalization),
        ],
    )
    def test_it_is_keras_layer(self, ours, theirs):
        x = floats(2, 3, 16) * 3 + 1
        mine, other = ours(1e-3), theirs(epsilon=1e-3)
        mine.build(x.shape)
        other.build(x.shape)
        randomised(mine)
        other.set_weights(mine.get_weights())
        np.testing.assert_allclose(mine(x), other(x), **EXACT)

    def test_numbers_far_from_zero_lose_no_more_digits_than_they_have(self):
        # The mean of squares minus the square of the mean would be 0 or negative here.
        x = 1e4 + floats(1, 1, 64)
        exact = x.astype("float64") - x.astype("float64").mean()
        exact /= np.sqrt((exact**2).mean() + 1e-5)
        np.testing.assert_allclose(LayerNorm()(x), exact, atol=1e-3)

    @pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
    def test_squares_beyond_float16_do_not_overflow(self, norm):
        x = (1000 * floats(1, 1, 64)).astype("float16")  # squares of up to 10⁷, float16 ends at 65,504
        half = np.asarray(norm(dtype="mixed_float16")(x), "float32")
        np.testing.assert_allclose(half, norm()(x.astype("float32")), atol=2e-3)

    @pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
    def test_one_number_is_not_spread_over_the_width_it_was_built_for(self, norm):
        layer = norm()
        layer(floats(1, 2, 8))
        with pytest.raises(ValueError, match=r"expected axis -1 of input shape to have value 8.*\(1, 2, 1\)"):
            layer(floats(1, 2, 1))

    def test_epsilon_must_be_positive(self):
        with pytest.raises(ValueError, match="epsilon must be above 0; got 0"):
            RMSNorm(0)


class TestFeedForward:
    def identity(self, activation):
        """Return a network whose matrices change nothing, so that it is its activation."""
        layer = FeedForward(25, activation)
        layer.build((None, None, 25))
        for dense in (layer.widen, layer.gate, layer.narrow):
            if dense is not None:
                dense.kernel.assign(np.eye(25))
        return layer

    @pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
    def test_activations_are_those_of_torch(self, activation):
        x = REFERENCE["activation/input"]
        expected = REFERENCE[f"activation/{activation}"]
        np.testing.assert_allclose(self.identity(activation)(x[None, None])[0, 0], expected, **EXACT)

    def test_gelu_by_hand_is_x_times_the_normal_distribution_function(self):
        x = np.linspace(-4, 4, 25, dtype="float32")
        expected = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
        np.testing.assert_allclose(self.identity("gelu")(x[None, None])[0, 0], expected, **EXACT)

    def test_gelu_tanh_by_hand(self):
        x = np.linspace(-4, 4, 25, dtype="float32")
        # Hendrycks and Gimpel 2016, section 2
        inner = math.sqrt(2 / math.pi) * (x.astype("float64") + 0.044715 * x.astype("float64") ** 3)
        expected = x / 2 * (1 + np.tanh(inner))
        np.testing.assert_allclose(self.identity("gelu_tanh")(x[None, None])[0, 0], expected, **EXACT)
        assert np.abs(self.identity("gelu")(x[None, None])[0, 0] - expected).max() > 1e-4  # not the exact one

    def test_swiglu_opens_the_gate_by_silu(self):
        x, layer = REFERENCE["activation/input"], self.identity("swiglu")
        layer.widen.kernel.assign(2 * np.eye(25))
        expected = REFERENCE["activation/silu"] * 2 * x
        np.testing.assert_allclose(layer(x[None, None])[0, 0], expected, rtol=1e-6, atol=1e-5)

    def test_it_looks_at_each_position_alone(self):
        x, layer = floats(1, 4, 6), FeedForward(8)
        whole = layer(x)
        np.testing.assert_allclose(layer(x[:, ::-1])[:, ::-1], whole, **EXACT)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match="hidden_dim must be at least 1; got 0"):
            FeedForward(0)
        with pytest.raises(ValueError, match=r"activation must be one of .*; got 'tanh'"):
            FeedForward(3, "tanh")


class TestAttention:
    def test_grouped_queries_are_as_if_keys_and_values_were_repeated(self):
        x = floats(2, 5, 12)
        grouped = MultiHeadAttention(6, 4, num_kv_heads=2)
        grouped(x)
        randomised(grouped)
        plain = MultiHeadAttention(6, 4)
        plain(x)
        plain.set_weights(grouped.get_weights()[:2] + [np.zeros(w.shape) for w in plain.get_weights()[2:]])
        for name in ("key_dense", "value_dense"):
            few, many = getattr(grouped, name), getattr(plain, name)
            many.kernel.assign(np.repeat(few.kernel, 3, axis=1))  # heads 0, 1, 2 share the first
            many.bias.assign(np.repeat(few.bias, 3, axis=0))
        plain.output_dense.kernel.assign(grouped.output_dense.kernel)
        plain.output_dense.bias.assign(grouped.output_dense.bias)
        np.testing.assert_allclose(
            grouped(x, use_causal_mask=True), plain(x, use_causal_mask=True), rtol=1e-5, atol=1e-5
        )

    def test_self_attention_is_multi_head_attention_where_it_is_given_no_positions(self):
        x = floats(2, 5, 12)
        ours, plain = SelfAttention(6, 4, num_kv_heads=2), MultiHeadAttention(6, 4, num_kv_heads=2)
        ours(x)
        plain(x)
        plain.set_weights(ours.get_weights())
        mixed, weights = ours(x, mask=causal_mask(5), return_weights=True)
        expected, expected_weights = plain(x, use_causal_mask=True, return_weights=True)
        np.testing.assert_allclose(mixed, expected, **EXACT)
        np.testing.assert_allclose(weights, expected_weights, **EXACT)

    def test_a_bias_is_added_to_the_scores(self):
        x, layer = floats(1, 4, 6), SelfAttention(2, 3)
        layer(x)
        layer.query_dense.kernel.assign(np.zeros((6, 2, 3)))  # all scores are zero
        bias = np.asarray(alibi_bias(2, np.arange(4), np.arange(4)))
        _, weights = layer(x, bias=bias, return_weights=True)
        expected = np.exp(bias) / np.exp(bias).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(weights[0], expected, **EXACT)

    def test_distances_of_hundreds_are_told_apart_in_bfloat16(self):
        config = StackConfig(width=4, depth=1, num_heads=2, positions="alibi")
        decoder = TransformerDecoder(config, dtype="mixed_bfloat16")
        x = floats(1, 600, 4)
        decoder(x)
        decoder.blocks[0].attention.query_dense.kernel.assign(np.zeros((4, 2, 2)))  # all scores are zero
        _, (weights,) = decoder.trace(tf.cast(x, "bfloat16"))
        scores = -np.arange(599, -1, -1) * alibi_slopes(2)[:, None].astype("float64")
        expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        # Rounded once at the end, to eight bits; scores in bfloat16 would be off by up to 1/16 here.
        np.testing.assert_allclose(np.asarray(weights[0, :, -1], "float32"), expected, rtol=2**-8)


class TestBlocks:
    @pytest.mark.parametrize("norm_first", [True, False])
    def test_residual_paths_and_norms_by_hand(self, norm_first):
        config = StackConfig(width=8, depth=1, num_heads=2, norm_first=norm_first, norm_epsilon=1e-3)
        block = TransformerBlock(config, cross_attention=True)
        x, memory = floats(2, 5, 8), floats(2, 3, 8, seed=1)
        block(x, memory)
        randomised(block)
        found = block(x, memory, mask=causal_mask(5))
        steps = (
            (block.attention_norm, lambda y: block.attention(y, mask=causal_mask(5))),
            (block.cross_attention_norm, lambda y: block.cross_attention(y, memory)),
            (block.feed_forward_norm, block.feed_forward),
        )
        for norm, sublayer in steps:
            x = x + sublayer(norm(x)) if norm_first else norm(x + sublayer(x))
        np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)

    def test_what_stands_in_the_memorys_padding_does_not_matter(self):
        decoder = TransformerDecoder(StackConfig(width=8, depth=2, num_heads=2), cross_attention=True)
        x, memory, mask = (
            floats(2, 4, 8),
            floats(2, 3, 8, seed=1),
            np.array([[True] * 3, [True, False, False]]),
        )
        seen = decoder(x, memory, memory_mask=mask)
        memory[~mask] = 9
        np.testing.assert_allclose(decoder(x, memory, memory_mask=mask), seen, **EXACT)
        assert np.abs(decoder(x, memory) - seen).max() > 1e-3
        projected = decoder.project_memory(tf.constant(memory))
        np.testing.assert_allclose(decoder(x, projected, memory_mask=mask), seen, **EXACT)

    def test_a_block_with_cross_attention_needs_a_memory(self):
        with pytest.raises(
            ValueError, match="memory must be given to a block with cross-attention; got None"
        ):
            TransformerDecoder(StackConfig(width=8, depth=1, num_heads=2), True)(floats(1, 2, 8))

    def test_the_mask_that_an_embedding_makes_reaches_every_block(self):
        ids = np.array([[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]])
        inputs = keras.Input((None,), dtype="int32")
        x = keras.layers.Embedding(11, 8, mask_zero=True)(inputs)
        config = StackConfig(width=8, depth=2, num_heads=2)
        for layer in (TransformerEncoder(config), TransformerBlock(config)):
            model = keras.Model(inputs, layer(x))
            np.testing.assert_allclose(model(ids)[:1, :3], model(ids[:1, :3]), rtol=1e-5, atol=1e-5)
            assert model(ids)._keras_mask.numpy().tolist() == (ids != 0).tolist()

    @pytest.mark.parametrize("norm_first", [True, False])
    def test_a_deep_stack_starts_neither_mute_nor_loud(self, norm_first):
        config = StackConfig(width=32, depth=8, num_heads=4, norm_first=norm_first)
        out = np.asarray(TransformerEncoder(config)(floats(2, 16, 32)))
        assert out.std() == pytest.approx(1, abs=0.05)  # the last norm's doing

    def test_dropout_drops_in_training_only(self):
        config = StackConfig(width=8, depth=2, num_heads=2, dropout=0.5)
        encoder, x = TransformerEncoder(config), floats(1, 4, 8)
        np.testing.assert_array_equal(encoder(x), encoder(x, training=False))
        assert np.abs(encoder(x, training=True) - encoder(x)).max() > 0.01


class TestCache:
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi", "none"])
    def test_rows_padded_on_the_left_give_what_each_gives_alone(self, positions):
        config = GPTConfig(
            width=8, depth=2, num_heads=4, num_kv_heads=2, positions=positions, vocab_size=11, max_length=9
        )
        model = GPT(config)
        model.build()
        randomised(model)
        rows = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6], [5, 5, 3, 2, 1, 10]]
        alone = [model(np.array([row]))[0] for row in rows]
        # The first five columns are read at once, then two, then one.
        ids, starts = np.array([[0] * (8 - len(row)) + row for row in rows]), [8 - len(row) for row in rows]
        cache = model.new_cache(starts, 10)
        for begin, end in ((0, 5), (5, 7), (7, 8)):
            logits, cache = model.read(tf.constant(ids[:, begin:end], tf.int32), cache)
            for start, got, whole in zip(starts, logits, alone, strict=True):
                np.testing.assert_allclose(got, whole[end - start - 1], rtol=1e-4, atol=1e-4)
        assert int(cache.length) == 8
