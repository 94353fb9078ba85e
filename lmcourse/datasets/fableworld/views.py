"""Other tasks on the same stories, each with a known right answer or a known ceiling."""

import dataclasses
import random
from collections.abc import Sequence

from lmcourse.datasets.fableworld.grammar import parse
from lmcourse.datasets.fableworld.story import Span, Story, language_named


@dataclasses.dataclass(frozen=True)
class SentimentData:
    """Stories to be told happy from unhappy.

    Attributes:
        texts: the stories' texts.
        labels: 1 where it ended well and 0 where it did not, some of them flipped.
        true_labels: the same before the flips.
        bayes_accuracy: the expected accuracy, on `labels`, of whoever knows `true_labels`; none does better.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    true_labels: tuple[int, ...]
    bayes_accuracy: float


def sentiment(stories: Sequence[Story], noise: float = 0.1, seed: int = 0) -> SentimentData:
    """Return a data set for sentiment analysis with label noise of a known rate.

    The story says how its ending felt, so that the true label can always be read off. Each label is flipped
    independently with probability `noise`, which no reader can foresee: the Bayes accuracy is 1 - noise.

    Args:
        stories: the stories.
        noise: the probability that a label is wrong, from 0 to 0.5.
        seed: chooses which labels are flipped.

    Raises:
        ValueError: if noise is outside its range.
    """
    if not 0 <= noise <= 0.5:
        raise ValueError(
            f"noise must be between 0 and 0.5; got {noise}. Above it, the flipped label is true."
        )
    rng = random.Random(seed)
    true_labels = tuple(int(story.slots["ending"] == "good") for story in stories)
    labels = tuple(label ^ (rng.random() < noise) for label in true_labels)
    return SentimentData(tuple(story.text for story in stories), labels, true_labels, 1 - noise)


@dataclasses.dataclass(frozen=True)
class Entity:
    """A mention of a person, an animal or a place.

    Attributes:
        start: the index of its first token.
        stop: the index after its last token.
        type: "PERSON", "ANIMAL" or "PLACE".
        text: the words.
    """

    start: int
    stop: int
    type: str
    text: str


def entities(story: Story) -> tuple[Entity, ...]:
    """Return every mention of an entity, in order.

    Example:
        >>> from lmcourse.datasets.fableworld.story import generate
        >>> story = generate(1, seed=7)[0]
        >>> sorted({entity.type for entity in entities(story)})
        ['ANIMAL', 'PERSON', 'PLACE']
    """
    language = language_named(story.language)
    types = language.entities
    return tuple(
        Entity(
            span.start, span.stop, types[span.piece.form], language.join(story.tokens[span.start : span.stop])
        )
        for span in story.spans
        if span.piece.form in types
    )


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a story, whose answer stands in it.

    Attributes:
        question: the question.
        answer: the answer, as the story words it.
        start: the index of the answer's first token in the story, at its first mention.
        stop: the index after its last token.
    """

    question: str
    answer: str
    start: int
    stop: int


def questions(story: Story) -> tuple[Question, ...]:
    """Return questions about a story; each is answered by a span of its tokens."""
    language = language_named(story.language)
    found = []
    for template, answer in language.questions:
        span = _first_mention(story, answer)
        words = story.tokens[span.start : span.stop]
        asked = language.detokenize(language.render(template, story.slots))
        found.append(Question(asked, language.join(words), span.start, span.stop))
    return tuple(found)


def _first_mention(story: Story, template: str) -> Span:
    (piece,) = parse(template)
    wanted = piece.form, piece.slots
    return next(span for span in story.spans if (span.piece.form, span.piece.slots) == wanted)


def summary(story: Story) -> str:
    """Return the story in one sentence: who met whom, and what they had together."""
    language = language_named(story.language)
    return language.detokenize(language.render(language.summary, story.slots))
