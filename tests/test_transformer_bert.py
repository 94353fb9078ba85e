"""BERT, what it learns from, and that it learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from contract import Case, LayerContract, ids

from lmcourse.training import fit
from lmcourse.transformer import BertConfig
from lmcourse.transformer.bert import FOLLOWS, RANDOM, Bert
from lmcourse.transformer.masking import (
    Hiding,
    MaskedBatches,
    NextSentenceBatches,
    masked_accuracy,
    score_masked,
)

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}

CLS, SEP, MASK = 0, 1, 2
SPECIALS = {"mask_id": MASK, "start_id": CLS, "end_id": SEP}


def small(**changes):
    sizes = {"vocab_size": 11, "width": 8, "depth": 1, "num_heads": 2, "hidden_dim": 16, "max_length": 12}
    # Larger than usual, so that what depends on what shows.
    return BertConfig(**{**sizes, "initializer_stddev": 0.5, **changes})


@keras.saving.register_keras_serializable(package="lmcourse_tests")
class Positional(keras.Model):
    """Bert called as the contract calls: ids and segments by place, the mask by name."""

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        self.bert = Bert(config)

    def build(self, *shapes):
        self.bert.build()
        self.built = True

    def call(self, ids, segments, mask=None, training=None):
        inputs = {"ids": ids, "segments": segments}
        return self.bert(inputs if mask is None else {**inputs, "mask": mask}, training=training)

    def get_config(self):
        return {**super().get_config(), "config": self.bert.config.to_dict()}


INPUTS = [ids(2, 6, below=11), ids(2, 6, below=2)]


class TestBert(LayerContract):
    cases = (
        Case(
            "heads",
            lambda: Positional(small().to_dict()),
            INPUTS,
            masked=lambda real: {"mask": real},
            wrong=[
                (
                    [np.full((1, 13), 3), np.zeros((1, 13), int)],
                    "at most max_length = 12 tokens a row; got 13",
                ),
                ([np.full((1, 2), 11), np.zeros((1, 2), int)], "vocab_size - 1 = 10; got 11"),
                ([np.full((1, 2), 3), np.full((1, 2), 2)], "segments must be between 0 and 1; got 2"),
                ([np.full((1, 2), 3), np.full((1, 2), -1)], "segments must be between 0 and 1; got -1"),
                ([np.full((1, 2), 3), np.zeros((1, 3), int)], "segments must have the shape of ids"),
            ],
        ),
        Case(
            "no heads",
            lambda: Positional(small(heads=False, pooler=False, activation="relu").to_dict()),
            INPUTS,
            masked=lambda real: {"mask": real},
        ),
    )


# --- the model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": False},
        {"heads": False, "pooler": False},
        {"norm": "rms", "positions": "rotary", "activation": "swiglu", "use_bias": False, "segments": 3},
        {"norm_first": True, "num_kv_heads": 1, "head_dim": 6},
    ],
)
def test_the_parameters_are_those_of_the_formula(changes):
    model = Bert(small(**changes))
    model.build()
    assert model.count_params() == model.config.parameter_count()


def test_bert_bases_parameters_are_the_published_ones():
    # 110M in table 1 of the paper; the exact numbers are those of the published weights, without and with heads.
    base = BertConfig.preset("bert-base")
    assert base.changed(heads=False).parameter_count() == 109_482_240
    assert base.parameter_count() == 109_482_240 + 768 * 769 + 2 * 768 + 30_522 + 2 * 769 == 110_106_428


def test_inputs_that_are_left_out_are_those_of_one_text_without_padding():
    model, row = Bert(small()), ids(2, 6, below=11)
    plain = model({"ids": row})
    full = model({"ids": row, "mask": np.ones((2, 6), bool), "segments": np.zeros((2, 6), int)})
    for name in ("tokens", "next_sentence"):
        np.testing.assert_allclose(plain[name], full[name], **FLOAT32)


def test_each_token_sees_what_comes_later():
    model, row = Bert(small()), ids(1, 6, below=11)
    other = row.copy()
    other[0, 5] = (row[0, 5] + 1) % 11
    difference = np.abs(model({"ids": row})["tokens"] - model({"ids": other})["tokens"]).max(axis=-1)[0]
    assert (difference > 1e-3).all()


def test_segments_change_what_is_read():
    model, row = Bert(small()), ids(1, 6, below=11)
    second = model({"ids": row, "segments": np.array([[0, 0, 0, 1, 1, 1]])})["tokens"]
    assert np.abs(second - model({"ids": row})["tokens"]).max() > 1e-2


def test_a_row_of_padding_alone_is_finite():
    model = Bert(small())
    scores = model({"ids": np.zeros((2, 4), int), "mask": np.array([[True] * 4, [False] * 4])})
    assert all(np.isfinite(part).all() for part in scores.values())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 3), int), "inputs must be a dict with 'ids' .*; got ndarray"),
        ({"mask": np.ones((1, 3), bool)}, r"inputs must be a dict with 'ids' .*; got \['mask'\]"),
        ({"ids": np.zeros((1, 3), int), "segment": np.zeros((1, 3), int)}, r"got \['ids', 'segment'\]"),
        ({"ids": np.zeros((0, 3), int)}, r"ids must have shape \(B, T\), neither of them zero; got \(0, 3\)"),
        ({"ids": np.zeros((1, 3), int), "mask": np.ones((3,), bool)}, r"mask must have the shape of ids"),
    ],
)
def test_inputs_of_another_form_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        Bert(small())(inputs)
    with pytest.raises(ValueError, match=message):
        Bert(small()).encode(inputs)


def test_the_loss_counts_chosen_tokens_and_adds_the_next_sentence():
    model = Bert(small())
    model.compile()
    y = np.array([[3, 4, 5], [6, 7, 8]])
    weight = np.array([[1, 0, 0], [0, 1, 1]], "float32")
    scores = model({"ids": y})
    log_probs = {name: np.asarray(tf.nn.log_softmax(part)) for name, part in scores.items()}
    tokens = -np.mean([log_probs["tokens"][b, t, y[b, t]] for b, t in ((0, 0), (1, 1), (1, 2))])
    found = model.compute_loss(y=y, y_pred=scores, sample_weight=weight)
    assert float(found) == pytest.approx(tokens, rel=1e-5)
    following = np.array([RANDOM, FOLLOWS])
    both = model.compute_loss(
        y={"tokens": y, "next_sentence": following}, y_pred=scores, sample_weight=weight
    )
    sentence = -(log_probs["next_sentence"][0, RANDOM] + log_probs["next_sentence"][1, FOLLOWS]) / 2
    assert float(both) == pytest.approx(tokens + sentence, rel=1e-5)


def test_a_model_without_heads_has_no_loss_of_its_own():
    model = Bert(small(heads=False))
    model.compile()
    with pytest.raises(ValueError, match="heads must be True in the config, or compile be given a loss"):
        model.compute_loss(y=np.zeros((1, 2)), y_pred=model({"ids": np.ones((1, 2), int)}))


# --- what is hidden


def test_of_a_hundred_tokens_fifteen_are_chosen_in_each_row_and_no_special_one():
    hiding = Hiding(vocab_size=50, special_ids=(3, 4), **SPECIALS)
    row = np.tile(np.arange(5, 30), (40, 5))  # 125 tokens
    row[:, ::5] = 3  # of which 25 are special
    mask = np.ones(row.shape, bool)
    seen, chosen = hiding.hide(row, mask, np.random.default_rng(0))
    assert (chosen.sum(axis=1) == 15).all()
    assert not chosen[:, ::5].any()
    np.testing.assert_array_equal(seen[~chosen], row[~chosen])


def test_of_the_chosen_eighty_percent_are_masked_ten_random_and_ten_kept():
    hiding = Hiding(vocab_size=1000, **SPECIALS)
    row = np.random.default_rng(1).integers(3, 1000, (400, 200))
    seen, chosen = hiding.hide(row, np.ones(row.shape, bool), np.random.default_rng(0))
    assert chosen.sum() == 400 * 30
    shares = [np.mean(seen[chosen] == MASK), np.mean(seen[chosen] == row[chosen])]
    # 12,000 draws: a standard deviation of 0.0037 at 0.8 and 0.0027 at 0.1; five of them
    assert shares[0] == pytest.approx(0.8, abs=0.019)
    assert shares[1] == pytest.approx(0.1 + 0.1 / 997, abs=0.014)
    random = seen[chosen & (seen != MASK) & (seen != row)]
    assert random.min() > MASK  # no special id
    assert len(np.unique(random)) > 600  # of 997, drawn about 1,200 times


def test_every_row_with_text_has_something_to_guess_and_padding_has_not():
    hiding = Hiding(vocab_size=9, **SPECIALS)
    row = np.array([[CLS, 5, SEP, 0], [CLS, 5, 6, SEP], [CLS, SEP, 7, 7]])
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    _, chosen = hiding.hide(row, mask, np.random.default_rng(0))
    assert chosen[0].tolist() == [False, True, False, False]
    assert chosen[1].sum() == 1
    assert not chosen[2].any()


def test_ids_that_cannot_be_hidden_are_refused():
    with pytest.raises(ValueError, match=r"ids must be between 0 and vocab_size - 1 = 19; got 20"):
        HIDING.hide(np.array([[20]]), np.ones((1, 1), bool), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"mask must have the shape of ids, \(1, 2\); got \(1, 1\)"):
        HIDING.hide(np.array([[5, 6]]), np.ones((1, 1), bool), np.random.default_rng(0))
    seen, _ = HIDING.hide(np.array([[5, 6]], np.int16), np.ones((1, 2), bool), np.random.default_rng(0))
    assert seen.dtype == np.int16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_id": 9}, r"mask_id must be between 0 and vocab_size - 1 = 8; got 9"),
        ({"start_id": -1}, "start_id must be between .* got -1"),
        ({"special_ids": (3, 12)}, "special_ids must be between .* got 12"),
        ({"start_id": 1.5}, r"start_id must be an integer or None; got 1\.5"),
        ({"mask_id": None}, "mask_id must be an integer; got None"),
        ({"special_ids": (3, "4")}, "special_ids must be an integer; got '4'"),
        ({"special_ids": 3}, r"special_ids must be several ids; got 3"),
        ({"share": 0.0}, r"share must be above 0 and at most 1; got 0\.0"),
        ({"share": np.nan}, "share must be a finite number; got nan"),
        ({"share": "0.15"}, "share must be a finite number; got '0.15'"),
        ({"masked": np.nan}, "masked must be a finite number; got nan"),
        ({"random": -0.1}, r"random must be at least 0 and at most 1; got -0\.1"),
        ({"vocab_size": True}, "vocab_size must be an integer; got True"),
        ({"masked": 0.9, "random": 0.2}, r"shares that add up to at most 1; got 0\.9 and 0\.2"),
        ({"special_ids": range(9)}, "special_ids must leave some ids to be text; got all 9"),
    ],
)
def test_hiding_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Hiding(**{"vocab_size": 9, **SPECIALS, **arguments})


# --- batches


def documents(count, low=4, high=12, seed=0, vocab=20):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocab, rng.integers(low, high)) for _ in range(count)]


HIDING = Hiding(vocab_size=20, **SPECIALS)


def test_batches_show_each_document_once_an_epoch_and_others_hidden_each_time():
    texts = documents(10)
    batches = MaskedBatches(texts, 4, HIDING)
    assert batches.steps_per_epoch == 3
    epochs = [[batches.at(position) for position in range(3 * e, 3 * e + 3)] for e in range(2)]
    hidden = []
    for epoch in epochs:
        rows = [
            (y[mask].tolist(), (weight > 0)[mask].tolist())
            for inputs, ys, weights in epoch
            for y, mask, weight in zip(ys, inputs["mask"], weights, strict=True)
            if mask.any()
        ]
        assert sorted(row for row, _ in rows) == sorted([CLS, *text.tolist(), SEP] for text in texts)
        hidden.append({tuple(row): chosen for row, chosen in rows})
    assert hidden[0] != hidden[1]


def test_what_is_not_chosen_is_seen_as_it_is():
    for position in range(4):
        inputs, y, weight = MaskedBatches(documents(10), 4, HIDING).at(position)
        np.testing.assert_array_equal(inputs["ids"][weight == 0], y[weight == 0])
        assert not weight[~inputs["mask"]].any()
        assert not np.isin(y[weight > 0], [CLS, SEP, MASK]).any()


@pytest.mark.parametrize("kind", ["rows", "pairs"])
def test_the_batch_at_a_position_is_the_same_whenever_it_is_read(kind):
    def make(seed=0):
        if kind == "rows":
            return MaskedBatches(documents(10), 4, HIDING, seed=seed)
        return NextSentenceBatches([documents(4, seed=s) for s in range(3)], 4, HIDING, seed=seed)

    read = [next(batches) for batches in [make()] for _ in range(5)]
    for position in (4, 0, 2):
        _equal(make().at(position), read[position])
    assert make().identity == make().identity != make(seed=1).identity
    with pytest.raises(AssertionError):
        _equal(make(seed=1).at(0), read[0])


def _equal(one, other):
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_document_that_is_too_long_becomes_several_rows():
    batches = MaskedBatches([np.arange(3, 13)], 3, HIDING, max_length=6)
    rows = sorted(row[row_mask].tolist() for row, row_mask in _rows(batches.at(0)))
    assert rows == [[CLS, 3, 4, 5, 6, SEP], [CLS, 7, 8, 9, 10, SEP], [CLS, 11, 12, SEP]]
    with pytest.raises(ValueError, match=r"max_length must leave room for 1 token\(s\) of text; got 2"):
        MaskedBatches([[3]], 1, HIDING, max_length=2)


def _rows(batch):
    inputs, y, _ = batch
    return zip(y["tokens"] if isinstance(y, dict) else y, inputs["mask"], strict=True)


def test_half_of_the_pairs_follow_each_other_and_half_are_of_two_documents():
    # Sentence s of document d is the one token 3 + 10 d + s, ten times.
    texts = [[np.full(10, 3 + 10 * d + s) for s in range(4)] for d in range(3)]
    hiding = Hiding(vocab_size=40, **SPECIALS)
    batches = NextSentenceBatches(texts, 6, hiding, max_length=30)
    assert batches.steps_per_epoch == 2  # 9 sentences that another follows
    for position in range(6):
        inputs, y, _ = batches.at(position)
        assert sorted(y["next_sentence"]) == [FOLLOWS] * 3 + [RANDOM] * 3
        for row, segments, label in zip(y["tokens"], inputs["segments"], y["next_sentence"], strict=True):
            first, second = row[1] - 3, row[12] - 3
            assert row[:24].tolist() == [CLS, *[row[1]] * 10, SEP, *[row[12]] * 10, SEP, 0][: len(row)]
            assert segments.tolist() == [0] * 12 + [1] * 11 + [0] * (len(row) - 23)
            assert (second == first + 1) if label == FOLLOWS else (first // 10 != second // 10)


def test_pairs_that_are_too_long_are_cut_to_fit():
    texts = [[np.full(20, 3), np.full(20, 4)], [np.full(2, 5), np.full(20, 6)]]
    batches = NextSentenceBatches(texts, 2, HIDING, max_length=13)  # room for ten
    lengths = set()
    for position in range(8):
        _, y, _ = batches.at(position)
        assert y["tokens"].shape[1] <= 13
        for row in y["tokens"]:
            lengths.add((int((row == row[1]).sum()), int((row > MASK).sum())))
    assert lengths <= {(5, 10), (2, 10), (8, 10)}  # half each; or two of the short one and eight of the other
    assert {(5, 10), (2, 10)} <= lengths


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedBatches([], 2, HIDING), "documents must hold at least one text; got none"),
        (lambda: MaskedBatches([[]], 2, HIDING), r"documents\[0\] must hold at least one token; got none"),
        (lambda: MaskedBatches([[20]], 2, HIDING), "vocab_size - 1 = 19; got 20"),
        (lambda: MaskedBatches([[5]], 0, HIDING), "batch_size must be at least 1; got 0"),
        (lambda: MaskedBatches([[5]], 1, HIDING, max_length=0), "max_length must be at least 1; got 0"),
        (
            lambda: MaskedBatches([[MASK], [SEP]], 2, HIDING),
            "a token that can be hidden; got special ids only",
        ),
        (lambda: NextSentenceBatches([[[5], [6]]], 2.0, HIDING), r"batch_size must be an integer; got 2\.0"),
        (lambda: NextSentenceBatches([[[5], [6]]], 2, HIDING), r"at least two, .* got \[2\] sentences"),
        (lambda: NextSentenceBatches([[[5]], [[6]]], 2, HIDING), r"with two sentences .* got \[1, 1\]"),
        (lambda: NextSentenceBatches([[[5], []], [[6]]], 2, HIDING), r"documents\[0\]\[1\] must hold"),
    ],
)
def test_documents_that_cannot_be_batches_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_with_another_vocabulary_is_refused():
    model = Bert(small())
    model.compile()
    with pytest.raises(ValueError, match="between 0 and vocab_size - 1 = 10; got 19"):
        fit(model, MaskedBatches(documents(4), 2, HIDING), steps=1, progress=False)


# --- learning


def twins(count, seed=0):
    """Rows whose second half says the first half again: what is hidden on one side can be read on the other."""
    rng = np.random.default_rng(seed)
    halves = rng.integers(3, 11, (count, 4))
    return list(np.concatenate([halves, halves], axis=1))


TWIN_HIDING = Hiding(vocab_size=11, **SPECIALS)


@pytest.fixture(scope="module")
def reader():
    """A model that learned to look at the other half."""
    keras.utils.set_random_seed(0)
    model = Bert(small(width=32, num_heads=2, depth=2, hidden_dim=64, initializer_stddev=0.1))
    model.compile(keras.optimizers.Adam(5e-3))
    fit(model, MaskedBatches(twins(3000), 32, TWIN_HIDING), steps=200, progress=False)
    return model


def test_bert_learns_to_find_what_is_hidden(reader):
    # Guessing would be right for one in eight.
    assert masked_accuracy(reader, twins(200, seed=1), TWIN_HIDING) > 0.9


def test_a_hidden_tokens_score_is_that_of_the_model(reader):
    (text,) = twins(1, seed=2)
    scores = score_masked(reader, [text], TWIN_HIDING, seed=3)
    (position,) = scores.positions
    row = np.array([[CLS, *text, SEP]])
    row[0, 1 + position] = MASK
    logits = reader({"ids": row})["tokens"][0, 1 + position]
    assert scores.nats[0] == pytest.approx(-float(tf.nn.log_softmax(logits)[text[position]]), rel=1e-4)
    assert bool(scores.right[0]) == (int(np.argmax(logits)) == text[position])


def test_scoring_traces_a_model_once_whatever_is_scored():
    traces = []

    class Counted(Bert):
        def call(self, inputs, training=None):
            traces.append(inputs["ids"].shape)
            return super().call(inputs, training=training)

    model = Counted(small())
    model.build()
    traces.clear()
    for texts in (twins(1), twins(40), [[3], [4, 5]]):
        for seed in range(2):
            score_masked(model, texts, TWIN_HIDING, repeats=2, seed=seed)
    assert len(traces) == 1


def test_a_model_with_new_variables_is_traced_anew():
    model = Bert(small())
    texts = twins(4)
    before = score_masked(model, texts, TWIN_HIDING).nats
    np.testing.assert_array_equal(score_masked(model, texts, TWIN_HIDING).nats, before)
    dense = model.encoder.blocks[0].feed_forward.widen
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.random.default_rng(0).normal(size=dense.lora_kernel_b.shape))
    after = score_masked(model, texts, TWIN_HIDING)
    assert np.abs(after.nats - before).max() > 1e-3
    position = after.positions[after.documents == 0][0]
    row = np.array([[CLS, *texts[0], SEP]])
    row[0, 1 + position] = MASK
    logits = model({"ids": row})["tokens"][0, 1 + position]
    expected = -float(tf.nn.log_softmax(logits)[texts[0][position]])
    assert after.nats[after.documents == 0][0] == pytest.approx(expected, rel=1e-4)


def test_a_document_without_text_adds_nothing_to_the_scores(reader):
    (text,) = twins(1, seed=2)
    scores = score_masked(reader, [[SEP], text, [MASK, MASK]], TWIN_HIDING)
    assert scores.documents.tolist() == [1]
    assert np.isfinite(scores.nats_per_token)


def test_scores_say_where_each_hidden_token_stood():
    texts = documents(7, vocab=11, high=10)
    scores = score_masked(Bert(small()), texts, Hiding(vocab_size=11, share=0.4, **SPECIALS), repeats=3)
    counts = np.bincount(scores.documents, minlength=7)
    assert counts.tolist() == [3 * max(1, round(0.4 * len(text))) for text in texts]
    assert scores.accuracy == np.mean(scores.right)
    assert scores.nats_per_token == np.mean(scores.nats)
    assert all(0 <= p < len(texts[d]) for d, p in zip(scores.documents, scores.positions, strict=True))


def test_what_cannot_be_scored_is_refused(reader):
    with pytest.raises(ValueError, match=r"documents\[1\] must have at most 10 tokens, .* got 11"):
        score_masked(reader, [[3], [3] * 11], TWIN_HIDING)
    with pytest.raises(ValueError, match="model must be a Bert with heads to guess tokens; got one without"):
        masked_accuracy(Bert(small(heads=False)), [[3]], TWIN_HIDING)
    with pytest.raises(ValueError, match="model must be a Bert with heads to guess tokens; got a Sequential"):
        masked_accuracy(keras.Sequential(), [[3]], TWIN_HIDING)
    with pytest.raises(ValueError, match="a vocab_size of at most the model's 11; got 20"):
        masked_accuracy(reader, [[3]], HIDING)
    with pytest.raises(ValueError, match=r"repeats must be an integer; got 1\.5"):
        masked_accuracy(reader, [[3]], TWIN_HIDING, repeats=1.5)
    with pytest.raises(
        ValueError, match="documents must hold a token that can be hidden; got special ids only"
    ):
        masked_accuracy(reader, [[MASK], [CLS, SEP]], TWIN_HIDING)
    with pytest.raises(ValueError, match="repeats must be at least 1; got 0"):
        masked_accuracy(reader, [[3]], TWIN_HIDING, repeats=0)


def test_bert_learns_both_tasks_at_once():
    """Sentences of a document are of its own token: whether the second follows can be seen."""
    texts = [[np.full(3, 3 + d) for _ in range(3)] for d in range(8)]
    keras.utils.set_random_seed(0)
    model = Bert(small(width=16, initializer_stddev=0.2))
    model.compile(keras.optimizers.Adam(3e-3))
    batches = NextSentenceBatches(texts, 32, TWIN_HIDING, max_length=12)
    history = fit(model, batches, steps=150, validation=batches, progress=False)
    assert history.loss[0] > 2.0  # about ln 11 + ln 2 at the start
    assert np.mean(history.loss[-10:]) < 1.0
    inputs, y, _ = batches.at(1000)
    found = np.argmax(model(inputs)["next_sentence"], axis=-1)
    assert np.mean(found == y["next_sentence"]) > 0.9


def test_a_trained_model_keeps_its_optimizer_when_saved(reader, tmp_path):
    reader.save(tmp_path / "bert.keras")
    loaded = keras.saving.load_model(tmp_path / "bert.keras", safe_mode=True)
    assert int(loaded.optimizer.iterations) == 200
    inputs, _, _ = MaskedBatches(twins(8), 4, TWIN_HIDING).at(0)
    np.testing.assert_array_equal(loaded(inputs)["tokens"], reader(inputs)["tokens"])
