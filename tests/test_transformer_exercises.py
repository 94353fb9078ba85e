"""What chapter 4's exercises have the learner write by hand is what lmcourse does: their solutions agree with it."""

import keras
import numpy as np
import pytest
from keras import ops

from lmcourse.training.language_model import SmoothedCrossEntropy
from lmcourse.training.schedules import InverseSquareRootSchedule
from lmcourse.transformer import (
    FeedForward,
    GPTConfig,
    LayerNorm,
    LlamaConfig,
    RMSNorm,
    SelfAttention,
    StackConfig,
    TransformerBlock,
    TransformerDecoder,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)
from lmcourse.transformer.weight_names import halves_apart
from tests import exercise_proofs as proofs

# The solutions compute in float64, lmcourse in float32: sums of at most some dozen terms near one.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def solutions():
    files = next(files for files in proofs.all_files() if files.stem == "ch04_transformer")
    return proofs.executed(files.solution)[0]


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def randomised(layer, *shapes):
    """Build a layer and give it random weights: those that a layer starts with are often ones and zeros."""
    layer.build(*shapes)
    layer.set_weights([random(*weight.shape, seed=i) for i, weight in enumerate(layer.weights)])
    return layer


def by_name(layer):
    return {weight.path.split("/", 1)[1]: np.asarray(weight) for weight in layer.weights}


CAUSAL = np.tri(5, dtype=bool)


def causal(block):
    """Return a block's self-attention as a function of what it reads."""
    return lambda x: block.attention(x, mask=CAUSAL)


def test_sinusoidal_encoding_is_the_packages(solutions):
    for length, width in ((1, 2), (100, 64)):
        own = solutions["sinusoidal_encoding"](length, width)
        np.testing.assert_allclose(own, sinusoidal_encoding(length, width), **FLOAT32)


def test_norms_are_the_packages(solutions):
    x = 3 + 2 * random(2, 5, 8)
    layer = randomised(LayerNorm(1e-3), x.shape)
    own = solutions["layer_norm"](x, *layer.get_weights(), 1e-3)
    np.testing.assert_allclose(own, layer(x), **FLOAT32)
    rms = randomised(RMSNorm(1e-3), x.shape)
    np.testing.assert_allclose(solutions["rms_norm"](x, *rms.get_weights(), 1e-3), rms(x), **FLOAT32)


def test_feed_forward_layers_are_the_packages(solutions):
    x = random(2, 5, 8)
    layer = randomised(FeedForward(16, activation="relu"), x.shape)
    found = by_name(layer)
    parts = [found[f"{name}/{part}"] for name in ("widen", "narrow") for part in ("kernel", "bias")]
    # Sums of sixteen terms of size ten.
    np.testing.assert_allclose(solutions["feed_forward"](x, *parts), layer(x), rtol=1e-5, atol=1e-4)
    gated = randomised(FeedForward(16, activation="swiglu", use_bias=False), x.shape)
    kernels = [by_name(gated)[f"{name}/kernel"] for name in ("gate", "widen", "narrow")]
    np.testing.assert_allclose(solutions["swiglu"](x, *kernels), gated(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("norm_first", [True, False])
def test_blocks_are_wired_as_the_packages(solutions, norm_first):
    config = StackConfig(width=8, depth=1, num_heads=2, norm_first=norm_first)
    x = random(2, 5, 8)
    block = randomised(TransformerBlock(config), x.shape)
    wire = solutions["pre_norm_block" if norm_first else "post_norm_block"]
    wired = wire(x, causal(block), block.feed_forward, block.attention_norm, block.feed_forward_norm)
    np.testing.assert_allclose(wired, block(x, mask=CAUSAL), rtol=1e-5, atol=1e-4)


def test_a_decoder_block_is_wired_as_the_packages(solutions):
    config = StackConfig(width=8, depth=1, num_heads=2, norm_first=False)
    x, source = random(2, 5, 8), random(2, 7, 8)
    block = randomised(TransformerBlock(config, cross_attention=True), x.shape, source.shape)

    def cross(query, memory):
        return block.cross_attention(query, memory)

    norms = block.attention_norm, block.cross_attention_norm, block.feed_forward_norm
    wired = solutions["decoder_block"](x, source, causal(block), cross, block.feed_forward, *norms)
    np.testing.assert_allclose(wired, block(x, memory=source, mask=CAUSAL), rtol=1e-5, atol=1e-4)


def test_positions_of_padded_prompts_are_those_of_the_cache(solutions):
    _, mask, positions = solutions["left_padded"]([[5, 6, 7, 8], [9], [3, 0]], 0)
    decoder = TransformerDecoder(StackConfig(width=8, depth=1, num_heads=2))
    cache = decoder.new_cache((~mask).sum(axis=1), 6)
    np.testing.assert_array_equal(positions, cache.next_positions(mask.shape[1]))


@pytest.mark.parametrize("base", [10_000.0, 500.0])
def test_rotation_is_the_packages(solutions, base):
    x, positions = random(3, 2, 4, 8), np.array([[0, 1, 2, 3], [0, 0, 0, 1], [70, 3, 5, 40]])
    rotation = rotary_angles(positions[:, None], 8, base)
    np.testing.assert_allclose(solutions["rotate"](x, positions, base), rotate(x, rotation), **FLOAT32)


@pytest.mark.parametrize("name", [name for name in GPTConfig.PRESETS if name.startswith("gpt2")])
@pytest.mark.parametrize("tied", [True, False])
def test_gpt2s_are_counted_alike(solutions, name, tied):
    config = GPTConfig.preset(name, tied=tied)
    sizes = config.vocab_size, config.max_length, config.width, config.depth
    assert solutions["gpt_parameters"](*sizes, tied=tied) == config.parameter_count()


@pytest.mark.parametrize("name", [name for name in LlamaConfig.PRESETS if name not in ("tiny", "small")])
def test_llamas_are_counted_alike(solutions, name):
    config = LlamaConfig.preset(name)
    sizes = config.width, config.depth, config.num_heads, config.kv_heads, config.ffn_width
    counted = solutions["llama_parameters"](config.vocab_size, *sizes, tied=config.tied)
    assert counted == config.parameter_count()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_cross_entropy_is_the_packages(solutions, smoothing):
    logits, targets = ops.convert_to_tensor(random(2, 3, 5)), np.array([[0, 4, 1], [2, 2, 3]])
    weights = ops.convert_to_tensor(np.array([[1, 1, 0], [1, 0, 0]], dtype="float32"))
    own = solutions["smoothed_cross_entropy"](logits, ops.convert_to_tensor(targets), weights, smoothing)
    theirs = SmoothedCrossEntropy(smoothing)(targets, logits, sample_weight=weights)
    np.testing.assert_allclose(own, theirs, rtol=1e-6)


def test_the_schedule_is_the_packages(solutions):
    own, theirs = solutions["WarmupSchedule"](512, 400), InverseSquareRootSchedule(512, 400)
    for step in (0, 1, 200, 399, 400, 100_000):
        np.testing.assert_allclose(own(step), theirs(step), rtol=1e-6)


def test_cached_attention_is_the_packages(solutions):
    layer = randomised(SelfAttention(num_heads=2, key_dim=4), (2, 1, 8))
    padding, slots = np.array([0, 2]), np.arange(6)
    for index in (2, 5):
        x, filled = random(2, 1, 8, seed=index), slots[:, None] < index
        # What is left over in the package's caches is zeros.
        keys, values = random(2, 2, 6, 4) * filled, random(2, 2, 6, 4, seed=1) * filled
        token = [layer.project_queries(x), *layer.project_keys_and_values(x, x)]
        own = solutions["cached_attention"](*map(np.asarray, token), keys, values, index, padding)
        mask = ((slots <= index) & (slots >= padding[:, None]))[:, None, None]
        theirs = layer.read(x, keys, values, index, mask)
        np.testing.assert_allclose(layer.join_heads(ops.cast(own[0], "float32")), theirs[0], **FLOAT32)
        np.testing.assert_allclose(own[1], theirs[1], rtol=1e-6)
        np.testing.assert_allclose(own[2], theirs[2], rtol=1e-6)


@pytest.mark.parametrize("heads", [1, 3])
def test_rows_are_reordered_as_the_package_reads_gguf(solutions, heads):
    stored = random(heads * 8, 5)
    own = solutions["unpermute"](stored, heads)
    np.testing.assert_array_equal(own, halves_apart(stored, heads))
    np.testing.assert_array_equal(solutions["permute"](own, heads), stored)


def test_a_chosen_shape_is_a_config_within_the_budget(solutions):
    budget = 1_000_000
    shape = solutions["choose_shape"](budget, 1000, 128)
    config = GPTConfig(**shape, vocab_size=1000, max_length=128)
    assert 0.9 * budget <= config.parameter_count() <= budget
    assert config.head_width in (32, 64, 128)


def test_solutions_are_of_the_learners_making(solutions):
    """The comparison would show nothing if a solution were the package's function."""
    assert solutions["WarmupSchedule"].__mro__[1] is keras.optimizers.schedules.LearningRateSchedule
    assert solutions["rotate"] is not rotate
