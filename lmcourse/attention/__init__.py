"""Chapter 3: attention."""

from lmcourse.attention.chunked import chunked_attention
from lmcourse.attention.counting import AttentionSize
from lmcourse.attention.masks import causal_mask, padding_mask, prefix_mask, sliding_window_mask
from lmcourse.attention.multi_head import MultiHeadAttention
from lmcourse.attention.scores import (
    AdditiveScore,
    MultiplicativeScore,
    dot_product_scores,
    masked_softmax,
    scaled_dot_product_attention,
)

__all__ = [
    "AdditiveScore",
    "AttentionSize",
    "MultiHeadAttention",
    "MultiplicativeScore",
    "causal_mask",
    "chunked_attention",
    "dot_product_scores",
    "masked_softmax",
    "padding_mask",
    "prefix_mask",
    "scaled_dot_product_attention",
    "sliding_window_mask",
]
