"""Transformers with a part left out or wired otherwise, to see what the part is for.

Letters for shapes: `B` rows, `T` time, `D` width.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import keras

from lmcourse.transformer.blocks import TransformerBlock, TransformerDecoder
from lmcourse.transformer.config import GPTConfig, StackConfig
from lmcourse.transformer.gpt import GPT

Residual = Literal["two", "one", "none"]


@keras.saving.register_keras_serializable(package="lmcourse")
class NoResidualBlock(TransformerBlock):
    """A block without paths that go past its sublayers: f(norm(x)), and then the same of the next sublayer."""

    def connect(self, x: Any, norm: Any, sublayer: Callable[[Any], Any], training: bool | None) -> Any:
        """Return what the sublayer makes of x; x itself is gone."""
        return self.drop(sublayer(norm(x)), training=training)


@keras.saving.register_keras_serializable(package="lmcourse")
class OneResidualBlock(TransformerBlock):
    """A block with one path that goes past both sublayers: x + norm(FFN(norm(attention(x)))).

    So it stands in many a tutorial. The feed-forward network then sees only what attention found, not the token itself.
    """

    def leave(self, entered: Any, x: Any) -> Any:
        """Return what entered, and what both sublayers, one after the other, have to add."""
        return entered + x

    def connect(self, x: Any, norm: Any, sublayer: Callable[[Any], Any], training: bool | None) -> Any:
        """Return the norm of what the sublayer makes of x."""
        return norm(self.drop(sublayer(x), training=training))


BLOCKS: Mapping[str, type[TransformerBlock]] = {
    "two": TransformerBlock,
    "one": OneResidualBlock,
    "none": NoResidualBlock,
}


@keras.saving.register_keras_serializable(package="lmcourse")
class AblatedDecoder(TransformerDecoder):
    """A decoder whose blocks have two residual paths, one, or none.

    Args:
        config: a `StackConfig` or a dict of its fields.
        residual: "two" (as it should be), "one" or "none".

    Raises:
        ValueError: if residual is none of these.
    """

    def __init__(self, config: StackConfig | Mapping, residual: Residual = "two", **kwargs: Any):
        if residual not in get_args(Residual):
            raise ValueError(f"residual must be one of {get_args(Residual)}; got {residual!r}.")
        self.residual = residual
        super().__init__(config, **kwargs)

    def make_block(self, index: int) -> TransformerBlock:
        """Return the block at this height."""
        return BLOCKS[self.residual](
            self.config, self.has_cross_attention, name=f"block_{index}", dtype=self.dtype_policy
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "residual": self.residual}


@keras.saving.register_keras_serializable(package="lmcourse")
class AblatedGPT(GPT):
    """A GPT whose blocks have two residual paths, one, or none.

    Other parts are left out by the config: positions "none", norm "none".

    Args:
        config: a `GPTConfig` or a dict of its fields.
        residual: "two" (as it should be), "one" or "none".

    Raises:
        ValueError: if residual is none of these.

    Example:
        >>> config = GPTConfig.preset("tiny", vocab_size=10)
        >>> model = AblatedGPT(config, residual="none")
        >>> model(keras.ops.ones((1, 3), "int32")).shape
        TensorShape([1, 3, 10])
    """

    def __init__(self, config: GPTConfig | Mapping, residual: Residual = "two", **kwargs: Any):
        self.residual = residual
        super().__init__(config, **kwargs)

    def make_stack(self) -> TransformerDecoder:
        """Return the stack of blocks."""
        return AblatedDecoder(self.config, self.residual, name="stack", dtype=self.dtype_policy)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "residual": self.residual}
