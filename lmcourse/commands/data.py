"""`lmcourse data`: list, fetch, verify and describe the course's data."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable

from lmcourse import datasets
from lmcourse.cli import UsageError
from lmcourse.datasets import cache
from lmcourse.datasets.registry import Entry, human_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="what there is, how large, under what licence, and whether it is here")
    fetching = actions.add_parser("fetch", help="download what is not here yet, and check it")
    fetching.add_argument("names", nargs="*", metavar="NAME")
    fetching.add_argument("--all", action="store_true", help="everything in the list")
    verifying = actions.add_parser("verify", help="check every byte of what is here")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all that is here")
    card = actions.add_parser("card", help="what a dataset is, its licence, whom to cite, where it is")
    card.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Carry out one action.

    Returns:
        0 when all went well, 1 when a dataset could not be had or is not what it should be.
    """
    try:
        return {"list": _list, "fetch": _fetch, "verify": _verify, "card": _card}[args.action](args)
    except datasets.DatasetError as error:
        print(f"lmcourse data: {error}", file=sys.stderr)
        return 1


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "size", "licence", "here", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for entry in datasets.entries().values():
        table.add_row(entry.name, entry.kind, _size(entry), entry.licence, _state(entry))
    Console().print(table)
    downloads = [entry for entry in datasets.entries().values() if entry.is_downloaded]
    wanted = [entry for entry in downloads if not datasets.available(entry.name)]
    if wanted:
        size = human_size(sum(entry.download_bytes or 0 for entry in wanted))
        print(f"\n`lmcourse data fetch --all` would download the {len(wanted)} absent or damaged: {size}.")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    if args.all == bool(args.names):
        raise UsageError(
            "name what to fetch, or give --all (not both); `lmcourse data list` shows what there is."
        )
    return _for_each(args.names or datasets.entries(), _fetch_one)


def _fetch_one(name: str) -> str:
    entry = datasets.entry(name)
    already = datasets.available(name)
    place = datasets.fetch(name)
    if not entry.is_downloaded:
        return "nothing to fetch: it comes with " + ("Python" if entry.kind == "stdlib" else "the course")
    return f"{'already in' if already else 'fetched into'} {place}"


def _verify(args: argparse.Namespace) -> int:
    here = [
        name
        for name, entry in datasets.entries().items()
        if entry.files and (cache.state(entry) != "absent" or not entry.is_downloaded)
    ]
    return _for_each(args.names or here, _verify_one)


def _verify_one(name: str) -> str:
    files = len(datasets.entry(name).files)
    datasets.verify(name)
    return f"as it should be ({files} file{'s' * (files != 1)})" if files else "has no file to check"


def _for_each(names: Iterable[str], do: Callable[[str], str]) -> int:
    """Do something with each dataset, whatever befalls the others; report the failures at the end."""
    failures = []
    for name in names:
        try:
            print(f"{name}: {do(name)}", flush=True)
        except datasets.DatasetError as error:
            failures.append(error)
    for failure in failures:
        print(f"lmcourse data: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _card(args: argparse.Namespace) -> int:
    entry = datasets.entry(args.name)
    print(f"{entry.name}: {entry.title}\n")
    print(textwrap.fill(entry.description, 100), end="\n\n")
    for label, value in _facts(entry):
        print(textwrap.fill(value, 100, initial_indent=f"{label:<12}", subsequent_indent=" " * 12,
                            break_long_words=False, break_on_hyphens=False))  # fmt: skip
    return 0


def _facts(entry: Entry) -> list[tuple[str, str]]:
    """Return the lines of an entry's card that have something to say."""
    facts = [
        ("kind", entry.kind),
        ("version", entry.version),
        ("licence", f"{entry.licence}. {entry.licence_note}" if entry.licence_note else entry.licence),
        ("cite", entry.citation),
        ("size", _size(entry) if entry.files else ""),
        ("from", _origin(entry)),
        ("wheel", f"SHA-256 {entry.wheel_sha256}" if entry.wheel_sha256 else ""),
        ("hashes from", entry.hash_source),
        ("here", _state(entry)),
        ("where", str(cache.folder(entry)) if entry.files and cache.state(entry) != "absent" else ""),
        ("without it", entry.fallback),
    ]
    facts += [
        ("file", f"{file.name} ({human_size(file.bytes)}) SHA-256 {file.sha256}") for file in entry.files
    ]
    return [(label, value) for label, value in facts if value]


def _origin(entry: Entry) -> str:
    if entry.kind == "wheel":
        return f"the wheel of {entry.package}=={entry.version}, folder {entry.root}"
    return entry.url


def _size(entry: Entry) -> str:
    """Return how much there is to download, or how large a bundled file is; nothing for what a loader makes."""
    return human_size(entry.download_bytes) if entry.files else "–"


def _state(entry: Entry) -> str:
    """Return whether an entry can be used now, as far as its files' sizes tell."""
    here = {"stdlib": "yes, with Python", "bundled": "yes, with the course"}.get(entry.kind, "yes")
    return {"here": here, "damaged": "damaged", "absent": "no"}[cache.state(entry)]
