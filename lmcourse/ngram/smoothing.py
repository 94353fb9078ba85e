"""Smoothing: how much probability to take from what was seen, and what to do with it.

Every interpolated method here has one form, applied from the unigrams up:

    P(w | h) = kept(h w) + reserved(h) · P(w | h without its first token)

and is two arrays for each order: `kept`, a share for each n-gram seen, and `reserved`, the share each context leaves to
the next shorter one. P of the empty context's shorter one is uniform, 1 / V. A context that was never seen leaves all.

References:
    Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", Computer Speech &
    Language 13(4), 359-394. Equation numbers below are of the technical report TR-10-98 (1998), sections 2 and 3.
"""

import abc
import dataclasses

import numpy as np
from numpy.typing import NDArray

from lmcourse.ngram.counts import NgramCounts, NgramTable, gram_ids, pick, with_starts


@dataclasses.dataclass(frozen=True)
class Level:
    """What a smoothing method sees of one order.

    Attributes:
        order: n.
        counts: (G,) the count of each n-gram, raw or of its continuations.
        contexts: (G,) the id of each n-gram's context.
        totals: (C,) the sum of the counts of each context.
        types: (C,) how many distinct tokens follow each context.
        longest: (C,) whether no longer context can be had: the model's order ends here, or the document starts here.
        vocab_size: V.
    """

    order: int
    counts: NDArray[np.int64]
    contexts: NDArray[np.int64]
    totals: NDArray[np.float64]
    types: NDArray[np.int64]
    longest: NDArray[np.bool_]
    vocab_size: int

    @property
    def relative_frequencies(self) -> NDArray[np.float64]:
        """The count of each n-gram over the total of its context, (G,); 0 where the total is 0."""
        return self.share(self.counts)

    def share(self, amounts: NDArray) -> NDArray[np.float64]:
        """Divide an amount for each n-gram, (G,), by the total of its context."""
        totals = self.totals[self.contexts]
        return np.divide(amounts, totals, out=np.zeros(len(totals)), where=totals > 0)

    def complement(self, kept: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each context, (C,), has left when its n-grams keep these shares; 1 for an unseen context."""
        return 1 - np.bincount(self.contexts, weights=kept, minlength=len(self.totals))


def levels(counts: NgramCounts, continuation: bool) -> list[Level]:
    """Return what a smoothing method sees of each order.

    Args:
        counts: the counted corpus.
        continuation: below the highest order, replace the count of an n-gram by the number of distinct tokens that
            were seen before it (its continuation count). An n-gram at the start of a document has nothing before it
            and keeps its count.
    """
    result = []
    for table in counts.tables:
        longer = counts.tables[table.order] if table.order < counts.order else None
        amounts = continuation_counts(table, longer) if continuation and longer else table.counts
        contexts = table.contexts
        seen = np.flatnonzero(amounts)
        size = len(counts.tables[table.order - 2]) if table.order > 1 else 1
        starts = counts.tables[table.order - 2].starts_document if table.order > 1 else np.array([False])
        result.append(
            Level(
                order=table.order,
                counts=amounts,
                contexts=contexts,
                totals=np.bincount(contexts, weights=amounts, minlength=size),
                types=np.bincount(contexts[seen], minlength=size),
                longest=np.full(size, True) if longer is None else starts,
                vocab_size=counts.vocab_size,
            )
        )
    return result


def continuation_counts(table: NgramTable, longer: NgramTable) -> NDArray[np.int64]:
    """Return, for each n-gram, how many distinct tokens were seen before it.

    Args:
        table: the n-grams of one order.
        longer: the table of the next order.

    Returns:
        (G,); an n-gram that starts a document keeps its raw count.
    """
    distinct_left = np.bincount(longer.suffixes, minlength=len(table))
    return np.where(table.starts_document, table.counts, distinct_left)


class Smoothing(abc.ABC):
    """A rule that turns counts into probabilities.

    Attributes:
        name: what `NgramModel(smoothing=…)` calls it.
        continuation: whether the lower orders use continuation counts.
        normalized: whether the result is a distribution.
        unseen_context: the factor at a context that was never seen.
    """

    name = ""
    continuation = False
    normalized = True
    unseen_context = 1.0

    @property
    def settings(self) -> dict[str, float | None]:
        """What the rule was made with: `type(self)(**settings)` makes it again."""
        fields = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return {field.name: getattr(self, field.name) for field in fields if field.init}

    def prepare(self, counts: NgramCounts, held_out: list | None) -> None:  # noqa: B027 - most need nothing
        """Learn what the rule needs beyond the counts of each order, from held-out documents."""

    @abc.abstractmethod
    def kept(self, level: Level) -> NDArray[np.float64]:
        """Return the share of its context's probability that each n-gram keeps, (G,)."""

    def reserved(self, level: Level, kept: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share each context leaves to the next shorter one, (C,)."""
        # Rounding may leave -1e-17, whose logarithm does not exist.
        return np.maximum(level.complement(kept), 0.0)

    def combine(self, level: Level, lower: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Return the probability of each n-gram, (G,), and the weight of each context's backoff, (C,).

        Args:
            level: the counts of this order.
            lower: (G,) the probability of each n-gram's last token given the next shorter context.
        """
        kept = self.kept(level)
        reserved = self.reserved(level, kept)
        return kept + reserved[level.contexts] * lower, reserved


class MaximumLikelihood(Smoothing):
    """Relative frequencies: P(w | h) = c(h w) / c(h). What was not seen after a seen context gets zero.

    A context that was never seen has no relative frequencies (0 / 0); it uses the next shorter context.
    """

    name = "mle"

    def kept(self, level: Level) -> NDArray[np.float64]:
        """All of it goes to what was seen."""
        return level.relative_frequencies

    def reserved(self, level: Level, kept: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nothing is reserved (exactly: rounding must not leave crumbs), except where nothing was seen."""
        return (level.totals == 0).astype(np.float64)


@dataclasses.dataclass
class AddK(Smoothing):
    """Pretend every token was seen k times more after every context: P(w | h) = (c(h w) + k) / (c(h) + k V).

    The same as mixing relative frequencies with the uniform distribution, in the proportion c(h) : k V. It uses no
    shorter context. k = 1 is Laplace's rule of succession, k = 1/2 Jeffreys' and Perks' law.

    Reference: Chen and Goodman, section 2.1 (additive smoothing).
    """

    name = "add-k"
    k: float = 1.0

    def __post_init__(self) -> None:
        """Check k."""
        if not self.k > 0:
            raise ValueError(f"k must be greater than 0; got {self.k}. For no smoothing use 'mle'.")

    def kept(self, level: Level) -> NDArray[np.float64]:
        """Only the longest contexts count; the shorter ones are skipped, down to the uniform distribution."""
        totals = np.where(level.longest, level.totals + self.k * level.vocab_size, 1.0)
        amounts = np.where(level.longest[level.contexts], level.counts, 0)
        return amounts / totals[level.contexts]


class WittenBell(Smoothing):
    """Reserve as much as the context has shown novelty: T(h) / (c(h) + T(h)), T the number of types seen after h.

    Reference: Witten and Bell 1991, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4),
    method C; Chen and Goodman, section 2.5.
    """

    name = "witten-bell"

    def kept(self, level: Level) -> NDArray[np.float64]:
        """Each n-gram keeps c(h w) / (c(h) + T(h))."""
        denominators = (level.totals + level.types)[level.contexts]
        return np.divide(level.counts, denominators, out=np.zeros(len(denominators)), where=denominators > 0)


def counts_of_counts(counts: NDArray[np.int64], highest: int) -> list[int]:
    """Return how many n-grams were seen once, twice, … up to `highest` times."""
    return [int(np.sum(counts == r)) for r in range(1, highest + 1)]


@dataclasses.dataclass
class AbsoluteDiscounting(Smoothing):
    """Take the same amount D from every count, and leave it to the shorter context.

    Args:
        discount: D, between 0 and 1; by default n₁ / (n₁ + 2 n₂) for each order, where n_r is the number of n-grams
            seen r times. Where no n-gram was seen once or twice this cannot be estimated, and 0.75 is used, about
            what Church and Gale 1991 found in English bigrams.

    Reference: Ney, Essen and Kneser 1994, "On structuring probabilistic dependences in stochastic language
    modelling", Computer Speech & Language 8(1); Chen and Goodman, section 2.6.
    """

    name = "absolute-discounting"
    discount: float | None = None

    def __post_init__(self) -> None:
        """Check the discount."""
        if self.discount is not None and not 0 <= self.discount <= 1:
            raise ValueError(
                f"discount must be between 0 and 1, or None to estimate it; got {self.discount}."
            )

    def discounts(self, level: Level) -> tuple[float, float, float]:
        """Return what to take from an n-gram seen once, twice, and three times or more."""
        if self.discount is not None:
            return (self.discount,) * 3
        once, twice = counts_of_counts(level.counts, 2)
        return (once / (once + 2 * twice) if once and twice else 0.75,) * 3

    def kept(self, level: Level) -> NDArray[np.float64]:
        """Each n-gram keeps (c(h w) - D) / c(h)."""
        table = np.array([0.0, *self.discounts(level)])
        return level.share(level.counts - table[np.minimum(level.counts, 3)])


class KneserNey(AbsoluteDiscounting):
    """Absolute discounting whose shorter contexts count in how many different places a token was seen, not how often.

    "Francisco" is frequent but follows hardly anything but "San": as a guess after a new context it should be rare.

    Reference: Kneser and Ney 1995, "Improved backing-off for m-gram language modeling", ICASSP, in the
    interpolated form of Chen and Goodman, section 2.7.
    """

    name = "kneser-ney"
    continuation = True


# What KenLM's lmplz offers as its fallback.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclasses.dataclass
class ModifiedKneserNey(KneserNey):
    """Kneser-Ney with three discounts, for counts of one, two, and three or more.

    Args:
        discount: none can be given; the three are estimated for each order from n₁ … n₄. Where one of these is zero,
            or a text is so regular that an estimate takes nothing or more than there is, 0.5, 1 and 1.5 are used.

    Reference: Chen and Goodman, section 3, equation 26.
    """

    name = "modified-kneser-ney"

    def __post_init__(self) -> None:
        """Refuse a single discount."""
        if self.discount is not None:
            raise ValueError(
                "discount must be None: modified Kneser-Ney estimates three; use 'kneser-ney' for one."
            )

    def discounts(self, level: Level) -> tuple[float, float, float]:
        """Return D₁, D₂ and D₃₊."""
        n1, n2, n3, n4 = counts_of_counts(level.counts, 4)
        if not (n1 and n2 and n3 and n4):
            return FALLBACK_DISCOUNTS
        y = n1 / (n1 + 2 * n2)
        estimates = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        usable = all(0 < estimate <= r for r, estimate in enumerate(estimates, start=1))
        return estimates if usable else FALLBACK_DISCOUNTS


@dataclasses.dataclass
class JelinekMercer(Smoothing):
    """Mix the orders with weights learned by EM on held-out text.

    P(w | h) = λ(h) c(h w) / c(h) + (1 - λ(h)) P(w | h'), where λ depends on the order and on how often h was seen,
    in buckets of powers of two: the more often, the more its relative frequencies can be trusted.

    Args:
        iterations: rounds of expectation and maximisation.
        buckets: contexts seen 2^(buckets - 1) times or more share the last bucket.

    Reference: Jelinek and Mercer 1980, "Interpolated estimation of Markov source parameters from sparse data";
    Chen and Goodman, section 2.3.
    """

    name = "jelinek-mercer"
    iterations: int = 20
    buckets: int = 12
    weights: dict[int, NDArray[np.float64]] = dataclasses.field(default_factory=dict, init=False, repr=False)
    log_likelihoods: list[float] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.iterations < 0:
            raise ValueError(f"iterations must be at least 0; got {self.iterations}.")
        if self.buckets < 1:
            raise ValueError(f"buckets must be at least 1; got {self.buckets}.")

    def prepare(self, counts: NgramCounts, held_out: list | None) -> None:
        """Learn λ for each order and bucket; `log_likelihoods` keeps the held-out nats a token of each round.

        Raises:
            ValueError: if held_out is missing or holds no token.
        """
        if held_out is None:
            raise ValueError(
                "held_out must be given: 'jelinek-mercer' learns its weights on held-out documents."
            )
        frequencies, buckets = self._held_out_frequencies(counts, held_out)
        self.weights = {n: np.full(self.buckets, 0.5) for n in range(1, counts.order + 1)}
        self.log_likelihoods = [self._em_round(counts, frequencies, buckets) for _ in range(self.iterations)]

    def _bucket(self, totals: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bucket of each context by its total; -1 for one that was never seen."""
        return np.where(totals > 0, np.minimum(np.log2(np.maximum(totals, 1)), self.buckets - 1), -1).astype(
            np.int64
        )

    def _held_out_frequencies(self, counts: NgramCounts, held_out: list) -> tuple[NDArray, NDArray]:
        """Return, for each order and held-out token, its relative frequency and its context's bucket, (n, N)."""
        stream, depth = with_starts(held_out, counts.vocab_size, "held_out")
        ids = gram_ids(stream[None, :], counts.tables)
        frequencies, buckets = [], []
        for level, gram in zip(levels(counts, continuation=False), ids, strict=True):
            if level.order == 1:
                context = np.zeros_like(stream)
            else:
                # An n-gram with a start symbol inside was never counted, so no lookup crosses documents.
                context = np.concatenate([[-1], ids[level.order - 2][0, :-1]])
            frequency = pick(level.relative_frequencies, gram[0], absent=0.0)
            bucket = pick(self._bucket(level.totals), context, absent=-1)
            frequencies.append(frequency[depth > 0])
            buckets.append(bucket[depth > 0])
        return np.array(frequencies), np.array(buckets)

    def _em_round(self, counts: NgramCounts, frequencies: NDArray, buckets: NDArray) -> float:
        """Improve the weights once; return the mean held-out log-likelihood, in nats a token, before it."""
        chosen = np.where(
            buckets >= 0, np.array([self.weights[n + 1][buckets[n]] for n in range(len(buckets))]), 0.0
        )
        # below[n]: probability from the orders up to n; an unseen context passes it on unchanged.
        below = [np.full(frequencies.shape[1], 1 / counts.vocab_size)]
        for weight, frequency in zip(chosen, frequencies, strict=True):
            below.append(weight * frequency + (1 - weight) * below[-1])
        likelihood = below[-1]
        reach = np.ones_like(likelihood)  # how much of the posterior is left to order n and those below it
        for n in range(counts.order, 0, -1):
            stops = np.where(below[n] > 0, reach * chosen[n - 1] * frequencies[n - 1] / below[n], 0.0)
            seen = buckets[n - 1] >= 0
            stopped = np.bincount(buckets[n - 1][seen], weights=stops[seen], minlength=self.buckets)
            reached = np.bincount(buckets[n - 1][seen], weights=reach[seen], minlength=self.buckets)
            self.weights[n] = np.divide(stopped, reached, out=self.weights[n].copy(), where=reached > 0)
            reach = reach - stops
        return float(np.log(likelihood).mean())

    def kept(self, level: Level) -> NDArray[np.float64]:
        """Each n-gram keeps λ(h) times its relative frequency."""
        bucket = self._bucket(level.totals)
        weights = np.where(bucket >= 0, self.weights[level.order][bucket], 0.0)
        # The uniform distribution keeps a crumb, so that a token nobody held out does not become impossible.
        return np.minimum(weights, 1 - 1e-6)[level.contexts] * level.relative_frequencies


@dataclasses.dataclass
class StupidBackoff(Smoothing):
    """Relative frequency where the n-gram was seen, else `factor` times the score of the shorter context.

    Cheap to build on any number of machines, and as good as the rest when the corpus is enormous; but the scores do not
    sum to one, so they have no perplexity.

    Reference: Brants et al. 2007, "Large language models in machine translation", EMNLP, equation 5.
    """

    name = "stupid-backoff"
    factor: float = 0.4
    normalized = False

    def __post_init__(self) -> None:
        """Check the factor."""
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be greater than 0 and at most 1; got {self.factor}.")

    @property
    def unseen_context(self) -> float:
        """An n-gram in an unseen context is unseen: it pays the factor too."""
        return self.factor

    def kept(self, level: Level) -> NDArray[np.float64]:
        """All of it: nothing is taken from what was seen."""
        return level.relative_frequencies

    def combine(self, level: Level, lower: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """Take one or the other instead of mixing."""
        seen = level.counts > 0
        return np.where(seen, self.kept(level), self.factor * lower), np.full(len(level.totals), self.factor)


SMOOTHINGS: dict[str, type[Smoothing]] = {
    kind.name: kind
    for kind in (
        MaximumLikelihood,
        AddK,
        WittenBell,
        AbsoluteDiscounting,
        JelinekMercer,
        KneserNey,
        ModifiedKneserNey,
        StupidBackoff,
    )
}


def get_smoothing(smoothing: str | Smoothing) -> Smoothing:
    """Return the smoothing of this name, with its defaults, or the object given.

    Raises:
        ValueError: if there is no smoothing of this name; the message lists those there are.
    """
    if isinstance(smoothing, Smoothing):
        return smoothing
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {', '.join(SMOOTHINGS)}; got {smoothing!r}.")
    return SMOOTHINGS[smoothing]()
