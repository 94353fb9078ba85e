"""A diagram of a block, drawn from its layers: what is there, how it is wired, how large each part is.

Letters for shapes: `B` rows, `T` time, `S` length of the memory, `D` width, `F` width of the feed-forward network, `H`
heads, `G` heads of keys and values, `K` width of a head.
"""

from typing import Any, NamedTuple

import keras
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lmcourse import plotting
from lmcourse.attention import MultiHeadAttention
from lmcourse.transformer.blocks import TransformerBlock
from lmcourse.transformer.feed_forward import FeedForward
from lmcourse.transformer.self_attention import SelfAttention

# Ground and border of a box. Both stay apart in greys, too.
COLOURS = {
    "norm": ("#F3ECD2", plotting.PALETTE["orange"]),
    "attention": ("#D6E7F3", plotting.PALETTE["blue"]),
    "cross_attention": ("#D3EDE5", plotting.PALETTE["green"]),
    "feed_forward": ("#F6DFD2", plotting.PALETTE["red"]),
}

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "gelu_tanh": "GELU (tanh)", "swiglu": "SwiGLU"}
NORMS = {"LayerNorm": "LayerNorm", "RMSNorm": "RMSNorm"}
POSITIONS = {
    "none": "no positions",
    "sinusoidal": "sinusoidal positions",
    "learned": "learned positions",
    "rotary": "rotary positions",
    "alibi": "ALiBi",
}

# Inches: a box of one line and of two, the gaps between them, and where things stand from left to right.
LOW, HIGH, GAP = 0.4, 0.7, 0.3
EDGE, PATH, LEFT, CENTRE, RIGHT, NOTES, WIDTH = 0.05, 0.75, 1.1, 2.75, 4.4, 4.6, 6.6


class Part(NamedTuple):
    """A box of the diagram.

    Attributes:
        kind: "norm", "attention", "cross_attention" or "feed_forward".
        title: the first line in the box.
        details: the second line, or "".
        parameters: how many there are, None for what has none of its own.
        shape: what leaves it.
    """

    kind: str
    title: str
    details: str
    parameters: int
    shape: str


class Sublayer(NamedTuple):
    """What happens between two places of the residual path.

    Attributes:
        parts: the boxes that the data pass, in order.
        residual: whether a path goes past them and is added again.
        norm_after: the norm behind the sum, or None.
    """

    parts: list[Part]
    residual: bool
    norm_after: Part | None


def block_diagram(block: TransformerBlock) -> list[Sublayer]:
    """Return what a block is made of, in the order in which data pass.

    Nothing is taken on trust but the three sublayers' order: sizes are read from the layers, parameters are counted,
    and where norms and residual paths are is found by an experiment, see `_wiring`.

    Args:
        block: a `TransformerBlock`.

    Raises:
        ValueError: if its parts are connected in another way than one after the other.

    Example:
        >>> from lmcourse.transformer import StackConfig
        >>> block = TransformerBlock(StackConfig(width=8, depth=1, num_heads=2))
        >>> [(part.title, part.parameters) for part in block_diagram(block)[1].parts]
        [('LayerNorm', 16), ('feed-forward', 552)]
    """
    for name in ("call", "leave"):
        if getattr(type(block), name) is not getattr(TransformerBlock, name):
            raise ValueError(
                f"block must connect its parts as TransformerBlock does; {type(block).__name__} has its own {name}."
            )
    if not block.built:
        block.build((None, None, block.config.width))
    residual, norm_first = _wiring(block)
    sublayers = []
    for name in ("attention", "cross_attention", "feed_forward"):
        layer, norm = getattr(block, name), getattr(block, f"{name}_norm")
        if layer is None:
            continue
        parts = [_part(name, layer, block)]
        norms = [_norm(norm, block)] if type(norm).__name__ in NORMS else []
        if norms and (norm_first or not residual):
            parts = norms + parts if norm_first else parts + norms
        sublayers.append(
            Sublayer(parts, residual, norms[0] if norms and residual and not norm_first else None)
        )
    return sublayers


def draw_block(model: Any) -> Figure:
    """Draw a block from bottom to top: its layers, their sizes and parameters, and the paths between them.

    Args:
        model: a `TransformerBlock`, or what has blocks: GPT, Llama, Bert, a `TransformerEncoder` or a
            `TransformerDecoder`; of an `EncoderDecoder` the decoder's block is drawn (its encoder's is that of
            `model.encoder`).

    Raises:
        ValueError: if there is no such block in it.
    """
    owner, block = _find_block(model)
    sublayers = block_diagram(block)
    height = sum(_height(sublayer) for sublayer in sublayers) + 1.55
    canvas, axes = plotting.figure(width=WIDTH, height=height)
    axes.set(xlim=(0, WIDTH), ylim=(0, height), aspect="equal")
    axes.axis("off")
    _heading(axes, height, owner, block, sum(_count(sublayer) for sublayer in sublayers))
    y = 0.35
    axes.text(CENTRE, y - 0.03, "x", ha="center", va="top", fontsize=13, style="italic")
    _note(axes, y - 0.22, f"(B, T, {block.config.width})", "")
    for sublayer in sublayers:
        y = _draw_sublayer(axes, y, sublayer)
    _arrow(axes, (CENTRE, y), (CENTRE, y + GAP))
    return canvas


def _wiring(block: TransformerBlock) -> tuple[bool, bool]:
    """Find out by an experiment whether a path goes past a sublayer, and whether the norm comes first.

    The block connects a norm that multiplies by 10 and a sublayer that adds 1; each way gives another number.
    """
    one = ops.ones((1, 1, 1), dtype=block.compute_dtype)
    found = float(ops.squeeze(block.connect(one, lambda y: 10 * y, lambda y: y + 1, training=False)))
    ways = {12.0: (True, True), 30.0: (True, False), 11.0: (False, True), 20.0: (False, False)}
    if found not in ways:
        raise ValueError(
            f"block must connect norm and sublayer in a known way; {type(block).__name__} does not."
        )
    return ways[found]


def _find_block(model: Any) -> tuple[str, TransformerBlock]:
    """Return what a block belongs to, in words, and the block."""
    if isinstance(model, TransformerBlock):
        return "", model
    for name in ("stack", "decoder", "encoder"):  # of a translator the decoder, which has all there is
        stack = getattr(model, name, None)
        if isinstance(getattr(stack, "blocks", None), list):
            of = " decoder" if name == "decoder" else ""
            return f"each of the {len(stack.blocks)} blocks of {type(model).__name__}{of}", stack.blocks[0]
    if isinstance(getattr(model, "blocks", None), list):
        return f"each of the {len(model.blocks)} blocks of {type(model).__name__}", model.blocks[0]
    raise ValueError(f"model must be a TransformerBlock or have blocks; got {type(model).__name__}.")


def _norm(norm: keras.layers.Layer, block: TransformerBlock) -> Part:
    shape = f"(B, T, {block.config.width})"
    return Part("norm", NORMS[type(norm).__name__], "", norm.count_params(), shape)


def _part(kind: str, layer: keras.layers.Layer, block: TransformerBlock) -> Part:
    shape = f"(B, T, {block.config.width})"
    if isinstance(layer, FeedForward):
        wide = f"{block.config.width} → {layer.hidden_dim} → {block.config.width}"
        details = f"{wide}, {ACTIVATIONS[layer.activation]}"
        return Part(kind, "feed-forward", details, layer.count_params(), shape)
    title = "self-attention" if isinstance(layer, SelfAttention) else "cross-attention"
    return Part(kind, title, _heads(layer), layer.count_params(), shape)


def _heads(layer: MultiHeadAttention) -> str:
    heads = f"{layer.num_heads} head{'s' if layer.num_heads > 1 else ''} of {layer.key_dim}"
    if layer.num_kv_heads == layer.num_heads:
        return heads
    return f"{heads}, {layer.num_kv_heads} of keys and values"


def _count(sublayer: Sublayer) -> int:
    parts = [*sublayer.parts, *([sublayer.norm_after] if sublayer.norm_after else [])]
    return sum(part.parameters for part in parts)


def _height(sublayer: Sublayer) -> float:
    """Return how tall a sublayer is drawn, in inches."""
    boxes = sum(GAP + _box_height(part) for part in sublayer.parts)
    after = GAP + _box_height(sublayer.norm_after) if sublayer.norm_after else 0.0
    return GAP + boxes + (GAP + 0.1 if sublayer.residual else 0.0) + after


def _box_height(part: Part) -> float:
    return HIGH if part.details else LOW


def _heading(axes: Axes, height: float, owner: str, block: TransformerBlock, parameters: int) -> None:
    axes.text(0.1, height - 0.1, owner or type(block).__name__, va="top", fontsize=13, weight="bold")
    known = POSITIONS[block.config.positions]
    axes.text(
        0.1, height - 0.38, f"{parameters:,} parameters; {known}", va="top", fontsize=11.5, color="#444"
    )


def _draw_sublayer(axes: Axes, y: float, sublayer: Sublayer) -> float:
    """Draw a sublayer from height y upwards and return where it ends."""
    fork = y + GAP / 2
    start, y = y, y + GAP - 0.12
    axes.plot([CENTRE, CENTRE], [start, y], color=plotting.PALETTE["black"], linewidth=1.4)
    for part in sublayer.parts:
        y = _draw_part(axes, y, part)
    if sublayer.residual:
        y = _draw_sum(axes, y, fork)
    if sublayer.norm_after is not None:
        y = _draw_part(axes, y, sublayer.norm_after)
    return y


def _draw_part(axes: Axes, y: float, part: Part) -> float:
    height = _box_height(part)
    bottom = y + GAP
    _arrow(axes, (CENTRE, y), (CENTRE, bottom))
    ground, border = COLOURS[part.kind]
    axes.add_patch(
        FancyBboxPatch(
            (LEFT, bottom),
            RIGHT - LEFT,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=ground,
            edgecolor=border,
            linewidth=1.4,
        )
    )
    middle = bottom + height / 2
    title = middle + (0.13 if part.details else 0)
    axes.text(CENTRE, title, part.title, ha="center", va="center", fontsize=13, weight="bold", color="#222")
    if part.details:
        axes.text(CENTRE, middle - 0.15, part.details, ha="center", va="center", fontsize=11, color="#222")
    if part.kind == "cross_attention":
        # A gap in the path that it crosses, so that the two are not taken for one.
        axes.plot([PATH - 0.1, PATH + 0.1], [middle, middle], color="white", linewidth=8, zorder=2)
        _arrow(axes, (EDGE, middle), (LEFT, middle), border)
        axes.text(EDGE, middle + 0.08, "memory", va="bottom", fontsize=11, color="#222")
    _note(axes, middle, part.shape, f"{part.parameters:,} parameters")
    return bottom + height


def _draw_sum(axes: Axes, y: float, fork: float) -> float:
    """Draw the path that goes past, from the height where it leaves to a plus, and return where that ends."""
    radius = 0.13
    plus = y + GAP + radius
    black = plotting.PALETTE["black"]
    _arrow(axes, (CENTRE, y), (CENTRE, plus - radius))
    axes.plot([CENTRE, PATH, PATH], [fork, fork, plus], color=black, linewidth=1.4, solid_joinstyle="round")
    _arrow(axes, (PATH, plus), (CENTRE - radius, plus))
    axes.text(
        CENTRE,
        plus,
        "+",
        ha="center",
        va="center",
        fontsize=12,
        bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": black, "linewidth": 1.4},
    )
    return plus + radius


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = plotting.PALETTE["black"]
) -> None:
    style = {"arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": colour}
    axes.annotate("", end, start, arrowprops={**style, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0})


def _note(axes: Axes, y: float, shape: str, parameters: str) -> None:
    """Write beside a box what leaves it and what it costs."""
    axes.text(NOTES, y + 0.11, shape, va="center", fontsize=11.5, color="#222")
    axes.text(NOTES, y - 0.11, parameters, va="center", fontsize=11, color="#444")
