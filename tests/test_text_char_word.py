import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcourse.text import CharTokenizer, WordTokenizer, join_words, split_words


@given(st.text())
def test_characters_are_lossless_on_the_text_they_come_from(text):
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(set(text))


def test_characters_are_numbered_by_code_point_after_the_special_tokens():
    tokenizer = CharTokenizer.train("ba", unknown_token="<unk>", special_tokens=["<end>"])
    assert tokenizer.tokens == ["<end>", "<unk>", "a", "b"]
    assert tokenizer.encode("ab<end>x") == [2, 3, 0, 1]


def test_special_tokens_in_a_training_text_add_no_characters():
    assert CharTokenizer.train("a<end>b", special_tokens=["<end>"]).tokens == ["<end>", "a", "b"]


def test_an_unknown_character_is_an_error_that_says_where():
    with pytest.raises(ValueError, match=r"3 characters known; got 'x' at position 2"):
        CharTokenizer.train("abc").encode("abx")


@pytest.mark.parametrize("characters", [["ab"], [""], ["a", "a"]])
def test_characters_must_be_single_and_distinct(characters):
    with pytest.raises(ValueError, match="characters must"):
        CharTokenizer(characters)


def test_words_are_split_from_marks_but_not_at_inner_apostrophes_and_hyphens():
    # Worked by hand.
    assert split_words("“Don't!” said O’Neil's well-known e\u0301lan - 3.5%") == [
        "“", "Don't", "!", "”", "said", "O’Neil's", "well-known", "e\u0301lan", "-", "3", ".", "5", "%",
    ]  # fmt: skip


def test_words_are_numbered_by_frequency_then_alphabet():
    tokenizer = WordTokenizer.train(["b a c", "c b c"])
    assert tokenizer.tokens == ["<unk>", "c", "b", "a"]
    assert tokenizer.encode("a b c d") == [3, 2, 1, 0]


def test_the_order_of_texts_does_not_matter():
    texts = ["b a d", "c b", "e f"]
    assert WordTokenizer.train(texts).tokens == WordTokenizer.train(texts[::-1]).tokens


def test_rare_words_are_cut_by_count_and_by_size():
    text = "a a a b b c"
    assert WordTokenizer.train(text, min_count=2).tokens == ["<unk>", "a", "b"]
    assert WordTokenizer.train(text, max_size=2).tokens == ["<unk>", "a"]
    assert WordTokenizer.train(text, max_size=3, special_tokens=["<s>"]).tokens == ["<s>", "<unk>", "a"]
    assert WordTokenizer.train(text, max_size=1).tokens == ["<unk>"]


@pytest.mark.parametrize(
    ("setting", "message"), [({"min_count": 0}, "at least 1"), ({"max_size": 0}, "hold the 1")]
)
def test_cuts_that_make_no_sense_are_an_error(setting, message):
    with pytest.raises(ValueError, match=message):
        WordTokenizer.train("a", **setting)


def test_lower_casing_is_for_words_and_not_for_special_tokens():
    tokenizer = WordTokenizer.train("The END<END>the", special_tokens=["<END>"], lowercase=True)
    assert tokenizer.tokens == ["<END>", "<unk>", "the", "end"]
    assert tokenizer.encode("THE<END>End") == [2, 0, 3]


def test_a_written_unknown_token_means_itself():
    tokenizer = WordTokenizer.train("a <unk> b")
    assert tokenizer.tokens == ["<unk>", "a", "b"]
    assert tokenizer.encode("a <unk> z") == [1, tokenizer.unknown_id, tokenizer.unknown_id]


@pytest.mark.parametrize("words", [["two words"], ["a", "a"], [""]])
def test_words_must_be_single_and_distinct(words):
    with pytest.raises(ValueError, match="words must"):
        WordTokenizer(words)


@pytest.mark.parametrize(
    "sentence",
    [
        "The fox ran; the hare, too. Did it?",
        'He said "no" (twice), and "yes" [once].',
        "“Never!” it’s 50% off…",
        "a well-known tale",
        "",
    ],
)
def test_words_join_as_english_writes_them(sentence):
    assert join_words(split_words(sentence)) == sentence


@given(st.lists(st.sampled_from(["the", "fox", ".", ",", "(", ")", '"', "“", "don't", "-"])))
def test_joining_loses_no_word(words):
    assert split_words(join_words(words)) == words
