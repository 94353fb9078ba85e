"""What every way of generating asks of its arguments."""

from collections.abc import Collection, Sequence

import numpy as np


def check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    """Return the prompts as lists of ids, or say which one is wrong and why.

    Raises:
        ValueError: if prompts is not a list of sequences of integers between 0 and V - 1.
    """
    if isinstance(prompts, str) or any(np.ndim(prompt) == 0 for prompt in prompts):
        raise ValueError(
            f"prompts must be a list of sequences of ids; got {_shortened(prompts)}. "
            "Encode text first, and for one prompt pass [prompt]."
        )
    return [_check_prompt(index, prompt, vocab_size) for index, prompt in enumerate(prompts)]


def check_stop(stop: Collection[int], vocab_size: int) -> frozenset[int]:
    """Return the stop tokens as a set, or say which one is wrong.

    Raises:
        ValueError: unless stop is a collection of ids between 0 and V - 1.
    """
    if isinstance(stop, str) or not isinstance(stop, Collection):
        raise ValueError(f"stop must be a collection of ids, such as [0]; got {stop!r}.")
    for token in stop:
        if not isinstance(token, int | np.integer) or not 0 <= token < vocab_size:
            raise ValueError(f"stop must hold ids between 0 and V - 1 = {vocab_size - 1}; got {token!r}.")
    return frozenset(int(token) for token in stop)


def check_max_new_tokens(max_new_tokens: int) -> None:
    """Raise ValueError if a negative number of tokens is asked for."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more; got {max_new_tokens}.")


def _check_prompt(index: int, prompt: Sequence[int], vocab_size: int) -> list[int]:
    ids = np.asarray(prompt)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"prompts[{index}] must be a sequence of integer ids; got {_shortened(prompt)}.")
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"prompts[{index}] must hold ids between 0 and V - 1 = {vocab_size - 1}; got {token}."
            )
    return [int(token) for token in ids]


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
