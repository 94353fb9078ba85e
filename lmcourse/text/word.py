"""A tokenizer whose tokens are words and punctuation marks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import regex

from lmcourse.text.base import Tokenizer, between_special_tokens, special_ids, visible

# A word may hold inner apostrophes and hyphens (don't, well-known); any other mark is a token by itself.
WORD = regex.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")

_NO_SPACE_BEFORE = frozenset(".,;:!?)]}%…”»")
_NO_SPACE_AFTER = frozenset("([{$#“«")


class WordTokenizer(Tokenizer):
    """One token a word or a punctuation mark; words outside the vocabulary become the unknown token.

    The ids are those of the special tokens, then of the unknown token, then of the words.

    Decoding does not give the text back exactly. What is lost: unknown words; line breaks and how much white
    space there was; with lowercase, the case. `decode` puts one space between tokens but where English has
    none: before a full stop, inside brackets and inside straight double quotes, which are taken to open and
    close in turn.

    Args:
        words: the words to know, each once, in the order of their ids.
        unknown_token: the token of every other word.
        special_tokens: tokens that stand for no text.
        lowercase: whether to encode the lower-case form of the text.

    Raises:
        ValueError: if words repeat, or one is not what the pattern `WORD` takes for one word.

    Example:
        >>> tokenizer = WordTokenizer.train("The fox saw the hare. The hare ran.", lowercase=True)
        >>> tokenizer.tokens
        ['<unk>', 'the', '.', 'hare', 'fox', 'ran', 'saw']
        >>> tokenizer.decode(tokenizer.encode("The hare saw (once) the crow."))
        'the hare saw <unk> <unk> <unk> the <unk>.'
    """

    def __init__(
        self,
        words: Sequence[str],
        unknown_token: str = "<unk>",
        special_tokens: Sequence[str] = (),
        lowercase: bool = False,
    ):
        wrong = [word for word in words if not WORD.fullmatch(word)]
        if wrong:
            raise ValueError(f"words must each be one word or one mark; got {wrong[0]!r}.")
        if len(set(words)) != len(words):
            raise ValueError("words must not repeat; give each word once.")
        specials = special_ids(special_tokens, unknown_token)
        self._strings = [*specials, *words]
        self._words = list(words)
        self._ids = {word: i for i, word in enumerate(words, start=len(specials))}
        self._special_arguments = list(special_tokens)
        self.unknown_token = unknown_token
        self.lowercase = lowercase
        super().__init__(map(visible, self._strings), specials)

    @property
    def unknown_id(self) -> int:
        """The id of every word that is not in the vocabulary."""
        return self.special_tokens[self.unknown_token]

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        unknown_token: str = "<unk>",
        special_tokens: Sequence[str] = (),
        lowercase: bool = False,
    ) -> Self:
        """Return a tokenizer that knows the frequent words of the texts, the most frequent first.

        Args:
            texts: one text or several.
            min_count: how often a word must occur to be known.
            max_size: the largest V allowed, special and unknown tokens included. Words of equal count are kept
                in the order of their code points, so the result does not depend on the order of the texts.
            unknown_token: the token of every other word.
            special_tokens: tokens that stand for no text; they are found in the texts and not counted.
            lowercase: whether to count and encode lower-case forms.

        Raises:
            ValueError: if min_count is below 1, max_size too small for the special tokens, or a text holds a lone
                surrogate.
        """
        marks = special_ids(special_tokens, unknown_token)
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1; got {min_count}.")
        if max_size is not None and max_size < len(marks):
            raise ValueError(
                f"max_size must hold the {len(marks)} special and unknown tokens; got {max_size}."
            )
        counts: Counter[str] = Counter()
        for part in between_special_tokens(texts, marks):
            counts.update(split_words(part, lowercase))
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        words = [word for word in by_frequency if counts[word] >= min_count]
        room = None if max_size is None else max_size - len(marks)
        return cls(words[:room], unknown_token, special_tokens, lowercase)

    def to_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "words": self._words,
            "unknown_token": self.unknown_token,
            "special_tokens": self._special_arguments,
            "lowercase": self.lowercase,
        }

    def _encode_text(self, text: str) -> list[int]:
        unknown = self.unknown_id
        return [self._ids.get(word, unknown) for word in split_words(text, self.lowercase)]

    def _decode_ids(self, ids: list[int]) -> str:
        return join_words([self._strings[i] for i in ids])


def split_words(text: str, lowercase: bool = False) -> list[str]:
    """Return the words and marks of a text, in order.

    Example:
        >>> split_words("Don't panic: it's well-known.")
        ["Don't", 'panic', ':', "it's", 'well-known', '.']
    """
    return WORD.findall(text.lower() if lowercase else text)


def join_words(words: Iterable[str]) -> str:
    """Join words and marks as English writes them.

    Example:
        >>> join_words(['He', 'said', ':', '"', 'No', '(', 'never', ')', '!', '"'])
        'He said: "No (never)!"'
    """
    pieces: list[str] = []
    in_quotes = False
    glue_next = True
    for word in words:
        closes = word in _NO_SPACE_BEFORE or (word == '"' and in_quotes)
        if not (glue_next or closes):
            pieces.append(" ")
        pieces.append(word)
        if word == '"':
            in_quotes = not in_quotes
        glue_next = word in _NO_SPACE_AFTER or (word == '"' and in_quotes)
    return "".join(pieces)
