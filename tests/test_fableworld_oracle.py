import collections
import math

import numpy as np
import pytest

from lmcourse import core
from lmcourse.datasets import fableworld
from lmcourse.datasets.fableworld import story, world

# Slots that keep two values, in groups whose worlds have few enough stories to list; each slot is in one of them.
# A slot that a language does not have (only English chooses a "naming", only French a "living") is passed over.
GROUPS = {
    "opening": "theme temper hero_kind hero home opening naming living weather time",
    "setting": "theme weather time errand hero_count food colour setting hero",
    "meeting": "theme spot mood friend_kind friend friend_count food meeting hero",
    "dialogue": "theme dialogue plea answer friend_speech hero_speech hero friend hero_kind",
    "ending": "theme temper summing closing lesson ending feeling reason moral",
}
GUEST_GROUP = "theme guest_1 guest_2 guest_3 coat_1 coat_2 first second arriving"


def freed(language, slots, *, binding=False):
    """Return the world in which these slots keep two values."""
    full = fableworld.full_world(language, binding=binding)
    return full.reduced(name for name in slots.split() if name in full.slots)


@pytest.fixture(scope="module", params=["en", "fr"])  # Chinese has tests of its own
def language(request):
    return request.param


@pytest.fixture(scope="module")
def oracle(language):
    return fableworld.FableOracle(language)


@pytest.fixture(scope="module")
def english_oracle():
    return fableworld.FableOracle()


@pytest.fixture(scope="module")
def stories(language):
    return fableworld.load("test", tokens=100_000, language=language)


@pytest.fixture(scope="module")
def surprisals(oracle, stories):
    return core.token_surprisals_nats(oracle, [oracle.tokenizer.ids_of(tale.tokens) for tale in stories])


@pytest.fixture(scope="module")
def floor(oracle, stories):
    return fableworld.floor_by_label(stories[:400], oracle)


def brute_force(language, reduced):
    """Return the probability of each story of a small world, by telling all of them."""
    teller = story.Teller(reduced, story.language_named(language))
    table = collections.Counter()
    for slots, probability in reduced.assignments():
        table[teller.tell(slots).tokens] += probability
    return table


def prefix_masses(table, length):
    """Return, for each prefix of this length, the probability of each token that follows it."""
    masses = collections.defaultdict(collections.Counter)
    for tokens, probability in table.items():
        if len(tokens) > length:
            masses[tokens[:length]][tokens[length]] += probability
    return masses


def assert_equals_brute_force(language, reduced):
    """Follow every prefix of every story, comparing the oracle's distribution with the listed stories'."""
    oracle = fableworld.FableOracle(language, world=reduced)
    table = brute_force(language, reduced)
    assert len(table) < 20_000
    assert sum(table.values()) == pytest.approx(1, abs=1e-12)
    decoder, rows = oracle.decoder([[]]), [()]
    for length in range(max(map(len, table))):
        masses = prefix_masses(table, length)
        assert set(rows) == set(masses)
        expected = np.zeros((len(rows), oracle.vocab_size))
        for row, prefix in enumerate(rows):
            ids = oracle.tokenizer.ids_of(masses[prefix])
            expected[row, ids] = np.array(list(masses[prefix].values())) / sum(masses[prefix].values())
        probabilities = np.exp(decoder.log_probs())
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-12)
        grown = [
            (row, token)
            for row, prefix in enumerate(rows)
            for token in masses[prefix]
            if token != fableworld.END
        ]
        decoder.select([row for row, _ in grown])
        decoder.append(oracle.tokenizer.ids_of(token for _, token in grown))
        rows = [(*rows[row], token) for row, token in grown]
    return oracle, table


@pytest.mark.parametrize("group", GROUPS)
def test_oracle_equals_brute_force_after_every_prefix(language, group):
    oracle, table = assert_equals_brute_force(language, freed(language, GROUPS[group]))
    entropy = -math.fsum(p * math.log(p) for p in table.values())
    assert oracle.entropy_per_story_nats() == pytest.approx(entropy, abs=1e-12)


def test_oracle_equals_brute_force_with_binding(language):
    assert_equals_brute_force(language, freed(language, GUEST_GROUP, binding=True))


def test_the_brute_force_worlds_free_every_slot(language):
    freed_somewhere = {name for group in [*GROUPS.values(), GUEST_GROUP] for name in group.split()}
    fixed = {"coat_3"}  # with two values for the other coats, a third of its own is always left
    for binding in (False, True):
        assert freed_somewhere | fixed >= set(fableworld.full_world(language, binding=binding).slots)


@pytest.mark.slow
def test_oracle_equals_brute_force_in_a_world_of_thousands_of_stories(language):
    free = "theme temper hero weather food colour friend mood dialogue plea ending moral"
    assert_equals_brute_force(language, freed(language, free))


def test_a_storys_probability_is_that_of_its_slots(oracle, stories, surprisals):
    # Were a story told by two assignments of the slots, its probability would be their sum: telling is injective.
    for tale, nats in zip(stories, surprisals, strict=True):
        # 120 logarithms of float64, summed: 1e-10 leaves three digits to spare.
        assert nats.sum() == pytest.approx(-oracle.world.log_probability_nats(tale.slots), abs=1e-10)


def test_a_binding_storys_probability_is_that_of_its_slots(language):
    oracle = fableworld.FableOracle(language, binding=True)
    stories = fableworld.generate(100, seed=2, language=language, binding=True)
    nats = core.token_surprisals_nats(oracle, [oracle.tokenizer.ids_of(tale.tokens) for tale in stories])
    for tale, surprisal in zip(stories, nats, strict=True):
        assert surprisal.sum() == pytest.approx(-oracle.world.log_probability_nats(tale.slots), abs=1e-10)


def test_mean_surprisal_is_the_analytic_entropy(oracle, surprisals):
    per_story = np.array([nats.sum() for nats in surprisals])
    standard_error = per_story.std(ddof=1) / math.sqrt(len(per_story))
    assert abs(per_story.mean() - oracle.entropy_per_story_nats()) <= 4 * standard_error


def test_the_entropy_of_two_slots_is_worked_by_hand():
    # A theme is one of 8 equally likely: 3 bits. A friend's name is one of the 11 left: log2(11) bits.
    slots = fableworld.full_world()
    assert slots.slot_entropy_nats("theme") == pytest.approx(3 * math.log(2))
    assert slots.slot_entropy_nats("friend") == pytest.approx(math.log(11))
    # Of 12 tempers, 3 weigh 6 and 9 weigh 1, in all 27.
    assert slots.slot_entropy_nats("temper") == pytest.approx(
        18 / 27 * math.log(27 / 6) + 9 / 27 * math.log(27)
    )


def test_after_a_sentence_only_the_theme_is_unknown(oracle, stories):
    for tale in stories[:40]:
        ids = oracle.tokenizer.ids_of(tale.tokens)
        for stop in tale.sentence_stops:
            alive = [slots for slots, _ in oracle.hypotheses(ids[:stop])]
            assert 1 <= len(alive) <= len(world.THEMES) == 8
            for other in alive:
                assert {name for name in other if other[name] != alive[0][name]} <= {"theme"}


def test_the_moral_reveals_the_theme(oracle, stories):
    # Before the last sentence the posterior of the true theme is calibrated: its mean is the mean of its square sum.
    truth, confidence = [], []
    for tale in stories[:300]:
        ids = oracle.tokenizer.ids_of(tale.tokens)
        beliefs = {s["theme"]: p for s, p in oracle.hypotheses(ids[: tale.sentence_stops[-2]])}
        truth.append(beliefs[tale.slots["theme"]])
        confidence.append(sum(p * p for p in beliefs.values()))
    gap = np.array(truth) - np.array(confidence)
    assert abs(gap.mean()) <= 4 * gap.std(ddof=1) / math.sqrt(len(gap))
    assert 0.2 < np.mean(truth) < 0.95


def test_few_hypotheses_are_ever_alive(oracle, stories):
    most = 0
    for tale in stories[:8]:
        ids = oracle.tokenizer.ids_of(tale.tokens)
        for stop in range(0, len(ids), 2):
            most = max(most, len(oracle.hypotheses(ids[:stop])))
    assert 8 <= most <= fableworld.MAX_HYPOTHESES


def test_too_many_hypotheses_are_refused(monkeypatch, oracle, stories):
    monkeypatch.setattr("lmcourse.datasets.fableworld.oracle.MAX_HYPOTHESES", 7)
    with pytest.raises(AssertionError, match=r"hypotheses are alive after .*; at most 7 may be"):
        oracle.token_log_probs([oracle.tokenizer.ids_of(stories[0].tokens)])


def test_token_scores_are_entries_of_the_next_token_distributions(oracle, stories):
    ids = oracle.tokenizer.ids_of(stories[0].tokens)
    scores = oracle.token_log_probs([ids])[0]
    distributions = oracle.next_log_probs([ids[:stop] for stop in range(len(ids))])
    np.testing.assert_allclose(scores, distributions[range(len(ids)), ids], rtol=0, atol=1e-12)


def test_a_mask_hides_scores_but_not_context(oracle, stories):
    ids, mask = core.pad_rows([oracle.tokenizer.ids_of(tale.tokens) for tale in stories[:3]])
    full = oracle.token_log_probs(ids, mask)
    half = mask.copy()
    half[:, :50] = False
    np.testing.assert_array_equal(oracle.token_log_probs(ids, half), np.where(half, full, 0))
    assert not oracle.token_log_probs(ids, np.zeros_like(mask)).any()


def test_an_impossible_token_and_all_after_it_score_minus_infinity(english_oracle):
    ids = english_oracle.tokenizer.ids_of(["once", "upon", "the", "time"])
    scores = english_oracle.token_log_probs([ids])[0]
    assert np.isfinite(scores[:2]).all()
    assert np.isneginf(scores[2:]).all()
    assert np.isneginf(english_oracle.next_log_probs([ids])).all()


def test_nothing_follows_the_end(oracle, stories):
    ids = oracle.tokenizer.ids_of(stories[0].tokens)
    assert np.isneginf(oracle.next_log_probs([ids])).all()


def test_a_sum_that_does_not_add_up_is_impossible(oracle, stories):
    tokens = list(stories[0].tokens)
    at = stories[0].labels.index("sum")
    others = story.language_named(oracle.tokenizer.language).forms["total"]
    tokens[at] = others("5", "5") if tokens[at] != others("5", "5") else others("4", "5")
    scores = oracle.token_log_probs([oracle.tokenizer.ids_of(tokens)])[0]
    assert np.isfinite(scores[:at]).all()
    assert np.isneginf(scores[at])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda oracle: oracle.token_log_probs([[0, 100_000]]), "ids must be between"),
        (lambda oracle: oracle.token_log_probs([0, 1]), r"ids must have shape \(B, T\)"),
        (lambda oracle: oracle.token_log_probs([[0, 1]], [[True]]), "mask must have the shape"),
        (lambda oracle: oracle.next_log_probs([[-1]]), "ids must be between"),
        (lambda oracle: oracle.decoder([[]]).append([1, 2]), "one entry for each of the 1 rows; got 2"),
        (lambda oracle: oracle.decoder([[]]).append([-5]), "ids must be between"),
        (lambda oracle: fableworld.floor_by_label([], oracle), "at least one story"),
        (lambda oracle: fableworld.FableOracle("tlh"), "language must be one of"),
    ],
)
def test_bad_input_is_named(english_oracle, call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(english_oracle)


def test_the_floor_by_label_adds_up(floor, stories, surprisals):
    bits = sum(nats.sum() for nats in surprisals[:400]) / math.log(2)
    assert sum(part.bits for part in floor.values()) == pytest.approx(bits)
    assert sum(part.tokens for part in floor.values()) == sum(len(tale.tokens) for tale in stories[:400])
    assert sum(part.share_of_bits for part in floor.values()) == pytest.approx(1)
    assert sum(part.share_of_tokens for part in floor.values()) == pytest.approx(1)


def test_the_floor_is_mostly_not_noise_and_copies_are_free(floor):
    assert floor["noise"].share_of_bits <= 0.30
    assert floor["copy-name"].share_of_tokens >= 0.04
    # The tokens are certain; what is left is the rounding of normalised float64 weights.
    assert floor["sum"].bits_per_token == pytest.approx(0, abs=1e-12)
    assert floor["copy-attribute"].bits_per_token == pytest.approx(0, abs=1e-12)
    assert floor["topic"].share_of_bits > floor["noise"].share_of_bits


def test_a_story_of_another_world_has_no_floor(oracle):
    with pytest.raises(ValueError, match="possible in the oracle's world"):
        fableworld.floor_by_label(
            fableworld.generate(1, seed=0, language=oracle.tokenizer.language, binding=True), oracle
        )


def test_stories_sampled_from_the_oracle_are_possible_stories(oracle):
    rng = np.random.default_rng(0)
    end = oracle.tokenizer.special_tokens[fableworld.END]
    decoder, ids = oracle.decoder([[]]), []
    while not ids or ids[-1] != end:
        ids.append(int(rng.choice(oracle.vocab_size, p=np.exp(decoder.log_probs()[0]))))
        decoder.append([ids[-1]])
    assert len(ids) <= 120
    assert np.isfinite(oracle.token_log_probs([ids])).all()
