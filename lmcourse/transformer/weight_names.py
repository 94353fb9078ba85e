"""What published files of weights call each weight, how they lay it out, and where it goes in our models.

A table lists every tensor of a file with its shape there, and the variables that it fills. So a file is checked whole
before anything is made or set, and the tables can be read as the key to other people's names.

Letters for shapes: `D` width, `F` width of the feed-forward network, `H` heads, `G` heads of keys and values, `K`
width of a head, `V` vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lmcourse.transformer.config import BertConfig, GPTConfig, LlamaConfig
from lmcourse.transformer.weights_file import WeightsFile

Arrange = Callable[[NDArray], NDArray]


class Target(NamedTuple):
    """A variable that a tensor fills.

    Attributes:
        path: where it is in the model: "stack.blocks.0.attention.query_dense.kernel".
        arrange: makes an array of the variable's shape of the tensor.
    """

    path: str
    arrange: Arrange


class Entry(NamedTuple):
    """A tensor of a file.

    Attributes:
        name: its name there.
        shape: its shape there.
        targets: what it fills; more than one where a file has in one matrix what we have in several.
    """

    name: str
    shape: tuple[int, ...]
    targets: tuple[Target, ...]


def load_entries(
    model: keras.Model,
    file: WeightsFile,
    entries: Sequence[Entry],
    may_hold: Sequence[str] = (),
    copies: Mapping[str, str] | None = None,
) -> None:
    """Set all weights of a model to those of a file, one tensor at a time, or raise before the first is set.

    Args:
        model: not built yet.
        file: the open file.
        entries: what the file must hold.
        may_hold: tensors that it may hold besides, and that nobody needs.
        copies: tensors that it may hold besides, and which tensor each must then equal: a matrix that two layers
            share is sometimes written twice, and if the two differ they are not shared.

    Raises:
        WeightsFileError: if a tensor is missing, not expected, or has another shape than the model needs.
        ValueError: if the model has weights that no entry fills.
    """
    copies = copies or {}
    file.check_tensors({entry.name: entry.shape for entry in entries}, (*may_hold, *copies))
    for copy, original in copies.items():
        if copy in file.tensors and not np.array_equal(file.tensor(copy), file.tensor(original)):
            raise file.error(f"tensor {copy!r} must equal {original!r}, with which the model shares it")
    build_empty(model)
    found = {target.path: variable_at(model, target.path) for entry in entries for target in entry.targets}
    filled = {id(variable) for variable in found.values()}
    left = [variable.path for variable in model.weights if id(variable) not in filled]
    if left:
        raise ValueError(f"config asks for weights that {file.path} has no names for: {', '.join(left[:8])}.")
    for entry in entries:
        for target, value in zip(entry.targets, _values(file, entry), strict=True):
            found[target.path].assign(value)


def build_empty(model: keras.Model) -> None:
    """Build a model whose weights are to be set next: nothing is drawn for them, or even written.

    So loading takes the memory of the model once, not twice.

    Args:
        model: not built yet, and one that is built without being told the shape of its inputs. Afterwards its weights
            hold whatever the memory held.
    """

    def reserve(create: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
        initial = options["initial_value"]
        if callable(initial) and tf.as_dtype(options["dtype"]).is_floating:  # generators' seeds are integers
            with tf.Graph().as_default():  # where nothing is computed, and the shape is known all the same
                shape = initial().shape
            options["initial_value"] = tf.raw_ops.Empty(shape=shape, dtype=options["dtype"])
        return create(**options)

    with tf.variable_creator_scope(reserve):
        model.build()


def variable_at(model: keras.Model, path: str) -> keras.Variable:
    """Return a model's variable by its path.

    Args:
        model: built.
        path: attributes from the model on, joined by dots; a number is a place in a list.

    Returns:
        The variable itself, not a copy.

    Raises:
        ValueError: if the path leads nowhere.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> tuple(variable_at(model, "layers.0.kernel").shape)
        (2, 3)
    """
    found: Any = model
    for part in path.split("."):
        try:
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        except (AttributeError, IndexError, TypeError):
            raise ValueError(
                f"path must lead to a variable of the model; got {path!r}, and a {type(found).__name__} has no {part}."
            ) from None
    return found


def gguf_llama_entries(config: LlamaConfig) -> list[Entry]:
    """Return the tensors of a GGUF file of the architecture "llama".

    Matrices are (out, in). In queries and keys the two numbers that turn together are neighbours in a head; for
    weights that turn i with i + K/2 they are brought back to there.

    Args:
        config: the model's.

    Returns:
        An entry for each tensor, and so for each weight of a `Llama` of this config.

    Reference: https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py, `LlamaModel.permute`.
    """
    width, heads, kv_heads, head = config.width, config.num_heads, config.kv_heads, config.head_width

    def turned(number: int) -> Arrange:
        return lambda matrix: into_heads(number, head)(halves_apart(matrix, number))

    pairs = turned if config.rotary_pairing == "half" else (lambda number: into_heads(number, head))
    entries = [_entry("token_embd.weight", (config.vocab_size, width), "embedding.embeddings")]
    for i in range(config.depth):
        block, name = f"stack.blocks.{i}", f"blk.{i}"
        attention, network = f"{block}.attention", f"{block}.feed_forward"
        queries, keys, wide = (heads * head, width), (kv_heads * head, width), (config.ffn_width, width)
        entries += [
            _entry(f"{name}.attn_norm.weight", (width,), f"{block}.attention_norm.scale"),
            _entry(f"{name}.attn_q.weight", queries, f"{attention}.query_dense.kernel", pairs(heads)),
            _entry(f"{name}.attn_k.weight", keys, f"{attention}.key_dense.kernel", pairs(kv_heads)),
            _entry(
                f"{name}.attn_v.weight", keys, f"{attention}.value_dense.kernel", into_heads(kv_heads, head)
            ),
            _entry(
                f"{name}.attn_output.weight",
                queries[::-1],
                f"{attention}.output_dense.kernel",
                out_of_heads(heads, head),
            ),
            _entry(f"{name}.ffn_norm.weight", (width,), f"{block}.feed_forward_norm.scale"),
            _entry(f"{name}.ffn_gate.weight", wide, f"{network}.gate.kernel", np.transpose),
            _entry(f"{name}.ffn_up.weight", wide, f"{network}.widen.kernel", np.transpose),
            _entry(f"{name}.ffn_down.weight", wide[::-1], f"{network}.narrow.kernel", np.transpose),
        ]
    entries.append(_entry("output_norm.weight", (width,), "stack.final_norm.scale"))
    if not config.tied:
        shape = (config.vocab_size, width)
        entries.append(_entry("output.weight", shape, "output_dense.kernel", np.transpose))
    return entries


def gpt2_entries(config: GPTConfig, prefix: str = "") -> list[Entry]:
    """Return the tensors of a safetensors file of GPT-2.

    Its matrices are (in, out), and `c_attn` has those of queries, keys and values side by side.

    Args:
        config: the model's.
        prefix: what stands before each name: "transformer." or nothing.

    Returns:
        An entry for each tensor, and so for each weight of a `GPT` of this config.
    """
    width, wide = config.width, config.ffn_width
    entries = [
        _entry(f"{prefix}wte.weight", (config.vocab_size, width), "embedding.embeddings"),
        _entry(f"{prefix}wpe.weight", (config.max_length, width), "embedding.position_embeddings"),
    ]
    for i in range(config.depth):
        block, name = f"stack.blocks.{i}", f"{prefix}h.{i}"
        attention, network = f"{block}.attention", f"{block}.feed_forward"
        entries += [
            *_norm(f"{name}.ln_1", width, f"{block}.attention_norm"),
            *_fused(f"{name}.attn.c_attn", config, attention),
            _entry(
                f"{name}.attn.c_proj.weight",
                (width, width),
                f"{attention}.output_dense.kernel",
                _reshaped(config.num_heads, config.head_width, width),
            ),
            _entry(f"{name}.attn.c_proj.bias", (width,), f"{attention}.output_dense.bias"),
            *_norm(f"{name}.ln_2", width, f"{block}.feed_forward_norm"),
            _entry(f"{name}.mlp.c_fc.weight", (width, wide), f"{network}.widen.kernel"),
            _entry(f"{name}.mlp.c_fc.bias", (wide,), f"{network}.widen.bias"),
            _entry(f"{name}.mlp.c_proj.weight", (wide, width), f"{network}.narrow.kernel"),
            _entry(f"{name}.mlp.c_proj.bias", (width,), f"{network}.narrow.bias"),
        ]
    entries += _norm(f"{prefix}ln_f", width, "stack.final_norm")
    if not config.tied:
        shape = (config.vocab_size, width)
        entries.append(_entry("lm_head.weight", shape, "output_dense.kernel", np.transpose))
    return entries


def bert_entries(
    config: BertConfig, prefix: str = "", norm_names: tuple[str, str] = ("weight", "bias")
) -> list[Entry]:
    """Return the tensors of a safetensors file of BERT, whose matrices are (out, in).

    Args:
        config: the model's.
        prefix: what stands before each name but the heads': "bert." or nothing.
        norm_names: what a norm's scale and offset are called: "weight" and "bias", or in old files "gamma" and "beta".

    Returns:
        An entry for each tensor, and so for each weight of a `Bert` of this config.
    """
    width, wide, table = config.width, config.ffn_width, f"{prefix}embeddings"
    entries = [
        _entry(f"{table}.word_embeddings.weight", (config.vocab_size, width), "embedding.embeddings"),
        _entry(
            f"{table}.position_embeddings.weight", (config.max_length, width), "embedding.position_embeddings"
        ),
        _entry(
            f"{table}.token_type_embeddings.weight", (config.segments, width), "segment_embedding.embeddings"
        ),
        *_norm(f"{table}.LayerNorm", width, "embedding_norm", norm_names),
    ]
    for i in range(config.depth):
        block, name = f"encoder.blocks.{i}", f"{prefix}encoder.layer.{i}"
        attention, network = f"{block}.attention", f"{block}.feed_forward"
        for part in ("query", "key", "value"):
            entries += _heads(f"{name}.attention.self.{part}", config, f"{attention}.{part}_dense")
        entries += [
            _entry(
                f"{name}.attention.output.dense.weight",
                (width, width),
                f"{attention}.output_dense.kernel",
                out_of_heads(config.num_heads, config.head_width),
            ),
            _entry(f"{name}.attention.output.dense.bias", (width,), f"{attention}.output_dense.bias"),
            *_norm(f"{name}.attention.output.LayerNorm", width, f"{block}.attention_norm", norm_names),
            *_dense(f"{name}.intermediate.dense", (wide, width), f"{network}.widen"),
            *_dense(f"{name}.output.dense", (width, wide), f"{network}.narrow"),
            *_norm(f"{name}.output.LayerNorm", width, f"{block}.feed_forward_norm", norm_names),
        ]
    if config.pooler:
        entries += _dense(f"{prefix}pooler.dense", (width, width), "pooler")
    if config.heads:
        entries += [
            *_dense("cls.predictions.transform.dense", (width, width), "token_dense"),
            *_norm("cls.predictions.transform.LayerNorm", width, "token_norm", norm_names),
            _entry("cls.predictions.bias", (config.vocab_size,), "token_bias"),
            *_dense("cls.seq_relationship", (2, width), "next_sentence_dense"),
        ]
    return entries


def into_heads(heads: int, head_width: int) -> Arrange:
    """Return what makes (D, H, K) of a matrix (H · K, D): the heads' outputs lie one after the other.

    Args:
        heads: H.
        head_width: K.

    Returns:
        A function from the one array to the other.
    """
    return lambda matrix: matrix.T.reshape(-1, heads, head_width)


def out_of_heads(heads: int, head_width: int) -> Arrange:
    """Return what makes (H, K, D) of a matrix (D, H · K).

    Args:
        heads: H.
        head_width: K.

    Returns:
        A function from the one array to the other.
    """
    return lambda matrix: matrix.T.reshape(heads, head_width, -1)


def halves_apart(matrix: NDArray, heads: int) -> NDArray:
    """Reorder the rows of each head, (H · K, D), so that rows 2i and 2i + 1 become rows i and i + K/2.

    Args:
        matrix: of shape (H · K, D).
        heads: H.

    Returns:
        The same rows in their new order, (H · K, D).

    Raises:
        ValueError: if the rows are not pairs for each head.

    Example:
        >>> halves_apart(np.arange(8)[:, None], heads=2)[:, 0].tolist()
        [0, 2, 1, 3, 4, 6, 5, 7]
    """
    if len(matrix) % (2 * heads):
        raise ValueError(f"matrix must have rows in pairs for each of {heads} heads; got {len(matrix)} rows.")
    pairs = matrix.reshape(heads, -1, 2, matrix.shape[-1])  # (H, K/2, 2, D)
    return pairs.swapaxes(1, 2).reshape(matrix.shape)


def _values(file: WeightsFile, entry: Entry) -> list[tf.Tensor]:
    """Return what a tensor fills its targets with; the decoded array is gone by then."""
    tensor = file.tensor(entry.name, entry.shape)
    return [tf.convert_to_tensor(target.arrange(tensor)) for target in entry.targets]


def _as_it_is(array: NDArray) -> NDArray:
    return array


def _reshaped(*shape: int) -> Arrange:
    return lambda array: array.reshape(shape)


def _entry(name: str, shape: tuple[int, ...], path: str, arrange: Arrange = _as_it_is) -> Entry:
    return Entry(name, shape, (Target(path, arrange),))


def _norm(name: str, width: int, path: str, names: tuple[str, str] = ("weight", "bias")) -> Iterator[Entry]:
    for theirs, ours in zip(names, ("scale", "offset"), strict=True):
        yield _entry(f"{name}.{theirs}", (width,), f"{path}.{ours}")


def _dense(name: str, shape: tuple[int, int], path: str) -> Iterator[Entry]:
    """Yield a matrix (out, in) and its bias."""
    yield _entry(f"{name}.weight", shape, f"{path}.kernel", np.transpose)
    yield _entry(f"{name}.bias", shape[:1], f"{path}.bias")


def _heads(name: str, config: BertConfig, path: str) -> Iterator[Entry]:
    """Yield a projection to heads: a matrix (H · K, D) and its bias."""
    heads, head = config.num_heads, config.head_width
    yield _entry(f"{name}.weight", (heads * head, config.width), f"{path}.kernel", into_heads(heads, head))
    yield _entry(f"{name}.bias", (heads * head,), f"{path}.bias", _reshaped(heads, head))


def _fused(name: str, config: GPTConfig, attention: str) -> Iterator[Entry]:
    """Yield the matrix (D, 3 · D) of queries, keys and values side by side, and their biases."""
    heads, head, width = config.num_heads, config.head_width, config.width

    def third(index: int, *shape: int) -> Arrange:
        return lambda array: np.split(array, 3, axis=-1)[index].reshape(shape)

    paths = [f"{attention}.{part}_dense" for part in ("query", "key", "value")]
    kernels = [Target(f"{path}.kernel", third(i, width, heads, head)) for i, path in enumerate(paths)]
    biases = [Target(f"{path}.bias", third(i, heads, head)) for i, path in enumerate(paths)]
    yield Entry(f"{name}.weight", (width, 3 * width), tuple(kernels))
    yield Entry(f"{name}.bias", (3 * width,), tuple(biases))
