"""The n-gram language model: a table of probabilities, and weights for what is not in it."""

import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import LanguageModel, check_ids, document_ids
from lmcourse.files import replacing
from lmcourse.ngram.counts import NgramCounts, NgramTable, check_sizes, gram_ids, pick
from lmcourse.ngram.smoothing import SMOOTHINGS, Smoothing, get_smoothing, levels

SAVED_FORMAT = "lmcourse n-gram model 1"

# A context that would reach beyond the start of the document: there is nothing to look up and nothing to pay.
TOO_SHORT = -2


class NgramModel(LanguageModel):
    """Predict a token from the n - 1 tokens before it, by counting.

    A fitted model is what an ARPA file holds: for each n-gram seen, ln P(token | context); for each context, the
    logarithm of its backoff weight. What was not seen costs the weight of its context times its probability in the
    next shorter one.

    Args:
        order: n, at least 1. A 1-gram model ignores the context.
        vocab_size: V; ids run from 0 to V - 1.
        smoothing: a name from `SMOOTHINGS`, or a `Smoothing` with its own settings.

    Raises:
        ValueError: if order or vocab_size is less than 1 or there is no such smoothing.

    Example:
        >>> model = NgramModel(2, vocab_size=3, smoothing="mle").fit([[0, 1, 0, 1, 2]])
        >>> np.exp(model.next_log_probs([[0], [1]])).round(2).tolist()
        [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]
    """

    def __init__(self, order: int, vocab_size: int, smoothing: str | Smoothing = "modified-kneser-ney"):
        check_sizes(order, vocab_size)
        self.order = order
        self.vocab_size = vocab_size
        self.smoothing = get_smoothing(smoothing)
        self.normalized = self.smoothing.normalized
        self._log_unseen_context = float(np.log(self.smoothing.unseen_context))
        self._tables: list[NgramTable] = []
        self._log_probs: list[NDArray[np.float64]] = []
        self._log_backoffs: list[NDArray[np.float64]] = []

    def fit(
        self, documents: Sequence[ArrayLike], held_out: Sequence[ArrayLike] | None = None
    ) -> "NgramModel":
        """Count the documents and smooth the counts.

        Args:
            documents: sequences of ids; each begins afresh.
            held_out: documents on which 'jelinek-mercer' learns its weights; the other methods need none.

        Returns:
            The model itself.
        """
        return self.fit_counts(NgramCounts(documents, self.order, self.vocab_size), held_out)

    def fit_counts(self, counts: NgramCounts, held_out: Sequence[ArrayLike] | None = None) -> "NgramModel":
        """Smooth counts that are already there: one count serves several smoothings, and orders up to its own.

        Raises:
            ValueError: if counts is of another vocabulary or a lower order.
        """
        if counts.vocab_size != self.vocab_size:
            raise ValueError(f"counts must be of vocab_size {self.vocab_size}; got {counts.vocab_size}.")
        counts = counts.up_to(self.order)
        self.smoothing.prepare(counts, list(held_out) if held_out is not None else None)
        lower = np.array([1 / self.vocab_size])
        probs, backoffs = [], []
        for table, level in zip(counts.tables, levels(counts, self.smoothing.continuation), strict=True):
            lower, backoff = self.smoothing.combine(level, lower[table.suffixes])
            if table.order == 1:
                # The start of a document is a context, never a prediction.
                lower[-1] = 0.0
            probs.append(lower)
            backoffs.append(backoff)
        with np.errstate(divide="ignore"):
            self._log_probs = [np.log(p) for p in probs]
            # backoffs[n] belongs to the contexts of order n + 1, the n-grams of order n. That of the empty
            # context is already in every unigram.
            self._log_backoffs = [np.log(b) for b in backoffs[1:]]
        self._tables = counts.tables
        return self

    @property
    def ngrams_by_order(self) -> list[int]:
        """How many n-grams are stored for each order 1, 2, … n: the model's parameters, but for the weights."""
        self._require_fit()
        return [self.vocab_size, *(len(table) for table in self._tables[1:])]

    @property
    def nbytes(self) -> int:
        """The memory its arrays take for prediction: keys, log probabilities and weights, in bytes."""
        self._require_fit()
        arrays = [*(table.keys for table in self._tables), *self._log_probs, *self._log_backoffs]
        return sum(array.nbytes for array in arrays)

    def _require_fit(self) -> None:
        if not self._tables:
            raise ValueError("the model has no counts yet: call fit(documents) first.")

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token given the n - 1 before it; see `LanguageModel.token_log_probs`.

        For each order in turn: where the n-gram was seen its probability replaces what the shorter context said;
        where only its context was seen, the weight of that context is added.
        """
        self._require_fit()
        ids, mask = check_ids(ids, self.vocab_size, mask)
        stream = np.pad(ids, ((0, 0), (1, 0)), constant_values=self.vocab_size)  # (B, 1 + T)
        grams = gram_ids(stream, self._tables)
        result = self._log_probs[0][ids]  # (B, T)
        for n in range(1, self.order):
            context, gram = grams[n - 1][:, :-1], grams[n][:, 1:]
            weight = pick(self._log_backoffs[n - 1], context, absent=self._log_unseen_context)
            # The first tokens of a row have no context this long: there is nothing to back off from.
            weight[:, : n - 1] = 0.0
            result = pick(self._log_probs[n], gram, absent=result + weight)
        return np.where(mask, result, 0.0)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution after each prefix; see `LanguageModel.next_log_probs`.

        The cost is O(V) a prefix, for the answer has V entries; of the prefix only the last n - 1 tokens matter.
        """
        self._require_fit()
        result = np.tile(self._log_probs[0][:-1], (len(prefixes), 1))  # (B, V)
        contexts = self._contexts(prefixes)
        for n in range(1, self.order):
            known = pick(self._log_backoffs[n - 1], contexts[n - 1], absent=self._log_unseen_context)
            result += np.where(contexts[n - 1] == TOO_SHORT, 0.0, known)[:, None]
            # The n-grams that continue a context lie side by side in the sorted table.
            table, base = self._tables[n], self.vocab_size + 1
            firsts = np.searchsorted(table.keys, contexts[n - 1] * base)
            lasts = np.searchsorted(table.keys, (contexts[n - 1] + 1) * base)
            for row in np.flatnonzero(contexts[n - 1] >= 0):
                followers = slice(firsts[row], lasts[row])
                result[row, table.keys[followers] % base] = self._log_probs[n][followers]
        return result

    def _contexts(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Return the ids of each prefix's last 1, 2, … n - 1 tokens as contexts, (n - 1, B).

        -1 stands for a context that was never seen, TOO_SHORT for one that reaches beyond the prefix's beginning.
        """
        width = self.order - 1
        prefixes = document_ids(prefixes, self.vocab_size, "prefixes")
        recent = np.full((len(prefixes), width), self.vocab_size, dtype=np.int64)  # (B, n - 1)
        for row, prefix in enumerate(prefixes):
            tail = prefix[max(0, len(prefix) - width) :]
            recent[row, width - len(tail) :] = tail
        contexts = np.full((width, len(prefixes)), TOO_SHORT)
        for n, grams in enumerate(gram_ids(recent, self._tables[:width]) if width else [], start=1):
            # The start of the document counts as a token of context.
            reaches = np.array([len(prefix) + 1 >= n for prefix in prefixes], dtype=bool)
            contexts[n - 1, reaches] = grams[reaches, -1]
        return contexts

    def ngrams(self, n: int) -> Iterator[tuple[tuple[int, ...], float, float]]:
        """Yield each n-gram of order n with its ln P and the logarithm of its backoff weight as a context.

        The start of a document has id V. The weight is 0.0 for one that is no context.
        """
        self._require_fit()
        if not 1 <= n <= self.order:
            raise ValueError(f"n must be between 1 and the model's order, {self.order}; got {n}.")
        rows = self._tables[0].keys[:, None]
        for table in self._tables[1:n]:
            rows = np.column_stack([rows[table.contexts], table.tokens])
        weights = self._log_backoffs[n - 1] if n < self.order else itertools.repeat(0.0)
        for tokens, log_prob, weight in zip(rows.tolist(), self._log_probs[n - 1], weights, strict=False):
            yield tuple(tokens), float(log_prob), float(weight)

    @classmethod
    def from_tables(
        cls,
        vocab_size: int,
        tables: list[NgramTable],
        log_probs: list[NDArray[np.float64]],
        log_backoffs: list[NDArray[np.float64]],
        smoothing: str | Smoothing,
    ) -> "NgramModel":
        """Return a model with these contents: what `save` and an ARPA file hold."""
        model = cls(len(tables), vocab_size, smoothing)
        model._tables, model._log_probs, model._log_backoffs = tables, log_probs, log_backoffs
        return model

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a NumPy .npz file, whole or not at all.

        The file is for prediction: the counts are not in it.

        Raises:
            ValueError: if the model is not fitted, or its smoothing is none of the package's.
        """
        self._require_fit()
        if SMOOTHINGS.get(self.smoothing.name) is not type(self.smoothing):
            raise ValueError(
                f"smoothing must be one of {', '.join(SMOOTHINGS)} to be saved; got {type(self.smoothing).__name__}. "
                "write_arpa saves any distribution."
            )
        header = {
            "format": SAVED_FORMAT,
            "order": self.order,
            "vocab_size": self.vocab_size,
            "smoothing": self.smoothing.name,
            "settings": self.smoothing.settings,
        }
        arrays = {"header": np.array(json.dumps(header))}
        for n, table in enumerate(self._tables):
            arrays[f"keys_{n}"], arrays[f"log_probs_{n}"] = table.keys, self._log_probs[n]
        for n, weights in enumerate(self._log_backoffs):
            arrays[f"log_backoffs_{n}"] = weights
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "NgramModel":
        """Read a model that `save` wrote.

        Raises:
            ValueError: if the file is none of these, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                header = json.loads(str(arrays["header"]))
                if header["format"] != SAVED_FORMAT:
                    raise ValueError(f"its format is {header['format']!r}")
                order, vocab_size = header["order"], header["vocab_size"]
                return cls.from_tables(
                    vocab_size,
                    [bare_table(n + 1, arrays[f"keys_{n}"], vocab_size) for n in range(order)],
                    [arrays[f"log_probs_{n}"] for n in range(order)],
                    [arrays[f"log_backoffs_{n}"] for n in range(order - 1)],
                    SMOOTHINGS[header["smoothing"]](**header["settings"]),
                )
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is no n-gram model that NgramModel.save wrote, or is damaged: {error}."
            ) from error


def bare_table(order: int, keys: NDArray[np.int64], vocab_size: int) -> NgramTable:
    """Return a table for looking up alone: its counts are not known."""
    nothing = np.empty(0, dtype=np.int64)
    return NgramTable(order, keys, nothing, nothing, nothing.astype(bool), vocab_size)
