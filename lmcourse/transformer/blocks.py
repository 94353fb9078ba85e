"""Blocks, and stacks of them: everything between a model's embeddings and its output.

Letters for shapes: `B` rows, `T` time, `S` source length or slots of a cache, `D` width, `H` heads, `G` heads of keys
and values, `K` width of a head.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from lmcourse.attention import MultiHeadAttention, causal_mask
from lmcourse.transformer.config import StackConfig
from lmcourse.transformer.feed_forward import FeedForward
from lmcourse.transformer.norms import make_norm
from lmcourse.transformer.positions import alibi_bias, rotary_angles
from lmcourse.transformer.self_attention import SelfAttention, mask_of_pairs

# Keras would round what is handed to a layer of half precision: bfloat16 has eight bits, and what ALiBi adds for a
# distance of 257 would be that for 256. Each matrix rounds its own inputs.
KEEP_PRECISION = {"autocast": False}


class Cache(NamedTuple):
    """What a decoder remembers of the tokens it has read, so that it never reads one twice.

    Rows are padded on the left: their last tokens stand side by side, and all go on in the same slot.

    Attributes:
        keys: of each block, (B, G, S, K); S slots, of which the first `length` are filled.
        values: of each block, (B, G, S, K).
        starts: the slot of each row's first token, (B,): what stands before it is padding.
        length: the slot of the next token, ().
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    starts: Any
    length: Any

    @property
    def slots(self) -> Any:
        """S, how many tokens there is room for."""
        return ops.shape(self.keys[0])[2]

    def next_positions(self, time: Any) -> Any:
        """Return where in their rows the next tokens stand, (B, T); 0 for padding."""
        return ops.maximum(self.length + ops.arange(time) - self.starts[:, None], 0)

    def grown(self, slots: int) -> "Cache":
        """Return the cache with this many slots; the new ones are empty."""
        more = ((0, 0), (0, 0), (0, slots - self.slots), (0, 0))
        keys, values = (tuple(ops.pad(part, more) for part in parts) for parts in (self.keys, self.values))
        return self._replace(keys=keys, values=values)

    def select(self, rows: Any) -> "Cache":
        """Return the cache of these rows, in this order; a row may be left out or repeated."""
        keys, values = (
            tuple(ops.take(part, rows, axis=0) for part in parts) for parts in (self.keys, self.values)
        )
        return self._replace(keys=keys, values=values, starts=ops.take(self.starts, rows, axis=0))


class Places(NamedTuple):
    """What the positions of queries and keys add to attention; a block hands it on without looking.

    Attributes:
        rotation: cosines and sines for rotary positions, or None.
        bias: what is added to the scores for ALiBi, broadcastable to (B, H, T, S), or None.
    """

    rotation: tuple[Any, Any] | None = None
    bias: Any | None = None


@keras.saving.register_keras_serializable(package="lmcourse")
class TransformerBlock(keras.layers.Layer):
    """Attention to the row itself, attention to another row if asked for, and a feed-forward network.

    Around each of them there is a path that goes past it, and a norm: before it, `x + f(norm(x))`, or after the sum,
    `norm(x + f(x))`.

    Args:
        config: a `StackConfig` or a dict of its fields.
        cross_attention: whether there is attention to a memory: the encoder's output.

    Example:
        >>> config = StackConfig(width=8, depth=1, num_heads=2)
        >>> block = TransformerBlock(config)
        >>> block(ops.ones((1, 3, 8)), mask=causal_mask(3)).shape
        TensorShape([1, 3, 8])
        >>> block.count_params() == sum(config.block_parameters().values())
        True

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.1 (post-norm); Xiong et al. 2020, "On layer
    normalization in the Transformer architecture", arXiv:2002.04745 (pre-norm).
    """

    def __init__(self, config: StackConfig | Mapping, cross_attention: bool = False, **kwargs: Any):
        super().__init__(**KEEP_PRECISION, **kwargs)
        self.config = config = as_stack(config)
        self.supports_masking = True
        self.attention_norm, self.attention = self._norm("attention_norm"), self._self_attention()
        self.cross_attention = self._cross_attention() if cross_attention else None
        self.cross_attention_norm = self._norm("cross_attention_norm") if cross_attention else None
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.feed_forward = FeedForward(
            config.ffn_width,
            config.activation,
            config.use_bias,
            kernel_initializer=normal(config),
            output_initializer=residual_normal(config),
            name="feed_forward",
            dtype=self.dtype_policy,
        )
        self.drop = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)

    def build(self, x_shape: tuple, memory_shape: tuple | None = None) -> None:
        """Make all weights."""
        for layer in (self.attention_norm, self.attention, self.feed_forward_norm, self.feed_forward):
            layer.build(x_shape)
        if self.cross_attention is not None:
            self.cross_attention_norm.build(x_shape)
            self.cross_attention.build(x_shape, x_shape if memory_shape is None else memory_shape)
        self.built = True

    def call(
        self,
        x: Any,
        memory: Any | None = None,
        mask: Any | None = None,
        memory_mask: Any | None = None,
        places: Places = Places(),  # noqa: B008 - a tuple never changes
        return_weights: bool = False,
        training: bool | None = None,
    ) -> Any:
        """Read each position in the light of the others.

        Args:
            x: float tensor of shape (B, T, D).
            memory: float tensor of shape (B, S, D), for cross-attention, or what `project_memory` made of it.
            mask: bool tensor broadcastable to (B, H, T, T); True where attending is allowed. By default the mask of
                padding that x carries, if there is one.
            memory_mask: bool tensor of shape (B, S), False on the memory's padding.
            places: what the positions add to attention.
            return_weights: whether to return the weights of the attention, too.
            training: whether to drop.

        Returns:
            (B, T, D), and with `return_weights` also the weights, (B, H, T, T), and those of the cross-attention,
            (B, H, T, S), if there is one.

        Raises:
            ValueError: if x is not (B, T, D), or there is cross-attention and no memory.
        """
        check_rows(x, self.config.width)
        mask = mask_of_pairs(mask, x)
        entered = ops.cast(x, self.compute_dtype)
        seen = []

        def attend(y: Any) -> Any:
            y, weights = self.attention(
                y,
                mask=mask,  # by name, as Keras hands one on where it is None
                rotation=places.rotation,
                bias=places.bias,
                return_weights=True,
                training=training,
            )
            seen.append(weights)
            return y

        x = self.connect(entered, self.attention_norm, attend, training)
        x = self._after_attention(x, memory, memory_mask, training, seen)
        x = self.leave(entered, x)
        return (x, *seen) if return_weights else x

    def read(
        self,
        x: Any,
        keys: Any,
        values: Any,
        index: Any,
        mask: Any,
        places: Places = Places(),  # noqa: B008
        memory: Any | None = None,
        memory_mask: Any | None = None,
    ) -> tuple[Any, Any, Any]:
        """Read new tokens with a cache of the ones before; see `SelfAttention.read`."""
        kept = []

        def attend(y: Any) -> Any:
            y, *after = self.attention.read(y, keys, values, index, mask, *places)
            kept.extend(after)
            return y

        after = self.connect(x, self.attention_norm, attend, training=False)
        after = self._after_attention(after, memory, memory_mask, training=False)
        return self.leave(x, after), *kept

    def project_memory(self, memory: Any) -> tuple[Any, Any]:
        """Return the cross-attention's keys and values, each (B, G, S, K), of a memory, (B, S, D)."""
        return self.cross_attention.project_keys_and_values(memory, memory)

    def connect(
        self, x: Any, norm: keras.layers.Layer, sublayer: Callable[[Any], Any], training: bool | None
    ) -> Any:
        """Return x with what the sublayer has to add: the one place where residual paths and norms are wired."""
        if self.config.norm_first:
            return x + self.drop(sublayer(norm(x)), training=training)
        return norm(x + self.drop(sublayer(x), training=training))

    def leave(self, entered: Any, x: Any) -> Any:
        """Return what leaves the block, of what entered it and what its sublayers made of that; a subclass may add."""
        return x

    def compute_mask(self, x: Any, previous_mask: Any | None = None) -> Any | None:
        """Return the mask that the result carries: that of x, of positions, not the call's, which is of pairs."""
        return getattr(x, "_keras_mask", None)

    def compute_output_shape(self, x_shape: tuple, memory_shape: tuple | None = None) -> tuple:
        """Return (B, T, D)."""
        return x_shape

    def compute_output_spec(
        self, x: Any, memory: Any | None = None, *args: Any, return_weights: bool = False, **kwargs: Any
    ) -> Any:
        """Return the shape and dtype of what a call gives."""
        read = keras.KerasTensor(x.shape, self.compute_dtype)
        if not return_weights:
            return read
        lengths = [x.shape[1]]
        if self.cross_attention is not None:
            lengths.append(memory[0].shape[2] if isinstance(memory, tuple) else memory.shape[1])
        shapes = [(x.shape[0], self.config.num_heads, x.shape[1], length) for length in lengths]
        return read, *(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "cross_attention": self.cross_attention is not None,
        }

    def _after_attention(
        self, x: Any, memory: Any, memory_mask: Any, training: bool | None, seen: list | None = None
    ) -> Any:
        """Return what leaves the block; the cross-attention's weights are added to `seen`."""
        if self.cross_attention is None and memory is not None:
            raise ValueError("memory must be None for a block without cross-attention; got one.")
        if self.cross_attention is not None:
            if memory is None:
                raise ValueError("memory must be given to a block with cross-attention; got None.")
            if not isinstance(memory, tuple) and len(memory.shape) != 3:
                raise ValueError(f"memory must have shape (B, S, D); got {tuple(memory.shape)}.")
            keys, values = memory if isinstance(memory, tuple) else self.project_memory(memory)
            # Where none is given Keras looks for the masks of keys and values, and hands on a tuple of None.
            mask = None if isinstance(memory_mask, tuple) else memory_mask
            mask = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]  # (B, 1, 1, S)

            def look(y: Any) -> Any:
                query = self.cross_attention.project_queries(y)
                mixed, weights = self.cross_attention.attend(query, keys, values, mask, training=training)
                if seen is not None:
                    seen.append(weights)
                return self.cross_attention.join_heads(mixed)

            x = self.connect(x, self.cross_attention_norm, look, training)
        return self.connect(x, self.feed_forward_norm, self.feed_forward, training)

    def _norm(self, name: str) -> keras.layers.Layer:
        return make_norm(self.config.norm, self.config.norm_epsilon, name=name, dtype=self.dtype_policy)

    def _self_attention(self) -> SelfAttention:
        return SelfAttention(rotary_pairing=self.config.rotary_pairing, name="attention", **self._attention())

    def _cross_attention(self) -> MultiHeadAttention:
        return MultiHeadAttention(name="cross_attention", **self._attention())

    def _attention(self) -> dict[str, Any]:
        config = self.config
        return {
            "num_heads": config.num_heads,
            "key_dim": config.head_width,
            "num_kv_heads": config.kv_heads,
            "dropout": config.dropout,
            "use_bias": config.use_bias,
            "kernel_initializer": normal(config),
            "output_initializer": residual_normal(config),
            "dtype": self.dtype_policy,
            **KEEP_PRECISION,
        }


class _Stack(keras.layers.Layer):
    """Blocks one upon the other, and for pre-norm a norm at the end."""

    has_cross_attention = False

    def __init__(self, config: StackConfig | Mapping, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config = as_stack(config)
        self.supports_masking = True
        self.blocks = [self.make_block(index) for index in range(config.depth)]
        self.final_norm = None
        if config.norm_first:
            self.final_norm = make_norm(
                config.norm, config.norm_epsilon, name="final_norm", dtype=self.dtype_policy
            )

    def make_block(self, index: int) -> keras.layers.Layer:
        """Return the block at this height; a subclass may return another one."""
        return TransformerBlock(
            self.config, self.has_cross_attention, name=f"block_{index}", dtype=self.dtype_policy
        )

    def build_blocks(self, *shapes: tuple | None) -> None:
        """Make all weights, for blocks whose inputs have these shapes."""
        for block in self.blocks:
            block.build(*shapes)
        if self.final_norm is not None:
            self.final_norm.build(shapes[0])
        self.built = True

    def places(self, query_positions: Any, key_positions: Any) -> Places:
        """Return what these positions, (T,) or (B, T), and (S,) or (B, S), add to attention."""
        if self.config.positions == "rotary":
            cos, sin = rotary_angles(query_positions, self.config.head_width, self.config.rotary_base)
            if len(cos.shape) == 3:
                cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, K/2)
            return Places(rotation=(cos, sin))
        if self.config.positions == "alibi":
            return Places(bias=alibi_bias(self.config.num_heads, query_positions, key_positions))
        return Places()

    def finish(self, x: Any) -> Any:
        """Return what leaves the stack, (B, T, D), of what leaves its last block."""
        return x if self.final_norm is None else self.final_norm(x)

    def compute_output_shape(self, x_shape: tuple, memory_shape: tuple | None = None) -> tuple:
        """Return (B, T, D)."""
        return x_shape

    def compute_output_spec(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the shape and dtype of what a call gives."""
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(package="lmcourse")
class TransformerEncoder(_Stack):
    """A stack in which every position sees all others.

    Args:
        config: a `StackConfig` or a dict of its fields.

    Example:
        >>> encoder = TransformerEncoder(StackConfig(width=8, depth=2, num_heads=2))
        >>> encoder(ops.ones((1, 3, 8)), mask=ops.convert_to_tensor([[True, True, False]])).shape
        TensorShape([1, 3, 8])
    """

    def build(self, x_shape: tuple) -> None:
        """Make all weights."""
        self.build_blocks(x_shape)

    def call(self, x: Any, mask: Any | None = None, training: bool | None = None) -> Any:
        """Read a row.

        Args:
            x: float tensor of shape (B, T, D).
            mask: bool tensor of shape (B, T), False on padding.
            training: whether to drop.

        Returns:
            (B, T, D).

        Raises:
            ValueError: if x is not (B, T, D).
        """
        check_rows(x, self.config.width)
        positions = ops.arange(ops.shape(x)[1])
        places = self.places(positions, positions)
        mask = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, mask=mask, places=places, training=training)
        return self.finish(x)


@keras.saving.register_keras_serializable(package="lmcourse")
class TransformerDecoder(_Stack):
    """A stack in which each position sees itself and what came before, and a memory if it has cross-attention.

    Args:
        config: a `StackConfig` or a dict of its fields.
        cross_attention: whether its blocks attend to a memory: the encoder's output.

    Example:
        >>> decoder = TransformerDecoder(StackConfig(width=8, depth=2, num_heads=2), cross_attention=True)
        >>> decoder(ops.ones((1, 3, 8)), memory=ops.ones((1, 5, 8))).shape
        TensorShape([1, 3, 8])
    """

    def __init__(self, config: StackConfig | Mapping, cross_attention: bool = False, **kwargs: Any):
        self.has_cross_attention = cross_attention
        super().__init__(config, **kwargs)

    def build(self, x_shape: tuple, memory_shape: tuple | None = None) -> None:
        """Make all weights."""
        self.build_blocks(x_shape, memory_shape)

    def call(
        self,
        x: Any,
        memory: Any | None = None,
        mask: Any | None = None,
        memory_mask: Any | None = None,
        training: bool | None = None,
    ) -> Any:
        """Read a row from left to right.

        Args:
            x: float tensor of shape (B, T, D).
            memory: float tensor of shape (B, S, D), for cross-attention, or what `project_memory` made of it.
            mask: bool tensor of shape (B, T), False on padding. Padding on the right needs none.
            memory_mask: bool tensor of shape (B, S), False on the memory's padding.
            training: whether to drop.

        Returns:
            (B, T, D).

        Raises:
            ValueError: if x is not (B, T, D), or there is cross-attention and no memory.
        """
        check_rows(x, self.config.width)
        mask, places = self._causal(x, mask)
        for block, seen in zip(self.blocks, self._memories(memory), strict=True):
            x = block(x, seen, mask=mask, memory_mask=memory_mask, places=places, training=training)
        return self.finish(x)

    def trace(self, x: Any, memory: Any | None = None, memory_mask: Any | None = None) -> tuple[list, list]:
        """Return what enters and leaves each block, depth + 1 of (B, T, D), and the weights of each, (B, H, T, T)."""
        mask, places = self._causal(x, None)
        hidden, weights = [x], []
        for block, read_from in zip(self.blocks, self._memories(memory), strict=True):
            x, seen, *_ = block(
                x, read_from, mask=mask, memory_mask=memory_mask, places=places, return_weights=True
            )
            hidden.append(x)
            weights.append(seen)
        return hidden, weights

    def looks(self, x: Any, memory: Any, memory_mask: Any | None = None) -> list:
        """Return the weights with which each block looks at the memory, (B, H, T, S); arguments as in `call`."""
        mask, places = self._causal(x, None)
        looks = []
        for block, read_from in zip(self.blocks, self._memories(memory), strict=True):
            x, _, weights = block(
                x, read_from, mask=mask, memory_mask=memory_mask, places=places, return_weights=True
            )
            looks.append(weights)
        return looks

    def project_memory(self, memory: Any) -> tuple[tuple[Any, Any], ...]:
        """Return what each block's cross-attention looks at, so that generation computes it once and not at each step.

        Args:
            memory: float tensor of shape (B, S, D).

        Returns:
            The keys and the values of each block, each (B, G, S, K).
        """
        return tuple(block.project_memory(memory) for block in self.blocks)

    def new_cache(self, starts: Any, slots: Any) -> Cache:
        """Return an empty cache.

        Args:
            starts: how much padding will stand left of each row, (B,).
            slots: S, the most tokens that will be read, padding included.
        """
        starts = ops.convert_to_tensor(starts, dtype="int32")
        shape = (ops.shape(starts)[0], self.config.kv_heads, slots, self.config.head_width)
        nothing = ops.zeros(shape, dtype=self.compute_dtype)
        empty = (nothing,) * self.config.depth
        return Cache(empty, empty, starts, ops.zeros((), dtype="int32"))

    def cache_spec(self) -> Cache:
        """Return the shapes and dtypes of a cache, for any number of rows and slots, as a `tf.function` wants them."""
        shape = (None, self.config.kv_heads, None, self.config.head_width)
        parts = (tf.TensorSpec(shape, self.compute_dtype),) * self.config.depth
        return Cache(parts, parts, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32))

    def read(
        self, x: Any, cache: Cache, memory: Any | None = None, memory_mask: Any | None = None
    ) -> tuple[Any, Cache]:
        """Read new tokens after those in the cache.

        Args:
            x: float tensor of shape (B, T, D).
            cache: of what was read before; it has room for T more.
            memory: as in `call`.
            memory_mask: as in `call`.

        Returns:
            (B, T, D) and the cache with the new tokens in it.
        """
        time = ops.shape(x)[1]
        slots = ops.arange(cache.slots)
        # A slot's token has been read, and is none of the row's padding: (B, 1, T, S).
        mask = slots <= cache.length + ops.arange(time)[:, None]
        mask = (mask & (slots >= cache.starts[:, None, None]))[:, None]
        places = self.places(cache.next_positions(time), slots - cache.starts[:, None])
        keys, values = [], []
        for block, block_keys, block_values, seen in zip(
            self.blocks, cache.keys, cache.values, self._memories(memory), strict=True
        ):
            x, block_keys, block_values = block.read(
                x, block_keys, block_values, cache.length, mask, places, seen, memory_mask
            )
            keys.append(block_keys)
            values.append(block_values)
        return self.finish(x), Cache(tuple(keys), tuple(values), cache.starts, cache.length + time)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "cross_attention": self.has_cross_attention}

    def _memories(self, memory: Any | None) -> tuple:
        """Return the memory for each block."""
        return memory if isinstance(memory, tuple) else (memory,) * len(self.blocks)

    def _causal(self, x: Any, mask: Any | None) -> tuple[Any, Places]:
        """Return the joint mask, broadcastable to (B, H, T, T), and what the positions add."""
        time = ops.shape(x)[1]
        allowed = causal_mask(time)
        if mask is not None:
            allowed = allowed & ops.cast(mask, "bool")[:, None, None, :]
        positions = ops.arange(time)
        return allowed, self.places(positions, positions)


def as_stack(config: StackConfig | Mapping) -> StackConfig:
    """Return what of a config concerns the blocks: of a model's config, which has more fields, or of a dict of theirs.

    Raises:
        ValueError: if a dict has another field.
    """
    if isinstance(config, StackConfig):
        known = StackConfig.__dataclass_fields__
        config = {name: value for name, value in config.to_dict().items() if name in known}
    return StackConfig.from_dict(config)


def check_rows(x: Any, width: int) -> None:
    """Refuse what is not (B, T, D), of this width, or has no position."""
    if len(x.shape) != 3 or 0 in x.shape or x.shape[-1] not in (None, width):
        raise ValueError(f"x must have shape (B, T, {width}), none of them zero; got {tuple(x.shape)}.")


def normal(config: StackConfig) -> keras.initializers.Initializer:
    """Return the initializer of the matrices."""
    return keras.initializers.RandomNormal(stddev=config.stddev)


def residual_normal(config: StackConfig) -> keras.initializers.Initializer:
    """Return the initializer of matrices whose results are added to the path that goes past.

    2 · depth results are added: with this factor their sum starts no larger than one of them.

    Reference: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    """
    return keras.initializers.RandomNormal(stddev=config.stddev * (2 * config.depth) ** -0.5)
