"""The class as a whole: how the points spread, which exercise fails how, and which hints were needed."""

from collections import Counter
from collections.abc import Iterable, Sequence

from lmcourse.grading.chapters import Chapter
from lmcourse.grading.outcomes import SYMBOLS
from lmcourse.grading.reports.page import css_class, escape, page, table
from lmcourse.grading.reports.words import (
    STATES,
    clean,
    notes_on,
    one_line,
    overview,
    points_of,
    state_of,
)
from lmcourse.grading.submissions import Graded

_MOST_HINTS = 20
_MOST_BINS = 10
_WIDTH = 720


def statistics_page(graded: Sequence[Graded], chapter: Chapter) -> str:
    """Return the page of class statistics, which names no learner."""
    whole = overview(graded)
    body = [
        f"<h1>Chapter {int(chapter.number)}: the class in figures</h1>",
        f'<p class="soft">{len(whole.points)} of {len(graded)} submissions could be graded. '
        "No learner is named here.</p>",
    ]
    if whole.points:
        body += [
            "<h2>Points</h2>",
            _histogram(whole.points, whole.out_of),
            "<h2>What became of each exercise</h2>",
            *_outcomes(graded, whole.numbers),
            "<h2>The hints that were shown most often</h2>",
            _hints(graded),
        ]
    faults = _faults(graded) if whole.faults else "<p>Everything could be graded.</p>"
    body += ["<h2>What could not be graded</h2>", faults]
    return "".join(page(f"Chapter {chapter.number}: statistics", body))


def hint_counts(graded: Sequence[Graded]) -> list[tuple[str, str, int]]:
    """Return (exercise, hint, how many learners were shown it), the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in graded:
        for exercise in one.report.exercises if one.report else ():
            counts.update(
                (exercise.number, text) for name, text in notes_on(exercise) if name == "Hint" and text
            )
    return [(number, hint, count) for (number, hint), count in counts.most_common()]


def bins(points: Sequence[float], highest: float) -> list[tuple[float, float, int]]:
    """Count points in at most ten bins of equal width: (from, to, how many). The last holds the highest too.

    Example:
        >>> bins([0, 1, 4, 4], 4)
        [(0.0, 1.0, 1), (1.0, 2.0, 1), (2.0, 3.0, 0), (3.0, 4.0, 2)]
    """
    number = max(1, min(_MOST_BINS, int(highest)))
    width = highest / number if highest else 1.0
    counts = Counter(min(number - 1, int(value / width)) for value in points)
    return [(i * width, (i + 1) * width, counts[i]) for i in range(number)]


def _histogram(points: Sequence[float], highest: float) -> str:
    columns = bins(points, highest)
    most = max(count for _, _, count in columns)
    left, top, height = 10, 24, 150
    step = (_WIDTH - 2 * left) / len(columns)
    shapes = []
    for i, (start, end, count) in enumerate(columns):
        tall = height * count / most
        x, y = left + i * step, top + height - tall
        middle = x + step / 2
        shapes.append(
            f'<rect x="{x + 3:.1f}" y="{y:.1f}" width="{step - 6:.1f}" height="{tall:.1f}" fill="var(--link)"/>'
        )
        shapes.append(f'<text x="{middle:.1f}" y="{y - 6:.1f}" text-anchor="middle">{count}</text>')
        label = f"{points_of(round(start, 1))}–{points_of(round(end, 1))}"
        shapes.append(f'<text x="{middle:.1f}" y="{top + height + 18}" text-anchor="middle">{label}</text>')
    shapes.append(
        f'<text x="{_WIDTH / 2}" y="{top + height + 40}" text-anchor="middle">points (number of learners above)</text>'
    )
    told = "; ".join(f"{points_of(a)} to {points_of(b)} points: {count}" for a, b, count in columns)
    ordered = sorted(points)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    mean = sum(points) / len(points)
    caption = (
        f"Mean {points_of(round(mean, 1))}, median {points_of(round(median, 1))}, "
        f"lowest {points_of(ordered[0])}, highest {points_of(ordered[-1])} of {points_of(highest)}."
    )
    return _svg("".join(shapes), top + height + 50, f"Learners by points. {told}.") + f"<p>{caption}</p>"


def _outcomes(graded: Iterable[Graded], numbers: Sequence[str]) -> list[str]:
    """Return a bar for each exercise, cut by what became of it, and the same as a table."""
    counts = {number: Counter() for number in numbers}
    for one in graded:
        for exercise in one.report.exercises if one.report else ():
            counts[exercise.number][state_of(exercise)] += 1
    left, step = 60, 30
    shapes, told, rows = [], [], []
    for i, number in enumerate(numbers):
        total = counts[number].total()
        y = 4 + i * step
        shapes.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(number)}</text>')
        x = float(left)
        for state in STATES:
            share = counts[number][state] / total
            width = (_WIDTH - left - 4) * share
            shapes.append(_segment(state, x, y, width, counts[number][state]))
            x += width
        told.append(
            f"{number}: "
            + ", ".join(f"{counts[number][s] / total:.0%} {s}" for s in STATES if counts[number][s])
        )
        rows.append([escape(number), *(f"{counts[number][state] / total:.0%}" for state in STATES)])
    key = " · ".join(
        f'<span class="state {css_class(state)}">{SYMBOLS[state]} {escape(state)}</span>' for state in STATES
    )
    picture = _svg(
        "".join(shapes), 4 + step * len(numbers), "Share of learners by outcome. " + "; ".join(told) + "."
    )
    headings = ["Exercise", *STATES]
    return [f"<p>{key}</p>", picture, table(headings, rows, numbers=range(1, len(STATES) + 1))]


def _segment(state: str, x: float, y: float, width: float, count: int) -> str:
    if not count:
        return ""
    colour = f"var(--{css_class(state)})"
    rectangle = f'<rect x="{x:.1f}" y="{y}" width="{max(1.0, width - 1.5):.1f}" height="22" fill="{colour}"/>'
    # The ground's colour is light where the states' are dark, and dark where they are light.
    label = (
        f'<text x="{x + width / 2:.1f}" y="{y + 16}" text-anchor="middle" style="fill:var(--ground)">'
        f"{SYMBOLS[state]} {count}</text>"
    )
    return rectangle + (label if width > 34 else "")


def _hints(graded: Sequence[Graded]) -> str:
    rows = [
        [escape(number), str(count), escape(hint)]
        for number, hint, count in hint_counts(graded)[:_MOST_HINTS]
    ]
    return table(["Exercise", "Learners", "Hint"], rows, numbers=[1]) if rows else "<p>None was.</p>"


def _faults(graded: Sequence[Graded]) -> str:
    faults = Counter(one_line(_impersonal(one), 400) for one in graded if not one.report)
    rows = [[str(count), escape(fault)] for fault, count in faults.most_common(_MOST_HINTS)]
    return table(["Learners", "Why"], rows, numbers=[0])


def _impersonal(one: Graded) -> str:
    """Take the file's name, which often is the learner's, out of a fault; the same faults count as one."""
    fault = clean(one.fault)
    for name in (one.source, one.source.rpartition("/")[2], one.learner):
        fault = fault.replace(clean(name), "the file") if name else fault
    return fault


def _svg(shapes: str, height: float, alt: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(alt, 4_000)}">'
        f"<title>{escape(alt, 4_000)}</title>{shapes}</svg>"
    )
