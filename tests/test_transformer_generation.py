"""Generation with a cache gives the tokens of generation without one, for any positions, norms and prompts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.core import LanguageModel, RecomputingDecoder
from lmcourse.generation import (
    apply_temperature,
    beam_search,
    keep_top_k,
    keep_top_p,
    normalize,
    sample_from,
    stream,
)
from lmcourse.generation import generate as generate_step_by_step
from lmcourse.transformer import GPT, GPTConfig, Llama, LlamaConfig
from lmcourse.transformer.generation import (
    GenerationGraphs,
    TextGenerator,
    choose_tokens,
    left_padded,
    restricted_log_probs,
)

VOCABULARY = 13
PROMPTS = [[1, 2, 3], [], [4, 5, 6, 7, 8, 9, 10, 11, 12, 4, 5], [2]]

# Weights five to twenty times larger than usual: the distributions are far from uniform, so a token that is read at
# the wrong place changes what follows.
WIDE = {"initializer_stddev": 0.4}
SMALL = {"vocab_size": VOCABULARY, "width": 16, "depth": 2, "num_heads": 4, "max_length": 48, "start_id": 7}

CONFIGS = {
    "no positions": GPTConfig(**SMALL, **WIDE, positions="none"),
    "sinusoidal, post-norm": GPTConfig(**SMALL, **WIDE, positions="sinusoidal", norm_first=False),
    "learned, own output": GPTConfig(**SMALL, **WIDE, positions="learned", tied=False),
    "interleaved, grouped": GPTConfig(
        **SMALL, **WIDE, positions="rotary", rotary_pairing="interleaved", num_kv_heads=1
    ),
    "alibi": GPTConfig(**SMALL, **WIDE, positions="alibi"),
    "Llama, grouped": LlamaConfig(**SMALL, **WIDE, num_kv_heads=2, hidden_dim=40),
}


class Uncached(LanguageModel):
    """The same model without its cache: it reads the whole row again for each token."""

    def __init__(self, model):
        self.model, self.vocab_size = model, model.vocab_size

    def token_log_probs(self, ids, mask=None):
        return self.model.token_log_probs(ids, mask)

    def next_log_probs(self, prefixes):
        return self.model.next_log_probs(prefixes)


def make(config, seed=1):
    keras.utils.set_random_seed(seed)
    model = (Llama if isinstance(config, LlamaConfig) else GPT)(config)
    model.build()
    return model


@pytest.fixture(scope="module")
def models():
    """Models by name, each made once: tracing takes longer than generating."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make(CONFIGS[name])
        return made[name]

    return get


@pytest.fixture
def model(models):
    return models("Llama, grouped")


@pytest.mark.parametrize("name", CONFIGS)
class TestCachedEqualsUncached:
    def test_greedy_tokens_of_ragged_prompts_are_the_same(self, models, name):
        expected = generate_step_by_step(Uncached(models(name)), PROMPTS, 20, greedy=True)
        assert models(name).generate(PROMPTS, 20, temperature=0) == expected
        assert len({tuple(row) for row in expected}) > 1, "the prompts must matter"
        assert any(len(set(row)) > 2 for row in expected), "the tokens must vary"

    def test_drawn_tokens_of_ragged_prompts_are_the_same(self, models, name):
        settings = {"temperature": 1.3, "top_k": 6, "top_p": 0.9}
        found = models(name).generate(PROMPTS, 20, seed=5, **settings)
        assert found == drawn_without_cache(models(name), PROMPTS, 20, seed=5, **settings)

    def test_the_decoder_gives_the_same_distributions_and_rows(self, models, name):
        cached, plain = models(name).decoder(PROMPTS), RecomputingDecoder(models(name), PROMPTS)
        steps = [([0, 1, 2, 3], [1, 2, 3, 4]), ([3, 1, 1, 0, 2], [5, 6, 7, 8, 9]), ([4, 0], [10, 11])]
        for rows, tokens in [*steps, *[([0, 1], [t % VOCABULARY, 3]) for t in range(20)]]:
            for decoder in (cached, plain):
                decoder.select(rows)
                decoder.append(tokens)
        # float32 through two blocks, keys in another order than in one pass: a few units of the last of 24 bits,
        # times log-probabilities of up to about 10
        np.testing.assert_allclose(cached.log_probs(), plain.log_probs(), rtol=1e-5, atol=5e-5)


def drawn_without_cache(model, prompts, max_new_tokens, *, seed, temperature, top_k, top_p):
    """Draw as `generate` does, in NumPy, from logits that are computed anew for each token."""
    rows = [list(prompt) for prompt in prompts]
    for step in range(max_new_tokens):
        log_probs = model.next_log_probs(rows)
        for cut, value in ((apply_temperature, temperature), (keep_top_k, top_k), (keep_top_p, top_p)):
            log_probs = cut(log_probs, value)
        uniforms = tf.random.stateless_uniform((len(rows),), [seed, step], dtype=tf.float64).numpy()
        for row, token in zip(rows, sample_from(log_probs, uniforms).tolist(), strict=True):
            row.append(token)
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


class TestGenerate:
    def test_the_seed_decides(self, model):
        first, again, other = (model.generate(PROMPTS, 12, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_a_row_does_not_depend_on_the_rows_beside_it(self, model):
        together = model.generate(PROMPTS, 12, seed=3)
        assert model.generate(PROMPTS[:2], 12, seed=3) == together[:2]
        assert model.generate([*PROMPTS[:2], [9] * 20], 12, seed=3)[:2] == together[:2]

    def test_rows_with_equal_prompts_are_drawn_apart(self, model):
        assert len({tuple(row) for row in model.generate([[1, 2]] * 4, 12, temperature=1.5)}) == 4

    def test_a_row_ends_with_its_first_stop_token_and_the_others_go_on(self, model):
        free = model.generate(PROMPTS, 20, temperature=0)
        stop = [free[0][4], free[2][6]]
        stopped = model.generate(PROMPTS, 20, temperature=0, stop_ids=stop)
        ends = [next((i for i, token in enumerate(row) if token in stop), len(row) - 1) for row in free]
        assert stopped == [row[: end + 1] for row, end in zip(free, ends, strict=True)]
        assert len({len(row) for row in stopped}) > 1, "the rows must end at different times"

    def test_it_ends_when_all_rows_have_stopped(self, model):
        generator, (ids, starts) = GenerationGraphs.of(model).generate, left_padded([[1], [2, 3]])
        everything = np.arange(VOCABULARY, dtype=np.int32)
        tokens, lengths = generator(ids, starts, 30, 0.0, 0, 1.0, everything, 0)
        assert tokens.shape == (2, 1)
        assert lengths.numpy().tolist() == [1, 1]

    @pytest.mark.parametrize("name", ["learned, own output", "Llama, grouped"])
    def test_without_start_the_prompt_is_all_that_is_read(self, models, name):
        model, prompts = models(name), [[7, 2, 3], [1]]
        found = model.generate(prompts, 6, temperature=0, with_start=False)
        rows = [list(prompt) for prompt in prompts]
        for _ in range(6):
            for row in rows:
                row.append(int(np.argmax(model(np.array([row]))[0, -1])))
        assert found == [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]
        assert found[0] == model.generate([[2, 3]], 6, temperature=0)[0], "7 is start_id"

    @pytest.mark.parametrize("name", ["learned, own output", "Llama, grouped"])
    def test_a_decoder_without_start_reads_the_prefix_alone(self, models, name):
        model, prompts = models(name), [[7, 2, 3], [1]]
        decoder = model.decoder(prompts, with_start=False)
        expected = [keras.ops.log_softmax(model(np.array([prompt]))[0, -1]) for prompt in prompts]
        np.testing.assert_allclose(decoder.log_probs(), expected, rtol=1e-5, atol=5e-5)
        streamed = stream(model, [1], 6, greedy=True, decoder=model.decoder([[1]], with_start=False))
        assert list(streamed) == model.generate([[1]], 6, temperature=0, with_start=False)[0]
        with pytest.raises(
            ValueError, match=r"prefixes\[1\] must hold at least one id where with_start is False"
        ):
            model.decoder([[1], []], with_start=False)

    def test_no_prompt_and_no_token_give_none(self, model):
        assert model.generate([], 5) == []
        assert model.generate([[1], []], 0) == [[], []]

    def test_the_context_may_be_filled_to_the_last_place(self, models):
        # start_id, 40 of the prompt and 7 of 8 new tokens are read: 48, the model's max_length
        model, prompt = models("learned, own output"), [3] * 40
        found = model.generate([prompt], 8, temperature=0)
        assert found == generate_step_by_step(Uncached(model), [prompt], 8, greedy=True)
        with pytest.raises(ValueError, match=r"max_length = 48.*41 tokens.*max_new_tokens = 9.*At most 8"):
            model.generate([prompt], 9)

    def test_beyond_the_context_alibi_could_but_the_limit_holds(self, models):
        with pytest.raises(ValueError, match=r"max_length = 48.*50 tokens.*At most 0"):
            models("alibi").generate([[1] * 49], 1)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"temperature": -0.5}, r"temperature must be .*got -0\.5"),
            ({"temperature": float("nan")}, "temperature must be .*got nan"),
            ({"top_k": 0}, "top_k must be an integer from 1 to 13; got 0"),
            ({"top_k": 14}, "top_k must be an integer from 1 to 13; got 14"),
            ({"top_p": 0.0}, r"top_p must be above 0 and at most 1; got 0\.0"),
            ({"seed": -1}, "seed must be an integer from 0 .*got -1"),
            ({"stop_ids": [13]}, "stop must be an integer from 0 to 12; got 13"),
            ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0; got -1"),
            ({"prompts": [[13]]}, "vocab_size - 1 = 12; got 13"),
            ({"prompts": [1, 2]}, "prompts must be a list of sequences"),
            ({"prompts": [[1], []], "with_start": False}, r"prompts\[1\] must hold at least one id"),
        ],
    )
    def test_impossible_settings_are_refused_by_name(self, model, settings, message):
        with pytest.raises(ValueError, match=message):
            model.generate(**{"prompts": [[1]], "max_new_tokens": 2, **settings})

    def test_half_precision_generates_what_it_recomputes(self):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = make(CONFIGS["Llama, grouped"])
        finally:
            keras.config.set_dtype_policy(before)
        expected = generate_step_by_step(Uncached(model), [[1, 2], [3]], 8, greedy=True)
        found = model.generate([[1, 2], [3]], 8, temperature=0)
        # bfloat16 has 8 bits: two logits may be equal up to rounding, so most tokens agree, not all
        assert np.mean(np.array(found) == np.array(expected)) > 0.5
        assert model.decoder([[1]])._cache.keys[0].dtype == tf.bfloat16


class TestSettingsInTheGraph:
    """They mean what `lmcourse.generation`'s transforms mean, ties and all."""

    # Small integers over 2 give many exact ties.
    logits = np.random.default_rng(0).integers(-6, 6, (5, 40)).astype(np.float32) / 2

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    @pytest.mark.parametrize(
        ("top_k", "top_p"), [(0, 1.0), (1, 1.0), (7, 1.0), (40, 1.0), (0, 0.3), (0, 0.9), (9, 0.5)]
    )
    def test_distributions_are_those_of_the_transforms(self, temperature, top_k, top_p):
        expected = apply_temperature(self.logits, temperature)
        if top_k:
            expected = keep_top_k(expected, top_k)
        expected = keep_top_p(expected, top_p)
        found = restricted_log_probs(self.logits, temperature, top_k, top_p).numpy()
        np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
        # both in float64: 53 bits
        np.testing.assert_allclose(np.exp(found), np.exp(expected), rtol=1e-12, atol=1e-15)

    def test_a_nucleus_that_is_reached_exactly_is_not_overrun(self):
        # 0.3 + 0.3 + 0.3 is 0.9 on paper and 0.8999999999999999 in float64
        found = restricted_log_probs(np.log([[0.3, 0.3, 0.3, 0.1]]), 1.0, 0, 0.9).numpy()
        np.testing.assert_array_equal(np.isneginf(found), [[False, False, False, True]])

    def test_draws_cut_the_cumulative_distribution(self):
        uniforms = np.random.default_rng(1).random(5)
        found = choose_tokens(self.logits, uniforms, tf.constant(0.7), tf.constant(5), tf.constant(1.0))
        expected = sample_from(
            keep_top_k(apply_temperature(self.logits, np.float32(0.7).item()), 5), uniforms
        )
        assert found.numpy().tolist() == expected.tolist()

    @pytest.mark.parametrize(("top_p", "kept"), [(0.2, 1), (0.4, 2), (0.6, 3), (0.8, 4)])
    def test_a_nucleus_that_is_reached_exactly_takes_no_token_more(self, top_p, kept):
        # five equally probable tokens: each has a fifth
        found = restricted_log_probs(np.zeros((1, 5)), 1.0, 0, top_p).numpy()
        assert np.isfinite(found).sum() == kept == np.isfinite(keep_top_p(np.zeros((1, 5)), top_p)).sum()

    def test_temperature_zero_takes_the_first_of_the_most_probable(self):
        found = choose_tokens(self.logits, np.zeros(5), tf.constant(0.0), tf.constant(3), tf.constant(0.5))
        assert found.numpy().tolist() == self.logits.argmax(axis=1).tolist()

    def test_drawn_tokens_have_the_probabilities_of_the_model(self, model):
        rows = 4000
        tokens = np.array(model.generate([[1, 2]] * rows, 1, seed=11))[:, 0]
        probabilities = np.exp(normalize(model.next_log_probs([[1, 2]])))[0]
        shares = np.bincount(tokens, minlength=VOCABULARY) / rows
        # five standard deviations of a share, sqrt(p (1 - p) / n): chance exceeds them once in a million
        spread = np.sqrt(probabilities * (1 - probabilities) / rows)
        assert (np.abs(shares - probabilities) <= 5 * spread + 1e-9).all()


class TestDecoder:
    def test_beam_search_finds_the_same(self, models):
        for name in ("alibi", "Llama, grouped"):
            cached, plain = (
                beam_search(each, [1, 2], 8, beams=4, stop=[5])
                for each in (models(name), Uncached(models(name)))
            )
            assert [found.ids for found in cached] == [found.ids for found in plain]
            np.testing.assert_allclose(
                [found.log_prob for found in cached], [found.log_prob for found in plain], atol=1e-4
            )

    def test_step_by_step_generation_uses_it_and_gives_the_same(self, model):
        assert generate_step_by_step(model, PROMPTS, 8, greedy=True) == model.generate(
            PROMPTS, 8, temperature=0
        )

    def test_no_rows_are_possible(self, model):
        decoder = model.decoder([])
        assert decoder.log_probs().shape == (0, VOCABULARY)
        decoder.append([])
        decoder = model.decoder([[1], [2]])
        decoder.select([])
        decoder.append([])
        assert decoder.log_probs().shape == (0, VOCABULARY)

    def test_negative_rows_count_from_the_end_and_missing_ones_are_refused(self, model):
        decoder = model.decoder([[1], [2, 3]])
        last = decoder.log_probs()[1]
        with pytest.raises(IndexError):
            decoder.select([2])
        decoder.select([-1])
        np.testing.assert_array_equal(decoder.log_probs()[0], last)

    def test_a_wrong_number_of_tokens_or_a_wrong_one_is_refused(self, model):
        decoder = model.decoder([[1], [2]])
        with pytest.raises(ValueError, match="one entry for each of the 2 rows; got 1"):
            decoder.append([1])
        with pytest.raises(ValueError, match="vocab_size - 1 = 12; got 13"):
            decoder.append([1, 13])
        with pytest.raises(ValueError, match=r"prefixes\[0\].*got 13"):
            model.decoder([[13]])

    def test_it_can_be_filled_to_the_limit_and_no_further(self, models):
        model = models("learned, own output")
        decoder = model.decoder([[1] * 40, [2]])
        for _ in range(7):  # start_id and 47 others: 48
            decoder.append([3, 3])
        expected = model.next_log_probs([[1] * 40 + [3] * 7])
        np.testing.assert_allclose(decoder.log_probs()[:1], expected, rtol=1e-5, atol=5e-5)
        with pytest.raises(ValueError, match="max_length = 48 tokens; got 49"):
            decoder.append([3, 3])
        # 40 tokens and the start are padded to 48: seven more may follow.
        assert decoder._cache.keys[0].shape[2] == 48 + 7
        decoder.select([1])
        decoder.append([3])  # the shorter row still has room
        with pytest.raises(ValueError, match="max_length = 48 tokens; got 50"):
            model.decoder([[1] * 49])


class TestGraphs:
    def test_twenty_lengths_of_prompts_and_any_number_of_rows_are_one_trace(self):
        model = make(CONFIGS["learned, own output"])
        for length in range(20):
            model.generate([[1] * length] * (1 + length % 3), 2 + length, temperature=length % 2, top_k=3)
            decoder = model.decoder([[1] * length])
            decoder.append([1])
        graphs = GenerationGraphs.of(model)
        traces = {
            name: getattr(graphs, name).experimental_get_tracing_count()
            for name in ("read", "follow", "generate")
        }
        assert traces == {"read": 1, "follow": 1, "generate": 1}

    def test_new_values_of_the_weights_need_no_new_trace_and_new_variables_do(self, models):
        model = make(CONFIGS["learned, own output"])
        before, graphs = model.generate([[1]], 10, temperature=0), GenerationGraphs.of(model)
        model.set_weights([weight[::-1] for weight in model.get_weights()])
        after, undone = model.generate([[1]], 10, temperature=0), model.generate([[1]], 10, seed=1)
        assert GenerationGraphs.of(model) is graphs
        assert after != before
        dense = model.stack.blocks[0].feed_forward.widen
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.eye(2, dense.units, dtype=np.float32) * 20)
        adapted = model.generate([[1]], 10, seed=1)
        assert adapted != undone
        assert adapted == drawn_without_cache(
            model, [[1]], 10, seed=1, temperature=1.0, top_k=VOCABULARY, top_p=1.0
        )

    def test_the_cache_is_written_in_place(self, model):
        """Where the loop copied the cache, its memory would be asked for anew at each step."""
        graph = GenerationGraphs.of(model).generate.get_concrete_function().graph
        operations = {
            node.op for function in graph.as_graph_def().library.function for node in function.node_def
        }
        assert "ScatterNdNonAliasingAdd" in operations
        assert not operations & {"XlaDynamicUpdateSlice", "TensorScatterUpdateV2"}

    def test_a_saved_generator_gives_the_same_text(self, model, tmp_path):
        tf.saved_model.save(TextGenerator(model), str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path))
        ids, starts = left_padded([[model.start_id, *prompt] for prompt in PROMPTS])
        settings = {"temperature": 1.1, "top_k": 5, "top_p": 0.95, "seed": 4}
        tokens, lengths = loaded.generate(
            tf.constant(ids),
            tf.constant(starts),
            max_new_tokens=tf.constant(9),
            stop_ids=tf.constant([3, 4]),
            **{
                name: tf.constant(value, tf.float64 if isinstance(value, float) else tf.int32)
                for name, value in settings.items()
            },
        )
        rows = [row[:length].tolist() for row, length in zip(tokens.numpy(), lengths.numpy(), strict=True)]
        assert rows == model.generate(PROMPTS, 9, stop_ids=[3, 4], **settings)
