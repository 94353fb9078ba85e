"""Vectors of sentences: those that mean the same point in the same direction.

Letters for shapes: `N` texts, `B` rows, `T` time, `D` width.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from lmcourse.core import check_positive, pad_rows
from lmcourse.text.wordpiece import WordPieceTokenizer
from lmcourse.training import ModelGraphs
from lmcourse.training.language_model import padded_length
from lmcourse.transformer.bert import Bert

# Word pieces of a text, marks included, beyond which all-MiniLM-L6-v2 reads no further, as its model card says.
MAX_LENGTH = 256


class SentenceEncoder:
    """A BERT that was trained to bring sentences of one meaning together.

    A text becomes [CLS] pieces [SEP]; its vector is the mean of what the encoder makes of all of these, brought to
    length one. So the dot product of two vectors is the cosine of the angle between them: 1 for the same
    meaning, about 0 for unrelated ones.

    Args:
        model: without heads; its pooler is not used.
        tokenizer: the model's own, with [CLS] and [SEP] among its special tokens.
        max_length: the most pieces that are read of a text, [CLS] and [SEP] included. What comes after them is left
            out.

    Raises:
        ValueError: if model and tokenizer do not fit each other, or max_length is not right.

    Example:
        >>> from lmcourse.transformer.config import BertConfig
        >>> tokenizer = WordPieceTokenizer(["[UNK]", "[CLS]", "[SEP]", "fox", "##es", "run", "."])
        >>> config = BertConfig.preset("tiny", vocab_size=7, pooler=False, heads=False)
        >>> vectors = SentenceEncoder(Bert(config), tokenizer).encode(["Foxes run.", "foxes  run ."])
        >>> vectors.shape, round(float(vectors[0] @ vectors[1]), 4)  # to the tokenizer both are the same
        ((2, 64), 1.0)

    Reference: Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3 (mean over the tokens).
    """

    def __init__(self, model: Bert, tokenizer: WordPieceTokenizer, max_length: int | None = None):
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(
                f"tokenizer must have the model's vocab_size = {model.vocab_size}; got {tokenizer.vocab_size}."
            )
        missing = [token for token in ("[CLS]", "[SEP]") if token not in tokenizer.special_tokens]
        if missing:
            there = ", ".join(tokenizer.special_tokens) or "none"
            raise ValueError(f"tokenizer must have the special token {missing[0]!r}; it has {there}.")
        if max_length is None:
            max_length = min(MAX_LENGTH, model.max_length)
        if not 2 <= max_length <= model.max_length:
            raise ValueError(
                f"max_length must be from 2 to the model's max_length = {model.max_length}; got {max_length}."
            )
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self._marks = [tokenizer.special_tokens[token] for token in ("[CLS]", "[SEP]")]
        if not model.built:
            model.build()

    @property
    def width(self) -> int:
        """D, the length of a vector."""
        return self.model.config.width

    def encode(self, texts: Iterable[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Return a vector for each text.

        Args:
            texts: N strings. Special tokens in them are text like any other.
            batch_size: texts that are read at once; those of similar length come together.

        Returns:
            float32 of shape (N, D), each row of length one.

        Raises:
            ValueError: if texts is a single string, or batch_size is below 1.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be several strings; got {texts!r:.60}. For one, pass [text].")
        check_positive(batch_size=batch_size)
        rows, graph = self.rows(texts), _SentenceGraphs.of(self.model).vectors
        vectors = np.empty((len(rows), self.width), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids, mask = pad_rows([rows[i] for i in chosen])
            # one of a few widths, so that scratch memory is found again
            more = ((0, 0), (0, padded_length(ids.shape[1], self.max_length) - ids.shape[1]))
            vectors[chosen] = graph(np.pad(ids, more).astype(np.int32), np.pad(mask, more)).numpy()
        return vectors

    def rows(self, texts: Iterable[str]) -> list[list[int]]:
        """Return each text's ids as the model reads them: [CLS] in front, [SEP] behind, cut where it is too long."""
        start, end = self._marks
        pieces = self.tokenizer.encode_batch(texts, special="text")
        return [[start, *row[: self.max_length - 2], end] for row in pieces]

    def embed(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Return the rows' vectors as a tensor: what training goes through.

        Args:
            inputs: the model's: "ids" int (B, T), "mask" bool (B, T), False on padding.
            training: whether to drop.

        Returns:
            float32 of shape (B, D), each row of length one.
        """
        return _sentence_vectors(self.model, inputs, training)


class _SentenceGraphs(ModelGraphs):
    """What a model makes of sentences as a compiled function, one trace for any number of rows of any length."""

    def __init__(self, model: Bert):
        super().__init__(model)
        self.vectors = tf.function(
            lambda ids, mask: _sentence_vectors(model, {"ids": ids, "mask": mask}),
            [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.bool)],
            autograph=False,
        )


def _sentence_vectors(model: Bert, inputs: dict[str, Any], training: bool | None = None) -> Any:
    """Return the mean over each row's tokens, brought to length one, (B, D)."""
    hidden, _ = model.encode(inputs, training=training)
    counted = ops.cast(inputs["mask"], "float32")[:, :, None]  # (B, T, 1)
    # The length brings the sum and the mean to the same vector.
    return tf.math.l2_normalize(ops.sum(ops.cast(hidden, "float32") * counted, axis=1), axis=-1)
