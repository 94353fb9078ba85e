"""Chapter 1's package: counts, smoothing, the model, ARPA files."""

import gzip
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcourse.core import perplexity, score
from lmcourse.ngram import (
    SMOOTHINGS,
    AddK,
    ArpaError,
    JelinekMercer,
    KneserNey,
    ModifiedKneserNey,
    NgramCounts,
    NgramModel,
    Smoothing,
    StupidBackoff,
    continuation_counts,
    read_arpa,
    write_arpa,
)
from lmcourse.ngram.smoothing import Level

A, B, C, START = 0, 1, 2, 3
TINY = [[A, B, A, C]]  # bigrams: <s>a ab ba ac
PROPER = [name for name, kind in SMOOTHINGS.items() if kind.normalized]

documents = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=5)
context = st.lists(st.integers(0, 4), max_size=6)


def fitted(smoothing, texts=TINY, order=2, vocab_size=3, held_out=None):
    if smoothing == "jelinek-mercer" or isinstance(smoothing, JelinekMercer):
        held_out = held_out or texts
    return NgramModel(order, vocab_size, smoothing).fit(texts, held_out)


def probability(model, prefix, token):
    return math.exp(model.next_log_probs([prefix])[0, token])


@given(documents, st.integers(1, 5))
def test_counts_equal_a_counter_of_tuples(texts, order):
    counts = NgramCounts(texts, order, vocab_size=5)
    start = 5
    for n in range(1, order + 1):
        expected = Counter(
            tuple(row[i : i + n])
            for row in ([start, *text] for text in texts)
            for i in range(len(row) - n + 1)
        )
        del expected[(start,)]
        assert sum(expected.values()) == counts.tables[n - 1].counts.sum()
        assert all(counts.count(ngram) == times for ngram, times in expected.items())
        if n > 1:
            assert len(counts.tables[n - 1]) == len(expected)


@given(documents, st.integers(2, 4))
def test_continuation_counts_equal_the_number_of_distinct_tokens_before(texts, order):
    counts = NgramCounts(texts, order, vocab_size=5)
    model = fitted("mle", texts, order, vocab_size=5)
    table, longer = counts.tables[order - 2], counts.tables[order - 1]
    ngrams = [ngram for ngram, *_ in model.ngrams(order - 1)]
    found = dict(zip(ngrams, continuation_counts(table, longer), strict=True))
    rows = [[5, *text] for text in texts]
    before = {tuple(row[i : i + order]) for row in rows for i in range(len(row) - order + 1)}
    for ngram, count in found.items():
        if ngram[0] == 5:
            assert count == counts.count(ngram)
        else:
            assert count == sum(longer_ngram[1:] == ngram for longer_ngram in before)


def test_five_grams_of_a_vocabulary_whose_fifth_power_overflows_are_told_apart():
    vocab_size = 60_000  # 60,000^5 = 7.8e23 > 2^63 = 9.2e18
    rng = np.random.default_rng(0)
    text = rng.integers(0, vocab_size, 5_000)
    counts = NgramCounts([text], 5, vocab_size)
    assert counts.count(text[100:105].tolist()) == 1
    assert counts.count([*text[100:104].tolist(), (text[104] + 1) % vocab_size]) == 0


def test_ngrams_do_not_span_documents():
    counts = NgramCounts([[A, B], [C, A]], 2, vocab_size=3)
    assert counts.count([B, C]) == 0
    assert counts.count([START, C]) == 1


# Smoothing, worked by hand on the tiny text. Raw counts: a 2, b 1, c 1 of 4 tokens. After a: b once, c once.


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        ("mle", {A: 0, B: 1 / 2, C: 1 / 2}),
        # (1 + 1) / (2 + 1·3), Chen and Goodman, section 2.1.
        (AddK(1), {A: 1 / 5, B: 2 / 5, C: 2 / 5}),
        (AddK(0.5), {A: 0.5 / 3.5, B: 1.5 / 3.5, C: 1.5 / 3.5}),
        # Section 2.5. Unigrams: (c + 3·1/3) / (4 + 3) = 3/7, 2/7, 2/7. After a: total 2, types 2, (c + 2·P) / 4.
        ("witten-bell", {A: (2 * 3 / 7) / 4, B: (1 + 4 / 7) / 4, C: (1 + 4 / 7) / 4}),
        # Section 2.7 with D = 1/2. Continuations: a after {<s>, b}, b after {a}, c after {a}: 2, 1, 1 of 4.
        # Unigrams: (2 - .5)/4 + (.5·3/4)/3 = 1/2, 1/4, 1/4. After a: (1 - .5)/2 + (.5·2/2)·P.
        (KneserNey(0.5), {A: 1 / 4, B: 3 / 8, C: 3 / 8}),
    ],
    ids=["mle", "add-1", "add-0.5", "witten-bell", "kneser-ney"],
)
def test_probabilities_after_a_equal_those_worked_by_hand(smoothing, expected):
    model = fitted(smoothing)
    for token, value in expected.items():
        assert probability(model, [A], token) == pytest.approx(value, abs=1e-14)


def test_absolute_discounting_estimates_its_discount_from_the_counts_of_counts():
    # Unigrams of "a a b c": n1 = 2, n2 = 1, D = 2 / (2 + 2·1) = 1/2, so a keeps (2 - 1/2) / 4 and the three types
    # leave 3·(1/2) / 4, shared by V = 4: Chen and Goodman, section 2.6.
    model = fitted("absolute-discounting", [[A, A, B, C]], order=1, vocab_size=4)
    assert probability(model, [], A) == pytest.approx(1.5 / 4 + 1.5 / 16, abs=1e-14)
    assert probability(model, [], 3) == pytest.approx(1.5 / 16, abs=1e-14)


def test_modified_kneser_ney_discounts_follow_equation_26():
    # n1..n4 = 10, 5, 3, 2: Y = 10 / 20, D1 = 1 - 2Y·5/10, D2 = 2 - 3Y·3/5, D3+ = 3 - 4Y·2/3.
    counts = np.repeat([1, 2, 3, 4], [10, 5, 3, 2])
    zeros = np.zeros(1)
    level = Level(2, counts, np.zeros(20, int), zeros, zeros, zeros, 30)
    assert ModifiedKneserNey().discounts(level) == pytest.approx((0.5, 1.1, 5 / 3))


@pytest.mark.parametrize("sizes", [(10, 5, 3, 0), (10, 1, 6, 9)], ids=["no n4", "a discount below zero"])
def test_modified_kneser_ney_falls_back_where_it_cannot_estimate(sizes):
    # Of the second: Y = 10 / 12, D2 = 2 - 3Y·6/1 < 0, which would give to the seen what only the unseen lack.
    counts = np.repeat([1, 2, 3, 4], sizes)
    zeros = np.zeros(1)
    level = Level(2, counts, np.zeros(len(counts), int), zeros, zeros, zeros, 30)
    assert ModifiedKneserNey().discounts(level) == (0.5, 1.0, 1.5)


def test_stupid_backoff_scores_equal_those_worked_by_hand():
    # Brants et al. 2007, equation 5: c(ab)/c(a) = 1/2; aa unseen: 0.4 · 2/4; after c nothing seen: 0.4 · 2/4.
    model = fitted("stupid-backoff")
    assert probability(model, [A], B) == pytest.approx(1 / 2)
    assert probability(model, [A], A) == pytest.approx(0.4 * 2 / 4)
    assert probability(model, [C], A) == pytest.approx(0.4 * 2 / 4)


@given(documents, documents)
@settings(max_examples=30)
def test_em_never_lowers_the_held_out_likelihood(texts, held_out):
    smoothing = JelinekMercer(iterations=8)
    NgramModel(3, 5, smoothing).fit(texts, held_out)
    assert (np.diff(smoothing.log_likelihoods) >= -1e-12).all()


def test_jelinek_mercer_finds_the_weight_that_a_grid_search_finds():
    texts, held_out = [[A, A, A, B]], [[A, A, B, C]]
    smoothing = JelinekMercer(iterations=200)
    fitted(smoothing, texts, order=1, held_out=held_out)
    # One order, one bucket: the held-out tokens A A B C have probability λ·(3/4, 3/4, 1/4, 0) + (1 - λ)/3.
    grid = np.linspace(0.001, 0.999, 999)[:, None]
    likelihood = np.log(grid * np.array([3 / 4, 3 / 4, 1 / 4, 0]) + (1 - grid) / 3).sum(1)
    best = float(grid[likelihood.argmax(), 0])
    bucket = 2  # the one context was seen 4 = 2² times
    assert smoothing.weights[1][bucket] == pytest.approx(best, abs=0.002)  # the grid's step is 0.001


def test_kneser_ney_guesses_by_the_number_of_places_not_by_frequency():
    # "a c a c a c b c": c follows two different tokens (a, b); a 3 of them. x always follows y.
    text = [[3, 4] * 5 + [A, C, B, C, A, B, C]]
    kneser_ney, absolute = (
        fitted(kind, text, vocab_size=6) for kind in ("kneser-ney", "absolute-discounting")
    )
    never_seen = 5
    assert probability(absolute, [never_seen], 4) > probability(absolute, [never_seen], C)
    assert probability(kneser_ney, [never_seen], 4) < probability(kneser_ney, [never_seen], C)


@pytest.mark.parametrize("smoothing", PROPER)
@given(texts=documents, order=st.integers(1, 4), prefix=context)
@settings(max_examples=40)
def test_every_distribution_sums_to_one_for_any_context(smoothing, texts, order, prefix):
    model = fitted(smoothing, texts, order, vocab_size=5)
    assert np.exp(model.next_log_probs([prefix])).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("smoothing", list(SMOOTHINGS))
@given(texts=documents, order=st.integers(1, 4), text=st.lists(st.integers(0, 4), min_size=1, max_size=8))
@settings(max_examples=30)
def test_scoring_a_text_equals_asking_token_by_token(smoothing, texts, order, text):
    model = fitted(smoothing, texts, order, vocab_size=5)
    rows = model.next_log_probs([text[:t] for t in range(len(text))])
    one_by_one = rows[np.arange(len(text)), text]
    np.testing.assert_allclose(model.token_log_probs([text])[0], one_by_one, rtol=1e-12)


def test_masked_tokens_score_zero_and_still_serve_as_context():
    model = fitted("witten-bell")
    full = model.token_log_probs([[A, B, A]])
    masked = model.token_log_probs([[A, B, A]], [[False, True, False]])
    assert masked.tolist() == [[0.0, full[0, 1], 0.0]]


def test_perplexity_of_maximum_likelihood_is_infinite_on_an_unseen_pair():
    assert perplexity(fitted("mle"), [[A, A]]) == math.inf


def test_perplexity_refuses_stupid_backoff():
    with pytest.raises(ValueError, match="do not sum to one"):
        score(fitted("stupid-backoff"), TINY)


def test_one_count_serves_lower_orders():
    counts = NgramCounts(TINY, 3, vocab_size=3)
    for order in (1, 2, 3):
        shared = NgramModel(order, 3, "witten-bell").fit_counts(counts)
        np.testing.assert_array_equal(
            shared.next_log_probs([[A, B]]), fitted("witten-bell", order=order).next_log_probs([[A, B]])
        )


@pytest.mark.parametrize("smoothing", list(SMOOTHINGS))
def test_a_saved_model_predicts_the_same(smoothing, tmp_path):
    model = fitted(smoothing, order=3)
    model.save(tmp_path / "model.npz")
    again = NgramModel.load(tmp_path / "model.npz")
    prefixes = [[], [A], [C, C], [B, A]]
    np.testing.assert_array_equal(again.next_log_probs(prefixes), model.next_log_probs(prefixes))
    assert again.normalized == model.normalized
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("smoothing", [AddK(0.1), StupidBackoff(0.1), KneserNey(0.3)], ids=repr)
def test_a_saved_model_keeps_its_smoothings_settings(smoothing, tmp_path):
    fitted(smoothing).save(tmp_path / "model.npz")
    again = NgramModel.load(tmp_path / "model.npz")
    assert again.smoothing == smoothing
    np.testing.assert_array_equal(
        again.fit(TINY).next_log_probs([[C]]), fitted(smoothing).next_log_probs([[C]])
    )


def test_what_save_did_not_write_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    fitted("mle").save(path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    for name, content in (("cut.npz", whole[: len(whole) // 2]), ("text.npz", b"text"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
    for name in ("other.npz", "cut.npz", "text.npz", "empty.npz"):
        with pytest.raises(ValueError, match=f"{name} is no n-gram model"):
            NgramModel.load(tmp_path / name)


def test_a_smoothing_of_ones_own_predicts_but_is_not_saved(tmp_path):
    class Halved(Smoothing):
        """Keep half of everything."""

        name = "halved"

        def kept(self, level):
            return level.relative_frequencies / 2

    model = fitted(Halved())
    # Unigrams: half of 1/4 and half of 1/3 for b; after a: half of 1/2 and half of that.
    assert probability(model, [A], B) == pytest.approx(1 / 4 + (1 / 8 + 1 / 6) / 2)
    with pytest.raises(ValueError, match=r"smoothing must be one of .* got Halved"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NgramModel(0, 3), "order must be a whole number, at least 1; got 0"),
        (lambda: NgramModel(2, 0), "vocab_size must be a whole number, at least 1; got 0"),
        (lambda: NgramModel(2, 3, "katz"), "smoothing must be one of mle, add-k, .*got 'katz'"),
        (lambda: NgramModel(2, 3).next_log_probs([[]]), "call fit"),
        (lambda: NgramModel(2, 3).fit([[]]), "at least one token"),
        (lambda: NgramModel(2, 3).fit([[0, 3]]), "between 0 and vocab_size - 1 = 2; got 3"),
        (lambda: NgramModel(2, 3).fit([[0, -1]]), "got -1"),
        (lambda: NgramModel(2, 3, "jelinek-mercer").fit(TINY), "held_out must be given"),
        (lambda: NgramModel(2, 3, "jelinek-mercer").fit(TINY, [[]]), "held_out must hold at least one token"),
        (lambda: NgramModel(2, 3, "jelinek-mercer").fit(TINY, [[5]]), r"held_out\[0\] must hold ids"),
        (lambda: JelinekMercer(buckets=0), "buckets must be at least 1"),
        (lambda: JelinekMercer(iterations=-1), "iterations must be at least 0"),
        (lambda: NgramModel(2.0, 3), "order must be a whole number, at least 1; got 2.0"),
        # One document given as if it were several: every token would become a document.
        (lambda: NgramModel(2, 3).fit([0, 1, 2]), r"documents\[0\] must be a sequence .*pass \[document\]"),
        (
            lambda: NgramModel(2, 3).fit([[0.9, 1.7]]),
            r"documents\[0\] must be a sequence of integer ids; got float64",
        ),
        (lambda: NgramModel(2, 3).fit(["abc"]), r"documents\[0\] must be a sequence of integer ids"),
        (lambda: fitted("mle").next_log_probs([[77, 0, 1]]), r"prefixes\[0\] .* got 77"),
        (lambda: fitted("mle").next_log_probs([0, 1]), r"prefixes\[0\] must be a sequence"),
        (
            lambda: NgramModel(3, 3).fit_counts(NgramCounts(TINY, 2, 3)),
            "between 1 and 2, the order counted; got 3",
        ),
        (lambda: NgramModel(2, 4).fit_counts(NgramCounts(TINY, 2, 3)), "vocab_size 4; got 3"),
        (lambda: fitted("mle").token_log_probs([0, 1]), r"shape \(B, T\); got \(2,\)"),
        (lambda: fitted("mle").next_log_probs([[7]]), "got 7"),
        (lambda: AddK(0), "k must be greater than 0; got 0"),
        (lambda: KneserNey(1.5), "discount must be between 0 and 1"),
        (lambda: ModifiedKneserNey(0.5), "discount must be None"),
        (lambda: StupidBackoff(0), "factor must be greater than 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("smoothing", PROPER)
@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_an_arpa_file_gives_the_same_distributions_back(smoothing, name, tmp_path):
    model = fitted(smoothing, [[A, B, A, C], [B, B, C]], order=3)
    write_arpa(model, tmp_path / name, ["a", "b", "</s>"])
    again, tokens = read_arpa(tmp_path / name)
    assert tokens == ["a", "b", "</s>"]
    prefixes = [list(p) for n in range(4) for p in itertools.product(range(3), repeat=n)]
    expected = np.exp(model.next_log_probs(prefixes))
    np.testing.assert_allclose(
        np.exp(again.next_log_probs(prefixes)), expected, atol=1e-8
    )  # 9 digits are written


# A file as SRILM's manual describes it: orders interleaved with blank lines, no weight where none is needed.
SAMPLE = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99 <s> -0.30103
-0.30103 </s>
-0.60206 the -0.1
-0.60206\tcat

\\2-grams:
-0.2 the cat
-0.1 <s> the

\\end\\
"""


def test_reading_follows_the_format(tmp_path):
    path = tmp_path / "sample.arpa"
    path.write_text(SAMPLE)
    model, tokens = read_arpa(path)
    assert tokens == ["</s>", "the", "cat"]
    log10 = model.token_log_probs([[1, 2, 1]])[0] / math.log(10)
    # P(the | <s>) is listed; P(cat | the) is listed; after cat no weight is listed (0), so P(the) as it stands.
    assert log10 == pytest.approx([-0.1, -0.2, -0.60206])
    # <s> cat is not listed: the weight of <s> plus P(cat).
    assert model.token_log_probs([[2]])[0, 0] / math.log(10) == pytest.approx(-0.30103 - 0.60206)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "the file ends here, too early"),
        ("ngram 2=2", "ngram 2=²", "line 3: expected 'ngram 2='"),
        ("ngram 2=2", "ngram 2=" + 20 * "9", "line 3: expected 'ngram 2='"),
        ("the -0.1", "the nan", "line 8: expected the logarithm of a weight, got nan"),
        ("the -0.1", "the inf", "line 8: expected the logarithm of a weight, got inf"),
        ("ngram 2=2", "ngram 3=2", "line 3: expected 'ngram 2='"),
        ("-0.60206\tcat", "-0.60206", "line 9: expected a number, 1 tokens"),
        ("-0.60206\tcat", "high\tcat", "line 9: expected logarithms"),
        ("-0.60206\tcat", "0.5\tcat", "line 9: expected the logarithm of a probability"),
        ("-0.60206\tcat", "-0.5\tthe", "line 9: the token 'the' was listed before"),
        ("-0.2 the cat", "-0.2 the dog", "line 12: the token 'dog' is not among the unigrams"),
        ("-0.1 <s> the", "-0.1 the cat", "line 13: this n-gram of order 2 was listed before"),
        ("ngram 2=2", "ngram 2=3", "line 15: expected a number, 2 tokens"),
        ("\\end\\\n", "", "the file ends here, too early"),
    ],
)
def test_a_malformed_arpa_file_is_refused_by_line(old, new, message, tmp_path):
    path = tmp_path / "broken.arpa"
    path.write_text(SAMPLE.replace(old, new, 1))
    with pytest.raises(ArpaError, match=message):
        read_arpa(path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a", "b"], "the model's 3 tokens; got 2"),
        (["a", "b", " "], "hold a blank or a line break"),
        (["a", "b", "<s>"], "be <s>"),
        (["a", "b", "b"], "distinct"),
    ],
)
def test_tokens_that_do_not_fit_the_format_are_refused_and_nothing_is_written(tokens, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_arpa(fitted("mle"), tmp_path / "model.arpa", tokens)
    assert list(tmp_path.iterdir()) == []


def test_an_end_token_that_was_added_comes_after_the_tokens(tmp_path):
    model = fitted("witten-bell")
    write_arpa(model, tmp_path / "m.arpa", ["a", "b", "c"])
    again, tokens = read_arpa(tmp_path / "m.arpa")
    assert tokens == ["a", "b", "c", "</s>"]
    np.testing.assert_allclose(
        again.token_log_probs([[A, B, C]]), model.token_log_probs([[A, B, C]]), atol=1e-8
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\\data\\", "Made by hand.\n\n\\data\\"),
        ("\\data\\", "\ufeff\\data\\"),
        ("\n", "\r\n"),
        ("-0.1 <s> the", "-0.1 </s> <s>"),  # some tools list what crosses a line's end
    ],
    ids=["comment", "byte order mark", "Windows lines", "an n-gram that ends in <s>"],
)
def test_what_other_tools_write_is_read(old, new, tmp_path):
    path = tmp_path / "other.arpa"
    path.write_bytes(SAMPLE.replace(old, new).encode())
    model, tokens = read_arpa(path)
    assert tokens == ["</s>", "the", "cat"]
    assert model.next_log_probs([[1]])[0, 2] / math.log(10) == pytest.approx(-0.2)


def test_a_no_break_space_is_part_of_a_token(tmp_path):
    write_arpa(fitted("mle"), tmp_path / "m.arpa", ["a\u00a0b", "c", "d"])
    assert read_arpa(tmp_path / "m.arpa")[1][:3] == ["a\u00a0b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.arpa", "\\data\\ \xe9".encode("latin-1")),
        ("m.arpa.gz", b"no gzip"),
        ("m.arpa.gz", gzip.compress(SAMPLE.encode())[:-20]),
    ],
    ids=["Latin-1", "not compressed", "cut short"],
)
def test_a_damaged_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArpaError, match=f"^{name}"):
        read_arpa(tmp_path / name)


def test_a_missing_context_is_refused_by_line(tmp_path):
    path = tmp_path / "m.arpa"
    trigrams = "\\3-grams:\n-0.1 <s> the cat\n-0.1 cat the cat\n\n\\end\\"
    path.write_text(SAMPLE.replace("ngram 2=2", "ngram 2=2\nngram 3=2").replace("\\end\\", trigrams))
    with pytest.raises(
        ArpaError, match=r"m.arpa, line 18: the context of this n-gram is not listed in order 2"
    ):
        read_arpa(path)


def test_a_model_that_was_read_cannot_be_fitted(tmp_path):
    path = tmp_path / "sample.arpa"
    path.write_text(SAMPLE)
    with pytest.raises(ValueError, match="cannot be fitted again"):
        read_arpa(path)[0].fit([[0]])


KENLM_SCORES = {"a b c": -1.5711318, "c a": -2.9433532, "b b b a c": -5.7037764, "a": -1.9311188}


def test_kenlm_reads_our_files_as_we_do(tmp_path):
    texts = [[0, 1, 2, 0, 1, 3], [1, 2, 2, 3]]
    write_arpa(
        fitted(KneserNey(0.5), texts, order=3, vocab_size=4), tmp_path / "m.arpa", ["a", "b", "c", "</s>"]
    )
    model, _ = read_arpa(tmp_path / "m.arpa")
    # kenlm 0.3.0: kenlm.Model("m.arpa").score(text), log10, with <s> before and </s> after the text.
    for text, log10 in KENLM_SCORES.items():
        ids = ["abc".index(word) for word in text.split()] + [3]
        assert model.token_log_probs([ids]).sum() / math.log(10) == pytest.approx(log10, abs=2e-6)  # float32


def test_a_compressed_file_is_compressed(tmp_path):
    write_arpa(fitted("mle"), tmp_path / "model.arpa.gz", ["a", "b", "c"])
    with gzip.open(tmp_path / "model.arpa.gz", "rt") as file:
        assert file.read().startswith("\\data\\\nngram 1=5\n")  # a b c <s> </s>
