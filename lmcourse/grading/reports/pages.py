"""The pages: one for each learner, and for the teacher a table of all and the answers that are alike."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from lmcourse.grading.cards import points_text
from lmcourse.grading.chapters import Chapter
from lmcourse.grading.grader import ExerciseGrade
from lmcourse.grading.outcomes import PASSED, SYMBOLS
from lmcourse.grading.reports.page import css_class, escape, long_table, page, state_mark, table
from lmcourse.grading.reports.record import Provenance
from lmcourse.grading.reports.similar import Pair, Similarities
from lmcourse.grading.reports.words import (
    NAME_CHARACTERS,
    flags_of,
    notes_on,
    one_line,
    overview,
    points_of,
    state_of,
)
from lmcourse.grading.submissions import Graded

# What is code or a value keeps its spaces and gets a typewriter's letters.
_VALUES = frozenset({"Expected", "Got", "What happened"})
# A notebook whose first cell fails may have hundreds that follow.
_MOST_CELLS = 20


def feedback_page(one: Graded, chapter: Chapter) -> str:
    """Return the page that a learner reads: nothing of other learners, no remark made for the teacher."""
    title = f"Chapter {int(chapter.number)}: {chapter.name.replace('_', ' ')}"
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{_name(one)}</p>']
    if one.report is None:
        body.append(
            f'<section class="card wrong"><h2>This could not be graded</h2><p>{escape(one.fault)}</p></section>'
        )
        return "".join(page(f"{title}: {one_line(one.learner)}", body, kind="page"))
    report = one.report
    share = 100 * report.points / report.out_of if report.out_of else 0
    body += [
        f'<p><span class="points">{points_of(report.points)}</span> of {escape(points_text(report.out_of))}</p>',
        f'<div class="bar" aria-hidden="true"><div style="width:{share:.1f}%"></div></div>',
        *(_exercise(exercise) for exercise in report.exercises),
    ]
    if report.failed_cells:
        body.append(_failed_cells(one))
    return "".join(page(f"{title}: {one_line(one.learner)}", body, kind="page"))


def index_page(
    graded: Sequence[Graded],
    chapter: Chapter,
    meta: Provenance,
    files: Mapping[str, str],
    similarities: Similarities | None,
) -> Iterator[str]:
    """Yield, piece by piece, the teacher's page: everybody's points, what to look at, how the grades came about.

    Args:
        graded: the class; read several times.
        chapter: whose exercises they are.
        meta: how the grades came about.
        files: the name of each learner's page.
        similarities: what the comparison found, where there was one.
    """
    return page(f"Chapter {chapter.number}: the class", _index(graded, chapter, meta, files, similarities))


def _index(
    graded: Sequence[Graded],
    chapter: Chapter,
    meta: Provenance,
    files: Mapping[str, str],
    similarities: Similarities | None,
) -> Iterator[str]:
    whole = overview(graded)
    mean = sum(whole.points) / max(1, len(whole.points))
    summary = f"{len(graded)} submissions, mean {points_of(round(mean, 1))} of {points_text(whole.out_of)}"
    if whole.faults:
        summary += f", {whole.faults} could not be graded"
    links = [
        ("statistics.html", "statistics"),
        ("results.csv", "results.csv"),
        ("results.json", "results.json"),
    ]
    if similarities:
        links.insert(1, ("similar.html", f"similar answers ({similarities.total})"))
    yield f"<h1>Chapter {int(chapter.number)}: {escape(chapter.name.replace('_', ' '))}</h1>"
    yield (
        f'<p class="soft">{escape(summary)}. For the teacher only; the learners\' pages are in feedback/.</p>'
    )
    yield "<p>" + " · ".join(f'<a href="{href}">{escape(text)}</a>' for href, text in links) + "</p>"
    yield from _class_table(graded, whole.numbers, files)
    key = " · ".join(f"{symbol} {escape(state)}" for state, symbol in SYMBOLS.items())
    yield f'<p class="soft">{key}</p>'
    if whole.faults:
        yield "<h2>Not graded</h2>"
        yield from long_table(["Learner", "File", "Why"], _faults(graded))
    yield "<h2>For a look</h2>"
    if whole.flags:
        yield '<p class="soft">Flags cost no points, and the learners\' pages do not show them.</p>'
        yield from long_table(["Learner", "Exercise", "What", "Where"], _flags(graded))
    else:
        yield "<p>No answer was flagged.</p>"
    yield _run(meta)


def similar_page(chapter: Chapter, similarities: Similarities) -> Iterator[str]:
    """Yield, piece by piece, the teacher's page of answers that are nearly the same."""
    body = [
        f"<h1>Chapter {int(chapter.number)}: similar answers</h1>",
        f'<p class="soft">{similarities.compared} submissions had enough code to be compared. Named is a pair where '
        f"{similarities.threshold:.0%} or more of the shorter one's code is in the other, whatever the names, comments "
        "and spaces; the lines that were given are left out. A high share is a reason to look, no proof.</p>",
        '<p><a href="index.html">the class</a></p>',
    ]
    if not similarities.pairs:
        body.append("<p>No pair is that similar.</p>")
    elif len(similarities.pairs) < similarities.total:
        body.append(f"<p>The first {len(similarities.pairs)} of {similarities.total} pairs.</p>")
    pairs = map(_pair, similarities.pairs)
    return page(f"Chapter {chapter.number}: similar answers", itertools.chain(body, pairs))


def _exercise(exercise: ExerciseGrade) -> str:
    state = state_of(exercise)
    notes = "".join(
        f"<dt>{escape(name)}</dt><dd class='{'code' if name in _VALUES else ''}'>{escape(text)}</dd>"
        for name, text in notes_on(exercise)
    )
    passed = sum(outcome.state == PASSED for outcome in exercise.outcomes)
    return (
        f'<section class="card {css_class(state)}"><header><h3>Exercise {escape(exercise.number)}</h3>'
        f"{state_mark(state)}"
        f"<span>{points_of(exercise.points)} of {escape(points_text(exercise.out_of))}</span></header>"
        f'<p class="soft">{passed} of {len(exercise.outcomes)} tests passed</p>'
        + (f"<dl>{notes}</dl>" if notes else "")
        + "</section>"
    )


def _failed_cells(one: Graded) -> str:
    cells = one.report.failed_cells
    shown = "".join(
        f"<dt>Code cell {cell.cell}{f' (exercise {escape(cell.exercise)})' if cell.exercise else ''}</dt>"
        f'<dd class="code">{escape(cell.error)}</dd>'
        for cell in cells[:_MOST_CELLS]
    )
    more = f"<p>And {len(cells) - _MOST_CELLS} more.</p>" if len(cells) > _MOST_CELLS else ""
    return f"<h2>Cells that failed</h2><dl>{shown}</dl>{more}"


def _class_table(graded: Iterable[Graded], numbers: Sequence[str], files: Mapping[str, str]) -> Iterator[str]:
    headings = ["Learner", "Points", *numbers, "Flags"]
    rows = (_class_row(one, numbers, files) for one in graded)
    return long_table(headings, rows, numbers=range(1, len(headings)))


def _class_row(one: Graded, numbers: Sequence[str], files: Mapping[str, str]) -> list[str]:
    exercises = {exercise.number: exercise for exercise in one.report.exercises} if one.report else {}
    points = points_of(one.points) if one.report else "–"
    link = f'<a href="feedback/{quote(files[one.learner])}">{_name(one)}</a>'
    if one.fault:
        link += ' <span class="state wrong">✘ not graded</span>'
    return [link, points, *(_cell(exercises.get(number)) for number in numbers), str(flags_of(one) or "")]


def _cell(exercise: ExerciseGrade | None) -> str:
    if exercise is None:
        return "–"
    state = state_of(exercise)
    return (
        f'{points_of(exercise.points)} <span class="state {css_class(state)}" role="img" '
        f'aria-label="{escape(state)}" title="{escape(state)}">{SYMBOLS[state]}</span>'
    )


def _faults(graded: Iterable[Graded]) -> Iterator[list[str]]:
    for one in graded:
        if one.report is None:
            yield [_name(one), escape(one.source, 400), escape(one.fault)]


def _flags(graded: Iterable[Graded]) -> Iterator[list[str]]:
    for one in graded:
        for exercise in one.report.exercises if one.report else ():
            for flag in exercise.flags:
                where = f"{escape(flag.cell, 200)}, line {escape(flag.line)}" if flag.line else ""
                source = f"<br><code>{escape(flag.source, 400)}</code>" if flag.source else ""
                what = f"<code>{escape(flag.answer, 200)}</code> uses {escape(flag.uses, 400)}"
                yield [_name(one), escape(exercise.number), what, where + source]


def _run(meta: Provenance) -> str:
    rows = [("Date", meta.date)]
    rows += [(f"Version of {name}", version) for name, version in meta.versions.items()]
    rows += [(f"Limit: {name}", str(value)) for name, value in meta.limits.items()]
    rows += [("Isolation", line) for line in meta.isolation]
    rows += [(f"SHA-256 of {name}", digest) for name, digest in meta.checks.items()]
    rows += [(f"SHA-256 of the hidden {name}", digest) for name, digest in meta.hidden.items()]
    shown = table(["What", "Value"], [[escape(name), escape(value)] for name, value in rows])
    return f"<h2>How these grades came about</h2>{shown}"


def _pair(pair: Pair) -> str:
    sides = ((pair.first, pair.first_parts), (pair.second, pair.second_parts))
    shown = "".join(
        f"<div><h3>{escape(one_line(learner))}</h3><pre>{_marked(parts)}</pre></div>"
        for learner, parts in sides
    )
    names = f"{escape(one_line(pair.first))} and {escape(one_line(pair.second))}"
    return (
        f"<details><summary>{pair.share:.0%}: {names}</summary>"
        f'<p class="soft">Marked is what the other one has too.</p><div class="sides">{shown}</div></details>'
    )


def _marked(parts: Iterable[tuple[str, bool]]) -> str:
    shown = ((escape(text, 20_000), matches) for text, matches in parts)
    return "".join(f"<mark>{text}</mark>" if matches else text for text, matches in shown)


def _name(one: Graded) -> str:
    return escape(one_line(one.learner), NAME_CHARACTERS)
