"""Parallel text: the same happenings told in two languages, sentence by sentence.

Every language tells a story in the same sentences, so that passages line up one to one. A translation of a whole
story is a function of it up to the target's synonyms, whose weights are known: so is the best rate of exact
matches that any translator can reach, `exact_match_ceiling`.

A passage of fewer sentences leaves more undetermined than the synonyms: whatever the target must say and the
source says elsewhere. From English to French that is one thing. « The donkey » is « l’âne » or « l’ânesse », by
the sex of somebody whose name stands in another sentence: so it is for the speaker in either line of the
dialogue, if a bear, a lamb, a donkey, a fox, a cat or a duck. (In return, French may meet the friend without a
word of the hero, where English needs "he" or "she".) `translations` lists what remains possible, with the
probabilities that follow from the passage, and the ceiling allows for it.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from lmcourse.datasets.fableworld import world as fable_world
from lmcourse.datasets.fableworld.grammar import END, Piece, parse
from lmcourse.datasets.fableworld.slots import ABSENT, Row, Values
from lmcourse.datasets.fableworld.story import Split, Story, Teller, load, teller

Tokens = tuple[str, ...]

# A piece of the source passage, and the tokens it became: all that the passage says of the piece's slots.
Evidence = tuple[Piece, Tokens]


@dataclasses.dataclass(frozen=True)
class Pair:
    """One meaning, told in two languages.

    Attributes:
        source: the story to translate.
        target: a translation.
    """

    source: Story
    target: Story

    def passages(self, sentences: int | None = 1) -> list[tuple[Tokens, Tokens]]:
        """Cut both stories into passages of so many consecutive sentences.

        Args:
            sentences: how many; the last passage has fewer where they do not come out even. None: all, in one.

        Returns:
            Pairs of the source's and the target's canonical tokens, each closed by the end token.

        Raises:
            ValueError: if sentences is below 1.

        Example:
            >>> passages = parallel("test", stories=1)[0].passages()
            >>> all(source[-1] == target[-1] == "<end>" for source, target in passages)
            True
        """
        parts = [_cut(story, sentences) for story in (self.source, self.target)]
        return list(zip(*parts, strict=True))


def _cut(story: Story, sentences: int | None) -> list[Tokens]:
    _check_sentences(sentences)
    stops = story.sentence_stops
    size = sentences or len(stops)
    ends = [*stops[size - 1 :: size], stops[-1]] if len(stops) % size else stops[size - 1 :: size]
    return [(*story.tokens[start:stop], END) for start, stop in zip((0, *ends[:-1]), ends, strict=True)]


def _check_sentences(sentences: int | None) -> None:
    if sentences is not None and sentences < 1:
        raise ValueError(f"sentences must be at least 1, or None for all; got {sentences}.")


def parallel(
    split: Split = "train",
    *,
    source: str = "en",
    target: str = "fr",
    stories: int,
    seed: int = 0,
    binding: bool = False,
) -> list[Pair]:
    """Return stories of a split with their translations.

    The stories are those that `load` gives in either language.

    Args:
        split: "train", "validation" or "test".
        source: the code of the language to translate from.
        target: the code of the language to translate to.
        stories: how many.
        seed: chooses the three splits; see `load`.
        binding: whether guests join in; see `generate`.

    Raises:
        ValueError: if an argument is out of its range, or both languages are the same.

    Example:
        >>> pair = parallel("test", stories=1)[0]
        >>> pair.source.language, pair.target.language, pair.source.slots["hero"] == pair.target.slots["hero"]
        ('en', 'fr', True)
    """
    if source == target:
        raise ValueError(f"target must be another language than source; got {target!r} for both.")
    told = (
        load(split, stories=stories, seed=seed, language=code, binding=binding) for code in (source, target)
    )
    return [Pair(*stories_told) for stories_told in zip(*told, strict=True)]


def translations(
    story: Story, language: str = "fr", *, first: int = 0, sentences: int | None = None
) -> dict[Tokens, float]:
    """Return every right translation of a passage, with its probability given the passage.

    A whole story has tens of thousands, one for each combination of synonyms.

    Args:
        story: the story that the passage is from.
        language: the code of the language to translate to.
        first: the passage's first sentence, from 0.
        sentences: how many sentences it has; None: all that follow.

    Raises:
        ValueError: if the story has no such passage.

    Example:
        >>> from lmcourse.datasets.fableworld.story import detokenize, generate
        >>> story = generate(1, seed=1)[0]
        >>> story.sentences[5]
        'Then Emil put the figs into the white basket and counted five.'
        >>> for tokens, probability in translations(story, first=5, sentences=1).items():
        ...     print(round(probability, 3), detokenize(tokens, "fr"))
        0.333 Emil mit les figues dans le panier blanc et en compta cinq.
        0.333 Emil ouvrit le panier blanc : cela faisait cinq figues en tout.
        0.333 Emil regarda dans le panier blanc et compta cinq figues en tout.
    """
    return _translator_of(story, language).translations(story, first, sentences)


def exact_match_ceiling(pairs: Sequence[Pair], sentences: int | None = 1) -> float:
    """Return the expected share of passages that the best translator gets word for word.

    It knows the weights of all synonyms and everything that the passage says, and gives the likeliest
    translation each time. No translator of single passages does better, except by chance.

    Args:
        pairs: parallel stories; the passages are those of `Pair.passages`.
        sentences: how many sentences a passage has; None: the whole story.

    Raises:
        ValueError: if there are no pairs, or sentences is below 1.

    Example:
        >>> ceiling = exact_match_ceiling(parallel("test", stories=20))
        >>> 0.3 < ceiling < 0.7
        True
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair; got none.")
    _check_sentences(sentences)
    ceilings = []
    for pair in pairs:
        count = len(pair.source.sentence_stops)
        translator = _translator_of(pair.source, pair.target.language)
        for first in range(0, count, sentences or count):
            ceilings.append(translator.ceiling(pair.source, first, sentences))
    return math.fsum(ceilings) / len(ceilings)


def _translator_of(story: Story, language: str) -> "Translator":
    return _translator(story.language, language, fable_world.GUESTS[0] in story.slots)


@functools.lru_cache(maxsize=8)
def _translator(source: str, target: str, binding: bool) -> "Translator":
    return Translator(teller(source, binding=binding), teller(target, binding=binding))


class Translator:
    """Knows what a passage in one language says, and every way to say it in another.

    Attributes:
        source: tells the stories to translate.
        target: tells the translations; its world has the same meanings.
    """

    def __init__(self, source: Teller, target: Teller):
        """Take the two tellers."""
        self.source = source
        self.target = target
        binding = fable_world.GUESTS[0] in source.world.slots
        self._from = source.language.sentences(binding)
        self._to = target.language.sentences(binding)
        self._consistent = functools.cache(self._consistent_values)

    def translations(self, story: Story, first: int = 0, sentences: int | None = None) -> dict[Tokens, float]:
        """Return every translation of a passage with its probability; see the function of this name."""
        numbers = self._numbers(story, first, sentences)
        table: Counter[Tokens] = Counter()
        for slots, probability in self._readings(story, numbers):
            for ways, share in self._ways(numbers, slots):
                table[self._tell(numbers, slots | ways)] += probability * share
        return dict(table)

    def ceiling(self, story: Story, first: int = 0, sentences: int | None = None) -> float:
        """Return the probability of the likeliest translation of a passage."""
        numbers = self._numbers(story, first, sentences)
        readings = self._readings(story, numbers)
        if len(readings) > 1:
            return max(self.translations(story, first, sentences).values())
        # Synonyms are chosen independently, and no two choices give the same text.
        ((slots, _),) = readings
        return math.prod(max(row.probabilities) for row in self._phrasing_rows(numbers, slots).values())

    def _numbers(self, story: Story, first: int, sentences: int | None) -> range:
        """Return the numbers of the passage's sentences, those left out between them included."""
        _check_sentences(sentences)
        told = [
            number
            for number, sentence in enumerate(self._from)
            if sentence.templates[story.slots[sentence.chosen_by]]
        ]
        if not 0 <= first < len(told):
            raise ValueError(
                f"first must be from 0 to {len(told) - 1}, a sentence of the story; got {first}."
            )
        last = len(told) if sentences is None else min(first + sentences, len(told))
        return range(told[first], told[last - 1] + 1)

    def _readings(self, story: Story, numbers: range) -> list[tuple[dict[str, str], float]]:
        """Return what the passage may mean, as far as the target says it: slots, and the probability.

        The slots are the story's own, but for those that the target needs and the passage leaves open.
        """
        evidence = [
            (piece, piece.tokens(self.source.language.forms, (story.slots[name] for name in piece.slots)))
            for number in numbers
            for piece in parse(self._from[number].templates[story.slots[self._from[number].chosen_by]])
            if piece.slots
        ]
        chosen = {
            self._from[number].chosen_by: story.slots[self._from[number].chosen_by] for number in numbers
        }
        domains = self._domains(evidence) | {name: (value,) for name, value in chosen.items()}
        open_pieces = [
            piece
            for piece in self._target_pieces(numbers, story.slots)
            if not self._told(piece, evidence, domains)
        ]
        if not open_pieces:
            return [(dict(story.slots), 1.0)]
        return self._weighed(story, evidence, domains, open_pieces)

    def _domains(self, evidence: Sequence[Evidence]) -> dict[str, Values]:
        """Return, for each slot of the evidence, the values that no single piece of it rules out."""
        domains: dict[str, Values] = {}
        while True:
            before = dict(domains)
            for piece, tokens in evidence:
                rows = [
                    row
                    for row in self._consistent(piece, tokens)
                    if all(
                        value in domains.get(name, row) for name, value in zip(piece.slots, row, strict=True)
                    )
                ]
                for name, values in zip(piece.slots, zip(*rows, strict=True), strict=True):
                    domains[name] = tuple(dict.fromkeys(values))
            if domains == before:
                return domains

    def _consistent_values(self, piece: Piece, tokens: Tokens) -> list[Values]:
        """Return the values of the piece's slots that give these tokens."""
        return [
            values
            for values in itertools.product(*(self._values(name) for name in piece.slots))
            if piece.tokens(self.source.language.forms, values) == tokens
        ]

    def _values(self, name: str) -> Values:
        slots = self.source.world.slots if name in self.source.world.slots else self.target.world.slots
        return tuple(value for value in slots[name].values if value != ABSENT)

    def _target_pieces(self, numbers: range, slots: Mapping[str, str]) -> list[Piece]:
        """Return the pieces of all ways to tell the sentences that the meaning leaves to the target."""
        pieces: dict[Piece, None] = {}
        for number in numbers:
            sentence = self._to[number]
            ways = (
                sentence.templates.values()
                if self.target.world.slots[sentence.chosen_by].phrasing
                else [sentence.templates[slots[sentence.chosen_by]]]
            )
            pieces.update(dict.fromkeys(piece for way in ways for piece in parse(way) if piece.slots))
        return list(pieces)

    def _meaning(self, piece: Piece) -> list[str]:
        return [name for name in piece.slots if not self.target.world.slots[name].phrasing]

    def _told(self, piece: Piece, evidence: Sequence[Evidence], domains: Mapping[str, Values]) -> bool:
        """Return whether the evidence leaves the target piece one outcome only."""
        names = self._meaning(piece)
        if all(len(domains.get(name, ())) == 1 for name in names):
            return True
        about = [
            (source, tokens)
            for source, tokens in evidence
            if all(name in names or len(domains[name]) == 1 for name in source.slots)
        ]
        outcomes = {self._outcome(piece, slots) for slots in self._assignments(names, about, domains)}
        return len(outcomes) == 1

    def _assignments(
        self, names: Sequence[str], evidence: Sequence[Evidence], domains: Mapping[str, Values]
    ) -> Iterator[dict[str, str]]:
        """Yield the values of the slots, and of those with one value left, that agree with the evidence."""
        settled = {name: values[0] for name, values in domains.items() if len(values) == 1}
        unsettled = [name for name in names if name not in settled]
        forms = self.source.language.forms
        for values in itertools.product(*(domains.get(name, self._values(name)) for name in unsettled)):
            slots = settled | dict(zip(unsettled, values, strict=True))
            if all(
                piece.tokens(forms, (slots[n] for n in piece.slots)) == tokens for piece, tokens in evidence
            ):
                yield slots

    def _outcome(self, piece: Piece, slots: Mapping[str, str]) -> tuple[Tokens, ...]:
        """Return the piece's tokens for each choice of phrasing that it takes."""
        choices = [
            (slots[name],) if not self.target.world.slots[name].phrasing else self._values_of_target(name)
            for name in piece.slots
        ]
        return tuple(
            piece.tokens(self.target.language.forms, values) for values in itertools.product(*choices)
        )

    def _values_of_target(self, name: str) -> Values:
        return tuple(value for value in self.target.world.slots[name].values if value != ABSENT)

    def _weighed(
        self,
        story: Story,
        evidence: Sequence[Evidence],
        domains: Mapping[str, Values],
        open_pieces: Sequence[Piece],
    ) -> list[tuple[dict[str, str], float]]:
        """Return one reading for each outcome of the open pieces, by Bayes' rule."""
        names = dict.fromkeys(name for piece, _ in evidence for name in piece.slots)
        names.update(dict.fromkeys(name for piece in open_pieces for name in self._meaning(piece)))
        masses: Counter[tuple] = Counter()
        examples: dict[tuple, dict[str, str]] = {}
        for slots in self._assignments(list(names), evidence, domains):
            mass = self.source.world.probability(slots)
            if mass:
                outcome = tuple(self._outcome(piece, slots) for piece in open_pieces)
                masses[outcome] += mass
                examples[outcome] = dict(story.slots) | slots
        total = math.fsum(masses.values())
        return [(examples[outcome], mass / total) for outcome, mass in masses.items()]

    def _phrasing_rows(self, numbers: range, slots: Mapping[str, str]) -> dict[str, Row]:
        """Return the distribution of each choice of phrasing in the passage, given the meaning."""
        names = {self._to[number].chosen_by for number in numbers}
        names.update(name for piece in self._target_pieces(numbers, slots) for name in piece.slots)
        return {
            name: slot.row(tuple(slots[parent] for parent in slot.parents))
            for name, slot in self.target.world.slots.items()
            if name in names and slot.phrasing
        }

    def _ways(self, numbers: range, slots: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        """Yield every choice of phrasing, with its probability."""
        rows = self._phrasing_rows(numbers, slots)
        options = [list(zip(row.values, row.probabilities, strict=True)) for row in rows.values()]
        for option in itertools.product(*options):
            ways = dict(zip(rows, (value for value, _ in option), strict=True))
            yield ways, math.prod(share for _, share in option)

    def _tell(self, numbers: range, slots: Mapping[str, str]) -> Tokens:
        told = [
            token
            for number in numbers
            for token in self.target.language.render(
                self._to[number].templates[slots[self._to[number].chosen_by]], slots
            )
        ]
        return (*told, END)
