"""What the commands check of their arguments in the same way, so that a wrong one is told in the same words."""

import argparse
from collections.abc import Collection
from pathlib import Path

from lmcourse.cli import UsageError

# The largest that the models' arrays can count with.
INT32_MOST = 2**31 - 1
FLOAT32_MOST = 2.0**127 * (2 - 2.0**-23)


def integer(text: str) -> int:
    """Return the integer that was given; for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: if the text is none.
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer; got {text!r:.60}") from None


def number(text: str) -> float:
    """Return the number that was given; for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: if the text is none. "nan" and "inf" are let through, as `float` takes them.
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; got {text!r:.60}") from None


def folder(text: str) -> Path:
    """Return the path that was given; for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: if the text is empty, which Python would take for the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("must be the path of a folder; got ''")
    return Path(text)


def flag(name: str) -> str:
    """Return what a setting is called on the command line.

    Example:
        >>> flag("batch_size")
        '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def check_range(least: int, most: int | None, **settings: int | None) -> None:
    """Refuse integers that are too small or too large.

    Args:
        least: the smallest that is allowed.
        most: the largest, or None if there is none.
        **settings: values by the names of their arguments; None was not given.

    Raises:
        UsageError: if one is outside.
    """
    for name, value in settings.items():
        if value is not None and value < least:
            raise UsageError(f"{flag(name)} must be at least {least}; got {value}.")
        if None not in (value, most) and value > most:
            raise UsageError(f"{flag(name)} must be at most {most}; got {value}.")


def check_positive_number(**settings: float | None) -> None:
    """Refuse numbers that are not above 0, or more than float32 can hold.

    Args:
        **settings: values by the names of their arguments; None was not given.

    Raises:
        UsageError: if one is, or is no number at all ("nan").
    """
    for name, value in settings.items():
        if value is not None and not (0 < value <= FLOAT32_MOST):
            raise UsageError(f"{flag(name)} must be above 0 and at most {FLOAT32_MOST:.4g}; got {value}.")


def check_choice(choices: Collection[str], **settings: str | None) -> None:
    """Refuse a name that is none of those there are.

    Args:
        choices: the names.
        **settings: values by the names of their arguments; None was not given.

    Raises:
        UsageError: if one is unknown.
    """
    for name, value in settings.items():
        if value is not None and value not in choices:
            raise UsageError(f"{flag(name)} must be one of {', '.join(choices)}; got {value!r}.")
