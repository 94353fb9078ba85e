"""The canonical tokens of Fableworld as ids."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from lmcourse.datasets.fableworld.grammar import END, Language, parse
from lmcourse.datasets.fableworld.story import language_named, teller
from lmcourse.text.base import SpecialUse, Tokenizer


class FableTokenizer(Tokenizer):
    """Words and punctuation marks of Fableworld as ids: the units in which the floor is stated.

    The vocabulary is that of the stories, with or without binding, and of the questions and summaries about
    them. The end token has the id 0.

    Attributes:
        language: the language's code.

    Example:
        >>> tokenizer = FableTokenizer()
        >>> ids = tokenizer.encode("Near the sea there lived", end=False)
        >>> tokenizer.decode(ids)
        'Near the sea there lived'
        >>> tokenizer.encode("")
        [0]
    """

    def __init__(self, language: str = "en"):
        """Take the vocabulary of a language.

        Raises:
            ValueError: if Fableworld does not speak the language.
        """
        self._language = language_named(language)
        self.language = language
        super().__init__(_vocabulary(language), {END: 0})
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    def encode(self, text: str, *, special: SpecialUse = "allow", end: bool = True) -> list[int]:
        """Return the ids of a text.

        Args:
            text: a story; several may stand on lines of their own.
            special: see `Tokenizer.encode`.
            end: whether the text is complete, so that the end token closes it; False for a prompt.

        Raises:
            ValueError: if a word is none of the language's.
        """
        ids = super().encode(text, special=special)
        return [*ids, self._ids[END]] if end and (not ids or ids[-1] != self._ids[END]) else ids

    def ids_of(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of canonical tokens.

        Raises:
            ValueError: if one is none of the language's.
        """
        try:
            return [self._ids[token] for token in tokens]
        except KeyError as error:
            raise ValueError(
                f"tokens must be words of Fableworld ({self.language}); it has no {error.args[0]!r}."
            ) from None

    def to_config(self) -> dict[str, Any]:
        """Return the language: the vocabulary follows from it."""
        return {"language": self.language}

    def _encode_text(self, text: str) -> list[int]:
        return self.ids_of(self._language.tokenize(text, False))

    def _decode_ids(self, ids: list[int]) -> str:
        return self._language.detokenize(self.tokens[i] for i in ids)


@functools.lru_cache(maxsize=8)
def _vocabulary(code: str) -> tuple[str, ...]:
    words = set(_view_words(language_named(code)))
    for binding in (False, True):
        for node in teller(code, binding=binding).automaton.nodes:
            words.update(arc.token for arc in node.arcs.values() if arc.token is not None)
    return (END, *sorted(words - {END}))


def _view_words(language: Language) -> Sequence[str]:
    """Return the words that only questions and summaries use; what fills their slots is in the stories."""
    templates = [language.summary, *(question for question, _ in language.questions)]
    return [piece.form for template in templates for piece in parse(template) if not piece.slots]
