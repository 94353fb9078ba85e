"""Looks inside a language model: where the heads of each layer look, and what each layer would already predict.

Letters for shapes: `L` layers, `H` heads, `T` time (tokens in a row), `V` vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lmcourse import plotting
from lmcourse.attention import HeadExplorer, draw_heads, head_weights
from lmcourse.attention.copying import Copying
from lmcourse.core import check_ids, check_positive
from lmcourse.text.base import visible
from lmcourse.transformer.gpt import DecoderLanguageModel

# What each id is called: a text for each of the V ids, or what makes one of an id.
Labels = Sequence[str] | Callable[[int], str]

# Positions side by side that leave room for a word in each cell.
POSITIONS = 14
# Characters of a word that fit into a cell.
CHARACTERS = 8


class AttentionViewer(HeadExplorer):
    """Look at each head of each layer while a model reads a text, token by token.

    In a live notebook it is a widget: choose layer, head and token. Elsewhere it is a picture of all of them for one
    token.

    Args:
        model: the model.
        ids: the text, (T,).
        labels: what each id is called: V texts, or a function of an id such as `lambda i: tokenizer.decode([i])`.
        position: the token to begin with; by default the last.

    Raises:
        ValueError: if ids are not what the model can read, or position is none of them.

    Example:
        >>> from lmcourse.transformer import GPT, GPTConfig
        >>> model = GPT(GPTConfig.preset("tiny", vocab_size=3))
        >>> viewer = AttentionViewer(model, [0, 2, 1], labels=["a", "b", "c"])
        >>> viewer.tokens, viewer.layers.shape  # two layers of four heads
        (['a', 'c', 'b'], (2, 4, 3, 3))
        >>> viewer.looks(head=3, layer=1).shape
        (3,)
    """

    def __init__(
        self, model: DecoderLanguageModel, ids: ArrayLike, labels: Labels, position: int | None = None
    ):
        super().__init__(layer_weights(model, ids), named(ids, labels), position)


def layer_weights(model: DecoderLanguageModel, ids: ArrayLike) -> NDArray[np.float32]:
    """Return where each head of each layer looks when a model predicts each token of a text.

    Args:
        model: the model.
        ids: the text, (T,).

    Returns:
        (L, H, T, T): row t is the prediction of token t, column s stands for token s - 1, and column 0 for the start;
        see `lmcourse.attention.head_weights`.

    Raises:
        ValueError: if ids are not what the model can read.
    """
    weights = head_weights(model, [_document(model, ids)])[0]  # (L · H, T, T)
    return weights.reshape(model.config.depth, -1, *weights.shape[1:])


def draw_layers_and_heads(
    model: DecoderLanguageModel, ids: ArrayLike, labels: Labels, start: int = 0
) -> Figure:
    """Draw the weights of all heads of all layers: layers one upon the other, heads side by side.

    Args:
        model: the model.
        ids: the text, (T,); beyond about 20 tokens the picture is large.
        labels: as in `AttentionViewer`.
        start: the first token to draw.

    Raises:
        ValueError: if ids are not what the model can read.
    """
    return draw_heads(layer_weights(model, ids), named(ids, labels), start)


def draw_copying_heads(copying: Copying, depth: int) -> Figure:
    """Draw which head of which layer points at what is being repeated.

    Args:
        copying: from `lmcourse.attention.copying_heads`.
        depth: how many layers the model has.

    Raises:
        ValueError: if the heads cannot be of so many layers.
    """
    weight = copying.by_layer(depth)[::-1]  # the last layer at the top
    heads = weight.shape[1]
    canvas, axes = plotting.figure(width=1.6 + 0.6 * heads, height=1.2 + 0.42 * depth)
    layers = [f"layer {depth - 1 - row}" for row in range(depth)]
    plotting.heat_map(axes, weight, layers, [f"head {head}" for head in range(heads)])
    axes.set_xlabel(f"weight on earlier occurrences (by chance {copying.chance:.2f})")
    return canvas


class LogitLens(NamedTuple):
    """What a model would predict if it ended earlier: before its first layer, or after each.

    Attributes:
        probability: of the token that comes, (L + 1, T).
        top: the id that would be likeliest, (L + 1, T).
    """

    probability: NDArray[np.float32]
    top: NDArray[np.int64]


def logit_lens(model: DecoderLanguageModel, ids: ArrayLike) -> LogitLens:
    """Read a text, and put the final norm and the output's matrix upon what leaves each layer.

    It works because every layer only adds to what is there: all of them write in the language of the last one, more
    or less. A layer that keeps notes for later ones is not understood so.

    Args:
        model: the model.
        ids: the text, (T,).

    Returns:
        Row 0 is of the embeddings alone, row i of what leaves layer i - 1; column t is the prediction of token t.

    Raises:
        ValueError: if ids are not what the model can read.

    Reference: nostalgebraist 2020, "interpreting GPT: the logit lens",
    https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru; Belrose et al. 2023, arXiv:2303.08112, on where it misleads.
    """
    document = _document(model, ids)
    read = np.concatenate([[model.start_id], document[:-1]])
    if not model.built:
        model.build()
    hidden, _ = model.stack.trace(model.embedding(tf.constant(read[None], tf.int32)))
    probability, top = [], []
    for x in hidden:  # one after the other: the logits of thirty layers at once would take gigabytes
        logits = tf.cast(model.logits(model.stack.finish(x))[0], tf.float32)  # (T, V)
        probability.append(tf.gather(tf.nn.softmax(logits), document, batch_dims=1).numpy())
        top.append(tf.argmax(logits, axis=-1).numpy())
    return LogitLens(np.stack(probability), np.stack(top))


def draw_logit_lens(
    model: DecoderLanguageModel,
    ids: ArrayLike,
    labels: Labels,
    start: int | None = None,
    every: int = 1,
) -> Figure:
    """Draw what each layer would already predict: its likeliest token, in bold where it is the one that comes.

    The colour is the probability of the token that comes.

    Args:
        model: the model.
        ids: the text, (T,). At most `POSITIONS` of its tokens are drawn.
        labels: as in `AttentionViewer`.
        start: the first token to draw; by default so that the last ones are.
        every: draw one layer out of so many, the last one in any case.

    Raises:
        ValueError: if ids are not what the model can read, start is none of its positions, or every is below 1.
    """
    check_positive(every=every)
    lens, tokens = logit_lens(model, ids), named(ids, labels)
    start = max(0, len(tokens) - POSITIONS) if start is None else start
    if not 0 <= start < len(tokens):
        raise ValueError(f"start must be between 0 and {len(tokens) - 1}; got {start}.")
    shown = range(start, min(start + POSITIONS, len(tokens)))
    layers = range((len(lens.top) - 1) % every, len(lens.top), every)
    depth = len(layers)
    canvas, axes = plotting.figure(width=1.9 + 0.68 * len(shown), height=1.5 + 0.36 * depth)
    image = axes.imshow(
        lens.probability[np.ix_(layers, shown)], cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto"
    )
    for row, column in np.ndindex(depth, len(shown)):
        layer, t = layers[row], shown[column]
        axes.text(
            column,
            row,
            _short(named([lens.top[layer, t]], labels)[0]),
            ha="center",
            va="center",
            fontsize=9,
            parse_math=False,
            color="white" if lens.probability[layer, t] > 0.5 else "#222",
            weight="bold" if lens.top[layer, t] == np.asarray(ids)[t] else "normal",
        )
    names = ["embeddings", *(f"after layer {i}" for i in range(len(lens.top) - 1))]
    axes.set_yticks(range(depth), [names[layer] for layer in layers])
    before = ["<start>", *tokens]
    axes.set_xticks(range(len(shown)), [_short(before[t]) for t in shown], parse_math=False)
    axes.set_xlabel("read last")
    above = axes.secondary_xaxis("top")
    above.set_xticks(range(len(shown)), [_short(tokens[t]) for t in shown], parse_math=False)
    above.set_xlabel("comes next")
    for each in (axes, above):
        each.tick_params(labelsize=9, length=0)
    axes.grid(visible=False)
    canvas.colorbar(image, ax=axes, label="P(what comes)", fraction=0.03, pad=0.01)
    return canvas


def named(ids: ArrayLike, labels: Labels) -> list[str]:
    r"""Return what ids are called, with everything that cannot be seen made visible.

    Example:
        >>> named([1, 0], ["\n", " the"])
        ['␣the', '\\n']
    """
    name = labels if callable(labels) else labels.__getitem__
    return [visible(name(int(i))) for i in np.asarray(ids)]


def _document(model: DecoderLanguageModel, ids: ArrayLike) -> NDArray[np.int64]:
    """Return a text as an array, or say what is wrong with it."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or not ids.size:
        raise ValueError(f"ids must be one text of shape (T,), not empty; got shape {ids.shape}.")
    if len(ids) > model.max_length:
        raise ValueError(f"ids must have at most max_length = {model.max_length} tokens; got {len(ids)}.")
    return check_ids(ids[None], model.vocab_size)[0][0]


def _short(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
