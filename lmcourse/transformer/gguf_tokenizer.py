"""The tokenizer in a GGUF file.

The vocabulary and the merges are metadata like any other: `tokenizer.ggml.tokens` has the tokens in the order of their
ids, written as in GPT-2's files, `tokenizer.ggml.merges` the merges, and `tokenizer.ggml.token_type` says which
tokens are special. The rule that cuts text into chunks is only named, by `tokenizer.ggml.pre`.
"""

import dataclasses
from typing import Any

from lmcourse.text import BPETokenizer
from lmcourse.text.bpe import Split
from lmcourse.transformer.gguf import GGUFFile

# llama.cpp's names of the rules that cut text into chunks, and ours.
SPLITS: dict[str, Split] = {"gpt-2": "gpt2", "smollm": "smollm2"}

NORMAL, CONTROL = 1, 3  # token types


@dataclasses.dataclass(frozen=True)
class TokenRoles:
    """Which ids a model gives a part to play; None where the file names none.

    Attributes:
        start: the token at the beginning of a text.
        adds_start: whether a text is to begin with it. SmolLM2's is not: its start token only opens chat turns.
        end: the token that ends a text, or an answer.
        unknown: the token for what cannot be spelled.
        padding: the token that fills shorter rows.
    """

    start: int | None
    adds_start: bool
    end: int | None
    unknown: int | None
    padding: int | None


def read_tokenizer(file: GGUFFile) -> BPETokenizer:
    """Return the tokenizer that a GGUF file carries.

    Args:
        file: the open file of a model with byte-level byte-pair encoding, split as GPT-2 or SmolLM2 do.

    Returns:
        A tokenizer whose special tokens are the file's control tokens.

    Raises:
        WeightsFileError: if the tokenizer is of another kind, or its parts do not fit each other.
    """
    split = _read_split(file)
    tokens = _read_list(file, "tokenizer.ggml.tokens", str)
    types = _read_list(file, "tokenizer.ggml.token_type", int)
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocab[token] != i)
        raise file.error(f"tokenizer.ggml.tokens must not repeat; {twice!r:.60} comes twice")
    _check_types(file, tokens, types)
    specials = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    try:
        return BPETokenizer(vocab, _read_merges(file), specials, split)
    except ValueError as error:
        raise file.error(f"the tokenizer cannot be: {error}".rstrip(".")) from error


def read_token_roles(file: GGUFFile) -> TokenRoles:
    """Return which ids have a part to play.

    Raises:
        WeightsFileError: if one of them is no id of the file's vocabulary.
    """
    return TokenRoles(
        start=_read_id(file, "bos"),
        adds_start=file.value("tokenizer.ggml.add_bos_token", bool, False),
        end=_read_id(file, "eos"),
        unknown=_read_id(file, "unknown"),
        padding=_read_id(file, "padding"),
    )


def _read_split(file: GGUFFile) -> Split:
    model = file.value("tokenizer.ggml.model", str)
    if model != "gpt2":
        raise file.error(
            f"tokenizer.ggml.model must be 'gpt2', byte-level byte-pair encoding; got {model!r:.60}"
        )
    rule = file.value("tokenizer.ggml.pre", str)
    if rule not in SPLITS:
        raise file.error(f"tokenizer.ggml.pre must be one of {', '.join(SPLITS)}; got {rule!r:.60}")
    if file.value("tokenizer.ggml.add_space_prefix", bool, False):
        raise file.error("tokenizer.ggml.add_space_prefix must be false; this tokenizer adds no space")
    return SPLITS[rule]


def _read_list(file: GGUFFile, key: str, kind: type) -> list[Any]:
    values = file.value(key, list)
    if not values or type(values[0]) is not kind:  # the items of a GGUF array are all of one type
        raise file.error(f"{key} must be an array of {kind.__name__}, not empty; got {values[:3]!r:.60}")
    return values


def _check_types(file: GGUFFile, tokens: list[str], types: list[int]) -> None:
    if len(types) != len(tokens):
        raise file.error(
            f"tokenizer.ggml.token_type must have one entry for each of the {len(tokens):,} tokens; got {len(types):,}"
        )
    for token, kind in zip(tokens, types, strict=True):
        if kind not in (NORMAL, CONTROL):
            raise file.error(
                f"tokenizer.ggml.token_type must be {NORMAL} (normal) or {CONTROL} (control); {token!r:.60} has {kind}"
            )


def _read_merges(file: GGUFFile) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for rank, merge in enumerate(_read_list(file, "tokenizer.ggml.merges", str)):
        left, space, right = merge.partition(" ")
        if not (left and space and right) or " " in right:
            raise file.error(
                f"merge {rank} of tokenizer.ggml.merges must be two tokens with a space between; got {merge!r:.60}"
            )
        merges.append((left, right))
    return merges


def _read_id(file: GGUFFile, role: str) -> int | None:
    key = f"tokenizer.ggml.{role}_token_id"
    if key not in file.metadata:
        return None
    found, size = file.value(key, int), len(file.value("tokenizer.ggml.tokens", list))
    if not 0 <= found < size:
        raise file.error(f"{key} must be between 0 and {size - 1}; got {found}")
    return found
