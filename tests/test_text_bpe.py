import json
import unicodedata
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from lmcourse.text import BPETokenizer, byte_characters, split_chunks
from lmcourse.text.bpe_training import BYTE_ORDER, learn_merges

SPLITS = ["gpt2", "smollm2"]
END = "<|endoftext|>"

# Characters that every table of Unicode since version 3.2 has: of newer ones, a library may not know yet which
# are letters. (Of all characters assigned in Unicode 14, tokenizers 0.23.3 and regex 2026.11.15 class none
# differently; of later ones, some.)
ASSIGNED = st.text(
    st.characters(exclude_categories=["Cs", "Cn", "Co"]).filter(
        lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn"
    )
)
# fmt: off
TRICKY = st.sampled_from([
    "the ", " fox", "'s", "'ll", "’s", "3", "٣", "Ⅷ", "½", "é", "e\u0301", "狐狸", "👩\u200d🚀", "_", "--", "...",
    "  ", "\n\n  ", "\t", "\u00a0", "\u3000", "\x1c", "\x85", "\x00", "\ufffd", END, END[:5],
])
# fmt: on
TEXTS = st.lists(
    st.one_of(
        ASSIGNED,
        TRICKY,
        st.sampled_from(sorted(topics.values())).map(lambda t: t[:80]),
    )
).map("".join)


def library_split(split):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split == "gpt2":
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def train_with_library(texts, vocab_size, split, min_count, special_tokens=()):
    tokenizer = LibraryTokenizer(models.BPE())
    tokenizer.pre_tokenizer = library_split(split)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="module", params=SPLITS)
def tokenizer(request):
    return BPETokenizer.train(topics.values(), merges=1000, special_tokens=[END], split=request.param)


@pytest.fixture(scope="module")
def library(tokenizer, tmp_path_factory):
    """The tokenizers library, on the files that our tokenizer writes."""
    folder = tmp_path_factory.mktemp("files")
    tokenizer.save_files(folder / "vocab.json", folder / "merges.txt")
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    theirs = LibraryTokenizer(model)
    theirs.pre_tokenizer = library_split(tokenizer.split)
    theirs.add_special_tokens([AddedToken(END, normalized=False, special=True)])
    return theirs


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
@example("It's 12  days,   no?\n\n  'Twas ٣Ⅷ½ long  3")
@example(f"a{END}{END} b <|endof")
def test_ids_equal_the_tokenizers_library(tokenizer, library, text):
    assert tokenizer.encode(text) == library.encode(text).ids


@given(text=TEXTS)
@settings(deadline=None)
def test_chunks_equal_the_tokenizers_library(tokenizer, text):
    spans = [span for _, span in library_split(tokenizer.split).pre_tokenize_str(text)]
    assert split_chunks(text, tokenizer.split) == [text[start:end] for start, end in spans]


@given(text=TEXTS)
@settings(deadline=None)
def test_chunks_joined_are_the_text(tokenizer, text):
    assert "".join(split_chunks(text, tokenizer.split)) == text


@given(text=TEXTS)
@settings(deadline=None)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, special="text")) == text


@given(data=st.binary())
@settings(deadline=None)
@example(bytes(range(256)))
def test_any_bytes_come_back(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(text=TEXTS)
@settings(deadline=None)
def test_the_bytes_of_a_text_have_the_ids_of_the_text(tokenizer, text):
    assert tokenizer.encode_bytes(text.encode()) == tokenizer.encode(text, special="text")


def test_a_remembered_chunk_has_the_ids_of_a_new_one(tokenizer):
    text = topics["if"]
    fresh = BPETokenizer.from_config(tokenizer.to_config())
    assert fresh.encode(text) == fresh.encode(text) == tokenizer.encode(text)


def test_an_encoding_is_not_changed_by_changing_an_earlier_answer(tokenizer):
    first = tokenizer.encode(" hello")
    expected = list(first)
    first.append(0)
    assert tokenizer.encode(" hello") == expected


def test_a_chunk_of_a_hundred_thousand_characters_is_merged(tokenizer, library):
    text = "ab" * 50_000
    assert tokenizer.encode(text) == library.encode(text).ids


# Small alphabets make many ties and overlapping pairs, where trainers differ first.
@given(
    texts=st.lists(st.text("ab ", max_size=40), min_size=1, max_size=5),
    min_count=st.integers(1, 3),
    split=st.sampled_from(SPLITS),
)
@settings(max_examples=300, deadline=None)
@example(texts=["aaaaa aaaa aaa"], min_count=1, split="gpt2")
def test_training_equals_the_tokenizers_library_ties_included(texts, min_count, split):
    ours = BPETokenizer.train(texts, vocab_size=300, special_tokens=[END], split=split, min_count=min_count)
    theirs = train_with_library(texts, 300, split, min_count, [END])
    assert ours.to_config()["vocab"] == theirs.get_vocab()


def test_training_on_real_text_equals_the_tokenizers_library(tokenizer):
    theirs = train_with_library(topics.values(), tokenizer.vocab_size, tokenizer.split, 2, [END])
    assert tokenizer.to_config()["vocab"] == theirs.get_vocab()


def recounting_merges(chunk_counts, num_merges):
    """Learn merges the slow way: count every pair anew for each merge (Sennrich et al. 2016, algorithm 1)."""
    age = {bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)}
    chunks = {chunk: [chunk[i : i + 1] for i in range(len(chunk))] for chunk in chunk_counts}
    merges = []
    while len(merges) < num_merges:
        pairs = Counter()
        for chunk, parts in chunks.items():
            for pair in pairwise(parts):
                pairs[pair] += chunk_counts[chunk]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], age[pair[0]], age[pair[1]]))
        merges.append(best)
        age.setdefault(best[0] + best[1], len(age))
        for parts in chunks.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=12).map(str.encode), st.integers(1, 5), max_size=8)
)
@settings(deadline=None)
def test_incremental_counts_give_the_merges_of_recounting(chunk_counts):
    assert learn_merges(chunk_counts, 30, min_count=1) == recounting_merges(chunk_counts, 30)


def test_special_tokens_are_learned_from_neither_whole_nor_in_part():
    with_marks = BPETokenizer.train([f"low low{END}low low"] * 3, merges=10, special_tokens=[END])
    without = BPETokenizer.train(["low low", "low low"] * 3, merges=10, special_tokens=[END])
    assert with_marks.merges == without.merges


@given(
    special_tokens=st.lists(
        st.text("pl Ġ¶éÃ©<>", min_size=1, max_size=3), min_size=1, max_size=3, unique=True
    ),
    text=st.one_of(st.text("pl Ġ¶éÃ©ö<>"), ASSIGNED),
)
@settings(deadline=None)
@example(special_tokens=["¶"], text="ö")
@example(special_tokens=["Ġpl"], text="plain plain")
def test_any_text_comes_back_whatever_the_special_tokens_are(special_tokens, text):
    try:
        tokenizer = BPETokenizer.train("plain text é " * 3, merges=6, special_tokens=special_tokens)
    except ValueError as error:
        assert "special_tokens must not be what GPT-2's files write" in str(error)  # noqa: PT017
        return
    assert tokenizer.decode(tokenizer.encode(text)) == text
    as_text = tokenizer.encode(text, special="text")
    assert tokenizer.decode(as_text) == text
    assert not set(as_text) & set(tokenizer.special_tokens.values())


@pytest.mark.parametrize("token", ["¶", "§", "é", "Ġ", "a"])
def test_a_special_token_written_like_a_byte_is_refused(token):
    with pytest.raises(ValueError, match=rf"special_tokens must not be .*; got '{token}'. .*'<{token}>'"):
        BPETokenizer.train("plain text " * 3, merges=3, special_tokens=[token])


def test_a_special_token_written_like_what_a_merge_makes_is_refused():
    with pytest.raises(ValueError, match=r"special_tokens must not be .*; got 'ab'"):
        BPETokenizer(BYTES | {"ab": 256}, [("a", "b")], ["ab"])


def test_too_few_pairs_end_the_training_early():
    assert BPETokenizer.train("ab ab", merges=100).merges == [("a", "b")]


def test_vocab_size_counts_bytes_and_special_tokens():
    assert BPETokenizer.train(topics["if"], vocab_size=300, special_tokens=[END]).vocab_size == 300


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({}, "give one of vocab_size and merges; got None and None"),
        ({"vocab_size": 300, "merges": 10}, "give one of vocab_size and merges"),
        ({"vocab_size": 255}, "vocab_size must hold the 256 bytes and special tokens; got 255"),
        ({"merges": -1}, "merges must not be negative; got -1"),
        ({"merges": 1, "split": "gpt3"}, "split must be one of .*; got 'gpt3'"),
    ],
)
def test_a_training_that_makes_no_sense_is_an_error(size, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train("ab", **size)


def test_a_lone_surrogate_is_an_error_that_says_where(tokenizer):
    with pytest.raises(ValueError, match=r"lone surrogate, '\\ud800', at position 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(ValueError, match="lone surrogate"):
        BPETokenizer.train("ab\ud800", merges=1)


def test_half_a_character_shows_as_the_replacement_character(tokenizer):
    first, *_ = tokenizer.encode_bytes("狐".encode()[:1])
    assert tokenizer.decode([first]) == "\ufffd"
    assert tokenizer.decode_bytes([first]) == b"\xe7"


def test_byte_characters_are_gpt2s():
    # The 256 characters that the tokenizers library calls the alphabet of GPT-2's byte level; five known pairs.
    assert sorted(byte_characters().values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert [byte_characters()[byte] for byte in b" \n\ta\xff"] == ["Ġ", "Ċ", "ĉ", "a", "ÿ"]


def test_files_give_the_same_tokenizer_back(tokenizer, tmp_path):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    tokenizer.save_files(vocab, merges)
    again = BPETokenizer.from_files(vocab, merges, special_tokens=[END], split=tokenizer.split)
    assert again.to_config() == tokenizer.to_config()


def test_a_new_special_token_gets_the_next_id(tokenizer):
    config = tokenizer.to_config()
    more = BPETokenizer(**(config | {"special_tokens": [END, "<|pad|>"]}))
    assert more.special_tokens == {END: 0, "<|pad|>": tokenizer.vocab_size}
    assert more.encode("a<|pad|>")[-1] == tokenizer.vocab_size


def test_a_special_token_need_not_be_ascii_nor_without_spaces():
    tokenizer = BPETokenizer.train("ab", merges=0, special_tokens=["<fin du modèle>"])
    assert tokenizer.encode("a<fin du modèle>") == [tokenizer.encode("a")[0], 0]
    assert tokenizer.decode([0]) == "<fin du modèle>"


BYTES = {character: i for i, character in enumerate(byte_characters().values())}


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        (BYTES, [("a", "b")], "merges must join tokens of vocab; merge 0 needs 'ab'"),
        (BYTES | {"ab": 300}, [], "each id from 0 to 256 once; nothing has id 256"),
        (BYTES | {"ab": 0}, [], "nothing has id"),
        (BYTES | {"狐": 256}, [], "got '狐'. If it is a special token, name it in special_tokens"),
    ],
)
def test_a_vocabulary_that_cannot_work_is_an_error(vocab, merges, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer(vocab, merges)


def test_a_byte_without_token_is_an_error_and_not_dropped():
    tokenizer = BPETokenizer({"a": 0, "b": 1}, [])
    assert tokenizer.encode("ab") == [0, 1]
    with pytest.raises(ValueError, match="no token for 0x63"):
        tokenizer.encode("abc")


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("{", "", "vocab.json is not a JSON file"),
        ('["a"]', "", "must hold one JSON object from token to id"),
        ('{"a": "0"}', "", "must hold one JSON object from token to id"),
        (json.dumps(BYTES), "#version: 0.2\na b\na b c\n", r"merges.txt, line 3: .*got 'a b c'"),
    ],
)
def test_broken_files_are_an_error_that_names_file_and_line(tmp_path, vocab, merges, message):
    (tmp_path / "vocab.json").write_text(vocab, encoding="utf-8")
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        BPETokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


@given(order=st.permutations(range(12)), text=st.text("ab", max_size=60))
@settings(deadline=None)
def test_ids_equal_the_tokenizers_library_for_merges_in_any_order(order, text):
    """Files from elsewhere may rank a merge before the merge that makes its parts."""
    words = ["ab", "ba", "aa", "bb", "aba", "bab", "abab", "aab", "baa", "abba", "bbb", "aaaa"]
    halves = [(word[: len(word) // 2], word[len(word) // 2 :]) for word in words]
    vocab = {token: i for i, token in enumerate([*BYTES, *words])}
    merges = [halves[i] for i in order]
    ours = BPETokenizer(vocab, merges)
    theirs = LibraryTokenizer(models.BPE(vocab, merges))
    theirs.pre_tokenizer = library_split("gpt2")
    assert ours.encode(text) == theirs.encode(text).ids
