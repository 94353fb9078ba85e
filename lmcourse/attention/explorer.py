"""Heads as pictures: which token looks at which, for one head at a time or for all at a glance.

Letters for shapes: `L` layers, `H` heads, `T` time (tokens in a row), `S` source length.
"""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lmcourse import plotting

# Weights are written into the cells of a picture up to this many of them; beyond, they would not be legible.
WRITTEN_CELLS = 150


class HeadExplorer:
    """Look at the weights of each head, token by token.

    In a live notebook it shows itself as a widget: choose a head and a token, and see where the head looks when it
    predicts that token. Elsewhere (on a web page, say) it is a picture: the text once for each head, for one token.

    Args:
        weights: (H, T, T), as one row of `head_weights`: row t is the prediction of token t, column s stands for token
            s - 1, and column 0 for the start. Or (L, H, T, T) for several layers, of which one is chosen, too.
        tokens: the T tokens as text.
        position: the token to begin with; by default the last.

    Raises:
        ValueError: if the tokens do not fit the weights, or position is not one of them.

    Example:
        >>> explorer = HeadExplorer(np.full((2, 3, 3), 1 / 3), ["a", "b", "a"], position=2)
        >>> explorer.looks(head=0).round(2).tolist()
        [0.33, 0.33, 0.33]
        >>> explorer.strongest(head=0, count=1)
        [('<start>', 0.3333333333333333)]
    """

    def __init__(self, weights: ArrayLike, tokens: Sequence[str], position: int | None = None):
        self.weights = np.asarray(weights)
        if self.weights.ndim not in (3, 4) or self.weights.shape[-2:] != (len(tokens), len(tokens)):
            raise ValueError(
                f"weights must have shape (H, T, T) or (L, H, T, T) with T = {len(tokens)} tokens; "
                f"got {self.weights.shape}."
            )
        self.layers = self.weights.reshape(-1, *self.weights.shape[-3:])  # (L, H, T, T)
        self.tokens = list(tokens)
        self.position = len(tokens) - 1 if position is None else position
        if not 0 <= self.position < len(tokens):
            raise ValueError(f"position must be between 0 and {len(tokens) - 1}; got {position}.")

    @property
    def read(self) -> list[str]:
        """What each column stands for."""
        return ["<start>", *self.tokens[:-1]]

    def looks(self, head: int, position: int | None = None, layer: int = 0) -> NDArray:
        """Return a head's weights on what was read before a token, (position + 1,)."""
        position = self.position if position is None else position
        return self.layers[layer, head, position, : position + 1]

    def strongest(
        self, head: int, position: int | None = None, count: int = 3, layer: int = 0
    ) -> list[tuple[str, float]]:
        """Return what a head looks at most, with the weights."""
        looks = self.looks(head, position, layer)
        order = np.argsort(-looks, kind="stable")[:count]
        return [(self.read[i], float(looks[i])) for i in order]

    def head_html(self, head: int, position: int | None = None, layer: int = 0) -> str:
        """Return the text with what a head looks at marked: the darker, the more weight."""
        position = self.position if position is None else position
        marked = [
            f"<span title='{weight:.3f}' style='padding:0 .15em;border-radius:.2em;color:{_ink(weight)};"
            f"background:rgba(0,114,178,{weight:.3f})'>{html.escape(token)}</span>"
            for token, weight in zip(self.read, self.looks(head, position, layer), strict=False)
        ]
        predicted = f"<b style='border-bottom:2px solid #D55E00'>{html.escape(self.tokens[position])}</b>"
        rest = html.escape(" ".join(self.tokens[position + 1 :]))
        return (
            f"<p style='line-height:1.9;background:white;color:#222;padding:.3em'>{self._name(layer, head)}: "
            f"{' '.join(marked)} {predicted} <span style='color:#7F7F7F'>{rest}</span></p>"
        )

    def widget(self) -> Any:
        """Return the explorer as an ipywidget: choose a layer if there are several, a head and a token."""
        import ipywidgets

        layers, heads = (
            ipywidgets.ToggleButtons(
                options=[(f"{name} {i}", i) for i in range(count)], style={"button_width": "5em"}
            )
            for name, count in zip(("layer", "head"), self.layers.shape[:2], strict=True)
        )
        position = ipywidgets.SelectionSlider(
            options=[(f"{t}: {token}", t) for t, token in enumerate(self.tokens)],
            value=self.position,
            description="predicts",
            continuous_update=True,
            layout={"width": "95%"},
        )
        text = ipywidgets.HTML(self.head_html(0))

        def redraw(_: Any) -> None:
            self.position = position.value
            text.value = self.head_html(heads.value, position.value, layers.value)

        choices = [layers, heads, position] if len(self.layers) > 1 else [heads, position]
        for choice in choices:
            choice.observe(redraw, names="value")
        return ipywidgets.VBox([*choices, text])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        every = [divmod(i, self.layers.shape[1]) for i in range(self.layers.shape[0] * self.layers.shape[1])]
        lines = [
            f"{self._name(layer, head)}, predicting {self.tokens[self.position]!r}: "
            + ", ".join(f"{token} {weight:.2f}" for token, weight in self.strongest(head, layer=layer))
            for layer, head in every
        ]
        static = "".join(self.head_html(head, layer=layer) for layer, head in every)
        bundle = {"text/plain": "\n".join(lines), "text/html": static}
        live = self.widget()._repr_mimebundle_() or {}
        view = "application/vnd.jupyter.widget-view+json"
        return bundle | ({view: live[view]} if view in live else {})

    def _name(self, layer: int, head: int) -> str:
        return f"head {head}" if len(self.layers) == 1 else f"layer {layer}, head {head}"


def draw_heads(weights: ArrayLike, tokens: Sequence[str], start: int = 0) -> Figure:
    """Draw the weights of all heads side by side: a row for each predicted token, a column for each token read.

    Args:
        weights: (H, T, T), as one row of `head_weights`, or (L, H, T, T): then the layers stand one upon the other,
            the last at the top, and no numbers are written.
        tokens: the T tokens as text.
        start: the first row and column to draw.

    Raises:
        ValueError: if the tokens do not fit the weights.
    """
    layers, shown = HeadExplorer(weights, tokens).layers, slice(start, None)
    rows, columns = list(tokens)[shown], ["<start>", *tokens[:-1]][shown]
    depth, heads = layers.shape[:2]
    side = max(2.6, 0.17 * len(rows)) if depth == 1 else max(1.4, 0.14 * len(rows))
    canvas, axes = plotting.figure(
        columns=heads, rows=depth, width=0.9 + (side + 0.1) * heads, height=(side + 0.15) * depth + 0.9
    )
    axes = np.reshape(axes, (depth, heads))[::-1]
    for layer, head in np.ndindex(depth, heads):
        each = axes[layer, head]
        _draw(each, layers[layer, head, shown, shown], rows, columns, written=depth == 1)
        each.set_title(f"head {head}" if layer == depth - 1 else "")
        if layer:
            each.set_xticklabels([])
        else:
            each.set_xlabel("read")
        if head:
            each.set_yticklabels([])
        else:
            each.set_ylabel("predicted" if depth == 1 else f"layer {layer}: predicted")
    return canvas


def draw_alignment(weights: ArrayLike, source: Sequence[str], target: Sequence[str]) -> Figure:
    """Draw where a translator looks: a row for each target token, a column for each source token.

    Args:
        weights: (T, S), from `Seq2Seq.alignments`.
        source: the S source tokens as text.
        target: the T target tokens as text.

    Raises:
        ValueError: if the tokens do not fit the weights.
    """
    canvas, axes = plotting.figure(width=1.4 + 0.3 * len(source), height=1.2 + 0.24 * len(target))
    _draw(axes, np.asarray(weights), list(target), list(source))
    return canvas


def _draw(axes: Any, weights: NDArray, rows: list[str], columns: list[str], written: bool = True) -> None:
    if written and weights.size <= WRITTEN_CELLS:
        plotting.heat_map(axes, np.where(weights < 0.005, 0.0, weights), rows, columns)
    else:
        if weights.shape != (len(rows), len(columns)):
            raise ValueError(f"weights must have shape {(len(rows), len(columns))}; got {weights.shape}.")
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(labelsize=8)


def _ink(weight: float) -> str:
    """Return a colour that can be read on a ground of this weight."""
    return "white" if weight > 0.5 else "#222"
