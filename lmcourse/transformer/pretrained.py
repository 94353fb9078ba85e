"""Models with the weights that others trained: by name from the course's data, or from your own files.

    chat = load_pretrained("smollm2-135m-instruct")   # .model, .tokenizer, .template, .roles
    encoder = load_pretrained("minilm-l6")            # .encode(["A sentence.", "Another."])
    model = load_gguf("my-llama.gguf")                # a Llama; load_chat_model for its tokenizer and template, too
    model = load_gpt2("gpt2/")                        # a folder with config.json and model.safetensors
    model = load_bert("bert-base-uncased/")

Nothing in a file is executed, and nothing is half loaded: names, shapes and sizes are checked before the first weight
is set. Tensors are decoded one at a time, so that loading takes little more memory than the model.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np

from lmcourse import datasets
from lmcourse.text import Tokenizer
from lmcourse.text.wordpiece import WordPieceTokenizer
from lmcourse.transformer.bert import Bert
from lmcourse.transformer.chat import ChatTemplate, read_chat_template
from lmcourse.transformer.config import BertConfig, GPTConfig, LlamaConfig, StackConfig
from lmcourse.transformer.gguf import GGUFFile
from lmcourse.transformer.gguf_tokenizer import TokenRoles, read_token_roles, read_tokenizer
from lmcourse.transformer.gpt import GPT, Llama
from lmcourse.transformer.safetensors import SafetensorsFile
from lmcourse.transformer.sentence_encoder import SentenceEncoder
from lmcourse.transformer.weight_names import bert_entries, gguf_llama_entries, gpt2_entries, load_entries
from lmcourse.transformer.weights_file import WeightsFile, WeightsFileError

PretrainedName = Literal["smollm2-135m-instruct", "minilm-l6"]

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"

# What separated the documents of its training text in a model of GPT-2's kind, and so what stands before one.
END_OF_TEXT = "<|endoftext|>"

# The names that config.json has for activations, and ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}

StrPath = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class ChatModel:
    """A language model, and what is needed to talk to it.

    Attributes:
        model: the language model.
        tokenizer: from text to its ids, and back.
        template: the form in which it knows conversations.
        roles: which ids have a part to play.
    """

    model: Llama
    tokenizer: Tokenizer
    template: ChatTemplate
    roles: TokenRoles

    @property
    def stop_id(self) -> int:
        """The id with which the model ends an answer; ValueError if the tokenizer has no such token."""
        return self.template.stop_id(self.tokenizer)


@overload
def load_pretrained(name: Literal["smollm2-135m-instruct"]) -> ChatModel: ...
@overload
def load_pretrained(name: Literal["minilm-l6"]) -> SentenceEncoder: ...
def load_pretrained(name: PretrainedName) -> ChatModel | SentenceEncoder:
    """Return a published model from the course's data; nothing is downloaded.

    Args:
        name: "smollm2-135m-instruct", a language model of 135 million parameters that answers in conversations, or
            "minilm-l6", which makes vectors of sentences.

    Returns:
        For the first a `ChatModel`: model, tokenizer, chat template and the ids' roles. For the second a
        `SentenceEncoder`.

    Raises:
        ValueError: if there is no model of this name.
        DatasetNotCached: if its files have to be fetched first; the message names the command.

    Example:
        >>> load_pretrained("gpt-5")
        Traceback (most recent call last):
        ...
        ValueError: name must be one of smollm2-135m-instruct, minilm-l6; got 'gpt-5'. Files: load_gguf, load_gpt2, …

    Reference: Ben Allal et al. 2025, "SmolLM2", arXiv:2502.02737; Reimers and Gurevych 2019, "Sentence-BERT",
    arXiv:1908.10084; Wang et al. 2020, "MiniLM", arXiv:2002.10957.
    """
    if name == "smollm2-135m-instruct":
        return load_chat_model(datasets.path("smollm2"))
    if name == "minilm-l6":
        return load_sentence_encoder(datasets.path("minilm"))
    known = ", ".join(get_args(PretrainedName))
    raise ValueError(f"name must be one of {known}; got {name!r}. Files: load_gguf, load_gpt2, …")


def load_chat_model(path: StrPath) -> ChatModel:
    """Return a model of the architecture "llama" with tokenizer and chat template, all from one GGUF file.

    Args:
        path: the file.

    Returns:
        The model, in float32, as `load_gguf` returns it, and what is needed to talk to it.

    Raises:
        OSError: if it cannot be opened.
        WeightsFileError: if it holds another architecture, or a quantization, tokenizer or template that is not known
            here, or if a tensor is missing, of a wrong shape, or too many.
    """
    with GGUFFile(path) as file:
        # Whatever may be refused comes before the weights, which take seconds.
        tokenizer, template, roles = read_tokenizer(file), read_chat_template(file), read_token_roles(file)
        return ChatModel(_llama(file), tokenizer, template, roles)


def load_gguf(path: StrPath) -> Llama:
    """Return the model in a GGUF file of the architecture "llama".

    Args:
        path: the file, whose tensors are F32, F16, Q8_0, Q4_0 or Q4_1.

    Returns:
        The model, in float32. Its `start_id` is the start token if the file says that texts begin with it; else the
        token that separates documents, if there is one.

    Raises:
        OSError: if the file cannot be opened.
        WeightsFileError: as `load_chat_model`, of which tokenizer and template are not read here.
    """
    with GGUFFile(path) as file:
        return _llama(file)


def load_gpt2(path: StrPath, config: GPTConfig | Mapping | None = None) -> GPT:
    """Return GPT-2 from a safetensors file, with the names that the public hubs have.

    Args:
        path: the file, or a folder that holds it as model.safetensors.
        config: the model's sizes; by default those in config.json beside the file.

    Returns:
        The model. Dropout is 0, unless the config given says otherwise.

    Raises:
        OSError: if a file cannot be opened.
        WeightsFileError: if config.json is of another model, or a tensor is missing, of a wrong shape, or too many.
        ValueError: if the config is none, or not of GPT-2's kind.

    Reference: Radford et al. 2019, "Language models are unsupervised multitask learners".
    """
    path = _weights_in(path)
    config = _config_beside(path, _gpt2_config) if config is None else GPTConfig.from_dict(config)
    _require_layout(config, norm_first=True)
    with SafetensorsFile(path) as file:
        prefix = _prefix(file, "transformer.")
        masks = [
            f"{prefix}h.{i}.attn.{name}" for i in range(config.depth) for name in ("bias", "masked_bias")
        ]
        shared = {"lm_head.weight": f"{prefix}wte.weight"} if config.tied else {}
        model = GPT(config)
        load_entries(model, file, gpt2_entries(config, prefix), masks, shared)
    return model


def load_bert(
    path: StrPath,
    config: BertConfig | Mapping | None = None,
    *,
    pooler: bool | None = None,
    heads: bool | None = None,
) -> Bert:
    """Return BERT from a safetensors file, with the names that the public hubs have.

    Args:
        path: the file, or a folder that holds it as model.safetensors.
        config: the model's sizes; by default those in config.json beside the file.
        pooler: whether to have the pooler; by default as the config given says, and without one if the file has it.
        heads: whether to have the heads; by default as the config given says, and without one if the file has both.

    Returns:
        The model. Dropout is 0, unless the config given says otherwise.

    Raises:
        OSError: if a file cannot be opened.
        WeightsFileError: if config.json is of another model, or a tensor is missing, of a wrong shape, or too many.
        ValueError: if the config is none, or not of BERT's kind, or heads are asked for without a pooler.

    Reference: Devlin et al. 2019, arXiv:1810.04805.
    """
    path = _weights_in(path)
    with SafetensorsFile(path) as file:
        prefix = _prefix(file, "bert.")
        if config is None:
            config = _config_beside(path, _bert_config)
            has_pooler = f"{prefix}pooler.dense.weight" in file.tensors
            has_heads = {"cls.predictions.bias", "cls.seq_relationship.weight"} <= set(file.tensors)
            heads = has_heads and pooler is not False if heads is None else heads
            pooler = has_pooler or heads if pooler is None else pooler
        asked = {name: part for name, part in (("pooler", pooler), ("heads", heads)) if part is not None}
        config = BertConfig.from_dict(config).changed(**asked)
        _require_layout(config, norm_first=False)
        old = any(name.endswith("LayerNorm.gamma") for name in file.tensors)
        entries = bert_entries(config, prefix, ("gamma", "beta") if old else ("weight", "bias"))
        model = Bert(config)
        load_entries(model, file, entries, _bert_may_hold(file, config, prefix), _bert_copies(config, prefix))
    return model


def load_sentence_encoder(folder: StrPath, *, lowercase: bool = True) -> SentenceEncoder:
    """Return a sentence encoder of MiniLM's kind: BERT without heads, mean over the tokens, unit length.

    Args:
        folder: it holds config.json, model.safetensors and vocab.txt.
        lowercase: whether the model is an "uncased" one.

    Returns:
        The encoder, whose `encode` makes vectors of sentences.

    Raises:
        OSError, WeightsFileError: as `load_bert`.
        ValueError: if the vocabulary is none, or not of the model's size.
    """
    tokenizer = WordPieceTokenizer.from_file(Path(folder) / VOCABULARY, lowercase=lowercase)
    return SentenceEncoder(load_bert(folder, pooler=False, heads=False), tokenizer)


def read_llama_config(file: GGUFFile) -> LlamaConfig:
    """Return the sizes of the model in a GGUF file.

    Args:
        file: open; its metadata are read, of its tensors only the names and shapes.

    Returns:
        The config of the model that `load_gguf` makes of it.

    Raises:
        WeightsFileError: if it is of another architecture than "llama", or has what ours cannot do.
    """
    architecture = file.value("general.architecture", str)
    if architecture != "llama":
        raise file.error(f"general.architecture must be 'llama'; got {architecture!r:.60}")
    if "token_embd.weight" not in file.tensors:
        raise file.error(f"there is no tensor 'token_embd.weight'; there are {file.names_in_short()}")
    heads = file.value("llama.attention.head_count", int)
    _refuse_variants(file)
    try:
        config = LlamaConfig(
            vocab_size=file.value("llama.vocab_size", int, file.tensors["token_embd.weight"].shape[0]),
            max_length=file.value("llama.context_length", int),
            width=file.value("llama.embedding_length", int),
            depth=file.value("llama.block_count", int),
            num_heads=heads,
            num_kv_heads=file.value("llama.attention.head_count_kv", int, heads),
            head_dim=file.value("llama.attention.key_length", int, None),
            hidden_dim=file.value("llama.feed_forward_length", int),
            norm_epsilon=_shortest(file.value("llama.attention.layer_norm_rms_epsilon", float)),
            rotary_base=_shortest(file.value("llama.rope.freq_base", float, 10_000.0)),
            tied="output.weight" not in file.tensors,
            start_id=_start_id(file),
        )
    except WeightsFileError:
        raise
    except ValueError as error:
        raise file.error(f"the metadata are of no model: {error}".rstrip(".")) from None
    turned = file.value("llama.rope.dimension_count", int, config.head_width)
    if turned != config.head_width:
        raise file.error(
            f"llama.rope.dimension_count must be the width of a head, {config.head_width}; got {turned}"
        )
    return config


def _llama(file: GGUFFile) -> Llama:
    config = read_llama_config(file)
    model = Llama(config)
    load_entries(model, file, gguf_llama_entries(config))
    return model


def _refuse_variants(file: GGUFFile) -> None:
    """Raise if the file's model computes something that ours does not."""
    scaling = file.value("llama.rope.scaling.type", str, "none")
    if scaling != "none":
        raise file.error(f"llama.rope.scaling.type must be 'none'; got {scaling!r:.60}")
    experts = file.value("llama.expert_count", int, 0)
    if experts:
        raise file.error(f"llama.expert_count must be 0, a model without experts; got {experts}")


def _start_id(file: GGUFFile) -> int:
    roles = read_token_roles(file)
    tokens = file.value("tokenizer.ggml.tokens", list, [])
    if not roles.adds_start and END_OF_TEXT in tokens:
        return tokens.index(END_OF_TEXT)
    return roles.start or 0


def _shortest(value: float) -> float:
    """Return the shortest decimal number that float32 cannot tell from this one: 1e-5, not 9.99999975e-06."""
    return float(str(np.float32(value)))


def _weights_in(path: StrPath) -> Path:
    """Return the file itself, or the one in the folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / WEIGHTS).is_file():
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(f"{path} must hold {WEIGHTS}, the weights in one file; there is {there}.")
    return path / WEIGHTS


def _config_beside(weights: Path, convert: Callable[["_HubConfig"], Any]) -> Any:
    """Return the config that config.json beside the weights describes."""
    path = weights.parent / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the model's sizes as config.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsFileError(f"{path}: this is no JSON in UTF-8: {error}.") from None
    if not isinstance(found, dict):
        raise WeightsFileError(f"{path}: there must be a JSON object; got {type(found).__name__}.")
    fields = _HubConfig(path, found)
    try:
        return convert(fields)
    except WeightsFileError:
        raise
    except (TypeError, ValueError) as error:
        raise WeightsFileError(f"{path}: the sizes are of no model: {error}") from None


@dataclasses.dataclass(frozen=True)
class _HubConfig:
    """A config.json, and where it is."""

    path: Path
    fields: Mapping[str, Any]

    def value(self, name: str, *default: Any) -> Any:
        """Return a field; without a default it must be there."""
        if name not in self.fields and not default:
            raise self.error(f"there is no {name!r}; there are {', '.join(self.fields) or 'none'}")
        return self.fields.get(name, *default)

    def count(self, name: str, *default: int | None) -> Any:
        """Return a field that is an integer."""
        found = self.value(name, *default)
        if type(found) is not int and found not in default:
            raise self.error(f"{name} must be an integer; got {found!r:.60}")
        return found

    def require(self, **wanted: Any) -> None:
        """Raise if a field is there and says something else."""
        for name, value in wanted.items():
            if self.fields.get(name, value) != value:
                raise self.error(f"{name} must be {value!r}; got {self.fields[name]!r:.60}")

    def activation(self, name: str, default: str) -> str:
        """Return our name of an activation."""
        found = self.fields.get(name, default)
        if found not in ACTIVATIONS:
            raise self.error(f"{name} must be one of {', '.join(ACTIVATIONS)}; got {found!r:.60}")
        return ACTIVATIONS[found]

    def error(self, what: str) -> WeightsFileError:
        """Return an error that begins with the file's path."""
        return WeightsFileError(f"{self.path}: {what}.")


def _gpt2_config(fields: _HubConfig) -> GPTConfig:
    fields.require(
        model_type="gpt2",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    return GPTConfig(
        vocab_size=fields.count("vocab_size"),
        max_length=fields.count("n_positions"),
        width=fields.count("n_embd"),
        depth=fields.count("n_layer"),
        num_heads=fields.count("n_head"),
        hidden_dim=fields.count("n_inner", None),
        activation=fields.activation("activation_function", "gelu_new"),
        norm_epsilon=fields.value("layer_norm_epsilon", 1e-5),
        tied=fields.value("tie_word_embeddings", True),
        start_id=fields.count("bos_token_id"),
    )


def _bert_config(fields: _HubConfig) -> BertConfig:
    """Return the config without pooler and heads, which config.json does not tell."""
    fields.require(model_type="bert", position_embedding_type="absolute", is_decoder=False)
    return BertConfig(
        vocab_size=fields.count("vocab_size"),
        max_length=fields.count("max_position_embeddings"),
        segments=fields.count("type_vocab_size", 2),
        width=fields.count("hidden_size"),
        depth=fields.count("num_hidden_layers"),
        num_heads=fields.count("num_attention_heads"),
        hidden_dim=fields.count("intermediate_size"),
        activation=fields.activation("hidden_act", "gelu"),
        norm_epsilon=fields.value("layer_norm_eps", 1e-12),
        pooler=False,
        heads=False,
    )


def _bert_may_hold(file: WeightsFile, config: BertConfig, prefix: str) -> list[str]:
    """Return what a file may hold though the model has no use for it: counted positions, and heads left out."""
    left_out = [] if config.pooler else [f"{prefix}pooler."]
    left_out += [] if config.heads else ["cls."]
    return [
        name
        for name in file.tensors
        if name == f"{prefix}embeddings.position_ids" or name.startswith(tuple(left_out))
    ]


def _bert_copies(config: BertConfig, prefix: str) -> dict[str, str]:
    if not config.heads:
        return {}
    return {
        "cls.predictions.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


def _prefix(file: WeightsFile, prefix: str) -> str:
    """Return the prefix if the file's names have it, else nothing."""
    return prefix if any(name.startswith(prefix) for name in file.tensors) else ""


def _require_layout(config: StackConfig, *, norm_first: bool) -> None:
    """Raise if a config is of no model that such a file could hold."""
    wanted = {
        "positions": "learned",
        "norm": "layer",
        "norm_first": norm_first,
        "use_bias": True,
        "kv_heads": config.num_heads,
        "head_width": config.width // config.num_heads,
    }
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} must be {value!r} for these weights; got {getattr(config, name)!r}.")
    if config.activation == "swiglu":
        raise ValueError("activation must be one without a gate for these weights; got 'swiglu'.")
