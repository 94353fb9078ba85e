"""Beam search: look for the most probable continuation instead of drawing one."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from lmcourse.core import LanguageModel
from lmcourse.generation.checks import check_integer, check_prompts, check_stop, is_number
from lmcourse.generation.transforms import normalize


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A continuation that a beam search found.

    Attributes:
        ids: the new tokens, without the prompt and without the stop token.
        log_prob: ln P(continuation | prompt) in nats; a stop token's share is included.
        finished: whether a stop token ended it, rather than the limit of tokens.
        score: what hypotheses are ranked by: log_prob divided by `length_normalizer`.
    """

    ids: tuple[int, ...]
    log_prob: float
    finished: bool
    score: float


def beam_search(
    model: LanguageModel,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    beams: int = 4,
    length_penalty: float = 0.6,
    stop: Collection[int] = (),
) -> list[Hypothesis]:
    """Return the best continuations that keeping a few hypotheses at a time can find.

    At each step every open hypothesis is extended by every token and the most probable extensions are kept. One
    that ends with a stop token is finished and keeps its place, so the beam narrows as hypotheses finish. The
    search ends when none is open or max_new_tokens is reached.

    With one beam this is greedy decoding. With at least V ** max_new_tokens beams nothing is ever dropped, and the
    search is exact. Scores that do not sum to one are normalised at each step.

    Args:
        model: any language model; one with a cache is fast here.
        prompt: ids, possibly none.
        max_new_tokens: how many tokens to add at most, a stop token included.
        beams: how many hypotheses to keep; 4 as in Vaswani et al. 2017, section 6.1.
        length_penalty: the exponent of `length_normalizer`. 0 ranks by probability, which favours short
            continuations; 0.6 as in Vaswani et al. 2017.
        stop: ids that finish a hypothesis.

    Returns:
        At most `beams` hypotheses, the highest score first; of equal scores, the one found first.

    Raises:
        ValueError: if a setting is impossible, or prompt or stop holds an id outside 0..V-1.

    Example:
        A garden path: the likelier first token, 0, has no likely second one.

        >>> class GardenPath(LanguageModel):
        ...     vocab_size = 2
        ...     def token_log_probs(self, ids, mask=None):
        ...         raise NotImplementedError
        ...     def next_log_probs(self, prefixes):
        ...         table = {(): [0.6, 0.4], (0,): [0.5, 0.5], (1,): [0.1, 0.9]}
        ...         return np.log([table[tuple(prefix)] for prefix in prefixes])
        >>> def found(beams):
        ...     hypotheses = beam_search(GardenPath(), [], 2, beams=beams)
        ...     return [(h.ids, round(float(np.exp(h.log_prob)), 2)) for h in hypotheses]
        >>> found(beams=1)
        [((0, 0), 0.3)]
        >>> found(beams=2)
        [((1, 1), 0.36), ((0, 0), 0.3)]

    Reference: Sutskever, Vinyals and Le 2014, arXiv:1409.3215, section 3.2; Wu et al. 2016, arXiv:1609.08144,
    section 7.
    """
    [prompt] = check_prompts([prompt], model.vocab_size)
    _check_settings(max_new_tokens, beams, length_penalty)
    stop = check_stop(stop, model.vocab_size)
    finished: list[Hypothesis] = []
    beam = [Hypothesis((), 0.0, finished=False, score=0.0)]
    decoder = model.decoder([prompt])
    for step in range(max_new_tokens):
        so_far = np.array([hypothesis.log_prob for hypothesis in beam])  # (n,)
        totals = so_far[:, None] + normalize(decoder.log_probs())  # (n, V)
        parents, tokens = _best_extensions(totals, beams - len(finished))
        extended = [
            _extend(beam[parent], token, totals[parent, token], token in stop, length_penalty)
            for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
        ]
        still_open = [place for place, hypothesis in enumerate(extended) if not hypothesis.finished]
        finished += [hypothesis for hypothesis in extended if hypothesis.finished]
        beam = [extended[place] for place in still_open]
        if not beam or step + 1 == max_new_tokens:
            break
        decoder.select(parents[still_open].tolist())
        decoder.append(tokens[still_open].tolist())
    return sorted(finished + beam, key=lambda hypothesis: -hypothesis.score)


def length_normalizer(length: int, length_penalty: float) -> float:
    """Return what a log-probability is divided by, so that long and short texts can compete.

    Every further token lowers the log-probability; a longer text therefore loses to its own beginning unless its
    length is taken into account. With length_penalty 0 this is 1, and a larger value favours longer texts.

    Args:
        length: tokens that the log-probability covers, a stop token included.
        length_penalty: the exponent α, 0 or more; the paper finds 0.6 to 0.7 best for translation.

    Returns:
        (5 + length)^α / (5 + 1)^α.

    Example:
        >>> length_normalizer(1, 0.6), round(length_normalizer(19, 0.5), 6)  # 24 / 6 = 4, whose root is 2
        (1.0, 2.0)

    Reference: Wu et al. 2016, "Google's neural machine translation system", arXiv:1609.08144, equation 14.
    """
    return ((5 + length) / (5 + 1)) ** length_penalty


def _extend(parent: Hypothesis, token: int, log_prob: float, ends: bool, length_penalty: float) -> Hypothesis:
    """Return the hypothesis one token longer, ranked by its length with the stop token counted."""
    score = log_prob / length_normalizer(len(parent.ids) + 1, length_penalty)
    ids = parent.ids if ends else (*parent.ids, token)
    return Hypothesis(ids, float(log_prob), ends, float(score))


def _best_extensions(totals: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return parents and tokens of the `count` highest possible totals (n, V), best first, ties in order."""
    flat = totals.ravel()
    count = min(count, len(flat))
    edge = np.partition(flat, len(flat) - count)[len(flat) - count]
    candidates = np.flatnonzero((flat >= edge) & ~np.isneginf(flat))
    best = candidates[np.argsort(-flat[candidates], kind="stable")[:count]]
    return np.divmod(best, totals.shape[1])


def _check_settings(max_new_tokens: int, beams: int, length_penalty: float) -> None:
    check_integer("max_new_tokens", max_new_tokens, 0)
    check_integer("beams", beams, 1)
    if not (is_number(length_penalty) and 0 <= length_penalty < np.inf):
        raise ValueError(
            f"length_penalty must be a finite number, 0 or more; got {length_penalty!r}. 0 ranks by probability."
        )
