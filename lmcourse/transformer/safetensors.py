"""safetensors, the file format in which weights are published on the model hubs.

A file is the length of its header (uint64, little-endian), the header, and the tensors one after the other:

    {"__metadata__": {"format": "pt"}, "wte.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}

The header is JSON and the offsets count from its end, so nothing in the file can be run: that is what is safe about it,
beside pickled weights, which are programs.

Reference: https://huggingface.co/docs/safetensors/index, "Format".
"""

import json
import math
import mmap
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lmcourse.transformer.weights_file import TensorInfo, WeightsFile, shown, widened

# The limit of the format's own library: what is longer is an attack or an accident.
MAX_HEADER_BYTES = 100_000_000

MAX_AXES = 32  # what every NumPy can do
MAX_VALUES = 2**48  # more than any file could hold, and small enough that no product overflows

METADATA = "__metadata__"

# bfloat16 is the upper half of a float32, which NumPy has no type for: its bits are read as integers.
# fmt: off
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}
# fmt: on


class SafetensorsFile(WeightsFile):
    """An open safetensors file.

    float16 and bfloat16 come as float32, all else in its own type.

    Attributes:
        metadata: the strings under `__metadata__`; often only which library wrote the file.

    Example:
        >>> import pathlib, tempfile
        >>> header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
        >>> content = len(header).to_bytes(8, "little") + header + bytes.fromhex("803f 40c0")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "tiny.safetensors").write_bytes(content)
        ...     with SafetensorsFile(pathlib.Path(folder, "tiny.safetensors")) as file:
        ...         file.tensor("w")  # 0x3f80 is 1; 0xc040 is -3
        array([ 1., -3.], dtype=float32)
    """

    def _read_index(self, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        header, start = self._read_header(data)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(type(value) is str for value in metadata.values()):
            raise self.error(f"{METADATA} must be an object from string to string; got {metadata!r:.60}")
        tensors = {name: self._read_entry(name, entry, start) for name, entry in header.items()}
        self._check_places(tensors, start, len(data))
        return metadata, tensors

    def _decode(self, info: TensorInfo, data: mmap.mmap) -> NDArray:
        values = np.frombuffer(data, _DTYPES[info.type], info.size, info.offset)
        if info.type == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values != 0 if info.type == "BOOL" else widened(values)

    def _read_header(self, data: mmap.mmap) -> tuple[dict[str, Any], int]:
        """Return the header, and where the tensors begin."""
        length = int.from_bytes(data[:8], "little")
        if len(data) < 10 or data[8:9] != b"{":
            raise self.error(
                f"this is no safetensors file: after 8 bytes should come a JSON object; there is {data[8:20]!r}"
            )
        if length > MAX_HEADER_BYTES:
            raise self.error(f"the header must have at most {MAX_HEADER_BYTES:,} bytes; got {length:,}")
        if 8 + length > len(data):
            raise self.error(
                f"the file is cut off or damaged: its header should end at byte {8 + length:,}, and the file ends "
                f"after {len(data):,}"
            )
        return self._parse_header(data[8 : 8 + length]), 8 + length

    def _parse_header(self, raw: bytes) -> dict[str, Any]:
        try:
            text = raw.decode("utf-8")
            header = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
            # JSON can escape half a character, which no name may hold: it could not even be printed.
            json.dumps(header, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise self.error(f"the header must be JSON: {error!s:.200}") from None
        if not isinstance(header, dict):
            raise self.error(f"the header must be a JSON object; got {type(header).__name__}")
        return header

    def _read_entry(self, name: str, entry: Any, start: int) -> TensorInfo:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self.error(
                f"tensor {shown(name)} must have a dtype, a shape and data_offsets; got {entry!r:.80}"
            )
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise self.error(
                f"tensor {shown(name)} must be of one of the types {', '.join(_DTYPES)}; got {dtype!r:.60}"
            )
        self._check_shape(name, shape)
        if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self.error(
                f"data_offsets of tensor {shown(name)} must be where it begins and ends; got {offsets!r:.60}"
            )
        needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if offsets[1] - offsets[0] != needed:
            raise self.error(
                f"tensor {shown(name)} of shape {tuple(shape)} and type {dtype} must take {needed:,} bytes; its "
                f"data_offsets {offsets} give {offsets[1] - offsets[0]:,}"
            )
        return TensorInfo(name, tuple(shape), dtype, start + offsets[0], needed)

    def _check_shape(self, name: str, shape: Any) -> None:
        if not _are_counts(shape) or len(shape) > MAX_AXES:
            raise self.error(
                f"the shape of tensor {shown(name)} must be at most {MAX_AXES} integers of 0 or more; got {shape!r:.60}"
            )
        if math.prod(max(axis, 1) for axis in shape) > MAX_VALUES:
            raise self.error(f"the shape of tensor {shown(name)} cannot be: {str(shape)[:60]}")

    def _check_places(self, tensors: dict[str, TensorInfo], start: int, size: int) -> None:
        """Check that the tensors fill the rest of the file, without gap or overlap, as the format demands."""
        end, before = start, "the header"
        for info in sorted(tensors.values(), key=lambda info: (info.offset, info.nbytes)):
            if info.offset != end:
                raise self.error(
                    f"tensor {shown(info.name)} must begin where {before} ends, at byte {end:,}; it begins at "
                    f"{info.offset:,}"
                )
            end, before = info.offset + info.nbytes, f"tensor {shown(info.name)}"
        if end != size:
            what = "the file is cut off or damaged" if end > size else "there is more than the header says"
            raise self.error(
                f"{what}: the file should have {end:,} bytes, to the end of {before}; it has {size:,}"
            )


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {shown(repeated)} comes twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
