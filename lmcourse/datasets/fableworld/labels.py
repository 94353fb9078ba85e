"""What each token of a story is an example of, and what the floor is made of.

Every token has exactly one label, written in the template that emits it. A choice costs its bits where it first
shows, which may be at a token of another label: "an" already tells much about the adjective that follows, and a
sentence that begins with a name has thereby chosen among the ways of telling it.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmcourse.core import NATS_PER_BIT, token_surprisals_nats

if TYPE_CHECKING:
    from lmcourse.datasets.fableworld.oracle import FableOracle
    from lmcourse.datasets.fableworld.story import Story

LABELS = {
    "syntax": "the frame of a sentence, and the choice between ways of saying the same",
    "agreement": "a form decided by another word: a or an, he or she, one pear or two pears",
    "copy-name": "the name of someone named before, 20 to 60 tokens earlier",
    "copy-attribute": "something told before, said again: an animal, a food, a colour",
    "sum": "the sum of two numbers, each told in a sentence of its own",
    "topic": "a word in keeping with something earlier: mostly the theme, which only the moral reveals",
    "noise": "a word that nothing before it makes likelier: first names, numbers, colours",
    "binding": "which of several guests wore a colour (in stories told with binding=True)",
}


@dataclasses.dataclass(frozen=True)
class LabelFloor:
    """What the tokens of one label cost a perfect predictor.

    Attributes:
        tokens: how many there are.
        bits: their surprisal, in bits, in all.
        share_of_tokens: their part of all tokens.
        share_of_bits: their part of all bits.
    """

    tokens: int
    bits: float
    share_of_tokens: float
    share_of_bits: float

    @property
    def bits_per_token(self) -> float:
        """The mean surprisal of a token of this label, in bits."""
        return self.bits / self.tokens


def floor_by_label(stories: Sequence["Story"], oracle: "FableOracle") -> dict[str, LabelFloor]:
    """Return the floor of each label, measured on stories.

    Args:
        stories: the stories, which the oracle's world can tell.
        oracle: their `FableOracle`.

    Raises:
        ValueError: if there is no story, or one that the oracle holds to be impossible.
    """
    if not stories:
        raise ValueError("stories must hold at least one story; got none.")
    surprisals = token_surprisals_nats(oracle, [oracle.tokenizer.ids_of(story.tokens) for story in stories])
    bits = dict.fromkeys(LABELS, 0.0)
    tokens = dict.fromkeys(LABELS, 0)
    for story, nats in zip(stories, surprisals, strict=True):
        for label, surprisal in zip(story.labels, nats, strict=True):
            bits[label] += float(surprisal) / NATS_PER_BIT
            tokens[label] += 1
    all_bits, all_tokens = sum(bits.values()), sum(tokens.values())
    if all_bits == float("inf"):
        raise ValueError("stories must be possible in the oracle's world; was one told with binding=True?")
    return {
        label: LabelFloor(tokens[label], bits[label], tokens[label] / all_tokens, bits[label] / all_bits)
        for label in LABELS
        if tokens[label]
    }
