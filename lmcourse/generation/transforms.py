"""Ways to reshape the distribution of the next token before a token is drawn from it.

Letters for shapes: `B` rows, `V` vocabulary.

Each transform takes scores of shape (B, V), in nats, and returns the log-probabilities of a distribution: every
row of `exp(result)` sums to one, and a forbidden token has `-inf`. The scores may lack normalisation (those of
stupid backoff do): a transform normalises them before anything else, so the same transforms serve them.

Equally probable tokens are ranked by their ids, the smaller first. Which tokens survive a cut is therefore a
fact about the distribution, never about the sorting algorithm.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids
from lmcourse.generation.checks import check_integer, is_number

# A sum of probabilities that equals p on paper may miss it by rounding; so near to p it counts as p.
ROUNDING = 1e-12


def normalize(scores: ArrayLike) -> NDArray[np.float64]:
    """Turn scores into log-probabilities: subtract the logarithm of each row's total.

    Args:
        scores: floats of shape (B, V), in nats; `-inf` for a token that cannot follow.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if scores is not (B, V), holds a NaN or `+inf`, or a row has no token that can follow.

    Example:
        >>> scores = np.log([[2.0, 1.0, 1.0]])
        >>> np.exp(normalize(scores)).round(6).tolist()
        [[0.5, 0.25, 0.25]]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(
            f"scores must have shape (B, V); got {scores.shape}. For one row, pass scores[None]."
        )
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("scores must be finite or -inf; got NaN or +inf. Look at what the model returned.")
    highest = scores.max(axis=-1, keepdims=True, initial=-np.inf)  # (B, 1)
    if np.isneginf(highest).any():
        row = int(np.flatnonzero(np.isneginf(highest))[0])
        raise ValueError(
            f"scores must leave each row a token that can follow; row {row} forbids all of them."
        )
    shifted = scores - highest  # exp of the highest is 1: no overflow, and the sum is at least 1
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def apply_temperature(scores: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Sharpen (temperature below 1) or flatten (above 1) the distribution.

    A probability p becomes proportional to p ** (1 / temperature). Towards 0 all mass goes to the most probable
    token, towards infinity every possible token becomes equally likely; an impossible one stays impossible.

    Args:
        scores: floats of shape (B, V), in nats.
        temperature: greater than 0, without unit.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if temperature is not a finite number above 0.

    Example:
        >>> scores = np.log([[0.8, 0.2]])
        >>> np.exp(apply_temperature(scores, 0.5)).round(4).tolist()  # 0.64 : 0.04
        [[0.9412, 0.0588]]

    Reference: Ackley, Hinton and Sejnowski 1985, "A learning algorithm for Boltzmann machines", Cognitive
    Science 9, where T first divides the energy differences.
    """
    check_temperature(temperature)
    log_probs = normalize(scores)
    # The best token goes to exactly 0 first: then only the others can overflow, and -inf is their right limit.
    log_probs -= log_probs.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):
        return normalize(log_probs / temperature)


def keep_top_k(scores: ArrayLike, k: int) -> NDArray[np.float64]:
    """Keep each row's k most probable tokens and forbid the others.

    Exactly k are kept (fewer only where fewer are possible): of tokens tied at the edge, those with the
    smallest ids.

    Args:
        scores: floats of shape (B, V), in nats.
        k: how many tokens to keep, from 1 to V.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if k is not an integer from 1 to V.

    Example:
        >>> np.exp(keep_top_k(np.log([[0.5, 0.3, 0.2]]), 2)).round(6).tolist()
        [[0.625, 0.375, 0.0]]

    Reference: Fan, Lewis and Dauphin 2018, "Hierarchical neural story generation", arXiv:1805.04833,
    section 5.4.
    """
    log_probs = normalize(scores)
    vocab_size = log_probs.shape[-1]
    check_integer("k", k, 1, vocab_size)
    # A partition finds the k-th largest in O(V); sorting 50,000 scores to read one of them would not pay.
    edge = np.partition(log_probs, vocab_size - k, axis=-1)[:, vocab_size - k, None]  # (B, 1)
    above, tied = log_probs > edge, log_probs == edge  # (B, V)
    places_left = k - above.sum(axis=-1, keepdims=True)  # (B, 1)
    return _keep(log_probs, above | (tied & (tied.cumsum(axis=-1) <= places_left)))


def keep_top_p(scores: ArrayLike, p: float) -> NDArray[np.float64]:
    """Keep each row's nucleus: the fewest tokens, most probable first, whose probabilities reach p together.

    At least one token is kept, however small p is. Of tokens tied at the edge, those with the smallest ids are
    kept. With p = 1 every token that can follow is kept.

    Args:
        scores: floats of shape (B, V), in nats.
        p: the probability that the kept tokens must reach, above 0 and at most 1.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if p is not above 0 and at most 1.

    Example:
        >>> np.exp(keep_top_p(np.log([[0.5, 0.3, 0.2]]), 0.7)).round(6).tolist()  # 0.5 falls short, 0.8 reaches
        [[0.625, 0.375, 0.0]]

    Reference: Holtzman et al. 2020, "The curious case of neural text degeneration", arXiv:1904.09751,
    section 3.1, equations 2 and 3.
    """
    check_top_p(p)
    log_probs = normalize(scores)
    if p == 1:
        return log_probs
    keep = np.zeros(log_probs.shape, dtype=bool)
    for row, probs in zip(keep, np.exp(log_probs), strict=True):
        row[_nucleus(probs, p)] = True
    return _keep(log_probs, keep)


def penalize_repetition(
    scores: ArrayLike, histories: Sequence[Sequence[int]], penalty: float
) -> NDArray[np.float64]:
    """Make the tokens that a row already holds less likely to come again.

    The probability q of a token seen before becomes proportional to q ** penalty. CTRL divides a seen token's
    logit by the penalty. Logits are known only up to a constant, and a negative one would *rise* when divided;
    log-probabilities fix the constant and are never positive, so here the penalty multiplies. How often or how
    long ago a token came does not matter, and one that is certain (q = 1) stays certain.

    Args:
        scores: floats of shape (B, V), in nats.
        histories: for each row, the ids it holds so far.
        penalty: 1 changes nothing, more discourages repetition (the paper suggests 1.2), less encourages it.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if penalty is not a finite number above 0, or histories is not B sequences of ids below V.

    Example:
        >>> scores = np.log([[0.5, 0.25, 0.25]])
        >>> np.exp(penalize_repetition(scores, [[0]], 2.0)).round(4).tolist()  # 0.25 : 0.25 : 0.25
        [[0.3333, 0.3333, 0.3333]]

    Reference: Keskar et al. 2019, "CTRL: a conditional transformer language model for controllable generation",
    arXiv:1909.05858, section 4.1.
    """
    check_repetition_penalty(penalty)
    log_probs = normalize(scores)
    for row, history in zip(log_probs, _checked(histories, log_probs.shape), strict=True):
        row[np.unique(history)] *= penalty
    return normalize(log_probs)


def forbid_repeated_ngrams(
    scores: ArrayLike, histories: Sequence[Sequence[int]], n: int
) -> NDArray[np.float64]:
    """Forbid each token that would end an n-gram which its row already holds.

    Args:
        scores: floats of shape (B, V), in nats.
        histories: for each row, the ids it holds so far.
        n: the length of n-gram that may not come twice; 1 forbids every token seen before.

    Returns:
        Log-probabilities of shape (B, V), in nats.

    Raises:
        ValueError: if n is not an integer of at least 1, histories is not B sequences of ids below V, or a row has no
            possible token left.

    Example:
        >>> scores = np.log([[0.5, 0.25, 0.25]])
        >>> np.exp(forbid_repeated_ngrams(scores, [[2, 0, 1, 2]], 2)).round(6).tolist()  # "2 0" was there
        [[0.0, 0.5, 0.5]]

    Reference: Paulus, Xiong and Socher 2018, "A deep reinforced model for abstractive summarization",
    arXiv:1705.04304, section 2.5.
    """
    check_integer("n", n, 1)
    log_probs = normalize(scores)
    checked = _checked(histories, log_probs.shape)
    for index, (row, history) in enumerate(zip(log_probs, checked, strict=True)):
        row[_endings_of_repeats(history, n)] = -np.inf
        if np.isneginf(row).all():
            raise ValueError(
                f"no_repeat_ngram = {n} leaves row {index} no token that can follow: each would repeat one of "
                f"its n-grams. Choose a larger n, or generate fewer tokens."
            )
    return normalize(log_probs)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless temperature is a finite number above 0."""
    if not (is_number(temperature) and 0 < temperature < np.inf):
        raise ValueError(
            f"temperature must be a finite number above 0; got {temperature!r}. "
            "For the most probable token at each step, use greedy=True."
        )


def check_top_p(p: float) -> None:
    """Raise ValueError unless p is above 0 and at most 1."""
    if not (is_number(p) and 0 < p <= 1):
        raise ValueError(f"top_p must be above 0 and at most 1; got {p!r}.")


def check_repetition_penalty(penalty: float) -> None:
    """Raise ValueError unless penalty is a finite number above 0."""
    if not (is_number(penalty) and 0 < penalty < np.inf):
        raise ValueError(
            f"repetition_penalty must be a finite number above 0; got {penalty!r}. 1 changes nothing."
        )


def _checked(histories: Sequence[Sequence[int]], shape: tuple[int, int]) -> list[NDArray[np.int64]]:
    """Return the histories of rows of scores as arrays of ids, or say which one is wrong."""
    rows, vocab_size = shape
    if len(histories) != rows:
        raise ValueError(f"histories must have one entry for each of the {rows} rows; got {len(histories)}.")
    return document_ids(histories, vocab_size, "histories")


def _keep(log_probs: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    return normalize(np.where(keep, log_probs, -np.inf))


def _nucleus(probs: NDArray[np.float64], p: float) -> NDArray[np.int64]:
    """Return the ids in the nucleus of a distribution (V,), the most probable first."""
    # Tokens rarer than this hold less than 1 - p all together: the nucleus does without them, and so does the
    # sort, which would otherwise take longer than a small model's step when V is 50,000.
    candidates = np.flatnonzero(probs >= (1 - p) / (2 * len(probs)))
    ranked = candidates[np.argsort(-probs[candidates], kind="stable")]
    mass_before = probs[ranked].cumsum() - probs[ranked]
    return ranked[: max(1, np.count_nonzero(mass_before < p - ROUNDING))]


def _endings_of_repeats(history: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the tokens that once followed the last n - 1 tokens of the history."""
    if len(history) < n:
        return history[:0]
    ngrams = np.lib.stride_tricks.sliding_window_view(history, n)  # (n-grams, n)
    context = history[len(history) - (n - 1) :]
    return ngrams[(ngrams[:, :-1] == context).all(axis=-1), -1]
