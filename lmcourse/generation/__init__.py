"""Text from any `LanguageModel`: drawing tokens one by one, or searching for the most probable text.

`generate` continues many prompts at once, `stream` yields one continuation as it grows (`stream_text` its text), and
`beam_search` looks for probable ones. All ask the model through its decoder, so that a model with a cache is fast and
any other works. The transforms of a distribution can be used, and looked at, one by one. NumPy only.
"""

from lmcourse.generation.beam import Hypothesis, beam_search, length_normalizer
from lmcourse.generation.sampling import generate, sample_from, stream
from lmcourse.generation.streaming import TextStream, stream_text
from lmcourse.generation.transforms import (
    apply_temperature,
    forbid_repeated_ngrams,
    keep_top_k,
    keep_top_p,
    normalize,
    penalize_repetition,
)

__all__ = [
    "Hypothesis",
    "TextStream",
    "apply_temperature",
    "beam_search",
    "forbid_repeated_ngrams",
    "generate",
    "keep_top_k",
    "keep_top_p",
    "length_normalizer",
    "normalize",
    "penalize_repetition",
    "sample_from",
    "stream",
    "stream_text",
]
