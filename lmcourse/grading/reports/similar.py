"""Finds answers that are nearly the same code, whatever the names in it.

The code is made into tokens and fingerprints by copydetect (https://github.com/blingenf/copydetect), which knows
a variable only as a variable and leaves out comments and spaces. Two submissions are compared by the
fingerprints they share; copydetect then says where the common passages are.

Reference: Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for document fingerprinting".
"""

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from lmcourse.grading.notebook import Notebook

# A fingerprint is made of so many characters of tokens: a line or two. Fewer, and every `for i in range(len(V))`
# is a match; more, and a changed line in a short function hides the rest of it.
FINGERPRINT_CHARACTERS = 25
# From this share on a pair is named. Two who solve the same exercises on their own share a good part of them.
THRESHOLD = 0.6
# A submission with fewer fingerprints says nothing: a one-line answer is everybody's.
LEAST_FINGERPRINTS = 100
# A class that handed in one file has thousands of pairs; a teacher reads the first few.
MOST_PAIRS = 100
# Three times what the solutions to a chapter take. What is longer is compared by its beginning: 200 submissions of
# this length take half a minute and half a GiB.
CODE_CHARACTERS = 10_000


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two submissions that are nearly the same.

    Attributes:
        first: a learner.
        second: another one.
        share: how much of the shorter one's code is in the other, from 0 to 1.
        first_parts: the first one's code in parts (text, whether it matches), in order.
        second_parts: the second one's.
    """

    first: str
    second: str
    share: float
    first_parts: Sequence[tuple[str, bool]]
    second_parts: Sequence[tuple[str, bool]]


@dataclasses.dataclass(frozen=True)
class Similarities:
    """What a comparison of a class found.

    Attributes:
        pairs: the most similar pairs, first the most similar.
        total: how many pairs there are above the threshold, of which `pairs` may be the first.
        compared: how many submissions had enough code to be compared.
        threshold: the share from which on a pair counts.
    """

    pairs: Sequence[Pair]
    total: int
    compared: int
    threshold: float = THRESHOLD


def answers_in(notebook: Notebook, given: Notebook) -> str:
    """Return a learner's own code in the cells of the exercises, without the lines that were given.

    Args:
        notebook: what was handed in.
        given: the notebook of stubs that it started from.
    """
    known = {line.strip() for source in given.code for line in source.splitlines()}
    parts = []
    for number in dict.fromkeys(filter(None, notebook.exercises)):
        cells = zip(notebook.code, notebook.exercises, strict=True)
        lines = [line for source, own in cells if own == number for line in source.splitlines()]
        written = [line for line in lines if line.strip() and line.strip() not in known]
        if written:
            parts.append("\n".join([f"# Exercise {number}", *written]))
    return "\n".join(parts)[:CODE_CHARACTERS]


def find_similar(
    answers: Mapping[str, str], *, threshold: float = THRESHOLD, most: int = MOST_PAIRS
) -> Similarities:
    """Compare every learner's code with every other's.

    A high share is a reason to look, no proof: short exercises have few good answers, and a class may have been
    taught one together.

    Args:
        answers: the code of each learner, as `answers_in` returns it.
        threshold: the share from which on a pair is named, above 0 and at most 1.
        most: how many pairs to return; the others are counted.

    Raises:
        ValueError: if the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a share above 0 and at most 1; got {threshold!r}.")
    prints = {learner: _fingerprint(code) for learner, code in answers.items()}
    prints = {learner: own for learner, own in prints.items() if len(own.hashes) >= LEAST_FINGERPRINTS}
    found = []
    for first, second in itertools.combinations(sorted(prints), 2):
        share = _share(prints[first].hashes, prints[second].hashes)
        if share >= threshold:
            found.append((-share, first, second))
    found.sort()
    pairs = [_pair(first, second, -share, prints) for share, first, second in found[:most]]
    return Similarities(pairs, len(found), len(prints), threshold)


def _fingerprint(code: str) -> Any:
    # Imported only here: copydetect loads matplotlib's windows, and not every grading compares.
    from copydetect import CodeFingerprint

    code = code[:CODE_CHARACTERS].encode("utf-8", errors="backslashreplace").decode("utf-8")
    # Every fingerprint is kept (a window of 1): answers are short, and which ones a longer window would pick
    # depends on Python's hash, which differs from run to run.
    return CodeFingerprint("answers.py", FINGERPRINT_CHARACTERS, 1, language="python", fp=io.StringIO(code))


def _share(first: set[int], second: set[int]) -> float:
    return len(first & second) / min(len(first), len(second))


def _pair(first: str, second: str, share: float, prints: Mapping[str, Any]) -> Pair:
    from copydetect import compare_files

    _, _, slices = compare_files(prints[first], prints[second])
    return Pair(
        first,
        second,
        share,
        _parts(prints[first].raw_code, slices[0]),
        _parts(prints[second].raw_code, slices[1]),
    )


def _parts(code: str, slices: Any) -> list[tuple[str, bool]]:
    """Cut a code into whole lines that match and that do not."""
    inside = [False] * len(code)
    for start, end in zip(*slices.astype(int).tolist(), strict=True):
        inside[start:end] = [True] * len(inside[start:end])
    lines, position = [], 0
    for line in code.splitlines(keepends=True):
        # A line counts as matching when most of it does: passages begin and end within lines.
        matching = sum(inside[position : position + len(line)])
        lines.append((line, 2 * matching > len(line)))
        position += len(line)
    return [
        ("".join(line for line, _ in group), matches)
        for matches, group in itertools.groupby(lines, key=lambda pair: pair[1])
    ]
