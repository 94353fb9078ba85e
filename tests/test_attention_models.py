"""Attention in models: the language model that copies, its heads, translation, and what attention costs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lmcourse.attention import (
    AttentionLanguageModel,
    HeadExplorer,
    PairBatches,
    Seq2Seq,
    copying_heads,
    draw_alignment,
    draw_heads,
    draw_occlusion,
    earlier_columns,
    fit_exponent,
    head_weights,
    measure_cost,
    occlusion,
    score_translations,
)
from lmcourse.attention.cost import peak_mebibytes
from lmcourse.attention.pairs import laid_out
from lmcourse.generation import beam_search
from lmcourse.training import DocumentBatches, fit

# Sums of some tens of float32 products of numbers of order one, in another order.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}


def repeating_documents(count, seed=0, length=12, vocab=20):
    """Rows of noise in which id 1 is followed by the row's own secret, one of 2..9, which the second id 1 repeats."""
    rng = np.random.default_rng(seed)
    documents = rng.integers(10, vocab, size=(count, length))
    documents[:, 2] = documents[:, 9] = 1
    documents[:, 3] = documents[:, 10] = rng.integers(2, 10, size=count)
    return list(documents)


@pytest.fixture(scope="module")
def copier():
    """A model that learned to repeat the secret."""
    keras.utils.set_random_seed(0)
    model = AttentionLanguageModel(20, units=32, embedding_dim=32, num_heads=2, key_dim=16, window=2)
    model.compile(keras.optimizers.Adam(1e-2))
    fit(model, DocumentBatches(repeating_documents(2000), 32), steps=250, progress=False)
    return model


@pytest.fixture(scope="module")
def held_out():
    return repeating_documents(100, seed=1)


class TestLanguageModel:
    def test_it_copies_what_a_window_cannot_know(self, copier, held_out):
        log_probs = copier.token_log_probs(np.stack(held_out))
        # the first time the secret is one of eight; the second time it is known
        assert -log_probs[:, 3].mean() == pytest.approx(np.log(8), abs=0.25)
        assert -log_probs[:, 10].mean() < 0.1

    def test_rows_of_weights_are_distributions_over_the_past(self, copier, held_out):
        weights = head_weights(copier, held_out[:3])
        assert weights.shape == (3, 2, 12, 12)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
        assert not weights[:, :, *np.triu_indices(12, 1)].any()

    def test_a_head_points_at_what_is_repeated(self, copier, held_out):
        labels = [["copy" if t == 10 else "noise" for t in range(12)] for _ in held_out]
        found = copying_heads(copier, held_out, labels, "copy")
        assert found.count == 100
        assert found.weight[found.head] > 0.8
        # the secret stands at one of the eleven positions read: 1/11, and once more where the noise has it, never
        assert found.chance == pytest.approx(1 / 11)

    def test_earlier_columns_are_steps_at_which_the_token_was_read(self):
        assert earlier_columns([7, 5, 7, 7], 3).tolist() == [1, 3]
        assert earlier_columns([7, 5], 1).tolist() == []

    def test_weights_of_a_padded_document_are_those_of_the_document_alone(self, copier, held_out):
        both = head_weights(copier, [held_out[0], held_out[1][:5]])
        np.testing.assert_allclose(both[1, :, :5, :5], head_weights(copier, [held_out[1][:5]])[0], **FLOAT32)

    def test_no_earlier_token_is_said(self, copier):
        with pytest.raises(ValueError, match="documents must repeat a token labelled 'copy'; none does"):
            copying_heads(copier, [[3, 4]], [["copy", "copy"]], "copy")
        with pytest.raises(ValueError, match="labels must have one entry for each token"):
            copying_heads(copier, [[3, 4]], [["copy"]], "copy")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"vocab_size": 0}, "vocab_size must be at least 1; got 0"),
            ({"vocab_size": 5, "reader": "gru"}, r"reader must be one of .*; got 'gru'"),
            ({"vocab_size": 5, "window": 0}, "window must be at least 1; got 0"),
            ({"vocab_size": 5, "start_id": 5}, r"start_id must be between 0 and vocab_size - 1 = 4; got 5"),
            ({"vocab_size": 5, "num_heads": 0}, "num_heads must be at least 1; got 0"),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            AttentionLanguageModel(**arguments)


class TestOcclusion:
    def test_the_secret_is_what_the_prediction_rests_on(self, copier, held_out):
        result = occlusion(copier, held_out[0], 10, replacements=range(2, 10))
        assert result.weights.shape == (2, 10)
        assert result.drops.argmax() == 3
        assert result.drops[3] > 2  # nats

    def test_the_drop_is_the_difference_of_two_scores(self, copier, held_out):
        ids = held_out[0]
        changed = ids.copy()
        changed[5] = 19 if ids[5] != 19 else 18
        drop = occlusion(copier, ids, 10, [changed[5]]).drops[5]
        before, after = copier.token_log_probs([ids])[0, 10], copier.token_log_probs([changed])[0, 10]
        assert drop == pytest.approx(before - after, abs=1e-6)

    def test_a_token_is_no_replacement_for_itself(self, copier, held_out):
        assert occlusion(copier, held_out[0], 10, [int(held_out[0][3])]).drops[3] == 0

    def test_wrong_arguments_are_refused(self, copier, held_out):
        with pytest.raises(ValueError, match=r"t must be between 1 and 11.*got 12"):
            occlusion(copier, held_out[0], 12, [3])
        with pytest.raises(ValueError, match="replacements must hold at least one id"):
            occlusion(copier, held_out[0], 5, [])

    def test_the_picture_shows_heads_and_drops(self, copier, held_out):
        result = occlusion(copier, held_out[0], 10, [2, 3])
        above, below = draw_occlusion(result, [str(i) for i in result.tokens], "7", last=6).axes
        assert len(above.get_lines()) == 2
        np.testing.assert_allclose([bar.get_height() for bar in below.patches], result.drops[-6:])


class TestExplorer:
    @pytest.fixture
    def explorer(self, copier, held_out):
        tokens = [f"<{token}>" for token in held_out[0]]
        return HeadExplorer(head_weights(copier, held_out[:1])[0], tokens, position=10)

    def test_it_names_what_a_head_looks_at(self, explorer):
        best = max(explorer.strongest(head, count=1)[0][1] for head in range(2))
        assert best > 0.8
        assert explorer.read[:2] == ["<start>", explorer.tokens[0]]
        assert len(explorer.looks(0)) == 11

    def test_without_widgets_it_is_a_picture_of_every_head_with_tokens_escaped(self, explorer):
        bundle = explorer._repr_mimebundle_()
        assert bundle["text/html"].count("head ") == 2
        assert "&lt;start&gt;" in bundle["text/html"]
        assert "<1>" not in bundle["text/html"]
        assert "predicting" in bundle["text/plain"]

    def test_the_widget_follows_the_choice(self, explorer):
        head, position, text = explorer.widget().children
        assert text.value == explorer.head_html(0, 10)
        head.value, position.value = 1, 4
        assert text.value == explorer.head_html(1, 4)
        assert explorer.position == 4

    def test_figures_have_a_plot_for_each_head(self, explorer):
        assert len(draw_heads(explorer.weights, explorer.tokens, start=6).axes) == 2
        axes = draw_alignment(np.eye(2, 3), ["a", "b", "c"], ["x", "y"]).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(ValueError, match="weights must have shape"):
            HeadExplorer(np.ones((2, 3, 3)), ["a", "b"])
        with pytest.raises(ValueError, match="position must be between 0 and 1; got 2"):
            HeadExplorer(np.ones((2, 2, 2)), ["a", "b"], 2)


def reversals(count, seed=0, vocab=12):
    """Pairs of a row of 2 to 4 ids and the same row from its end, each closed by the end id 0."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, vocab, size=rng.integers(2, 5)).tolist() for _ in range(count)]
    return [([*row, 0], [*row[::-1], 0]) for row in rows]


@pytest.fixture(scope="module", params=["none", "bahdanau", "luong"])
def any_model(request):
    keras.utils.set_random_seed(1)
    model = Seq2Seq(12, 13, attention=request.param, units=10, embedding_dim=7)
    model.build()
    # weights larger than at the start, so that what a model writes depends on the source
    model.set_weights([2 * weight for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def translator():
    keras.utils.set_random_seed(0)
    model = Seq2Seq(12, 12, attention="luong", units=48, embedding_dim=24)
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0))
    fit(model, PairBatches(reversals(3000), 32), steps=300, progress=False)
    return model


class TestSeq2Seq:
    def test_it_learns_to_translate_with_attention_and_looks_at_what_it_writes(self, translator):
        held_out = reversals(100, seed=1)
        scores = score_translations(translator, held_out)
        assert scores.exact_match > 0.8
        assert scores.token_accuracy > 0.95
        source, target = [3, 5, 7, 9, 0], [9, 7, 5, 3, 0]
        weights = translator.alignments(source, target)
        # An LSTM's annotation of a position knows of the one before, so the look may fall beside; not elsewhere.
        centres = weights[:4] @ np.arange(5)
        assert (np.abs(centres - [3, 2, 1, 0]) < 1.6).all()
        assert (np.diff(centres) < 0).all()

    def test_the_steps_of_generation_are_those_of_training(self, any_model):
        inputs, _, _ = laid_out([np.array([3, 4, 5, 0])], [np.array([6, 7, 8, 0])], start_id=0)
        logits = any_model(inputs).numpy()
        memory, states = any_model.encode(inputs["source"], inputs["source_mask"])
        for t in range(4):
            one, states, _ = any_model.step(inputs["target"][:, t], memory, states)
            np.testing.assert_allclose(one, logits[:, t], **FLOAT32)

    def test_the_compiled_loop_writes_the_likeliest_token_each_time(self, any_model):
        sources = [[3, 4, 5, 0], [6, 0], [1, 2, 3, 4, 5, 6, 7, 8, 0]]
        for source, written in zip(sources, any_model.translate(sources, max_length=6), strict=True):
            language_model, expected = any_model.given(source), []
            while len(expected) < 6 and 0 not in expected:
                expected.append(int(language_model.next_log_probs([expected])[0].argmax()))
            assert written == expected

    def test_padding_of_the_source_changes_nothing(self, any_model):
        short = laid_out([np.array([3, 4, 0])], [np.array([5, 0])], 0)[0]
        long = {**short, "source": np.pad(short["source"], ((0, 0), (0, 4)), constant_values=9)}
        long["source_mask"] = np.pad(short["source_mask"], ((0, 0), (0, 4)))
        np.testing.assert_allclose(any_model(long), any_model(short), **FLOAT32)

    def test_given_a_source_it_is_a_language_model(self, any_model):
        model = any_model.given([3, 4, 0])
        prefixes = [[], [5], [5, 6, 7]]
        np.testing.assert_allclose(np.exp(model.next_log_probs(prefixes)).sum(axis=1), 1, atol=1e-5)
        scored = model.token_log_probs([[5, 6, 7]])
        for t in range(3):
            asked = model.next_log_probs([[5, 6, 7][:t]])[0, [5, 6, 7][t]]
            assert scored[0, t] == pytest.approx(asked, abs=1e-5)
        assert model.token_log_probs([[5, 6]], [[True, False]])[0, 1] == 0
        assert beam_search(model, [], beams=2, max_new_tokens=3)

    def test_probabilities_depend_on_the_source(self, any_model):
        one, other = (any_model.given(source).next_log_probs([[5]]) for source in ([3, 4, 0], [8, 9, 0]))
        assert np.abs(one - other).max() > 1e-4

    def test_a_saved_model_translates_the_same(self, any_model, tmp_path):
        any_model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        assert loaded.get_config() == any_model.get_config()
        assert loaded.translate([[3, 4, 0]], 5) == any_model.translate([[3, 4, 0]], 5)

    def test_every_weight_gets_a_gradient(self, any_model):
        inputs, y, _ = laid_out([np.array([3, 4, 0])], [np.array([5, 0])], 0)
        with tf.GradientTape() as tape:
            logits = any_model(inputs)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        gradients = tape.gradient(loss, [v.value for v in any_model.trainable_variables])
        assert all(gradient is not None for gradient in gradients)

    def test_alignments_are_distributions_over_the_source(self, any_model):
        if any_model.attention == "none":
            with pytest.raises(ValueError, match="this model has 'none'"):
                any_model.alignments([3, 0], [4, 0])
            return
        weights = any_model.alignments([3, 4, 5, 0], [6, 7, 0])
        assert weights.shape == (3, 4)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)

    def test_mixed_precision_gives_finite_logits(self):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = Seq2Seq(12, 13, attention="bahdanau", units=6, embedding_dim=4)
            logits = model(laid_out([np.array([3, 4, 0])], [np.array([5, 0])], 0)[0])
        finally:
            keras.config.set_dtype_policy("float32")
        assert logits.dtype == "float16"
        assert np.isfinite(logits.numpy()).all()

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.translate([[]]), r"sources\[0\] must hold at least one token"),
            (lambda m: m.translate([[12]]), r"sources\[0\].*vocab_size - 1 = 11; got 12"),
            (lambda m: m.translate([[1]], 0), "max_length must be at least 1; got 0"),
            (lambda m: m.given([1]).next_log_probs([[13]]), "vocab_size - 1 = 12; got 13"),
            (
                lambda m: m({"source": np.zeros((1, 2), int)}),
                "inputs must be a dict with source, source_mask, target",
            ),
            (
                lambda m: m({name: np.zeros(3, int) for name in ("source", "source_mask", "target")}),
                r"source must have shape \(B, S\)",
            ),
            (
                lambda m: m(
                    {**laid_out([np.array([3, 0])], [np.array([5, 0])], 0)[0], "target": np.array([[13]])}
                ),
                "target must be between 0 and vocab_size - 1 = 12; got 13",
            ),
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, translator, call, message):
        model = Seq2Seq(12, 13, units=4, embedding_dim=3)
        with pytest.raises(ValueError, match=message):
            call(model)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match=r"attention must be one of .*; got 'dot'"):
            Seq2Seq(3, 3, attention="dot")
        with pytest.raises(ValueError, match="end_id must be between 0 and target_vocab - 1 = 2; got 3"):
            Seq2Seq(3, 3, end_id=3)
        with pytest.raises(ValueError, match="units must be at least 1; got 0"):
            Seq2Seq(3, 3, units=0)


class TestPairs:
    def test_an_epoch_holds_every_pair_once_and_the_next_another_order(self):
        pairs = reversals(64)
        batches = PairBatches(pairs, 16, seed=3)
        epochs = [[next(batches) for _ in range(batches.steps_per_epoch)] for _ in range(2)]
        for epoch in epochs:
            seen = [
                (inputs["source"][b][inputs["source_mask"][b]].tolist(), y[b][weight[b] > 0].tolist())
                for inputs, y, weight in epoch
                for b in range(16)
            ]
            assert sorted(seen) == sorted(pairs)
        assert any((a[1].shape != b[1].shape) or (a[1] != b[1]).any() for a, b in zip(*epochs, strict=True))

    def test_the_decoder_reads_the_target_one_token_behind(self):
        inputs, y, weight = next(PairBatches([([5, 0], [7, 8, 0])], 1, start_id=9))
        assert inputs["target"][0, :3].tolist() == [9, 7, 8]
        assert y[0][weight[0] > 0].tolist() == [7, 8, 0]

    def test_a_batch_depends_on_seed_and_position_alone(self):
        pairs = reversals(64)
        one, other = PairBatches(pairs, 8, seed=1), PairBatches(pairs, 8, seed=1)
        for _ in range(13):
            last = next(one)
        np.testing.assert_array_equal(other.at(12)[1], last[1])
        assert one.identity == other.identity != PairBatches(pairs, 8, seed=2).identity

    def test_wrong_pairs_are_refused(self):
        with pytest.raises(ValueError, match="pairs must hold at least batch_size = 2"):
            PairBatches([([1], [2])], 2)
        with pytest.raises(ValueError, match=r"pairs\[0\] must have at least one target token"):
            PairBatches([([1], [])], 1)
        with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
            PairBatches([([1], [2])], 0)
        with pytest.raises(
            ValueError, match=r"pairs\[1\] must have at most max_length = 3 target tokens; got 4"
        ):
            PairBatches([([1], [2]), ([1], [2] * 4)], 1, max_length=3)

    def test_rows_are_not_padded_beyond_what_a_model_reads(self):
        pairs = [([1] * 9, [2] * 3), ([1] * 4, [2] * 10)]
        widths = [
            (inputs["source"].shape[1], y.shape[1])
            for inputs, y, _ in (PairBatches(pairs, 2, max_length=limit).at(0) for limit in (None, 10, 12))
        ]
        assert widths == [(16, 16), (10, 10), (12, 12)]
        identities = {PairBatches(pairs, 2, max_length=limit).identity for limit in (None, 10, 12)}
        assert len(identities) == 3

    def test_scores_are_counted_pair_by_pair(self):
        class Echo:
            """Writes its source, and predicts each target token but the first right."""

            def most_tokens(self, wanted):
                return wanted

            def translate(self, sources, max_length):
                return [list(map(int, source)) for source in sources]

            def predictions(self, pairs):
                likeliest = [np.array([-1, *target[1:]]) for _, target in pairs]
                return likeliest, [np.full(len(target), -0.5) for _, target in pairs]

        pairs = [([1, 0], [1, 0]), ([1, 2, 3, 0], [3, 2, 1, 0]), ([4, 5, 0], [5, 4, 0])]
        scores = score_translations(Echo(), pairs)
        assert scores.exact.tolist() == [True, False, False]
        assert scores.token_accuracy == pytest.approx(6 / 9)
        assert scores.nats_per_token == 0.5
        accepted = score_translations(Echo(), pairs, [{(1, 0)}, {(1, 2, 3, 0), (3, 2, 1, 0)}, set()])
        assert accepted.exact.tolist() == [True, True, False]
        by_length = scores.by_length([2, 3])
        assert {name: part.exact_match for name, part in by_length.items()} == {
            "1–2": 1.0, "3–3": 0.0, "4 and more": 0.0
        }  # fmt: skip


class TestCost:
    def test_the_exponent_of_a_power_law_is_found(self):
        lengths = np.array([16, 64, 512])
        assert fit_exponent(lengths, 3e-6 * lengths**1.5) == pytest.approx(1.5)
        with pytest.raises(ValueError, match="above zero"):
            fit_exponent([1, 2], [0, 1])
        with pytest.raises(ValueError, match="two lengths or more"):
            fit_exponent([2, 2], [1, 1])

    def test_long_rows_cost_more(self):
        short, long = measure_cost("plain", [64, 1024], heads=2, width=8)
        assert long.seconds > short.seconds
        assert np.isnan(short.mebibytes)

    @pytest.mark.slow
    def test_memory_of_chunked_attention_is_a_fraction_of_plain_attentions(self):
        # float32 scores of one head at 4,096 take 64 MiB, and the gradient holds several of them; a chunk's take 4.
        plain, chunked = (peak_mebibytes(kind, 4096, heads=1) for kind in ("plain", "chunked"))
        assert chunked < plain / 4

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match="kind must be one of"):
            measure_cost("sparse", [4])
        with pytest.raises(ValueError, match="lengths must be one or more numbers"):
            measure_cost("plain", [])
