"""What the commands that write a model's text share: how it is drawn, and how it reaches the terminal."""

import argparse
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

from lmcourse.cli import UsageError
from lmcourse.commands.arguments import check_range, integer, number

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
READER_GONE = 141  # 128 + SIGPIPE


def add_sampling_arguments(
    parser: argparse.ArgumentParser, *, temperature: float, top_p: float | None, max_tokens: int
) -> None:
    """Declare how tokens are drawn, with these defaults."""
    add = parser.add_argument
    add(
        "--max-tokens",
        type=integer,
        metavar="N",
        help=f"the most to write (default: {max_tokens}, or what fits)",
    )
    add("--temperature", type=number, default=temperature, metavar="T",
        help=f"0 takes the most probable token always (default: {temperature:g})")  # fmt: skip
    add("--top-k", type=integer, metavar="K", help="draw from the K most probable tokens only (default: all)")
    default = "all" if top_p is None else f"{top_p:g}"
    add("--top-p", type=number, default=top_p, metavar="P",
        help=f"draw from the most probable tokens of this probability together (default: {default})")  # fmt: skip
    add("--seed", type=integer, metavar="N", help="of the draws (default: another each time)")


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments as `lmcourse.generation.stream` takes them.

    Raises:
        UsageError: if a number is out of its range, also one that does not matter at a temperature of 0.
    """
    check_range(1, None, max_tokens=args.max_tokens, top_k=args.top_k)
    check_range(0, None, seed=args.seed)
    if not 0 <= args.temperature < math.inf:
        raise UsageError(
            f"--temperature must be a finite number above 0, or 0 for the most probable token; got {args.temperature}."
        )
    if args.top_p is not None and not 0 < args.top_p <= 1:
        raise UsageError(f"--top-p must be above 0 and at most 1; got {args.top_p}.")
    if args.temperature == 0:
        return {"greedy": True, "seed": args.seed}
    return {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "seed": args.seed,
    }


def check_top_k(top_k: int | None, vocab_size: int) -> None:
    """Refuse more tokens to draw from than the model knows.

    Args:
        top_k: what was asked for, or None.
        vocab_size: V.

    Raises:
        UsageError: if it is above V.
    """
    if top_k is not None and top_k > vocab_size:
        raise UsageError(f"--top-k must be at most the model's vocabulary, {vocab_size}; got {top_k}.")


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
