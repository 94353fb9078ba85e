"""The smallest language model with attention that copies names: a short memory, and one look at all that came before.

Letters for shapes: `B` rows, `T` time (tokens in a row), `D` embedding width, `U` units, `H` heads, `V` vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.attention.multi_head import MultiHeadAttention
from lmcourse.core import check_ids, check_positive, pad_rows
from lmcourse.recurrent import LSTM
from lmcourse.training import NeuralLanguageModel

Reader = Literal["window", "lstm"]


@keras.saving.register_keras_serializable(package="lmcourse")
class AttentionLanguageModel(NeuralLanguageModel):
    """Predict from what a reader of the last tokens has found out, and from one look back at all tokens.

    The reader turns each position into a vector: either from a window of the last embeddings, as Bengio's model does,
    or by an LSTM. Causal multi-head attention takes queries and keys from the reader ("I am about to name the hero",
    "here the hero was named") and values from the embeddings ("the name was Emil"). Reader and look are added and
    compared with every embedding: a value that reaches the end unchanged votes for its own token. So copying is
    easy to learn, and what a head attends to is what it proposes.

    Args:
        vocab_size: V.
        reader: "window" or "lstm". The window learns to copy in a fifth of the time; the LSTM gets lower in the end.
        units: U, of the reader.
        embedding_dim: D.
        window: how many embeddings a reader of windows sees, the position's own included.
        num_heads: H.
        key_dim: the width of each head.
        dropout: the share of the reader's numbers that is dropped in training.
        start_id: the id that is read before the first token of a document.

    Raises:
        ValueError: if a size is below 1, the reader is unknown, or start_id is not in the vocabulary.

    Example:
        >>> model = AttentionLanguageModel(10, units=8, embedding_dim=4, num_heads=2, key_dim=2)
        >>> model.token_log_probs([[3, 4, 0]]).shape, head_weights(model, [[3, 4, 0]]).shape
        ((1, 3), (1, 2, 3, 3))

    Reference: Bengio et al. 2003, JMLR 3, 1137-1155 (the window); Press and Wolf 2017, arXiv:1608.05859 (one matrix
    for embedding and output); Vinyals, Fortunato and Jaitly 2015, "Pointer networks", arXiv:1506.03134, and Merity et
    al. 2017, "Pointer sentinel mixture models", arXiv:1609.07843 (attention that points at what to repeat).
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        reader: Reader = "window",
        units: int = 128,
        embedding_dim: int = 64,
        window: int = 4,
        num_heads: int = 2,
        key_dim: int = 32,
        dropout: float = 0.0,
        start_id: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.start_id = vocab_size, start_id
        self.reader, self.units, self.embedding_dim, self.window = reader, units, embedding_dim, window
        self.num_heads, self.key_dim, self.dropout = num_heads, key_dim, dropout
        self._check_arguments()
        # A vector of this size has a length of about one, so that the first logits are neither flat nor certain.
        near_one = keras.initializers.RandomNormal(stddev=embedding_dim**-0.5)
        self.embedding = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=near_one)
        self.read = _window_reader(units, window) if reader == "window" else LSTM(units, name="reader")
        self.drop = keras.layers.Dropout(dropout)
        self.attention = MultiHeadAttention(num_heads, key_dim, output_dim=embedding_dim, name="attention")
        self.narrow = keras.layers.Dense(embedding_dim, name="narrow")

    def build(self, input_shape: Any = None) -> None:
        """Make all weights; they do not depend on the length."""
        embedded, read = (None, None, self.embedding_dim), (None, None, self.units)
        self.embedding.build((None, None))
        self.read.build(embedded)
        self.attention.build(read, embedded, read)
        self.narrow.build(read)
        self.bias = self.add_weight(name="bias", shape=(self.vocab_size,), initializer="zeros")
        self.built = True

    def call(self, ids: Any, training: bool | None = None) -> Any:
        """Return the logits, (B, T, V), of the token that follows each of the ids, (B, T)."""
        return self._logits_and_weights(ids, training)[0]

    def attention_weights(self, ids: Any) -> Any:
        """Return each head's weights, (B, H, T, T), while it reads the ids, (B, T); see `head_weights`."""
        return self._logits_and_weights(ids, training=False)[1]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        names = ("vocab_size", "reader", "units", "embedding_dim", "window", "num_heads", "key_dim")
        others = ("dropout", "start_id")
        return {**super().get_config(), **{name: getattr(self, name) for name in (*names, *others)}}

    def _logits_and_weights(self, ids: Any, training: bool | None) -> tuple[Any, Any]:
        self._check_call(ids)
        embedded = self.embedding(ids)  # (B, T, D)
        read = self.drop(self.read(embedded), training=training)  # (B, T, U)
        found, weights = self.attention(
            read, embedded, read, use_causal_mask=True, return_weights=True, training=training
        )  # (B, T, D), (B, H, T, T)
        table = ops.cast(self.embedding.embeddings, found.dtype)
        logits = ops.matmul(self.narrow(read) + found, ops.transpose(table))
        return logits + ops.cast(self.bias, logits.dtype), weights

    def _check_arguments(self) -> None:
        sizes = ("vocab_size", "units", "embedding_dim", "window")
        check_positive(**{name: getattr(self, name) for name in sizes})
        if self.reader not in get_args(Reader):
            raise ValueError(f"reader must be one of {get_args(Reader)}; got {self.reader!r}.")
        if not 0 <= self.start_id < self.vocab_size:
            raise ValueError(
                f"start_id must be between 0 and vocab_size - 1 = {self.vocab_size - 1}; got {self.start_id}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}.")


def head_weights(model: AttentionLanguageModel, documents: Sequence[ArrayLike]) -> NDArray[np.float32]:
    """Return where each head looks when it predicts each token.

    Args:
        model: a model with `attention_weights`.
        documents: B sequences of ids.

    Returns:
        (B, H, T, T), T the longest length: row t holds the weights for predicting token t. (Of a model with several
        layers, H counts the heads of all: those of the first layer come first.) Column s stands for what
        was read at step s: the start id for s = 0, token s - 1 else. Rows beyond a document's end mean nothing.

    Raises:
        ValueError: if a document is empty or holds an id that is none.
    """
    documents = [np.asarray(document) for document in documents]
    if not documents or any(not document.size for document in documents):
        raise ValueError("documents must hold at least one, each with a token; got none or an empty one.")
    ids, _ = check_ids(pad_rows(documents)[0], model.vocab_size)
    read = np.concatenate([np.full((len(ids), 1), model.start_id), ids[:, :-1]], axis=1)
    return np.asarray(_weights_graph(model)(tf.constant(read, tf.int32)), dtype=np.float32)


def _weights_graph(model: AttentionLanguageModel) -> Any:
    """Return the compiled `attention_weights`, made once for all lengths."""
    if getattr(model, "_compiled_weights", None) is None:
        signature = [tf.TensorSpec((None, None), tf.int32)]
        model._compiled_weights = tf.function(lambda ids: model.attention_weights(ids), signature)
    return model._compiled_weights


def _window_reader(units: int, window: int) -> keras.layers.Conv1D:
    """Return the layer that makes of each window of embeddings a vector: one matrix, slid along the row."""
    return keras.layers.Conv1D(units, window, padding="causal", activation="relu", name="reader")
