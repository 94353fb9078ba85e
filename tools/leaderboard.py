"""Write README's leaderboard from the saved rows of the experiments.

python -m tools.leaderboard            # rewrite what stands between the two markers
python -m tools.leaderboard --check    # change nothing; exit with 1 if it is out of date
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from lmcourse.files import write_text
from lmcourse.paths import course_root
from lmcourse.results import Row, Standing, datasets_with_results, readable_time, standings

BEGIN, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"

# What a table says in which some models have fewer runs than others.
UNEQUAL_SEEDS = (
    "Not all have as many seeds, and a seed chooses texts, too: fewer seeds may have met easier ones."
)

# What compares models whatever their tokenizers, in the order of preference for ranking.
HEADINGS = {
    "excess_bits_per_token": "bits a token above the floor",
    "bits_per_byte": "bits a byte",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite or check README; return 1 when a check finds it out of date or it has no markers."""
    parser = argparse.ArgumentParser(prog="python -m tools.leaderboard", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if out of date")
    parser.add_argument("--readme", type=Path, default=course_root() / "README.md", help="the file to write")
    parser.add_argument("--results", type=Path, default=None, help="the folder of the rows")
    args = parser.parse_args(argv)
    before = args.readme.read_text("utf-8")
    try:
        after = insert(before, render(args.results))
    except ValueError as error:
        print(f"{args.readme}: {error}", file=sys.stderr)
        return 1
    if args.check:
        if before != after:
            print(f"{args.readme}: the leaderboard is out of date; run `make leaderboard`.", file=sys.stderr)
        return int(before != after)
    if before != after:
        write_text(args.readme, after)
    return 0


def insert(text: str, table: str) -> str:
    """Return the text with the table between its two markers.

    Raises:
        ValueError: if the text does not hold both markers once, in this order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in head + tail:
        raise ValueError(f"the text must hold {BEGIN} once and {END} once after it.")
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def render(folder: Path | None = None) -> str:
    """Return the leaderboard in Markdown: one table for each dataset, the best model first.

    Args:
        folder: where the rows are; by default the course's data/results.
    """
    tables = [_table(dataset, folder) for dataset in datasets_with_results(folder)]
    return "\n\n".join(table for table in tables if table) or "No results yet."


def _table(dataset: str, folder: Path | None) -> str:
    by_metric = {metric: standings(dataset, metric, folder=folder) for metric in HEADINGS}
    shown = [metric for metric in HEADINGS if by_metric[metric]]
    if not shown:
        return ""
    lines = [
        f"**{dataset}**",
        "",
        f"| model | chapter | {' | '.join(HEADINGS[metric] for metric in shown)} | seeds | time a run |",
        f"|---|---|{'---:|' * len(shown)}---:|---:|",
    ]
    ranked = {_key(standing): standing for metric in shown for standing in reversed(by_metric[metric])}
    order = [_key(standing) for metric in shown for standing in by_metric[metric]]
    for key in dict.fromkeys(order):
        cells = [_cell(by_metric[metric], key) for metric in shown]
        lines.append(_line(ranked[key].rows, cells))
    rows = [row for standing in ranked.values() for row in standing.rows]
    unequal = len({len(standing.rows) for standing in ranked.values()}) > 1
    return "\n".join([*lines, "", _provenance(rows) + (f" {UNEQUAL_SEEDS}" if unequal else "")])


def _line(rows: list[Row], cells: list[str]) -> str:
    minutes = sum(row.minutes for row in rows) / len(rows)
    first = rows[0]
    chapter = int(first.chapter.removeprefix("ch"))
    return f"| {first.model} | {chapter} | {' | '.join(cells)} | {len(rows)} | {readable_time(minutes)} |"


def _key(standing: Standing) -> tuple[str, str]:
    return standing.rows[0].chapter, standing.rows[0].experiment


def _cell(entries: list[Standing], key: tuple[str, str]) -> str:
    """Return the mean, and the range over the seeds where it shows."""
    for standing in entries:
        if _key(standing) == key:
            mean, lowest, highest = map(_number, (standing.mean, standing.lowest, standing.highest))
            return mean if lowest == highest else f"{mean} ({lowest}–{highest})"
    return "–"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "∞"


def _provenance(rows: list[Row]) -> str:
    """Return when and how the rows were measured."""
    dates = sorted({row.date for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    cores = max(row.cores for row in rows)
    commands = ", ".join(f"`lmcourse results {chapter}`" for chapter in sorted({row.chapter for row in rows}))
    return f"Measured {when}, {cores} core{'s' if cores > 1 else ''} a run, by {commands}."


if __name__ == "__main__":
    sys.exit(main())
