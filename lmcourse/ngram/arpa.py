"""The ARPA format: n-gram models as text, exchanged between KenLM, SRILM and others.

A file has a header with the number of n-grams of each order, then for each order one line an n-gram:

    log10 P(last token | the others) TAB tokens separated by spaces [TAB log10 backoff weight]

`<s>` is the start of a document; the logarithm of zero is written -99.

Reference: https://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html
"""

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from lmcourse.files import replacing
from lmcourse.ngram.counts import find
from lmcourse.ngram.model import NgramModel, bare_table
from lmcourse.ngram.smoothing import Level, Smoothing

START, END = "<s>", "</s>"
LOG10_ZERO = -99.0

# What separates fields and lines. Other white space, such as a no-break space, may be part of a token.
BLANKS = re.compile(r"[ \t\r\n]+")


class ArpaError(ValueError):
    """A file is not a well-formed ARPA file; the message names the line."""


def write_arpa(model: NgramModel, path: str | os.PathLike, tokens: Sequence[str]) -> None:
    """Write a model as an ARPA file (compressed when the name ends in .gz), whole or not at all.

    Args:
        model: a fitted model whose distributions sum to one.
        path: the file to write.
        tokens: the V tokens as text, in the order of their ids; none may hold a blank or be `<s>`. A tokenizer's
            `tokens` will do. KenLM wants an end token `</s>`: where no token is, it is added with probability zero, and
            `read_arpa` gives it back as a further token, with id V.

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
        if not token or token == START or BLANKS.search(token):
            raise ValueError(
                f"tokens must not be empty, be {START}, or hold a blank or a line break, which separate tokens in the "
                f"file; got {token!r}. Write a space as '␣', say."
            )
    with replacing(path) as draft, _open(draft, "wt") as file:
        _write(model, file, [*tokens, START])


def _open(path: Path, mode: str) -> TextIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8-sig" if "r" in mode else "utf-8", newline="\n")


def _write(model: NgramModel, file: TextIO, names: list[str]) -> None:
    # The unigrams are all V tokens, <s>, and </s> where the model has none of its own.
    extra = [] if END in names else [END]
    sizes = model.ngrams_by_order
    sizes[0] += 1 + len(extra)
    file.write("\\data\\\n" + "".join(f"ngram {n}={size}\n" for n, size in enumerate(sizes, start=1)))
    for n in range(1, model.order + 1):
        file.write(f"\n\\{n}-grams:\n")
        for ngram, log_prob, log_backoff in model.ngrams(n):
            words = " ".join(names[token] for token in ngram)
            weight = f"\t{_log10(log_backoff)}" if log_backoff else ""
            file.write(f"{_log10(log_prob)}\t{words}{weight}\n")
        file.writelines(f"{_log10(-math.inf)}\t{token}\n" for token in extra if n == 1)
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
    path = Path(path)
    try:
        with _open(path, "rt") as file:
            return _read(_Lines(file, path.name))
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ArpaError(f"{path.name} is no UTF-8 text, or its compression is damaged: {error}.") from error


def _read(lines: "_Lines") -> tuple[NgramModel, list[str]]:
    sizes = _read_header(lines)
    tokens, unigrams = _read_unigrams(lines, sizes[0])
    ids = {token: i for i, token in enumerate(tokens)} | {START: len(tokens)}
    tables, values = [bare_table(1, np.arange(len(ids)), len(tokens))], [unigrams]
    for n in range(2, len(sizes) + 1):
        keys, numbers = _read_order(lines, n, sizes[n - 1], ids, [table.keys for table in tables])
        tables.append(bare_table(n, keys, len(tokens)))
        values.append(numbers)
    lines.expect("\\end\\")
    log_probs, log_backoffs = ([numbers[:, column] for numbers in values] for column in (0, 1))
    model = NgramModel.from_tables(len(tokens), tables, log_probs, log_backoffs[:-1], Listed())
    return model, tokens


class Listed(Smoothing):
    """Probabilities that were read: whoever wrote the file has smoothed them."""

    name = "listed"

    def kept(self, level: Level) -> NDArray[np.float64]:
        """Refuse: the counts behind the file are not known."""
        raise ValueError("a model read from an ARPA file cannot be fitted again; make a new NgramModel.")


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
    for line in lines:
        if line.strip() == "\\data\\":  # text before it is a comment
            break
    sizes: list[int] = []
    for line in lines:
        if line.strip() == "\\1-grams:":
            break
        word, _, rest = line.partition(" ")
        n, _, size = rest.partition("=")
        if (
            word != "ngram"
            or n.strip() != str(len(sizes) + 1)
            or not re.fullmatch(r"[0-9]{1,15}", size.strip())
        ):
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
    fields = BLANKS.split(line.strip(" \t\r\n"))
    if len(fields) not in (n + 1, n + 2):
        raise lines.error(f"expected a number, {n} tokens and perhaps a weight, got {line[:60]!r}")
    try:
        numbers = [float(fields[0]), float(fields[n + 1]) if len(fields) == n + 2 else 0.0]
    except ValueError:
        raise lines.error(f"expected logarithms of base 10 around the tokens, got {line[:60]!r}") from None
    if not numbers[0] <= 0:
        raise lines.error(f"expected the logarithm of a probability, 0 or less, got {fields[0]}")
    if not numbers[1] < math.inf:
        raise lines.error(f"expected the logarithm of a weight, got {fields[n + 1]}")
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
    # Lists, not arrays of the announced size: a header that lies costs no memory.
    rows: list[list[int]] = []
    values: list[tuple[float, float]] = []
    numbers_of_lines: list[int] = []
    for _ in range(size):
        tokens, *numbers = _read_line(lines, n)
        unknown = [token for token in tokens if token not in ids]
        if unknown:
            raise lines.error(f"the token {unknown[0]!r} is not among the unigrams")
        if START in tokens[1:]:
            # Some tools list what crosses a line's end; <s> is never predicted, so nothing asks for it.
            continue
        rows.append([ids[token] for token in tokens])
        values.append(tuple(numbers))
        numbers_of_lines.append(lines.number)
    columns = np.array(rows, dtype=np.int64).reshape(-1, n)
    contexts = columns[:, 0]
    for k in range(1, n - 1):
        contexts = np.where(contexts >= 0, find(shorter[k], contexts * base + columns[:, k]), -1)
    if (contexts < 0).any():
        lines.number = numbers_of_lines[int(np.argmax(contexts < 0))]
        raise lines.error(f"the context of this n-gram is not listed in order {n - 1}")
    keys = contexts * base + columns[:, -1]
    order = np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(repeated):
        lines.number = numbers_of_lines[order[repeated[0] + 1]]
        raise lines.error(f"this n-gram of order {n} was listed before")
    return keys[order], np.array(values).reshape(-1, 2)[order]
