"""The encoder-decoder of 2017: its numbers against torch's, its caches against recomputing, and what it learns."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.attention import PairBatches, score_translations
from lmcourse.attention.pairs import laid_out
from lmcourse.core import RecomputingDecoder, score
from lmcourse.generation import beam_search
from lmcourse.training import fit, next_token_loss
from lmcourse.transformer import EncoderDecoderConfig
from lmcourse.transformer.encoder_decoder import EncoderDecoder
from lmcourse.transformer.generation import CachedDecoder

REFERENCE = Path(__file__).parent / "reference" / "transformer.npz"

# Sums of some tens of float32 products of numbers of order one, in another order.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}

SOURCES = [[3, 4, 5, 0], [6, 0], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]

KINDS = {
    "post-norm": {},
    "pre-norm, rotary, grouped": {
        "norm_first": True,
        "positions": "rotary",
        "num_kv_heads": 2,
        "norm": "rms",
        "activation": "swiglu",
    },
}

# The kinds that generation meets in the same way as those above.
OTHER_KINDS = {
    "learned, shared": {"positions": "learned", "source_vocab": 12, "shared": True},
    "pre-norm, no biases": {
        "use_bias": False,
        "depth": 3,
        "norm_first": True,
        "num_kv_heads": 1,
        "head_dim": 6,
    },
    "ALiBi": {"positions": "alibi"},
}


def config(**changes):
    # A spread of 0.4, so that what a model writes depends on the source.
    return EncoderDecoderConfig(
        **{
            "source_vocab": 11,
            "target_vocab": 12,
            "width": 16,
            "depth": 2,
            "num_heads": 4,
            "max_length": 20,
            "initializer_stddev": 0.4,
            **changes,
        }
    )


@functools.cache
def made(kind):
    keras.utils.set_random_seed(0)
    model = EncoderDecoder(config(**{**KINDS, **OTHER_KINDS}[kind]))
    model.build()
    return model


@pytest.fixture(params=KINDS)
def any_model(request):
    return made(request.param)


@pytest.fixture
def model():
    return made("post-norm")


def inputs_of(sources, targets):
    return laid_out([np.array(ids) for ids in sources], [np.array(ids) for ids in targets], 0, 20)[0]


class TestAgainstTorch:
    """torch.nn.Transformer with the same weights; how they were made: tests/reference/make_transformer.py."""

    @pytest.mark.parametrize("name", ["post", "pre"])
    def test_every_stage_is_what_torch_computes(self, name):
        reference = _stored(f"encoder_decoder/{name}/")
        model = _with_weights_of(reference, norm_first=name == "pre")
        source_mask, target_mask = reference["source_mask"], reference["target_mask"]
        embedded = model.source_embedding(reference["source_ids"])
        np.testing.assert_allclose(
            embedded[source_mask], reference["source"][source_mask], rtol=1e-6, atol=1e-6
        )
        memory = model.encoder(embedded, mask=source_mask)
        np.testing.assert_allclose(memory[source_mask], reference["memory"][source_mask], **FLOAT32)
        logits = model(
            {
                "source": reference["source_ids"],
                "source_mask": source_mask,
                "target": reference["target_ids"],
            }
        )
        np.testing.assert_allclose(logits[target_mask], reference["logits"][target_mask], **FLOAT32)


def _stored(prefix):
    with np.load(REFERENCE) as stored:
        return {key.removeprefix(prefix): stored[key] for key in stored.files if key.startswith(prefix)}


def _with_weights_of(reference, norm_first):
    """Return a model with torch's weights; its Linear is (out, in), and heads are slices of what comes out."""
    model = EncoderDecoder(
        config(
            source_vocab=40,
            target_vocab=40,
            width=16,
            num_heads=4,
            hidden_dim=32,
            norm_first=norm_first,
            norm_epsilon=1e-5,
        )
    )
    model.build()

    def weights(key):
        return reference[f"weights/{key}"]

    def set_norm(norm, key):
        norm.set_weights([weights(f"{key}.weight"), weights(f"{key}.bias")])

    def set_attention(attention, key):
        kernels = np.split(weights(f"{key}.in_proj_weight"), 3)
        biases = np.split(weights(f"{key}.in_proj_bias"), 3)
        denses = (attention.query_dense, attention.key_dense, attention.value_dense)
        for dense, kernel, bias in zip(denses, kernels, biases, strict=True):
            dense.set_weights([kernel.T.reshape(16, 4, 4), bias.reshape(4, 4)])
        attention.output_dense.set_weights(
            [weights(f"{key}.out_proj.weight").T.reshape(4, 4, 16), weights(f"{key}.out_proj.bias")]
        )

    model.source_embedding.set_weights([weights("source_embedding")])
    model.target_embedding.set_weights([weights("target_embedding")])
    for side in ("encoder", "decoder"):
        stack = getattr(model, side)
        for index, block in enumerate(stack.blocks):
            key = f"{side}.layers.{index}"
            set_attention(block.attention, f"{key}.self_attn")
            norms = [block.attention_norm, block.feed_forward_norm]
            if side == "decoder":
                set_attention(block.cross_attention, f"{key}.multihead_attn")
                norms.insert(1, block.cross_attention_norm)
            for number, norm in enumerate(norms, start=1):
                set_norm(norm, f"{key}.norm{number}")
            for dense, linear in (
                (block.feed_forward.widen, "linear1"),
                (block.feed_forward.narrow, "linear2"),
            ):
                dense.set_weights([weights(f"{key}.{linear}.weight").T, weights(f"{key}.{linear}.bias")])
        if norm_first:
            set_norm(stack.final_norm, f"{side}.norm")
    return model


class TestCounts:
    @pytest.mark.parametrize("kind", [*KINDS, *OTHER_KINDS])
    def test_the_formula_counts_the_parameters(self, kind):
        assert made(kind).count_params() == made(kind).config.parameter_count()

    def test_a_shared_table_is_one_variable(self):
        model = made("learned, shared")
        assert model.source_embedding is model.target_embedding
        assert sum(tuple(variable.shape) == (12, 16) for variable in model.variables) == 1


class TestCaches:
    @pytest.mark.parametrize("kind", [*KINDS, "learned, shared", "ALiBi"])
    def test_the_steps_of_generation_are_those_of_training(self, kind):
        """Ragged sources in one batch, and every step's logits, not only the likeliest token."""
        any_model = made(kind)
        targets = [[6, 7, 8, 1, 0], [5, 5, 2, 9, 0], [9, 1, 3, 3, 0]]
        inputs = inputs_of(SOURCES, targets)
        logits = any_model(inputs).numpy()
        memory, states = any_model.encode(inputs["source"], inputs["source_mask"])
        cache = any_model.begin(memory, states, 5)
        for t in range(5):
            one, cache, _ = any_model.step(inputs["target"][:, t], memory, cache)
            np.testing.assert_allclose(one, logits[:, t], **FLOAT32)

    def test_the_compiled_loop_writes_what_recomputing_writes(self, any_model):
        for source, written in zip(SOURCES, any_model.translate(SOURCES, max_length=7), strict=True):
            language_model, expected = any_model.given(source), []
            while len(expected) < 7 and 0 not in expected:
                expected.append(int(language_model.next_log_probs([expected])[0].argmax()))
            assert written == expected

    def test_a_decoder_gives_what_recomputing_gives(self, any_model):
        given, prefixes = any_model.given(SOURCES[2]), [[1, 2, 3], [], [4]]
        decoder, plain = given.decoder(prefixes), RecomputingDecoder(given, prefixes)
        assert isinstance(decoder, CachedDecoder)
        np.testing.assert_allclose(decoder.log_probs(), plain.log_probs(), **FLOAT32)
        for chosen, tokens in (([0, 1, 2], [1, 2, 0]), ([2, 0, 0, 1], [0, 1, 1, 2]), ([3], [5]), ([-1], [6])):
            for each in (decoder, plain):
                each.select(chosen)
            np.testing.assert_allclose(decoder.log_probs(), plain.log_probs(), **FLOAT32)
            for each in (decoder, plain):
                each.append(tokens)
            np.testing.assert_allclose(decoder.log_probs(), plain.log_probs(), **FLOAT32)

    def test_a_decoder_makes_room_when_it_needs_more(self, model):
        given = model.given(SOURCES[0])
        decoder, plain = given.decoder([[1], []]), RecomputingDecoder(given, [[1], []])
        for token in [*range(10), *range(8)]:  # there is room for eight more at first
            decoder.append([token, 9 - token])
            plain.append([token, 9 - token])
            np.testing.assert_allclose(decoder.log_probs(), plain.log_probs(), **FLOAT32)

    def test_a_decoder_reads_each_token_once_and_the_source_once(self, model, monkeypatch):
        given, read = model.given(SOURCES[0]), []
        original, encode = model._graphs.read, model._graphs.encode
        monkeypatch.setattr(
            model._graphs, "read", lambda ids, *more: (read.append(ids.shape), original(ids, *more))[1]
        )
        monkeypatch.setattr(
            model._graphs, "encode", lambda *inputs: (read.append("source"), encode(*inputs))[1]
        )
        beam_search(given, [], beams=3, max_new_tokens=4)
        assert read == ["source", (1, 8), (3, 1), (3, 1), (3, 1)]  # the start is padded to eight

    def test_a_decoder_of_no_rows_has_no_distribution(self, model):
        decoder = model.given([1, 0]).decoder([[1]])
        decoder.select([])
        decoder.append([])
        assert decoder.log_probs().shape == model.given([1, 0]).decoder([]).log_probs().shape == (0, 12)

    def test_a_wide_beam_finds_the_likeliest_translation(self, model):
        """All 12 + 12² translations of at most two tokens, one by one."""
        given = model.given(SOURCES[0])
        first = given.next_log_probs([[]])[0]
        pairs = first[:, None] + given.next_log_probs([[token] for token in range(12)])
        totals = {(): first[0]} | {
            (a,) if b == 0 else (a, b): pairs[a, b] for a in range(1, 12) for b in range(12)
        }
        best, *_ = beam_search(given, [], 2, beams=12 * 12, length_penalty=0.0, stop=[0])
        assert best.ids == max(totals, key=totals.get)
        assert best.log_prob == pytest.approx(max(totals.values()), abs=1e-5)


class TestModel:
    def test_padding_of_the_source_changes_nothing(self, any_model):
        short = inputs_of([SOURCES[0]], [[5, 6, 0]])
        padding = ((0, 0), (0, 5))
        long = {
            **short,
            "source": np.pad(short["source"], padding, constant_values=9),
            "source_mask": np.pad(short["source_mask"], padding),
        }
        np.testing.assert_allclose(any_model(long), any_model(short), **FLOAT32)

    def test_what_comes_later_does_not_change_what_came_before(self, any_model):
        inputs = inputs_of(SOURCES, [[5, 6, 7, 0], [5, 6, 7, 0], [5, 6, 7, 0]])
        other = {**inputs, "target": np.where(np.arange(8) >= 3, 11, inputs["target"])}
        first, second = any_model(inputs).numpy(), any_model(other).numpy()
        np.testing.assert_allclose(second[:, :3], first[:, :3], **FLOAT32)
        assert not np.allclose(second[:, 3:], first[:, 3:], **FLOAT32)

    def test_the_source_decides_what_is_written(self, any_model):
        one, other = (any_model.given(source).next_log_probs([[5]]) for source in ([3, 4, 0], [8, 9, 0]))
        assert np.abs(one - other).max() > 0.01

    def test_given_a_source_it_is_a_language_model(self, model):
        given = model.given(SOURCES[0])
        np.testing.assert_allclose(
            np.exp(given.next_log_probs([[], [5], [5, 6, 7]])).sum(axis=1), 1, atol=1e-5
        )
        scored = given.token_log_probs([[5, 6, 7]])
        for t in range(3):
            asked = given.next_log_probs([[5, 6, 7][:t]])[0, [5, 6, 7][t]]
            assert scored[0, t] == pytest.approx(asked, abs=1e-5)
        _, (log_probs,) = model.predictions([(SOURCES[0], [5, 6, 7])])
        assert score(given, [[5, 6, 7]]).nats == pytest.approx(-log_probs.sum(), abs=1e-5)

    def test_alignments_are_distributions_over_the_source(self, any_model):
        weights = any_model.alignments(SOURCES[0], [6, 7, 0])
        assert weights.shape == (3, 4)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["pre-norm, rotary, grouped", "learned, shared"])
    def test_a_saved_model_computes_the_same(self, kind, tmp_path):
        any_model = made(kind)
        any_model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        assert loaded.get_config() == any_model.get_config()
        inputs = inputs_of(SOURCES, [[5, 6], [7, 0], [8]])
        np.testing.assert_array_equal(loaded(inputs), any_model(inputs))

    def test_a_compiled_call_gives_what_an_eager_one_gives_and_the_shape_is_known_before(self, model):
        inputs = inputs_of(SOURCES, [[5, 6], [7, 0], [8]])
        compiled = tf.function(model, autograph=False)
        np.testing.assert_allclose(compiled(inputs), model(inputs), **FLOAT32)
        symbolic = {name: keras.KerasTensor((None, None), str(array.dtype)) for name, array in inputs.items()}
        assert model.compute_output_spec(symbolic).shape == (None, None, 12)

    def test_every_weight_but_the_keys_bias_gets_a_gradient(self, any_model):
        """A bias of the keys adds the same to all scores of a query, unless rotary positions turn it."""
        inputs, y, _ = laid_out([np.array(ids) for ids in SOURCES], [np.array([5, 0])] * 3, 0)
        with tf.GradientTape() as tape:
            loss = next_token_loss(0.1)(y, any_model(inputs))
        variables = any_model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        assert all(gradient is not None for gradient in gradients)
        still = [
            variable.path
            for variable, gradient in zip(variables, gradients, strict=True)
            if np.abs(tf.convert_to_tensor(gradient)).max() < 1e-7
        ]
        assert all(path.endswith("key/bias") for path in still)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_half_precision_is_near(self, policy):
        exact = EncoderDecoder(config())
        exact.build()
        keras.config.set_dtype_policy(policy)
        try:
            half = EncoderDecoder(config())
            half.build()
        finally:
            keras.config.set_dtype_policy("float32")
        half.set_weights(exact.get_weights())
        inputs = inputs_of(SOURCES, [[5, 6], [7, 0], [8]])
        expected, found = exact(inputs).numpy(), half(inputs)
        assert found.dtype == half.compute_dtype
        # 11 bits or 8 are kept, and lose some in two stacks.
        part = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1}[policy]
        assert np.abs(tf.cast(found, tf.float32) - expected).max() < part * np.abs(expected).max()
        memory, states = half.encode(inputs["source"], inputs["source_mask"])
        one, cache, _ = half.step(inputs["target"][:, 0], memory, half.begin(memory, states, 3))
        assert cache.keys[0].dtype == half.compute_dtype
        assert np.abs(tf.cast(one, tf.float32) - expected[:, 0]).max() < part * np.abs(expected).max()

    def test_dropout_is_for_training_alone(self):
        keras.utils.set_random_seed(0)
        model = EncoderDecoder(config(dropout=0.5))
        inputs = inputs_of(SOURCES, [[5, 6], [7, 0], [8]])
        first, second = model(inputs, training=False), model(inputs, training=False)
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(model(inputs, training=True), first, atol=0.1)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.translate([[]]), r"sources\[0\] must hold at least one token"),
            (lambda m: m.translate([[1], [11]]), r"sources\[1\].*vocab_size - 1 = 10; got 11"),
            (lambda m: m.translate([[1] * 21]), r"sources\[0\] must have at most max_length = 20 tokens; got 21"),
            (lambda m: m.translate([[1]], 0), "max_length must be at least 1; got 0"),
            (lambda m: m.translate([[1]], 21), "max_length must be at most the model's max_length = 20; got 21"),
            (lambda m: m.predictions([([1], [2] * 21)]), r"targets\[0\] must have at most max_length = 20 tokens"),
            (lambda m: m.alignments([1], [2] * 21), "target must have at most max_length = 20 tokens; got 21"),
            (lambda m: m.given([1]).next_log_probs([[12]]), "vocab_size - 1 = 11; got 12"),
            (lambda m: m.given([1]).next_log_probs([[2] * 20]), "prefixes must have, with start_id, at most max_len"),
            (lambda m: m.given([1]).token_log_probs([[2] * 21]), "ids must have at most max_length = 20 tokens"),
            (lambda m: m.given([1]).decoder([[12]]), "vocab_size - 1 = 11; got 12"),
            (lambda m: m.given([1]).decoder([[2]]).append([12]), "vocab_size - 1 = 11; got 12"),
            (lambda m: m.given([1]).decoder([[2]]).append([1, 1]), "one entry for each of the 1 rows; got 2"),
            (lambda m: m.given([1]).decoder([[2] * 19]).append([1]), "at most max_length = 20 tokens; got 21"),
            (lambda m: m({"source": np.zeros((1, 2), int)}), "inputs must be a dict with source, source_mask, target"),
            (lambda m: m(_zeros(source=(3,))), r"source must have shape \(B, S\)"),
            (lambda m: m(_zeros(target=(2, 0))), r"target must have shape \(B, T\), neither of them zero"),
            (lambda m: m(_zeros(source=(2, 21))), "source must have at most max_length = 20 tokens a row; got 21"),
            (lambda m: m(_zeros(target=(3, 4))), "target must have as many rows as source, 2; got 3"),
            (lambda m: m(_zeros(source_mask=(2, 5))), r"source_mask must have the shape of source, \(2, 4\)"),
            (lambda m: m({**_zeros(), "target": np.full((2, 3), 12)}), "target must be between 0 and vocab_size - 1"),
            (lambda m: m({**_zeros(), "source": np.full((2, 4), -1)}), "source must be between 0 and.*got -1"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused_by_name(self, model, call, message):
        with pytest.raises(ValueError, match=message):
            call(model)

    def test_a_config_of_another_kind_is_refused(self):
        with pytest.raises(ValueError, match="EncoderDecoderConfig needs source_vocab, target_vocab"):
            EncoderDecoder({"width": 8, "depth": 1, "num_heads": 2})
        with pytest.raises(ValueError, match="target_vocab must equal source_vocab = 11"):
            EncoderDecoder(config(shared=True).to_dict())


def _zeros(**shapes):
    shapes = {"source": (2, 4), "source_mask": (2, 4), "target": (2, 3)} | shapes
    return {name: np.zeros(shape, bool if "mask" in name else int) for name, shape in shapes.items()}


def reversals(count, seed=0, vocab=11):
    """Pairs of a row of 2 to 5 ids and the same row from its end, each closed by the end id 0."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, vocab, size=rng.integers(2, 6)).tolist() for _ in range(count)]
    return [([*row, 0], [*row[::-1], 0]) for row in rows]


def test_it_learns_to_turn_rows_around_and_looks_at_what_it_writes():
    keras.utils.set_random_seed(0)
    small = config(target_vocab=11, width=32, depth=1, max_length=8, initializer_stddev=0.1)
    model = EncoderDecoder(small)
    model.compile(keras.optimizers.Adam(5e-3), next_token_loss(0.1))
    fit(model, PairBatches(reversals(3000), 32, max_length=8), steps=400, progress=False)
    scores = score_translations(model, reversals(100, seed=1))
    assert scores.exact_match > 0.8
    # A row read in both directions is known position by position: the look falls where the token stands.
    looks = model.alignments([3, 5, 7, 9, 0], [9, 7, 5, 3, 0])
    assert looks.argmax(axis=1).tolist()[:4] == [3, 2, 1, 0]
