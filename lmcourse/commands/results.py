"""`lmcourse results`: run a chapter's longer experiments and save their rows."""

import argparse
import math
import textwrap

from lmcourse import results
from lmcourse.cli import UsageError

# Of a failed run's output: a traceback through Keras takes about this much.
LOG_LINES = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("chapter", help="the chapter, as in ch01")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="only this experiment; may be given several times"
    )
    parser.add_argument("--again", action="store_true", help="measure also what is saved already")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="runs at a time, each on one core (default: 2)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure what is missing, then show the chapter's rows; 1 if a run failed."""
    try:
        report = results.run(args.chapter, args.only, args.workers, again=args.again)
    except ValueError as error:
        raise UsageError(str(error)) from None
    _print_table(results.load(args.chapter))
    print(f"\n{len(report.saved)} measured, {report.skipped} there already, {len(report.failures)} failed.")
    for failure in report.failures:
        print(f"\n{failure.experiment}, seed {failure.seed}: {failure.reason}")
        print(textwrap.indent("\n".join(failure.log.splitlines()[-LOG_LINES:]), "    "))
    return 1 if report.failures else 0


def _print_table(rows: list[results.Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("dataset", "experiment", "seed", "metrics", "time", "date"):
        table.add_column(heading, justify="right" if heading in ("seed", "time") else "left")
    for row in rows:
        metrics = "\n".join(f"{name} {_readable(value)}" for name, value in sorted(row.metrics.items()))
        time = results.readable_time(row.minutes)
        table.add_row(row.dataset, row.experiment, str(row.seed), metrics, time, row.date)
    Console().print(table)


def _readable(value: float) -> str:
    return f"{value:,.4g}" if math.isfinite(value) else str(value)
