"""The exact distribution of the next token of a story: the floor under every model.

The oracle reads a story as the generator wrote it, but without knowing the slots. It keeps every hypothesis
about where in the automaton the story is and what the slots read so far are, with its probability given the
tokens read. Three rules keep the hypotheses few:

- A slot is opened, its values told apart, only at the node that first needs it to decide a token.
- A slot that no later token depends on is forgotten, and hypotheses that differ only there are merged.
- Whether a slot is open at a node is the same for all hypotheses, so that it is known when compiling.

This is the forward algorithm of a hidden Markov model whose states are built as they are met.

Letters for shapes: `B` rows, `T` time, `V` vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import Decoder, LanguageModel, check_ids
from lmcourse.datasets.fableworld.grammar import Automaton, Node
from lmcourse.datasets.fableworld.slots import World
from lmcourse.datasets.fableworld.story import Teller, language_named, teller
from lmcourse.datasets.fableworld.tokenizer import FableTokenizer

# Far more would mean that a language opens slots too early; FableOracle refuses to go on.
MAX_HYPOTHESES = 512

# A node's index, and the values of the slots that are open there, in the order of the node's layout.
State = tuple[int, tuple[str, ...]]
Belief = dict[State, float]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """One thing that can happen at a node, with its probability and the values of the slots it opens."""

    probability: float
    token: str | None
    next: int | None
    opened: tuple[str, ...]


class _Station:
    """A node with what is statically known of the slots there.

    Attributes:
        layout: the open slots, in the world's order.
        opens: the slots that the node opens, parents before children.
        key: where in the layout the values stand that its outcomes depend on.
        carries: for each next node, which of layout + opens it takes over, by position.
    """

    def __init__(self, node: Node, layout: tuple[str, ...], world: World):
        self.node = node
        self.layout = layout
        unread = [name for name in node.reads if name not in layout]
        self.opens = _unopened(unread, layout, world)
        needed = {*node.reads, *(p for name in self.opens for p in world.slots[name].parents)}
        self.key = [i for i, name in enumerate(layout) if name in needed]
        self.carries: dict[int, list[int]] = {}
        self._known = [layout[i] for i in self.key]
        self._world = world
        self._outcomes: dict[tuple[str, ...], list[_Outcome]] = {}

    def outcomes(self, values: tuple[str, ...]) -> list[_Outcome]:
        """Return what can happen, given the values of the open slots."""
        key = tuple([values[i] for i in self.key])
        found = self._outcomes.get(key)
        if found is None:
            found = self._outcomes[key] = list(self._enumerate(dict(zip(self._known, key, strict=True))))
        return found

    def _enumerate(self, known: dict[str, str]) -> Iterator[_Outcome]:
        for drawn, probability in _openings(self.opens, known, self._world):
            arc = self.node.arcs[tuple(drawn[name] for name in self.node.reads)]
            following = None if arc.next is None else arc.next.index
            yield _Outcome(probability, arc.token, following, tuple(drawn[name] for name in self.opens))


def _unopened(names: Sequence[str], layout: Sequence[str], world: World) -> tuple[str, ...]:
    """Return these slots and those of their ancestors that must be opened with them."""
    found = set(names)
    for slot in reversed(world.slots.values()):
        if slot.name in found:
            found.update(parent for parent in slot.parents if parent not in layout)
    return tuple(name for name in world.slots if name in found)


def _openings(
    names: Sequence[str], known: dict[str, str], world: World
) -> Iterator[tuple[dict[str, str], float]]:
    """Yield each way to open the slots: all values now known, and the probability."""
    if not names:
        yield known, 1.0
        return
    slot = world.slots[names[0]]
    row = slot.row(tuple(known[parent] for parent in slot.parents))
    for value, share in zip(row.values, row.probabilities, strict=True):
        for drawn, probability in _openings(names[1:], known | {slot.name: value}, world):
            yield drawn, share * probability


def _stations(automaton: Automaton, world: World) -> list[_Station]:
    """Return the station of each node, found by following the story from its start."""
    reads_ahead = _reads_ahead(automaton)
    layouts: dict[int, tuple[str, ...]] = {automaton.start.index: ()}
    stations: dict[int, _Station] = {}
    for node in reversed(automaton.nodes):
        station = stations[node.index] = _Station(node, layouts[node.index], world)
        joined = (*station.layout, *station.opens)
        for following in _successors(node):
            needed = {*reads_ahead[following], *_parents_needed(reads_ahead[following], joined, world)}
            layout = tuple(name for name in world.slots if name in needed and name in joined)
            if layouts.setdefault(following, layout) != layout:
                raise ValueError(
                    "sentences must open the same slots in each way of telling them; one way before "
                    f"{automaton.nodes[following].piece} opens {layout}, another {layouts[following]}."
                )
            station.carries[following] = [joined.index(name) for name in layout]
    return [stations[node.index] for node in automaton.nodes]


def _successors(node: Node) -> list[int]:
    """Return the indices of the nodes that an arc leads to, each once, in order."""
    return sorted({arc.next.index for arc in node.arcs.values() if arc.next is not None})


def _reads_ahead(automaton: Automaton) -> list[frozenset[str]]:
    """Return, for each node, the slots that it or a later node reads."""
    ahead: list[frozenset[str]] = []
    for node in automaton.nodes:  # later nodes of the story come first
        ahead.append(frozenset(node.reads).union(*(ahead[i] for i in _successors(node))))
    return ahead


def _parents_needed(names: frozenset[str], opened: Sequence[str], world: World) -> set[str]:
    """Return the slots that the distribution of those of `names` that are not open yet depends on."""
    opening = _unopened([name for name in names if name not in opened], opened, world)
    return {parent for name in opening for parent in world.slots[name].parents}


class FableOracle(LanguageModel):
    """The language model that Fableworld's stories are drawn from, over the ids of `FableTokenizer`.

    Probabilities are exact up to the rounding of float64. A sequence of tokens that begins no story has
    probability zero: the first impossible token and every one after it score `-inf`, and the distribution
    after it, like that after the end token, is `-inf` everywhere (there is nothing to sum to one).

    Attributes:
        vocab_size: V, the size of the tokenizer's vocabulary.
        tokenizer: the `FableTokenizer` of the language.
        world: the slots.

    Example:
        >>> oracle = FableOracle()
        >>> prompt = oracle.tokenizer.encode("Long", end=False)
        >>> oracle.tokenizer.decode([int(oracle.next_log_probs([prompt])[0].argmax())])
        'Ago'

    Reference: Rabiner 1989, "A tutorial on hidden Markov models", Proc. IEEE 77(2), section III.A (the
    forward procedure).
    """

    def __init__(self, language: str = "en", *, binding: bool = False, world: World | None = None):
        """Compile the oracle of a language.

        Args:
            language: the language's code.
            binding: whether the stories are told with binding; see `generate`.
            world: the slots, if not those of the full world; `World.reduced` makes smaller ones.

        Raises:
            ValueError: if Fableworld does not speak the language.
        """
        told_by = (
            teller(language, binding=binding) if world is None else Teller(world, language_named(language))
        )
        self.world = told_by.world
        self.tokenizer = FableTokenizer(language)
        self.vocab_size = self.tokenizer.vocab_size
        self._stations = _stations(told_by.automaton, self.world)
        self._start: Belief = {(told_by.automaton.start.index, ()): 1.0}
        self._ids = {token: i for i, token in enumerate(self.tokenizer.tokens)}

    def entropy_per_story_nats(self) -> float:
        """Return the entropy of a story in nats: that of its slots, because telling loses nothing."""
        return self.world.entropy_nats

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return ln P of each token given those to its left, (B, T), in nats; 0 where masked."""
        ids, mask = check_ids(ids, self.vocab_size, mask)
        log_probs = np.zeros(ids.shape)
        for row, (tokens, counts) in enumerate(zip(ids, mask, strict=True)):
            length = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
            log_probs[row, :length] = self._score(tokens[:length])
        return np.where(mask, log_probs, 0.0)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return ln P of each possible next token, (B, V), in nats; `-inf` where it is impossible."""
        return self.decoder(prefixes).log_probs()

    def decoder(self, prefixes: Sequence[Sequence[int]]) -> "OracleDecoder":
        """Return a decoder that keeps its hypotheses from token to token."""
        return OracleDecoder(self, prefixes)

    def hypotheses(self, prefix: Sequence[int]) -> list[tuple[dict[str, str], float]]:
        """Return what the oracle holds possible after a prefix: the open slots, and the probability.

        A slot that is not named has not been needed yet, or is needed no more.
        """
        belief = self._belief_after(prefix)
        return [
            (dict(zip(self._stations[node].layout, values, strict=True)), probability)
            for (node, values), probability in belief.items()
        ]

    def _score(self, ids: NDArray[np.int64]) -> list[float]:
        belief = self._start
        scores = []
        for token in ids:
            probability, belief = self._advance(belief, self.tokenizer.tokens[token])
            scores.append(math.log(probability) if probability else -math.inf)
        return scores

    def _belief_after(self, prefix: Sequence[int]) -> Belief:
        belief = self._start
        ids, _ = check_ids([list(prefix)], self.vocab_size)
        for token in ids[0]:
            _, belief = self._advance(belief, self.tokenizer.tokens[token])
        return belief

    def _advance(self, belief: Belief, token: str) -> tuple[float, Belief]:
        """Return the token's probability, and the belief once it is read."""
        following: Belief = {}
        ended = 0.0
        for probability, _, state in self._emissions(belief, only=token):
            if state is None:
                ended += probability
            else:
                following[state] = following.get(state, 0.0) + probability
        if len(following) > MAX_HYPOTHESES:
            raise AssertionError(
                f"{len(following)} hypotheses are alive after {token!r}; at most {MAX_HYPOTHESES} may be."
            )
        total = math.fsum(following.values()) + ended
        return total, {state: probability / total for state, probability in following.items()}

    def _distribution(self, belief: Belief) -> NDArray[np.float64]:
        """Return ln P of each next token, (V,)."""
        probabilities = np.zeros(self.vocab_size)
        for probability, token, _ in self._emissions(belief):
            probabilities[self._ids[token]] += probability
        with np.errstate(divide="ignore"):
            return np.log(probabilities)

    def _emissions(
        self, belief: Belief, only: str | None = None
    ) -> Iterator[tuple[float, str, State | None]]:
        """Yield what can come next: its probability, the token, and the state it leads to.

        Args:
            belief: the states the story may be in.
            only: the one token to consider, or None for all.
        """
        pending = list(belief.items())
        while pending:
            (index, values), weight = pending.pop()
            station = self._stations[index]
            for outcome in station.outcomes(values):
                if only is not None and outcome.token is not None and outcome.token != only:
                    continue
                probability = weight * outcome.probability
                if outcome.next is None:
                    yield probability, outcome.token, None
                    continue
                joined = values + outcome.opened
                state = outcome.next, tuple([joined[i] for i in station.carries[outcome.next]])
                if outcome.token is None:
                    pending.append((state, probability))
                else:
                    yield probability, outcome.token, state


class OracleDecoder(Decoder):
    """Generation in progress: each row's hypotheses, extended token by token."""

    def __init__(self, oracle: FableOracle, prefixes: Sequence[Sequence[int]]):
        """Read the prefixes."""
        self._oracle = oracle
        self._beliefs = [oracle._belief_after(prefix) for prefix in prefixes]

    def log_probs(self) -> NDArray[np.float64]:
        """Return ln P(next token) for each row, (B, V), in nats."""
        rows = [self._oracle._distribution(belief) for belief in self._beliefs]
        return np.array(rows).reshape(len(rows), self._oracle.vocab_size)

    def append(self, ids: Sequence[int]) -> None:
        """Extend each row by one token."""
        if len(ids) != len(self._beliefs):
            raise ValueError(
                f"ids must have one entry for each of the {len(self._beliefs)} rows; got {len(ids)}."
            )
        column, _ = check_ids(np.asarray(ids).reshape(-1, 1), self._oracle.vocab_size)
        tokens = [self._oracle.tokenizer.tokens[i] for i in column[:, 0]]
        self._beliefs = [
            self._oracle._advance(belief, token)[1]
            for belief, token in zip(self._beliefs, tokens, strict=True)
        ]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self._beliefs = [self._beliefs[row] for row in rows]
