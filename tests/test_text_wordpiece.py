from pydoc_data.topics import topics

import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcourse.text import WordPieceTokenizer

# The vocabulary of Google's own explanation of WordPiece (Song et al. 2021, table 1), and marks.
VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "abcd",
    "##b",
    "##bc",
    "##z",
    "un",
    "##aff",
    "##able",
    "!",
    "狐",
]

ENGLISH = st.lists(
    st.sampled_from(
        ["the", "if", "statement", "unaffable", "Café", "狐", "(", "...", "3.14", "\t", "", "zzq", "[SEP]"]
    )
).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(VOCAB)


@pytest.fixture(scope="module")
def trained():
    return WordPieceTokenizer.train(list(topics.values())[:8], vocab_size=500)


def test_a_word_is_cut_into_the_longest_pieces_from_the_left(tokenizer):
    # "abcz" of Song et al. 2021, section 3.1: a ##bc ##z; "unaffable" of Devlin et al.'s code: un ##aff ##able.
    assert [VOCAB[i] for i in tokenizer.encode("abcz unaffable!")] == [
        "a", "##bc", "##z", "un", "##aff", "##able", "!",
    ]  # fmt: skip


def test_a_word_that_no_pieces_spell_is_wholly_unknown(tokenizer):
    assert tokenizer.encode("abcx a") == [1, 4]


def test_chinese_characters_are_words(tokenizer):
    assert tokenizer.encode("狐狐") == [13, 13]


def test_lower_casing_removes_accents_and_case_and_can_be_left_out():
    vocab = ["[UNK]", "cafe", "Café"]
    assert WordPieceTokenizer(vocab, lowercase=True).encode("CAFÉ") == [1]
    assert WordPieceTokenizer(vocab, lowercase=False).encode("Café cafe CAFÉ") == [2, 1, 0]


def test_decoding_joins_pieces_and_parts_words(tokenizer):
    assert tokenizer.decode([2, 4, 7, 8, 9, 10, 11, 12, 3]) == "[CLS] abcz unaffable ! [SEP]"
    assert tokenizer.decode([2, 4, 7, 3], skip_special=True) == "abc"


@pytest.fixture(scope="module")
def reference(trained):
    """tensorflow_text's other tokenizer, which looks pieces up in a table."""
    vocab = trained.to_config()["vocab"]
    pairs = tf.lookup.KeyValueTensorInitializer(vocab, tf.range(len(vocab), dtype=tf.int64))
    return tf_text.BertTokenizer(tf.lookup.StaticVocabularyTable(pairs, num_oov_buckets=1), lower_case=True)


@given(text=ENGLISH)
@settings(deadline=None, max_examples=50)
def test_ids_equal_tensorflow_texts_bert_tokenizer(trained, reference, text):
    assert trained.encode(text, special="text") == reference.tokenize([text]).merge_dims(-2, -1).to_list()[0]


def test_training_learns_frequent_words_whole_and_stays_near_the_size(trained):
    assert 0.95 * 500 <= trained.vocab_size <= 500
    assert {"the", "is", "##s", "of"} <= set(trained.tokens)
    assert list(trained.special_tokens.values()) == [0, 1, 2, 3, 4]


def test_training_finds_no_special_token_in_the_text():
    text = "fox foxes fox foxes [SEP] hare " * 5
    pieces = WordPieceTokenizer.train(text, vocab_size=60).tokens
    assert not any("sep" in piece for piece in pieces)
    assert "fox" in pieces


@pytest.mark.parametrize("texts", ["", [" \n"], []])
def test_training_on_no_word_is_an_error(texts):
    with pytest.raises(ValueError, match="texts must hold at least one word"):
        WordPieceTokenizer.train(texts, vocab_size=100)


@pytest.mark.parametrize(
    ("vocab", "settings", "message"),
    [
        (["[UNK]", "a", "a"], {}, "vocab must not repeat"),
        (["a"], {}, r"lacks '\[UNK\]'"),
        (["[UNK]", "a"], {"special_tokens": ["[END]"]}, r"lacks '\[END\]'"),
        (["[UNK]", "[SEP]"], {}, "at least one piece besides"),
    ],
)
def test_a_vocabulary_that_cannot_work_is_an_error(vocab, settings, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer(vocab, **settings)


def test_a_lone_surrogate_is_an_error(tokenizer):
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(ValueError, match="lone surrogate"):
            encode("a\ud800")


def test_the_vocabulary_file_gives_the_same_tokenizer_back(trained, tmp_path):
    path = tmp_path / "vocab.txt"
    trained.save_file(path)
    assert WordPieceTokenizer.from_file(path).to_config() == trained.to_config()


def test_a_saved_module_encodes_and_decodes_like_the_tokenizer(trained, tmp_path):
    tf.saved_model.save(trained.as_module(), str(tmp_path / "module"))
    module = tf.saved_model.load(str(tmp_path / "module"))
    texts = ["The if statement: unaffable Café 狐 zzq!", "", "[SEP]"]
    ids = module.encode(tf.constant(texts))
    assert isinstance(ids, tf.RaggedTensor)
    assert ids.to_list() == trained.encode_batch(texts, special="text")
    decoded = [text.decode() for text in module.decode(ids).numpy()]
    assert decoded == trained.decode_batch(ids.to_list())
    assert not list((tmp_path / "module" / "assets").iterdir())


def test_the_operations_run_inside_a_data_pipeline(tokenizer):
    dataset = tf.data.Dataset.from_tensor_slices(["abcz", "a un"]).batch(2).map(tokenizer.encode_op)
    assert next(iter(dataset)).to_list() == [[4, 7, 8], [4, 9]]
