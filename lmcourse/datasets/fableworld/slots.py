"""Slots, the choices a story is made of, and worlds, ordered collections of slots.

A world is a Bayesian network written in its own order: each slot is drawn given slots that stand before it.
"""

import bisect
import dataclasses
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Values = tuple[str, ...]

# The value of a slot that plays no part in this story (a speech, in a story where nobody speaks).
ABSENT = "absent"


@dataclasses.dataclass(frozen=True)
class Row:
    """A slot's distribution, its parents' values given.

    Attributes:
        values: the values that are possible.
        weights: their integer weights, all positive.
        cumulative: the running sums of the weights.
    """

    values: Values
    weights: tuple[int, ...]
    cumulative: tuple[int, ...]

    @functools.cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each value."""
        return tuple(weight / self.cumulative[-1] for weight in self.weights)

    @property
    def entropy_nats(self) -> float:
        """The entropy, in nats."""
        return -math.fsum(p * math.log(p) for p in self.probabilities)

    def draw(self, rng: random.Random) -> str:
        """Return a value; `rng.random()` is called once, whatever the row."""
        return self.values[bisect.bisect_right(self.cumulative, int(rng.random() * self.cumulative[-1]))]


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """One choice of a story.

    Attributes:
        name: what is chosen.
        values: what it can be.
        parents: the names of the slots that its distribution depends on; all stand before it in a world.
        weigh: the integer weight of each value, given the parents' values.
        phrasing: whether the choice is between ways of saying the same in one language.
    """

    name: str
    values: Values
    parents: Values
    weigh: Callable[..., Sequence[int]]
    phrasing: bool = False
    _rows: dict[Values, Row] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def row(self, given: Values) -> Row:
        """Return the distribution given the parents' values.

        Raises:
            ValueError: if the weights are not one non-negative integer a value, or all are zero.
        """
        row = self._rows.get(given)
        if row is None:
            row = self._rows[given] = _row(self, given)
        return row

    def narrowed(self, limit: int) -> "Slot":
        """Return the slot with at most `limit` possible values in each row, the first ones."""

        def weigh(*given: str) -> list[int]:
            possible = self.row(given)
            weights = dict(zip(possible.values[:limit], possible.weights, strict=False))
            return [weights.get(value, 0) for value in self.values]

        return dataclasses.replace(self, weigh=weigh)


def _row(slot: Slot, given: Values) -> Row:
    weights = tuple(slot.weigh(*given))
    if len(weights) != len(slot.values) or any(w != int(w) or w < 0 for w in weights) or not any(weights):
        raise ValueError(
            f"weigh of slot {slot.name!r} must give one non-negative integer for each of its "
            f"{len(slot.values)} values, not all zero; given {given} it gave {weights}."
        )
    kept = [(value, weight) for value, weight in zip(slot.values, weights, strict=True) if weight]
    positive = tuple(weight for _, weight in kept)
    return Row(tuple(value for value, _ in kept), positive, tuple(itertools.accumulate(positive)))


def independent(name: str, weights: Mapping[str, int], *, phrasing: bool = False) -> Slot:
    """Return a slot that depends on nothing.

    Example:
        >>> coin = independent("coin", {"heads": 1, "tails": 1})
        >>> round(coin.row(()).entropy_nats / math.log(2), 6)
        1.0
    """
    row = tuple(weights.values())
    return Slot(name, tuple(weights), (), lambda: row, phrasing)


def ways(name: str, **weights: int) -> Slot:
    """Return a slot that chooses between ways of saying the same."""
    return independent(name, weights, phrasing=True)


def tilted(name: str, parent: str, favourites: Mapping[str, Iterable[str]], *, boost: int) -> Slot:
    """Return a slot whose every value is possible whatever the parent's, but some are preferred.

    Args:
        name: the slot's name.
        parent: the slot it depends on.
        favourites: for each value of the parent, the values that it prefers.
        boost: the weight of a preferred value; the others weigh 1.
    """
    preferred = {given: frozenset(values) for given, values in favourites.items()}
    values = tuple(dict.fromkeys(itertools.chain.from_iterable(favourites.values())))
    return Slot(
        name, values, (parent,), lambda given: [boost if v in preferred[given] else 1 for v in values]
    )


def distinct(name: str, values: Iterable[str], others: Sequence[str]) -> Slot:
    """Return a slot drawn evenly from the values that no slot in `others` has taken."""
    values = tuple(values)
    return Slot(name, values, tuple(others), lambda *taken: [int(v not in taken) for v in values])


def only_if(slot: Slot, condition: str, value: str) -> Slot:
    """Return the slot as it is where `condition` has that value, and `ABSENT` elsewhere."""

    def weigh(given: str, *rest: str) -> Sequence[int]:
        return [*slot.weigh(*rest), 0] if given == value else [0] * len(slot.values) + [1]

    return Slot(slot.name, (*slot.values, ABSENT), (condition, *slot.parents), weigh, slot.phrasing)


class World:
    """Slots in an order in which each depends on earlier ones only.

    Attributes:
        slots: the slots by name, in that order.
    """

    def __init__(self, slots: Iterable[Slot]):
        """Take the slots.

        Raises:
            ValueError: if a name repeats, or a slot depends on one that is not before it.
        """
        self.slots: dict[str, Slot] = {}
        for slot in slots:
            missing = [parent for parent in slot.parents if parent not in self.slots]
            if slot.name in self.slots or missing:
                raise ValueError(
                    f"slot {slot.name!r} must have a name of its own and parents that stand before it; "
                    f"missing parents: {missing}."
                )
            self.slots[slot.name] = slot

    def draw(self, meaning: random.Random, phrasing: random.Random) -> dict[str, str]:
        """Draw a value for each slot.

        Args:
            meaning: the source for what the story says, so that it is the same in every language.
            phrasing: the source for how one language says it.
        """
        drawn: dict[str, str] = {}
        for name, slot in self.slots.items():
            given = tuple([drawn[parent] for parent in slot.parents])
            drawn[name] = slot.row(given).draw(phrasing if slot.phrasing else meaning)
        return drawn

    def log_probability_nats(self, assignment: Mapping[str, str]) -> float:
        """Return ln P of an assignment of a value to every slot, in nats; `-inf` where it is impossible."""
        total = 0.0
        for name, slot in self.slots.items():
            row = slot.row(tuple(assignment[parent] for parent in slot.parents))
            shares = dict(zip(row.values, row.probabilities, strict=True))
            if assignment[name] not in shares:
                return -math.inf
            total += math.log(shares[assignment[name]])
        return total

    def probability(self, values: Mapping[str, str]) -> float:
        """Return the probability that some slots have these values, whatever the others have.

        It sums over all that these slots depend on, and ignores the slots that nothing here depends on.

        Args:
            values: name to value.

        Raises:
            KeyError: if a name is not a slot's.
        """
        return self._mass([self.slots[name] for name in self.ancestors(values)], {}, values)

    def _mass(self, slots: list[Slot], drawn: dict[str, str], wanted: Mapping[str, str]) -> float:
        if not slots:
            return 1.0
        slot, *rest = slots
        row = slot.row(tuple([drawn[parent] for parent in slot.parents]))
        possible = zip(row.values, row.probabilities, strict=True)
        if slot.name in wanted:
            possible = [option for option in possible if option[0] == wanted[slot.name]]
        return math.fsum(
            [share * self._mass(rest, {**drawn, slot.name: value}, wanted) for value, share in possible]
        )

    def assignments(self, names: Iterable[str] | None = None) -> Iterator[tuple[dict[str, str], float]]:
        """Yield every assignment of values that is possible, with its probability.

        Args:
            names: the slots to assign, closed under parents; default all.
        """
        chosen = self.slots if names is None else set(names)
        yield from self._extensions([s for s in self.slots.values() if s.name in chosen], {}, 1.0)

    def _extensions(
        self, slots: list[Slot], drawn: dict[str, str], probability: float
    ) -> Iterator[tuple[dict[str, str], float]]:
        if not slots:
            yield dict(drawn), probability
            return
        slot, *rest = slots
        row = slot.row(tuple(drawn[parent] for parent in slot.parents))
        for value, share in zip(row.values, row.probabilities, strict=True):
            yield from self._extensions(rest, drawn | {slot.name: value}, probability * share)

    def ancestors(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the named slots and all they depend on, in the world's order."""
        found = set(names)
        for slot in reversed(self.slots.values()):
            if slot.name in found:
                found.update(slot.parents)
        return tuple(name for name in self.slots if name in found)

    @functools.cached_property
    def entropy_nats(self) -> float:
        """The entropy of an assignment in nats, by the chain rule: each slot's, given its parents."""
        return math.fsum(map(self.slot_entropy_nats, self.slots))

    def slot_entropy_nats(self, name: str) -> float:
        """Return the entropy of one slot given its parents, in nats."""
        slot = self.slots[name]
        return math.fsum(
            probability * slot.row(tuple(drawn[parent] for parent in slot.parents)).entropy_nats
            for drawn, probability in self.assignments(self.ancestors(slot.parents))
        )

    def reduced(self, free: Iterable[str]) -> "World":
        """Return a world small enough to enumerate: two values for the free slots, one for the others.

        Args:
            free: the names of the slots that keep two values (for any values of their parents).

        Raises:
            ValueError: if a name is not a slot's.
        """
        free = tuple(free)
        unknown = [name for name in free if name not in self.slots]
        if unknown:
            raise ValueError(f"free must name slots of the world; {unknown} are none of {list(self.slots)}.")
        return World(slot.narrowed(2 if name in free else 1) for name, slot in self.slots.items())
