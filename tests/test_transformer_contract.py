"""Chapter 4's layers and language models under the contract of `contract.py`."""

from contract import Case, LanguageModelContract, LayerContract, floats, ids

from lmcourse.transformer import (
    GPT,
    FeedForward,
    GPTConfig,
    LayerNorm,
    Llama,
    LlamaConfig,
    RMSNorm,
    SelfAttention,
    StackConfig,
    TokenEmbedding,
    TransformerBlock,
    TransformerDecoder,
    TransformerEncoder,
)

# One block each: that blocks stand upon one another is proved by reference values, and each costs time here.
SIZES = {"width": 8, "depth": 1, "num_heads": 2, "hidden_dim": 12, "initializer_stddev": 0.3}
LLAMA = {"num_kv_heads": 1, "activation": "swiglu", "norm": "rms", "use_bias": False, "positions": "rotary"}
PRE, POST = StackConfig(**SIZES), StackConfig(**SIZES, norm_first=False, activation="relu")
ROTARY, ALIBI = StackConfig(**SIZES, **LLAMA), StackConfig(**SIZES, positions="alibi")

ROWS = [floats(2, 5, 8)]
WITH_MEMORY = [floats(2, 5, 8), floats(2, 3, 8, seed=1)]
EMPTY = (([floats(2, 0, 8)], "(2, 0, 8)"),)
WRONG = (*EMPTY, ([floats(2, 5, 7)], "(2, 5, 7)"))


def keys(real):
    """Return the mask of positions, (B, T), as one of pairs of a query and a key."""
    return {"mask": real[:, None, None, :]}


def positions(real):
    return {"mask": real}


class TestLayers(LayerContract):
    cases = (
        # Norms take any rank: they see the last axis alone.
        Case("LayerNorm", LayerNorm, [floats(2, 5, 8)], bad_ranks=False),
        Case("RMSNorm", RMSNorm, [floats(2, 5, 8)], bad_ranks=False),
        *(
            Case(f"FeedForward, {name}", lambda name=name: FeedForward(12, name), ROWS)
            for name in ("relu", "gelu", "gelu_tanh", "swiglu")
        ),
        Case(
            "SelfAttention, grouped",
            lambda: SelfAttention(4, 2, num_kv_heads=2, use_bias=False),
            ROWS,
            masked=keys,
            wrong=EMPTY,
        ),
        Case(
            "block with weights",
            lambda: TransformerBlock(PRE),
            ROWS,
            kwargs={"return_weights": True},
            masked=keys,
            wrong=WRONG,
        ),
        Case("block, post-norm", lambda: TransformerBlock(POST), ROWS, masked=keys),
        Case(
            "block with memory and weights",
            lambda: TransformerBlock(PRE, True),
            WITH_MEMORY,
            kwargs={"return_weights": True},
            masked=keys,
        ),
        Case("encoder, alibi", lambda: TransformerEncoder(ALIBI), ROWS, masked=positions, wrong=WRONG),
        Case("decoder, rotary", lambda: TransformerDecoder(ROTARY), ROWS, causal=True, masked=positions),
        Case(
            "decoder with memory, post-norm",
            lambda: TransformerDecoder(POST, True),
            WITH_MEMORY,
            causal=True,
            masked=positions,
        ),
        Case(
            "TokenEmbedding, learned",
            lambda: TokenEmbedding(11, 6, StackConfig(**SIZES, positions="learned")),
            [ids(2, 5, below=11)],
            wrong=(([ids(2, 7, below=11)], "max_length = 6"), ([ids(2, 5, below=11) + 11], "vocab_size - 1")),
        ),
        Case(
            "TokenEmbedding, sinusoidal, scaled",
            lambda: TokenEmbedding(11, 6, StackConfig(**SIZES, positions="sinusoidal")),
            [ids(2, 5, below=11)],
        ),
    )


def gpt(**choices):
    config = GPTConfig(**{**SIZES, "vocab_size": 11, "max_length": 12, **choices})
    return lambda: GPT(config)


def model(name, make, trained=True):
    rows = [ids(2, 5, below=11)]
    wrong = (([ids(2, 13, below=11)], "max_length = 12"), ([ids(2, 5, below=11) + 11], "vocab_size - 1"))
    return Case(name, make, rows, causal=True, wrong=wrong, trained=trained)


class TestModels(LanguageModelContract):
    cases = (
        model("GPT, learned", gpt(positions="learned")),
        model(
            "GPT, sinusoidal, post-norm, untied",
            gpt(positions="sinusoidal", norm_first=False, tied=False, start_id=3),
        ),
        model("GPT, alibi", gpt(positions="alibi"), trained=False),
        model("GPT, none", gpt(positions="none"), trained=False),
        model(
            "Llama, rotary", lambda: Llama(LlamaConfig(**SIZES, num_kv_heads=1, vocab_size=11, max_length=12))
        ),
    )
