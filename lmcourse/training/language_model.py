"""The bases of neural models of the next token: a default loss, and scoring over one `call`.

Letters for shapes: `B` rows, `T` time (tokens in a row), `V` vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lmcourse.core import LanguageModel, check_ids, document_ids
from lmcourse.training.graphs import ModelGraphs, uses_xla

# Logits computed in one call: 2^23 float32 numbers are 32 MiB, and the softmax holds about two more such arrays.
LOGITS_PER_CALL = 2**23

# Tokens read in one call, which bounds the activations of a model whose vocabulary is small.
TOKENS_PER_CALL = 2**13


class NextTokenModel(keras.Model):
    """A Keras model that learns to predict the next token: what it is compiled with where nothing else is asked for."""

    def compile(self, optimizer: Any = "adam", loss: Any = None, **options: Any) -> None:
        """Prepare for training, as `keras.Model.compile` does.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: default: the cross-entropy of the next token from logits, averaged over the tokens whose
                sample weight is not zero. Its unit is the nat per token.
            **options: the other arguments of `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer, loss=next_token_loss() if loss is None else loss, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as it was when it was saved; Keras asks for this method where `compile` has its own defaults."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)


class NeuralLanguageModel(NextTokenModel, LanguageModel):
    """A Keras model of the next token, which is a `LanguageModel` too.

    A subclass defines `call(ids, training=None)`: from int32 ids of shape (B, T) to logits of shape (B, T, V), where
    the logits at position t are of the token that *follows* `ids[:, t]`. It has to be causal: what stands to the
    right of a position must not change its logits. Then padding on the right is harmless, and needs no mask. Wrong ids
    are refused before `call` sees them.

    Training shifts by one: the model reads `start_id` and all tokens but the last, and predicts all tokens.
    `lmcourse.training`'s batches are of this form.

    Attributes:
        vocab_size: V; the subclass sets it.
        start_id: the id that is read before the first token of a document.
        max_length: the most tokens that the model reads at once, or None if there is no limit.

    Example:
        >>> class Bigram(NeuralLanguageModel):
        ...     def __init__(self, vocab_size, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.vocab_size = vocab_size
        ...         self.table = keras.layers.Embedding(vocab_size, vocab_size, embeddings_initializer="zeros")
        ...     def call(self, ids, training=None):
        ...         return self.table(ids)  # (B, T, V)
        >>> model = Bigram(vocab_size=4)
        >>> np.exp(model.token_log_probs([[1, 3, 2]])).round(6).tolist()
        [[0.25, 0.25, 0.25]]
    """

    start_id: int = 0
    max_length: int | None = None

    def __call__(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the logits, (B, T, V), of ids (B, T).

        Raises:
            ValueError: if ids is not (B, T), has no row or no token, has more than `max_length` tokens a row, or
                (outside a graph, where the values are known) holds a number that is no id.
        """
        self._check_call(ids)
        return super().__call__(ids, *args, **kwargs)

    def token_log_probs(self, ids: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score each token of each row given the tokens to its left; see `LanguageModel.token_log_probs`.

        The logits of a few rows exist at a time, and only the log-probability of the token that came leaves the
        compiled graph.

        Args:
            ids: integers of shape (B, T).
            mask: bool of shape (B, T), True where the token counts.

        Returns:
            ln P(ids[b, t] | ids[b, :t]) of shape (B, T), in nats, computed in float32; 0 where masked.

        Raises:
            ValueError: if ids or mask is not right, or a row has more than `max_length` tokens.
        """
        ids, mask = check_ids(ids, self.vocab_size, mask)
        self._check_length(ids.shape[1], "ids must have at most max_length = {} tokens a row")
        log_probs = np.zeros(ids.shape)
        if not ids.size:
            return log_probs
        inputs = np.concatenate([np.full((len(ids), 1), self.start_id), ids[:, :-1]], axis=1)  # (B, T)
        score = _Graphs.of(self).score
        for rows, (x, y) in self._sub_batches(inputs, ids):
            log_probs[rows] = score(x, y)[: rows.stop - rows.start, : ids.shape[1]]
        return np.where(mask, log_probs, 0.0)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution of the token that follows each prefix; see `LanguageModel.next_log_probs`.

        Args:
            prefixes: B sequences of ids; their lengths may differ, and be zero.

        Returns:
            ln P(token | prefix) of shape (B, V), in nats, computed in float32.

        Raises:
            ValueError: if a prefix holds an id outside 0..V-1, or more than `max_length - 1` tokens.
        """
        rows = document_ids(prefixes, self.vocab_size, "prefixes")
        longest = max((len(row) for row in rows), default=0)
        self._check_length(longest + 1, "prefixes must have, with start_id, at most max_length = {} tokens")
        inputs = np.full((len(rows), longest + 1), self.start_id)  # what stands behind a prefix is never read
        for row, prefix in zip(inputs, rows, strict=True):
            row[1 : len(prefix) + 1] = prefix
        last = np.array([[len(row)] for row in rows], dtype=np.int64).reshape(-1, 1)  # (B, 1)
        log_probs = np.empty((len(rows), self.vocab_size))
        follow = _Graphs.of(self).follow
        for part, (x, position) in self._sub_batches(inputs, last):
            log_probs[part] = follow(x, position[:, 0])[: part.stop - part.start]
        return log_probs

    def _check_call(self, ids: Any) -> None:
        """Raise unless these can be the model's inputs."""
        check_known_ids(ids, self.vocab_size)
        shape = tuple(getattr(ids, "shape", np.shape(ids)))
        if len(shape) != 2:
            raise ValueError(f"ids must have shape (B, T); got {shape}. For one row, pass [row].")
        if 0 in shape:
            raise ValueError(f"ids must have at least one row and one token; got shape {shape}.")
        if shape[1] is not None:
            self._check_length(shape[1], "ids must have at most max_length = {} tokens a row")

    def _check_length(self, length: int, rule: str) -> None:
        """Raise if the model cannot read so many tokens at once."""
        if self.max_length is not None and length > self.max_length:
            raise ValueError(f"{rule.format(self.max_length)}; got {length}. Cut the text into shorter rows.")

    def _sub_batches(self, inputs: NDArray, others: NDArray):
        """Yield slices of the rows with both arrays cut to them, padded to one of a few sizes, as int32."""
        width = padded_length(inputs.shape[1], self.max_length)
        fit = max(1, min(LOGITS_PER_CALL // (width * self.vocab_size), TOKENS_PER_CALL // width))
        most = min(_floor_power_of_two(fit), _ceil_power_of_two(len(inputs)))
        for start in range(0, len(inputs), most):
            rows = slice(start, min(start + most, len(inputs)))
            height = _ceil_power_of_two(rows.stop - rows.start)
            yield (
                rows,
                (
                    _padded(inputs[rows], height, width),
                    _padded(others[rows], height, width if others.shape == inputs.shape else others.shape[1]),
                ),
            )


class _Graphs(ModelGraphs):
    """The two compiled functions of scoring: one trace each, for any number of rows of any length."""

    def __init__(self, model: NeuralLanguageModel):
        if not model.built:
            model(keras.KerasTensor((1, 1), "int32"))
        super().__init__(model)
        ids = tf.TensorSpec((None, None), tf.int32)
        self.score: Callable = tf.function(
            lambda x, y: _token_log_probs(_logits(model, x), y),
            input_signature=[ids, ids],
            jit_compile=uses_xla(model),
            autograph=False,
        )
        self.follow: Callable = tf.function(
            lambda x, last: tf.nn.log_softmax(tf.gather(_logits(model, x), last, batch_dims=1)),  # (B, V)
            input_signature=[ids, tf.TensorSpec((None,), tf.int32)],
            jit_compile=uses_xla(model),
            autograph=False,
        )


def next_token_loss(label_smoothing: float = 0.0) -> keras.losses.Loss:
    """Return the cross-entropy of the next token in nats, averaged over the tokens that count.

    Args:
        label_smoothing: ε. Above 0 the model is to give the right token not all of the probability, but 1 - ε, and to
            spread ε evenly over the whole vocabulary; see `SmoothedCrossEntropy`.

    Raises:
        ValueError: if label_smoothing is not in [0, 1).

    Example:
        >>> logits, target = np.zeros((1, 2, 8), "float32"), np.array([[3, 0]])
        >>> loss = next_token_loss()(target, logits, sample_weight=np.array([[1.0, 0.0]]))
        >>> bool(abs(float(loss) - np.log(8)) < 1e-6)  # padding does not make it smaller
        True
    """
    _check_label_smoothing(label_smoothing)
    if label_smoothing:
        return SmoothedCrossEntropy(label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight", name="next_token_loss"
    )


@keras.saving.register_keras_serializable(package="lmcourse")
class SmoothedCrossEntropy(keras.losses.Loss):
    """The cross-entropy of the next token where a little of the probability is to go to every token.

    The target distribution is (1 - ε) · one-hot + ε / V, of which no array is made: of its cross-entropy, the first
    part is the usual one, and the second is ε times the mean surprisal of all V tokens. What it reports is no
    longer the nats per token of `lmcourse.core.score`: its least value is that distribution's entropy, above zero.

    Args:
        label_smoothing: ε.
        reduction: how the losses of the tokens become one number.
        name: of the loss.

    Raises:
        ValueError: if label_smoothing is not in [0, 1).

    Example:
        Two tokens, of which the first is right and has probability 3/4. With ε = 0.2 it counts 0.9, the other 0.1:

        >>> logits = np.log([[[0.75, 0.25]]])
        >>> loss = SmoothedCrossEntropy(0.2)(np.array([[0]]), logits)
        >>> bool(abs(float(loss) - (-0.9 * np.log(0.75) - 0.1 * np.log(0.25))) < 1e-6)
        True

    Reference: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", arXiv:1512.00567,
    section 7; Vaswani et al. 2017, arXiv:1706.03762, section 5.4 (ε = 0.1).
    """

    def __init__(
        self,
        label_smoothing: float,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "next_token_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        _check_label_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each token, (B, T), of ids (B, T) and logits (B, T, V)."""
        logits = ops.cast(y_pred, "float32")
        right = ops.sparse_categorical_crossentropy(ops.cast(y_true, "int32"), logits, from_logits=True)
        of_all = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)  # the mean of -ln P(token) over V
        return (1 - self.label_smoothing) * right + self.label_smoothing * of_all

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def _check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be at least 0 and below 1; got {label_smoothing}.")


def check_known_ids(ids: Any, vocab_size: int, name: str = "ids") -> None:
    """Refuse numbers that are no ids where their values are known: outside a graph.

    Raises:
        ValueError: if ids is not (B, T), or holds something else than integers from 0 to V - 1.
    """
    if values_are_known(ids):
        check_ids(np.asarray(ids), vocab_size, name=name)


def values_are_known(tensor: Any) -> bool:
    """Return whether this is a tensor, array or list of numbers, rather than what stands for one in a graph."""
    return isinstance(tensor, (np.ndarray, list, tuple, tf.Tensor)) and not tf.is_symbolic_tensor(tensor)


def as_log_probs(result: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return a step's logits, (B, V), as ln P, in float32 whatever the model's dtype, and its states as they are."""
    logits, states = result
    return tf.nn.log_softmax(tf.cast(logits, tf.float32)), states


def padded_length(length: int, limit: int | None = None) -> int:
    """Return the length that a row is padded to: one of about six for each doubling, never above the limit.

    So whatever is compiled for a length is compiled a few times only, and at most a seventh of a row beyond 32
    tokens is padding.

    Example:
        >>> [padded_length(length) for length in (1, 17, 65, 100, 1000)]
        [8, 24, 72, 104, 1024]
    """
    step = max(8, _ceil_power_of_two(length) // 16)
    padded = -(-length // step) * step
    return padded if limit is None else min(padded, limit)


def _logits(model: NeuralLanguageModel, ids: tf.Tensor) -> tf.Tensor:
    """Return the model's logits in float32: a softmax over a large vocabulary loses too much in half precision."""
    return tf.cast(model(ids, training=False), tf.float32)  # (B, T, V)


def _token_log_probs(logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)  # (B, T)


def _padded(array: NDArray, height: int, width: int) -> NDArray[np.int32]:
    padded = np.zeros((height, width), dtype=np.int32)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded


def _ceil_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def _floor_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)
