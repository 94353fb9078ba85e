"""What files of weights have in common: an index that is read at once, and tensors that wait until asked for.

The file is mapped into memory, so opening it costs no more than its index, and a tensor is read from the disk when it
is decoded. The index is checked as a whole before anything is handed out: what opens is consistent, and no
tensor turns out to be cut off later.
"""

import abc
import collections
import dataclasses
import math
import mmap
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# An error lists what is there, but not so much that what is wrong scrolls away.
NAMES_SHOWN = 40


class WeightsFileError(ValueError):
    """A file of weights is not what it should be; the message names the file, what it has and what would be right."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is in its file, and how it is written.

    Attributes:
        name: its name in the file.
        shape: its shape as an array of NumPy, the last axis the one whose elements lie side by side.
        type: how its values are written: "F32", "Q4_1", …
        offset: where it begins, in bytes from the file's start.
        nbytes: how many bytes it takes in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


class WeightsFile(abc.ABC):
    """An open file of weights, a context manager that closes it.

    Attributes:
        path: the file.
        metadata: what the file says besides tensors.
        tensors: where each tensor is, in the file's order.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def __init__(self, path: str | os.PathLike[str]):
        """Open a file and check its index.

        Args:
            path: the file.

        Raises:
            OSError: if there is no such file, or it cannot be opened.
            WeightsFileError: if it is no file of this format, is cut off, or contradicts itself.
        """
        self.path = Path(path)
        with self.path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise self.error("the file is empty")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self.metadata, self.tensors = self._read_index(self._data)
        except BaseException:
            self.close()
            raise

    def tensor(self, name: str, shape: Sequence[int] | None = None) -> NDArray:
        """Read and decode one tensor.

        Args:
            name: its name in the file.
            shape: the shape it must have, or None for any.

        Returns:
            A new array. Real numbers of 32 bits or fewer come as float32, which holds each of them exactly.

        Raises:
            WeightsFileError: if there is no such tensor, or it has another shape.
            ValueError: if the file was closed.
        """
        if self._data.closed:
            raise ValueError(f"{self.path} was closed: read its tensors inside the with block.")
        found = self.tensors.get(name)
        if found is None:
            raise self.error(f"there is no tensor {name!r}; there are {self.names_in_short()}")
        if shape is not None and tuple(shape) != found.shape:
            raise self.error(f"tensor {name!r} must have shape {tuple(shape)}; it has {found.shape}")
        return self._decode(found, self._data).reshape(found.shape)

    def check_tensors(self, shapes: Mapping[str, Sequence[int]], may_hold: Collection[str] = ()) -> None:
        """Check that the tensors are those of a model, before the first of them is loaded.

        Args:
            shapes: the name and the shape of each tensor that must be there.
            may_hold: names of further tensors that the model can do without. Any other is an error: a bias that
                nobody adds makes a model quietly wrong.

        Raises:
            WeightsFileError: naming all that are missing, of a wrong shape, or not expected.
        """
        missing = [name for name in shapes if name not in self.tensors]
        wrong = [
            f"{name!r} must have shape {tuple(shape)} and has {self.tensors[name].shape}"
            for name, shape in shapes.items()
            if name in self.tensors and tuple(shape) != self.tensors[name].shape
        ]
        strangers = [name for name in self.tensors if name not in shapes and name not in may_hold]
        faults = [f"missing: {names_in_short(missing)}"] if missing else []
        faults += [f"of a wrong shape: {_first(wrong)}"] if wrong else []
        faults += [f"not expected: {names_in_short(strangers)}"] if strangers else []
        if faults:
            there = f"; there are {self.names_in_short()}" if missing else ""
            raise self.error(f"the tensors are not the model's ({'; '.join(faults)}){there}")

    def names_in_short(self) -> str:
        """List the tensors' names, those that differ only in a layer's number as one."""
        return names_in_short(self.tensors)

    def error(self, what: str) -> WeightsFileError:
        """Return an error that begins with the file's path."""
        return WeightsFileError(f"{self.path}: {what}.")

    def close(self) -> None:
        """Let the file go; arrays that were read stay."""
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def _read_index(self, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        """Return metadata and tensors, checked: every tensor lies within the file."""

    @abc.abstractmethod
    def _decode(self, info: TensorInfo, data: mmap.mmap) -> NDArray:
        """Return a tensor's values, in order, as a new array of any shape."""


def names_in_short(names: Iterable[str]) -> str:
    """List names in one line, those that differ only in numbers between dots as one.

    Example:
        >>> names_in_short(["embed", "blk.0.norm", "blk.0.ffn", "blk.1.norm", "blk.1.ffn"])
        'embed, blk.N.norm (2), blk.N.ffn (2)'
        >>> names_in_short([])
        'none'
    """
    kinds = collections.Counter(re.sub(r"(?<=\.)\d+(?=\.)", "N", name) for name in names)
    return _first([shown(kind) + (f" ({count})" if count > 1 else "") for kind, count in kinds.items()])


def shown(name: str) -> str:
    r"""Return a name as an error shows it: not without end, and nothing that a terminal would obey.

    Example:
        >>> print(shown("blk.0.norm"), shown("a\nb"))
        blk.0.norm 'a\nb'
    """
    short = name if len(name) <= 60 else name[:57] + "…"
    return short if short.isprintable() and short.strip() == short != "" else repr(short)


def find_overlap(tensors: Iterable[TensorInfo]) -> str:
    """Say which two tensors claim the same bytes; nothing if none do.

    Example:
        >>> find_overlap([TensorInfo("a", (2,), "F32", 0, 8), TensorInfo("b", (1,), "F32", 4, 4)])
        'tensors a and b overlap'
    """
    end, last = 0, ""
    for info in sorted(tensors, key=lambda info: (info.offset, info.nbytes)):
        if info.nbytes and info.offset < end:
            return f"tensors {shown(last)} and {shown(info.name)} overlap"
        end, last = max(end, info.offset + info.nbytes), info.name
    return ""


def widened(values: NDArray) -> NDArray:
    """Return a copy in this machine's byte order, real numbers of fewer than 32 bits as float32."""
    narrow = values.dtype.kind == "f" and values.dtype.itemsize < 4
    return values.astype(np.float32 if narrow else values.dtype.newbyteorder("="))


def _first(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - NAMES_SHOWN} more"] if len(texts) > NAMES_SHOWN else []
    return ", ".join([*texts[:NAMES_SHOWN], *more]) or "none"
