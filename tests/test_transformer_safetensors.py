import json
import math

import ml_dtypes
import numpy as np
import pytest

from lmcourse import datasets
from lmcourse.transformer import SafetensorsFile, WeightsFileError

# Not a dependency: `pip install --target FOLDER --no-deps safetensors` and PYTHONPATH=FOLDER make it importable.
WITHOUT_SAFETENSORS = "the safetensors package, our reference, is not installed"

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# Its header has 61 bytes, so its tensor begins at byte 8 + 61 = 69.
ONE = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def safetensors(header, body=b""):
    """Return a file's bytes; the header is given as JSON's objects or, to be wrong, as bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + body


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.fixture
def write(tmp_path):
    def write_bytes(content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        return path

    return write_bytes


@pytest.fixture
def decoded(write):
    def decode(dtype, shape, hexadecimal):
        body = bytes.fromhex(hexadecimal)
        with SafetensorsFile(write(safetensors(entry(dtype, shape, (0, len(body))), body))) as file:
            return file.tensor("w")

    return decode


def random_arrays(seed=0):
    """Return an array of each type, of random bits but for the not-a-numbers, which equal nothing."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, dtype in TYPES.items():
        values = rng.integers(0, 256, (3, 5, np.dtype(dtype).itemsize), dtype=np.uint8)
        values = values % 2 == 1 if name == "BOOL" else values.view(dtype)
        arrays[name] = np.nan_to_num(values[..., 0])
    return arrays


# --- values worked out by hand


def test_f32_and_i64_are_read_as_they_stand(decoded):
    assert decoded("F32", (2,), "0000803f 000000c0").tolist() == [1, -2]
    integers = decoded("I64", (2,), "feffffffffffffff 0000000000000040")
    assert integers.dtype == np.int64
    assert integers.tolist() == [-2, 2**62]


def test_f16_and_bf16_are_widened_to_float32(decoded):
    # float16: sign 1 bit, exponent 5, fraction 10. 0x3c00 is 1, 0x0001 the smallest, 0xfbff the lowest.
    half = decoded("F16", (3,), "003c 0100 fffb")
    assert half.dtype == np.float32
    assert half.tolist() == [1, 2**-24, -65504]
    # bfloat16: sign 1, exponent 8, fraction 7. 0x4049 is 3.140625, 0x7f7f (2 - 1/128) 2^127, 0xff80 minus infinity.
    brain = decoded("BF16", (3,), "4940 7f7f 80ff")
    assert brain.dtype == np.float32
    assert brain.tolist() == [3.140625, (2 - 2**-7) * 2.0**127, -math.inf]


def test_shapes_are_rows_first_and_may_be_empty_or_have_no_axis(decoded):
    assert decoded("U8", (2, 3), "00 01 02 03 04 05").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert decoded("U8", (), "07").tolist() == 7
    assert decoded("F32", (0, 3), "").shape == (0, 3)


def test_tensors_are_found_by_their_offsets_not_by_the_headers_order(write):
    header = {
        "__metadata__": {"format": "pt"},
        "second": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
        "first": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    with SafetensorsFile(write(safetensors(header, b"\1\2\3"))) as file:
        assert file.tensor("first").tolist() == [1]
        assert file.tensor("second").tolist() == [2, 3]
        assert file.metadata == {"format": "pt"}
        assert list(file.tensors) == ["second", "first"]


def test_a_header_may_be_padded_with_spaces(write):
    header = json.dumps(ONE).encode() + b"   "  # as the format's library does, to align the tensors
    with SafetensorsFile(write(safetensors(header, bytes(4)))) as file:
        assert file.tensor("w").tolist() == [0]


def test_a_file_may_hold_no_tensor(write):
    with SafetensorsFile(write(safetensors({}))) as file:
        assert file.tensors == {}


# --- what is wrong is named


REFUSED = [
    (b"", "the file is empty"),
    (b"\2\0\0\0", "no safetensors file: after 8 bytes should come a JSON object; there is b''"),
    (b"GGUF" + bytes(40), "no safetensors file"),
    (b"PK\3\4" + b"{" * 40, "header must have at most 100,000,000 bytes"),
    (safetensors(ONE)[:-1], r"header should end at byte 69, and the file ends after 68"),
    (safetensors(b"{'w': 1}"), "header must be JSON: Expecting property name"),
    (safetensors(b'{"\xff": 1}'), "header must be JSON: 'utf-8' codec"),
    (safetensors(b'{"\\ud800": 1}'), "header must be JSON: 'utf-8' codec can't encode"),
    (safetensors(b'{"a":' * 100_000), "header must be JSON: maximum recursion depth"),
    (safetensors(b'{"a": {}, "a": {}}'), "the name a comes twice"),
    (safetensors(b'{"a": NaN}'), "NaN is no JSON"),
    (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "header must be JSON: Exceeds the limit"),
    (
        safetensors({"__metadata__": {"format": 1}}),
        "__metadata__ must be an object from string to string",
    ),
    (safetensors({"w": 5}), "w must have a dtype, a shape and data_offsets; got 5"),
    (safetensors({"w": {"dtype": "F32"}}), "w must have a dtype, a shape and data_offsets"),
    (safetensors(entry("F8_E4M3")), "w must be of one of the types F64, F32, .*; got 'F8_E4M3'"),
    (safetensors(entry(["F32"])), r"w must be of one of the types .*; got \['F32'\]"),
    (safetensors(entry(shape=(-1,))), r"shape of tensor w must be .* integers of 0 or more; got \[-1\]"),
    (safetensors(entry(shape=(1.5,))), r"shape of tensor w must be .* got \[1\.5\]"),
    (safetensors(entry(shape=(True,))), r"shape of tensor w must be .* got \[True\]"),
    (safetensors(entry(shape=(1,) * 33)), "shape of tensor w must be at most 32"),
    (safetensors(entry(shape=(0, 2**40, 2**40), offsets=(0, 0))), "shape of tensor w cannot be"),
    (safetensors(entry(offsets=(0, 4, 8)), bytes(4)), "data_offsets of tensor w must be"),
    (safetensors(entry(offsets=(4, 0)), bytes(4)), r"data_offsets of tensor w must be .* got \[4, 0\]"),
    (
        safetensors(entry(shape=(2, 2)), bytes(4)),
        r"shape \(2, 2\) and type F32 must take 16 bytes; .* give 4",
    ),
    (safetensors(ONE, bytes(3)), "should have 73 bytes, to the end of tensor w; it has 72"),
    (safetensors(ONE, bytes(5)), "more than the header says: the file should have 73 bytes"),
    (safetensors(entry(offsets=(4, 8)), bytes(8)), "w must begin where the header ends, at byte 69"),
    (
        safetensors(ONE | {"v": {"dtype": "I8", "shape": [2], "data_offsets": [3, 5]}}, bytes(5)),
        "v must begin where tensor w ends",
    ),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_file_that_cannot_be_is_refused_with_what_would_be_right(write, content, message):
    path = write(content)
    with pytest.raises(WeightsFileError, match=message) as caught:
        SafetensorsFile(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_tensor_is_answered_with_a_list_of_those_that_are_there(write):
    with (
        SafetensorsFile(write(safetensors(ONE, bytes(4)))) as file,
        pytest.raises(WeightsFileError, match="no tensor 'v'; there are w"),
    ):
        file.tensor("v")


def test_a_tensor_of_another_shape_is_refused(write):
    with (
        SafetensorsFile(write(safetensors(ONE, bytes(4)))) as file,
        pytest.raises(WeightsFileError, match=r"'w' must have shape \(1, 1\); it has \(1,\)"),
    ):
        file.tensor("w", (1, 1))


# --- damage: only our error, whatever the byte


def file_of(arrays):
    header, body = {"__metadata__": {"format": "np"}}, b""
    for name, values in arrays.items():
        raw = values.tobytes()
        header[f"blk.0.{name}"] = {
            "dtype": name,
            "shape": list(values.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    return safetensors(header, body)


@pytest.fixture(scope="module")
def sound():
    arrays = random_arrays()
    return file_of({name: arrays[name] for name in ("F32", "BF16", "I64", "BOOL")})


def read_everything(path):
    try:
        with SafetensorsFile(path) as file:
            for name in file.tensors:
                file.tensor(name)
    except WeightsFileError as error:
        str(error).encode("utf-8")  # can be printed
        return False
    return True


def test_a_file_cut_off_anywhere_is_refused(write, sound):
    assert read_everything(write(sound))
    assert [size for size in range(len(sound)) if read_everything(write(sound[:size]))] == []


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # a damaged number may be none
def test_a_damaged_byte_gives_our_error_or_none(write, sound):
    rng = np.random.default_rng(0)
    outcomes = []
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= int(rng.choice([1, 0x80, 0xFF, rng.integers(1, 256)]))
        outcomes.append(read_everything(write(bytes(damaged))))
    # Bytes of the header are noticed, but for letters in names; bytes of weights cannot be.
    header = int.from_bytes(sound[:8], "little")
    assert not any(outcomes[:8])
    assert outcomes[8 : 8 + header].count(False) > 0.6 * header
    assert all(outcomes[8 + header :])


# --- references


def test_every_type_is_what_numpy_and_ml_dtypes_read(write):
    with SafetensorsFile(write(file_of(random_arrays()))) as file:
        for name, values in random_arrays().items():
            found = file.tensor(f"blk.0.{name}")
            widened = values.astype(np.float32) if name in ("F16", "BF16") else values
            assert found.dtype == widened.dtype, name
            np.testing.assert_array_equal(found, widened)


def test_a_file_that_the_safetensors_package_writes_is_read(tmp_path):
    pytest.importorskip("safetensors", reason=WITHOUT_SAFETENSORS)
    from safetensors.numpy import save_file

    arrays = {name: values for name, values in random_arrays(1).items() if name != "BF16"}
    save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    with SafetensorsFile(tmp_path / "theirs.safetensors") as file:
        assert set(file.tensors) == set(arrays)
        assert file.metadata == {"format": "np"}
        for name, values in arrays.items():
            np.testing.assert_array_equal(file.tensor(name), values.astype(file.tensor(name).dtype))


def test_the_safetensors_package_reads_the_same_from_our_tests_file(write):
    package = pytest.importorskip("safetensors", reason=WITHOUT_SAFETENSORS)
    path = write(file_of(random_arrays()))
    with package.safe_open(path, framework="numpy") as theirs, SafetensorsFile(path) as ours:
        assert set(theirs.keys()) == set(ours.tensors)
        for name in ours.tensors:
            values = theirs.get_tensor(name)
            found = ours.tensor(name)
            np.testing.assert_array_equal(found, values.astype(found.dtype))


@pytest.mark.skipif(
    not datasets.available("minilm"), reason="minilm is not in the cache: lmcourse data fetch minilm"
)
def test_minilm_has_22565376_parameters_and_each_is_what_its_bytes_say():
    path = datasets.path("minilm", "model.safetensors")
    with SafetensorsFile(path) as file:
        encoder = [name for name in file.tensors if name.split(".")[0] != "pooler"]
        encoder.remove("embeddings.position_ids")  # 0 to 511: numbers of places, no parameters
        # Three embeddings with their norm; six layers of q, k, v, o, a feed-forward of 4 times the width, two norms.
        width, layer = 384, 4 * (384**2 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
        assert (30522 + 512 + 2 + 2) * width + 6 * layer == 22_565_376
        assert sum(file.tensors[name].size for name in encoder) == 22_565_376
        assert file.tensor("embeddings.position_ids").tolist() == [list(range(512))]
        words = file.tensor("embeddings.word_embeddings.weight", (30522, width))
        info = file.tensors["embeddings.word_embeddings.weight"]
    with path.open("rb") as raw:
        raw.seek(info.offset + 4 * width * 2000)
        np.testing.assert_array_equal(words[2000], np.fromfile(raw, "<f4", width))


@pytest.mark.skipif(
    not datasets.available("minilm"), reason="minilm is not in the cache: lmcourse data fetch minilm"
)
def test_minilm_is_read_as_the_safetensors_package_reads_it():
    package = pytest.importorskip("safetensors", reason=WITHOUT_SAFETENSORS)
    path = datasets.path("minilm", "model.safetensors")
    with package.safe_open(path, framework="numpy") as theirs, SafetensorsFile(path) as ours:
        assert set(theirs.keys()) == set(ours.tensors)
        for name in ours.tensors:
            np.testing.assert_array_equal(ours.tensor(name), theirs.get_tensor(name))
