"""Shannon's guessing game: how many guesses does it take to find the next character?

Reference: Shannon 1951, "Prediction and entropy of printed English", Bell System Technical Journal 30(1), 50-64.
"""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import LanguageModel
from lmcourse.text.base import Tokenizer, visible


def guess_ranks(model: LanguageModel, ids: Sequence[int]) -> NDArray[np.int64]:
    """Return how many guesses a model needs for each token when it guesses the likeliest first.

    Args:
        model: any language model; scores that are no distribution rank as well.
        ids: a text from its beginning, T tokens.

    Returns:
        (T,), from 1 (right at once) to V. Tokens that are equally likely are guessed in the order of their ids.
    """
    scores = model.next_log_probs([ids[:t] for t in range(len(ids))])
    order = np.argsort(-scores, axis=1, kind="stable")
    return 1 + np.argmax(order == np.asarray(ids)[:, None], axis=1)


def entropy_bounds_bits(ranks: ArrayLike) -> tuple[float, float]:
    """Bound the entropy of the text from the numbers of guesses.

    Args:
        ranks: how many guesses each character took, at least 1.

    Returns:
        A lower and an upper bound in bits a character, for an ideal guesser. The upper one holds for any guesser.

    Raises:
        ValueError: if ranks is empty or holds a number below 1.

    Example:
        >>> entropy_bounds_bits([1, 1, 1, 1])
        (0.0, 0.0)

    Reference: Shannon 1951, equation 17.
    """
    ranks = np.asarray(ranks)
    if not ranks.size or ranks.min() < 1:
        raise ValueError(f"ranks must hold numbers of guesses, 1 or more; got {ranks.tolist()}.")
    shares = np.bincount(ranks)[1:] / ranks.size
    positive = shares[shares > 0]
    upper = -float(np.sum(positive * np.log2(positive)))
    steps = shares - np.append(shares[1:], 0.0)
    lower = float(np.sum(np.arange(1, len(shares) + 1) * steps * np.log2(np.arange(1, len(shares) + 1))))
    return abs(lower), abs(upper)


class GuessingGame:
    """Guess a text character by character, against a model.

    In a live notebook the game shows itself as a widget; elsewhere (on a web page, say) as the model's play.

    Args:
        model: the opponent, over characters.
        tokenizer: its characters.
        text: what to guess.
        given: how many characters are shown at the start.

    Attributes:
        ranks: (T,) the guesses the model needs for each character of the text.
        guesses: the guesses you needed for each character found so far, from the first that was not given.

    Raises:
        ValueError: if nothing is left to guess, or the tokenizer is not one of characters.

    Example:
        >>> from lmcourse.ngram import NgramModel
        >>> from lmcourse.text import CharTokenizer
        >>> tokenizer = CharTokenizer.train("abracadabra")
        >>> model = NgramModel(2, tokenizer.vocab_size).fit([tokenizer.encode("abracadabra")])
        >>> game = GuessingGame(model, tokenizer, "abra", given=1)
        >>> game.guess("r"), game.guess("b"), game.shown, game.guesses
        (False, True, 'ab', [2])
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, text: str, given: int = 20):
        if not 0 <= given < len(text):
            raise ValueError(
                f"given must be between 0 and {len(text) - 1}, or nothing is left to guess; got {given}."
            )
        ids = tokenizer.encode(text)
        if len(ids) != len(text):
            raise ValueError(
                f"tokenizer must give one id for each character; got {len(ids)} for {len(text)} characters."
            )
        self.text = text
        self.given = given
        self.ranks = guess_ranks(model, ids)
        self.guesses: list[int] = []
        self._tries = 0

    @property
    def position(self) -> int:
        """The index of the character to guess; the text's length when the game is over."""
        return self.given + len(self.guesses)

    @property
    def shown(self) -> str:
        """What has been found or was given."""
        return self.text[: self.position]

    @property
    def over(self) -> bool:
        """Whether everything has been found."""
        return self.position == len(self.text)

    def guess(self, character: str) -> bool:
        """Guess the next character; return whether it is right.

        Raises:
            ValueError: if character is not one character, or the game is over.
        """
        if self.over:
            raise ValueError("the game is over: every character has been found.")
        if len(character) != 1:
            raise ValueError(f"character must be one character; got {character!r}.")
        self._tries += 1
        if character != self.text[self.position]:
            return False
        self.guesses.append(self._tries)
        self._tries = 0
        return True

    def score_line(self) -> str:
        """Return how you and the model are doing, in one line."""
        if not self.guesses:
            return "No character found yet."
        model = self.ranks[self.given : self.position]
        return (
            f"{len(self.guesses)} found: you needed {np.mean(self.guesses):.2f} guesses a character, "
            f"the model {np.mean(model):.2f}."
        )

    def model_play_html(self) -> str:
        """Return the text with the number of guesses the model needed below each character."""
        cells = "".join(
            f"<td style='text-align:center;padding:0 .15em;font-family:monospace'>{html.escape(visible(character))}"
            f"<br><small>{'·' if i < self.given else self.ranks[i]}</small></td>"
            for i, character in enumerate(self.text)
        )
        return f"<table style='border-collapse:collapse'><tr>{cells}</tr></table>"

    def widget(self) -> Any:
        """Return the game as an ipywidget: type a character, press Enter."""
        import ipywidgets

        found = ipywidgets.HTML(self._found_html())
        score = ipywidgets.HTML(
            "Type your guess for the next character and press Enter. A space is a guess, too."
        )
        entry = ipywidgets.Text(
            placeholder="next character", layout={"width": "10em"}, continuous_update=False
        )

        def on_guess(change: dict[str, Any]) -> None:
            character = change["new"][:1]
            if not character or self.over:
                return
            right = self.guess(character)
            found.value = self._found_html()
            score.value = (
                "Right. " if right else f"Not {html.escape(visible(character))}. "
            ) + self.score_line()
            entry.value = ""
            entry.disabled = self.over

        entry.observe(on_guess, names="value")
        return ipywidgets.VBox([found, entry, score])

    def _found_html(self) -> str:
        return f"<pre style='font-size:110%'>{html.escape(self.shown)}<b>{'' if self.over else '▯'}</b></pre>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/plain": self.score_line(), "text/html": self.model_play_html()}
        live = self.widget()._repr_mimebundle_() or {}
        view = "application/vnd.jupyter.widget-view+json"
        return bundle | ({view: live[view]} if view in live else {})
