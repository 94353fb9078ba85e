"""Shannon's guessing game, and chapter 1's experiments on little data."""

import math

import numpy as np
import pytest

from lmcourse.ngram import GuessingGame, NgramModel, entropy_bounds_bits, guess_ranks
from lmcourse.ngram.experiments import EXPERIMENTS, measure_fableworld, measure_pythondocs
from lmcourse.text import CharTokenizer, WordTokenizer

TEXT = "abracadabra"


@pytest.fixture
def tokenizer():
    return CharTokenizer.train(TEXT)


@pytest.fixture
def model(tokenizer):
    return NgramModel(2, tokenizer.vocab_size, "mle").fit([tokenizer.encode(TEXT)])


def test_the_likeliest_token_takes_one_guess(model, tokenizer):
    # After b, r, c and d only one letter was ever seen; after a: b twice, c and d once.
    ranks = guess_ranks(model, tokenizer.encode(TEXT))
    assert [ranks[i] for i in (2, 3, 5, 7)] == [1, 1, 1, 1]  # br, ra, ca, da
    assert [ranks[i] for i in (1, 4, 6)] == [1, 2, 3]  # ab, ac, ad: ties by id


def test_equal_shares_of_two_guesses_bound_the_entropy_by_one_bit():
    # Shannon 1951, equation 17, by hand: q = (1/2, 1/2): upper 1 bit; lower 2·(1/2)·log2 2 = 1 bit.
    assert entropy_bounds_bits([1, 2, 1, 2]) == pytest.approx((1, 1))
    # q = (3/4, 1/4): upper 0.811; lower 1·(1/2)·0 + 2·(1/4)·1 = 0.5.
    assert entropy_bounds_bits([1, 1, 1, 2]) == pytest.approx((0.5, 0.75 * math.log2(4 / 3) + 0.25 * 2))


@pytest.mark.parametrize("ranks", [[], [1, 0]])
def test_bounds_refuse_what_is_no_number_of_guesses(ranks):
    with pytest.raises(ValueError, match="1 or more"):
        entropy_bounds_bits(ranks)


def test_the_game_counts_guesses_until_the_text_is_found(model, tokenizer):
    game = GuessingGame(model, tokenizer, "abra", given=2)
    assert [game.guess(c) for c in "xyra"] == [False, False, True, True]
    assert (game.shown, game.guesses, game.over) == ("abra", [3, 1], True)
    assert game.score_line() == "2 found: you needed 2.00 guesses a character, the model 1.00."
    with pytest.raises(ValueError, match="the game is over"):
        game.guess("a")


def test_impossible_games_and_guesses_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="given must be between 0 and 3"):
        GuessingGame(model, tokenizer, "abra", given=4)
    with pytest.raises(ValueError, match="one id for each character; got 1 for 4"):
        GuessingGame(model, WordTokenizer.train([TEXT]), "abra", given=1)
    with pytest.raises(ValueError, match="one character; got 'ab'"):
        GuessingGame(model, tokenizer, "abra", given=1).guess("ab")


def test_without_a_live_notebook_the_game_shows_the_models_play(model, tokenizer):
    tokenizer = CharTokenizer.train("<a b>")
    model = NgramModel(1, tokenizer.vocab_size).fit([tokenizer.encode("<a b>")])
    bundle = GuessingGame(model, tokenizer, "<a b>", given=1)._repr_mimebundle_()
    assert "&lt;" in bundle["text/html"]
    assert "␣" in bundle["text/html"]
    assert bundle["text/html"].count("<td") == 5


def test_the_widget_plays_the_game(model, tokenizer):
    game = GuessingGame(model, tokenizer, "abra", given=1)
    found, entry, score = game.widget().children
    for typed in ("c", "b", "r", "a"):
        entry.value = typed
    assert "abra" in found.value
    assert "3 found: you needed 1.33 guesses" in score.value
    assert entry.disabled


def test_excess_on_fableworld_is_the_sum_of_its_parts():
    metrics = measure_fableworld(0, order=3, smoothing="witten-bell", tokens=5_000).metrics
    parts = [
        value
        for name, value in metrics.items()
        if name.startswith("excess_") and name != "excess_bits_per_token"
    ]
    assert sum(parts) == pytest.approx(metrics["excess_bits_per_token"])
    assert metrics["excess_bits_per_token"] > 0
    assert metrics["bits_per_token"] - metrics["floor_bits_per_token"] == pytest.approx(sum(parts))


def test_pythondocs_are_measured_in_bits_per_byte_with_and_without_merges():
    characters = measure_pythondocs(0, order=3, smoothing="kneser-ney", merges=0)
    pieces = measure_pythondocs(0, order=3, smoothing="kneser-ney", merges=200)
    assert characters.data_sha256 == pieces.data_sha256
    assert pieces.metrics["tokens"] < characters.metrics["tokens"]
    # More context in the same number of tokens.
    assert pieces.metrics["bits_per_byte"] < characters.metrics["bits_per_byte"] < np.log2(103)


def test_every_model_has_the_same_measure_on_the_same_data():
    for experiment in EXPERIMENTS.values():
        assert (
            experiment.measure
            is {"fableworld": measure_fableworld, "pythondocs": measure_pythondocs}[experiment.dataset]
        )
        assert len(experiment.seeds) == 3
