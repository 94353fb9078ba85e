"""Chapter 2's package: word vectors, gradients through time, parameters by formula, and the longer runs."""

import json
import time
from collections import Counter

import keras
import numpy as np
import pytest

from lmcourse import results
from lmcourse.datasets import fableworld
from lmcourse.paths import course_root
from lmcourse.recurrent import (
    GRU,
    LAYERS,
    RecurrentLanguageModel,
    SkipGram,
    cosine_similarities,
    gradient_norms,
    language_model_parameters,
    layer_parameters,
    mean_rank,
    neighbours,
    noise_distribution,
    recurrent_layer,
    skipgram_pairs,
    train_stretched,
)
from lmcourse.recurrent.experiments import EXPERIMENTS, hold_out

# Words that fill the same slots of the stories, so that the same words stand around them.
SAME_SLOT = (
    ("Ada", "Bruno", "Clara", "Emil", "Flora", "Hugo", "Iris", "Jasper", "Mira", "Otto", "Tilda", "Victor"),
    ("two", "three", "four", "five", "six"),
    ("stormy", "icy", "rainy", "snowy", "frosty", "misty", "sunny", "windy"),
)


def test_pairs_are_all_tokens_within_the_window():
    documents = [[1, 2, 3, 4], [5], [2, 2]]
    for window in (1, 2, 3):
        expected = Counter(
            (row[i], row[j])
            for row in documents
            for i in range(len(row))
            for j in range(len(row))
            if i != j and abs(i - j) <= window
        )
        assert Counter(map(tuple, skipgram_pairs(documents, window).tolist())) == expected


@pytest.mark.parametrize("negatives", [5, 0])
def test_words_of_the_same_slot_become_neighbours(negatives):
    tokenizer = fableworld.FableTokenizer()
    stories = [tokenizer.ids_of(story.tokens) for story in fableworld.load("train", tokens=50_000)]
    model = SkipGram(tokenizer.vocab_size, 24, negatives=negatives)
    groups = [tokenizer.ids_of(group) for group in SAME_SLOT]
    # Before training the vectors are random, and the mean rank is that of chance, 1/2: over 12 · 11 + 5 · 4 + 8 · 7
    # = 208 pairs its standard error is about 0.29 / sqrt(104) = 0.03.
    assert mean_rank(model.vectors, groups) == pytest.approx(0.5, abs=0.12)
    began = time.process_time()
    model.learn(stories, steps=400 if negatives else 200, seed=1)
    seconds = time.process_time() - began
    # Where each group's closest words are the others of the group, the mean is 4.2 / 378 = 0.011.
    assert mean_rank(model.vectors, groups) < 0.1
    assert mean_rank(model.vectors, groups[:1]) < 0.02
    assert seconds < 10
    assert tokenizer.tokens[neighbours(model.vectors, groups[0][0])[0][0]] in SAME_SLOT[0]


def test_learning_is_repeatable_and_lowers_the_loss_of_real_pairs():
    documents = [[1, 2] * 20, [3, 4] * 20]
    first, again = (
        SkipGram(5, 4, seed=3).learn(documents, steps=50, batch_size=64, seed=2) for _ in range(2)
    )
    np.testing.assert_array_equal(first.vectors, again.vectors)
    first.learn(documents, steps=200, batch_size=64, window=1)
    scores = first((np.array([1, 3]), np.array([[2, 4, 3, 1], [4, 2, 1, 3]]))).numpy()
    assert (scores[:, 0] > scores[:, 1:3].max(axis=1)).all()  # 2 follows 1, and 4 follows 3


def test_skip_gram_saves_and_loads(tmp_path):
    model = SkipGram(5, 3, negatives=2).learn([[1, 2, 3, 4]], steps=3)
    model.save(tmp_path / "vectors.keras")
    loaded = keras.saving.load_model(tmp_path / "vectors.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.vectors, model.vectors)
    assert loaded.get_config() == model.get_config()


def test_noise_is_the_counts_to_three_quarters():
    found = noise_distribution([81, 16, 0])
    np.testing.assert_allclose(found, [27 / 35, 8 / 35, 0], rtol=1e-15)


def test_cosines_do_not_depend_on_length():
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    stretched = vectors * np.arange(1, 7)[:, None]
    np.testing.assert_allclose(cosine_similarities(stretched), cosine_similarities(vectors), atol=1e-15)
    np.testing.assert_allclose(np.diag(cosine_similarities(vectors)), 1, atol=1e-15)
    assert cosine_similarities([[0.0, 0.0], [1.0, 0.0]])[0].tolist() == [0, 0]


def test_the_mean_rank_of_a_known_order():
    # On a circle at 0°, 10°, 30° and 100°: from 0° the others come in this order, from 30°: 10°, 0°, 100°.
    angles = np.radians([0, 10, 30, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert mean_rank(vectors, [[0, 2]]) == pytest.approx((1 + 1) / 2 / 2)
    assert mean_rank(vectors, [[0, 3]]) == pytest.approx((2 + 2) / 2 / 2)
    assert [token for token, _ in neighbours(vectors, 2, count=3)] == [1, 0, 3]


def test_bad_word_vector_settings_are_refused_by_name():
    model = SkipGram(5, 3)
    for wrong, message in (
        (lambda: SkipGram(0), "vocab_size must be at least 1; got 0"),
        (lambda: SkipGram(5, 0), "embedding_dim must be at least 1; got 0"),
        (lambda: SkipGram(5, negatives=-1), "negatives must be at least 0; got -1"),
        (
            lambda: model.learn([[1, 5]]),
            r"documents\[0\] must hold ids between 0 and vocab_size - 1 = 4; got 5",
        ),
        (lambda: model.learn([[1, 2]], steps=0), "steps must be at least 1; got 0"),
        (lambda: model.learn([[1], [2]]), "at least one pair of tokens"),
        (lambda: skipgram_pairs([[1, 2]], 0), "window must be at least 1; got 0"),
        (lambda: noise_distribution([0, 0]), "counts must be non-negative numbers"),
        (lambda: cosine_similarities([1.0, 2.0]), r"vectors must have shape \(V, E\); got \(2,\)"),
        (lambda: neighbours(np.eye(3), 3), "token must be between 0 and V - 1 = 2; got 3"),
        (lambda: neighbours(np.eye(3), 0, count=0), "count must be at least 1; got 0"),
        (lambda: mean_rank(np.eye(3), [[1]]), "groups must be sequences of at least two ids"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_a_linear_networks_gradient_is_multiplied_by_the_gain_at_every_step():
    layer = recurrent_layer("simple", units=8, width=8, gain=0.9)
    layer.activation = keras.activations.linear
    norms = gradient_norms(layer, length=20)
    # Orthogonal times gain: x_t's gradient is W U^k d, so the norms fall like gain^k but for W's own directions.
    whole = np.sqrt(norms[10:].mean() / norms[:10].mean())
    assert whole == pytest.approx(0.9**5, rel=0.1)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradient_norms_equal_finite_differences(kind):
    layer = recurrent_layer(kind, units=3, width=2)
    layer = type(layer).from_config({**layer.get_config(), "dtype": "float64"})
    layer.build((1, 6, 2))
    inputs = np.random.default_rng(0).normal(size=(1, 6, 2))
    norms = gradient_norms(layer, 6, inputs=inputs, seed=5)
    direction = np.random.default_rng(5).normal(size=(1, 3))
    for distance in (0, 2, 5):
        numeric = []
        for d in range(2):
            ends = []
            for sign in (1, -1):
                moved = inputs.copy()
                moved[0, 5 - distance, d] += sign * 1e-5
                ends.append(float((layer(moved)[:, -1].numpy() * direction).sum()))
            numeric.append((ends[0] - ends[1]) / 2e-5)
        assert norms[distance] == pytest.approx(np.linalg.norm(numeric), rel=1e-6)


def test_a_small_gain_fades_the_gradient_and_a_large_one_bursts_it():
    fading, bursting = (gradient_norms("simple", 40, gain=gain) for gain in (0.5, 3.0))
    assert fading[39] < 0.5**39 * fading[0] * 10
    assert bursting[39] > 10 * bursting[0]


def test_an_open_forget_gate_keeps_the_gradient_where_a_simple_network_loses_it():
    lstm = recurrent_layer("lstm", units=32, width=32)
    bias = lstm.bias.numpy()
    bias[32:64] = 6.0  # sigmoid(6) = 0.9975: over 59 steps at least 0.86 of the cell is kept on average
    lstm.bias.assign(bias)
    kept, lost = gradient_norms(lstm, 60), gradient_norms("simple", 60, units=32)
    assert kept[59] > 0.01 * kept[0]
    assert lost[59] < 1e-6 * lost[0]


def test_clipping_cures_what_bursts():
    plain, clipped = (train_stretched(1.1, clip=clip, steps=40) for clip in (None, 1.0))
    assert clipped.gradient_norm[0] == pytest.approx(plain.gradient_norm[0], rel=1e-5)
    assert plain.gradient_norm[0] > 100
    assert not np.isfinite(plain.loss[-1])
    assert np.isfinite(clipped.loss).all()
    assert clipped.loss[-5:].mean() < 0.1 * clipped.loss[:5].mean()


def test_bad_gradient_settings_are_refused_by_name():
    for wrong, message in (
        (lambda: gradient_norms("lstm", 0), "length must be at least 1; got 0"),
        (lambda: gradient_norms("rnn"), "layer must be one of simple, gru, lstm; got 'rnn'"),
        (lambda: gradient_norms("gru", inputs=np.zeros((2, 64))), r"sequences must have shape \(B, T, D\)"),
        (lambda: train_stretched(1.0, steps=0), "steps and length must be at least 1; got 0 and 30"),
        (lambda: train_stretched(1.0, clip=0.0), "clip must be positive, or None; got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("width", "units"), [(3, 5), (7, 2)])
def test_a_layers_parameters_follow_the_formula(kind, width, units):
    layer = LAYERS[kind](units)
    layer.build((None, None, width))
    assert layer_parameters(kind, width, units) == layer.count_params()
    if kind == "gru":
        before = GRU(units, reset_after=False)
        before.build((None, None, width))
        assert layer_parameters(kind, width, units, reset_after=False) == before.count_params()


def test_the_model_of_10000_words_has_4769552_parameters():
    # Claim 3, by hand: 10,000 · 128; 4 · 256 · (128 + 256 + 1); 4 · 256 · (256 + 256 + 1); (256 + 1) · 10,000.
    by_hand = [1_280_000, 394_240, 525_312, 2_570_000]
    parts = language_model_parameters(10_000, 128, [256, 256])
    assert list(parts.values()) == by_hand
    model = RecurrentLanguageModel(10_000, units=256, layers=2, embedding_dim=128)
    model.build((None, None))
    assert model.count_params() == sum(by_hand) == 4_769_552
    counted = [model.embedding, *model.recurrent, model.to_logits]
    assert [layer.count_params() for layer in counted] == by_hand
    # Keras's own layers, stacked: the same count.
    theirs = keras.Sequential(
        [
            keras.layers.Embedding(10_000, 128),
            keras.layers.LSTM(256, return_sequences=True),
            keras.layers.LSTM(256, return_sequences=True),
            keras.layers.Dense(10_000),
        ]
    )
    theirs.build((None, None))
    assert theirs.count_params() == 4_769_552


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("embedding_dim", [4, 6])
def test_a_language_models_parameters_follow_the_formula(layer, tied, embedding_dim):
    model = RecurrentLanguageModel(11, layer=layer, units=6, layers=2, embedding_dim=embedding_dim, tied=tied)
    model.build((None, None))
    parts = language_model_parameters(11, embedding_dim, [6, 6], layer=layer, tied=tied)
    assert sum(parts.values()) == model.count_params()


def test_bad_counts_are_refused_by_name():
    with pytest.raises(ValueError, match="units must have one number for each recurrent layer"):
        language_model_parameters(10, 4, [])
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        layer_parameters("lstm", 0, 4)


# Small enough for seconds, large enough that every line of the experiment runs.
TINY = {
    "fableworld": {"tokens": 3_000, "epochs": 1, "units": 8, "embedding_dim": 8},
    "pythondocs": {
        "characters": 3_000,
        "steps": 12,
        "batch_size": 4,
        "time": 16,
        "units": 8,
        "embedding_dim": 4,
    },
}


@pytest.mark.parametrize("name", ["fableworld-window", "pythondocs-lstm-20,000"])
def test_an_experiment_measures_what_chapter_1_measures(name, monkeypatch):
    monkeypatch.setattr("lmcourse.ngram.experiments.TEST_TOKENS", 2_000)
    monkeypatch.setattr("lmcourse.ngram.experiments.VALIDATION_TOKENS", 2_000)
    experiment = EXPERIMENTS[name]
    assert experiment.seeds == (0, 1, 2)
    json.dumps(dict(experiment.settings))
    found = experiment.measure(0, **{**experiment.settings, **TINY[experiment.dataset]})
    rows = results.load("01", course_root() / "data" / "results")
    theirs = next(row for row in rows if row.dataset == experiment.dataset)
    assert set(theirs.metrics) - {"ngrams"} <= set(found.metrics)
    assert len(found.data_sha256) == 64
    worst = np.log2(fableworld.FableTokenizer().vocab_size) + 1
    reached = found.metrics["bits_per_token" if experiment.dataset == "fableworld" else "bits_per_byte"]
    assert 0.6 < reached < worst


def test_an_8_gram_stands_beside_each_lstm_on_the_same_characters():
    lstms = [name for name in EXPERIMENTS if name.startswith("pythondocs-lstm")]
    assert len(lstms) == 3
    for name in lstms:
        size = EXPERIMENTS[name].settings["characters"]
        if size is not None:  # chapter 1 has the row of all characters
            ngram = EXPERIMENTS[name.replace("lstm", "8-gram")]
            assert ngram.settings["characters"] == size
            assert ngram.measure(0, **ngram.settings).metrics["bits_per_byte"] < 4.6  # the unigram's


def test_held_out_ends_and_training_text_make_up_the_documents():
    documents = [list(range(100)), [1], list(range(10))]
    train, held_out = hold_out(documents, share=0.1)
    assert train == [list(range(90)), [1], list(range(9))]
    assert held_out == [list(range(90, 100)), [9]]
