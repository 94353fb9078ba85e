"""The ARPA format: n-gram models as text, exchanged between KenLM, SRILM and others.

A file has a header with the number of n-grams of each order, then for each order one line an n-gram:

    log10 P(last token | the others) TAB tokens separated by spaces [TAB log10 backoff weight]

`<s>` is the start of a document; the logarithm of zero is written -99.

Reference: https://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html
"""

import gzip
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from lmcourse.ngram.counts import find
from lmcourse.ngram.model import NgramModel, bare_table

START, END = "<s>", "</s>"
LOG10_ZERO = -99.0


class ArpaError(ValueError):
    """A file is not a well-formed ARPA file; the message names the line."""


def write_arpa(model: NgramModel, path: str | os.PathLike, tokens: Sequence[str]) -> None:
    """Write a model as an ARPA file (compressed when the name ends in .gz), whole or not at all.

    Args:
        model: a fitted model whose distributions sum to one.
        path: the file to write.
        tokens: the V tokens as text, in the order of their ids; none may hold white space or be `<s>`. KenLM wants
            an end token `</s>`: where no token is, a line with probability zero is added.

    Raises:
        ValueError: if the scores are no distribution, or tokens do not fit the model or the format.
    """
    if not model.normalized:
        raise ValueError("model must give a distribution; an ARPA file cannot say what stupid backoff does.")
    if len(tokens) != model.vocab_size:
        raise ValueError(f"tokens must be the model's {model.vocab_size} tokens; got {len(tokens)}.")
    if len(set(tokens)) != len(tokens):
        raise ValueError("tokens must be distinct: two ids with one name could not be told apart.")
    for token in tokens:
        if not token or token == START or token.split() != [token]:
            raise ValueError(
                f"tokens must not be empty, hold white space or be {START}, for spaces separate them in the file; "
                f"got {token!r}. Replace a space by '▁', say."
            )
    path = Path(path)
    partial = path.with_name("partial-" + path.name)
    try:
        with _open(partial, "wt") as file:
            _write(model, file, [*tokens, START])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path, mode: str) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8", newline="\n")


def _write(model: NgramModel, file: TextIO, names: list[str]) -> None:
    # The unigrams are all V tokens, <s>, and </s> where the model has none of its own.
    extra = [] if END in names else [END]
    sizes = model.ngrams_by_order
    sizes[0] += 1 + len(extra)
    file.write("\\data\\\n" + "".join(f"ngram {n}={size}\n" for n, size in enumerate(sizes, start=1)))
    for n in range(1, model.order + 1):
        file.write(f"\n\\{n}-grams:\n")
        file.writelines(f"{_log10(-math.inf)}\t{token}\n" for token in extra if n == 1)
        for ngram, log_prob, log_backoff in model.ngrams(n):
            words = " ".join(names[token] for token in ngram)
            weight = f"\t{_log10(log_backoff)}" if log_backoff else ""
            file.write(f"{_log10(log_prob)}\t{words}{weight}\n")
    file.write("\n\\end\\\n")


def _log10(nats: float) -> str:
    # 9 digits keep every float32, which is what KenLM computes in.
    return f"{LOG10_ZERO if nats == -math.inf else nats / math.log(10):.9g}"


def read_arpa(path: str | os.PathLike) -> tuple[NgramModel, list[str]]:
    """Read an ARPA file.

    Args:
        path: the file; compressed if its name ends in .gz.

    Returns:
        The model, and its V tokens in the order of their ids, which is that of the file. `<s>` is not among them:
        the model itself supplies the start of a document.

    Raises:
        ArpaError: if the file is not well formed; the message gives the line.
    """
    with _open(Path(path), "rt") as file:
        lines = _Lines(file, Path(path).name)
        sizes = _read_header(lines)
        tokens, unigrams = _read_unigrams(lines, sizes[0])
        ids = {token: i for i, token in enumerate(tokens)} | {START: len(tokens)}
        tables, log_probs, log_backoffs = [bare_table(1, np.arange(len(ids)), len(tokens))], [], []
        log_probs.append(unigrams[:, 0])
        log_backoffs.append(unigrams[:, 1])
        for n in range(2, len(sizes) + 1):
            keys, values = _read_order(lines, n, sizes[n - 1], ids, [table.keys for table in tables])
            tables.append(bare_table(n, keys, len(tokens)))
            log_probs.append(values[:, 0])
            log_backoffs.append(values[:, 1])
        lines.expect("\\end\\")
    model = NgramModel.from_tables(len(tokens), tables, log_probs, log_backoffs[:-1], "modified-kneser-ney")
    return model, tokens


class _Lines:
    """The lines of a file that are not blank, with their numbers for messages."""

    def __init__(self, file: TextIO, name: str):
        self._numbered = enumerate(file, start=1)
        self._name = name
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number, line in self._numbered:
            self.number = number
            if line.strip():
                return line.rstrip("\r\n")
        raise self.error("the file ends here, too early")

    def error(self, what: str) -> ArpaError:
        return ArpaError(f"{self._name}, line {self.number}: {what}.")

    def expect(self, text: str) -> None:
        line = next(self)
        if line.strip() != text:
            raise self.error(f"expected {text}, got {line[:60]!r}")


def _read_header(lines: _Lines) -> list[int]:
    """Return the number of n-grams of each order, and stop after the line that opens the unigrams."""
    lines.expect("\\data\\")
    sizes: list[int] = []
    for line in lines:
        if line.strip() == "\\1-grams:":
            break
        word, _, rest = line.partition(" ")
        n, _, size = rest.partition("=")
        if word != "ngram" or n.strip() != str(len(sizes) + 1) or not size.strip().isdigit():
            raise lines.error(
                f"expected 'ngram {len(sizes) + 1}=' and a number, or \\1-grams:, got {line[:60]!r}"
            )
        sizes.append(int(size))
    if not sizes:
        raise lines.error("the header names no order: expected 'ngram 1=' and a number")
    return sizes


def _read_line(lines: _Lines, n: int) -> tuple[list[str], float, float]:
    """Return the tokens, ln P and the logarithm of the backoff weight of the next line."""
    line = next(lines)
    fields = line.split()
    if len(fields) not in (n + 1, n + 2):
        raise lines.error(f"expected a number, {n} tokens and perhaps a weight, got {line[:60]!r}")
    try:
        numbers = [float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0]
    except ValueError:
        raise lines.error(f"expected logarithms of base 10 around the tokens, got {line[:60]!r}") from None
    if not numbers[0] <= 0:
        raise lines.error(f"expected the logarithm of a probability, 0 or less, got {fields[0]}")
    log_prob, weight = (-math.inf if number <= LOG10_ZERO else number * math.log(10) for number in numbers)
    return fields[1 : n + 1], log_prob, weight


def _read_unigrams(lines: _Lines, size: int) -> tuple[list[str], NDArray[np.float64]]:
    """Return the tokens without <s>, and (V + 1, 2) numbers with those of <s> last."""
    values: dict[str, tuple[float, float]] = {}
    for _ in range(size):
        (token,), log_prob, weight = _read_line(lines, 1)
        if token in values:
            raise lines.error(f"the token {token!r} was listed before")
        values[token] = log_prob, weight
    start = values.pop(START, (-math.inf, 0.0))
    # <s> is never predicted, whatever the file says of it.
    rows = [*values.values(), (-math.inf, start[1])]
    if len(rows) < 2:
        raise lines.error("there is no token but <s>")
    return list(values), np.array(rows)


def _read_order(
    lines: _Lines, n: int, size: int, ids: dict[str, int], shorter: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the sorted keys of order n, and their (G, 2) numbers."""
    lines.expect(f"\\{n}-grams:")
    base = len(ids)
    rows = np.empty((size, n), dtype=np.int64)
    values = np.empty((size, 2))
    first_line = lines.number + 1
    for row in range(size):
        tokens, *numbers = _read_line(lines, n)
        try:
            rows[row] = [ids[token] for token in tokens]
        except KeyError as error:
            raise lines.error(f"the token {error.args[0]!r} is not among the unigrams") from None
        values[row] = numbers
    contexts = rows[:, 0]
    for k in range(1, n - 1):
        contexts = np.where(contexts >= 0, find(shorter[k], contexts * base + rows[:, k]), -1)
    if (contexts < 0).any():
        line = first_line + int(np.argmax(contexts < 0))
        raise ArpaError(
            f"about line {line}: an n-gram of order {n} has a context that is not listed in order {n - 1}."
        )
    keys = contexts * base + rows[:, -1]
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        raise lines.error(f"an n-gram of order {n} is listed twice")
    return keys[order], values[order]
