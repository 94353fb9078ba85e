"""Generation by drawing one token after another, for many prompts at once."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import Decoder, LanguageModel
from lmcourse.generation.checks import check_integer, check_prompts, check_stop
from lmcourse.generation.transforms import (
    apply_temperature,
    check_repetition_penalty,
    check_temperature,
    check_top_p,
    forbid_repeated_ngrams,
    keep_top_k,
    keep_top_p,
    normalize,
    penalize_repetition,
)


def generate(
    model: LanguageModel,
    prompts: Iterable[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    stop: Collection[int] = (),
    seed: int | None = None,
    greedy: bool = False,
) -> list[list[int]]:
    """Continue each prompt, one token at a time.

    At each step the distribution is transformed in this order: repetition penalty, no-repeat n-gram, temperature,
    top-k, top-p. Then a token is drawn from it. Scores that do not sum to one are normalised first.

    Row i depends on the seed, on i and on prompt i alone: the other prompts may be longer, stop sooner, or be
    absent after it. (A model whose own arithmetic depends on its batch can still tip a draw.)

    Args:
        model: any language model; one with a cache is fast here.
        prompts: B sequences of ids, of any lengths, zero included.
        max_new_tokens: how many tokens to add to a prompt at most.
        temperature: above 0; see `apply_temperature`.
        top_k: keep the k most probable tokens; None keeps all. See `keep_top_k`.
        top_p: keep the nucleus of this probability; None keeps all. See `keep_top_p`.
        repetition_penalty: 1 is none; see `penalize_repetition`. The prompt's tokens count as seen.
        no_repeat_ngram: the length of n-gram that may not come twice in prompt and continuation; 0 allows all.
        stop: ids that end a row. The stop token itself is not returned, so a row shorter than max_new_tokens is
            one that stopped.
        seed: of the random draws, an integer of at least 0; None takes a fresh one from the operating system.
        greedy: take the most probable token instead of drawing (of tied ones, that with the smallest id).

    Returns:
        The new tokens of each row, without the prompt.

    Raises:
        ValueError: if a setting is impossible, a prompt or stop holds an id outside 0..V-1, or nothing is left
            that could follow.

    Example:
        >>> class Counter(LanguageModel):  # after token i comes i + 1, nine times in ten
        ...     vocab_size = 4
        ...     def token_log_probs(self, ids, mask=None):
        ...         raise NotImplementedError
        ...     def next_log_probs(self, prefixes):
        ...         following = [(prefix[-1] + 1) % 4 for prefix in prefixes]
        ...         return np.log(0.9 * np.eye(4)[following] + 0.025)
        >>> generate(Counter(), [[0], [2, 3]], 3, greedy=True)
        [[1, 2, 3], [0, 1, 2]]
        >>> generate(Counter(), [[0]], 10, greedy=True, stop=[3])
        [[1, 2]]
    """
    settings = _Settings(temperature, top_k, top_p, repetition_penalty, no_repeat_ngram, greedy)
    prompts = check_prompts(prompts, model.vocab_size)
    steps = _steps(model, prompts, max_new_tokens, settings, stop, seed)
    rows: list[list[int]] = [[] for _ in prompts]
    for tokens in steps:
        for row, token in tokens.items():
            rows[row].append(token)
    return rows


def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    stop: Collection[int] = (),
    seed: int | None = None,
    greedy: bool = False,
    decoder: Decoder | None = None,
) -> Iterator[int]:
    """Continue one prompt and yield each new token as soon as it is drawn.

    The settings are those of `generate`, and so are the tokens: with the same seed, `list(stream(model, prompt,
    …))` equals `generate(model, [prompt], …)[0]`. Settings are checked at the call, before the first token.

    Generation begins with `model.decoder([prompt])`, or with a `decoder` of one row that has read the prompt in some
    way of its own, as that of a conversation, which brings its own start. It is not checked that it has.

    Yields:
        New ids, one at a time; never a stop token.

    Raises:
        ValueError: as `generate`.
    """
    settings = _Settings(temperature, top_k, top_p, repetition_penalty, no_repeat_ngram, greedy)
    prompts = check_prompts([prompt], model.vocab_size)
    steps = _steps(model, prompts, max_new_tokens, settings, stop, seed, decoder)
    return (token for tokens in steps for token in tokens.values())


def sample_from(log_probs: ArrayLike, uniforms: ArrayLike) -> NDArray[np.int64]:
    """Draw one token from each row by the inverse of its cumulative distribution.

    Args:
        log_probs: floats of shape (B, V), in nats; each row normalised.
        uniforms: floats of shape (B,), at least 0 and below 1: where to cut each row's cumulative distribution.

    Returns:
        ids of shape (B,): the first token at which the cumulative probability exceeds the uniform number. A token
        of probability zero is never drawn.

    Raises:
        ValueError: if the shapes do not fit, or a uniform number is not in [0, 1).

    Example:
        >>> log_probs = np.log([[0.5, 0.3, 0.2]] * 3)
        >>> sample_from(log_probs, [0.49, 0.5, 0.81]).tolist()
        [0, 1, 2]

    Reference: Devroye 1986, "Non-uniform random variate generation", section III.2.
    """
    log_probs, uniforms = np.asarray(log_probs, dtype=np.float64), np.asarray(uniforms, dtype=np.float64)
    if log_probs.ndim != 2 or uniforms.shape != log_probs.shape[:1]:
        raise ValueError(
            f"log_probs must be (B, V) and uniforms (B,); got {log_probs.shape} and {uniforms.shape}."
        )
    if not ((uniforms >= 0) & (uniforms < 1)).all():
        raise ValueError("uniforms must be at least 0 and below 1; numpy's Generator.random() gives such.")
    cumulative = np.exp(log_probs).cumsum(axis=-1)  # (B, V)
    # Rounding leaves the total a little off one: scaling by it keeps the last possible token within reach.
    cuts = uniforms[:, None] * cumulative[:, -1:]  # (B, 1)
    return (cumulative <= cuts).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """How a token is chosen, as `generate` documents it."""

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    no_repeat_ngram: int
    greedy: bool

    def check(self, vocab_size: int) -> None:
        """Raise ValueError where a setting is impossible for this vocabulary."""
        check_temperature(self.temperature)
        check_repetition_penalty(self.repetition_penalty)
        if self.top_k is not None:
            check_integer("top_k", self.top_k, 1, vocab_size)
        if self.top_p is not None:
            check_top_p(self.top_p)
        check_integer("no_repeat_ngram", self.no_repeat_ngram, 0)
        if self.greedy and not (self.temperature == 1 and self.top_k is None and self.top_p is None):
            raise ValueError(
                "greedy=True always takes the most probable token, which temperature, top_k and top_p do not change; "
                f"got temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}. "
                "Leave them out, or set greedy=False."
            )

    def transform(self, scores: ArrayLike, histories: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the log-probabilities that a token is drawn from, (B, V)."""
        log_probs = normalize(scores)
        if self.repetition_penalty != 1:
            log_probs = penalize_repetition(log_probs, histories, self.repetition_penalty)
        if self.no_repeat_ngram:
            log_probs = forbid_repeated_ngrams(log_probs, histories, self.no_repeat_ngram)
        if self.temperature != 1:
            log_probs = apply_temperature(log_probs, self.temperature)
        if self.top_k is not None:
            log_probs = keep_top_k(log_probs, self.top_k)
        if self.top_p is not None:
            log_probs = keep_top_p(log_probs, self.top_p)
        return log_probs

    def choose(self, log_probs: NDArray[np.float64], streams: list[np.random.Generator]) -> list[int]:
        """Return one token for each row, drawn from the row's own stream of random numbers."""
        if self.greedy:
            return log_probs.argmax(axis=-1).tolist()
        return sample_from(log_probs, [stream.random() for stream in streams]).tolist()


def _steps(
    model: LanguageModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    settings: _Settings,
    stop: Collection[int],
    seed: int | None,
    decoder: Decoder | None = None,
) -> Iterator[dict[int, int]]:
    """Check the arguments now; then yield, step by step, the new token of each row that has not stopped."""
    settings.check(model.vocab_size)
    check_integer("max_new_tokens", max_new_tokens, 0)
    if seed is not None:
        check_integer("seed", seed, 0)
    stop = check_stop(stop, model.vocab_size)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(len(prompts))]
    return _run_steps(model, prompts, max_new_tokens, settings, stop, streams, decoder)


def _run_steps(
    model: LanguageModel,
    prompts: list[list[int]],
    max_new_tokens: int,
    settings: _Settings,
    stop: frozenset[int],
    streams: list[np.random.Generator],
    decoder: Decoder | None,
) -> Iterator[dict[int, int]]:
    histories = [list(prompt) for prompt in prompts]
    rows = list(range(len(prompts)))  # those that have not stopped, in the decoder's order
    decoder = model.decoder(prompts) if decoder is None else decoder
    for step in range(max_new_tokens if rows else 0):
        log_probs = settings.transform(decoder.log_probs(), [histories[row] for row in rows])
        chosen = settings.choose(log_probs, [streams[row] for row in rows])
        kept = [place for place, token in enumerate(chosen) if token not in stop]
        tokens = {rows[place]: chosen[place] for place in kept}
        for row, token in tokens.items():
            histories[row].append(token)
        yield tokens
        if not kept or step + 1 == max_new_tokens:
            return  # nothing would read the next distribution
        if len(kept) < len(rows):
            decoder.select(kept)
        decoder.append(list(tokens.values()))
        rows = list(tokens)
