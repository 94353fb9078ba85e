"""Make transformer.npz: tiny random models of other libraries, with what they compute, to compare the course's with.

Run `python tests/reference/make_transformer.py OUT.npz` where torch, transformers, keras and keras-hub are installed
(an environment of its own: the course needs none of torch, transformers and keras-hub). The tests read the
stored file, so nobody has to run this but to renew it. `about` in the file, a JSON text, gives the versions, the
date and the seed.

Every array is float32, int32 or bool. The weights are random, norms' scales and biases too, so that whatever
is left out shows; each is exactly a float16 number, which keeps the file small. A model's keys begin with its name:

- `gpt2`: GPT2LMHeadModel. Vocabulary 40, width 16, 2 layers, 4 heads, hidden 64, 24 positions, gelu_new (the tanh
  form), epsilon 1e-5, tied.
- `llama`: LlamaForCausalLM. Vocabulary 40, width 32, 2 layers, 4 query and 2 key/value heads of 8, hidden 48, epsilon
  1e-3 (larger than usual, so that a wrong one shows), rotary of base 10000 with half-split pairs, tied.
- `llama_base_100000`: the same weights and ids with that base: only outputs.
- `bert`: BertForPreTraining. Vocabulary 40, width 16, 2 layers, 4 heads, hidden 32, 24 positions, exact
  gelu, epsilon 1e-12.
- `encoder_decoder/post`, `encoder_decoder/pre`: torch.nn.Transformer, 2 + 2 layers, width 16, 4 heads, hidden 32, relu,
  epsilon 1e-5, norms after the residual additions or before each sublayer. As in the paper, `post` has no norm behind
  the stacks (torch's default would add one); `pre` has one behind each.

Of each model:

- `NAME/weights/KEY`: the state_dict under its own keys. torch's Linear is (out, in); GPT-2's Conv1D is (in, out), and
  its `c_attn` holds queries, keys and values side by side in that order; torch's `in_proj_weight` is
  (3 * width, width), the three above one another. Heads are contiguous slices of a projection's outputs. A bias of
  the keys is the one weight that changes nothing: it adds the same to all of a query's scores.
- `NAME/ids`: int32 (B, T); the first of each row is 0. `NAME/mask`: bool (B, T), True on tokens; without it all are.
- `NAME/logits`: float32 (B, T, 40), of the token that follows each position.
- `NAME/hidden/I`: float32 (B, T, width): 0 is what enters the first block, 1 what leaves it; the last one is
  the last block's behind the final norm, where there is one.
- `NAME/greedy`: int32 (B, 8): the likeliest continuation of each prompt `NAME/prompts/I`, which begins with 0; the
  runner-up is at least 1e-3 nats behind at each step.

`bert` has `segments` (B, T), `logits` of the masked-token head, `next_sentence` (B, 2), of which class 0 is "B
follows A", and `pooled` (B, width); its ids begin with 1. Compare logits where the mask is True.

`encoder_decoder/*` has `source_ids`, `source_mask` (B, S), `target_ids`, `target_mask` (B, T), both masks on the right;
`source`, `target`: what enters the stacks, embedding * sqrt(width) + sinusoidal encoding, with the tables
`weights/source_embedding` and `weights/target_embedding` (40, width); `memory` (B, S, width), the encoder's output;
`output` (B, T, width), the decoder's; `logits`: output @ target_embedding.T. Compare where the masks are True.

Parts:

- `sinusoidal`: (12, 16), keras_hub's SinePositionEncoding: sine in even columns, cosine in odd ones.
- `rotary/input` (2, 6, 3, 8): (B, T, heads, K), at positions 5 to 10. `rotary/half/BASE`: keras_hub's RotaryEmbedding;
  `rotary/interleaved/10000`: transformers' GPT-J.
- `alibi/4`, `/8`, `/12`: each head's slope, from the `build_alibi_tensor` of transformers' BLOOM.
- `activation/input` (25,) and torch's `activation/relu`, `/gelu`, `/gelu_tanh`, `/silu` of it.
"""

import datetime
import json
import math
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import keras_hub
import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj import modeling_gptj

SEED = 2017
VOCABULARY, POSITIONS = 40, 24
LIBRARIES = ["torch", "transformers", "keras", "keras-hub", "numpy"]


def main(path: Path) -> None:
    torch.manual_seed(SEED)
    arrays = {"about": np.array(json.dumps(about()))}
    with torch.no_grad():
        for made in (gpt2(), llama(), bert(), encoder_decoders(), parts()):
            arrays |= {key: stored(value) for key, value in made.items()}
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(arrays)} arrays, {path.stat().st_size:,} bytes")


def about() -> dict[str, object]:
    return {
        "made_by": "tests/reference/make_transformer.py",
        "date": str(datetime.date.today()),
        "seed": SEED,
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def stored(value: torch.Tensor | np.ndarray) -> np.ndarray:
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    kinds = {"f": np.float32, "i": np.int32, "b": np.bool_}
    return array.astype(kinds[array.dtype.kind])


def gpt2() -> dict[str, object]:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        n_embd=16,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=None,
    )
    model = randomised(transformers.GPT2LMHeadModel(config), SEED)
    ids = random_ids((3, 11), SEED)
    return weights_of(model, "gpt2") | causal_outputs(model, "gpt2", ids) | greedy(model, "gpt2")


def llama() -> dict[str, object]:
    values: dict[str, object] = {}
    ids = random_ids((3, 11), SEED + 1)
    for name, base in (("llama", 10_000.0), ("llama_base_100000", 100_000.0)):
        config = transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=POSITIONS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-3,
            rope_parameters={"rope_type": "default", "rope_theta": base},
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=None,
        )
        model = randomised(transformers.LlamaForCausalLM(config), SEED + 1)
        if name == "llama":
            values |= weights_of(model, name)
        values |= causal_outputs(model, name, ids) | greedy(model, name)
    return values


def bert() -> dict[str, object]:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = randomised(transformers.BertForPreTraining(config), SEED + 2)
    mask = np.arange(11) < np.array([[11], [7], [4]])  # (B, T)
    segments = mask & (np.arange(11) >= np.array([[6], [3], [4]]))  # the last row is one sentence
    ids = np.where(mask, random_ids((3, 11), SEED + 2, first=1), 0)
    result = model(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask.astype(int)),
        token_type_ids=torch.tensor(segments.astype(int)),
        output_hidden_states=True,
    )
    hidden = {f"bert/hidden/{i}": state for i, state in enumerate(result.hidden_states)}
    return (
        weights_of(model, "bert")
        | hidden
        | {
            "bert/ids": ids,
            "bert/mask": mask,
            "bert/segments": segments.astype(int),
            "bert/logits": result.prediction_logits,
            "bert/next_sentence": result.seq_relationship_logits,
            "bert/pooled": model.bert.pooler(result.hidden_states[-1]),
        }
    )


def encoder_decoders() -> dict[str, object]:
    values: dict[str, object] = {}
    for norm_first in (False, True):
        name = f"encoder_decoder/{'pre' if norm_first else 'post'}"
        values |= {f"{name}/{key}": value for key, value in encoder_decoder(norm_first).items()}
    return values


def encoder_decoder(norm_first: bool) -> dict[str, object]:
    width = 16
    options = {"dropout": 0.0, "activation": "relu", "batch_first": True, "norm_first": norm_first}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(width, 4, 32, **options),
        num_layers=2,
        norm=nn.LayerNorm(width) if norm_first else None,
        enable_nested_tensor=False,
    )
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(width, 4, 32, **options),
        num_layers=2,
        norm=nn.LayerNorm(width) if norm_first else None,
    )
    model = nn.Transformer(
        width, 4, custom_encoder=encoder, custom_decoder=decoder, batch_first=True, dropout=0.0
    )
    randomised(model, SEED + 3)
    tables = {
        f"{side}_embedding": torch.tensor(draw((VOCABULARY, width), SEED + 4 + i, 0.3))
        for i, side in enumerate(("source", "target"))
    }
    source_mask = torch.arange(9) < torch.tensor([[9], [5], [7]])  # (B, S)
    target_mask = torch.arange(7) < torch.tensor([[4], [7], [6]])  # (B, T)
    source_ids = torch.tensor(random_ids((3, 9), SEED + 6)) * source_mask
    target_ids = torch.tensor(random_ids((3, 7), SEED + 7)) * target_mask
    source = tables["source_embedding"][source_ids] * math.sqrt(width) + sinusoidal(9, width)
    target = tables["target_embedding"][target_ids] * math.sqrt(width) + sinusoidal(7, width)
    memory = model.encoder(source, src_key_padding_mask=~source_mask)
    output = model.decoder(
        target,
        memory,
        tgt_mask=torch.ones(7, 7).triu(1).bool(),  # True where attending is forbidden
        tgt_key_padding_mask=~target_mask,
        memory_key_padding_mask=~source_mask,
    )
    weights = {f"weights/{key}": value for key, value in {**model.state_dict(), **tables}.items()}
    return weights | {
        "source_ids": source_ids,
        "source_mask": source_mask,
        "target_ids": target_ids,
        "target_mask": target_mask,
        "source": source,
        "target": target,
        "memory": memory,
        "output": output,
        "logits": output @ tables["target_embedding"].T,
    }


def parts() -> dict[str, object]:
    x = torch.tensor(draw((2, 6, 3, 8), SEED + 8, 1.0))
    grid = torch.linspace(-6, 6, 25)
    slopes = {f"alibi/{heads}": alibi_slopes(heads) for heads in (4, 8, 12)}
    return slopes | {
        "sinusoidal": sinusoidal(12, 16),
        "rotary/input": x,
        "rotary/half/10000": keras_hub.layers.RotaryEmbedding(10_000)(x, start_index=5),
        "rotary/half/100000": keras_hub.layers.RotaryEmbedding(100_000)(x, start_index=5),
        "rotary/interleaved/10000": rotate_pairs_of_neighbours(x, start=5),
        "activation/input": grid,
        "activation/relu": nn.functional.relu(grid),
        "activation/gelu": nn.functional.gelu(grid),
        "activation/gelu_tanh": nn.functional.gelu(grid, approximate="tanh"),
        "activation/silu": nn.functional.silu(grid),
    }


def sinusoidal(length: int, width: int) -> torch.Tensor:
    return keras_hub.layers.SinePositionEncoding()(torch.zeros(1, length, width))[0]


def alibi_slopes(heads: int) -> torch.Tensor:
    return build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]


def rotate_pairs_of_neighbours(x: torch.Tensor, start: int) -> torch.Tensor:
    """Rotate x (B, T, heads, K) as GPT-J does, whose base is 10000."""
    length, width = x.shape[1], x.shape[3]
    table = modeling_gptj.create_sinusoidal_positions(POSITIONS, width)[start : start + length]
    sine, cosine = table[None].chunk(2, dim=-1)
    return modeling_gptj.apply_rotary_pos_emb(x, sine, cosine)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Set every parameter at random: matrices around zero, a norm's scales around one."""
    generator = np.random.default_rng(seed)
    for name, weight in model.named_parameters():  # tied ones come once
        is_scale = weight.ndim == 1 and not name.endswith("bias")
        centre = 1.0 if is_scale else 0.0
        values = centre + 0.3 * generator.standard_normal(weight.shape)
        weight.data = torch.tensor(as_float16(values))
    return model.eval()


def draw(shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    return as_float16(scale * np.random.default_rng(seed).standard_normal(shape))


def as_float16(values: np.ndarray) -> np.ndarray:
    """Round to numbers that float16 has, as float32."""
    return values.astype(np.float16).astype(np.float32)


def random_ids(shape: tuple[int, int], seed: int, first: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, shape)
    ids[:, 0] = first
    return ids


def weights_of(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}/weights/{key}": value for key, value in model.state_dict().items()}


def causal_outputs(model: nn.Module, name: str, ids: np.ndarray) -> dict[str, object]:
    result = model(torch.tensor(ids), output_hidden_states=True)
    hidden = {f"{name}/hidden/{i}": state for i, state in enumerate(result.hidden_states)}
    return hidden | {f"{name}/ids": ids, f"{name}/logits": result.logits}


def greedy(model: nn.Module, name: str, tokens: int = 8) -> dict[str, object]:
    """Continue prompts of different lengths, each alone, by the likeliest token."""
    prompts = [random_ids((1, length), SEED + 10 + length)[0] for length in (1, 4, 9)]
    continuations = []
    for prompt in prompts:
        ids = torch.tensor(prompt)[None]
        for _ in range(tokens):
            best = model(ids).logits[0, -1].topk(2)
            assert best.values[0] - best.values[1] > 1e-3, (
                f"{name}: a tie would make the test depend on rounding"
            )
            ids = torch.cat([ids, best.indices[:1][None]], dim=1)
        continuations.append(ids[0, len(prompt) :])
    stored_prompts = {f"{name}/prompts/{i}": prompt for i, prompt in enumerate(prompts)}
    return stored_prompts | {f"{name}/greedy": torch.stack(continuations)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    assert keras.backend.backend() == "torch", "set KERAS_BACKEND=torch"
    main(Path(sys.argv[1]))
