"""How slots become words: templates, and the automaton compiled from them.

A template is written as it reads, for instance

    one {topic:word(weather)} {noise:word(time)} {agreement:he(hero)} set out .

A word stands for itself; `{label:form(slot, ...)}` is what a language's form makes of the slots' values, one
token or several, labelled with its phenomenon (`syntax` where no label is written).

The automaton has one node a token. Its arc, chosen by the values of the slots that the node reads, says which
token comes and where it leads. The generator walks it with all values known; the oracle, with few of them.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from lmcourse.datasets.fableworld.labels import LABELS
from lmcourse.datasets.fableworld.slots import ABSENT, Slot, World

END = "<end>"

Form = Callable[..., str]

_PIECE = re.compile(r"\{(?:(?P<label>[\w-]+):)?(?P<form>\w+)\((?P<slots>[\w, ]+)\)\}|(?P<word>\S+)")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a template.

    Attributes:
        label: the phenomenon its tokens belong to.
        form: the name of the form, or the word itself if `slots` is empty.
        slots: the slots whose values the form takes.
    """

    label: str
    form: str
    slots: tuple[str, ...] = ()

    def tokens(self, forms: Mapping[str, Form], values: Iterable[str]) -> tuple[str, ...]:
        """Return the tokens, given the values of the slots."""
        return tuple(forms[self.form](*values).split()) if self.slots else (self.form,)


@functools.cache
def parse(template: str) -> tuple[Piece, ...]:
    """Return the pieces of a template.

    Raises:
        ValueError: if a label is unknown.

    Example:
        >>> parse("the {copy-attribute:word(hero_kind)}")[1]
        Piece(label='copy-attribute', form='word', slots=('hero_kind',))
    """
    pieces = []
    for match in _PIECE.finditer(template):
        label = match["label"] or "syntax"
        if label not in LABELS:
            raise ValueError(f"template {template!r} must use labels among {list(LABELS)}; got {label!r}.")
        if match["word"]:
            pieces.append(Piece(label, match["word"]))
        else:
            pieces.append(Piece(label, match["form"], tuple(re.findall(r"\w+", match["slots"]))))
    return tuple(pieces)


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One sentence of the story, in each of the ways it can be told.

    Attributes:
        chosen_by: the slot that says which way.
        templates: the template for each of its values; an empty one leaves the sentence out.
    """

    chosen_by: str
    templates: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Language:
    """All that Fableworld needs to know of a language.

    Attributes:
        code: its ISO 639-1 code.
        forms: name to function; it takes slots' values and returns words with spaces between.
        phrasing: the slots that choose between ways of saying the same, given whether guests come (binding).
        sentences: the sentences of a story, given the same.
        tokenize: text to canonical tokens; whether to close with the end token is its second argument.
        detokenize: canonical tokens to text.
        questions: pairs of a question's template and the piece that is its answer.
        summary: the template of a summary in one sentence.
        entities: for the name of a form, the type of the entity it mentions.
        join: the tokens of a mention or an answer, which is no sentence, to text.
    """

    code: str
    forms: Mapping[str, Form]
    phrasing: Callable[[bool], Sequence[Slot]]
    sentences: Callable[[bool], Sequence[Sentence]]
    tokenize: Callable[[str, bool], tuple[str, ...]]
    detokenize: Callable[[Iterable[str]], str]
    questions: Sequence[tuple[str, str]]
    summary: str
    entities: Mapping[str, str]
    join: Callable[[Iterable[str]], str] = " ".join

    def render(self, template: str, slots: Mapping[str, str]) -> tuple[str, ...]:
        """Return the tokens of a template that stands outside the story."""
        return tuple(
            token
            for piece in parse(template)
            for token in piece.tokens(self.forms, (slots[name] for name in piece.slots))
        )


@dataclasses.dataclass(frozen=True)
class Arc:
    """Where a node leads: the token it emits (None: none) and the next node (None: the story is over)."""

    token: str | None
    next: "Node | None"


@dataclasses.dataclass(eq=False)
class Node:
    """A point of the story at which the next token is decided.

    Attributes:
        index: smaller than the index of every node that can come before it.
        reads: the slots whose values decide.
        arcs: the arc for each combination of values, in the order of `reads`.
        piece: what is being told, or None at the choice between ways of telling a sentence.
        offset: how many tokens of the piece have been told before.
        sentence: the number of the sentence, from 0; the end token stands after all of them.
    """

    index: int
    reads: tuple[str, ...]
    arcs: dict[tuple[str, ...], Arc]
    piece: Piece | None
    offset: int
    sentence: int


class Automaton:
    """The sentences of a story, compiled.

    Attributes:
        nodes: every node, those of the story's end first.
        start: where a story begins.
    """

    def __init__(self, world: World, sentences: Sequence[Sentence], forms: Mapping[str, Form]):
        """Compile the sentences, last to first, so that each node is made after those it leads to."""
        self._world = world
        self._forms = forms
        self.nodes: list[Node] = []
        entry = self._add((), {(): Arc(END, None)}, Piece("syntax", END), 0, len(sentences))
        for number in reversed(range(len(sentences))):
            entry = self._sentence(sentences[number], number, entry)
        self.start = entry

    def _add(
        self,
        reads: tuple[str, ...],
        arcs: dict[tuple[str, ...], Arc],
        piece: Piece | None,
        offset: int,
        sentence: int,
    ) -> Node:
        node = Node(len(self.nodes), reads, arcs, piece, offset, sentence)
        self.nodes.append(node)
        return node

    def _sentence(self, sentence: Sentence, number: int, following: Node) -> Node:
        arcs = {}
        for (value,) in self._combinations((sentence.chosen_by,)):
            entry = following
            for piece in reversed(parse(sentence.templates[value])):
                entry = self._piece(piece, number, entry)
            arcs[(value,)] = Arc(None, entry)
        return self._add((sentence.chosen_by,), arcs, None, 0, number)

    def _piece(self, piece: Piece, number: int, following: Node) -> Node:
        told = {
            values: piece.tokens(self._forms, values)
            for values in self._combinations(piece.slots)
            if ABSENT not in values  # the sentence that would tell such a slot is left out
        }
        entry = following
        for offset in reversed(range(max(map(len, told.values())))):
            arcs = {
                values: Arc(tokens[offset], entry) if offset < len(tokens) else Arc(None, following)
                for values, tokens in told.items()
            }
            entry = self._add(piece.slots, arcs, piece, offset, number)
        return entry

    def _combinations(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        return list(itertools.product(*(self._world.slots[name].values for name in names)))
