"""The Transformer of 2017: an encoder that reads the source, and a decoder that writes the target.

Letters for shapes: `B` rows, `S` source length, `T` target length, `D` width, `H` heads, `G` heads of keys and values,
`K` width of a head, `V` target vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike

from lmcourse.attention import GivenSource, TranslationGraphs, TranslationModel
from lmcourse.attention.translation_model import compiled, repeated
from lmcourse.training import as_log_probs
from lmcourse.transformer.blocks import Cache, TransformerDecoder, TransformerEncoder
from lmcourse.transformer.config import EncoderDecoderConfig
from lmcourse.transformer.embeddings import TokenEmbedding
from lmcourse.transformer.generation import CachedDecoder


class SourceMemory(NamedTuple):
    """What the decoder may look at, computed once for a source.

    Attributes:
        blocks: the keys and the values of each block's cross-attention, each (B, G, S, K).
        mask: True on source tokens, (B, S).
    """

    blocks: tuple[tuple[Any, Any], ...]
    mask: Any


class CachedGraphs(TranslationGraphs):
    """`TranslationGraphs`, and what reads on where a cache ends."""

    def __init__(self, model: "EncoderDecoder"):
        super().__init__(model)
        self.encode = compiled(
            lambda source, mask: model.encode(source, mask, training=False)[0],
            [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.bool)],
        )
        cache = model.decoder.cache_spec()
        # What is kept of the source has the same form.
        blocks = tuple(zip(cache.keys, cache.values, strict=True))
        memory = SourceMemory(blocks, tf.TensorSpec((None, None), tf.bool))
        self.read = compiled(self._read, [tf.TensorSpec((None, None), tf.int32), memory, cache])

    def _read(self, ids: tf.Tensor, memory: SourceMemory, cache: Cache) -> tuple[tf.Tensor, Cache]:
        """Return ln P of the token after each row, (B, V), all of one source, and the cache with the rows in it."""
        return as_log_probs(self._model.read(ids, repeated(memory, tf.shape(ids)[0]), cache))


@keras.saving.register_keras_serializable(package="lmcourse")
class EncoderDecoder(TranslationModel):
    """A Transformer for pairs of texts: every block of the decoder looks at what the encoder made of the source.

    A call takes a dict of "source", "source_mask" and "target" and returns logits, (B, T, V); see `TranslationModel`.
    The output's matrix is the target embedding's.

    Args:
        config: an `EncoderDecoderConfig` or a dict of its fields.

    Raises:
        ValueError: if the config's fields are no such config; in a call, if the inputs are no such dict, or a text is
            longer than max_length.

    Example:
        >>> config = EncoderDecoderConfig.preset("tiny", source_vocab=10, target_vocab=12)
        >>> model = EncoderDecoder(config)
        >>> [len(ids) <= 5 for ids in model.translate([[3, 4, 0], [5, 0]], max_length=5)]
        [True, True]
        >>> model.count_params() == config.parameter_count()
        True

    Reference: Vaswani et al. 2017, arXiv:1706.03762, figure 1.
    """

    graphs_class = CachedGraphs

    def __init__(self, config: EncoderDecoderConfig | Mapping, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config = EncoderDecoderConfig.from_dict(config)
        self.source_vocab, self.target_vocab = config.source_vocab, config.target_vocab
        self.start_id, self.end_id, self.max_length = config.start_id, config.end_id, config.max_length
        if config.shared:
            self.source_embedding = self.target_embedding = self._embedding(config.target_vocab, "embedding")
        else:
            self.source_embedding = self._embedding(config.source_vocab, "source_embedding")
            self.target_embedding = self._embedding(config.target_vocab, "target_embedding")
        self.encoder = TransformerEncoder(config, name="encoder", dtype=self.dtype_policy)
        self.decoder = TransformerDecoder(
            config, cross_attention=True, name="decoder", dtype=self.dtype_policy
        )

    def build(self, input_shape: Any = None) -> None:
        """Make all weights; they do not depend on the lengths."""
        vectors = (None, None, self.config.width)
        self.source_embedding.build()
        if not self.config.shared:
            self.target_embedding.build()
        self.encoder.build(vectors)
        self.decoder.build(vectors, vectors)
        self.built = True

    def encode(
        self, source: Any, source_mask: Any, training: bool | None = None
    ) -> tuple[SourceMemory, tuple]:
        """Read the source, and make the keys and values of all cross-attention; see `TranslationModel.encode`.

        Returns:
            The memory, and no states: a whole target needs none, and `begin` makes those of generation.
        """
        mask = ops.cast(source_mask, "bool")
        embedded = self.source_embedding(source, training=training)  # (B, S, D)
        memory = self.encoder(embedded, mask=mask, training=training)
        return SourceMemory(self.decoder.project_memory(memory), mask), ()

    def decode(
        self, target: Any, memory: SourceMemory, states: tuple = (), training: bool | None = None
    ) -> Any:
        """Return the logits, (B, T, V), of the tokens that follow those of a whole target, (B, T)."""
        embedded = self.target_embedding(target, training=training)  # (B, T, D)
        hidden = self.decoder(embedded, memory.blocks, memory_mask=memory.mask, training=training)
        return self.target_embedding.logits(hidden)

    def begin(self, memory: SourceMemory, states: tuple, steps: Any) -> Cache:
        """Return an empty cache for the tokens of the target."""
        return self.decoder.new_cache(ops.zeros(ops.shape(memory.mask)[:1], "int32"), steps)

    def step(self, ids: Any, memory: SourceMemory, states: Cache) -> tuple[Any, Cache, None]:
        """Write one token; see `TranslationModel.step`. The weights are not told."""
        logits, cache = self.read(ids[:, None], memory, states)
        return logits, cache, None

    def read(self, ids: Any, memory: SourceMemory, cache: Cache) -> tuple[Any, Cache]:
        """Read new tokens of the target after those in the cache.

        Args:
            ids: integers of shape (B, T).
            memory: from `encode`.
            cache: from `begin` or `TransformerDecoder.new_cache`, or from the reading before.

        Returns:
            The logits of the token that follows the last one, (B, V), and the cache with the new tokens in it.
        """
        positions = cache.next_positions(ops.shape(ids)[1])
        embedded = self.target_embedding(ids, positions=positions, training=False)
        hidden, cache = self.decoder.read(embedded, cache, memory.blocks, memory.mask)
        return self.target_embedding.logits(hidden[:, -1]), cache

    def look(self, target: Any, memory: SourceMemory, states: tuple = ()) -> Any:
        """Return the mean of all blocks' and heads' weights over the source, (B, T, S)."""
        embedded = self.target_embedding(target, training=False)
        looks = self.decoder.looks(embedded, memory.blocks, memory.mask)
        return ops.mean(ops.stack([ops.cast(weights, "float32") for weights in looks]), axis=(0, 2))

    def given(self, source: ArrayLike) -> "CachedGivenSource":
        """Return the language model of this source's translations; its `decoder` has a cache."""
        return CachedGivenSource(self, self._checked_sources([source])[0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict()}

    def _embedding(self, vocab_size: int, name: str) -> TokenEmbedding:
        return TokenEmbedding(
            vocab_size, self.config.max_length, self.config, name=name, dtype=self.dtype_policy
        )


class CachedGivenSource(GivenSource):
    """The distribution over the translations of one source; made by `EncoderDecoder.given`."""

    def decoder(self, prefixes: Sequence[Sequence[int]]) -> CachedDecoder:
        """Return a decoder that reads the source once and every token of the target once."""
        rows, graphs = self._started(prefixes), self.model._graphs
        memory = graphs.encode(*self._padded_source)
        return CachedDecoder(
            rows,
            lambda ids, cache: graphs.read(ids, memory, cache),
            self.model.decoder.new_cache,
            vocab_size=self.vocab_size,
            max_length=self.model.max_length,
        )
