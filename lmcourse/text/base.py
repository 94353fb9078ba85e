"""What every tokenizer can do: text to ids, ids to text, and a JSON file to keep it in.

Letters for shapes: `V` vocabulary.
"""

import abc
import importlib
import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import regex

from lmcourse.files import write_text

FILE_FORMAT = "lmcourse-tokenizer"

SpecialUse = Literal["allow", "text", "forbid"]

# The types that a file may name: each subclass enters itself when it is defined.
_TYPES: dict[str, type["Tokenizer"]] = {}

# Types in modules that import TensorFlow, which are therefore imported only when a file names them.
_LAZY_MODULES = {"WordPieceTokenizer": "lmcourse.text.wordpiece"}


class Tokenizer(abc.ABC):
    """A map between text and sequences of ids from 0 to V - 1.

    Special tokens (an end of text, a padding) are marks, not text: `encode` finds them before anything else
    splits the text, and nothing ever splits or merges them.

    Attributes:
        tokens: V displayable strings, in the order of the ids; see `visible`.
        special_tokens: the id of each special token.
    """

    tokens: list[str]
    special_tokens: dict[str, int]
    _special_pattern: regex.Pattern | None
    _special_ids: frozenset[int]

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        _TYPES[cls.__name__] = cls

    def __init__(self, tokens: Iterable[str], special_tokens: Mapping[str, int]):
        """Keep what all tokenizers have; a subclass calls this once its vocabulary is known.

        Args:
            tokens: V displayable strings, in the order of the ids.
            special_tokens: the id of each special token.

        Raises:
            ValueError: if a special token is the empty string.
        """
        if "" in special_tokens:
            raise ValueError("special_tokens must not hold the empty string: it would match everywhere.")
        self.tokens = list(tokens)
        self.special_tokens = dict(special_tokens)
        self._special_ids = frozenset(self.special_tokens.values())
        self._special_pattern = _pattern_of(self.special_tokens)

    @property
    def vocab_size(self) -> int:
        """V, the number of ids."""
        return len(self.tokens)

    def encode(self, text: str, *, special: SpecialUse = "allow") -> list[int]:
        """Return the ids of a text.

        Args:
            text: any string that the vocabulary can spell.
            special: what to do where the text spells a special token. "allow" gives the token's id (where two
                could begin, the longest one); "text" spells it like any other text, as is right for text
                from strangers; "forbid" raises.

        Raises:
            TypeError: if text is not a string.
            ValueError: if the text cannot be spelled, or holds a forbidden special token.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"text must be a string; got {type(text).__name__}. For several, use encode_batch."
            )
        if special not in get_args(SpecialUse):
            raise ValueError(f"special must be one of {get_args(SpecialUse)}; got {special!r}.")
        if special == "text" or self._special_pattern is None:
            return self._encode_text(text)
        ids: list[int] = []
        for position, part in enumerate(self._special_pattern.split(text)):
            if position % 2 == 0:  # split() alternates text and special tokens
                ids.extend(self._encode_text(part))
            elif special == "forbid":
                raise ValueError(
                    f"text must not hold the special token {part!r}; remove it, or pass special='text' "
                    "to spell it like any other text."
                )
            else:
                ids.append(self.special_tokens[part])
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Return the text of a sequence of ids.

        Args:
            ids: integers from 0 to V - 1.
            skip_special: whether to leave the special tokens out.

        Raises:
            ValueError: if an id is no integer, or outside the vocabulary.
        """
        checked = self._check_ids(ids)
        if skip_special:
            checked = [i for i in checked if i not in self._special_ids]
        return self._decode_ids(checked)

    def encode_batch(self, texts: Iterable[str], *, special: SpecialUse = "allow") -> list[list[int]]:
        """Return the ids of each text; see `encode`."""
        return [self.encode(text, special=special) for text in texts]

    def decode_batch(self, rows: Iterable[Iterable[int]], *, skip_special: bool = False) -> list[str]:
        """Return the text of each row of ids; see `decode`."""
        return [self.decode(ids, skip_special=skip_special) for ids in rows]

    @abc.abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Return all that `from_config` needs, as values that JSON can hold."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the tokenizer whose `to_config` gave this: its entries are the constructor's arguments."""
        return cls(**config)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer as one JSON file, whole or not at all."""
        content = {"format": FILE_FORMAT, "type": type(self).__name__, "config": self.to_config()}
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a tokenizer that `save` wrote.

        `Tokenizer.load` returns whatever type the file names; `BPETokenizer.load` accepts only that type.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not JSON, not a tokenizer's, or of another type.
        """
        content = _read_content(Path(path))
        found = _type_named(content["type"], path)
        if not issubclass(found, cls):
            raise ValueError(f"{path} holds a {found.__name__}, not a {cls.__name__}: use Tokenizer.load.")
        try:
            return found.from_config(content["config"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold the config of a {found.__name__}: {error}.") from error

    @abc.abstractmethod
    def _encode_text(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing counts as a special token."""

    @abc.abstractmethod
    def _decode_ids(self, ids: list[int]) -> str:
        """Return the text of ids known to be in the vocabulary."""

    def _check_ids(self, ids: Iterable[int]) -> list[int]:
        try:
            checked = [operator.index(i) for i in ids]
        except TypeError as error:
            raise ValueError(f"ids must be a flat sequence of integers: {error}.") from error
        for i in (min(checked, default=0), max(checked, default=0)):
            if checked and not 0 <= i < self.vocab_size:
                raise ValueError(f"ids must be between 0 and V - 1 = {self.vocab_size - 1}; got {i}.")
        return checked


def visible(text: str | bytes) -> str:
    r"""Return a form of a token in which everything can be seen, and no two tokens look alike.

    A space becomes ␣, the backslash and what cannot be printed become escapes, and bytes that are not UTF-8
    become `\xNN`. So the result never holds white space, and may stand in a table or an ARPA file.

    Example:
        >>> [visible(token) for token in (" the", "\n", "é", "é".encode(), b"\xc3", "\\")]
        ['␣the', '\\n', 'é', 'é', '\\xc3', '\\\\']
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    code = ord(character)
    if character == " ":
        return "␣"
    if 0xDC80 <= code <= 0xDCFF:  # how "surrogateescape" marks a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() and character not in "␣\\":
        return character
    if code < 0x80:
        return character.encode("unicode_escape").decode("ascii")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def check_utf8(text: str) -> None:
    """Check that UTF-8 can write a text, as all Unicode but lone surrogates.

    Raises:
        ValueError: naming the surrogate and its position.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be Unicode that UTF-8 can write; got a lone surrogate, {text[error.start]!r}, at "
            f"position {error.start}. Use lmcourse.text.remove_control_characters first."
        ) from None


def between_special_tokens(texts: str | Iterable[str], special_tokens: Iterable[str]) -> Iterator[str]:
    """Yield the parts of the texts that are no special token: what a vocabulary is learned from.

    Raises:
        ValueError: if a text holds a lone surrogate: no file could hold the vocabulary that has it.
    """
    pattern = _pattern_of(special_tokens)
    for text in [texts] if isinstance(texts, str) else texts:
        check_utf8(text)
        yield from [text] if pattern is None else pattern.split(text)[::2]


def special_ids(
    special_tokens: Sequence[str], unknown_token: str | None = None, first: int = 0
) -> dict[str, int]:
    """Number special tokens from `first`, then the unknown token if there is one.

    Raises:
        ValueError: if one is named twice or holds a lone surrogate, or the special tokens are one string.
    """
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a sequence of strings; got the string {special_tokens!r}.")
    names = [*special_tokens, *([] if unknown_token is None else [unknown_token])]
    if len(set(names)) != len(names):
        raise ValueError(f"special_tokens must not repeat, nor be the unknown token; got {names}.")
    for token in names:
        check_utf8(token)
    return {token: first + i for i, token in enumerate(names)}


def _pattern_of(special_tokens: Iterable[str]) -> regex.Pattern | None:
    """Return a pattern that captures any of the tokens, the longest where several begin."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        return None
    return regex.compile("(" + "|".join(regex.escape(token) for token in longest_first) + ")")


def _read_content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        raise ValueError(f"{path} is not a tokenizer's file: its format should be {FILE_FORMAT!r}.")
    if not isinstance(content.get("type"), str) or not isinstance(content.get("config"), dict):
        raise ValueError(f"{path} must hold a type and a config; it holds {sorted(content)}.")
    return content


def _type_named(name: str, path: str | os.PathLike[str]) -> type[Tokenizer]:
    if name in _LAZY_MODULES:
        importlib.import_module(_LAZY_MODULES[name])
    if name not in _TYPES:
        known = ", ".join(sorted({*_TYPES, *_LAZY_MODULES}))
        raise ValueError(
            f"{path} holds a tokenizer of unknown type {name!r}; known: {known}. "
            "If it is your own class, import it first."
        )
    return _TYPES[name]
