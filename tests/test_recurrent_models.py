"""Chapter 2's language models: the window, the recurrent state, generation and truncated backpropagation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.core import RecomputingDecoder
from lmcourse.generation import beam_search, generate
from lmcourse.recurrent.models import (
    CarriedState,
    RecurrentLanguageModel,
    WindowLanguageModel,
)
from lmcourse.training import StreamBatches

V = 11
MODELS = {
    "gru, two layers": {"layer": "gru", "layers": 2, "embedding_dim": 4},
    "lstm, tied, projected": {"layer": "lstm", "layers": 2, "tied": True, "embedding_dim": 3, "dropout": 0.3},
}
PREFIXES = [[4, 2], [], [7, 1, 3, 3, 9, 10, 5], [6]]


@pytest.fixture(params=list(MODELS), scope="module")
def model(request):
    """A model whose untrained weights are large enough for its distributions to differ clearly."""
    keras.utils.set_random_seed(1)
    built = RecurrentLanguageModel(V, units=6, **MODELS[request.param])
    built.build((None, None))
    built.set_weights([weights * 3 + 0.1 for weights in built.get_weights()])
    return built


def ids_of_shape(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, V, shape).astype("int32")


def test_the_decoder_equals_recomputing_after_every_step(model):
    kept, recomputed = model.decoder(PREFIXES), RecomputingDecoder(model, PREFIXES)
    moves = [[1, 2, 3, 4], [2, 0, 1, 1, 3], [5, 6, 7, 8, 9], [3, 0], [1, 10]]
    for rows in moves:
        # Float32 sums in another order (one row more or less in a matrix product): a few units of 1e-7.
        np.testing.assert_allclose(kept.log_probs(), recomputed.log_probs(), atol=1e-5, rtol=0)
        for decoder in (kept, recomputed):
            if len(rows) == len(decoder.log_probs()):
                decoder.append(rows)
            else:
                decoder.select(rows)
    assert kept.log_probs().shape == (2, V)


def test_generation_with_the_state_equals_generation_without(model):
    class Forgetful(RecurrentLanguageModel):
        def decoder(self, prefixes):
            return RecomputingDecoder(self, prefixes)

    forgetful = Forgetful.from_config(model.get_config())
    forgetful.build((None, None))
    forgetful.set_weights(model.get_weights())
    settings = {"max_new_tokens": 12, "seed": 3, "stop": [0]}
    assert generate(model, PREFIXES, **settings) == generate(forgetful, PREFIXES, **settings)
    ours, theirs = (beam_search(one, [4, 2], 8, beams=3, stop=[0]) for one in (model, forgetful))
    assert [found.ids for found in ours] == [found.ids for found in theirs]


def test_a_new_token_costs_one_step_however_long_the_text():
    read = []

    class Counting(RecurrentLanguageModel):
        def _read(self, ids, *args, **kwargs):
            tf.py_function(lambda ids: read.append(int(tf.size(ids))), [ids], [])
            return super()._read(ids, *args, **kwargs)

        def step(self, ids, states):
            tf.py_function(lambda ids: read.append(int(tf.size(ids))), [ids], [])
            return super().step(ids, states)

    counting = Counting(V, units=6)
    generate(counting, [[1, 2, 3]], 20, seed=0)
    # The start and the prompt once, then each new token once; the last one is drawn, never read.
    assert read[0] == 4
    assert len(read) <= 21
    assert set(read[1:]) == {1}


def test_reading_in_windows_with_the_state_equals_one_long_pass(model):
    ids = ids_of_shape(3, 12)
    whole, _ = model.run(ids)
    states, parts = None, []
    for start in range(0, 12, 4):
        logits, states = model.run(ids[:, start : start + 4], states)
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5, rtol=0)


def test_a_carried_state_trains_on_the_same_logits_as_one_long_pass(model):
    stream = [ids_of_shape(24).tolist()]
    batches = StreamBatches(stream, batch_size=2, time=4)
    carried = CarriedState(model, batch_size=2, reset_every=batches.steps_per_epoch)
    carried.build((2, 4))
    for layer in model.dropouts:
        layer.rate = 0.0
    x = [next(batches)[0] for _ in range(3)]
    whole = model(np.concatenate(x, axis=1))
    for _ in range(2):  # after an epoch the state begins anew
        parts = [carried(window, training=True) for window in x]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5, rtol=0)
    # Scoring begins anew and leaves the state alone.
    np.testing.assert_allclose(carried(x[1]), model(x[1]), atol=0, rtol=0)
    np.testing.assert_allclose(carried(x[0], training=True), whole[:, :4], atol=1e-5, rtol=0)
    assert int(carried.batches_read) == 7
    carried.reset_state()
    np.testing.assert_allclose(carried(x[0], training=True), whole[:, :4], atol=1e-5, rtol=0)


def test_the_gradient_ends_where_the_batch_begins():
    keras.utils.set_random_seed(0)
    model = RecurrentLanguageModel(V, units=6, embedding_dim=4)
    carried = CarriedState(model, batch_size=1)
    first, second = np.array([[1, 2, 3]], "int32"), np.array([[4, 5, 6]], "int32")
    carried.build((1, 3))

    def rows_with_gradient(read):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(read())
        gradient = tf.convert_to_tensor(tape.gradient(loss, model.embedding.embeddings.value))
        return set(np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist())

    def in_windows():
        carried(first, training=True)
        return carried(second, training=True)

    # Only what was read in the second batch gets a gradient from it; in one long pass all six tokens do.
    assert rows_with_gradient(in_windows) == {4, 5, 6}
    assert rows_with_gradient(lambda: model.run(np.concatenate([first, second], 1))[0][:, 3:]) == {
        1,
        2,
        3,
        4,
        5,
        6,
    }


def test_tied_logits_are_products_with_the_embedding():
    keras.utils.set_random_seed(0)
    tied = RecurrentLanguageModel(V, units=6, tied=True)
    ids = ids_of_shape(2, 5)
    hidden, _ = tied._read(ids, None)
    logits = tied(ids)
    np.testing.assert_allclose(logits, hidden @ tied.embedding.get_weights()[0].T, atol=1e-6, rtol=0)
    untied = RecurrentLanguageModel(V, units=6)
    untied(ids)
    assert untied.count_params() - tied.count_params() == 6 * V


def test_dropout_acts_in_training_only():
    model = RecurrentLanguageModel(V, units=6, dropout=0.5)
    ids = ids_of_shape(2, 5)
    np.testing.assert_array_equal(model(ids), model(ids))
    assert np.abs(model(ids, training=True) - model(ids, training=True)).max() > 0


@pytest.mark.parametrize("direct", [False, True])
def test_the_window_model_is_bengios_equation(direct):
    keras.utils.set_random_seed(0)
    model = WindowLanguageModel(V, window=3, embedding_dim=4, units=5, direct=direct)
    ids = ids_of_shape(1, 6)
    logits = model(ids).numpy()[0]
    table, kernel, bias, out, out_bias, *shortcut = model.get_weights()
    padded = [0, 0, *ids[0]]
    for t in range(6):
        x = np.concatenate([table[i] for i in padded[t : t + 3]])
        expected = out_bias + np.tanh(x @ kernel + bias) @ out
        if direct:
            expected = expected + x @ shortcut[0]
        np.testing.assert_allclose(logits[t], expected, atol=1e-6, rtol=0)


def test_the_window_model_reads_its_window_and_nothing_before():
    model = WindowLanguageModel(V, window=3, embedding_dim=4, units=5)
    long = model.next_log_probs([[9, 8, 7, 1, 2, 3], [2, 5, 1, 2, 3], [4, 1, 2, 3]])
    np.testing.assert_allclose(long, np.tile(long[:1], (3, 1)), atol=1e-6, rtol=0)
    scored = model.token_log_probs([[9, 8, 7, 1, 2, 3, 5]])[0, -1]
    assert long[0, 5] == pytest.approx(scored, abs=1e-6)
    assert np.abs(model.next_log_probs([[9, 1, 2]]) - model.next_log_probs([[8, 1, 2]])).max() > 1e-4


@pytest.mark.parametrize(
    "make", [lambda: RecurrentLanguageModel(V, units=4), lambda: WindowLanguageModel(V, 2, 3, 4)]
)
def test_bad_ids_are_refused_by_name(make):
    model = make()
    with pytest.raises(ValueError, match=r"ids must be between 0 and vocab_size - 1 = 10; got 11"):
        model(np.array([[1, 11]]))
    with pytest.raises(ValueError, match=r"ids must be between 0 and vocab_size - 1 = 10; got -1"):
        model(np.array([[1, -1]]))
    with pytest.raises(ValueError, match=r"ids must have shape \(B, T\); got \(2,\)"):
        model(np.array([1, 2]))
    with pytest.raises(ValueError, match="at least one row and one token"):
        model(np.zeros((0, 3), "int32"))
    with pytest.raises(ValueError, match="ids must be integers; got float32"):
        model(np.zeros((1, 3), "float32"))


def test_bad_settings_are_refused_by_name():
    for settings, message in (
        ({"vocab_size": 0}, "vocab_size must be at least 1; got 0"),
        ({"units": 0}, "units must be at least 1; got 0"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1; got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0"),
        ({"layer": "rnn"}, "layer must be one of simple, gru, lstm; got 'rnn'"),
        ({"start_id": V}, "start_id must be between 0 and vocab_size - 1 = 10; got 11"),
    ):
        with pytest.raises(ValueError, match=message):
            RecurrentLanguageModel(**{"vocab_size": V, **settings})
    with pytest.raises(ValueError, match="window must be at least 1; got 0"):
        WindowLanguageModel(V, 0)
    model = RecurrentLanguageModel(V, units=4)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        CarriedState(model, 0)
    carried = CarriedState(model, 3)
    with pytest.raises(ValueError, match="batch_size = 3 rows in training; got 2"):
        carried(np.ones((2, 4), "int32"), training=True)
    decoder = model.decoder([[1], [2, 3]])
    with pytest.raises(ValueError, match="one entry for each of the 2 rows; got 3"):
        decoder.append([1, 2, 3])
    with pytest.raises(ValueError, match="between 0 and vocab_size - 1 = 10; got 11"):
        decoder.append([1, 11])
    with pytest.raises(ValueError, match="between 0 and vocab_size - 1 = 10; got 12"):
        model.decoder([[12]])


def test_no_prefix_gives_no_row():
    assert RecurrentLanguageModel(V, units=4).decoder([]).log_probs().shape == (0, V)
