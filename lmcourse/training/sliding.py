"""A model of limited context, on texts of any length.

Letters for shapes: `B` rows, `T` time (tokens in a row), `W` windows, `L` tokens in a window.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import LanguageModel, check_ids, check_positive, document_ids


class SlidingContext(LanguageModel):
    """Reads a long text through a window that slides over it, and forgets what lies before the window.

    Windows overlap: a token is scored where the window has at least `overlap` tokens before it, or the whole text's
    beginning. More overlap means more context for each token, and more windows. What it gives is a distribution: that
    of a model which looks back at least `overlap` tokens. A text that fits into one window is scored as by the model.

    Args:
        model: a language model.
        length: L, the most tokens that it reads at once; default: its `max_length`, and without one all of them.
        overlap: how many tokens of a window were in the one before as well; default: half.

    Raises:
        ValueError: if length is beyond the model's max_length, or overlap is not from 0 to L - 1.

    Example:
        >>> class Remembers(LanguageModel):  # a token that came before is certain to come again
        ...     vocab_size, max_length = 9, 4
        ...     def token_log_probs(self, ids, mask=None):
        ...         assert ids.shape[1] <= 4
        ...         seen = [[token in row[:t] for t, token in enumerate(row)] for row in ids.tolist()]
        ...         return np.where(mask & ~np.array(seen), -1.0, 0.0)
        ...     def next_log_probs(self, prefixes):
        ...         raise NotImplementedError
        >>> SlidingContext(Remembers()).token_log_probs([[1, 2, 1, 3, 3, 2, 2, 8, 2]]).tolist()
        [[-1.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0]]
    """

    def __init__(self, model: LanguageModel, length: int | None = None, overlap: int | None = None):
        check_positive(length=length)
        most = getattr(model, "max_length", None)
        if None not in (length, most) and length > most:
            raise ValueError(f"length must be at most the model's max_length, {most}; got {length}.")
        self.model, self.length = model, length or most
        self.vocab_size, self.normalized = model.vocab_size, model.normalized
        if self.length is not None:
            overlap = self.length // 2 if overlap is None else overlap
            if not 0 <= overlap < self.length:
                raise ValueError(f"overlap must be from 0 to length - 1 = {self.length - 1}; got {overlap}.")
        self.overlap = overlap

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token given what its window holds to the left of it; see `LanguageModel.token_log_probs`."""
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
        """Return the distribution after each prefix, of which the last L - 1 tokens are read."""
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
