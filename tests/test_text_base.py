"""What every tokenizer promises, whatever its tokens are."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcourse.text import BPETokenizer, CharTokenizer, Tokenizer, WordPieceTokenizer, WordTokenizer, visible

TEXT = "the fox saw the hare, and the hare ran. low lower lowest!"

TOKENIZERS = {
    "char": lambda: CharTokenizer.train(TEXT, unknown_token="<unk>", special_tokens=["<end>"]),
    "word": lambda: WordTokenizer.train(TEXT, special_tokens=["<end>"]),
    "bpe": lambda: BPETokenizer.train(TEXT, merges=20, special_tokens=["<end>"]),
    "wordpiece": lambda: WordPieceTokenizer.train(
        TEXT, vocab_size=60, min_count=1, special_tokens=["[UNK]", "<end>"]
    ),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_decoding_gives_back_a_text_in_the_tokenizers_normal_form(tokenizer):
    normal = tokenizer.decode(tokenizer.encode(TEXT))
    assert normal.replace(" ", "") == TEXT.replace(" ", "")
    assert tokenizer.decode(tokenizer.encode(normal)) == normal


def test_ids_index_the_tokens(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert len(tokenizer.tokens) == tokenizer.vocab_size
    assert min(ids) >= 0
    assert max(ids) < tokenizer.vocab_size


def test_tokens_can_be_told_apart_and_hold_no_white_space(tokenizer):
    assert len(set(tokenizer.tokens)) == tokenizer.vocab_size
    assert not any(character.isspace() for token in tokenizer.tokens for character in token)
    assert all(token.isprintable() for token in tokenizer.tokens)


def test_the_empty_text_has_no_ids(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_a_batch_is_its_texts_one_by_one(tokenizer):
    texts = [TEXT, "", "a hare<end>the fox", "low"]
    for special in ("allow", "text"):
        expected = [tokenizer.encode(text, special=special) for text in texts]
        assert tokenizer.encode_batch(texts, special=special) == expected
    rows = tokenizer.encode_batch(texts)
    assert tokenizer.decode_batch(rows) == [tokenizer.decode(row) for row in rows]
    assert tokenizer.encode_batch([]) == []


def test_a_special_token_is_one_id_between_texts_encoded_alone(tokenizer):
    end = tokenizer.special_tokens["<end>"]
    expected = [*tokenizer.encode("the fox"), end, end, *tokenizer.encode("ran")]
    assert tokenizer.encode("the fox<end><end>ran") == expected


def test_a_special_token_taken_as_text_never_gives_its_id(tokenizer):
    assert tokenizer.special_tokens["<end>"] not in tokenizer.encode("fox<end>", special="text")


def test_a_forbidden_special_token_is_an_error_that_names_it(tokenizer):
    with pytest.raises(ValueError, match="text must not hold the special token '<end>'"):
        tokenizer.encode("fox<end>", special="forbid")
    assert tokenizer.encode("the fox", special="forbid") == tokenizer.encode("the fox")


def test_special_tokens_can_be_left_out_of_the_text(tokenizer):
    ids = tokenizer.encode("the fox<end>")
    assert "<end>" in tokenizer.decode(ids)
    assert tokenizer.decode(ids, skip_special=True) == "the fox"


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_an_error_that_names_it(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"ids must be between 0 and V - 1 = .*; got {wrong}"):
        tokenizer.decode([0, wrong])


@pytest.mark.parametrize("wrong", [[1.0], ["a"], [[1, 2]]])
def test_ids_that_are_no_integers_are_an_error(tokenizer, wrong):
    with pytest.raises(ValueError, match="ids must be a flat sequence of integers"):
        tokenizer.decode(wrong)


def test_decode_takes_numpy_arrays(tokenizer):
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(np.array(ids, dtype=np.int32)) == tokenizer.decode(ids)


def test_text_that_is_no_string_is_an_error(tokenizer):
    with pytest.raises(TypeError, match="text must be a string; got bytes"):
        tokenizer.encode(b"fox")
    with pytest.raises(ValueError, match="special must be one of"):
        tokenizer.encode("fox", special="none")


def test_a_saved_tokenizer_loads_as_the_same(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert type(loaded) is type(tokenizer)
    assert loaded.to_config() == tokenizer.to_config()
    assert loaded.tokens == tokenizer.tokens
    assert loaded.special_tokens == tokenizer.special_tokens
    for text in (TEXT, "unseen wörds<end>"):
        assert loaded.encode(text) == tokenizer.encode(text)
    assert type(tokenizer).load(path).tokens == tokenizer.tokens
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_config_gives_the_tokenizer_back(tokenizer):
    again = type(tokenizer).from_config(tokenizer.to_config())
    assert again.to_config() == tokenizer.to_config()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    CharTokenizer.train("ab").save(path)
    before = path.read_text()

    def full_disk(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        CharTokenizer.train("abc").save(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def file_with(**changes):
    content = {"format": "lmcourse-tokenizer", "type": "CharTokenizer", "config": {"characters": ["a"]}}
    return json.dumps(content | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("[]", "is not a tokenizer's file"),
        (file_with(format="other"), "is not a tokenizer's file"),
        (file_with(type="MorseTokenizer"), "unknown type 'MorseTokenizer'; known: .*BPETokenizer"),
        (file_with(type=3), "must hold a type and a config"),
        (file_with(config={"letters": []}), "does not hold the config of a CharTokenizer"),
        (file_with(config={"characters": ["ab"]}), "characters must be strings of length 1"),
    ],
)
def test_a_broken_file_is_an_error_that_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(path)


def test_a_type_loads_only_its_own_files(tmp_path):
    CharTokenizer.train("ab").save(tmp_path / "char.json")
    with pytest.raises(ValueError, match="holds a CharTokenizer, not a WordTokenizer"):
        WordTokenizer.load(tmp_path / "char.json")


def test_a_class_of_ones_own_loads_like_the_packages(tmp_path):
    class VowelTokenizer(CharTokenizer):
        pass

    VowelTokenizer("aeiou").save(tmp_path / "vowels.json")
    assert type(Tokenizer.load(tmp_path / "vowels.json")) is VowelTokenizer
    assert type(CharTokenizer.load(tmp_path / "vowels.json")) is VowelTokenizer


@pytest.mark.parametrize(
    "train",
    [
        CharTokenizer.train,
        WordTokenizer.train,
        lambda texts: BPETokenizer.train(texts, merges=1),
        lambda texts: WordPieceTokenizer.train(texts, vocab_size=10),
        lambda texts: CharTokenizer.train("ab", special_tokens=[texts]),
    ],
)
def test_a_lone_surrogate_is_refused_before_it_is_in_a_vocabulary_that_no_file_holds(train):
    with pytest.raises(ValueError, match=r"lone surrogate, '\\ud800', at position 2"):
        train("ab\ud800")


def test_of_special_tokens_that_begin_alike_the_longest_is_taken():
    tokenizer = CharTokenizer("ab", special_tokens=["<a", "<ab>"])
    assert tokenizer.encode("<ab>") == [tokenizer.special_tokens["<ab>"]]
    assert tokenizer.encode("<ab") == [tokenizer.special_tokens["<a"], tokenizer.encode("b")[0]]


@pytest.mark.parametrize(
    ("special_tokens", "message"),
    [(["<s>", "<s>"], "not repeat"), ([""], "empty string"), ("<s>", "sequence of strings")],
)
def test_special_tokens_that_make_no_sense_are_an_error(special_tokens, message):
    with pytest.raises(ValueError, match=f"special_tokens must.*{message}"):
        CharTokenizer("ab", special_tokens=special_tokens)


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_the_visible_forms_of_two_tokens_differ_whenever_the_tokens_do(one, other):
    assert (visible(one) == visible(other)) == (one == other)


@given(st.text(max_size=8))
def test_a_visible_form_is_printable_and_has_no_space(text):
    form = visible(text)
    assert form.isprintable()
    assert " " not in form


def test_importing_text_does_not_import_tensorflow():
    code = "import sys, lmcourse.text; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
