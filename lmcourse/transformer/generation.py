"""Generation with a cache: what was read once is never read again.

A prompt is read at once (the pre-fill), then each new token alone. Both are the same graph, `read`, traced once for any
number of rows of any length; the whole loop is one graph, too, so that no token waits for Python.

Prompts of different lengths are padded on the left: their last tokens stand side by side, and go on in the same slot.

Letters for shapes: `B` rows, `T` time, `N` new tokens, `S` slots of a cache, `V` vocabulary.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import Decoder, document_ids
from lmcourse.generation.checks import check_integer, check_prompts, check_stop, is_number
from lmcourse.generation.transforms import check_top_p
from lmcourse.training import ModelGraphs, as_log_probs
from lmcourse.training.language_model import padded_length
from lmcourse.transformer.blocks import Cache

if TYPE_CHECKING:
    from lmcourse.transformer.gpt import DecoderLanguageModel

# A sum of probabilities that equals p on paper may miss it by rounding; so near to p it counts as p.
ROUNDING = 1e-12


def generate(
    model: "DecoderLanguageModel",
    prompts: Iterable[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: Collection[int] = (),
    seed: int = 0,
    with_start: bool = True,
) -> list[list[int]]:
    """Continue all prompts in one graph; see `DecoderLanguageModel.generate`."""
    rows = check_prompts(prompts, model.vocab_size)
    _check_settings(model, max_new_tokens, temperature, top_k, top_p, seed)
    stop = sorted(check_stop(stop_ids, model.vocab_size))
    rows = begun(model, rows, with_start, "prompts")
    if not rows or not max_new_tokens:
        return [[] for _ in rows]
    _check_room(model, max(map(len, rows)), max_new_tokens)
    ids, starts = left_padded(rows, model.max_length)
    tokens, lengths = GenerationGraphs.of(model).generate(
        ids,
        starts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=0 if top_k is None else top_k,
        top_p=1.0 if top_p is None else top_p,
        stop_ids=np.array(stop, np.int32),
        seed=seed,
    )
    return [row[:length].tolist() for row, length in zip(tokens.numpy(), lengths.numpy(), strict=True)]


class CachedDecoder(Decoder):
    """Generation that keeps the keys and values of each row, so that a new token costs one step.

    Args:
        rows: B sequences of ids, none of them empty: all that is read before the first new token.
        read: what reads ids, int32 (B, T), after those in a cache: it returns ln P of the token after the last one,
            (B, V), in nats, and the cache with them in it.
        new_cache: what makes an empty cache; see `TransformerDecoder.new_cache`.
        vocab_size: V.
        max_length: the most tokens that a row may have.

    Raises:
        ValueError: if a row is longer than max_length.
    """

    def __init__(
        self,
        rows: Sequence[ArrayLike],
        read: Callable[[NDArray[np.int32], Cache], tuple[tf.Tensor, Cache]],
        new_cache: Callable[[NDArray[np.int32], int], Cache],
        *,
        vocab_size: int,
        max_length: int,
    ):
        self._read, self._vocab_size, self._max_length = read, vocab_size, max_length
        self._lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self._check_length()
        self._log_probs, self._cache = tf.zeros((0, vocab_size)), None
        if len(rows):
            ids, starts = left_padded(rows, max_length)
            self._used = ids.shape[1]
            # The longest row may grow to max_length, from where it stands now.
            self._most_slots = self._used + max_length - int(self._lengths.max())
            self._slots = min(padded_length(2 * self._used), self._most_slots)
            self._log_probs, self._cache = read(ids, new_cache(starts, self._slots))

    def log_probs(self) -> NDArray[np.float64]:
        """Return ln P(next token) for each row, (B, V), in nats."""
        return self._log_probs.numpy().astype(np.float64)

    def append(self, ids: Sequence[int]) -> None:
        """Extend each row by one token.

        Raises:
            ValueError: if ids is not one id for each row, or a row has no room for another token.
        """
        (ids,) = document_ids([ids], self._vocab_size, "the rows' tokens: ids")
        if len(ids) != len(self._lengths):
            raise ValueError(
                f"ids must have one entry for each of the {len(self._lengths)} rows; got {len(ids)}."
            )
        if not len(ids):
            return
        self._check_length(new=1)
        if self._used == self._slots:
            # Twice as many, so that copying what is there costs no more than having read it.
            self._slots = min(2 * self._slots, self._most_slots)
            self._cache = self._cache.grown(self._slots)
        self._log_probs, self._cache = self._read(ids.astype(np.int32)[:, None], self._cache)
        self._lengths, self._used = self._lengths + 1, self._used + 1

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        rows = np.arange(len(self._lengths))[np.asarray(rows, dtype=np.int64)]
        self._lengths, self._log_probs = self._lengths[rows], tf.gather(self._log_probs, rows)
        if len(rows):
            # Only a row that stays can grow.
            self._most_slots = self._used + self._max_length - int(self._lengths.max())
            self._cache = self._cache.select(rows)

    def _check_length(self, new: int = 0) -> None:
        longest = int(self._lengths.max(initial=0)) + new
        if longest > self._max_length:
            raise ValueError(
                f"prefixes must have, with start_id, at most max_length = {self._max_length} tokens; got {longest}. "
                "Give shorter prompts, or generate fewer tokens."
            )


class TextGenerator(tf.Module):
    """A model's generation as one graph that can be saved: `tf.saved_model.save(TextGenerator(model), path)`.

    Attributes:
        generate: a `tf.function` of int32 ids (B, T), padded on the left, and for each row where its first token
            stands, int32 (B,); and of the settings by name, scalars but for `stop_ids` (any number of them):
            max_new_tokens, temperature (0 takes the most probable token), top_k (0 for all), top_p (1 for all),
            stop_ids, seed. It returns the new tokens, int32 (B, N), and how many of each row count, (B,): a stop token
            is the last that counts. Nothing in it depends on a length; what the model can read at most is for the
            caller to check.

    Example:
        >>> from lmcourse.transformer import GPT, GPTConfig
        >>> generator = TextGenerator(GPT(GPTConfig.preset("tiny", vocab_size=10)))
        >>> tokens, lengths = generator.generate(
        ...     tf.constant([[0, 1, 2], [0, 0, 3]]), tf.constant([0, 1]), max_new_tokens=5, temperature=0.0,
        ...     top_k=0, top_p=1.0, stop_ids=tf.zeros(0, tf.int32), seed=0)
        >>> tokens.shape, lengths.numpy().tolist()
        (TensorShape([2, 5]), [5, 5])
    """

    def __init__(self, model: "DecoderLanguageModel", read: Any = None):
        super().__init__(name="text_generator")
        if not model.built:
            model.build()
        # What is saved with a graph is what the module holds.
        self._weights = [variable.value for variable in model.variables]
        self._model, self._read = _Untracked(model), _Untracked(reading(model) if read is None else read)
        integer, ids = tf.TensorSpec((), tf.int32), tf.TensorSpec((None,), tf.int32)
        real = tf.TensorSpec((), tf.float64)
        self.generate = tf.function(
            self._generate,
            input_signature=[
                tf.TensorSpec((None, None), tf.int32, "ids"),
                tf.TensorSpec((None,), tf.int32, "starts"),
                integer,
                real,
                integer,
                real,
                ids,
                integer,
            ],
            autograph=False,
        )

    def _generate(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        max_new_tokens: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        stop_ids: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        rows, width = tf.unstack(tf.shape(ids))

        def choose(step: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            uniforms = tf.random.stateless_uniform((rows,), tf.stack([seed, step]), dtype=tf.float64)
            return choose_tokens(logits, uniforms, temperature, top_k, top_p)

        def stops(tokens: tf.Tensor) -> tf.Tensor:
            return tf.reduce_any(tokens[:, None] == stop_ids, axis=1)  # (B,)

        def unfinished(step: tf.Tensor, tokens: tf.Tensor, done: tf.Tensor, *_: Any) -> tf.Tensor:
            return (step < max_new_tokens) & ~tf.reduce_all(done)

        def extend(step: tf.Tensor, tokens: tf.Tensor, done: tf.Tensor, lengths: tf.Tensor, cache: Cache):
            logits, cache = self._read.it(tokens[step - 1][:, None], cache)
            chosen = choose(step, logits)
            tokens = tf.tensor_scatter_nd_update(tokens, [[step]], chosen[None])
            lengths += tf.cast(~done, tf.int32)
            return step + 1, tokens, done | stops(chosen), lengths, cache

        cache = self._model.it.new_cache(starts, width + max_new_tokens)
        logits, cache = self._read.it(ids, cache)
        first = choose(tf.constant(0), logits)  # (B,)
        tokens = tf.pad(first[None], [[0, tf.maximum(max_new_tokens, 1) - 1], [0, 0]])  # (N, B)
        begun = (tf.constant(1), tokens, stops(first), tf.ones_like(first), cache)
        steps, tokens, _, lengths, _ = tf.while_loop(unfinished, extend, begun)
        count = tf.minimum(steps, max_new_tokens)
        return tf.transpose(tokens[:count]), tf.minimum(lengths, count)


class GenerationGraphs(ModelGraphs):
    """A model's compiled functions for generation, which share one trace of `read`.

    Attributes:
        read: `DecoderLanguageModel.read`.
        follow: of ids (B, T) and a cache: ln P of the token after the last one, (B, V), and the cache with them in it.
        generate: that of `TextGenerator`.
    """

    def __init__(self, model: "DecoderLanguageModel"):
        super().__init__(model)
        self.read = reading(model)
        self.follow = tf.function(
            lambda ids, cache: as_log_probs(self.read(ids, cache)),
            input_signature=[tf.TensorSpec((None, None), tf.int32), model.stack.cache_spec()],
            autograph=False,
        )
        self.generate = TextGenerator(model, self.read).generate


def choose_tokens(
    logits: tf.Tensor, uniforms: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor
) -> tf.Tensor:
    """Return a token for each row: the most probable one if temperature is 0, else one that is drawn.

    Args:
        logits: (B, V).
        uniforms: float64 (B,), at least 0 and below 1: where to cut each row's cumulative distribution.
        temperature: 0 or more.
        top_k: how many tokens may be drawn, 0 for all.
        top_p: the probability that those which may be drawn must reach, 1 for all.

    Returns:
        int32 (B,): the first token at which the cumulative probability exceeds the uniform number.
    """

    def most_probable() -> tf.Tensor:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)

    def drawn() -> tf.Tensor:
        probs = tf.exp(restricted_log_probs(logits, temperature, top_k, top_p))  # (B, V)
        cumulative = tf.cumsum(probs, axis=-1)
        cuts = uniforms[:, None] * cumulative[:, -1:]
        return tf.reduce_sum(tf.cast(cumulative <= cuts, tf.int32), axis=-1)

    return tf.cond(temperature == 0, most_probable, drawn)


def restricted_log_probs(logits: Any, temperature: Any, top_k: Any, top_p: Any) -> tf.Tensor:
    """Return what a token is drawn from: `apply_temperature`, `keep_top_k` and `keep_top_p` in a graph.

    Args:
        logits: (B, V).
        temperature: above 0.
        top_k: how many tokens to keep, 0 for all.
        top_p: the probability that the kept ones must reach, 1 for all.

    Returns:
        float64 (B, V), in nats; `-inf` for what may not be drawn. Of equally probable tokens those with the smallest
        ids are kept.

    Example:
        >>> log_probs = restricted_log_probs(np.log([[0.5, 0.3, 0.2]]), 1.0, 0, 0.7)
        >>> np.exp(log_probs.numpy()).round(6).tolist()  # 0.5 falls short of 0.7, 0.8 reaches it
        [[0.625, 0.375, 0.0]]
    """
    top_p, temperature = _in_float64(top_p), _in_float64(temperature)
    top_k = tf.convert_to_tensor(top_k)
    log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float64) / temperature)
    rows, vocabulary = tf.unstack(tf.shape(log_probs))

    def kept() -> tf.Tensor:
        count = tf.where(top_k == 0, vocabulary, top_k)
        best, ids = tf.math.top_k(log_probs, count)  # of equal ones, that with the smaller id first
        probs = tf.nn.softmax(best)
        before = tf.cumsum(probs, axis=-1, exclusive=True)
        in_nucleus = (before < top_p - ROUNDING) | (top_p >= 1)
        in_nucleus |= tf.range(count) == 0
        best = tf.nn.log_softmax(tf.where(in_nucleus, best, -np.inf))
        places = tf.stack([tf.broadcast_to(tf.range(rows)[:, None], tf.shape(ids)), ids], axis=-1)
        nothing = tf.fill(tf.shape(log_probs), tf.cast(-np.inf, tf.float64))
        return tf.tensor_scatter_nd_update(nothing, places, best)

    return tf.cond((top_k > 0) | (top_p < 1), kept, lambda: log_probs)


def _in_float64(number: Any) -> tf.Tensor:
    """Return a number in float64: by way of float32 0.6 would be a little more than three fifths."""
    return tf.cast(number, tf.float64) if tf.is_tensor(number) else tf.constant(number, tf.float64)


def reading(model: "DecoderLanguageModel") -> Any:
    """Return `model.read` as a graph: traced once, for any number of rows, tokens and slots."""
    return tf.function(
        lambda ids, cache: model.read(ids, cache),
        input_signature=[tf.TensorSpec((None, None), tf.int32), model.stack.cache_spec()],
        autograph=False,  # there is nothing to convert, and looking for it would take longer than tracing
    )


def left_padded(
    rows: Sequence[ArrayLike], limit: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lay rows side by side so that they end together.

    Args:
        rows: B sequences of ids, none of them empty.
        limit: the most tokens of a row.

    Returns:
        ids (B, T), padded with zeros to one of a few lengths (see `padded_length`), and where each row's first token
        stands, (B,).

    Example:
        >>> ids, starts = left_padded([[5, 6, 7], [8]], limit=4)
        >>> ids.tolist(), starts.tolist()
        ([[0, 5, 6, 7], [0, 0, 0, 8]], [1, 3])
    """
    width = padded_length(max(map(len, rows)), limit)
    starts = np.array([width - len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), width), np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[width - len(row) :] = row
    return ids, starts


def begun(
    model: "DecoderLanguageModel", rows: Sequence[ArrayLike], with_start: bool, name: str
) -> list[list[int]]:
    """Return all that the model reads of rows of ids: `start_id` before each, or the rows alone.

    Raises:
        ValueError: if there is nothing to read in a row.
    """
    if with_start:
        return [[model.start_id, *row] for row in rows]
    for index, row in enumerate(rows):
        if not len(row):
            raise ValueError(
                f"{name}[{index}] must hold at least one id where with_start is False; got none. "
                "There would be nothing to read."
            )
    return [list(row) for row in rows]


class _Untracked:
    """Holds what a `tf.Module` is not to save."""

    def __init__(self, it: Any):
        self.it = it


def _check_room(model: "DecoderLanguageModel", longest: int, max_new_tokens: int) -> None:
    """Raise unless the model can read the longest row and all new tokens but the last, which nothing follows."""
    if longest + max_new_tokens - 1 > model.max_length:
        raise ValueError(
            f"prompts and max_new_tokens must fit in the model's max_length = {model.max_length} tokens; got "
            f"{longest} tokens in the longest prompt (start_id included where it is read) and max_new_tokens = "
            f"{max_new_tokens}. At most {max(0, model.max_length - longest + 1)} could follow this prompt."
        )


def _check_settings(
    model: "DecoderLanguageModel",
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
) -> None:
    check_integer("max_new_tokens", max_new_tokens, 0)
    check_integer("seed", seed, 0, 2**31 - 1)
    if not (is_number(temperature) and 0 <= temperature < np.inf):
        raise ValueError(
            f"temperature must be a finite number, 0 (the most probable token) or more; got {temperature!r}."
        )
    if top_k is not None:
        check_integer("top_k", top_k, 1, model.vocab_size)
    if top_p is not None:
        check_top_p(top_p)
