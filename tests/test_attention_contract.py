"""Chapter 3's layers and language models under the contract of `contract.py`."""

from contract import Case, LanguageModelContract, LayerContract, floats, ids

from lmcourse.attention import (
    AdditiveScore,
    AttentionLanguageModel,
    MultiHeadAttention,
    MultiplicativeScore,
)


class TestLayers(LayerContract):
    cases = (
        Case("additive score", lambda: AdditiveScore(4), [floats(2, 3, 5), floats(2, 4, 6)]),
        Case("multiplicative score", MultiplicativeScore, [floats(2, 3, 5), floats(2, 4, 6)]),
        Case(
            "causal self-attention",
            lambda: MultiHeadAttention(2, 3),
            [floats(2, 5, 4)],
            kwargs={"use_causal_mask": True},
            causal=True,
            masked=lambda real: {"value_mask": real},
        ),
        Case(
            "grouped cross-attention with weights",
            lambda: MultiHeadAttention(4, 3, value_dim=2, num_kv_heads=2, use_bias=False, output_dim=7),
            [floats(2, 3, 5), floats(2, 4, 6)],
            kwargs={"return_weights": True},
        ),
    )


class TestModels(LanguageModelContract):
    cases = (
        Case(
            "window",
            lambda: AttentionLanguageModel(11, units=8, embedding_dim=6, num_heads=2, key_dim=3),
            [ids(2, 5, below=11)],
            causal=True,
        ),
        Case(
            "LSTM",
            lambda: AttentionLanguageModel(
                11, reader="lstm", units=8, embedding_dim=6, num_heads=1, key_dim=3
            ),
            [ids(2, 5, below=11)],
            causal=True,
        ),
    )
