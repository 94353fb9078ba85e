"""The one interface everything that predicts the next token goes through, and the measures over it.

Letters for shapes: `B` rows, `T` time (tokens in a row), `V` vocabulary.

Log probabilities are natural logarithms: their unit is the nat. One nat is `1 / ln 2` = 1.4427 bits.
"""

import abc
import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

NATS_PER_BIT = math.log(2)

# Tokens scored in one call: enough to amortise the call, small enough that a neural model's batch fits in memory.
TOKENS_PER_BATCH = 65_536


class LanguageModel(abc.ABC):
    """A distribution over the next token, given the tokens before it.

    A row of ids is a document from its beginning: the model supplies whatever it conditions on before the
    first token. A text that ends with an end token has that token in its ids.

    Attributes:
        vocab_size: V; ids run from 0 to V - 1.
        normalized: whether `exp(next_log_probs)` sums to one. Scores that are no distribution
            (stupid backoff) say False, and `perplexity` refuses them.
    """

    vocab_size: int
    normalized: bool = True

    @abc.abstractmethod
    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token of each row given the tokens to its left.

        Args:
            ids: integers of shape (B, T).
            mask: bool of shape (B, T), True where the token counts. A masked token still serves as context
                for the tokens to its right. Default: every token counts.

        Returns:
            ln P(ids[b, t] | ids[b, :t]) of shape (B, T), in nats; 0 where masked.

        Raises:
            ValueError: if ids is not (B, T), holds an id outside 0..V-1, or mask has another shape.
        """

    @abc.abstractmethod
    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution of the token that follows each prefix.

        Args:
            prefixes: B sequences of ids; their lengths may differ, and be zero.

        Returns:
            ln P(token | prefix) of shape (B, V), in nats; `-inf` where the probability is zero.

        Raises:
            ValueError: if a prefix holds an id outside 0..V-1.
        """

    def decoder(self, prefixes: Sequence[Sequence[int]]) -> "Decoder":
        """Return a `Decoder` that extends the prefixes token by token; a model with a cache returns its own."""
        return RecomputingDecoder(self, prefixes)


class Decoder(abc.ABC):
    """Generation in progress: B growing rows, and the distribution of each one's next token."""

    @abc.abstractmethod
    def log_probs(self) -> NDArray[np.float64]:
        """Return ln P(next token) for each row, (B, V), in nats."""

    @abc.abstractmethod
    def append(self, ids: Sequence[int]) -> None:
        """Extend each row by one token; ids has B entries."""

    @abc.abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be dropped or repeated (as a beam search does)."""


class RecomputingDecoder(Decoder):
    """The decoder that every model has: it asks for the whole prefix again at each step."""

    def __init__(self, model: LanguageModel, prefixes: Sequence[Sequence[int]]):
        """Start from these prefixes."""
        self._model = model
        self._rows = [list(prefix) for prefix in prefixes]

    def log_probs(self) -> NDArray[np.float64]:
        """Return ln P(next token) for each row, (B, V), in nats."""
        return self._model.next_log_probs(self._rows)

    def append(self, ids: Sequence[int]) -> None:
        """Extend each row by one token."""
        if len(ids) != len(self._rows):
            raise ValueError(
                f"ids must have one entry for each of the {len(self._rows)} rows; got {len(ids)}."
            )
        for row, token in zip(self._rows, ids, strict=True):
            row.append(int(token))

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self._rows = [list(self._rows[row]) for row in rows]


def check_positive(**sizes: object) -> None:
    """Refuse a size below one; what is no integer yet, as a tensor in a graph, or None is let through.

    Args:
        sizes: numbers by the names of the arguments they came as.

    Raises:
        ValueError: if one is below 1.

    Example:
        >>> check_positive(units=8, window=0)
        Traceback (most recent call last):
        ...
        ValueError: window must be at least 1; got 0.
    """
    for name, size in sizes.items():
        if isinstance(size, (int, np.integer)) and size < 1:
            raise ValueError(f"{name} must be at least 1; got {size}.")


def check_ids(
    ids: ArrayLike, vocab_size: int, mask: ArrayLike | None = None, name: str = "ids"
) -> tuple[NDArray, NDArray]:
    """Return ids and mask as arrays of shape (B, T), or say what is wrong with them.

    Args:
        ids: integers of shape (B, T).
        vocab_size: V.
        mask: bool of shape (B, T), or None for all True.
        name: what the caller calls the ids, for messages.

    Returns:
        ids as int64 and mask as bool.

    Raises:
        ValueError: if a shape, a dtype or an id is not right.
    """
    try:
        ids = np.asarray(ids)
    except ValueError:
        raise ValueError(
            f"{name} must have shape (B, T), all rows of one length; pad them with pad_rows."
        ) from None
    if ids.ndim != 2:
        raise ValueError(f"{name} must have shape (B, T); got {ids.shape}. For one row, pass [row].")
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} must be integers; got {ids.dtype}.")
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{name} must be between 0 and vocab_size - 1 = {vocab_size - 1}; got {wrong}.")
    mask = np.ones(ids.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if mask.shape != ids.shape:
        raise ValueError(f"mask must have the shape of {name}, {ids.shape}; got {mask.shape}.")
    return ids.astype(np.int64, copy=False), mask


def document_ids(
    documents: Sequence[ArrayLike], vocab_size: int | None = None, name: str = "documents"
) -> list[NDArray[np.int64]]:
    """Return documents as arrays of ids, or say which one is none.

    Args:
        documents: sequences of ids.
        vocab_size: V; the ids must then be below it.
        name: what the caller calls the documents, for messages.

    Raises:
        ValueError: if a document is not a sequence of integers from 0 to V - 1.
    """
    arrays = []
    for index, document in enumerate(documents):
        try:
            array = np.asarray(document)
        except ValueError:
            raise ValueError(
                f"{name}[{index}] must be one sequence of ids; got sequences of unequal lengths."
            ) from None
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise ValueError(
                f"{name}[{index}] must be a sequence of integer ids; got {array.dtype} of shape "
                f"{array.shape}. For one document, pass [document]."
            )
        if vocab_size is not None and array.size and (array.min() < 0 or array.max() >= vocab_size):
            wrong = array.min() if array.min() < 0 else array.max()
            raise ValueError(
                f"{name}[{index}] must hold ids between 0 and vocab_size - 1 = {vocab_size - 1}; got {wrong}."
            )
        arrays.append(array.astype(np.int64, copy=False))
    return arrays


def pad_rows(documents: Sequence[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Lay documents of different lengths side by side, padded on the right.

    Args:
        documents: B sequences of ids.

    Returns:
        ids (B, T), where T is the longest length and the padding is 0; mask (B, T), True on tokens.

    Raises:
        ValueError: if a document is not a sequence of integers.

    Example:
        >>> ids, mask = pad_rows([[5, 6, 7], [8]])
        >>> ids.tolist(), mask.sum(axis=1).tolist()
        ([[5, 6, 7], [8, 0, 0]], [3, 1])
    """
    documents = document_ids(documents)
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    longest = int(lengths.max(initial=0))
    mask = np.arange(longest) < lengths[:, None]  # (B, T)
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate(documents or [[]])
    return ids, mask


def token_surprisals_nats(model: LanguageModel, documents: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    """Return how surprised the model is by each token: -ln P(token | what came before).

    Documents of similar length are scored together, so that a corpus takes few calls and little padding.

    Args:
        model: any language model.
        documents: sequences of ids, each a text from its beginning.

    Returns:
        One array for each document, in the order given, in nats a token.

    Raises:
        ValueError: if a document is not a sequence of integers.
    """
    documents = document_ids(documents)
    lengths = [len(document) for document in documents]
    order = np.argsort(lengths, kind="stable")
    surprisals: list[NDArray[np.float64]] = [np.empty(0)] * len(documents)
    batch: list[int] = []
    for position, index in enumerate(order):
        batch.append(int(index))
        last = position + 1 == len(order)
        if last or (len(batch) + 1) * lengths[order[position + 1]] > TOKENS_PER_BATCH:
            ids, mask = pad_rows([documents[i] for i in batch])
            log_probs = model.token_log_probs(ids, mask)
            for row, i in enumerate(batch):
                surprisals[i] = -log_probs[row, : lengths[i]]
            batch = []
    return surprisals


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicted a text.

    Attributes:
        nats: the total surprisal, -ln P(text), in nats.
        tokens: how many tokens were scored.
        utf8_bytes: how long the text is in UTF-8, or None where that is not known.
    """

    nats: float
    tokens: int
    utf8_bytes: int | None = None

    @property
    def nats_per_token(self) -> float:
        """The mean surprisal in nats: the cross-entropy loss that Keras reports."""
        return self.nats / self.tokens

    @property
    def bits_per_token(self) -> float:
        """The mean surprisal in bits."""
        return self.nats_per_token / NATS_PER_BIT

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as surprising: exp(nats per token)."""
        return float(np.exp(self.nats_per_token))

    @property
    def bits_per_byte(self) -> float:
        """The bits for each byte of text: the same for any tokenizer, so models with different ones compare."""
        if not self.utf8_bytes:
            raise ValueError(
                f"utf8_bytes must be the length of the text for bits_per_byte; got {self.utf8_bytes}. "
                "Give it to score()."
            )
        return self.nats / NATS_PER_BIT / self.utf8_bytes


def score(model: LanguageModel, documents: Sequence[ArrayLike], utf8_bytes: int | None = None) -> Score:
    """Score documents with a model.

    Args:
        model: a language model whose distributions sum to one.
        documents: sequences of ids, each a text from its beginning.
        utf8_bytes: the length of all documents together as UTF-8 text, for bits per byte.

    Raises:
        ValueError: if there is no token to score, or the model's scores are no distribution.

    Example:
        >>> import numpy as np
        >>> class Uniform(LanguageModel):
        ...     vocab_size = 8
        ...     def token_log_probs(self, ids, mask=None):
        ...         return np.where(mask, -np.log(8), 0.0)
        ...     def next_log_probs(self, prefixes):
        ...         return np.full((len(prefixes), 8), -np.log(8))
        >>> result = score(Uniform(), [[0, 1, 2, 3], [4, 5]])
        >>> result.tokens, round(result.perplexity, 6), round(result.bits_per_token, 6)
        (6, 8.0, 3.0)
    """
    if not model.normalized:
        raise ValueError(
            f"model must give a distribution; the scores of {type(model).__name__} do not sum to one, so its "
            "perplexity would mean nothing. Compare what it generates or ranks instead."
        )
    documents = document_ids(documents)
    tokens = sum(len(document) for document in documents)
    if not tokens:
        raise ValueError("documents must hold at least one token; got none.")
    nats = sum(float(surprisals.sum()) for surprisals in token_surprisals_nats(model, documents))
    return Score(nats, tokens, utf8_bytes)


def perplexity(model: LanguageModel, documents: Sequence[ArrayLike]) -> float:
    """Return exp of the mean surprisal in nats; see `score`.

    Reference: Jelinek, Mercer, Bahl and Baker 1977, "Perplexity - a measure of the difficulty of speech
    recognition tasks", JASA 62(S1).
    """
    return score(model, documents).perplexity


def excess_bits_per_token(model: Score, floor: Score) -> float:
    """Return by how many bits a canonical token a model lies above the floor.

    Args:
        model: the model's score of a text, in whatever tokens it uses.
        floor: the true distribution's score of the same text, in canonical tokens.

    Returns:
        (the model's bits - the floor's bits) / canonical tokens. Zero is perfect; on a long text it cannot be
        negative beyond chance, because no model predicts better than the source itself (Gibbs' inequality).
    """
    return (model.nats - floor.nats) / NATS_PER_BIT / floor.tokens


def excess_bits_by_label(
    model_nats: Iterable[ArrayLike], floor_nats: Iterable[ArrayLike], labels: Iterable[Sequence[str]]
) -> dict[str, float]:
    """Split the excess over the floor by what each token is.

    Args:
        model_nats: the model's surprisal of each token, one array a document.
        floor_nats: the floor's surprisal of the same tokens.
        labels: each token's label, in the same layout.

    Returns:
        For each label, the bits it adds to the excess per token of the *whole* text: the values add up to
        the total excess per token.

    Raises:
        ValueError: if the three do not have the same documents with the same number of tokens, or no token.

    Example:
        >>> excess = excess_bits_by_label([[2 * NATS_PER_BIT], [NATS_PER_BIT]], [[0], [0]], [["name"], ["noise"]])
        >>> {label: round(bits, 6) for label, bits in excess.items()}  # 3 bits over 2 tokens
        {'name': 1.0, 'noise': 0.5}
    """
    model_parts = [np.asarray(part, dtype=np.float64) for part in model_nats]
    floor_parts = [np.asarray(part, dtype=np.float64) for part in floor_nats]
    label_parts = [np.asarray(part) for part in labels]
    layouts = [[len(part) for part in parts] for parts in (model_parts, floor_parts, label_parts)]
    if not layouts[0] == layouts[1] == layouts[2]:
        sizes = [f"{sum(layout)} tokens in {len(layout)} documents" for layout in layouts]
        raise ValueError(
            "model_nats, floor_nats and labels must have the same documents with one entry a token; "
            f"got {sizes[0]}, {sizes[1]} and {sizes[2]}."
        )
    if not sum(layouts[0]):
        raise ValueError("model_nats, floor_nats and labels must hold at least one token; got none.")
    excess_bits = (np.concatenate(model_parts) - np.concatenate(floor_parts)) / NATS_PER_BIT
    names, which = np.unique(np.concatenate(label_parts), return_inverse=True)
    totals = np.bincount(which, weights=excess_bits) / len(excess_bits)
    return {str(name): float(total) for name, total in zip(names, totals, strict=True)}
