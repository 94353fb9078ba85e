"""WordPiece, the tokenizer of BERT, on tensorflow_text: the same in Python and inside a TensorFlow graph.

A word is cut into the longest piece that the vocabulary has, from the left, again and again; pieces that do not begin
a word are written with ## before them. A word that cannot be cut so becomes the unknown token.

Reference: Devlin et al. 2019, arXiv:1810.04805, section 3; the vocabulary learner: Wu et al. 2016, arXiv:1609.08144,
section 4.1; the matching in linear time: Song et al. 2021, arXiv:2012.15524.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.tools.wordpiece_vocab import bert_vocab_from_dataset

from lmcourse.files import write_text
from lmcourse.text.base import (
    SpecialUse,
    Tokenizer,
    between_special_tokens,
    check_utf8,
    special_ids,
    visible,
)

BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Texts that go through one call of the graph's operation while training: enough to amortise the call.
_TEXTS_PER_BATCH = 1000


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer.

    Text is split at white space and around punctuation marks and Chinese characters, then each word into
    pieces. Decoding puts one space between words: where white space and punctuation stood is lost, so are unknown
    words and, with lowercase, case and accents.

    Graph operations (`encode_op`, `decode_op`, `as_module`) take every text as text: to them "[SEP]" is a word in
    brackets, as it is to `encode(..., special="text")`. A model's graph adds special tokens by their ids.

    It stands on tensorflow_text's FastBertTokenizer rather than BertTokenizer: its vocabulary is a constant of the
    graph, where BertTokenizer needs a lookup table that must be initialised and exported as a further file; it
    also finds the pieces of a word in linear time, and decodes.

    Args:
        vocab: the pieces, in the order of the ids.
        lowercase: whether to encode lower-case letters without accents, as "uncased" models do.
        unknown_token: the token of words that no pieces spell; it is in vocab.
        special_tokens: tokens that stand for no text; they are in vocab. Default: those of BERT that vocab has.

    Raises:
        ValueError: if vocab repeats a piece, lacks the unknown token or a special one, or holds nothing else.

    Example:
        >>> tokenizer = WordPieceTokenizer(["[UNK]", "[SEP]", "fox", "##es", "run", "."])
        >>> tokenizer.encode("Foxes run. Hares[SEP]")
        [2, 3, 4, 5, 0, 1]
        >>> tokenizer.decode([2, 3, 4, 5])
        'foxes run .'
    """

    def __init__(
        self,
        vocab: Sequence[str],
        lowercase: bool = True,
        unknown_token: str = "[UNK]",
        special_tokens: Sequence[str] | None = None,
    ):
        ids = {piece: i for i, piece in enumerate(vocab)}
        if len(ids) != len(vocab):
            raise ValueError("vocab must not repeat; give each piece once.")
        if special_tokens is None:
            special_tokens = [token for token in BERT_SPECIAL_TOKENS if token in ids]
        required = special_ids(special_tokens, None if unknown_token in special_tokens else unknown_token)
        missing = [token for token in required if token not in ids]
        if missing:
            raise ValueError(
                f"vocab must hold the special tokens and the unknown token; it lacks {missing[0]!r}."
            )
        if len(required) == len(ids):
            raise ValueError("vocab must hold at least one piece besides the special tokens.")
        super().__init__(map(visible, vocab), {token: ids[token] for token in required})
        self._vocab = list(vocab)
        self.lowercase = lowercase
        self.unknown_token = unknown_token
        self._tokenizer = tf_text.FastBertTokenizer(
            self._vocab,
            token_out_type=tf.int32,
            unknown_token=unknown_token,
            support_detokenization=True,
            lower_case_nfd_strip_accents=lowercase,
        )

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        *,
        vocab_size: int,
        lowercase: bool = True,
        unknown_token: str = "[UNK]",
        special_tokens: Sequence[str] = BERT_SPECIAL_TOKENS,
        min_count: int = 2,
    ) -> Self:
        """Learn a vocabulary with tensorflow_text's own learner.

        The learner searches for the frequency above which about vocab_size pieces lie: it ends within 5 % below,
        or where no frequency fits, as near as it came. Every character is in the vocabulary, alone and with ##.

        Args:
            texts: one text or several.
            vocab_size: V to aim at, special tokens included.
            lowercase: whether to count and encode lower-case letters without accents.
            unknown_token: the token of words that no pieces spell.
            special_tokens: tokens that stand for no text. They get the first ids, and are found in the texts and
                not learned from.
            min_count: the lowest frequency to consider.

        Raises:
            ValueError: if the texts hold no word, or a lone surrogate.
        """
        reserved = list(
            special_ids(special_tokens, None if unknown_token in special_tokens else unknown_token)
        )
        parts = list(between_special_tokens(texts, reserved))
        if not any(part.strip() for part in parts):
            raise ValueError("texts must hold at least one word to learn from; got none.")
        vocab = bert_vocab_from_dataset.bert_vocab_from_dataset(
            tf.data.Dataset.from_tensor_slices(parts).batch(_TEXTS_PER_BATCH),
            vocab_size,
            reserved,
            bert_tokenizer_params={"lower_case": lowercase},
            learn_params={"lower_thresh": min_count},
        )
        return cls(vocab, lowercase, unknown_token, special_tokens)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, lowercase: bool = True) -> Self:
        """Read vocab.txt as BERT models publish it: one piece a line, the first has id 0."""
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        return cls([line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)], lowercase)

    def save_file(self, path: str | os.PathLike[str]) -> None:
        """Write vocab.txt; see `from_file`."""
        write_text(path, "\n".join(self._vocab) + "\n")

    def encode_batch(self, texts: Iterable[str], *, special: SpecialUse = "allow") -> list[list[int]]:
        """Return the ids of each text; see `encode`. Texts without special tokens go through one operation."""
        texts = list(texts)
        if special != "text" and any(self._special_pattern.search(text) for text in texts):
            return super().encode_batch(texts, special=special)
        for text in texts:
            check_utf8(text)
        return self.encode_op(tf.constant(texts, dtype=tf.string)).to_list()

    def encode_op(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encode inside a graph.

        Args:
            texts: strings of shape (B,), in UTF-8.

        Returns:
            int32 ids of shape (B, None), one row a text.
        """
        return self._tokenizer.tokenize(texts)

    def decode_op(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Decode inside a graph.

        Args:
            ids: int32 ids of shape (B, None), each from 0 to V - 1.

        Returns:
            Strings of shape (B,), one space between words.
        """
        return self._tokenizer.detokenize(ids)

    def as_module(self) -> tf.Module:
        """Return a module with the functions `encode` and `decode`, for tf.saved_model.save.

        `encode` maps strings (B,) to ragged int32 ids (B, None); `decode` maps them back. The saved model needs no
        other file; the process that loads it needs `import tensorflow_text` for its operations.
        """
        return _WordPieceModule(self)

    def to_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "vocab": self._vocab,
            "lowercase": self.lowercase,
            "unknown_token": self.unknown_token,
            "special_tokens": list(self.special_tokens),
        }

    def _encode_text(self, text: str) -> list[int]:
        check_utf8(text)
        return self.encode_op(tf.constant([text], dtype=tf.string)).to_list()[0]

    def _decode_ids(self, ids: list[int]) -> str:
        row = tf.RaggedTensor.from_row_lengths(tf.constant(ids, dtype=tf.int32), [len(ids)])
        return self.decode_op(row).numpy()[0].decode("utf-8")


class _WordPieceModule(tf.Module):
    def __init__(self, tokenizer: WordPieceTokenizer):
        super().__init__(name="wordpiece")
        self._tokenizer = tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    def encode(self, texts):
        return self._tokenizer.encode_op(texts)

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)])
    def decode(self, ids):
        return self._tokenizer.decode_op(ids)
