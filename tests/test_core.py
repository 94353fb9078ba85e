"""The measures over a language model, against values worked by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcourse import core
from lmcourse.core import (
    LanguageModel,
    RecomputingDecoder,
    Score,
    check_ids,
    excess_bits_by_label,
    excess_bits_per_token,
    pad_rows,
    perplexity,
    score,
    token_surprisals_nats,
)


class Unigram(LanguageModel):
    """The same distribution at every place."""

    def __init__(self, probs, normalized=True):
        with np.errstate(divide="ignore"):
            self.log_probs = np.log(np.asarray(probs, dtype=np.float64))
        self.vocab_size = len(self.log_probs)
        self.normalized = normalized
        self.shapes = []

    def token_log_probs(self, ids, mask=None):
        ids, mask = check_ids(ids, self.vocab_size, mask)
        self.shapes.append(ids.shape)
        return np.where(mask, self.log_probs[ids], 0.0)

    def next_log_probs(self, prefixes):
        return np.tile(self.log_probs, (len(prefixes), 1))


class WholePrefix(Unigram):
    """The probability of a token depends on it and on the sum of all tokens before it."""

    def __init__(self, vocab_size=5):
        super().__init__(np.full(vocab_size, 1 / vocab_size))

    def token_log_probs(self, ids, mask=None):
        ids, mask = check_ids(ids, self.vocab_size, mask)
        self.shapes.append(ids.shape)
        before = ids.cumsum(axis=1) - ids  # (B, T), the sum of the tokens to the left
        return np.where(mask, np.log((1 + ids) / (2 + before + self.vocab_size)), 0.0)


documents_of_any_lengths = st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=8)


def test_perplexity_is_the_inverse_geometric_mean_of_the_probabilities():
    # Tokens 0, 1, 2, 2 have 1/2, 1/4, 1/8, 1/8: 1 + 2 + 3 + 3 bits are 9, over 4 tokens: 2^(9/4).
    result = score(Unigram([1 / 2, 1 / 4, 1 / 8, 1 / 8]), [[0, 1], [2, 2]])
    assert result.tokens == 4
    assert result.bits_per_token == pytest.approx(9 / 4, rel=1e-15)
    assert result.nats_per_token == pytest.approx(9 / 4 * math.log(2), rel=1e-15)
    assert result.perplexity == pytest.approx(2 ** (9 / 4), rel=1e-14)
    assert perplexity(Unigram([1 / 2, 1 / 4, 1 / 8, 1 / 8]), [[0, 1], [2, 2]]) == result.perplexity


@pytest.mark.filterwarnings("error")
def test_a_token_without_probability_makes_perplexity_infinite():
    assert score(Unigram([1.0, 0.0]), [[0, 1]]).perplexity == math.inf


def test_bits_per_byte_counts_bytes_not_characters():
    # "é€" is 2 + 3 bytes in UTF-8 and two characters; two tokens of 1/32 each are 10 bits.
    text = "é€"
    result = score(Unigram(np.full(32, 1 / 32)), [[0, 1]], utf8_bytes=len(text.encode()))
    assert result.bits_per_byte == pytest.approx(10 / 5, rel=1e-15)


def test_bits_per_byte_does_not_depend_on_how_the_text_is_cut_into_tokens():
    # "abab" of two letters at 1/2 each, or of two pairs "ab" out of four at 1/4 each: 4 bits both ways.
    letters = score(Unigram([1 / 2] * 2), [[0, 1, 0, 1]], utf8_bytes=4)
    pairs = score(Unigram([1 / 4] * 4), [[1, 1]], utf8_bytes=4)
    assert letters.bits_per_byte == pytest.approx(pairs.bits_per_byte, rel=1e-15)
    assert letters.perplexity != pairs.perplexity


@pytest.mark.parametrize("utf8_bytes", [None, 0])
def test_bits_per_byte_needs_the_length_of_the_text(utf8_bytes):
    with pytest.raises(ValueError, match=f"utf8_bytes must be the length .* got {utf8_bytes}"):
        _ = Score(1.0, 1, utf8_bytes).bits_per_byte


@given(documents=documents_of_any_lengths, limit=st.integers(1, 40))
def test_scoring_in_batches_equals_scoring_each_document_alone(documents, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "TOKENS_PER_BATCH", limit)
        together = token_surprisals_nats(WholePrefix(), documents)
    assert len(together) == len(documents)
    for document, surprisals in zip(documents, together, strict=True):
        assert surprisals.shape == (len(document),)
        if document:
            alone = -WholePrefix().token_log_probs([document])[0]
            np.testing.assert_array_equal(surprisals, alone)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=30), limit=st.integers(1, 100))
def test_a_batch_holds_no_more_tokens_than_the_limit_unless_one_document_does(lengths, limit):
    model = Unigram([1 / 2] * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "TOKENS_PER_BATCH", limit)
        token_surprisals_nats(model, [[0] * length for length in lengths])
    assert sum(rows for rows, _ in model.shapes) == len(lengths)
    assert all(rows * time <= limit or rows == 1 for rows, time in model.shapes)
    # Sorted by length, two neighbouring batches never fit into one.
    for (rows, _), (_, next_time) in zip(model.shapes, model.shapes[1:], strict=False):
        assert (rows + 1) * next_time > limit


def test_an_empty_document_counts_for_nothing():
    model = Unigram([1 / 2, 1 / 2])
    assert score(model, [[], [0], []]) == score(model, [[0]])


def test_rows_are_padded_on_the_right_and_masked():
    ids, mask = pad_rows([[3, 1], [], np.array([2, 4, 4])])
    np.testing.assert_array_equal(ids, [[3, 1, 0], [0, 0, 0], [2, 4, 4]])
    np.testing.assert_array_equal(mask, [[True, True, False], [False] * 3, [True] * 3])


@pytest.mark.parametrize(("documents", "shape"), [([], (0, 0)), ([[]], (1, 0)), ([[], []], (2, 0))])
def test_no_tokens_pad_to_no_columns(documents, shape):
    ids, mask = pad_rows(documents)
    assert (ids.shape, mask.shape) == (shape, shape)


def test_a_masked_token_is_not_scored_but_still_read():
    model = WholePrefix()
    whole = model.token_log_probs([[1, 2, 3]])
    masked = model.token_log_probs([[1, 2, 3]], [[True, False, True]])
    np.testing.assert_array_equal(masked, whole * [1, 0, 1])


def test_scores_that_are_no_distribution_have_no_perplexity():
    with pytest.raises(ValueError, match=r"model must give a distribution; .* Unigram do not sum to one"):
        perplexity(Unigram([0.9, 0.9], normalized=False), [[0]])


@pytest.mark.parametrize("documents", [[], [[]], [[], []]])
def test_nothing_to_score_is_refused(documents):
    with pytest.raises(ValueError, match="documents must hold at least one token; got none"):
        score(Unigram([1.0]), documents)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([0, 1], r"documents\[0\] must be a sequence of integer ids; .* shape \(\).*pass \[document\]"),
        ([[0], [0.7]], r"documents\[1\] must be a sequence of integer ids; got float64"),
        ([["a"]], r"documents\[0\] must be a sequence of integer ids"),
        ([[[0]]], r"documents\[0\] must .* shape \(1, 1\)"),
    ],
)
@pytest.mark.parametrize(
    "measure",
    [
        pad_rows,
        lambda documents: score(Unigram([0.5, 0.5]), documents),
        lambda documents: token_surprisals_nats(Unigram([0.5, 0.5]), documents),
    ],
    ids=["pad_rows", "score", "token_surprisals_nats"],
)
def test_a_document_that_is_not_ids_is_refused_by_its_place(measure, documents, message):
    with pytest.raises(ValueError, match=message):
        measure(documents)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([0, 1], None, r"ids must have shape \(B, T\); got \(2,\)"),
        ([[0.0, 1.0]], None, "ids must be integers; got float64"),
        ([[True]], None, "ids must be integers; got bool"),
        ([[0, 3]], None, "ids must be between 0 and vocab_size - 1 = 2; got 3"),
        ([[-1, 3]], None, "ids must be between 0 and vocab_size - 1 = 2; got -1"),
        ([[0, 1]], [[True]], r"mask must have the shape of ids, \(1, 2\); got \(1, 1\)"),
    ],
)
def test_ids_and_masks_of_the_wrong_kind_are_refused(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        check_ids(ids, 3, mask)


def test_ids_come_back_as_int64_and_a_mask_as_bool():
    ids, mask = check_ids(np.array([[0, 2]], dtype=np.uint8), 3, [[1, 0]])
    assert (ids.dtype, mask.dtype) == (np.int64, np.bool_)
    assert check_ids(np.empty((2, 0)), 3)[1].shape == (2, 0)


def test_excess_over_the_floor_is_in_bits_per_canonical_token():
    # 12 bits in 6 subwords against 7 bits in 4 canonical tokens: 5 bits over 4 tokens.
    model, floor = Score(12 * core.NATS_PER_BIT, 6), Score(7 * core.NATS_PER_BIT, 4)
    assert excess_bits_per_token(model, floor) == pytest.approx(5 / 4, rel=1e-15)


def test_excess_by_label_is_what_each_label_adds_worked_by_hand():
    bit = core.NATS_PER_BIT
    excess = excess_bits_by_label(
        [[3 * bit, 1 * bit], [2 * bit]], [[1 * bit, 1 * bit], [1 * bit]], [["a", "b"], ["a"]]
    )
    assert excess == {"a": pytest.approx((2 + 1) / 3, rel=1e-15), "b": 0.0}


labelled_tokens = st.tuples(st.floats(0, 20), st.floats(0, 20), st.sampled_from(["syntax", "name", "noise"]))


@given(documents=st.lists(st.lists(labelled_tokens, max_size=6), max_size=6).filter(any))
def test_excess_by_label_adds_up_to_the_excess_of_the_whole_text(documents):
    model, floor, labels = (
        [[token[part] for token in document] for document in documents] for part in range(3)
    )
    flat = [token for document in documents for token in document]
    model_nats, floor_nats = (math.fsum(token[part] for token in flat) for part in range(2))
    whole = excess_bits_per_token(Score(model_nats, len(flat)), Score(floor_nats, len(flat)))
    by_label = excess_bits_by_label(model, floor, labels)
    assert set(by_label) == {label for _, _, label in flat}
    # At most 36 terms of at most 29 bits, each rounded to 2^-53 of itself.
    assert math.fsum(by_label.values()) == pytest.approx(whole, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "floor", "labels", "message"),
    [
        ([[1.0, 1.0]], [[1.0]], [["a", "a"]], "got 2 tokens in 1 documents, 1 tokens in 1 documents and 2"),
        ([[1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0]], [["a"], ["a", "a"]], "must have the same documents"),
        ([], [], [], "must hold at least one token"),
    ],
)
def test_excess_by_label_needs_one_entry_a_token(model, floor, labels, message):
    with pytest.raises(ValueError, match=message):
        excess_bits_by_label(model, floor, labels)


class Echo(Unigram):
    """Remembers which prefixes it was asked about."""

    def next_log_probs(self, prefixes):
        self.asked = [list(prefix) for prefix in prefixes]
        return super().next_log_probs(prefixes)


def test_the_default_decoder_appends_drops_and_repeats_rows():
    model = Echo([0.5, 0.5])
    prompts = [[0], [1, 1], []]
    decoder = model.decoder(prompts)
    assert isinstance(decoder, RecomputingDecoder)
    decoder.append(np.array([1, 0, 0]))
    decoder.select([2, 0, 0])
    decoder.append([1, 0, 1])
    np.testing.assert_array_equal(decoder.log_probs(), model.next_log_probs([[]] * 3))
    decoder.log_probs()
    assert model.asked == [[0, 1], [0, 1, 0], [0, 1, 1]]
    assert prompts == [[0], [1, 1], []]


def test_a_decoder_refuses_a_token_too_few():
    with pytest.raises(ValueError, match="ids must have one entry for each of the 2 rows; got 1"):
        Unigram([1.0]).decoder([[], []]).append([0])


def test_importing_the_course_does_not_import_tensorflow():
    code = "import sys, lmcourse, lmcourse.core; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_document_of_unequal_rows_is_named():
    with pytest.raises(
        ValueError, match=r"documents\[1\] must be one sequence of ids; got sequences of unequal"
    ):
        pad_rows([[1, 2], [[1], [2, 3]]])
