"""The course's figures: one palette, one style, and the pictures that come back in every chapter."""

from lmcourse.plotting.figures import excess_by_label, heat_map, label_lines, learning_curves, lines
from lmcourse.plotting.style import FLOOR, PALETTE, REFERENCE, colour_of, figure, floor_line, show

__all__ = [
    "FLOOR",
    "PALETTE",
    "REFERENCE",
    "colour_of",
    "excess_by_label",
    "figure",
    "floor_line",
    "heat_map",
    "label_lines",
    "learning_curves",
    "lines",
    "show",
]
