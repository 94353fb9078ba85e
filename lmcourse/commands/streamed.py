"""What the commands that write a model's text share: how it is drawn, and how it reaches the terminal."""

import argparse
import os
import sys
from collections.abc import Iterable
from typing import Any

from lmcourse.cli import UsageError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
READER_GONE = 141  # 128 + SIGPIPE


def add_sampling_arguments(
    parser: argparse.ArgumentParser, *, temperature: float, top_p: float | None, max_tokens: int
) -> None:
    """Declare how tokens are drawn, with these defaults."""
    add = parser.add_argument
    add(
        "--max-tokens", type=int, metavar="N", help=f"the most to write (default: {max_tokens}, or what fits)"
    )
    add("--temperature", type=float, default=temperature, metavar="T",
        help=f"0 takes the most probable token always (default: {temperature:g})")  # fmt: skip
    add("--top-k", type=int, metavar="K", help="draw from the K most probable tokens only (default: all)")
    default = "all" if top_p is None else f"{top_p:g}"
    add("--top-p", type=float, default=top_p, metavar="P",
        help=f"draw from the most probable tokens of this probability together (default: {default})")  # fmt: skip
    add("--seed", type=int, metavar="N", help="of the draws (default: another each time)")


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments as `lmcourse.generation.stream` takes them.

    Raises:
        UsageError: if a number is out of its range.
    """
    from lmcourse.generation import transforms

    if args.max_tokens is not None and args.max_tokens < 1:
        raise UsageError(f"--max-tokens must be at least 1; got {args.max_tokens}.")
    if args.top_k is not None and args.top_k < 1:
        raise UsageError(f"--top-k must be at least 1; got {args.top_k}.")
    if args.seed is not None and args.seed < 0:
        raise UsageError(f"--seed must be at least 0; got {args.seed}.")
    if args.temperature == 0:
        return {"greedy": True, "seed": args.seed}
    try:
        transforms.check_temperature(args.temperature)
        if args.top_p is not None:
            transforms.check_top_p(args.top_p)
    except ValueError as error:
        raise UsageError(f"--{str(error).replace('_', '-', 1)}") from None
    return {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "seed": args.seed,
    }


def room_for(prompt_tokens: int, context: int | None, wanted: int | None, default: int) -> int:
    """Return how many tokens to write.

    Args:
        prompt_tokens: how many the model reads before.
        context: the most it can read, the start and what it writes included; None is no limit.
        wanted: what was asked for, or None.
        default: how many otherwise, if they fit.

    Raises:
        UsageError: if what was asked for does not fit, or nothing does.
    """
    if context is None:
        return wanted or default
    room = context - prompt_tokens  # the token that is written last is not read any more, but the start is
    if room < (wanted or 1):
        asked = f"; --max-tokens asks for {wanted}" if wanted else ""
        raise UsageError(
            f"the model reads {context} tokens at most, the prompt has {prompt_tokens}, so {max(0, room)} can be "
            f"written{asked}. Give a shorter prompt{' or a smaller number' if wanted and room > 0 else ''}."
        )
    return wanted or min(default, room)


def write_out(pieces: Iterable[str]) -> int:
    """Write a text to standard output, each piece at once and a line break at the end, also if it is interrupted.

    Returns:
        The command's status: 0, 130 after Ctrl-C, or 141 when nobody reads any more.
    """
    try:
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            print(flush=True)
            return INTERRUPTED
        print(flush=True)
    except BrokenPipeError:
        return close_output()
    return 0


def close_output() -> int:
    """Let go of a standard output that nobody reads any more, and return the status for that.

    What Python still holds for it would raise once more when the process ends.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return READER_GONE
