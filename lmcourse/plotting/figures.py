"""The pictures that more than one chapter draws."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lmcourse.plotting.style import FLOOR, LABEL_COLOURS, colour_of, figure, floor_line


def label_lines(axes: Axes, gap_points: float = 11.0) -> None:
    """Write each line's label at its right end, in its colour, moved apart where two would overlap.

    Call it last: the labels stay where the axes' limits put them.

    Args:
        axes: with lines that have labels; instead of a legend.
        gap_points: the least distance between two labels, in points.
    """
    lines = [
        line for line in axes.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())
    ]
    axes.figure.canvas.draw()
    to_points = 72 / axes.figure.dpi
    ends = [
        axes.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1])) * to_points for line in lines
    ]
    height = -float("inf")
    for (_, y), line in sorted(zip(ends, lines, strict=True), key=lambda pair: pair[0][1]):
        height = max(y, height + gap_points)
        axes.annotate(
            line.get_label(),
            (line.get_xdata()[-1], line.get_ydata()[-1]),
            xytext=(6, height - y),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )


def excess_by_label(excess: Mapping[str, Mapping[str, float]], *, height: float = 3.2) -> Figure:
    """Draw where each model loses its bits: the excess over the floor, split by what the tokens are.

    Args:
        excess: for each model, `lmcourse.core.excess_bits_by_label`'s result, in bits per token of the whole text.
        height: of the figure, in inches.

    Returns:
        A figure with one bar a model. The floor is the line at zero; parts below zero, which chance can make,
        are left out of the bar and in the total.

    Raises:
        ValueError: if there is no model or a label is unknown.
    """
    if not excess:
        raise ValueError("excess must hold at least one model; got none.")
    unknown = sorted({label for parts in excess.values() for label in parts} - set(LABEL_COLOURS))
    if unknown:
        raise ValueError(
            f"excess must have labels among {', '.join(LABEL_COLOURS)}; got {', '.join(unknown)}."
        )
    canvas, axes = figure(height=height)
    names = list(excess)
    left = [0.0] * len(names)
    for label, colour in LABEL_COLOURS.items():
        widths = [max(excess[name].get(label, 0.0), 0.0) for name in names]
        if any(widths):
            axes.barh(names, widths, left=left, color=colour, label=label, height=0.65)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, name in enumerate(names):
        axes.annotate(
            f"{sum(excess[name].values()):.2f}",
            (left[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.axvline(0, **FLOOR)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("excess over the floor (bits per token)")
    # Two rows above the bars: beside them it would take the width the bars need.
    canvas.legend(loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return canvas


def lines(axes: Axes, x: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
    """Draw one line a name, each point marked, with the name at the line's end.

    Args:
        axes: where; set its limits and scales before.
        x: what the lines have in common. A shorter line ends earlier.
        values: what each line shows.
    """
    _plot(axes, x, values)
    label_lines(axes)


def heat_map(axes: Axes, values: ArrayLike, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a table of numbers from 0 to 1, such as probabilities or attention weights; zeros are left empty.

    Args:
        axes: where.
        values: (R, C).
        rows: R names.
        columns: C names.

    Raises:
        ValueError: if the names do not fit the values.
    """
    values = np.asarray(values)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values must have shape {(len(rows), len(columns))}, a row and column a name; got {values.shape}."
        )
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(values > 0):
        shade = "white" if values[row, column] > 0.5 else "black"
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=shade)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)


def learning_curves(
    axes: Axes,
    sizes: Sequence[float],
    values: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    floor: float | None = None,
) -> None:
    """Draw a measure against the amount of training text, one line a model, labelled at its end.

    Args:
        axes: where.
        sizes: the amounts, on a logarithmic axis.
        values: the measure of each model at each size.
        xlabel: with its unit.
        ylabel: with its unit.
        floor: what a perfect predictor cannot go below, if it is known; the axis then begins at zero.
    """
    _plot(axes, sizes, values)
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    if floor is not None:
        axes.set_ylim(0, None)
        floor_line(axes, floor)
    label_lines(axes)


def _plot(axes: Axes, x: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
    for index, (name, line) in enumerate(values.items()):
        # Every second line is dashed: where two coincide, both can be seen.
        style = "--" if index % 2 else "-"
        axes.plot(x[: len(line)], line, style, marker="o", markersize=4, color=colour_of(index), label=name)
