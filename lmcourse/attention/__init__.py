"""Chapter 3: attention.

In reading order: `scores` (how well a query matches a key, and the mixture that follows), `masks`, `multi_head`,
`counting` (parameters and operations), `chunked` (the same in linear memory), `cost` (time and memory, measured),
`language_model` (a window and one look back), `copying` (the head that points at names; weights against occlusion),
`pairs`, `translation_model` and `seq2seq` (translation), `explorer` (heads as pictures).
"""

from lmcourse.attention.chunked import chunked_attention
from lmcourse.attention.copying import (
    Copying,
    Occlusion,
    copying_heads,
    draw_occlusion,
    earlier_columns,
    occlusion,
)
from lmcourse.attention.cost import Cost, fit_exponent, measure_cost
from lmcourse.attention.counting import AttentionSize
from lmcourse.attention.explorer import HeadExplorer, draw_alignment, draw_heads
from lmcourse.attention.language_model import AttentionLanguageModel, head_weights
from lmcourse.attention.masks import causal_mask, padding_mask, prefix_mask, sliding_window_mask
from lmcourse.attention.multi_head import MultiHeadAttention
from lmcourse.attention.pairs import PairBatches, TranslationScores, score_translations
from lmcourse.attention.scores import (
    AdditiveScore,
    MultiplicativeScore,
    dot_product_scores,
    masked_softmax,
    scaled_dot_product_attention,
)
from lmcourse.attention.seq2seq import Seq2Seq
from lmcourse.attention.translation_model import GivenSource, TranslationGraphs, TranslationModel

__all__ = [
    "AdditiveScore",
    "AttentionLanguageModel",
    "AttentionSize",
    "Copying",
    "Cost",
    "GivenSource",
    "HeadExplorer",
    "MultiHeadAttention",
    "MultiplicativeScore",
    "Occlusion",
    "PairBatches",
    "Seq2Seq",
    "TranslationGraphs",
    "TranslationModel",
    "TranslationScores",
    "causal_mask",
    "chunked_attention",
    "copying_heads",
    "dot_product_scores",
    "draw_alignment",
    "draw_heads",
    "draw_occlusion",
    "earlier_columns",
    "fit_exponent",
    "head_weights",
    "masked_softmax",
    "measure_cost",
    "occlusion",
    "padding_mask",
    "prefix_mask",
    "scaled_dot_product_attention",
    "score_translations",
    "sliding_window_mask",
]
