"""Which head points at the name that is being repeated, and what a prediction loses without each token.

Letters for shapes: `B` rows, `T` time (tokens in a row), `H` heads.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lmcourse import plotting
from lmcourse.attention.language_model import head_weights
from lmcourse.core import LanguageModel, check_ids

# Stories whose weights are held at once: (B, H, T, T) of 64 stories and 4 heads is 15 MiB.
STORIES_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Copying:
    """How much weight each head puts on the earlier occurrences of the token it has to repeat.

    Attributes:
        weight: (H,) the mean weight on those positions together; the heads of several layers follow one another.
        chance: the weight that they would get if all positions read so far shared it equally.
        count: how many repeated tokens were looked at.
    """

    weight: NDArray[np.float64]
    chance: float
    count: int

    @property
    def head(self) -> int:
        """The head that points at them most."""
        return int(np.argmax(self.weight))

    def by_layer(self, depth: int) -> NDArray[np.float64]:
        """Return the weights of a model of this many layers, a row for each, (depth, H).

        Raises:
            ValueError: if so many layers cannot have equally many of the heads.
        """
        if depth < 1 or len(self.weight) % depth:
            raise ValueError(f"depth must divide the number of heads, {len(self.weight)}; got {depth}.")
        return self.weight.reshape(depth, -1)


def copying_heads(
    model: Any, documents: Sequence[ArrayLike], labels: Sequence[Sequence[str]], label: str = "copy-name"
) -> Copying:
    """Measure how much weight each head puts on what is being repeated.

    Args:
        model: an `AttentionLanguageModel`, or what else `head_weights` takes: chapter 4's models of many layers.
        documents: sequences of ids, as Fableworld's stories are.
        labels: what each token is an example of, in the same layout: `Story.labels`.
        label: look at these tokens.

    Returns:
        The mean over all tokens of this label that occurred before in their document.

    Raises:
        ValueError: if the labels do not fit the documents, or no such token is repeated.
    """
    if [len(document) for document in documents] != [len(names) for names in labels]:
        raise ValueError("labels must have one entry for each token of each document; the lengths differ.")
    on_earlier, shares = [], []
    for start in range(0, len(documents), STORIES_TOGETHER):
        rows = slice(start, start + STORIES_TOGETHER)
        weights = head_weights(model, documents[rows])  # (B, H, T, T)
        for one, document, names in zip(weights, documents[rows], labels[rows], strict=True):
            for t in np.flatnonzero(np.asarray(names) == label):
                columns = earlier_columns(document, int(t))
                if len(columns):
                    on_earlier.append(one[:, t, columns].sum(axis=1))
                    shares.append(len(columns) / (t + 1))
    if not on_earlier:
        raise ValueError(f"documents must repeat a token labelled {label!r}; none does.")
    return Copying(np.mean(on_earlier, axis=0, dtype=np.float64), float(np.mean(shares)), len(on_earlier))


def earlier_columns(document: ArrayLike, t: int) -> NDArray[np.int64]:
    """Return the columns of `head_weights` that stand for earlier occurrences of token t.

    Example:
        >>> earlier_columns([7, 5, 7, 7], 3).tolist()  # tokens 0 and 2, read at steps 1 and 3
        [1, 3]
    """
    document = np.asarray(document)
    return np.flatnonzero(document[:t] == document[t]) + 1


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """Two answers to "which tokens did this prediction rest on?".

    Attributes:
        tokens: the ids read before the prediction, (t,).
        weights: what each head's attention gives each of them, (H, t).
        drops: by how many nats the log-probability of the predicted token falls when each of them is replaced, (t,).
            Negative where it rises.
    """

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]
    drops: NDArray[np.float64]


def occlusion(model: Any, document: ArrayLike, t: int, replacements: Sequence[int]) -> Occlusion:
    """Compare attention weights with what a prediction really rests on.

    Attention weights say where a head looked. Whether the prediction would have been another without what stands
    there is a question for an experiment: replace each token in turn, and see how the log-probability changes.

    Args:
        model: an `AttentionLanguageModel`, or another with `attention_weights` that is a `LanguageModel`.
        document: ids, of which token t is predicted.
        t: the index of the predicted token, at least 1.
        replacements: ids to put in a token's place; the drops are averaged over them. One alone would measure, too,
            how strange it is; all the names, say, answer "had another name stood here".

    Raises:
        ValueError: if t is not an index from 1 on, there is no replacement, or an id is none.

    Reference: Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2 (occlusion); Jain and Wallace 2019, "Attention is
    not explanation", arXiv:1902.10186.
    """
    ids = check_ids([document], model.vocab_size)[0][0]
    if not 1 <= t < len(ids):
        raise ValueError(f"t must be between 1 and {len(ids) - 1}, the last token of document; got {t}.")
    others = np.unique(check_ids([replacements], model.vocab_size)[0])
    if not others.size:
        raise ValueError("replacements must hold at least one id; got none.")
    weights = head_weights(model, [ids[: t + 1]])[0, :, t, 1:]  # (H, t)
    return Occlusion(ids[:t], weights, _drops(model, ids[: t + 1], others))


def _drops(model: LanguageModel, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean fall of the last token's log-probability for each token before it."""
    t = len(ids) - 1
    replaced = np.tile(ids, (t, len(others), 1))  # (t, R, t + 1)
    replaced[np.arange(t), :, np.arange(t)] = others
    last = np.zeros((t * len(others) + 1, t + 1), dtype=bool)
    last[:, t] = True
    rows = np.concatenate([ids[None], replaced.reshape(-1, t + 1)])
    scores = model.token_log_probs(rows, last)[:, t]
    changed = replaced[np.arange(t), :, np.arange(t)] != ids[:t, None]  # a token is no replacement for itself
    drops = np.where(changed, scores[0] - scores[1:].reshape(t, -1), 0.0)
    return drops.sum(axis=1) / np.maximum(changed.sum(axis=1), 1)


def draw_occlusion(result: Occlusion, tokens: Sequence[str], predicted: str, last: int = 30) -> Figure:
    """Draw attention weights above the drops, for the last tokens before a prediction.

    Args:
        result: from `occlusion`.
        tokens: the tokens as text, (t,).
        predicted: the predicted token as text.
        last: how many tokens to show.

    Raises:
        ValueError: if the tokens do not fit the result.
    """
    if len(tokens) != len(result.tokens):
        raise ValueError(f"tokens must have {len(result.tokens)} entries; got {len(tokens)}.")
    canvas, (above, below) = plotting.figure(rows=2, height=4.4)
    shown = range(max(0, len(tokens) - last), len(tokens))
    x = np.arange(len(shown))
    for head, weights in enumerate(result.weights):
        above.plot(
            x, weights[shown], marker="o", markersize=3, color=plotting.colour_of(head), label=f"head {head}"
        )
    above.set(ylabel="attention weight", xticks=[], ylim=(0, None))
    above.legend(fontsize=9)
    below.bar(x, result.drops[shown], color=plotting.PALETTE["red"])
    below.set(ylabel=f"drop of ln P({predicted}) (nats)")
    below.set_xticks(x, [tokens[i] for i in shown], rotation=90, fontsize=8)
    return canvas
