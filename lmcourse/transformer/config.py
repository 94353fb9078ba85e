"""The sizes of each model, with names for the published ones, and the parameters that follow from them by formula.

Letters: `D` width, `F` width of the feed-forward network, `H` heads, `G` heads of keys and values, `K` width of a head,
`V` vocabulary.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

import numpy as np

from lmcourse.attention import AttentionSize


class Bounds(NamedTuple):
    """Which numbers a field may be; it stands in the field's annotation, as in `Size`.

    Attributes:
        words: what a message says of them.
        hold: whether a number is one of them.
    """

    words: str
    hold: Callable[[Any], bool]


Size = Annotated[int, Bounds("at least 1", lambda number: number >= 1)]
Positive = Annotated[float, Bounds("above 0", lambda number: number > 0)]
Rate = Annotated[float, Bounds("at least 0 and below 1", lambda number: 0 <= number < 1)]

Activation = Literal["relu", "gelu", "gelu_tanh", "swiglu"]
Norm = Literal["layer", "rms", "none"]
Positions = Literal["none", "sinusoidal", "learned", "rotary", "alibi"]
Pairing = Literal["half", "interleaved"]

Presets = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What the blocks of a Transformer are made of.

    Attributes:
        width: D.
        depth: how many blocks.
        num_heads: H.
        num_kv_heads: G; H by default.
        head_dim: K; D / H by default.
        hidden_dim: F; 4 D by default.
        activation: of the feed-forward network: "relu", "gelu" (exact), "gelu_tanh" (its approximation) or "swiglu".
        norm: "layer", "rms", or "none" to see what happens without.
        norm_first: whether each sublayer reads normalised inputs (pre-norm), or its sum with them is normalised after
            it (post-norm, as in the paper of 2017). Pre-norm ends in one norm more.
        norm_epsilon: what keeps a norm from dividing by zero.
        positions: how a model knows where a token stands: "sinusoidal" and "learned" are added to the embeddings,
            "rotary" turns queries and keys, "alibi" lowers the scores of distant keys, "none" tells it nothing.
        rotary_base: the slowest rotation takes about this many positions, times 2π.
        rotary_pairing: which two numbers of a head turn together: i and i + K/2 ("half"), or 2i and 2i + 1
            ("interleaved"). Weights trained with one are wrong with the other.
        use_bias: whether matrices have biases.
        dropout: the share of numbers dropped in training, in each sublayer's result and in the attention's weights.
        initializer_stddev: the standard deviation of the matrices at the start; 1 / √D by default, with which a
            product has about the size of what went in. GPT-2's 0.02 is for wide models: a narrow one learns to copy
            several times later with it.

    Raises:
        ValueError: if a field is not of its type or outside its range, or if two do not fit together. NumPy's numbers
            are taken, and become Python's.

    Example:
        >>> StackConfig(width=512, depth=6, num_heads=8).block_parameters()
        {'attention': 1050624, 'feed_forward': 2099712, 'norms': 2048}
    """

    PRESETS: ClassVar[Presets] = {}

    width: Size
    depth: Size
    num_heads: Size
    num_kv_heads: Size | None = None
    head_dim: Size | None = None
    hidden_dim: Size | None = None
    activation: Activation = "gelu"
    norm: Norm = "layer"
    norm_first: bool = True
    norm_epsilon: Positive = 1e-5
    positions: Positions = "none"
    rotary_base: Positive = 10_000.0
    rotary_pairing: Pairing = "half"
    use_bias: bool = True
    dropout: Rate = 0.0
    initializer_stddev: Positive | None = None

    def __post_init__(self):
        check_fields(self)
        if self.head_dim is None and self.width % self.num_heads:
            raise ValueError(
                f"num_heads must divide width = {self.width}, or head_dim be given; got {self.num_heads}."
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads = {self.num_heads}; got {self.num_kv_heads}."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"head_dim must be even for rotary positions, which turn pairs; got {self.head_width}."
            )
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(
                f"width must be even for sinusoidal positions, a sine and a cosine each; got {self.width}."
            )

    @property
    def kv_heads(self) -> int:
        """G."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """K."""
        return self.head_dim or self.width // self.num_heads

    @property
    def ffn_width(self) -> int:
        """F."""
        return self.hidden_dim or 4 * self.width

    @property
    def stddev(self) -> float:
        """The standard deviation of the matrices at the start."""
        return self.initializer_stddev or self.width**-0.5

    def block_parameters(self, *, cross_attention: bool = False) -> dict[str, int]:
        """Return the parameters of each part of one block.

        Args:
            cross_attention: whether the block attends to an encoder's result as well, as a decoder's does.

        Returns:
            The number of parameters by the name of the part; with cross-attention it is a part of its own.
        """
        attention = AttentionSize(
            self.width,
            num_heads=self.num_heads,
            key_dim=self.head_width,
            num_kv_heads=self.kv_heads,
            use_bias=self.use_bias,
        ).parameters
        into = 2 if self.activation == "swiglu" else 1  # SwiGLU has a second matrix for the gate
        biases = self.use_bias * (into * self.ffn_width + self.width)
        return {
            "attention": attention,
            **({"cross_attention": attention} if cross_attention else {}),
            "feed_forward": (into + 1) * self.width * self.ffn_width + biases,
            "norms": (3 if cross_attention else 2) * self.norm_parameters,
        }

    def stack_parameters(self, *, cross_attention: bool = False) -> dict[str, int]:
        """Return the parameters of all blocks together, and of the norm at the end.

        Args:
            cross_attention: whether the blocks attend to an encoder's result as well.

        Returns:
            The number of parameters by the name of the part, as `block_parameters`.
        """
        parts = {
            name: self.depth * count
            for name, count in self.block_parameters(cross_attention=cross_attention).items()
        }
        parts["norms"] += self.norm_parameters * self.norm_first
        return parts

    @property
    def norm_parameters(self) -> int:
        """The parameters of one norm: a scale, and for a layer norm an offset."""
        return self.width * {"layer": 2, "rms": 1, "none": 0}[self.norm]

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each part."""
        return self.stack_parameters()

    def parameter_count(self) -> int:
        """Return the number of parameters; nothing is built for it."""
        return sum(self.parameters().values())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold, from which `from_dict` makes the same config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: "Mapping[str, Any] | StackConfig") -> Self:
        """Return the config with these fields.

        Args:
            fields: values by the names of the fields, as `to_dict` returns them, or a config.

        Returns:
            The config; if `fields` is one of this class, itself.

        Raises:
            ValueError: if it is neither, or a field is unknown, missing, or not as it has to be.
        """
        if isinstance(fields, cls):
            return fields
        if not isinstance(fields, Mapping):
            raise ValueError(f"config must be a {cls.__name__} or a dict of its fields; got {fields!r:.80}.")
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(map(str, set(fields) - set(known)))
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}.")
        missing = [
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        ]
        if missing:
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}; got {', '.join(fields) or 'none'}.")
        return cls(**fields)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return a config by its name.

        Args:
            name: one of `PRESETS`.
            **changes: fields that are to be otherwise. The small ones need `vocab_size`, which the text decides.

        Returns:
            A new config.

        Raises:
            ValueError: if there is no such preset, or a field is unknown, missing, or not as it has to be.
        """
        if name not in cls.PRESETS:
            raise ValueError(f"preset must be one of {', '.join(cls.PRESETS) or '(none)'}; got {name!r}.")
        return cls.from_dict({**cls.PRESETS[name], **changes})

    def changed(self, **changes: Any) -> Self:
        """Return a new config with some fields otherwise.

        Args:
            **changes: values by the names of the fields.

        Raises:
            ValueError: if there is no such field, or it is not as it has to be.
        """
        return type(self).from_dict({**self.to_dict(), **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTConfig(StackConfig):
    """A decoder-only language model, with GPT-2's choices by default.

    Attributes:
        vocab_size: V.
        max_length: the most tokens that the model reads at once.
        tied: whether the output's matrix is the embedding's.
        start_id: the id that is read before the first token of a document.

    Example:
        >>> GPTConfig.preset("gpt2-124m").parameter_count()
        124439808

    Reference: Radford et al. 2019, "Language models are unsupervised multitask learners", table 2 (whose counts are
    smaller: its authors corrected them to those here).
    """

    PRESETS: ClassVar[Presets] = {
        "tiny": {"width": 64, "depth": 2, "num_heads": 4, "max_length": 128},
        "small": {"width": 128, "depth": 4, "num_heads": 4, "max_length": 128},
        "medium": {"width": 384, "depth": 6, "num_heads": 6, "max_length": 256},
        "gpt2-124m": {
            "vocab_size": 50_257,
            "width": 768,
            "depth": 12,
            "num_heads": 12,
            "start_id": 50_256,
            "initializer_stddev": 0.02,
        },
        "gpt2-355m": {
            "vocab_size": 50_257,
            "width": 1024,
            "depth": 24,
            "num_heads": 16,
            "start_id": 50_256,
            "initializer_stddev": 0.02,
        },
        "gpt2-774m": {
            "vocab_size": 50_257,
            "width": 1280,
            "depth": 36,
            "num_heads": 20,
            "start_id": 50_256,
            "initializer_stddev": 0.02,
        },
        "gpt2-1.5b": {
            "vocab_size": 50_257,
            "width": 1600,
            "depth": 48,
            "num_heads": 25,
            "start_id": 50_256,
            "initializer_stddev": 0.02,
        },
    }

    vocab_size: Size
    max_length: Size = 1024
    tied: bool = True
    start_id: int = 0
    activation: Activation = "gelu_tanh"
    positions: Positions = "learned"

    def __post_init__(self):
        super().__post_init__()
        check_id(self.vocab_size, start_id=self.start_id)

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each part."""
        learned = self.max_length * self.width if self.positions == "learned" else 0
        return {
            "embedding": self.vocab_size * self.width,
            "positions": learned,
            **self.stack_parameters(),
            "output": 0 if self.tied else self.vocab_size * self.width,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig(GPTConfig):
    """The same model with Llama's choices: RMS norms, rotary positions, SwiGLU, no biases.

    Example:
        >>> LlamaConfig.preset("llama-7b").parameter_count()
        6738415616

    Reference: Touvron et al. 2023, "LLaMA", arXiv:2302.13971, table 2, and "Llama 2", arXiv:2307.09288; Grattafiori et
    al. 2024, "The Llama 3 herd of models", arXiv:2407.21783, table 3; Ben Allal et al. 2025, "SmolLM2",
    arXiv:2502.02737.
    """

    PRESETS: ClassVar[Presets] = {
        "tiny": {
            "width": 64,
            "depth": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "hidden_dim": 168,
            "max_length": 128,
        },
        "small": {
            "width": 128,
            "depth": 4,
            "num_heads": 4,
            "num_kv_heads": 2,
            "hidden_dim": 344,
            "max_length": 128,
        },
        "smollm2-135m": {
            "vocab_size": 49_152,
            "max_length": 8192,
            "width": 576,
            "depth": 30,
            "num_heads": 9,
            "num_kv_heads": 3,
            "hidden_dim": 1536,
            "rotary_base": 100_000.0,
        },
        "llama-7b": {
            "vocab_size": 32_000,
            "max_length": 2048,
            "width": 4096,
            "depth": 32,
            "num_heads": 32,
            "hidden_dim": 11_008,
            "norm_epsilon": 1e-6,
            "tied": False,
            "start_id": 1,
        },
        "llama-2-7b": {
            "vocab_size": 32_000,
            "max_length": 4096,
            "width": 4096,
            "depth": 32,
            "num_heads": 32,
            "hidden_dim": 11_008,
            "tied": False,
            "start_id": 1,
        },
        "llama-3-8b": {
            "vocab_size": 128_256,
            "max_length": 8192,
            "width": 4096,
            "depth": 32,
            "num_heads": 32,
            "num_kv_heads": 8,
            "hidden_dim": 14_336,
            "rotary_base": 500_000.0,
            "tied": False,
            "start_id": 128_000,
        },
    }

    activation: Activation = "swiglu"
    norm: Norm = "rms"
    positions: Positions = "rotary"
    use_bias: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(StackConfig):
    """An encoder that reads in both directions, with BERT's choices.

    Attributes:
        vocab_size: V.
        max_length: the most tokens that the model reads at once.
        segments: how many kinds of text the model tells apart (a sentence, and the one that may follow it).
        pooler: whether a layer over the first token's vector stands for the whole text.
        heads: whether there are heads for masked tokens and the next sentence.

    Example:
        >>> BertConfig.preset("bert-base", heads=False).parameter_count()
        109482240

    Reference: Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 3 and 3.1; Wang et al. 2020, "MiniLM",
    arXiv:2002.10957.
    """

    PRESETS: ClassVar[Presets] = {
        "tiny": {"width": 64, "depth": 2, "num_heads": 4, "max_length": 128},
        "small": {"width": 128, "depth": 4, "num_heads": 4, "max_length": 128},
        "bert-base": {"vocab_size": 30_522, "width": 768, "depth": 12, "num_heads": 12},
        "bert-large": {"vocab_size": 30_522, "width": 1024, "depth": 24, "num_heads": 16},
        "minilm-l6": {
            "vocab_size": 30_522,
            "width": 384,
            "depth": 6,
            "num_heads": 12,
            "pooler": False,
            "heads": False,
        },
    }

    vocab_size: Size
    max_length: Size = 512
    segments: Size = 2
    pooler: bool = True
    heads: bool = True
    positions: Positions = "learned"
    norm_first: bool = False
    norm_epsilon: float = 1e-12

    def __post_init__(self):
        super().__post_init__()
        if self.heads and not self.pooler:
            raise ValueError("pooler must be True for heads: the next sentence is told from it; got False.")

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each part."""
        embeddings = self.vocab_size + self.segments
        # Masked tokens: a dense layer, a norm, and a bias for each token; the matrix is the embedding's.
        masked = self.width * (self.width + 1) + self.norm_parameters + self.vocab_size
        return {
            "embedding": embeddings * self.width + self.norm_parameters,
            "positions": self.max_length * self.width if self.positions == "learned" else 0,
            **self.stack_parameters(),
            "pooler": self.width * (self.width + 1) if self.pooler else 0,
            "masked_token_head": masked if self.heads else 0,
            "next_sentence_head": 2 * (self.width + 1) if self.heads else 0,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(StackConfig):
    """An encoder and a decoder for pairs of texts, with the choices of 2017.

    Attributes:
        source_vocab: how many ids a source has.
        target_vocab: V.
        max_length: the most tokens of a source or a target.
        shared: whether source, target and output have one matrix; the vocabularies must then be equal.
        start_id: what the decoder reads first.
        end_id: what ends a target.

    Example:
        The paper's base model, whose table says 65 million with a shared vocabulary of about 37,000:

        >>> EncoderDecoderConfig.preset("transformer-base").parameter_count()
        63082496

    Reference: Vaswani et al. 2017, arXiv:1706.03762, table 3.
    """

    PRESETS: ClassVar[Presets] = {
        "tiny": {"width": 64, "depth": 2, "num_heads": 4, "max_length": 128},
        "small": {"width": 128, "depth": 2, "num_heads": 4, "max_length": 128},
        "transformer-base": {
            "source_vocab": 37_000,
            "target_vocab": 37_000,
            "shared": True,
            "width": 512,
            "depth": 6,
            "num_heads": 8,
            "dropout": 0.1,
        },
        "transformer-big": {
            "source_vocab": 37_000,
            "target_vocab": 37_000,
            "shared": True,
            "width": 1024,
            "depth": 6,
            "num_heads": 16,
            "dropout": 0.3,
        },
    }

    source_vocab: Size
    target_vocab: Size
    max_length: Size = 1024
    shared: bool = False
    start_id: int = 0
    end_id: int = 0
    activation: Activation = "relu"
    positions: Positions = "sinusoidal"
    norm_first: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_id(self.target_vocab, start_id=self.start_id, end_id=self.end_id)
        if self.shared and self.source_vocab != self.target_vocab:
            raise ValueError(
                f"target_vocab must equal source_vocab = {self.source_vocab} where they are shared; "
                f"got {self.target_vocab}."
            )

    def parameters(self) -> dict[str, int]:
        """Return the parameters of each part; the output's matrix is the target embedding's."""
        tables = self.source_vocab + (0 if self.shared else self.target_vocab)
        sides = 1 if self.shared else 2
        learned = sides * self.max_length * self.width if self.positions == "learned" else 0
        return {
            "embedding": tables * self.width,
            "positions": learned,
            "encoder": sum(self.stack_parameters().values()),
            "decoder": sum(self.stack_parameters(cross_attention=True).values()),
        }


def check_fields(record: Any) -> None:
    """Make each field of a dataclass what its annotation says, or refuse it.

    Integers, real numbers, flags, choices (`Literal`), and each of them `| None`, are looked at; bounds stand in the
    annotation. A flag is no number, and a number no flag. An integer may stand for a real number.

    Args:
        record: an instance; its numbers become Python's own, which JSON can hold.

    Raises:
        ValueError: if a field is of another type, outside its bounds, or not finite.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Training:
        ...     steps: Size
        ...     dropout: Rate | None = None
        ...     def __post_init__(self):
        ...         check_fields(self)
        >>> Training(np.int64(3), 0)
        Training(steps=3, dropout=0.0)
        >>> Training(3, "0.1")
        Traceback (most recent call last):
        ...
        ValueError: dropout must be a finite number or None; got '0.1'.
    """
    types = get_type_hints(type(record), include_extras=True)
    for field in dataclasses.fields(record):
        value = check_field(field.name, types[field.name], getattr(record, field.name))
        object.__setattr__(record, field.name, value)


def check_field(name: str, kind: Any, value: Any) -> Any:
    """Return a value as an object of its type, or refuse it; see `check_fields`, which does so with each field.

    Args:
        name: what the value came as.
        kind: its annotation, such as `Size | None`.
        value: what was given.

    Returns:
        The value, a number as Python's own; one of a type that is not looked at as it is.

    Raises:
        ValueError: if it is of another type, outside its bounds, or not finite.
    """
    also, bounds = "", []
    if type(None) in get_args(kind):
        if value is None:
            return None
        kind, also = get_args(kind)[0], " or None"
    if get_origin(kind) is Annotated:
        kind, *bounds = get_args(kind)
    if get_origin(kind) is Literal:
        choices, kind = get_args(kind), str
        takes, words = lambda value: isinstance(value, str) and value in choices, f"one of {choices}"
    elif kind in _TAKEN:
        takes, words = _TAKEN[kind]
    else:
        return value
    if not takes(value):
        raise ValueError(f"{name} must be {words}{also}; got {value!r:.80}.")
    for words, hold in bounds:
        if not hold(value):
            raise ValueError(f"{name} must be {words}; got {value}.")
    return kind(value)


def check_id(vocab_size: int, **ids: Any) -> None:
    """Refuse an id that is not in the vocabulary.

    Args:
        vocab_size: V.
        **ids: ids by the names of the arguments they came as.

    Raises:
        ValueError: if one is no integer, below 0, or V or above.
    """
    for name, number in ids.items():
        number = check_field(name, int, number)
        if not 0 <= number < vocab_size:
            raise ValueError(f"{name} must be between 0 and vocab_size - 1 = {vocab_size - 1}; got {number}.")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


# What a field of each type takes, and what a message says of it.
_TAKEN: Mapping[type, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    int: (lambda value: _is_number(value, Integral), "an integer"),
    float: (lambda value: _is_number(value, Real) and abs(value) <= sys.float_info.max, "a finite number"),
}
