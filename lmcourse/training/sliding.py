"""A model of limited context, on texts of any length.

Letters for shapes: `B` rows, `T` time (tokens in a row), `W` windows, `L` tokens in a window.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import LanguageModel, check_ids, document_ids


class SlidingContext(LanguageModel):
    """Reads a long text through a window that slides over it, and forgets what lies before the window.

    The first window holds the first L tokens of a text, and each further one begins L - overlap tokens after the one
    before. A window scores the tokens that no earlier one held. The model reads each as a document of its own: what
    it reads before a document stands before every window.

    - In the first window a token's context is all that comes before it, 0 to L - 1 tokens. A text of at most L
      tokens is scored as by the model itself.
    - Any later token's context is what its window holds to the left of it, at least `overlap` and at most L - 1
      tokens: with every window it falls back to `overlap`, and grows by one with each token.
    - A text of T > L tokens takes W = 1 + ceil((T - L) / (L - overlap)) windows. So the model reads W · L tokens,
      about L / (L - overlap) times as many as the text has: twice as many by default, L times with `overlap` = L - 1.
      A window of which the mask counts no token is left out.

    How much context a token has follows from its place alone. So what is given is a distribution over texts, and its
    perplexity means what it should: that of a model which often looks back less far than it could.

    `next_log_probs` always gives the longest context, L - 1 tokens. Beyond the first window it agrees with
    `token_log_probs` for `overlap` = L - 1 only. Nothing is kept from one call to the next: of a text that grows, the
    whole window is read again for each token.

    Args:
        model: a language model.
        length: L, the most tokens that it reads at once; default: its `max_length`, and without one all of them.
        overlap: how many tokens of a window were in the one before as well; default: half of L, rounded down.

    Raises:
        ValueError: if length is no integer from 1 to the model's max_length, or overlap none from 0 to L - 1, or if
            there is an overlap and no length.

    Example:
        >>> class Context(LanguageModel):  # gives how many tokens it can look back to, instead of nats
        ...     vocab_size, max_length = 9, 4
        ...     def token_log_probs(self, ids, mask=None):
        ...         return np.where(mask, np.arange(ids.shape[1]), 0)
        ...     def next_log_probs(self, prefixes):
        ...         return np.array([[len(prefix)] * 9 for prefix in prefixes])
        >>> text = [[1, 2, 3, 4, 5, 6, 7, 8, 1]]
        >>> SlidingContext(Context()).token_log_probs(text).astype(int).tolist()
        [[0, 1, 2, 3, 2, 3, 2, 3, 2]]
        >>> SlidingContext(Context(), overlap=3).token_log_probs(text).astype(int).tolist()
        [[0, 1, 2, 3, 3, 3, 3, 3, 3]]
    """

    def __init__(self, model: LanguageModel, length: int | None = None, overlap: int | None = None):
        most = getattr(model, "max_length", None)
        if length is not None and not (_is_integer(length) and 1 <= length <= (most or math.inf)):
            allowed = "of at least 1" if most is None else f"from 1 to the model's max_length = {most}"
            raise ValueError(f"length must be an integer {allowed}; got {length!r}.")
        self.model, self.length = model, length or most
        self.vocab_size, self.normalized = model.vocab_size, model.normalized
        if overlap is not None and self.length is None:
            raise ValueError(
                f"length must be given with overlap for a model without a max_length; got overlap = {overlap!r}."
            )
        if overlap is not None and not (_is_integer(overlap) and 0 <= overlap < self.length):
            raise ValueError(
                f"overlap must be an integer from 0 to length - 1 = {self.length - 1}; got {overlap!r}."
            )
        self.overlap = overlap if overlap is not None or self.length is None else self.length // 2

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token given what its window holds to the left of it; see `LanguageModel.token_log_probs`.

        Args:
            ids: integers of shape (B, T), T as large as it may be.
            mask: bool of shape (B, T), True where the token counts. A masked token still serves as context.

        Returns:
            ln P(ids[b, t] | what the window holds before it) of shape (B, T), in nats; 0 where masked.

        Raises:
            ValueError: if ids or mask is not right.
        """
        ids, mask = check_ids(ids, self.vocab_size, mask)
        if self.length is None or ids.shape[1] <= self.length:
            return self.model.token_log_probs(ids, mask)
        places = self._windows(ids.shape[1])  # (W, L)
        scored = mask[:, places] & self._fresh(places, ids.shape[1])  # (B, W, L)
        rows, windows = np.nonzero(scored.any(axis=2))
        found = self.model.token_log_probs(ids[rows[:, None], places[windows]], scored[rows, windows])
        log_probs = np.zeros(ids.shape)
        for row, window, values in zip(rows, windows, found, strict=True):
            here = scored[row, window]
            log_probs[row, places[window][here]] = values[here]
        return log_probs

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution after each prefix, of which the last L - 1 tokens are read.

        Args:
            prefixes: B sequences of ids, as long as they may be.

        Returns:
            ln P(token | the last L - 1 tokens) of shape (B, V), in nats.

        Raises:
            ValueError: if a prefix holds an id outside 0..V-1.
        """
        rows = document_ids(prefixes, self.vocab_size, "prefixes")
        if self.length is not None:
            rows = [row[max(0, len(row) - self.length + 1) :] for row in rows]
        return self.model.next_log_probs(rows)

    def _windows(self, time: int) -> NDArray[np.int64]:
        """Return the places that each window reads, (W, L); beyond the end the last place again."""
        stride = self.length - self.overlap
        count = 1 + -(-(time - self.length) // stride)
        starts = stride * np.arange(count)
        return np.minimum(starts[:, None] + np.arange(self.length), time - 1)

    def _fresh(self, places: NDArray[np.int64], time: int) -> NDArray[np.bool_]:
        """Return where a window scores: at places that no window before it has, (W, L)."""
        fresh = np.ones(places.shape, dtype=bool)
        fresh[1:, : self.overlap] = False
        fresh[:, 1:] &= places[:, 1:] != places[:, :-1]  # the last place stands once
        return fresh


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
