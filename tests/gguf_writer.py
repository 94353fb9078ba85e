"""Writes GGUF files for tests, from the format's description and not from our reader; also wrong ones."""

import struct

F32, F16, Q4_0, Q4_1, Q8_0 = 0, 1, 2, 3, 8  # ggml's numbers
STRING, ARRAY = 8, 9


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def typed(value):
    """Return the number of a value's type, and its bytes; a pair (type, bytes) stands for itself."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return STRING, string(value)
    if value and isinstance(value[0], int) and not isinstance(value[0], bool):
        return ARRAY, struct.pack(f"<IQ{len(value)}i", 5, len(value), *value)
    items = [typed(item) for item in value]
    kind = items[0][0] if items else STRING
    return ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(raw for _, raw in items)


def gguf(
    metadata=(),
    tensors=(),
    *,
    magic=b"GGUF",
    version=3,
    num_entries=None,
    num_tensors=None,
    alignment=32,
    offsets=None,
):
    """Return a file's bytes.

    Args:
        metadata: pairs of key and value, or a dict.
        tensors: (name, shape as NumPy has it, type's number, bytes).
        magic, version, num_entries, num_tensors, offsets: what to write instead of the truth.
        alignment: of the tensors; what the metadata say of it is the caller's.
    """
    entries = list(dict(metadata).items()) if isinstance(metadata, dict) else list(metadata)
    counts = (
        len(tensors) if num_tensors is None else num_tensors,
        len(entries) if num_entries is None else num_entries,
    )
    head = magic + struct.pack("<IQQ", version, *counts)
    for key, value in entries:
        kind, raw = typed(value)
        head += string(key) + struct.pack("<I", kind) + raw
    body = b""
    for i, (name, shape, kind, raw) in enumerate(tensors):
        body += bytes(-len(body) % alignment)
        offset = len(body) if offsets is None else offsets[i]
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, offset)
        body += raw
    return head + bytes(-len(head) % alignment) + body
