"""What generation promises, on models small enough to enumerate."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmcourse.core import LanguageModel, RecomputingDecoder
from lmcourse.generation import (
    apply_temperature,
    beam_search,
    forbid_repeated_ngrams,
    generate,
    keep_top_k,
    keep_top_p,
    length_normalizer,
    normalize,
    penalize_repetition,
    sample_from,
    stream,
)


class Bigram(LanguageModel):
    """P(next | last token) as a table (V, V); an empty prefix counts as one that ends with token 0."""

    def __init__(self, table, normalized=True):
        self.table = np.asarray(table, dtype=np.float64)
        self.vocab_size = len(self.table)
        self.normalized = normalized
        self.rows_asked = []

    def token_log_probs(self, ids, mask=None):
        raise NotImplementedError

    def next_log_probs(self, prefixes):
        self.rows_asked.append(len(prefixes))
        last = [prefix[-1] if len(prefix) else 0 for prefix in prefixes]
        with np.errstate(divide="ignore"):
            return np.log(self.table[last])


class Tree(LanguageModel):
    """A distribution of its own after every prefix, so that no two texts are equally probable."""

    def __init__(self, vocab_size, seed):
        self.vocab_size = vocab_size
        self.seed = seed

    def token_log_probs(self, ids, mask=None):
        raise NotImplementedError

    def next_log_probs(self, prefixes):
        rngs = [np.random.default_rng([self.seed, *prefix]) for prefix in prefixes]
        return np.log([rng.dirichlet(np.ones(self.vocab_size)) for rng in rngs])


def random_bigram(vocab_size, seed):
    rng = np.random.default_rng(seed)
    return Bigram(rng.dirichlet(np.ones(vocab_size), size=vocab_size))


@st.composite
def score_rows(draw):
    """Scores (B, V) with ties and impossible tokens, at least one possible in each row."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 8)))
    possible = st.floats(-30, 30) | st.sampled_from([-1.0, 0.0])
    scores = draw(hnp.arrays(np.float64, shape, elements=possible | st.just(-np.inf)))
    first = draw(hnp.arrays(np.float64, shape[0], elements=possible))
    scores[:, draw(st.integers(0, shape[1] - 1))] = first
    return scores


def ranks(row):
    """Return the token ids, the most probable first, ties by id."""
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


TRANSFORMS = {
    "normalize": normalize,
    "temperature 0.3": lambda scores: apply_temperature(scores, 0.3),
    "temperature 5": lambda scores: apply_temperature(scores, 5.0),
    "top-k": lambda scores: keep_top_k(scores, (scores.shape[1] + 1) // 2),
    "top-p": lambda scores: keep_top_p(scores, 0.8),
    "penalty": lambda scores: penalize_repetition(scores, [[0]] * len(scores), 1.3),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
@given(scores=score_rows())
def test_each_transform_returns_distributions_and_leaves_its_input_alone(transform, scores):
    before = scores.copy()
    log_probs = transform(scores)
    # Eight float64 terms: each is rounded once, so the sum is within a few times 2.2e-16 of one.
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, rtol=0, atol=1e-14)
    assert np.isneginf(log_probs[np.isneginf(scores)]).all()
    np.testing.assert_array_equal(scores, before)


@given(scores=score_rows())
def test_top_k_keeps_exactly_the_k_most_probable_in_proportion(scores):
    for k in range(1, scores.shape[1] + 1):
        for row, kept in zip(normalize(scores), keep_top_k(scores, k), strict=True):
            best = [token for token in ranks(row)[:k] if np.isfinite(row[token])]
            assert np.flatnonzero(np.isfinite(kept)).tolist() == sorted(best)
            # Renormalising adds one constant to all that stay.
            np.testing.assert_allclose(np.ptp(kept[best] - row[best]), 0, atol=1e-12)


@given(scores=score_rows(), p=st.floats(1e-6, 1))
def test_top_p_keeps_the_smallest_set_of_most_probable_tokens_that_reaches_p(scores, p):
    for row, kept in zip(np.exp(normalize(scores)), keep_top_p(scores, p), strict=True):
        nucleus = np.flatnonzero(np.isfinite(kept)).tolist()
        assert nucleus == sorted(ranks(row)[: len(nucleus)])
        assert len(nucleus) >= 1
        assert math.fsum(row[nucleus]) >= p - 2e-12
        if p < 1:
            without_last = ranks(row)[: len(nucleus) - 1]
            assert math.fsum(row[without_last]) < p or not without_last


def test_top_p_counts_a_sum_that_is_p_but_for_rounding_as_reaching_p():
    # On paper 0.7 + 0.1 reaches 0.8; in float64 it sums to 0.7999999999999999.
    kept = np.exp(keep_top_p(np.log([[0.7, 0.1, 0.2 / 3, 0.2 / 3, 0.2 / 3]]), 0.8))
    np.testing.assert_allclose(kept, [[7 / 8, 1 / 8, 0, 0, 0]], atol=1e-15)


def test_ties_at_the_edge_go_to_the_smaller_id():
    scores = np.zeros((1, 4))
    np.testing.assert_allclose(np.exp(keep_top_k(scores, 2)), [[0.5, 0.5, 0, 0]], atol=1e-15)
    np.testing.assert_allclose(np.exp(keep_top_p(scores, 0.4)), [[0.5, 0.5, 0, 0]], atol=1e-15)


def test_top_p_keeps_the_most_probable_token_however_small_p_is():
    np.testing.assert_array_equal(np.exp(keep_top_p(np.log([[0.2, 0.5, 0.3]]), 1e-300)), [[0, 1, 0]])


def test_top_p_of_one_keeps_even_what_rounding_would_lose():
    log_probs = keep_top_p([[0.0, -80.0]], 1.0)  # 1 + e^-80 is 1 in float64
    assert np.isfinite(log_probs).all()


def test_temperature_raises_probabilities_to_its_inverse():
    # 0.5, 0.25, 0.25 at T = 1/2 are squared: 4/16, 1/16, 1/16, that is 4 : 1 : 1.
    log_probs = apply_temperature(np.log([[0.5, 0.25, 0.25]]), 0.5)
    np.testing.assert_allclose(np.exp(log_probs), [[4 / 6, 1 / 6, 1 / 6]], rtol=1e-14)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-320, 1e-12, 1e300])
def test_extreme_temperatures_reach_their_limits_without_a_warning(temperature):
    probs = np.exp(apply_temperature(np.log([[0.6, 0.4]]), temperature))
    np.testing.assert_allclose(probs, [[1, 0]] if temperature < 1 else [[0.5, 0.5]], atol=1e-15)


def test_a_tiny_temperature_generates_what_greedy_does():
    model = random_bigram(12, seed=3)
    prompts = [[token] for token in range(12)]
    cold = generate(model, prompts, 20, temperature=1e-6, seed=0)
    assert cold == generate(model, prompts, 20, greedy=True)


def test_repetition_penalty_raises_the_probability_of_seen_tokens_to_its_power():
    # Tokens 0 and 2 were seen: 0.4² and 0.2² against 0.4, that is 0.16 : 0.4 : 0.04 of 0.6. Twice seen counts once.
    log_probs = penalize_repetition(np.log([[0.4, 0.4, 0.2]]), [[2, 0, 0]], 2.0)
    np.testing.assert_allclose(np.exp(log_probs), [[0.16 / 0.6, 0.4 / 0.6, 0.04 / 0.6]], rtol=1e-14)


def test_repetition_penalty_never_favours_a_seen_token_whatever_the_sign_of_its_score():
    scores = np.array([[5.0, 4.0], [-4.0, -5.0]])
    before, after = np.exp(normalize(scores)), np.exp(penalize_repetition(scores, [[1], [1]], 1.2))
    assert (after[:, 1] < before[:, 1]).all()


@pytest.mark.parametrize(
    ("history", "n", "forbidden"),
    [
        ([], 1, []),
        ([1, 3], 1, [1, 3]),
        ([0, 1, 0, 2, 0], 2, [1, 2]),
        ([0, 1, 2, 0, 1], 3, [2]),
        ([0, 1, 2, 0, 1], 4, []),
        ([2, 2], 2, [2]),
        ([2], 2, []),
    ],
)
def test_no_repeat_ngram_forbids_what_followed_the_same_context_before(history, n, forbidden):
    log_probs = forbid_repeated_ngrams(np.zeros((1, 4)), [history], n)
    assert np.flatnonzero(np.isneginf(log_probs[0])).tolist() == forbidden


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_of_prompt_and_continuation_comes_twice(n):
    model = random_bigram(12, seed=1)
    prompts = [[0, 1], [5, 6, 7, 8]]
    for prompt, new in zip(
        prompts, generate(model, prompts, 6, no_repeat_ngram=n, temperature=0.3, seed=2), strict=True
    ):
        row = prompt + new
        ngrams = list(zip(*(row[start:] for start in range(n)), strict=False))
        assert len(new) == 6
        assert len(set(ngrams)) == len(ngrams)


def test_the_inverse_of_the_cumulative_distribution_draws_the_right_token():
    log_probs = np.log([[0.25, 0.5, 0.25]] * 5)
    assert sample_from(log_probs, [0, 0.2499, 0.25, 0.7499, 0.75]).tolist() == [0, 0, 1, 1, 2]


@given(scores=score_rows(), uniform=st.floats(0, 1, exclude_max=True))
def test_an_impossible_token_is_never_drawn(scores, uniform):
    drawn = sample_from(normalize(scores), np.full(len(scores), uniform))
    assert np.isfinite(scores[np.arange(len(scores)), drawn]).all()


def test_sampling_frequencies_match_the_distribution():
    probs = np.array([0.5, 0.25, 0.2, 0.05, 0.0])
    draws = 40_000
    model = Bigram(np.tile(probs, (5, 1)))
    rows = generate(model, [[]] * 2_000, draws // 2_000, seed=20)
    counts = np.bincount(np.concatenate(rows), minlength=5)
    # A count is binomial with variance n p (1 - p). Five standard deviations are passed by chance once in 1.7
    # million; a permuted or shifted distribution lies 20 or more away.
    bound = 5 * np.sqrt(draws * probs * (1 - probs))
    assert (np.abs(counts - draws * probs) <= bound).all()


def test_consecutive_draws_of_a_row_are_independent():
    [tokens] = generate(Bigram(np.full((2, 2), 0.5)), [[]], 10_001, seed=21)
    same = np.sum(np.diff(tokens) == 0)
    assert abs(same - 5_000) <= 5 * 50  # binomial, five times sqrt(10,000 / 4)


def test_rows_with_the_same_prompt_have_independent_draws():
    rows = generate(Bigram(np.full((2, 2), 0.5)), [[0]] * 2, 10_000, seed=22)
    same = np.sum(np.array(rows[0]) == np.array(rows[1]))
    assert abs(same - 5_000) <= 5 * 50  # binomial: sqrt(10,000 / 4) = 50


SETTINGS = [
    {},
    {"temperature": 0.7, "top_k": 4},
    {"top_p": 0.8, "repetition_penalty": 1.3},
    {"no_repeat_ngram": 3, "temperature": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_does_not_depend_on_the_others_in_the_batch(settings):
    model = random_bigram(10, seed=4)
    prompts = [[1, 2, 3], [], [4], [5, 6]]
    together = generate(model, prompts, 15, seed=5, stop=[0], **settings)
    for row, prompt in enumerate(prompts):
        others_differ = [[9]] * row + [prompt]
        assert generate(model, others_differ, 15, seed=5, stop=[0], **settings)[row] == together[row]


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others():
    model = random_bigram(50, seed=6)
    first = generate(model, [[0]], 30, seed=7)
    assert first == generate(model, [[0]], 30, seed=7)
    assert first != generate(model, [[0]], 30, seed=8)  # equal by chance: less than 50^-10
    assert generate(model, [[0]], 30) != generate(model, [[0]], 30)


@pytest.mark.parametrize("settings", [*SETTINGS, {"greedy": True, "repetition_penalty": 1.2}])
def test_a_stream_yields_what_generate_returns(settings):
    model = random_bigram(10, seed=9)
    streamed = list(stream(model, [3, 1], 25, stop=[7], seed=1, **settings))
    assert streamed == generate(model, [[3, 1]], 25, stop=[7], seed=1, **settings)[0]


def test_a_stream_asks_the_model_for_no_more_than_was_taken():
    model = random_bigram(10, seed=9)
    tokens = stream(model, [3], 25, seed=1)
    next(tokens)
    next(tokens)
    assert len(model.rows_asked) == 2


def test_a_stream_refuses_a_wrong_setting_at_the_call():
    with pytest.raises(ValueError, match="top_p"):
        stream(random_bigram(3, seed=0), [0], 5, top_p=0)


CYCLE = Bigram(np.roll(np.eye(4), 1, axis=1))  # after token i comes (i + 1) mod 4, always


def test_a_stop_token_ends_its_row_and_is_not_returned():
    assert generate(CYCLE, [[0], [1], [3], [2]], 5, stop=[3], seed=0) == [[1, 2], [2], [0, 1, 2], []]


def test_rows_that_stopped_are_no_longer_asked_for():
    model = Bigram(CYCLE.table)
    generate(model, [[0], [1], [2]], 3, stop=[3])
    assert model.rows_asked == [3, 2, 1]


def test_a_decoder_is_never_left_without_rows():
    class NeverEmpty(RecomputingDecoder):
        def append(self, ids):
            assert len(ids)
            super().append(ids)

        def select(self, rows):
            assert len(rows)
            super().select(rows)

    class Cached(Bigram):
        def decoder(self, prefixes):
            return NeverEmpty(self, prefixes)

    assert generate(Cached(CYCLE.table), [[0], [1]], 9, stop=[3]) == [[1, 2], [2]]


def test_no_new_tokens_or_no_prompts_give_none():
    assert generate(CYCLE, [[0], [1]], 0) == [[], []]
    assert generate(CYCLE, [], 5) == []


def test_prompts_may_be_arrays_and_are_left_alone():
    prompts = np.array([[0, 1], [2, 3]])
    assert generate(CYCLE, prompts, 2) == [[2, 3], [0, 1]]
    as_list = [[0]]
    generate(CYCLE, as_list, 2)
    assert as_list == [[0]]


def test_prompts_may_come_from_a_generator():
    assert generate(CYCLE, ([token] for token in (0, 1)), 2) == [[1, 2], [2, 3]]


def test_scores_that_are_no_distribution_are_normalised_first():
    table = random_bigram(6, seed=10).table
    scores = Bigram(0.4 * table, normalized=False)
    assert generate(scores, [[1]], 20, top_p=0.7, seed=3) == generate(
        Bigram(table), [[1]], 20, top_p=0.7, seed=3
    )
    assert [h.ids for h in beam_search(scores, [1], 4)] == [h.ids for h in beam_search(Bigram(table), [1], 4)]


@pytest.mark.filterwarnings("error")
def test_impossible_tokens_raise_no_warning():
    with_all = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "repetition_penalty": 1.2}
    assert generate(CYCLE, [[0]], 6, seed=0, **with_all) == [[1, 2, 3, 0, 1, 2]]
    assert beam_search(CYCLE, [0], 3)[0].ids == (1, 2, 3)


class CountingDecoder(RecomputingDecoder):
    appended = 0

    def append(self, ids):
        self.appended += 1
        super().append(ids)


@pytest.mark.parametrize("search", [lambda m: generate(m, [[0]], 3), lambda m: beam_search(m, [0], 3)])
def test_generation_uses_the_models_own_decoder_and_extends_it_no_further_than_needed(search):
    class Cached(Bigram):
        def decoder(self, prefixes):
            self.last_decoder = CountingDecoder(self, prefixes)
            return self.last_decoder

    model = Cached(CYCLE.table)
    search(model)
    assert model.last_decoder.appended == 2  # nothing reads the distribution after the third token


def continuations(model, prompt, length, stop):
    """Enumerate what a search can return: ids, ln P, whether a stop token ended it."""
    yield from _longer(model, prompt, (), 0.0, length, stop)


def _longer(model, prompt, ids, log_prob, length, stop):
    if not length:
        yield ids, log_prob, False
        return
    for token, added in enumerate(model.next_log_probs([[*prompt, *ids]])[0]):
        if token in stop:
            yield ids, log_prob + added, True
        else:
            yield from _longer(model, prompt, (*ids, token), log_prob + added, length - 1, stop)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("stop", [(), (2,), (1, 3)])
def test_a_beam_as_wide_as_all_texts_equals_enumeration(length_penalty, stop):
    model = Tree(4, seed=11)
    expected = []
    for ids, log_prob, finished in continuations(model, [1], 3, stop):
        scored = len(ids) + finished
        # Wu et al. 2016, equation 14, as printed.
        score = log_prob / ((5 + scored) ** length_penalty / (5 + 1) ** length_penalty)
        expected.append((score, ids, log_prob, finished))
    expected.sort(key=lambda entry: -entry[0])
    found = beam_search(model, [1], 3, beams=4**3, length_penalty=length_penalty, stop=stop)
    assert [(h.ids, h.finished) for h in found] == [(ids, finished) for _, ids, _, finished in expected]
    np.testing.assert_allclose([h.score for h in found], [entry[0] for entry in expected], rtol=1e-12)
    np.testing.assert_allclose([h.log_prob for h in found], [entry[2] for entry in expected], rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy(seed):
    model = random_bigram(8, seed)
    [greedy] = generate(model, [[1]], 12, greedy=True, stop=[0])
    [hypothesis] = beam_search(model, [1], 12, beams=1, stop=[0])
    assert list(hypothesis.ids) == greedy
    assert hypothesis.finished == (len(greedy) < 12)


def test_a_finished_hypothesis_keeps_its_place_in_the_beam():
    # Token 2 stops, and takes one of two places at the first step; one hypothesis goes on alone.
    model = Bigram([[0.6, 0, 0.4], [0, 1, 0], [0, 0, 1]])
    found = beam_search(model, [0], 3, beams=2, stop=[2])
    assert model.rows_asked == [1, 1, 1]
    assert [hypothesis.finished for hypothesis in found] == [True, False]


def test_a_wider_beam_finds_the_text_that_greedy_misses():
    # Greedy goes 0 → 1 (0.6) and then at best 0.5: 0.30. Through 2 it is 0.4 · 1.0 = 0.40.
    model = Bigram([[0, 0.6, 0.4], [0.5, 0.25, 0.25], [0, 0, 1]])
    assert beam_search(model, [0], 2, beams=1)[0].ids == (1, 0)
    best = beam_search(model, [0], 2, beams=2)[0]
    assert best.ids == (2, 2)
    assert best.log_prob == pytest.approx(math.log(0.4), rel=1e-14)


def test_length_penalty_decides_between_short_and_long():
    # From 0: stop at once (0.45), or 1 and then stop (0.55 · 0.8 = 0.44). Token 2 stops.
    model = Bigram([[0, 0.55, 0.45], [0, 0.2, 0.8], [0, 0, 1]])
    assert beam_search(model, [0], 2, beams=4, length_penalty=0, stop=[2])[0].ids == ()
    assert beam_search(model, [0], 2, beams=4, length_penalty=0.6, stop=[2])[0].ids == (1,)


def test_length_normalizer_is_equation_14():
    # Wu et al. 2016, equation 14: lp = (5 + |Y|)^α / (5 + 1)^α; for |Y| = 10, α = 0.2: (15 / 6)^0.2.
    assert length_normalizer(10, 0.2) == pytest.approx(2.5**0.2, rel=1e-14)
    assert length_normalizer(123, 0) == 1


def test_a_beam_search_without_new_tokens_returns_the_empty_continuation():
    [hypothesis] = beam_search(CYCLE, [0], 0)
    assert (hypothesis.ids, hypothesis.log_prob, hypothesis.finished) == ((), 0.0, False)


def test_hypotheses_of_a_beam_are_distinct_and_their_log_probs_true():
    model = random_bigram(9, seed=12)
    found = beam_search(model, [2], 6, beams=5)
    assert len({h.ids for h in found}) == 5
    for hypothesis in found:
        path = [2, *hypothesis.ids]
        true = sum(math.log(model.table[a, b]) for a, b in itertools.pairwise(path))
        assert hypothesis.log_prob == pytest.approx(true, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, r"temperature must be a finite number above 0; got 0\..*greedy=True"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top_k must be an integer from 1 to 4; got 0"),
        ({"top_k": 5}, "top_k must be an integer from 1 to 4; got 5"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1; got 0"),
        ({"top_p": 1.01}, "top_p must be above 0 and at most 1; got 1.01"),
        ({"top_p": math.nan}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty must be .* above 0; got 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be an integer of at least 0; got -1"),
        ({"stop": [4]}, "each id in stop must be an integer from 0 to 3; got 4"),
        ({"stop": [-1]}, "each id in stop must be .* got -1"),
        ({"stop": 2}, "stop must be a collection of ids.* got 2"),
        ({"greedy": True, "temperature": 0.5}, "greedy=True .* temperature=0.5"),
        ({"greedy": True, "top_k": 2}, "greedy=True .* top_k=2"),
        ({"greedy": True, "top_p": 0.5}, "greedy=True .* top_p=0.5"),
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0; got -1"),
        ({"prompts": [0, 1]}, r"prompts must be a list of sequences.*got \[0, 1\].*pass \[prompt\]"),
        ({"prompts": "text"}, "prompts must be a list of sequences.*Encode"),
        ({"prompts": ["text"]}, "prompts must be a list of sequences.*Encode"),
        ({"prompts": [[0], [0.5]]}, r"prompts\[1\] must be a sequence of integer ids"),
        ({"prompts": [[0], [4]]}, r"prompts\[1\] must hold ids between 0 and vocab_size - 1 = 3; got 4"),
        ({"prompts": 5}, "prompts must be a list of sequences.*got 5"),
        ({"top_k": 2.0}, r"top_k must be an integer from 1 to 4; got 2\.0"),
        ({"top_k": True}, "top_k must be an integer from 1 to 4; got True"),
        ({"no_repeat_ngram": 1.5}, r"no_repeat_ngram must be an integer of at least 0; got 1\.5"),
        ({"max_new_tokens": 2.5}, r"max_new_tokens must be an integer of at least 0; got 2\.5"),
        ({"max_new_tokens": "5"}, "max_new_tokens must be an integer of at least 0; got '5'"),
        ({"max_new_tokens": math.nan}, "max_new_tokens must be an integer of at least 0; got nan"),
        ({"seed": -1}, "seed must be an integer of at least 0; got -1"),
        ({"seed": 0.5}, r"seed must be an integer of at least 0; got 0\.5"),
        ({"temperature": "1"}, "temperature must be a finite number above 0; got '1'"),
        ({"top_p": "1"}, "top_p must be above 0 and at most 1; got '1'"),
        ({"repetition_penalty": None}, "repetition_penalty must be .* above 0; got None"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(settings, message):
    arguments = {"prompts": [[0]], "max_new_tokens": 3} | settings
    with pytest.raises(ValueError, match=message):
        generate(CYCLE, **arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams must be an integer of at least 1; got 0"),
        ({"length_penalty": -0.1}, "length_penalty must be .* 0 or more; got -0.1"),
        ({"max_new_tokens": -2}, "max_new_tokens must be an integer of at least 0; got -2"),
        ({"stop": [9]}, "each id in stop must be"),
        ({"beams": 2.5}, r"beams must be an integer of at least 1; got 2\.5"),
        ({"beams": math.nan}, "beams must be an integer of at least 1; got nan"),
        ({"max_new_tokens": 2.5}, r"max_new_tokens must be an integer of at least 0; got 2\.5"),
        ({"length_penalty": "1"}, "length_penalty must be .* 0 or more; got '1'"),
        ({"prompt": [[0]]}, r"prompts\[0\] must be a sequence of integer ids"),
    ],
)
def test_an_impossible_beam_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        beam_search(CYCLE, **({"prompt": [0], "max_new_tokens": 3} | settings))


def test_a_row_with_nothing_left_to_follow_is_refused_by_name():
    with pytest.raises(ValueError, match="no_repeat_ngram = 1 leaves row 0 no token"):
        generate(CYCLE, [[0, 1, 2]], 3, no_repeat_ngram=1)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.0, 0.0], r"scores must have shape \(B, V\); got \(2,\)"),
        ([[0.0, math.nan]], "NaN"),
        ([[0.0, math.inf]], r"\+inf"),
        ([[0.0, 0.0], [-math.inf, -math.inf]], "row 1 forbids all"),
    ],
)
def test_scores_that_cannot_be_normalised_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        normalize(scores)


@pytest.mark.parametrize("transform", [penalize_repetition, forbid_repeated_ngrams])
def test_histories_must_match_the_rows(transform):
    with pytest.raises(ValueError, match="histories must have one entry for each of the 2 rows; got 1"):
        transform(np.zeros((2, 3)), [[0]], 2)


@pytest.mark.parametrize("transform", [penalize_repetition, forbid_repeated_ngrams])
@pytest.mark.parametrize("history", [[7], [-1]])
def test_histories_must_hold_ids_of_the_vocabulary(transform, history):
    message = rf"histories\[1\] must hold ids between 0 and vocab_size - 1 = 2; got {history[0]}"
    with pytest.raises(ValueError, match=message):
        transform(np.zeros((2, 3)), [[0], history], 2)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda scores: keep_top_k(scores, 2.0), r"k must be an integer from 1 to 3; got 2\.0"),
        (lambda scores: forbid_repeated_ngrams(scores, [[]], 1.5), r"n must be an integer .* got 1\.5"),
    ],
)
def test_a_transform_refuses_a_number_that_is_not_whole(transform, message):
    with pytest.raises(ValueError, match=message):
        transform(np.zeros((1, 3)))


@pytest.mark.parametrize("uniforms", [[1.0], [-0.1], [math.nan]])
def test_uniform_numbers_outside_their_interval_are_refused(uniforms):
    with pytest.raises(ValueError, match="uniforms must be at least 0 and below 1"):
        sample_from(np.zeros((1, 1)), uniforms)


def test_importing_generation_does_not_import_tensorflow():
    code = "import sys, lmcourse.generation; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
