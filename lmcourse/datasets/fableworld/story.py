"""Stories: drawing them, telling them, and splitting them into training and test sets."""

import dataclasses
import functools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

from lmcourse.datasets.fableworld import world as fable_world
from lmcourse.datasets.fableworld.chinese import CHINESE
from lmcourse.datasets.fableworld.english import ENGLISH
from lmcourse.datasets.fableworld.french import FRENCH
from lmcourse.datasets.fableworld.grammar import Automaton, Language, Node, Piece
from lmcourse.datasets.fableworld.slots import World

LANGUAGES: dict[str, Language] = {language.code: language for language in (ENGLISH, FRENCH, CHINESE)}

Split = Literal["train", "validation", "test"]

# Seeds stay below this, so that the seed of the phrasing (a language's code above it) never is one of them.
SEED_LIMIT = 2**64


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a story that a form made of slots.

    Attributes:
        start: the index of its first token.
        stop: the index after its last token.
        piece: the form, the slots it took, and the label of its tokens.
    """

    start: int
    stop: int
    piece: Piece


@dataclasses.dataclass(frozen=True)
class Story:
    """A story, and all that is known of how it came about.

    Attributes:
        slots: the value of every slot.
        tokens: the canonical tokens, the end token included.
        labels: the phenomenon of each token: a key of `LABELS`.
        spans: the parts made of slots, in order.
        sentence_stops: the index after each sentence's last token; the end token stands after the last one.
        language: the language's code.
    """

    slots: Mapping[str, str]
    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    sentence_stops: tuple[int, ...]
    language: str

    @property
    def text(self) -> str:
        """The story as a book prints it, without the end token."""
        return LANGUAGES[self.language].detokenize(self.tokens)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences, each as a book prints it."""
        starts = (0, *self.sentence_stops[:-1])
        detokenize = LANGUAGES[self.language].detokenize
        return tuple(
            detokenize(self.tokens[start:stop])
            for start, stop in zip(starts, self.sentence_stops, strict=True)
        )


def language_named(code: str) -> Language:
    """Return a language by its code.

    Raises:
        ValueError: if Fableworld does not speak it.
    """
    if code not in LANGUAGES:
        raise ValueError(f"language must be one of {list(LANGUAGES)}; got {code!r}.")
    return LANGUAGES[code]


def full_world(language: str = "en", *, binding: bool = False) -> World:
    """Return the world of a language's stories: what can happen, then how it can be said.

    Args:
        language: the language's code.
        binding: whether guests with attributes of their own join in; see `generate`.
    """
    meaning = fable_world.meaning(binding=binding)
    return World([*meaning.slots.values(), *language_named(language).phrasing(binding)])


class Teller:
    """Tells the stories of a world in a language.

    Attributes:
        world: the slots; `World.reduced` gives worlds with fewer values.
        language: how it is told.
        automaton: the sentences, compiled.
    """

    def __init__(self, world: World, language: Language):
        """Compile the language's sentences for the world."""
        self.world = world
        self.language = language
        binding = fable_world.GUESTS[0] in world.slots
        self.automaton = Automaton(world, language.sentences(binding), language.forms)

    def tell(self, slots: Mapping[str, str]) -> Story:
        """Return the one story with these slots."""
        told = list(self._walk(slots))
        nodes = [node for _, node in told]
        return Story(
            slots,
            tokens=tuple([token for token, _ in told]),
            labels=tuple([node.piece.label for node in nodes]),
            spans=_spans(nodes),
            sentence_stops=tuple(
                [i for i, (a, b) in enumerate(pairwise(nodes), 1) if a.sentence != b.sentence]
            ),
            language=self.language.code,
        )

    def _walk(self, slots: Mapping[str, str]) -> Iterator[tuple[str, Node]]:
        """Yield each token with the node that emits it."""
        node: Node | None = self.automaton.start
        while node is not None:
            arc = node.arcs[tuple([slots[name] for name in node.reads])]
            if arc.token is not None:
                yield arc.token, node
            node = arc.next

    def stories(self, seed: int) -> Iterator[Story]:
        """Yield stories without end, the same ones for the same seed.

        The meanings of the stories are the same in every language.
        """
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"seed must be between 0 and 2**64 - 1; got {seed}.")
        meaning = random.Random(seed)
        phrasing = random.Random(int.from_bytes(self.language.code.encode(), "big") * SEED_LIMIT + seed)
        while True:
            yield self.tell(self.world.draw(meaning, phrasing))


def _spans(nodes: Sequence[Node]) -> tuple[Span, ...]:
    spans = []
    for start, node in enumerate(nodes):
        if node.reads and node.offset == 0:
            stop = start + 1
            while nodes[stop].offset:  # the end token's node has offset 0
                stop += 1
            spans.append(Span(start, stop, node.piece))
    return tuple(spans)


@functools.lru_cache(maxsize=8)
def teller(language: str = "en", *, binding: bool = False) -> Teller:
    """Return the teller of the full world."""
    return Teller(full_world(language, binding=binding), language_named(language))


def generate(count: int, seed: int, language: str = "en", *, binding: bool = False) -> list[Story]:
    """Draw stories independently of each other.

    All randomness is two `random.Random(seed).random()`, one for what happens and one for how it is said, so
    that the stories are the same on every platform and Python version.

    Args:
        count: how many stories.
        seed: from 0 to 2**64 - 1; the first stories do not depend on count. Seeds 3 * s, 3 * s + 1 and 3 * s + 2
            draw the training, validation and test stories that `load` gives for seed s: do not train on seed 2
            and test on `load("test")`.
        language: the language's code.
        binding: whether three guests in three colours join in and are later told apart by colour; the label
            "binding" marks the names that need it. The dialogue is then left out.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> story = generate(1, seed=7)[0]
        >>> story.tokens[-1], len(story.tokens) == len(story.labels)
        ('<end>', True)
        >>> tuple(LANGUAGES["en"].tokenize(story.text)) == story.tokens
        True
    """
    if count < 0:
        raise ValueError(f"count must not be negative; got {count}.")
    stories = teller(language, binding=binding).stories(seed)
    return [story for story, _ in zip(stories, range(count), strict=False)]


def load(
    split: Split = "train",
    *,
    tokens: int | None = None,
    stories: int | None = None,
    seed: int = 0,
    language: str = "en",
    binding: bool = False,
) -> list[Story]:
    """Return stories of one split; the splits of a seed are drawn from seeds of their own, named in `generate`.

    Give one of `tokens` and `stories`.

    Args:
        split: "train", "validation" or "test".
        tokens: take the stories whose tokens, end tokens included, first reach this number.
        stories: take this many stories.
        seed: from 0 to 2**64 // 3 - 1; chooses the three splits.
        language: the language's code.
        binding: see `generate`.

    Raises:
        ValueError: if an argument is out of its range, or not exactly one size is given.
    """
    splits = get_args(Split)
    if split not in splits:
        raise ValueError(f"split must be one of {splits}; got {split!r}.")
    if (tokens is None) == (stories is None):
        raise ValueError(f"give exactly one of tokens and stories; got tokens={tokens}, stories={stories}.")
    seeds = SEED_LIMIT // len(splits)
    if not 0 <= seed < seeds:
        raise ValueError(f"seed must be between 0 and {seeds - 1}; got {seed}.")
    split_seed = len(splits) * seed + splits.index(split)
    if stories is not None:
        return generate(stories, split_seed, language, binding=binding)
    return _until(teller(language, binding=binding).stories(split_seed), tokens)


def _until(stories: Iterable[Story], tokens: int) -> list[Story]:
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1; got {tokens}.")
    taken, total = [], 0
    for story in stories:
        taken.append(story)
        total += len(story.tokens)
        if total >= tokens:
            break
    return taken


def overlap(test: Sequence[Story], train: Sequence[Story]) -> int:
    """Return how many of the test stories occur, word for word, among the training stories."""
    seen = {story.tokens for story in train}
    return sum(story.tokens in seen for story in test)


def tokenize(text: str, language: str = "en", *, end: bool = True) -> tuple[str, ...]:
    """Return the canonical tokens of a text.

    Args:
        text: a story, or several on lines of their own.
        language: the language's code.
        end: whether the text is complete: False for a prompt that a model is to continue.

    Example:
        >>> tokenize("“We all have much to learn, Otto,” said the mole.")[:3]
        ('“', 'we', 'all')
    """
    return language_named(language).tokenize(text, end)


def detokenize(tokens: Iterable[str], language: str = "en") -> str:
    """Return the text of canonical tokens; an end token between stories becomes a line break."""
    return language_named(language).detokenize(tokens)
