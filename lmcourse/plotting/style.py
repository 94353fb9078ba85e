"""How every figure of the course looks, and how a notebook shows one."""

import base64
import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the common kinds of colour blindness leave distinct, but for their yellow: it is too
# pale for a line on white. Source: Okabe and Ito 2008, "Color universal design", https://jfly.uni-koeln.de/color/
PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#7F7F7F",
    "black": "#222222",
}

# What Fableworld's tokens are examples of has the same colour in every chapter.
LABEL_COLOURS = {
    "syntax": PALETTE["grey"],
    "agreement": PALETTE["sky"],
    "copy-name": PALETTE["red"],
    "copy-attribute": PALETTE["orange"],
    "sum": PALETTE["blue"],
    "topic": PALETTE["green"],
    "noise": "#C9C9C9",
    "binding": PALETTE["purple"],
}

# The floor is drawn the same way everywhere.
FLOOR: dict[str, Any] = {"color": PALETTE["black"], "linestyle": (0, (5, 3)), "linewidth": 1.4}

# A line to compare with that is no floor: a law, a diagonal.
REFERENCE: dict[str, Any] = {"color": PALETTE["grey"], "linestyle": ":", "linewidth": 1.6}

STYLE = {
    # A white ground of its own: a figure stays readable where the notebook is dark.
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.prop_cycle": mpl.cycler(color=list(PALETTE.values())),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "grid.color": "#E6E6E6",
    "lines.linewidth": 1.8,
    "font.size": 10,
    "legend.frameon": False,
}

# Enough for a screen; a notebook with fifteen figures stays under half a megabyte.
DOTS_PER_INCH = 80


def figure(
    columns: int = 1, *, rows: int = 1, width: float = 7.2, height: float = 3.6, **labels: Any
) -> tuple[Figure, Any]:
    """Return an empty figure in the course's style, and its axes.

    Args:
        columns: how many plots side by side.
        rows: how many below each other.
        width: in inches.
        height: in inches.
        labels: what `Axes.set` takes, for the first plot: `title`, `xlabel`, `ylabel`, `xscale`, …

    Returns:
        The figure, which no window and no global state holds, and what `Figure.subplots` returns.
    """
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(width, height), layout="constrained", dpi=DOTS_PER_INCH)
        axes = canvas.subplots(rows, columns)
        canvas.axes[0].set(**labels)
        return canvas, axes


def show(canvas: Figure, alt: str) -> None:
    """Show a figure in the notebook as a PNG with a text for those who cannot see it.

    Args:
        canvas: from `figure`.
        alt: what there is to see, in a sentence.

    Raises:
        ValueError: if alt is empty.
    """
    if not alt.strip():
        raise ValueError("alt must say what the figure shows; got an empty text.")
    from IPython.display import display

    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        canvas.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    picture = base64.b64encode(buffer.getvalue()).decode()
    bundle = {"image/png": picture, "text/plain": f"[Figure: {alt}]"}
    display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)


def floor_line(axes: Axes, value: float, label: str = "floor") -> None:
    """Draw the floor: what a perfect predictor cannot go below.

    Args:
        axes: where.
        value: on the y axis.
        label: written at the line's left end.
    """
    axes.axhline(value, **FLOOR)
    axes.annotate(
        label,
        (0.01, value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        color=FLOOR["color"],
        fontsize=9,
    )


def colour_of(index: int) -> str:
    """Return the palette's colour number `index`, beginning again when there are no more."""
    return list(PALETTE.values())[index % len(PALETTE)]
