"""A tokenizer whose tokens are characters."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

from lmcourse.text.base import Tokenizer, between_special_tokens, special_ids, visible


class CharTokenizer(Tokenizer):
    """One token a Unicode character (code point).

    The ids are those of the special tokens, then of the unknown token if there is one, then of the
    characters. Decoding gives the text back exactly, but for characters that became the unknown token.

    Args:
        characters: the characters to know, each once, in the order of their ids.
        unknown_token: a token for all other characters; None makes `encode` raise on them.
        special_tokens: tokens that stand for no text.

    Raises:
        ValueError: if an entry of characters is not one character, or repeats.

    Example:
        >>> tokenizer = CharTokenizer.train("banana")
        >>> tokenizer.tokens, tokenizer.encode("ban"), tokenizer.decode([1, 0, 2])
        (['a', 'b', 'n'], [1, 0, 2], 'ban')
    """

    def __init__(
        self,
        characters: Sequence[str],
        unknown_token: str | None = None,
        special_tokens: Sequence[str] = (),
    ):
        wrong = [character for character in characters if len(character) != 1]
        if wrong:
            raise ValueError(f"characters must be strings of length 1; got {wrong[0]!r}.")
        if len(set(characters)) != len(characters):
            raise ValueError("characters must not repeat; give each character once.")
        specials = special_ids(special_tokens, unknown_token)
        self._strings = [*specials, *characters]
        self._ids = {character: i for i, character in enumerate(characters, start=len(specials))}
        self._characters = list(characters)
        self._special_arguments = list(special_tokens)
        self.unknown_token = unknown_token
        super().__init__(map(visible, self._strings), specials)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        *,
        unknown_token: str | None = None,
        special_tokens: Sequence[str] = (),
    ) -> Self:
        """Return a tokenizer that knows the characters of the texts, in the order of their code points.

        Raises:
            ValueError: if a text holds a lone surrogate.
        """
        marks = special_ids(special_tokens, unknown_token)
        characters = set().union(*between_special_tokens(texts, marks))
        return cls(sorted(characters), unknown_token, special_tokens)

    def to_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "characters": self._characters,
            "unknown_token": self.unknown_token,
            "special_tokens": self._special_arguments,
        }

    def _encode_text(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            if self.unknown_token is not None:
                unknown = self.special_tokens[self.unknown_token]
                return [self._ids.get(character, unknown) for character in text]
            character = error.args[0]
            raise ValueError(
                f"text must hold only the {len(self._ids)} characters known; got {character!r} at position "
                f"{text.index(character)}. Train on a text that has it, or give an unknown_token."
            ) from None

    def _decode_ids(self, ids: list[int]) -> str:
        return "".join([self._strings[i] for i in ids])
