"""The tests of chapter 1's exercises."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from lmcourse.grading import assert_close, assert_distribution, assert_equal, exercise


def _mapping(answer):
    assert isinstance(answer, Mapping), f"expected a dict; got {answer!r}"
    return dict(answer)


ROSE = ["a", "rose", "is", "a", "rose", "is", "a", "rose"]


@exercise(
    "1.1",
    points=0.5,
    hint="return a dict or Counter whose keys are tuples of n tokens, of one token too when n is 1: ('a',), not 'a'.",
)
def test_keys_are_tuples(count_ngrams):
    for n in (1, 2, 3):
        for key in _mapping(count_ngrams(ROSE, n)):
            assert isinstance(key, tuple), f"expected tuples as keys; got {key!r}"
            assert len(key) == n, f"expected tuples of {n} tokens; got {key!r}"


@exercise(
    "1.1",
    points=0.5,
    hint="count each n-gram as often as it occurs, also where it begins inside the one before: do you step by n, "
    "or set a count where you should add to it?",
)
def test_ngrams_overlap(count_ngrams):
    counts = _mapping(count_ngrams(["a", "a", "a", "a", "b"], 2))
    assert_equal(counts.get(("a", "a"), 0), 3, "the count of ('a', 'a') in a a a a b")


@exercise(
    "1.1",
    points=0.5,
    hint="the last n tokens are an n-gram too: how many starting points does a text of T tokens have?",
)
def test_the_last_ngram_is_counted(count_ngrams):
    for ngram in (("y", "z"), ("x", "y", "z")):
        counts = _mapping(count_ngrams(["x", "y", "z"], len(ngram)))
        assert_equal(counts.get(ngram, 0), 1, f"the count of {ngram} in x y z")


@exercise("1.1", points=0.5, hint="a text of fewer than n tokens has no n-gram at all.")
def test_counts_of_a_rose(count_ngrams):
    expected = {("a", "rose", "is"): 2, ("rose", "is", "a"): 2, ("is", "a", "rose"): 2}
    assert_equal(_mapping(count_ngrams(ROSE, 3)), expected, "the trigrams")
    assert_equal(_mapping(count_ngrams(["a", "rose"], 3)), {}, "the trigrams of a text of two tokens")


@exercise(
    "1.2",
    points=1,
    hint=("the context is the tuple of the n - 1 tokens before; with n = 1 it is the empty tuple ()."),
)
def test_contexts_are_tuples_of_n_minus_1_tokens(next_token_probabilities):
    tokens = ["a", "b", "a", "c"]
    assert_equal(set(_mapping(next_token_probabilities(tokens, 1))), {()}, "the contexts with n = 1")
    assert_equal(
        set(_mapping(next_token_probabilities(tokens, 2))), {("a",), ("b",)}, "the contexts with n = 2"
    )
    assert_equal(
        set(_mapping(next_token_probabilities(tokens, 3))),
        {("a", "b"), ("b", "a")},
        "the contexts with n = 3",
    )


@exercise(
    "1.2",
    points=1,
    hint=(
        "the probabilities after a context must sum to one: divide by how often something "
        "followed this context. The last tokens of the text are followed by nothing."
    ),
)
def test_each_distribution_sums_to_one(next_token_probabilities):
    for n in (1, 2, 3):
        for context, distribution in _mapping(next_token_probabilities([*ROSE, "a"], n)).items():
            assert_distribution(distribution, f"P(next | {context})")


@exercise(
    "1.2",
    points=1,
    hint="P(w | h) is the share of w among what followed h: not every follower is as frequent.",
)
def test_probabilities_are_relative_frequencies(next_token_probabilities):
    tokens = ["a", "b", "a", "b", "a", "b", "a", "c"]
    assert_close(
        _mapping(next_token_probabilities(tokens, 2)).get(("a",)), {"b": 0.75, "c": 0.25}, "P(next | a)"
    )
    assert_close(
        _mapping(next_token_probabilities(tokens, 1)).get(()), {"a": 0.5, "b": 0.375, "c": 0.125}, "P(next)"
    )


@exercise(
    "1.3",
    points=0.5,
    hint=(
        "a text whose tokens all have probability 1/8 has perplexity 8: take the mean of the "
        "nats, not the sum, and undo a natural logarithm with exp."
    ),
)
def test_uniform_probabilities_give_their_number(perplexity):
    uniform = dict.fromkeys(["a", "b", "c", "<unk>"], 1 / 8)
    assert_close(perplexity(["a", "b", "c", "a"], uniform), 8.0, "the perplexity")
    assert_close(
        perplexity(["a"], {"a": 0.5, "<unk>": 0.1}), 2.0, "the perplexity of one token of probability 1/2"
    )


@exercise(
    "1.3",
    points=1,
    hint=(
        "an unknown token is a token: score it as '<unk>'. A model that may skip what it does not"
        " know looks better the less it knows."
    ),
)
def test_unknown_tokens_are_scored(perplexity):
    assert_close(perplexity(["a", "zebra"], {"a": 0.5, "<unk>": 0.125}), 4.0, "the perplexity of 'a zebra'")


@exercise(
    "1.3",
    points=0.5,
    hint="ln 0 does not exist: when a token that occurs has probability zero, return math.inf. A known token of "
    "probability zero is no unknown token.",
)
def test_zero_probability_gives_infinity(perplexity):
    assert_equal(perplexity(["a", "b"], {"a": 1.0, "b": 0.0, "<unk>": 0.0}), math.inf, "the perplexity")
    assert_equal(perplexity(["a", "z"], {"a": 1.0, "<unk>": 0.0}), math.inf, "the perplexity")
    known = {"a": 0.5, "b": 0.0, "<unk>": 0.5}
    assert_equal(
        perplexity(["a", "b"], known), math.inf, "the perplexity when b is known, with probability 0"
    )


@exercise(
    "1.3",
    points=1,
    hint=("a product of thousands of probabilities is smaller than any float: add logarithms instead."),
)
def test_long_texts_do_not_underflow(perplexity):
    assert_close(
        perplexity(["a"] * 5_000, {"a": 0.01, "<unk>": 0.99}), 100.0, "the perplexity of 5,000 tokens"
    )


@exercise(
    "1.4",
    points=0.5,
    hint="every token of the vocabulary has a probability, the unseen ones too.",
)
def test_the_whole_vocabulary_has_a_probability(add_k):
    assert_equal(set(_mapping(add_k({"b": 1}, ["a", "b", "c"], 1))), {"a", "b", "c"}, "the tokens")


@exercise(
    "1.4",
    points=0.5,
    hint=(
        "the probabilities do not sum to one: you added k to each of the V tokens of the "
        "vocabulary, so the denominator grew by k V."
    ),
)
def test_add_k_sums_to_one(add_k):
    for k in (0.01, 1, 3):
        assert_distribution(add_k({"b": 5, "c": 2}, list("abcdefgh"), k), f"the distribution with k = {k}")


@exercise(
    "1.4",
    points=0.5,
    hint="k goes to seen and unseen tokens alike: (c + k) / (total + k V).",
)
def test_add_k_equals_the_formula(add_k):
    assert_close(add_k({"b": 1, "c": 1}, ["a", "b", "c"], 1), {"a": 0.2, "b": 0.4, "c": 0.4}, "add-1")
    assert_close(add_k({"b": 3}, ["a", "b"], 0.5), {"a": 0.125, "b": 0.875}, "add-0.5")


@exercise(
    "1.4",
    points=0.25,
    hint="after a context that was never seen all tokens are equally likely: 1 / V.",
)
def test_an_unseen_context_is_uniform(add_k):
    assert_close(add_k({}, ["a", "b", "c", "d"], 0.1), dict.fromkeys("abcd", 0.25), "the distribution")


@exercise("1.4", points=0.25, hint="leave the caller's counts as they are: build new ones.")
def test_the_counts_are_left_as_they_are(add_k):
    counts = {"b": 1}
    add_k(counts, ["a", "b", "c"], 1)
    assert_equal(counts, {"b": 1}, "the counts after the call")


# n-grams seen once: 5, twice: 4, three times: 2, five times: 1; 24 in all.
GOOD = dict(zip("abcdefghijkl", [1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5], strict=True))


@exercise(
    "1.5",
    points=1,
    hint=(
        "N is the number of n-grams counted, each as often as it occurred: the sum of the counts,"
        " not the number of distinct n-grams."
    ),
)
def test_unseen_mass_is_the_share_of_singletons(unseen_mass):
    assert_close(unseen_mass(GOOD), 5 / 24, "the unseen mass")
    assert_close(unseen_mass({"a": 1, "b": 1}), 1.0, "the unseen mass when everything was seen once")


@exercise(
    "1.5",
    points=0.5,
    hint="where nothing was seen once, nothing new is to be expected: 0, not an error.",
)
def test_no_singletons_give_no_unseen_mass(unseen_mass):
    assert_close(unseen_mass({"a": 2, "b": 7}), 0.0, "the unseen mass")


@exercise(
    "1.5",
    points=1,
    hint="r* = (r + 1) n_{r+1} / n_r: is it r + 1 in front, and is the larger r on top? n_r counts the n-grams that "
    "were seen r times: it is a count of values, not of keys.",
)
def test_adjusted_counts_equal_the_formula(adjusted_count):
    assert_close(adjusted_count(GOOD, 1), 2 * 4 / 5, "1*")
    assert_close(adjusted_count(GOOD, 2), 3 * 2 / 4, "2*")


@exercise(
    "1.5",
    points=0.5,
    hint="no n-gram was seen r + 1 times: the formula gives zero, so keep r.",
)
def test_a_gap_keeps_the_count(adjusted_count):
    assert_close(adjusted_count(GOOD, 3), 3, "3* (nothing was seen 4 times)")
    assert_close(adjusted_count(GOOD, 5), 5, "5* (nothing was seen 6 times)")


FRANCISCO = {
    ("san", "francisco"): 40,
    ("the", "francisco"): 1,
    ("the", "dog"): 2,
    ("a", "dog"): 1,
    ("dog", "the"): 7,
}


@exercise(
    "1.6",
    points=0.5,
    hint=(
        "these are the probabilities of a token as the *second* of a bigram: count the places "
        "before it, not what comes after it."
    ),
)
def test_tokens_are_those_that_end_a_bigram(continuation_probabilities):
    assert_equal(
        set(_mapping(continuation_probabilities(FRANCISCO))), {"francisco", "dog", "the"}, "the tokens"
    )


@exercise(
    "1.6",
    points=0.5,
    hint="how often a bigram was seen must not matter: count each distinct bigram once.",
)
def test_frequency_does_not_matter(continuation_probabilities):
    once = continuation_probabilities(dict.fromkeys(FRANCISCO, 1))
    assert_close(continuation_probabilities(FRANCISCO), once, "the continuation probabilities")


@exercise(
    "1.6",
    points=1,
    hint="divide by the number of distinct bigrams, so that the probabilities sum to one.",
)
def test_continuation_probabilities_are_shares_of_bigram_types(continuation_probabilities):
    result = continuation_probabilities(FRANCISCO)
    assert_distribution(result, "the continuation probabilities")
    assert_close(result, {"francisco": 0.4, "dog": 0.4, "the": 0.2}, "the continuation probabilities")


BIGRAMS = {("the", "dog"): 2, ("the", "cat"): 1, ("a", "dog"): 1, ("a", "bird"): 3, ("dog", "barks"): 2}
SECONDS = ["dog", "cat", "bird", "barks"]


@exercise(
    "1.7",
    points=0.5,
    hint="a context that was never seen has c(u) = 0: return P_cont, the share of places, not of occurrences. If you "
    "do, does 1.6 pass?",
)
def test_an_unseen_context_falls_back(kneser_ney):
    assert_close(kneser_ney("zebra", "dog", BIGRAMS, 0.5), 2 / 5, "P(dog | zebra)")


@exercise(
    "1.7",
    points=0.5,
    hint="an unseen pair keeps max(0 - D, 0) = 0, never less than nothing; and a token that ends no bigram has "
    "P_cont = 0, which is no error.",
)
def test_an_unseen_pair_keeps_nothing_of_its_own(kneser_ney):
    value = kneser_ney("the", "bird", BIGRAMS, 0.5)
    assert value > 0, (
        f"expected a probability above 0 for P(bird | the), for bird follows another word; got {value}"
    )
    assert_close(kneser_ney("the", "zebra", BIGRAMS, 0.5), 0.0, "P(zebra | the), which ends no bigram")


@exercise(
    "1.7",
    points=1,
    hint="the T(u) distinct tokens seen *after* u gave D each: share out all of it, D T(u) / c(u), among all tokens, "
    "those that were seen too.",
)
def test_kneser_ney_sums_to_one(kneser_ney):
    for context in ("the", "a", "dog"):
        row = {token: kneser_ney(context, token, BIGRAMS, 0.75) for token in SECONDS}
        assert_distribution(row, f"P(· | {context})")


@exercise(
    "1.7",
    points=1,
    hint="mix with the continuation probability of the token, not with how often it was seen.",
)
def test_kneser_ney_equals_the_formula(kneser_ney):
    # After a: total 4, 2 types; after the: total 3, 2 types; P_cont(dog) = 2/5, P_cont(bird) = 1/5.
    assert_close(kneser_ney("a", "dog", BIGRAMS, 0.5), 0.5 / 4 + 0.5 * 2 / 4 * 2 / 5, "P(dog | a)")
    assert_close(kneser_ney("a", "bird", BIGRAMS, 0.5), 2.5 / 4 + 0.5 * 2 / 4 * 1 / 5, "P(bird | a)")
    assert_close(kneser_ney("the", "bird", BIGRAMS, 0.5), 0.5 * 2 / 3 * 1 / 5, "P(bird | the)")


HELD_OUT = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.6, 0.2, 0.1], [0.05, 0.3, 0.3], [0.9, 0.0, 0.2]])


@exercise(
    "1.8",
    points=0.5,
    hint="begin with equal weights: with no round at all they are what to return, 1 / K each.",
)
def test_no_round_gives_equal_weights(interpolation_weights):
    assert_close(interpolation_weights(HELD_OUT, 0), [1 / 3] * 3, "the weights after 0 rounds")


@exercise(
    "1.8",
    points=0.25,
    hint="K weights that sum to one: the mean of the shares over the N tokens, not their sum, and not over the models.",
)
def test_weights_sum_to_one(interpolation_weights):
    weights = interpolation_weights(HELD_OUT, 3)
    assert np.shape(weights) == (3,), f"expected K = 3 weights; got shape {np.shape(weights)}"
    assert_distribution(weights, "the weights after 3 rounds")


@exercise(
    "1.8",
    points=0.75,
    hint=(
        "a model's shares must be normalised token by token, over the models, before you take "
        "their mean over the tokens: the responsibilities of one token sum to one."
    ),
)
def test_one_round_equals_the_mean_responsibility(interpolation_weights):
    # Token 1: shares (2/3, 1/3); token 2: (0, 1); token 3: (1/2, 1/2).
    weights = interpolation_weights([[0.4, 0.2], [0.0, 0.5], [0.3, 0.3]], 1)
    assert_close(weights, [7 / 18, 11 / 18], "the weights after 1 round")


@exercise(
    "1.8",
    points=0.5,
    hint="each round starts from the weights of the round before.",
)
def test_rounds_build_on_each_other(interpolation_weights):
    assert_close(
        interpolation_weights([[0.8, 0.2]], 2), [0.64 / 0.68, 0.04 / 0.68], "the weights after 2 rounds"
    )


@exercise(
    "1.8",
    points=1,
    hint=(
        "EM never lowers the likelihood of the held-out text: each round must use the shares, not"
        " the one model that fits best."
    ),
)
def test_the_likelihood_rises_to_its_maximum(interpolation_weights):
    likelihoods = [
        np.log(HELD_OUT @ interpolation_weights(HELD_OUT, r)).mean() for r in (0, 1, 2, 5, 50, 400)
    ]
    steps = np.diff(likelihoods)
    assert (steps >= -1e-12).all(), f"expected a likelihood that never falls; got a step of {steps.min():.4f}"
    grid = [w for w in itertools.product(np.linspace(0, 1, 41), repeat=3) if abs(sum(w) - 1) < 1e-9]
    best = max(np.log(HELD_OUT @ np.array(w)).mean() for w in grid if (HELD_OUT @ np.array(w) > 0).all())
    assert likelihoods[-1] >= best - 1e-9, (
        f"expected at least {best:.4f} nats a token; got {likelihoods[-1]:.4f}"
    )


LOG_PROBS = {
    ("the",): -0.6, ("cat",): -0.7, ("sat",): -1.1, ("<s>",): -99.0,
    ("the", "cat"): -0.2, ("cat", "sat"): -0.3, ("<s>", "the"): -0.1,
    ("the", "cat", "sat"): -0.05,
}  # fmt: skip
WEIGHTS = {("the",): -0.4, ("cat",): -0.25, ("<s>",): -0.15, ("the", "cat"): -0.5, ("<s>", "the"): -0.35}


@exercise(
    "1.9",
    points=0.5,
    hint="an n-gram that is listed has its own probability: use it and stop.",
)
def test_a_listed_ngram_is_looked_up(arpa_log10):
    assert_close(arpa_log10(("cat",), LOG_PROBS, WEIGHTS), -0.7, "log10 P(cat)")
    assert_close(arpa_log10(("the", "cat", "sat"), LOG_PROBS, WEIGHTS), -0.05, "log10 P(sat | the cat)")


@exercise(
    "1.9",
    points=0.5,
    hint=(
        "the weight belongs to the context, all tokens but the last; then the *first* token goes."
        " Logarithms add."
    ),
)
def test_one_step_of_backoff(arpa_log10):
    assert_close(arpa_log10(("the", "sat"), LOG_PROBS, WEIGHTS), -0.4 - 1.1, "log10 P(sat | the)")
    assert_close(arpa_log10(("<s>", "the", "cat"), LOG_PROBS, WEIGHTS), -0.35 - 0.2, "log10 P(cat | <s> the)")


@exercise(
    "1.9",
    points=0.5,
    hint="a context without a listed weight costs nothing: log10 1 = 0.",
)
def test_a_missing_weight_is_zero(arpa_log10):
    assert_close(arpa_log10(("sat", "the"), LOG_PROBS, WEIGHTS), -0.6, "log10 P(the | sat)")
    assert_close(arpa_log10(("cat", "sat", "the"), LOG_PROBS, WEIGHTS), -0.6, "log10 P(the | cat sat)")


@exercise(
    "1.9",
    points=0.5,
    hint=("one step may not be enough: back off until an n-gram is listed, and pay every weight on the way."),
)
def test_backoff_repeats(arpa_log10):
    assert_close(
        arpa_log10(("the", "cat", "the"), LOG_PROBS, WEIGHTS), -0.5 - 0.25 - 0.6, "log10 P(the | the cat)"
    )


def _tree(prompt):
    """A model in which the greedy first step is a trap."""
    if not prompt:
        return np.log([0.5, 0.4, 0.1])
    return np.log({0: [0.34, 0.33, 0.33], 1: [0.05, 0.9, 0.05], 2: [0.98, 0.01, 0.01]}[prompt[-1]])


def _random_model(prompt):
    rng = np.random.default_rng([3, *prompt])
    return np.log(rng.dirichlet(np.ones(3)))


def _best(model, prompt, length, vocab_size=3):
    def log_prob(ids):
        return sum(float(model([*prompt, *ids[:i]])[token]) for i, token in enumerate(ids))

    best = max(itertools.product(range(vocab_size), repeat=length), key=log_prob)
    return list(best), log_prob(best)


@exercise(
    "1.10",
    points=0.5,
    hint="return the new ids alone, `length` of them; ask the model about the prompt and what was added, and leave the "
    "caller's prompt as it is.",
)
def test_only_the_new_ids_are_returned(beam_search):
    prompt = [1]
    ids, _ = beam_search(_tree, prompt, 2, 1)
    assert_equal(list(ids), [1, 1], "the ids after the prompt [1], with one beam")
    assert_equal(prompt, [1], "the prompt after the call")


@exercise(
    "1.10",
    points=0.5,
    hint="the score of a continuation is the sum of the ln P of its tokens.",
)
def test_the_log_probability_is_the_sum(beam_search):
    _, log_prob = beam_search(_tree, [], 3, 1)
    assert_close(log_prob, math.log(0.5 * 0.34 * 0.34), "ln P of the greedy continuation")


@exercise(
    "1.10",
    points=0.5,
    hint=(
        "with two beams the second-best start must survive the first step: extend all that you "
        "kept, then keep the best of all extensions together."
    ),
)
def test_two_beams_avoid_the_trap(beam_search):
    ids, log_prob = beam_search(_tree, [], 2, 2)
    assert_equal(list(ids), [1, 1], "the ids")
    assert_close(log_prob, math.log(0.4 * 0.9), "their ln P")


@exercise(
    "1.10",
    points=0.5,
    hint=(
        "with as many beams as there are continuations nothing may be lost: the best of all must come out."
    ),
)
def test_enough_beams_find_the_best(beam_search):
    for prompt in ([], [1], [0, 2]):
        ids, log_prob = beam_search(_random_model, prompt, 4, 81)
        best, best_log_prob = _best(_random_model, prompt, 4)
        assert_equal(list(ids), best, f"the ids after {prompt}")
        assert_close(log_prob, best_log_prob, "their ln P")
