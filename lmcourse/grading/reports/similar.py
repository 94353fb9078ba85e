"""Finds answers that are nearly the same code, whatever the names in it.

The code is made into tokens and fingerprints by copydetect (https://github.com/blingenf/copydetect), which knows
a variable only as a variable and leaves out comments and spaces. Two submissions are compared by the
fingerprints they share; copydetect then says where the common passages are.

Fingerprints wait in a file, and two blocks of learners at a time are compared, so that memory does not grow with the
class; its square is what the time grows with.

Reference: Schleimer, Wilkerson and Aiken 2003, "Winnowing: local algorithms for document fingerprinting".
"""

import contextlib
import dataclasses
import functools
import heapq
import io
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lmcourse.grading.notebook import Notebook, NotebookError, read_notebook

# A fingerprint is made of so many characters of tokens: a line or two. Fewer, and every `for i in range(len(V))`
# is a match; more, and a changed line in a short function hides the rest of it.
FINGERPRINT_CHARACTERS = 25
# From this share on a pair is named. Two who solve the same exercises on their own share a good part of them.
THRESHOLD = 0.6
# A submission with fewer fingerprints says nothing: a one-line answer is everybody's.
LEAST_FINGERPRINTS = 100
# A class that handed in one file has thousands of pairs; a teacher reads the first few.
MOST_PAIRS = 100
# Three times what the solutions to a chapter take. What is longer is compared by its beginning.
CODE_CHARACTERS = 10_000
# How many learners' fingerprints are in memory twice: at most 80 kB each.
_BLOCK = 32


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


class Answers(Mapping[str, str]):
    """The code of each learner, as `answers_in` returns it, read from the notebook whenever it is asked for."""

    def __init__(self, notebooks: Mapping[str, Path], given: Notebook):
        """Read nothing yet.

        Args:
            notebooks: what each learner handed in; one that is no notebook has no code.
            given: the notebook of stubs that they started from.
        """
        self._notebooks = notebooks
        self._given = given

    def __getitem__(self, learner: str) -> str:
        path = self._notebooks[learner]
        with contextlib.suppress(NotebookError):
            return answers_in(read_notebook(path), self._given)
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(self._notebooks)

    def __len__(self) -> int:
        return len(self._notebooks)


def find_similar(
    answers: Mapping[str, str], *, threshold: float = THRESHOLD, most: int = MOST_PAIRS
) -> Similarities:
    """Compare every learner's code with every other's.

    A high share is a reason to look, no proof: short exercises have few good answers, and a class may have been
    taught one together.

    Args:
        answers: the code of each learner, as `answers_in` returns it; one is read at a time (see `Answers`).
        threshold: the share from which on a pair is named, above 0 and at most 1.
        most: how many pairs to return; the others are counted.

    Raises:
        ValueError: if the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a share above 0 and at most 1; got {threshold!r}.")
    total = 0

    def counted(pairs: Iterable[tuple[float, str, str]]) -> Iterator[tuple[float, str, str]]:
        nonlocal total
        for pair in pairs:
            total += 1
            yield pair

    with tempfile.TemporaryFile() as file:
        prints = _Prints(file, answers)
        best = heapq.nsmallest(most, counted(_alike(prints, threshold)))
    fingerprint = functools.lru_cache(maxsize=8)(lambda learner: _fingerprint(answers[learner]))
    pairs = [_pair(first, second, -share, fingerprint) for share, first, second in best]
    return Similarities(pairs, total, len(prints.learners), threshold)


class _Prints:
    """The fingerprints of those who have enough, in a file: sorted numbers, each once.

    Attributes:
        learners: who they are, sorted.
    """

    def __init__(self, file: IO[bytes], answers: Mapping[str, str]):
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        for learner in sorted(answers):
            hashes = _fingerprint(answers[learner]).hashes
            if len(hashes) >= LEAST_FINGERPRINTS:
                numbers = np.unique(np.fromiter(hashes, np.int64))
                self._places[learner] = file.tell(), len(numbers)
                file.write(numbers.tobytes())
        self.learners = list(self._places)

    def read(self, learners: Sequence[str]) -> list[tuple[str, np.ndarray]]:
        """Return the numbers of some of them."""
        return [(learner, self._numbers(*self._places[learner])) for learner in learners]

    def _numbers(self, place: int, count: int) -> np.ndarray:
        self._file.seek(place)
        return np.frombuffer(self._file.read(8 * count), np.int64)


def _alike(prints: _Prints, threshold: float) -> Iterator[tuple[float, str, str]]:
    """Yield minus the share, so that the most similar come first when sorted, and who the two are."""
    learners = prints.learners
    blocks = [learners[start : start + _BLOCK] for start in range(0, len(learners), _BLOCK)]
    for number, block in enumerate(blocks):
        here = prints.read(block)
        yield from _shares(itertools.combinations(here, 2), threshold)
        for other in blocks[number + 1 :]:
            yield from _shares(itertools.product(here, prints.read(other)), threshold)


def _shares(pairs: Iterable[tuple[Any, Any]], threshold: float) -> Iterator[tuple[float, str, str]]:
    for (first, ours), (second, theirs) in pairs:
        common = np.intersect1d(ours, theirs, assume_unique=True).size
        share = common / min(ours.size, theirs.size)
        if share >= threshold:
            yield -share, first, second


def _fingerprint(code: str) -> Any:
    # Imported only here: copydetect loads matplotlib's windows, and not every grading compares.
    from copydetect import CodeFingerprint

    code = code[:CODE_CHARACTERS].encode("utf-8", errors="backslashreplace").decode("utf-8")
    # Every fingerprint is kept (a window of 1): answers are short, and which ones a longer window would pick
    # depends on Python's hash, which differs from run to run.
    return CodeFingerprint("answers.py", FINGERPRINT_CHARACTERS, 1, language="python", fp=io.StringIO(code))


def _pair(first: str, second: str, share: float, fingerprint: Callable[[str], Any]) -> Pair:
    from copydetect import compare_files

    ours, theirs = fingerprint(first), fingerprint(second)
    _, _, slices = compare_files(ours, theirs)
    return Pair(first, second, share, _parts(ours.raw_code, slices[0]), _parts(theirs.raw_code, slices[1]))


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
