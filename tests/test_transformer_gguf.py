import collections
import math
import struct
import tracemalloc

import numpy as np
import pytest
from gguf_writer import ARRAY, F16, F32, Q4_0, Q4_1, Q8_0, STRING, gguf, string, typed

from lmcourse import datasets
from lmcourse.transformer import GGUFFile, WeightsFileError, read_chat_template, read_tokenizer

# Not a dependency of the course: `pip install --target FOLDER --no-deps gguf` and PYTHONPATH=FOLDER make it importable.
WITHOUT_GGUF = "the gguf package, our reference, is not installed"

needs_smollm2 = pytest.mark.skipif(
    not datasets.available("smollm2"), reason="smollm2 is not in the cache: lmcourse data fetch smollm2"
)


@pytest.fixture
def write(tmp_path):
    """Write a file's bytes and return its path."""

    def write_bytes(content):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return write_bytes


@pytest.fixture
def decoded(write):
    """Decode a tensor whose bytes are given in hexadecimal."""

    def decode(kind, shape, hexadecimal):
        with GGUFFile(write(gguf(tensors=[("w", shape, kind, bytes.fromhex(hexadecimal))]))) as file:
            return file.tensor("w")

    return decode


@pytest.fixture(scope="module")
def smollm2():
    with GGUFFile(datasets.path("smollm2")) as file:
        yield file


def random_blocks(kind, rows, seed):
    """Return random finite values of a row of 64: scales within float16's range, all patterns of bits below."""
    rng = np.random.default_rng(seed)
    blocks = rows * 2
    scales = rng.normal(size=(blocks, 2)).astype("<f2").view(np.uint8).reshape(blocks, 4)
    bits = rng.integers(0, 256, (blocks, 32), dtype=np.uint8)
    parts = {
        Q8_0: (scales[:, :2], bits),
        Q4_0: (scales[:, :2], bits[:, :16]),
        Q4_1: (scales, bits[:, :16]),
    }
    return np.concatenate(parts[kind], axis=1).tobytes()


# --- values worked out by hand


def test_f32_and_f16_are_read_as_they_stand(decoded):
    assert decoded(F32, (3,), "0000803f 000000c0 000080ff").tolist() == [1, -2, -math.inf]
    # float16: 1, the smallest number above zero, the lowest finite one, infinity.
    assert decoded(F16, (4,), "003c 0100 fffb 007c").tolist() == [1, 2**-24, -65504, math.inf]


def test_a_q8_0_block_is_its_scale_times_32_signed_bytes(decoded):
    values = decoded(Q8_0, (1, 32), "0038" + "80 7f 01 ff" + "00" * 28)  # 0x3800 is 0.5
    assert values.shape == (1, 32)
    assert values[0].tolist() == [-64, 63.5, 0.5, -0.5] + [0] * 28


def test_a_q4_0_block_has_its_zero_at_8_and_its_second_half_in_the_high_bits(decoded):
    # Scale -2. Byte 0 is f0: value 0 is -2 (0 - 8) = 16 and value 16 is -2 (15 - 8) = -14. Byte 1 is 79: value 1 is
    # -2 (9 - 8) = -2 and value 17 is -2 (7 - 8) = 2. All others have 8.
    values = decoded(Q4_0, (32,), "00c0" + "f0 79" + "88" * 14)
    assert {i: value for i, value in enumerate(values.tolist()) if value} == {0: 16, 16: -14, 1: -2, 17: 2}


def test_a_q4_1_block_adds_its_offset_to_the_scaled_half_bytes(decoded):
    # Scale 0.5, offset -1 (0xbc00). Byte 15 is 5c: value 15 is 0.5 · 12 - 1 = 5, value 31 is 0.5 · 5 - 1 = 1.5.
    values = decoded(Q4_1, (32,), "0038 00bc" + "00" * 15 + "5c")
    assert values[15] == 5
    assert values[31] == 1.5
    assert np.delete(values, [15, 31]).tolist() == [-1] * 30


def test_blocks_fill_rows_and_the_last_axis_is_ggmls_first(decoded):
    first, second, third, fourth = (f"003c {number:02x}" + "00" * 31 for number in (1, 2, 3, 4))  # scale 1
    values = decoded(Q8_0, (2, 64), first + second + third + fourth)
    assert values[:, [0, 32]].tolist() == [[1, 2], [3, 4]]


def test_each_tensor_is_found_at_its_own_offset(write):
    tensors = [(f"blk.{i}.w", (i + 1,), F32, struct.pack(f"<{i + 1}f", *[i] * (i + 1))) for i in range(5)]
    with GGUFFile(write(gguf({"general.alignment": 64}, tensors, alignment=64))) as file:
        assert [file.tensor(f"blk.{i}.w").tolist() for i in range(5)] == [[i] * (i + 1) for i in range(5)]
        assert list(file.tensors) == [name for name, *_ in tensors]


def test_a_scalar_has_no_axes(decoded):
    assert decoded(F32, (), "0000803f").shape == ()


def test_tensors_are_new_arrays_that_outlive_the_file(decoded):
    values = decoded(F32, (2,), "0000803f 000000c0")
    values[0] = 7
    assert values.tolist() == [7, -2]


# --- metadata


def test_metadata_of_every_type_are_read(write):
    pack = struct.pack
    numbers = {
        "u8": (0, b"\xff"),
        "i8": (1, b"\xff"),
        "u16": (2, b"\xfe\xff"),
        "i16": (3, b"\xfe\xff"),
        "u32": (4, b"\xfd\xff\xff\xff"),
        "i32": (5, b"\xfd\xff\xff\xff"),
        "f32": (6, b"\x00\x00\x80\x3e"),
        "u64": (10, b"\xff" * 8),
        "i64": (11, b"\xff" * 8),
        "f64": (12, b"\x00" * 7 + b"\xc0"),
    }
    others = {
        "true": (7, b"\1"),
        "text": "é\n",
        "none": [],
        "texts": ["a", "", "狐"],
        "ints": [3, -4],
        "bools": [True, False],
        "nested": (ARRAY, pack("<IQ", ARRAY, 2) + typed([1, 2])[1] + typed([])[1]),
    }
    with GGUFFile(write(gguf({**numbers, **others}))) as file:
        found = file.metadata
    assert [found[key] for key in numbers] == [
        *(255, -1, 65534, -2, 2**32 - 3, -3, 0.25, 2**64 - 1, -1),
        -2.0,
    ]
    assert {key: found[key] for key in others} == {
        "true": True,
        "text": "é\n",
        "none": [],
        "texts": ["a", "", "狐"],
        "ints": [3, -4],
        "bools": [True, False],
        "nested": [[1, 2], []],
    }


def test_a_value_is_asked_for_with_its_type(write):
    with GGUFFile(write(gguf({"a.size": 5, "a.name": "x", "a.flag": True}))) as file:
        assert (file.value("a.size", int), file.value("a.name", str)) == (5, "x")
        assert file.value("a.missing", int, 7) == 7
        with pytest.raises(WeightsFileError, match=r"no 'a\.missing'; it has a\.size, a\.name, a\.flag"):
            file.value("a.missing", int)
        with pytest.raises(WeightsFileError, match=r"a\.name must be of type int; got str 'x'"):
            file.value("a.name", int)
        with pytest.raises(WeightsFileError, match=r"a\.flag must be of type int; got bool True"):
            file.value("a.flag", int)


def test_version_2_has_the_same_layout(write):
    with GGUFFile(write(gguf({"a": 1}, version=2))) as file:
        assert (file.version, file.metadata) == (2, {"a": 1})


def test_opening_reads_no_tensor(write):
    path = write(gguf(tensors=[("small", (1,), F32, b"\0\0\x80\x3f"), ("large", (2**24,), F32, b"")]))
    with path.open("r+b") as file:
        file.truncate(2**27)  # 128 MiB, of which the disk holds one page
    tracemalloc.start()
    try:
        with GGUFFile(path) as file:
            assert file.tensor("small").tolist() == [1]
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


# --- what is wrong is named


ONE = ("w", (1,), F32, bytes(4))
ROW = ("w", (32,), Q8_0, bytes(34))


REFUSED = [
    (b"", "the file is empty"),
    (b"GG", "no GGUF file: it should begin with b'GGUF'; it begins with b'GG'"),
    (b"PK\3\4" + bytes(100), r"no GGUF file: .* begins with b'PK"),
    (gguf(version=1), r"version of GGUF must be one of \(2, 3\); got 1"),
    (gguf(version=3 << 24), "big-endian"),
    (b"GGUF\3\0\0\0\0", "cut off or damaged: the number of tensors at byte 8 needs 8 bytes"),
    (gguf(num_tensors=2**60), r"announces 1,152,921,504,606,846,976 tensors, and at most 0 would fit"),
    (
        gguf({"a": 1}, num_entries=5),
        "announces 5 metadata entries, and at most 3 would fit in the 40 bytes",
    ),
    (gguf({"a": 1}, num_entries=2), "key of metadata entry 1 must not be empty"),
    (gguf(tensors=[("", (1,), F32, bytes(4))]), "name of tensor 0 must not be empty"),
    (gguf([("a", 1), ("a", 2)]), "must not repeat a key; a comes twice"),
    (gguf([(b"\xff", 1)]), "key of metadata entry 0 at byte 24 must be UTF-8"),
    (gguf({"a": (STRING, string(b"\xff"))}), "a at byte 37 must be UTF-8"),
    (gguf({"a": (13, b"")}), "type of a must be a number from 0 to 12; got 13"),
    (gguf({"a": (7, b"\2")}), r"a must be true \(1\) or false \(0\); got 2"),
    (
        gguf({"a": (STRING, struct.pack("<Q", 2**63))}),
        r"a at byte 45 needs 9,223,372,036,854,775,808 bytes",
    ),
    (
        gguf({"a": (ARRAY, struct.pack("<IQ", 4, 2**62))}),
        "announces 4,611,686,018,427,387,904 items in a",
    ),
    (
        gguf({"a": (ARRAY, struct.pack("<IQQQ", STRING, 2, 0, 99))}),
        "ends in item 1 of a, which has 2",
    ),
    (
        gguf({"a": (ARRAY, struct.pack("<IQQ", STRING, 1, 1) + b"\xff")}),
        "item 0 of a must be UTF-8",
    ),
    (
        gguf({"a": (ARRAY, struct.pack("<IQ", ARRAY, 1) * 9 + bytes(12))}),
        "a must not nest arrays deeper than 4",
    ),
    (gguf({"general.alignment": 24}), "alignment must be a power of two; got 24"),
    (gguf({"general.alignment": 0}), "alignment must be a power of two; got 0"),
    (gguf({"general.alignment": "32"}), "alignment must be a power of two; got '32'"),
    (gguf(tensors=[ONE, ONE]), "different names; w comes twice"),
    (gguf(tensors=[("w", (1,) * 5, F32, bytes(4))]), "w must have at most 4 axes; got 5"),
    (gguf(tensors=[("w", (3, 0), F32, b"")]), r"w must have axes of 1 or more; got \[0, 3\]"),
    (
        gguf(tensors=[("w", (2, 16), Q8_0, bytes(34))]),
        r"Q8_0 must have rows of a multiple of 32; .* \(2, 16\)",
    ),
    (gguf(tensors=[("w", (), Q4_1, bytes(20))]), r"Q4_1 must have rows of a multiple of 32; .* \(\)"),
    (gguf(tensors=[ONE], offsets=[2]), "offset of tensor w must be a multiple of 32; got 2"),
    (gguf(tensors=[ONE], offsets=[2**63]), "should have 9,223,372,036,854,775,.* to the end of tensor w"),
    (gguf(tensors=[ROW])[:-1], "should have 98 bytes, to the end of tensor w; it has 97"),
    (
        gguf(tensors=[("a", (9,), F32, bytes(36)), ("b", (1,), F32, bytes(4))], offsets=[0, 32]),
        "tensors a and b overlap",
    ),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_file_that_cannot_be_is_refused_with_what_would_be_right(write, content, message):
    path = write(content)
    with pytest.raises(WeightsFileError, match=message) as caught:
        GGUFFile(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_types_that_cannot_be_decoded_are_named_with_those_that_can(write):
    path = write(gguf(tensors=[ONE, ("a", (256,), 14, b""), ("b", (256,), 14, b""), ("c", (1,), 99, b"")]))
    with pytest.raises(WeightsFileError) as caught:
        GGUFFile(path)
    assert (
        "must be of the types F16, F32, Q4_0, Q4_1, Q8_0; got Q6_K (number 14), unknown (number 99). There are "
        "2 of Q6_K (number 14), 1 of F32, 1 of unknown (number 99)"
    ) in str(caught.value)


def test_a_missing_tensor_is_answered_with_a_list_of_those_that_are_there(write):
    tensors = [(name, (1,), F32, bytes(4)) for name in ("embed", "blk.0.norm", "blk.1.norm")]
    with (
        GGUFFile(write(gguf(tensors=tensors))) as file,
        pytest.raises(
            WeightsFileError, match=r"no tensor 'blk\.2\.norm'; there are embed, blk\.N\.norm \(2\)"
        ),
    ):
        file.tensor("blk.2.norm")


def test_a_tensor_of_another_shape_is_refused(write):
    with GGUFFile(write(gguf(tensors=[("w", (2, 3), F32, bytes(24))]))) as file:
        assert file.tensor("w", [2, 3]).shape == (2, 3)
        with pytest.raises(WeightsFileError, match=r"'w' must have shape \(3, 2\); it has \(2, 3\)"):
            file.tensor("w", (3, 2))


def test_all_that_a_model_lacks_is_named_before_any_of_it_is_loaded(write):
    tensors = [("a", (2,), F32, bytes(8)), ("b", (2,), F32, bytes(8)), ("bias", (1,), F32, bytes(4))]
    with GGUFFile(write(gguf(tensors=tensors))) as file:
        file.check_tensors({"a": (2,), "b": (2,)}, may_hold=["bias"])
        with pytest.raises(WeightsFileError) as caught:
            file.check_tensors({"a": (2, 1), "blk.0.c": (1,), "blk.1.c": (1,), "b": (2,)})
    assert (
        "(missing: blk.N.c (2); of a wrong shape: 'a' must have shape (2, 1) and has (2,); not expected: bias); "
        "there are a, b, bias"
    ) in str(caught.value)


def test_a_closed_file_says_so(write):
    file = GGUFFile(write(gguf(tensors=[ONE])))
    file.close()
    with pytest.raises(ValueError, match="was closed: read its tensors inside the with block"):
        file.tensor("w")


def test_an_absent_file_is_an_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        GGUFFile(tmp_path / "none.gguf")


# --- damage: only our error, whatever the byte


@pytest.fixture(scope="module")
def sound():
    """A file with something of everything, a tokenizer and a template among it, in about 1,000 bytes."""
    metadata = {
        "general.alignment": 32,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|im_end|>", "a", "b", "ab"],
        "tokenizer.ggml.token_type": [3, 1, 1, 1],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{% for message in messages %}",
        "flags": [True, False],
        "nested": (ARRAY, struct.pack("<IQ", ARRAY, 1) + typed([1, 2])[1]),
        "eps": 1e-5,
    }
    tensors = [
        ("a", (2, 2), F32, bytes(16)),
        ("b", (3,), F16, bytes(6)),
        ("c", (1, 32), Q4_0, random_blocks(Q4_0, 1, 0)[:18]),
        ("d", (32,), Q4_1, random_blocks(Q4_1, 1, 0)[:20]),
        ("e", (2, 32), Q8_0, random_blocks(Q8_0, 1, 0)),
    ]
    return gguf(metadata, tensors)


def read_everything(path):
    """Read all there is; return whether our error, and no other, said that it cannot be."""
    try:
        with GGUFFile(path) as file:
            for name in file.tensors:
                file.tensor(name)
            for read in (read_tokenizer, read_chat_template):
                try:
                    read(file)
                except WeightsFileError as error:
                    str(error).encode("utf-8")  # can be printed
    except WeightsFileError as error:
        str(error).encode("utf-8")
        return False
    return True


def test_a_file_cut_off_anywhere_is_refused(write, sound):
    assert read_everything(write(sound))
    accepted = [size for size in range(len(sound)) if read_everything(write(sound[:size]))]
    assert accepted == []


@pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow):RuntimeWarning"
)  # a damaged scale may be infinite
@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_byte_gives_our_error_or_none(write, sound, seed):
    rng = np.random.default_rng(seed)
    outcomes = collections.Counter()
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= int(rng.choice([1, 0x80, 0xFF, rng.integers(1, 256)]))
        outcomes[read_everything(write(bytes(damaged)))] += 1
    # Bytes of counts, lengths and types are noticed; bytes of weights cannot be.
    assert min(outcomes[True], outcomes[False]) > len(sound) / 5


# --- the gguf package


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
def test_random_blocks_decode_to_what_the_gguf_package_gives(write, name):
    gguf_package = pytest.importorskip("gguf", reason=WITHOUT_GGUF)
    theirs = gguf_package.GGMLQuantizationType[name]
    raw = random_blocks(int(theirs), 64, seed=1)
    expected = gguf_package.dequantize(np.frombuffer(raw, np.uint8).reshape(64, -1), theirs)
    with GGUFFile(write(gguf(tensors=[("w", (64, 64), int(theirs), raw)]))) as file:
        np.testing.assert_array_equal(file.tensor("w"), expected)  # the same operations in float32


def test_a_file_that_the_gguf_package_writes_is_read(tmp_path):
    gguf_package = pytest.importorskip("gguf", reason=WITHOUT_GGUF)
    writer = gguf_package.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(0.5)
    writer.add_token_list(["a", "é"])
    writer.add_token_types([1, 3])
    writer.add_array("flags", [True, False])
    values = np.random.default_rng(0).normal(size=(4, 96)).astype(np.float32)
    kinds = gguf_package.GGMLQuantizationType
    names = ("Q8_0", "Q4_0", "Q4_1")
    for name in names:
        writer.add_tensor(name, gguf_package.quantize(values, kinds[name]), raw_dtype=kinds[name])
    writer.add_tensor("F32", values)
    writer.add_tensor("F16", values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(tmp_path / "theirs.gguf") as file:
        assert file.value("llama.block_count", int) == 3
        assert file.value("llama.attention.layer_norm_rms_epsilon", float) == 0.5
        assert file.metadata["tokenizer.ggml.tokens"] == ["a", "é"]
        assert file.metadata["tokenizer.ggml.token_type"] == [1, 3]
        assert file.metadata["flags"] == [True, False]
        assert {name: info.type for name, info in file.tensors.items()} == {
            name: name for name in (*names, "F32", "F16")
        }
        np.testing.assert_array_equal(file.tensor("F32"), values)
        np.testing.assert_array_equal(file.tensor("F16"), values.astype(np.float16).astype(np.float32))
        for name in names:
            expected = gguf_package.dequantize(gguf_package.quantize(values, kinds[name]), kinds[name])
            np.testing.assert_array_equal(file.tensor(name, values.shape), expected)


@needs_smollm2
def test_smollm2_is_read_as_the_gguf_package_reads_it(smollm2):
    gguf_package = pytest.importorskip("gguf", reason=WITHOUT_GGUF)
    reader = gguf_package.GGUFReader(datasets.path("smollm2"))
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert list(smollm2.metadata) == keys
    assert smollm2.metadata == {key: reader.fields[key].contents() for key in keys}
    assert list(smollm2.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        info = smollm2.tensors[tensor.name]
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.type, info.offset, info.nbytes) == (
            tensor.tensor_type.name,
            tensor.data_offset,
            tensor.n_bytes,
        )
        expected = gguf_package.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(smollm2.tensor(tensor.name), expected)


# --- SmolLM2-135M-Instruct


@needs_smollm2
def test_smollm2_has_the_published_sizes(smollm2):
    # config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
    sizes = {
        "block_count": 30,
        "embedding_length": 576,
        "feed_forward_length": 1536,
        "attention.head_count": 9,
        "attention.head_count_kv": 3,
        "context_length": 8192,
        "vocab_size": 49152,
    }
    assert {name: smollm2.value(f"llama.{name}", int) for name in sizes} == sizes
    assert smollm2.value("llama.rope.freq_base", float) == 100_000
    assert smollm2.value("llama.attention.layer_norm_rms_epsilon", float) == pytest.approx(1e-5, rel=1e-7)
    # Embedding, and for each layer q and o, k and v, gate, up and down, two norms; then the last norm.
    layer = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576 + 2 * 576
    assert 49152 * 576 + 30 * layer + 576 == 134_515_008
    assert sum(info.size for info in smollm2.tensors.values()) == 134_515_008


@needs_smollm2
def test_smollm2s_tensors_fill_its_file(smollm2):
    types = collections.Counter(info.type for info in smollm2.tensors.values())
    assert types == {
        "Q4_1": 7 * 30,
        "F32": 2 * 30 + 1,
        "Q8_0": 1,
    }  # matrices and norms of 30 layers, embedding
    assert max(info.offset + info.nbytes for info in smollm2.tensors.values()) == 98_362_432
