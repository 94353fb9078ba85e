"""Fableworld: little fables drawn from a world in which the probability of every token is known.

A model trained on them can be compared with the floor: the surprisal of the true distribution, which no model
beats. `FableOracle` computes it exactly, and the labels of the tokens say where a model lies above it.

In reading order: `slots` (choices and worlds), `world` (what can happen in a fable), `grammar` (templates and
their automaton), `english` (the words), `story` (drawing and telling), `tokenizer`, `oracle`, `labels`
(the floor by phenomenon), `views` (other tasks on the same stories); then `french`, `chinese` and `parallel`.

The same stories are told in three languages, sentence by sentence, each with an oracle and a floor of its own.
What has to agree differs. In English it is little: articles, plurals, pronouns. In French the noun's gender
reaches articles and adjectives, and vowels elide. In Chinese the noun chooses the measure word that stands before
it, and words have no spaces between them, although every text has exactly one segmentation.

Example:
    >>> from lmcourse.datasets import fableworld
    >>> story = fableworld.generate(1, seed=7)[0]
    >>> fableworld.tokenize(story.text) == story.tokens
    True
    >>> oracle = fableworld.FableOracle()
    >>> ids = [oracle.tokenizer.encode(story.text)]
    >>> bool(oracle.token_log_probs(ids).sum() < 0)
    True
"""

from lmcourse.datasets.fableworld.grammar import END
from lmcourse.datasets.fableworld.labels import LABELS, LabelFloor, floor_by_label
from lmcourse.datasets.fableworld.oracle import MAX_HYPOTHESES, FableOracle
from lmcourse.datasets.fableworld.parallel import (
    Pair,
    Translator,
    exact_match_ceiling,
    parallel,
    translations,
)
from lmcourse.datasets.fableworld.slots import World
from lmcourse.datasets.fableworld.story import (
    LANGUAGES,
    Span,
    Split,
    Story,
    Teller,
    detokenize,
    full_world,
    generate,
    language_named,
    load,
    overlap,
    tokenize,
)
from lmcourse.datasets.fableworld.tokenizer import FableTokenizer
from lmcourse.datasets.fableworld.views import (
    Entity,
    Question,
    SentimentData,
    entities,
    questions,
    sentiment,
    summary,
)

__all__ = [
    "END",
    "LABELS",
    "LANGUAGES",
    "MAX_HYPOTHESES",
    "Entity",
    "FableOracle",
    "FableTokenizer",
    "LabelFloor",
    "Pair",
    "Question",
    "SentimentData",
    "Span",
    "Split",
    "Story",
    "Teller",
    "Translator",
    "World",
    "detokenize",
    "entities",
    "exact_match_ceiling",
    "floor_by_label",
    "full_world",
    "generate",
    "language_named",
    "load",
    "overlap",
    "parallel",
    "questions",
    "sentiment",
    "summary",
    "tokenize",
    "translations",
]
