"""Decoder-only language models: GPT, and Llama, which is the same model with other choices.

Letters for shapes: `B` rows, `T` time, `S` slots of a cache, `D` width, `H` heads, `V` vocabulary.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import document_ids
from lmcourse.training import NeuralLanguageModel
from lmcourse.transformer.blocks import Cache, TransformerDecoder, normal
from lmcourse.transformer.config import GPTConfig, LlamaConfig
from lmcourse.transformer.embeddings import TokenEmbedding
from lmcourse.transformer.generation import CachedDecoder, GenerationGraphs, begun, generate


class Trace(NamedTuple):
    """What goes on inside a model while it reads.

    Attributes:
        hidden: what enters the first block and leaves each one, (depth + 1, B, T, D).
        weights: what each block's heads attend to, (depth, B, H, T, T).
        logits: what each of `hidden` would give if the model ended there, (depth + 1, B, T, V): the logit lens.
    """

    hidden: NDArray[np.float32]
    weights: NDArray[np.float32]
    logits: NDArray[np.float32]


class DecoderLanguageModel(NeuralLanguageModel):
    """Embeddings, a stack of causal blocks, and scores for each token of the vocabulary.

    Args:
        config: a config of the class's own kind, or a dict of its fields.

    Raises:
        ValueError: if the config's fields are no such config.
    """

    config_class: ClassVar[type[GPTConfig]] = GPTConfig

    def __init__(self, config: GPTConfig | Mapping, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config = self.config_class.from_dict(config)
        self.vocab_size, self.start_id, self.max_length = (
            config.vocab_size,
            config.start_id,
            config.max_length,
        )
        self.embedding = TokenEmbedding(
            config.vocab_size, config.max_length, config, name="embedding", dtype=self.dtype_policy
        )
        self.stack = self.make_stack()
        self.output_dense = None
        if not config.tied:
            self.output_dense = keras.layers.Dense(
                config.vocab_size,
                use_bias=False,
                kernel_initializer=normal(config),
                name="output",
                dtype=self.dtype_policy,
            )

    def make_stack(self) -> TransformerDecoder:
        """Return the stack of blocks; a subclass may return another one."""
        return TransformerDecoder(self.config, name="stack", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        """Make all weights; they do not depend on the length."""
        vectors = (None, None, self.config.width)
        self.embedding.build()
        self.stack.build(vectors)
        if self.output_dense is not None:
            self.output_dense.build(vectors)
        self.built = True

    def call(self, ids: Any, training: bool | None = None) -> Any:
        """Return the logits, (B, T, V), of the token that follows each of the ids, (B, T)."""
        return self.logits(self.stack(self.embedding(ids, training=training), training=training))

    def logits(self, hidden: Any) -> Any:
        """Return the scores of all tokens, (…, V), for what leaves the stack, (…, D)."""
        if self.output_dense is not None:
            return self.output_dense(hidden)
        return self.embedding.logits(hidden)

    def read(self, ids: Any, cache: Cache) -> tuple[Any, Cache]:
        """Read new tokens after those in the cache: what generation repeats.

        Args:
            ids: integers of shape (B, T).
            cache: from `new_cache`, or from the reading before.

        Returns:
            The logits of the token that follows the last one, (B, V), and the cache with the new tokens in it.
        """
        embedded = self.embedding(ids, positions=cache.next_positions(ids.shape[1] or tf.shape(ids)[1]))
        hidden, cache = self.stack.read(embedded, cache)
        return self.logits(hidden[:, -1]), cache

    def decoder(self, prefixes: Sequence[Sequence[int]], *, with_start: bool = True) -> CachedDecoder:
        """Return a decoder that keeps keys and values: a new token costs one step.

        Args:
            prefixes: B sequences of ids; their lengths may differ, and be zero where `start_id` is read.
            with_start: whether `start_id` is read before each prefix; a text in a chat's form brings its own.

        Raises:
            ValueError: if a prefix holds an id outside 0..V-1, is longer than the model can read, or leaves nothing to
                read.
        """
        rows = document_ids(prefixes, self.vocab_size, "prefixes")
        return CachedDecoder(
            begun(self, rows, with_start, "prefixes"),
            GenerationGraphs.of(self).follow,
            self.new_cache,
            vocab_size=self.vocab_size,
            max_length=self.max_length,
        )

    def generate(
        self,
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
        """Continue each prompt, all in one graph that reads the prompts and draws token after token.

        It is `lmcourse.generation.generate` without a step through Python for each token. Row i depends on the seed, on
        i and on prompt i alone (other rows can only tip a draw by rounding). The draws are others than there.

        Args:
            prompts: B sequences of ids, of any lengths, zero included.
            max_new_tokens: how many tokens to add to a prompt at most.
            temperature: see `lmcourse.generation.apply_temperature`; 0 takes the most probable token.
            top_k: keep the k most probable tokens; None keeps all.
            top_p: keep the nucleus of this probability; None keeps all.
            stop_ids: ids that end a row.
            seed: of the draws, from 0 to 2^31 - 1.
            with_start: whether `start_id` is read before each prompt; a prompt in a chat's form brings its own.

        Returns:
            The new tokens of each row, without the prompt; a stop token, if one came, is the last.

        Raises:
            ValueError: if a setting is impossible, a prompt or stop_ids holds an id outside 0..V-1, a prompt and
                its new tokens are longer than `max_length`, or there is nothing to read.

        Example:
            >>> model = GPT(GPTConfig.preset("tiny", vocab_size=10))
            >>> [len(row) for row in model.generate([[1, 2], []], max_new_tokens=3)]
            [3, 3]
        """
        return generate(
            self,
            prompts,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_ids=stop_ids,
            seed=seed,
            with_start=with_start,
        )

    def new_cache(self, starts: Any, slots: Any) -> Cache:
        """Return an empty cache; see `TransformerDecoder.new_cache`."""
        return self.stack.new_cache(starts, slots)

    def attention_weights(self, ids: Any) -> Any:
        """Return where all heads look while the model reads ids, (B, T), layer after layer: (B, depth · H, T, T).

        `lmcourse.attention.head_weights` and `copying_heads` ask for it.
        """
        if not self.built:
            self.build()
        _, weights = self.stack.trace(self.embedding(ids))
        return ops.concatenate(weights, axis=1)

    def trace(self, ids: ArrayLike) -> Trace:
        """Return what goes on inside while the model reads ids, (B, T), for a look at it.

        Raises:
            ValueError: if ids are not what the model can read.
        """
        self._check_call(ids)
        if not self.built:
            self.build()
        hidden, weights = self.stack.trace(self.embedding(tf.constant(ids, tf.int32)))
        lens = [self.logits(self.stack.finish(x)) for x in hidden]
        return Trace(
            *(np.stack([np.asarray(x, np.float32) for x in part]) for part in (hidden, weights, lens))
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(package="lmcourse")
class GPT(DecoderLanguageModel):
    """The decoder-only Transformer, by default with GPT-2's choices.

    Args:
        config: a `GPTConfig` or a dict of its fields.

    Example:
        >>> model = GPT(GPTConfig.preset("tiny", vocab_size=10))
        >>> model(np.array([[1, 2, 3]])).shape
        TensorShape([1, 3, 10])
        >>> model.count_params() == model.config.parameter_count()
        True

    Reference: Radford et al. 2018, "Improving language understanding by generative pre-training"; Radford et al. 2019,
    "Language models are unsupervised multitask learners", section 2.3.
    """


@keras.saving.register_keras_serializable(package="lmcourse")
class Llama(DecoderLanguageModel):
    """The decoder-only Transformer with Llama's choices: RMS norms, rotary positions, SwiGLU, grouped-query attention.

    Args:
        config: a `LlamaConfig` or a dict of its fields.

    Example:
        >>> model = Llama(LlamaConfig.preset("tiny", vocab_size=10))
        >>> model(np.array([[1, 2, 3]])).shape
        TensorShape([1, 3, 10])

    Reference: Touvron et al. 2023, "LLaMA", arXiv:2302.13971, section 2.2.
    """

    config_class = LlamaConfig
