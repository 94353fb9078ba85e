"""The `lmcourse` command: one subcommand a task, each written where its subject lives.

A subcommand is a module with `add_arguments(parser)` and `run(args) -> int`. It is imported only when it is
called, so that `lmcourse --help` takes no time and never imports TensorFlow. One that hands arguments on to
another program sets the default `extra_arguments=[]`, and finds those it does not know there.
"""

import argparse
import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import lmcourse

# name: (the module that does it, what it does)
COMMANDS = {
    "lab": ("lmcourse.commands.lab", "open JupyterLab on the chapters"),
    "doctor": ("lmcourse.commands.doctor", "check this machine's set-up and say how to mend it"),
    "data": ("lmcourse.commands.data", "list, fetch, verify and describe the course's data"),
    "start": ("lmcourse.commands.start", "copy a chapter's exercises to my/, to work on"),
    "grade": ("lmcourse.commands.grade", "grade a notebook of exercises"),
    "results": ("lmcourse.commands.results", "run a chapter's longer experiments and save their rows"),
    "train": ("lmcourse.commands.train", "train a language model on a text"),
    "generate": ("lmcourse.commands.generate", "continue a text with a trained model"),
    "evaluate": ("lmcourse.commands.evaluate", "measure how well a model predicts held-out text"),
    "chat": ("lmcourse.commands.chat", "talk with a model that was trained on conversations"),
}


class UsageError(Exception):
    """The command cannot be carried out as given; the message says what would be right."""


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the named subcommand's arguments are filled in.

    Args:
        command: the subcommand that is about to be parsed, or None for the list of subcommands.
    """
    parser = argparse.ArgumentParser(prog="lmcourse", description="A course on language models.")
    parser.add_argument("--version", action="version", version=f"lmcourse {lmcourse.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        if name == command:
            implementation = importlib.import_module(module)
            implementation.add_arguments(subparser)
            subparser.set_defaults(run=implementation.run)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; arguments nobody knows are an error unless the subcommand takes them."""
    args, unknown = parser.parse_known_args(argv)
    if unknown and not hasattr(args, "extra_arguments"):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if unknown:
        args.extra_arguments = unknown
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 when it worked, 1 when the command reports a failure, 2 when the call was wrong,
        130 when it was interrupted, by Ctrl-C or by a plain `kill`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if not word.startswith("-")), None)
    args = parse(build_parser(command), argv)
    try:
        with _orderly_end():
            return args.run(args) or 0
    except UsageError as error:
        print(f"lmcourse {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nlmcourse {args.command}: interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Let a plain `kill`, which would end Python on the spot, interrupt the command: it can clean up."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
