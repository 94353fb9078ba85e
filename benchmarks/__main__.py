"""Run benchmarks by name: `python -m benchmarks tokenizer`; without a name, list them.

A benchmark is a module here whose `main()` compares things in one run and returns a table, one dict a row from
column to value. Absolute times differ from machine to machine and hour to hour: read the ratios.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import platform
import sys
from collections.abc import Mapping, Sequence

import benchmarks

LIBRARIES = ["lmcourse", "numpy", "tensorflow", "keras", "tensorflow-text", "tokenizers", "nltk", "regex"]


def names() -> list[str]:
    return sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"
    )


def summary(name: str) -> str:
    documentation = inspect.getdoc(importlib.import_module(f"benchmarks.{name}")) or ""
    return documentation.partition("\n")[0]


def cores() -> int:
    """Count the cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def as_table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: object) -> str:
    """Write numbers with three significant digits, or whole where they are larger."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare speeds in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; none: list them")
    chosen = parser.parse_args(arguments).names
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(names())}")
    if not chosen:
        for name in names():
            print(f"{name:12} {summary(name)}")
        return 0
    print(f"{datetime.date.today()}, {cores()} cores, {platform.machine()} {platform.system()}\n{versions()}")
    for name in chosen:
        print(f"\n## {name}: {summary(name)}\n", flush=True)
        rows = importlib.import_module(f"benchmarks.{name}").main()
        if rows:  # a benchmark may also print its own table
            print(as_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
