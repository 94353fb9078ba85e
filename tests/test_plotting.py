"""The course's figures: what they hold, not how their pixels fall."""

import numpy as np
import pytest

from lmcourse import plotting
from lmcourse.plotting.style import FLOOR, LABEL_COLOURS, PALETTE

EXCESS = {
    "3-gram": {"syntax": 0.25, "copy-name": 0.2},
    "6-gram": {"syntax": 0.05, "copy-name": 0.2, "topic": -0.01},
}


def test_a_bar_is_as_long_as_the_excess_it_stands_for():
    axes = plotting.excess_by_label(EXCESS).axes[0]
    widths = {(bar.get_y() > 0.5, bar.get_facecolor()): bar.get_width() for bar in axes.patches}
    assert sorted(round(width, 6) for width in widths.values() if width) == [0.05, 0.2, 0.2, 0.25]


def test_the_number_beside_a_bar_is_the_total_with_its_negative_parts():
    texts = [text.get_text() for text in plotting.excess_by_label(EXCESS).axes[0].texts]
    assert texts == ["0.45", "0.24"]


def test_a_label_without_a_colour_is_refused():
    with pytest.raises(ValueError, match=r"labels among syntax, .*; got syntaxx"):
        plotting.excess_by_label({"3-gram": {"syntaxx": 0.1}})
    with pytest.raises(ValueError, match="at least one model"):
        plotting.excess_by_label({})


def test_labels_at_the_ends_of_lines_do_not_overlap():
    canvas, axes = plotting.figure()
    for index in range(5):
        axes.plot([0, 1], [0, 1 + index / 1000], label=f"line {index}")
    plotting.label_lines(axes)
    canvas.draw_without_rendering()
    heights = sorted(text.get_window_extent().y0 * 72 / canvas.dpi for text in axes.texts)
    assert len(heights) == 5
    assert min(np.diff(heights)) >= 9  # the text's size in points


def test_learning_curves_show_the_floor_below_them():
    _, axes = plotting.figure()
    plotting.learning_curves(axes, [1, 10], {"a": [2.0, 1.0]}, xlabel="tokens", ylabel="bits", floor=0.5)
    floor = next(line for line in axes.get_lines() if line.get_color() == FLOOR["color"])
    assert set(floor.get_ydata()) == {0.5}
    assert axes.get_ylim()[0] == 0
    assert [text.get_text() for text in axes.texts] == ["floor", "a"]


def test_a_shown_figure_carries_its_alternative_text(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, **others: shown.update(bundle=bundle, **others)
    )
    canvas, axes = plotting.figure()
    axes.plot([1, 2])
    plotting.show(canvas, "A rising line.")
    assert shown["metadata"] == {"image/png": {"alt": "A rising line."}}
    assert set(shown["bundle"]) == {"image/png", "text/plain"}
    with pytest.raises(ValueError, match="alt must say"):
        plotting.show(canvas, " ")


def contrast_with_white(colour: str) -> float:
    # WCAG 2.1, relative luminance and contrast ratio.
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.05 + float(np.dot(linear, [0.2126, 0.7152, 0.0722])))


def test_every_line_colour_is_visible_on_white():
    assert all(contrast_with_white(colour) > 2 for colour in PALETTE.values())


def test_every_label_of_fableworld_has_a_colour_of_its_own():
    from lmcourse.datasets import fableworld

    assert set(LABEL_COLOURS) == set(fableworld.LABELS)
    assert len(set(LABEL_COLOURS.values())) == len(LABEL_COLOURS)
