"""Looks inside a model: heads of all layers, the logit lens, and the diagram of a block."""

import keras
import numpy as np
import pytest

from lmcourse.attention import HeadExplorer, copying_heads, draw_heads
from lmcourse.attention.copying import Copying
from lmcourse.transformer import (
    GPT,
    BertConfig,
    EncoderDecoderConfig,
    GPTConfig,
    Llama,
    LlamaConfig,
    StackConfig,
    TransformerBlock,
    TransformerDecoder,
    TransformerEncoder,
)
from lmcourse.transformer.bert import Bert
from lmcourse.transformer.diagram import block_diagram, draw_block
from lmcourse.transformer.viewer import (
    POSITIONS,
    AttentionViewer,
    draw_copying_heads,
    draw_layers_and_heads,
    draw_logit_lens,
    layer_weights,
    logit_lens,
)

WORDS = ["<start>", *"abcdefghij", " the", "$x$", "unabridgedly"]
TEXT = [1, 5, 2, 12, 1, 3]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    config = GPTConfig(
        width=8,
        depth=3,
        num_heads=2,
        vocab_size=len(WORDS),
        max_length=24,
        positions="rotary",
        tied=False,
        initializer_stddev=0.6,
    )
    return GPT(config)


@pytest.fixture(scope="module")
def viewer(model):
    return AttentionViewer(model, TEXT, WORDS, position=4)


def texts(canvas):
    return [text.get_text() for axes in canvas.axes for text in axes.texts]


class TestHeads:
    def test_rows_are_of_predicted_tokens_and_columns_of_what_was_read(self, model, viewer):
        # What the model looks at while it reads the start id and all tokens but the last.
        traced = model.trace([[0, *TEXT[:-1]]]).weights[:, 0]
        np.testing.assert_allclose(viewer.layers, traced, rtol=1e-5, atol=1e-6)
        assert viewer.layers.shape == (3, 2, 6, 6)
        assert viewer.read[:2] == ["<start>", "a"]

    def test_a_head_is_told_by_layer_and_number(self, viewer):
        strongest = viewer.strongest(head=1, layer=2, count=1)[0]
        best = viewer.layers[2, 1, 4, :5].argmax()
        assert strongest == (viewer.read[best], pytest.approx(viewer.layers[2, 1, 4, best]))

    def test_without_widgets_it_is_a_picture_of_every_head_of_every_layer(self, viewer):
        bundle = viewer._repr_mimebundle_()
        assert bundle["text/html"].count("<p ") == 6
        assert all(
            f"layer {layer}, head {head}:" in bundle["text/html"] for layer in range(3) for head in (0, 1)
        )
        assert "layer 2, head 1, predicting 'a'" in bundle["text/plain"]

    def test_the_widget_follows_the_choice(self, viewer):
        layer, head, position, text = viewer.widget().children
        layer.value, head.value, position.value = 2, 1, 3
        assert text.value == viewer.head_html(1, 3, layer=2)
        assert text.value != viewer.head_html(1, 3, layer=1)
        viewer.position = 4

    def test_one_layer_needs_no_choice_of_it(self):
        explorer = HeadExplorer(np.full((1, 2, 2, 2), 0.5), ["a", "b"])
        assert len(explorer.widget().children) == 3
        assert "layer" not in explorer.head_html(0)
        with pytest.raises(ValueError, match=r"weights must have shape \(H, T, T\) or \(L, H, T, T\)"):
            HeadExplorer(np.ones((2, 3, 2, 2, 2)), ["a", "b"])

    def test_the_grid_has_a_plot_for_each_head_with_the_last_layer_at_the_top(self, model, viewer):
        axes = draw_layers_and_heads(model, TEXT, WORDS, start=2).axes
        assert len(axes) == 6
        assert [each.get_ylabel() for each in axes[::2]] == [f"layer {i}: predicted" for i in (2, 1, 0)]
        assert [each.get_title() for each in axes[:3]] == ["head 0", "head 1", ""]
        shown = axes[1].images[0].get_array()
        np.testing.assert_allclose(shown, viewer.layers[2, 1, 2:, 2:], rtol=1e-5, atol=1e-6)
        assert [tick.get_text() for tick in axes[4].get_xticklabels()] == ["e", "b", "$x$", "a"]

    def test_one_layer_is_drawn_as_in_chapter_3(self):
        axes = draw_heads(np.full((2, 3, 3), 1 / 3), ["a", "b", "c"]).axes
        assert [each.get_title() for each in axes] == ["head 0", "head 1"]
        assert axes[0].get_ylabel() == "predicted"
        assert axes[0].texts[0].get_text() == "0.33"

    def test_a_text_that_the_model_cannot_read_is_refused(self, model):
        for wrong, message in (
            ([[1, 2]], r"ids must be one text of shape \(T,\).*got shape \(1, 2\)"),
            ([], "ids must be one text"),
            ([1, len(WORDS)], "vocab_size - 1 = 13; got 14"),
            ([1] * 25, "ids must have at most max_length = 24 tokens; got 25"),
        ):
            with pytest.raises(ValueError, match=message):
                layer_weights(model, wrong)
            with pytest.raises(ValueError, match=message):
                logit_lens(model, wrong)


class TestCopying:
    def test_the_heads_of_all_layers_are_looked_at(self, model):
        # Token 4 repeats token 0, which was read at step 1.
        labels = [["new"] * 4 + ["copy", "new"]]
        found = copying_heads(model, [TEXT], labels, "copy")
        expected = layer_weights(model, TEXT)[:, :, 4, 1]
        np.testing.assert_allclose(found.by_layer(3), expected, rtol=1e-6)
        assert divmod(found.head, 2) == np.unravel_index(expected.argmax(), (3, 2))

    def test_the_picture_has_a_cell_for_each_head_with_the_last_layer_at_the_top(self):
        copying = Copying(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), chance=0.05, count=9)
        canvas = draw_copying_heads(copying, depth=3)
        assert texts(canvas) == ["0.50", "0.60", "0.30", "0.40", "0.10", "0.20"]
        rows = [label.get_text() for label in canvas.axes[0].get_yticklabels()]
        assert rows == ["layer 2", "layer 1", "layer 0"]
        assert "0.05" in canvas.axes[0].get_xlabel()
        with pytest.raises(ValueError, match="depth must divide the number of heads, 6; got 4"):
            draw_copying_heads(copying, depth=4)


class TestLogitLens:
    def test_its_last_row_is_what_the_model_predicts(self, model):
        lens = logit_lens(model, TEXT)
        assert lens.probability.shape == lens.top.shape == (4, 6)
        np.testing.assert_allclose(np.log(lens.probability[-1]), model.token_log_probs([TEXT])[0], atol=1e-5)
        predicted = [model.next_log_probs([TEXT[:t]])[0].argmax() for t in range(6)]
        assert lens.top[-1].tolist() == predicted

    def test_its_first_row_knows_the_last_token_alone(self, model):
        # The embeddings have not been mixed yet: the same token read gives the same answer.
        top = logit_lens(model, [3, 1, 2, 1, 5]).top[0]
        assert top[2] == top[4]  # after a, twice

    def test_the_picture_says_what_each_layer_would_write(self, model):
        canvas = draw_logit_lens(model, TEXT, WORDS)
        lens, axes = logit_lens(model, TEXT), canvas.axes[0]
        np.testing.assert_allclose(axes.images[0].get_array(), lens.probability, rtol=1e-5)
        written = [text.get_text() for text in axes.texts]
        expected = {"␣the" if w == " the" else w if len(w) <= 8 else f"{w[:7]}…" for w in WORDS}
        assert len(written) == 4 * 6
        assert set(written) <= expected
        bold = [text.get_weight() == "bold" for text in axes.texts]
        assert bold == (lens.top == TEXT).ravel().tolist()
        assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["embeddings", "after layer 0"]
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            "<start>",
            "a",
            "e",
            "b",
            "$x$",
            "a",
        ]

    def test_a_long_text_is_cut_to_what_can_be_read(self, model):
        long = TEXT * 4
        assert len(draw_logit_lens(model, long, WORDS).axes[0].texts) == 4 * POSITIONS
        axes = draw_logit_lens(model, long, lambda i: WORDS[i], start=22).axes[0]
        assert len(axes.texts) == 4 * 2
        with pytest.raises(ValueError, match="start must be between 0 and 23; got 24"):
            draw_logit_lens(model, long, WORDS, start=24)


SIZES = {"width": 16, "depth": 2, "num_heads": 4, "hidden_dim": 24}


def boxes(model):
    """Return the titles of a diagram's boxes from bottom to top, and everything that is written in it."""
    canvas = draw_block(model)
    titles = {"self-attention", "cross-attention", "feed-forward", "LayerNorm", "RMSNorm", "+"}
    found = sorted((text.get_position()[1], text.get_text()) for text in canvas.axes[0].texts)
    return [text for _, text in found if text in titles], " | ".join(text for _, text in found)


class TestDiagram:
    def test_gpt(self):
        titles, written = boxes(GPT(GPTConfig(**SIZES, vocab_size=5, max_length=6)))
        assert titles == ["LayerNorm", "self-attention", "+", "LayerNorm", "feed-forward", "+"]
        assert "each of the 2 blocks of GPT" in written
        assert "4 heads of 4" in written
        assert "16 → 24 → 16, GELU (tanh)" in written
        assert "learned positions" in written
        # attention 4 · (16 + 1) · 16, network 17 · 24 + 25 · 16, norms 2 · 2 · 16
        assert "1,960 parameters; learned" in written
        assert all(f"{count} parameters" in written for count in ("1,088", "808", "32"))
        assert "(B, T, 16)" in written

    def test_llama(self):
        titles, written = boxes(Llama(LlamaConfig(**SIZES, num_kv_heads=2, vocab_size=5)))
        assert titles == ["RMSNorm", "self-attention", "+", "RMSNorm", "feed-forward", "+"]
        assert "4 heads of 4, 2 of keys and values" in written
        assert "SwiGLU" in written
        assert "rotary positions" in written
        assert "1,152 parameters" in written  # three matrices of 16 · 24

    def test_bert_has_its_norms_behind_the_sums(self):
        titles, written = boxes(Bert(BertConfig(**SIZES, vocab_size=5)))
        assert titles == ["self-attention", "+", "LayerNorm", "feed-forward", "+", "LayerNorm"]
        assert "each of the 2 blocks of Bert" in written

    def test_the_decoder_of_2017_looks_at_the_memory(self):
        config = EncoderDecoderConfig(**SIZES, source_vocab=5, target_vocab=5)
        titles, written = boxes(TransformerDecoder(config, cross_attention=True))
        one = ["+", "LayerNorm"]
        assert titles == ["self-attention", *one, "cross-attention", *one, "feed-forward", *one]
        assert "memory" in written
        assert "ReLU" in written
        titles, written = boxes(TransformerEncoder(config))
        assert "cross-attention" not in titles
        assert "memory" not in written

    def test_paths_and_norms_are_found_in_what_the_block_does(self):
        class Plain(TransformerBlock):
            def connect(self, x, norm, sublayer, training):
                return sublayer(norm(x))

        titles, _ = boxes(Plain(StackConfig(**SIZES)))
        assert titles == ["LayerNorm", "self-attention", "LayerNorm", "feed-forward"]
        titles, _ = boxes(TransformerBlock(StackConfig(**SIZES, norm="none")))
        assert titles == ["self-attention", "+", "feed-forward", "+"]

        class Doubled(TransformerBlock):
            def connect(self, x, norm, sublayer, training):
                return 2 * x + sublayer(norm(x))

        class Shortened(TransformerBlock):
            def call(self, x, **kwargs):
                return self.feed_forward(x)

        with pytest.raises(ValueError, match="connect norm and sublayer in a known way; Doubled does not"):
            block_diagram(Doubled(StackConfig(**SIZES)))
        with pytest.raises(ValueError, match="Shortened has its own call"):
            block_diagram(Shortened(StackConfig(**SIZES)))

    def test_parameters_in_the_diagram_are_the_blocks(self):
        block = TransformerBlock(StackConfig(**SIZES, norm_first=False, norm="rms"), cross_attention=True)
        sublayers = block_diagram(block)
        parts = [part for each in sublayers for part in (*each.parts, each.norm_after)]
        assert sum(part.parameters for part in parts) == block.count_params()

    def test_what_has_no_blocks_is_refused(self):
        with pytest.raises(ValueError, match="model must be a TransformerBlock or have blocks; got Dense"):
            draw_block(keras.layers.Dense(3))

    def test_no_text_leaves_its_box_or_the_picture(self):
        # The longest texts there are in sizes that can be built: two numbers of two digits, and the longest activation.
        sizes = {"width": 192, "depth": 12, "num_heads": 12, "num_kv_heads": 4, "hidden_dim": 1024}
        canvas = draw_block(TransformerDecoder(StackConfig(**sizes, activation="gelu_tanh"), True))
        canvas.draw_without_rendering()
        axes, (box, *_) = canvas.axes[0], canvas.axes[0].patches
        inner = box.get_window_extent()
        for text in axes.texts:
            extent = text.get_window_extent()
            assert extent.x0 >= 0
            assert extent.x1 <= canvas.bbox.x1
            if inner.x0 < extent.x0 < inner.x1 and text.get_text() != "+":
                assert extent.x1 <= inner.x1, text.get_text()
