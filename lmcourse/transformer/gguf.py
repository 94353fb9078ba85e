"""GGUF, the file format of llama.cpp: a model's weights, its sizes and its tokenizer in one file.

A file is, little-endian and without gaps until the tensors:

    "GGUF", version (uint32), number of tensors (uint64), number of metadata entries (uint64)
    each entry: key, type of the value (uint32), value
    each tensor: name, number of axes (uint32), axes (uint64 each, the fastest first), type (uint32), offset (uint64)
    padding to a multiple of `general.alignment`, and from there, by their offsets, the tensors

A string is its length (uint64) and UTF-8. An array is the type of its items (uint32), their number (uint64), the items.

**Quantization.** 32 neighbours in a row share a scale d, and perhaps an offset m, both float16, and each keeps a small
integer q of its own. With 4 bits, byte i of a block holds q of neighbour i in its low half and of neighbour 16 + i
in its high half.

| type | bytes a block | bits a weight | value         |
|------|---------------|---------------|---------------|
| Q8_0 | 2 + 32        | 8.5           | d · q         |
| Q4_0 | 2 + 16        | 4.5           | d · (q − 8)   |
| Q4_1 | 2 + 2 + 16    | 5             | d · q + m     |

Letters for shapes: `N` blocks.

Reference: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the blocks: ggml/src/ggml-common.h there.
"""

import dataclasses
import math
import mmap
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmcourse.transformer.weights_file import TensorInfo, WeightsFile, find_overlap, shown, widened

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 1 counted in 32 bits; version 3 only added big-endian files
DEFAULT_ALIGNMENT = 32
MAX_AXES = 4  # of ggml
MAX_NESTING = 4  # arrays in arrays: no known file has any, and a damaged one must not exhaust the stack

BLOCK = 32  # weights that share a scale

Value = TypeVar("Value", str, int, float, bool, list)
_REQUIRED: Any = object()


class GGUFFile(WeightsFile):
    r"""An open GGUF file: metadata, and tensors that are decoded when asked for.

    All tensors come as float32. Their shapes are NumPy's: where ggml writes the axes 576, 49152, the array is
    (49152, 576), one row a token.

    Attributes:
        version: the version of the format.
        metadata: the values by key: str, int, float, bool, or lists of them.

    Example:
        >>> import pathlib, tempfile
        >>> head = MAGIC + struct.pack("<IQQ", 3, 1, 0)  # version 3, one tensor, no metadata
        >>> entry = struct.pack("<Q1sI2QIQ", 1, b"w", 2, 3, 1, 0, 0)  # 2 axes of 3 and 1, type 0, at offset 0
        >>> content = (head + entry).ljust(96, b"\0") + struct.pack("<3f", 1, 2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "tiny.gguf").write_bytes(content)
        ...     with GGUFFile(pathlib.Path(folder, "tiny.gguf")) as file:
        ...         file.tensor("w")
        array([[1., 2., 3.]], dtype=float32)
    """

    version: int

    def value(self, key: str, kind: type[Value], default: Value = _REQUIRED) -> Value:
        """Return one value of the metadata.

        Args:
            key: its key.
            kind: the type it must have: str, int, float, bool or list.
            default: what to return if there is no such key; without it, that is an error.

        Raises:
            WeightsFileError: if the key is missing, or its value is of another type.
        """
        if key not in self.metadata:
            if default is not _REQUIRED:
                return default
            keys = ", ".join(map(shown, self.metadata)) or "none"
            raise self.error(f"the metadata has no {key!r}; it has {keys}")
        found = self.metadata[key]
        if type(found) is not kind:
            raise self.error(
                f"{key} must be of type {kind.__name__}; got {type(found).__name__} {found!r:.60}"
            )
        return found

    def _read_index(self, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        cursor = _Cursor(self, data)
        self.version = _read_version(cursor)
        num_tensors = cursor.count("Q", "tensors", smallest=24)
        num_entries = cursor.count("Q", "metadata entries", smallest=13)
        metadata = _read_metadata(cursor, num_entries)
        found = _read_tensors(cursor, num_tensors)
        alignment = _alignment(cursor, metadata)
        start = -(-cursor.position // alignment) * alignment  # the next multiple
        tensors = {
            name: dataclasses.replace(info, offset=start + info.offset) for name, info in found.items()
        }
        _check_places(cursor, tensors, alignment, start)
        return metadata, tensors

    def _decode(self, info: TensorInfo, data: mmap.mmap) -> NDArray[np.float32]:
        encoding = _ENCODINGS_BY_NAME[info.type]
        count = info.nbytes // encoding.block.itemsize
        return encoding.decode(np.frombuffer(data, encoding.block, count, info.offset))


def decode_q8_0(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Return d · q for blocks of 32 signed bytes.

    Args:
        blocks: (N,) records of `Q8_0`.

    Returns:
        float32 of shape (N, 32).
    """
    values = np.empty((len(blocks), BLOCK), np.float32)
    return np.multiply(blocks["q"], blocks["d"].astype(np.float32)[:, None], out=values)


def decode_q4_0(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Return d · (q - 8) for blocks of 32 half bytes.

    Args:
        blocks: (N,) records of `Q4_0`.

    Returns:
        float32 of shape (N, 32).
    """
    scales = blocks["d"].astype(np.float32)[:, None]
    return np.multiply(_half_bytes(blocks["q"]).view(np.int8) - np.int8(8), scales)


def decode_q4_1(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Return d · q + m for blocks of 32 half bytes.

    Args:
        blocks: (N,) records of `Q4_1`.

    Returns:
        float32 of shape (N, 32).

    Example:
        >>> block = np.zeros(1, Q4_1)
        >>> block["d"], block["m"] = 0.5, -1.0
        >>> block["q"][0, :2] = 0x3F, 0x20  # neighbours 0 and 16 have 15 and 3, neighbours 1 and 17 have 0 and 2
        >>> decode_q4_1(block)[0, [0, 1, 16, 17]].tolist()
        [6.5, -1.0, 0.5, 0.0]
    """
    values = np.multiply(_half_bytes(blocks["q"]), blocks["d"].astype(np.float32)[:, None])
    values += blocks["m"].astype(np.float32)[:, None]
    return values


def _half_bytes(q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the 32 numbers in each row of 16 bytes: the low halves, then the high ones."""
    return np.concatenate([q & 0x0F, q >> 4], axis=1)  # (N, 16) -> (N, 32)


Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", BLOCK)])
Q4_0 = np.dtype([("d", "<f2"), ("q", "u1", BLOCK // 2)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", BLOCK // 2)])


@dataclasses.dataclass(frozen=True)
class _Encoding:
    """How a tensor's values are written."""

    name: str
    values: int  # in a block; blocks do not cross the ends of rows
    block: np.dtype
    decode: Callable[[NDArray], NDArray[np.float32]]


# By ggml's number.
_ENCODINGS = {
    0: _Encoding("F32", 1, np.dtype("<f4"), widened),
    1: _Encoding("F16", 1, np.dtype("<f2"), widened),
    2: _Encoding("Q4_0", BLOCK, Q4_0, decode_q4_0),
    3: _Encoding("Q4_1", BLOCK, Q4_1, decode_q4_1),
    8: _Encoding("Q8_0", BLOCK, Q8_0, decode_q8_0),
}
_ENCODINGS_BY_NAME = {encoding.name: encoding for encoding in _ENCODINGS.values()}

# Types that ggml has besides, so that an error can call them by their name.
# fmt: off
_OTHER_TYPES = {
    6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4",
}
# fmt: on

# The metadata's types by their numbers; struct and NumPy share these letters.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9


class _Cursor:
    """A place in the file that moves on as things are read, and never past the end."""

    def __init__(self, file: GGUFFile, data: mmap.mmap):
        self.error = file.error
        self.data = data
        self.size = len(data)
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        start, end = self.position, self.position + size
        if end > self.size:
            raise self.error(
                f"the file is cut off or damaged: {what} at byte {start:,} needs {size:,} bytes, and the file "
                f"ends after {self.size:,}"
            )
        self.position = end
        return self.data[start:end]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def count(self, code: str, what: str, smallest: int) -> int:
        """Return a number of things, each of at least `smallest` bytes: a damaged one must not be believed."""
        found = self.number(code, f"the number of {what}")
        room = (self.size - self.position) // smallest
        if found > room:
            raise self.error(
                f"the file is cut off or damaged: it announces {found:,} {what}, and at most {room:,} would fit "
                f"in the {self.size - self.position:,} bytes that are left"
            )
        return found

    def string(self, what: str) -> str:
        start = self.position
        raw = self.take(self.number("Q", f"the length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} at byte {start:,} must be UTF-8: {error}") from None

    def strings(self, number: int, what: str) -> list[str]:
        """Return many strings: what takes the time when a file is opened, so it is done without detours."""
        data, position, size = self.data, self.position, self.size
        length_at = struct.Struct("<Q").unpack_from
        found: list[str] = []
        try:
            for _ in range(number):
                start = position + 8
                position = start + length_at(data, position)[0]
                if position > size:
                    raise struct.error
                found.append(data[start:position].decode("utf-8"))
        except struct.error:
            raise self.error(
                f"the file is cut off or damaged: it ends in item {len(found):,} of {what}, which has {number:,}"
            ) from None
        except UnicodeDecodeError as error:
            raise self.error(f"item {len(found):,} of {what} must be UTF-8: {error}") from None
        self.position = position
        return found


def _read_version(cursor: _Cursor) -> int:
    magic = cursor.take(min(4, cursor.size), "the beginning")
    if magic != MAGIC:
        raise cursor.error(f"this is no GGUF file: it should begin with {MAGIC!r}; it begins with {magic!r}")
    version = cursor.number("I", "the version")
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise cursor.error("the file is big-endian; only little-endian GGUF files can be read")
    raise cursor.error(f"the version of GGUF must be one of {VERSIONS}; got {version}")


def _read_metadata(cursor: _Cursor, number: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for i in range(number):
        key = cursor.string(f"the key of metadata entry {i}")
        if not key:  # what a wrong count finds in padding
            raise cursor.error(f"the key of metadata entry {i} must not be empty")
        if key in metadata:
            raise cursor.error(f"metadata must not repeat a key; {shown(key)} comes twice")
        metadata[key] = _read_value(cursor, cursor.number("I", f"the type of {shown(key)}"), shown(key))
    return metadata


def _read_value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.string(key)
    if kind == _ARRAY:
        return _read_array(cursor, key)
    value = cursor.number(_scalar_code(cursor, kind, key), key)
    return _as_bools(cursor, [value], key)[0] if kind == _BOOL else value


def _read_array(cursor: _Cursor, key: str, depth: int = 0) -> list:
    if depth == MAX_NESTING:
        raise cursor.error(f"{key} must not nest arrays deeper than {MAX_NESTING}")
    kind = cursor.number("I", f"the type of the items of {key}")
    if kind == _STRING:
        return cursor.strings(cursor.count("Q", f"items in {key}", smallest=8), key)
    if kind == _ARRAY:
        number = cursor.count("Q", f"items in {key}", smallest=12)
        return [_read_array(cursor, key, depth + 1) for _ in range(number)]
    item = np.dtype("<" + _scalar_code(cursor, kind, key))
    number = cursor.count("Q", f"items in {key}", smallest=item.itemsize)
    values = np.frombuffer(cursor.take(number * item.itemsize, key), item).tolist()
    return _as_bools(cursor, values, key) if kind == _BOOL else values


def _scalar_code(cursor: _Cursor, kind: int, key: str) -> str:
    if kind not in _SCALARS:
        raise cursor.error(f"the type of {key} must be a number from 0 to 12; got {kind}")
    return _SCALARS[kind]


def _as_bools(cursor: _Cursor, values: list[int], key: str) -> list[bool]:
    if not set(values) <= {0, 1}:
        raise cursor.error(f"{key} must be true (1) or false (0); got {max(values)}")
    return [bool(value) for value in values]


def _read_tensors(cursor: _Cursor, number: int) -> dict[str, TensorInfo]:
    """Return the tensors with their offsets from the start of the data, which is not known yet."""
    tensors: dict[str, TensorInfo] = {}
    unknown: Counter[str] = Counter()
    for i in range(number):
        name = cursor.string(f"the name of tensor {i}")
        if not name:
            raise cursor.error(f"the name of tensor {i} must not be empty")
        if name in tensors:
            raise cursor.error(f"tensors must have different names; {shown(name)} comes twice")
        shape = _read_shape(cursor, name)
        kind = cursor.number("I", f"the type of tensor {shown(name)}")
        offset = cursor.number("Q", f"the offset of tensor {shown(name)}")
        encoding = _ENCODINGS.get(kind)
        if encoding is None:
            unknown[f"{_OTHER_TYPES.get(kind, 'unknown')} (number {kind})"] += 1
            tensors[name] = TensorInfo(name, shape, "", offset, 0)
            continue
        if (shape or (1,))[-1] % encoding.values:
            raise cursor.error(
                f"tensor {shown(name)} of type {encoding.name} must have rows of a multiple of {encoding.values}; "
                f"its shape is {shape}"
            )
        nbytes = math.prod(shape) // encoding.values * encoding.block.itemsize
        tensors[name] = TensorInfo(name, shape, encoding.name, offset, nbytes)
    if unknown:
        raise cursor.error(_unknown_types(tensors, unknown))
    return tensors


def _read_shape(cursor: _Cursor, name: str) -> tuple[int, ...]:
    num_axes = cursor.number("I", f"the number of axes of tensor {shown(name)}")
    if num_axes > MAX_AXES:
        raise cursor.error(f"tensor {shown(name)} must have at most {MAX_AXES} axes; got {num_axes}")
    axes = [cursor.number("Q", f"an axis of tensor {shown(name)}") for _ in range(num_axes)]
    if 0 in axes:
        raise cursor.error(f"tensor {shown(name)} must have axes of 1 or more; got {axes}")
    return tuple(reversed(axes))


def _unknown_types(tensors: dict[str, TensorInfo], unknown: Counter[str]) -> str:
    known = Counter(info.type for info in tensors.values() if info.type)
    there = ", ".join(f"{count} of {name}" for name, count in (known + unknown).most_common())
    return (
        f"tensors must be of the types {', '.join(sorted(_ENCODINGS_BY_NAME))}; got {', '.join(unknown)}. There "
        f"are {there}. Take a file of the same model in one of these types"
    )


def _alignment(cursor: _Cursor, metadata: dict[str, Any]) -> int:
    found = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(found) is not int or found < 1 or found & (found - 1):
        raise cursor.error(f"general.alignment must be a power of two; got {found!r:.60}")
    return found


def _check_places(cursor: _Cursor, tensors: dict[str, TensorInfo], alignment: int, start: int) -> None:
    for info in tensors.values():
        if (info.offset - start) % alignment:
            raise cursor.error(
                f"the offset of tensor {shown(info.name)} must be a multiple of {alignment}; "
                f"got {info.offset - start:,}"
            )
    # The one that ends last tells how long the file should be.
    last = max(tensors.values(), key=lambda info: info.offset + info.nbytes, default=None)
    if last is not None and last.offset + last.nbytes > cursor.size:
        raise cursor.error(
            f"the file is cut off or damaged: it should have {last.offset + last.nbytes:,} bytes, to the end of tensor "
            f"{shown(last.name)}; it has {cursor.size:,}"
        )
    overlap = find_overlap(tensors.values())
    if overlap:
        raise cursor.error(overlap)
