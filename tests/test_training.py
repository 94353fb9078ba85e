"""The base of neural language models, and the batches they are trained on."""

import collections
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Bigram, CausalBag

from lmcourse.core import score
from lmcourse.training import (
    DocumentBatches,
    InverseSquareRootSchedule,
    NeuralLanguageModel,
    SmoothedCrossEntropy,
    StreamBatches,
    language_model,
    next_token_loss,
)
from lmcourse.training.language_model import padded_length

documents = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=30)


def known_bigram():
    """P(0|0) = 1/2, P(1|0) = 1/4, P(2|0) = 1/4; after 1 and 2 every token has 1/3."""
    model = Bigram(3)
    model(np.zeros((1, 1), "int32"))
    model.set_weights([np.log([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])])
    return model


def made_documents(count=20, below=11, longest=30, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(below, size=generator.integers(1, longest + 1)) for _ in range(count)]


class CountsTraces(CausalBag):
    """Counts how often Python runs its `call`: once for each graph that is traced."""

    traces = 0

    def call(self, ids, training=None):
        self.traces += 1
        self.widest = max(getattr(self, "widest", 0), ids.shape[1] or 0)
        return super().call(ids, training=training)


# ---------------------------------------------------------------- scoring


def test_a_token_is_scored_given_the_one_before_and_the_first_given_the_start():
    # 0 after the start (0): 1/2; 1 after 0: 1/4; 2 after 1: 1/3
    scored = known_bigram().token_log_probs([[0, 1, 2]])
    np.testing.assert_allclose(np.exp(scored), [[1 / 2, 1 / 4, 1 / 3]], rtol=1e-6)
    assert scored.dtype == np.float64


def test_the_next_token_is_predicted_from_the_last_of_each_prefix():
    found = known_bigram().next_log_probs([[], [1, 2, 0], [1]])
    expected = [[1 / 2, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-6)


def test_no_rows_and_no_tokens_score_as_nothing():
    model = known_bigram()
    assert model.token_log_probs(np.zeros((0, 4), int)).shape == (0, 4)
    assert model.token_log_probs(np.zeros((2, 0), int)).shape == (2, 0)
    assert model.next_log_probs([]).shape == (0, 3)


def test_documents_of_fifty_lengths_are_scored_with_one_trace():
    model = CountsTraces(11)
    model(np.zeros((1, 1), "int32"))
    before = model.traces
    for length in range(1, 51):
        model.token_log_probs(np.ones((length % 7 + 1, length), int))
    assert model.traces - before == 1
    for length in range(50):
        model.next_log_probs([[1] * length])
    assert model.traces - before == 2


def test_lengths_are_padded_to_few_so_that_xla_compiles_few_times():
    sizes = {padded_length(length) for length in range(1, 1025)}
    assert len(sizes) <= 40  # 8, 16, ..., 128 and then eight for each doubling
    assert all(length <= padded_length(length) <= length * 8 / 7 for length in range(50, 1025))
    assert padded_length(97, limit=100) == 100


def test_a_corpus_is_scored_in_parts_that_give_what_the_whole_gives(monkeypatch):
    model, texts = CausalBag(11), made_documents(23)
    whole = score(model, texts)
    monkeypatch.setattr(language_model, "LOGITS_PER_CALL", 11 * 64)
    sizes = []
    padded = language_model._padded
    monkeypatch.setattr(
        language_model,
        "_padded",
        lambda a, height, width: sizes.append(height * width) or padded(a, height, width),
    )
    assert score(model, texts).nats == pytest.approx(whole.nats, rel=1e-6)  # float32 sums in another order
    assert max(sizes) == 64


def test_scores_follow_the_weights_and_the_layers_that_are_there_now():
    model = CausalBag(11)
    text = [[1, 2, 3, 4]]
    first = model.token_log_probs(text)
    model.logits.enable_lora(rank=2)
    model.logits.lora_kernel_b.assign(tf.random.normal(model.logits.lora_kernel_b.shape, seed=1))
    with_lora = model.token_log_probs(text)
    eager = tf.nn.log_softmax(model(np.array([[0, 1, 2, 3]])))
    np.testing.assert_allclose(with_lora, eager.numpy()[0, range(4), text[0]][None], rtol=1e-5)
    assert not np.allclose(first, with_lora)


def test_scoring_with_xla_gives_the_same():
    plain, compiled = Bigram(11), Bigram(11)
    compiled.compile(jit_compile=True)
    texts = np.array([[1, 2, 3], [4, 5, 6]])
    compiled(texts)
    plain(texts)
    compiled.set_weights(plain.get_weights())
    # XLA fuses and so rounds elsewhere
    np.testing.assert_allclose(compiled.token_log_probs(texts), plain.token_log_probs(texts), rtol=1e-5)


def test_more_tokens_than_the_model_can_read_are_refused():
    model = Bigram(11, max_length=4)
    assert model.token_log_probs([[1, 2, 3, 4]]).shape == (1, 4)
    assert model.next_log_probs([[1, 2, 3]]).shape == (1, 11)
    with pytest.raises(ValueError, match="ids must have at most max_length = 4 tokens a row; got 5"):
        model.token_log_probs([[1, 2, 3, 4, 5]])
    with pytest.raises(
        ValueError, match="prefixes must have, with start_id, at most max_length = 4 tokens; got 5"
    ):
        model.next_log_probs([[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="ids must have at most max_length = 4 tokens a row; got 5"):
        model(np.ones((1, 5), "int32"))


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, 2], r"ids must have shape \(B, T\); got \(2,\)"),
        ([[[1, 2]]], r"ids must have shape \(B, T\); got \(1, 1, 2\)"),
        ([[1.5]], "ids must be integers; got float64"),
        ([[-1]], "between 0 and vocab_size - 1 = 10; got -1"),
        ([[11]], "between 0 and vocab_size - 1 = 10; got 11"),
    ],
)
@pytest.mark.parametrize("kind", [np.array, tf.constant])
def test_what_is_no_batch_of_ids_is_refused_before_it_reaches_the_layers(ids, said, kind):
    said = said.replace("float64", "float32") if kind is tf.constant else said
    with pytest.raises(ValueError, match=said):
        Bigram(11)(kind(ids))


# ---------------------------------------------------------------- the loss


def test_the_loss_is_the_nats_per_token_that_score_reports():
    model, texts = Bigram(11), made_documents(8)
    x, y, weight = next(DocumentBatches(texts, 8))
    model.compile()
    assert model.test_on_batch(x, y, weight) == pytest.approx(score(model, texts).nats_per_token, rel=1e-5)
    assert model.train_on_batch(x, y, weight) == pytest.approx(math.log(11), rel=0.1)


def test_padding_adds_nothing_to_the_loss():
    logits, y = np.zeros((2, 5, 8), "float32"), np.zeros((2, 5), "int32")
    weight = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], "float32")
    assert float(next_token_loss()(y, logits, weight)) == pytest.approx(math.log(8), rel=1e-6)


def test_a_loaded_model_is_compiled_with_the_same_loss_and_optimizer(tmp_path):
    model = Bigram(11)
    model.compile(optimizer=keras.optimizers.AdamW(0.02, global_clipnorm=1.0))
    x, y, weight = next(DocumentBatches(made_documents(8), 8))
    model.train_on_batch(x, y, weight)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.global_clipnorm == 1.0
    for each in (model, loaded):
        each.reset_metrics()
    assert loaded.train_on_batch(x, y, weight) == model.train_on_batch(x, y, weight)
    assert all((a == b).all() for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))


def test_half_precision_scores_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = CausalBag(4000)
        scored = model.next_log_probs([[1, 2, 3]])
    finally:
        keras.config.set_dtype_policy("float32")
    # A sum of 4000 terms of 1/4000 in float16 would be off by about a hundredth.
    assert np.exp(scored).sum() == pytest.approx(1, abs=1e-5)


def test_a_smoothed_loss_is_the_cross_entropy_with_smoothed_one_hot_targets():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(scale=3, size=(4, 6, 9)).astype("float32"), rng.integers(9, size=(4, 6))
    weight = (rng.random((4, 6)) < 0.7).astype("float32")
    reference = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1, reduction="mean_with_sample_weight"
    )
    expected = float(reference(np.eye(9, dtype="float32")[y], logits, weight))
    assert float(next_token_loss(0.1)(y, logits, weight)) == pytest.approx(expected, rel=1e-6)


def test_a_smoothed_loss_is_smallest_at_the_smoothed_distribution():
    target = 0.9 * np.eye(5)[[2]] + 0.1 / 5  # what the loss asks for, by its definition
    logits = tf.Variable(np.log(target), dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = next_token_loss(0.1)(np.array([2]), logits)
    entropy = -(target * np.log(target)).sum()
    assert float(loss) == pytest.approx(entropy, rel=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), 0, atol=1e-6)


def test_a_smoothed_loss_is_saved_with_its_model(tmp_path):
    model = Bigram(11)
    model.compile(keras.optimizers.Adam(InverseSquareRootSchedule(16, 10, 0.5)), next_token_loss(0.2))
    x, y, weight = next(DocumentBatches(made_documents(8), 8))
    model.train_on_batch(x, y, weight)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded.loss, SmoothedCrossEntropy)
    for each in (model, loaded):
        each.reset_metrics()
    assert loaded.train_on_batch(x, y, weight) == model.train_on_batch(x, y, weight)
    assert all((a == b).all() for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))


def test_a_smoothed_loss_of_half_precision_logits_is_computed_in_float32():
    # A sum of 4000 terms in float16 would be off by about a hundredth.
    logits = tf.zeros((1, 1, 4000), tf.float16)
    assert float(next_token_loss(0.1)(np.array([[7]]), logits)) == pytest.approx(math.log(4000), rel=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_that_leaves_the_right_token_nothing_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing must be at least 0 and below 1; got {smoothing}"):
        next_token_loss(smoothing)


# ---------------------------------------------------------------- the learning rate


def test_the_papers_learning_rate_is_largest_where_its_warmup_ends():
    schedule = InverseSquareRootSchedule(512, 4000)  # the base model's, Vaswani et al. 2017, section 5.3
    rates = [float(schedule(step)) for step in (0, 1999, 3999, 15_999)]
    top = (512 * 4000) ** -0.5  # 6.99e-4
    np.testing.assert_allclose(rates, [top / 4000, top / 2, top, top / 2], rtol=1e-5)


def test_a_learning_rate_that_cannot_be_is_refused():
    for arguments, said in (
        ((0, 10), "width must be at least 1; got 0"),
        ((8, 0), "warmup_steps must be at least 1; got 0"),
        ((8, 10, 0.0), "scale must be above 0; got 0.0"),
    ):
        with pytest.raises(ValueError, match=said):
            InverseSquareRootSchedule(*arguments)


# ---------------------------------------------------------------- documents as rows


@settings(deadline=None, max_examples=30)
@given(documents, st.integers(1, 6), st.integers(0, 3))
def test_an_epoch_holds_every_document_once_with_its_start(texts, batch_size, seed):
    batches = DocumentBatches(texts, batch_size, start_id=3, seed=seed)
    seen = collections.Counter()
    for _ in range(batches.steps_per_epoch):
        x, y, weight = next(batches)
        assert x.shape == y.shape == weight.shape == (batch_size, x.shape[1])
        for read, predicted, count in zip(x, y, weight.sum(axis=1).astype(int), strict=True):
            if count:
                seen[tuple(predicted[:count])] += 1
                assert read[:count].tolist() == [3, *predicted[: count - 1]]
            assert not read[count:].any()
    assert seen == collections.Counter(tuple(text) for text in texts)


@given(documents, st.integers(1, 9))
def test_a_document_longer_than_a_row_goes_on_in_the_next(texts, max_length):
    batches = DocumentBatches(texts, 4, max_length=max_length)
    pairs = collections.Counter()
    for _ in range(batches.steps_per_epoch):
        x, y, weight = next(batches)
        assert x.shape[1] <= max_length
        pairs.update(zip(x[weight > 0].tolist(), y[weight > 0].tolist(), strict=True))
    assert pairs == collections.Counter(p for text in texts for p in zip([0, *text[:-1]], text, strict=True))


def test_rows_come_in_few_widths_and_little_padding():
    texts = made_documents(1000, longest=120)
    batches = DocumentBatches(texts, 16)
    shapes, tokens, cells = set(), 0, 0
    for _ in range(batches.steps_per_epoch):
        _, y, weight = next(batches)
        shapes.add(y.shape)
        tokens, cells = tokens + weight.sum(), cells + weight.size
    assert len(shapes) <= 6
    assert tokens == sum(map(len, texts))
    # Uniform lengths to 120 in six widths of 20: ten tokens of padding on a mean of sixty, and some for the last rows.
    assert 1 - tokens / cells < 0.18


# ---------------------------------------------------------------- a stream


@settings(deadline=None)
@given(documents, st.integers(1, 3), st.integers(1, 4), st.integers(0, 3))
def test_rows_go_on_where_the_batch_before_ended_and_lose_less_than_a_batch(texts, batch_size, time, seed):
    total = sum(map(len, texts))
    if total < batch_size * time:
        return
    batches = StreamBatches(texts, batch_size, time, seed=seed)
    epoch = [next(batches) for _ in range(batches.steps_per_epoch)]
    x, y = (np.concatenate([batch[side] for batch in epoch], axis=1) for side in (0, 1))
    for row in range(batch_size):
        for t in range(1, x.shape[1]):
            assert x[row, t] in (y[row, t - 1], 0)  # what was predicted last, or the start of a document
    assert total - y.size < batch_size * time
    assert all((weight == 1).all() for _, _, weight in epoch)
    seen, there = (
        collections.Counter(y.ravel().tolist()),
        collections.Counter(t for text in texts for t in text),
    )
    assert seen <= there


def test_a_stream_reads_the_documents_in_a_new_order_each_epoch():
    texts = [[1, 2, 0], [3, 4, 5, 0], [6, 0]]  # with end token 0
    batches = StreamBatches(texts, batch_size=1, time=9)
    orders = set()
    for _ in range(20):
        x, y, _ = next(batches)
        assert x[0].tolist() == [0, *y[0, :-1]]
        assert sorted(y[0].tolist()) == [0, 0, 0, 1, 2, 3, 4, 5, 6]
        orders.add(tuple(y[0].tolist()))
    assert len(orders) == 6  # 3! orders; one is missed in 20 draws with probability 6 (5/6)^20 = 0.16


def test_a_stream_starts_each_document_with_the_start_even_without_end_tokens():
    x, y, _ = next(StreamBatches([[1, 2], [3, 4]], batch_size=1, time=4, start_id=7))
    assert x[0].tolist() in ([7, 1, 7, 3], [7, 3, 7, 1])
    assert (x[0, 1], x[0, 3]) == (y[0, 0], y[0, 2])


# ---------------------------------------------------------------- both


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: DocumentBatches(made_documents(), 3, seed=seed),
        lambda seed: StreamBatches(made_documents(), 3, 5, seed=seed),
    ],
    ids=["documents", "stream"],
)
def test_a_batch_is_decided_by_seed_and_position_alone(make):
    batches, other = make(0), make(0)
    read = [next(batches) for _ in range(3 * batches.steps_per_epoch)]
    for position in (len(read) - 1, 0, batches.steps_per_epoch + 1):
        other.position = position
        for a, b in zip(next(other), read[position], strict=True):
            np.testing.assert_array_equal(a, b)
        assert other.position == position + 1
    assert any((a[1] != b[1]).any() for a, b in zip(read, make(1), strict=False) if a[1].shape == b[1].shape)
    assert [array.dtype for array in read[0]] == [np.int32, np.int32, np.float32]


def test_the_identity_tells_other_data_and_other_settings():
    texts = made_documents()
    same = [DocumentBatches(texts, 3), DocumentBatches([list(text) for text in texts], 3)]
    other = [
        DocumentBatches(texts, 4),
        DocumentBatches(texts, 3, seed=1),
        DocumentBatches(texts[:-1], 3),
        DocumentBatches([*texts[:-2], np.concatenate(texts[-2:])], 3),
        DocumentBatches(texts, 3, start_id=1),
        StreamBatches(texts, 3, 5),
    ]
    assert len({batches.identity for batches in same}) == 1
    assert len({batches.identity for batches in same + other}) == 1 + len(other)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DocumentBatches([], 2), "documents must hold at least one document; got none"),
        (lambda: DocumentBatches([[1], []], 2), r"documents\[1\] must hold at least one token"),
        (lambda: DocumentBatches([[1, -2]], 2), r"documents\[0\] must hold ids, 0 or more; got -2"),
        (lambda: DocumentBatches([1, 2], 2), r"documents\[0\] must be a sequence of integer ids"),
        (lambda: DocumentBatches([[1]], 0), "batch_size must be at least 1; got 0"),
        (lambda: DocumentBatches([[1]], 1, max_length=0), "max_length must be at least 1, or None; got 0"),
        (lambda: DocumentBatches([[1]], 1, start_id=-1), "start_id must be an id, 0 or more; got -1"),
        (lambda: StreamBatches([[1]], 1, 0), "time must be at least 1; got 0"),
        (lambda: StreamBatches([[1] * 9], 2, 5), "fill one batch of 2 x 5 = 10 tokens; they have 9"),
    ],
)
def test_what_makes_no_batches_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_subclass_needs_no_more_than_a_call():
    class Uniform(NeuralLanguageModel):
        vocab_size = 5

        def call(self, ids, training=None):
            return tf.zeros((*tf.unstack(tf.shape(ids)), 5))

    assert score(Uniform(), [[1, 2, 3], [4]]).perplexity == pytest.approx(5, rel=1e-6)
