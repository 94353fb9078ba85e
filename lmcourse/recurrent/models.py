"""Neural language models before attention: a fixed window of words, and a recurrent state.

Letters for shapes: `B` rows, `T` time, `V` vocabulary, `E` width of the embedding, `H` units, `W` window.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from lmcourse.core import Decoder, check_positive, document_ids, pad_rows
from lmcourse.recurrent.layers import States, layer_named
from lmcourse.training import ModelGraphs, NeuralLanguageModel, as_log_probs

# The states of all layers: for each layer its state tensors, each (B, H).
AllStates = tuple[States, ...]


@keras.saving.register_keras_serializable(package="lmcourse")
class WindowLanguageModel(NeuralLanguageModel):
    """Predict a token from the vectors of the few tokens before it, side by side: the first neural language model.

    Like an n-gram model of order W + 1 it sees W tokens, but similar tokens have similar vectors, so what is
    learned of one context serves others like it.

    Args:
        vocab_size: V.
        window: W, how many tokens it sees.
        embedding_dim: E, the width of a token's vector.
        units: of the hidden layer.
        direct: whether the vectors also act on the logits directly, past the hidden layer.
        start_id: the id that fills the window before the first token of a document.
        **kwargs: what every Keras model takes (name, dtype).

    Raises:
        ValueError: if a number is out of its range; when called, if ids are not integers (B, T) below vocab_size.

    Example:
        >>> model = WindowLanguageModel(vocab_size=10, window=3, embedding_dim=4, units=8)
        >>> model(np.array([[0, 7, 3]])).shape  # the logits of what follows 0; 0, 7; and 0, 7, 3
        TensorShape([1, 3, 10])

    Reference: Bengio, Ducharme, Vincent and Jauvin 2003, "A neural probabilistic language model", JMLR 3,
    equation 1.
    """

    def __init__(
        self,
        vocab_size: int,
        window: int,
        embedding_dim: int = 64,
        units: int = 256,
        *,
        direct: bool = False,
        start_id: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(vocab_size=vocab_size, window=window, embedding_dim=embedding_dim, units=units)
        _check_start(start_id, vocab_size)
        self.vocab_size, self.window, self.start_id, self.direct = vocab_size, window, start_id, direct
        self.embedding_dim, self.units = embedding_dim, units
        self.embedding = keras.layers.Embedding(vocab_size, embedding_dim, name="embedding")
        self.hidden = keras.layers.Dense(units, activation="tanh", name="hidden")
        self.to_logits = keras.layers.Dense(vocab_size, name="to_logits")
        self.shortcut = keras.layers.Dense(vocab_size, use_bias=False, name="shortcut") if direct else None

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.embedding.build((None, None))
        self.hidden.build((None, None, self.window * self.embedding_dim))
        self.to_logits.build((None, None, self.units))
        if self.shortcut is not None:
            self.shortcut.build((None, None, self.window * self.embedding_dim))
        self.built = True

    def call(self, ids: Any, training: bool | None = None) -> Any:
        """Return the logits of the token that follows each: int ids (B, T) to floats (B, T, V)."""
        time = ops.shape(ids)[1]
        before = ops.full((ops.shape(ids)[0], self.window - 1), self.start_id, dtype="int32")
        vectors = self.embedding(ops.concatenate([before, ops.cast(ids, "int32")], axis=1))  # (B, W-1+T, E)
        context = ops.concatenate(
            [vectors[:, w : w + time] for w in range(self.window)], axis=-1
        )  # (B, T, W*E)
        logits = self.to_logits(self.hidden(context))  # (B, T, V)
        return logits if self.shortcut is None else logits + self.shortcut(context)

    def next_log_probs(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the distribution after each prefix; only its last W tokens are read."""
        prefixes = document_ids(prefixes, self.vocab_size, "prefixes")
        return super().next_log_probs([prefix[-self.window :] for prefix in prefixes])

    def compute_output_shape(self, ids_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return (B, T, V)."""
        return (*ids_shape, self.vocab_size)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("vocab_size", "window", "embedding_dim", "units", "direct", "start_id")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="lmcourse")
class RecurrentLanguageModel(NeuralLanguageModel):
    """Predict a token from a state that has read all tokens before it.

    Embedding, one or more recurrent layers, and a softmax over the vocabulary. The tokens may be words, characters
    or pieces: the model sees ids. Its decoder keeps the state, so a new token costs one step, however long the text.

    Args:
        vocab_size: V.
        layer: "lstm", "gru" or "simple".
        units: H, of each recurrent layer.
        layers: how many recurrent layers, each reading the one below.
        embedding_dim: E; by default H.
        tied: whether the embedding also weighs the logits (Press and Wolf 2017, arXiv:1608.05859). Where E is not
            H a matrix without bias takes the state to the width E first.
        dropout: the share of numbers set to zero on the way into, between and out of the recurrent layers in
            training, never from step to step (Zaremba, Sutskever and Vinyals 2014, arXiv:1409.2329).
        start_id: the id that is read before the first token of a document.
        **kwargs: what every Keras model takes (name, dtype).

    Raises:
        ValueError: if a number is out of its range or there is no such layer; when called, if ids are not integers
            (B, T) below vocab_size.

    Example:
        >>> model = RecurrentLanguageModel(vocab_size=10, layer="gru", units=8)
        >>> model(np.array([[0, 7, 3]])).shape
        TensorShape([1, 3, 10])

    Reference: Mikolov et al. 2010, "Recurrent neural network based language model", Interspeech; with LSTM:
    Sundermeyer, Schlüter and Ney 2012, "LSTM neural networks for language modeling", Interspeech.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        layer: str = "lstm",
        units: int = 256,
        layers: int = 1,
        embedding_dim: int | None = None,
        tied: bool = False,
        dropout: float = 0.0,
        start_id: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        width = units if embedding_dim is None else embedding_dim
        check_positive(vocab_size=vocab_size, units=units, layers=layers, embedding_dim=width)
        _check_start(start_id, vocab_size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
        kind = layer_named(layer)
        self.vocab_size, self.start_id, self.layer, self.units = vocab_size, start_id, layer, units
        self.depth, self.tied, self.dropout = layers, tied, dropout
        self.embedding_dim = width
        self.embedding = keras.layers.Embedding(vocab_size, self.embedding_dim, name="embedding")
        self.recurrent = [kind(units, return_state=True, name=f"{layer}_{i + 1}") for i in range(layers)]
        self.dropouts = [keras.layers.Dropout(dropout, name=f"dropout_{i}") for i in range(layers + 1)]
        projects = tied and self.embedding_dim != units
        self.to_embedding = (
            keras.layers.Dense(self.embedding_dim, use_bias=False, name="to_embedding") if projects else None
        )
        self.to_logits = None if tied else keras.layers.Dense(vocab_size, name="to_logits")

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.embedding.build((None, None))
        for i, layer in enumerate(self.recurrent):
            layer.build((None, None, self.units if i else self.embedding_dim))
        if self.to_embedding is not None:
            self.to_embedding.build((None, None, self.units))
        if self.to_logits is not None:
            self.to_logits.build((None, None, self.units))
        else:
            self.logits_bias = self.add_weight(
                name="logits_bias", shape=(self.vocab_size,), initializer="zeros"
            )
        self.built = True

    def call(self, ids: Any, training: bool | None = None) -> Any:
        """Return the logits of the token that follows each: int ids (B, T) to floats (B, T, V)."""
        return self.run(ids, training=training)[0]

    def run(
        self, ids: Any, states: AllStates | None = None, *, training: bool | None = None
    ) -> tuple[Any, AllStates]:
        """Read ids from a state on.

        Args:
            ids: integers (B, T).
            states: what an earlier call returned; None is the beginning of a document.
            training: whether dropout acts.

        Returns:
            The logits, (B, T, V), and the states after the last token.
        """
        self._check_call(ids)
        outputs, states = self._read(ids, states, training=training)
        return self._logits(outputs), states

    def initial_states(self, batch_size: int) -> AllStates:
        """Return the states at the beginning of a document: zeros."""
        return tuple(layer.get_initial_state(batch_size) for layer in self.recurrent)

    def read(self, ids: Any, mask: Any) -> tuple[Any, AllStates]:
        """Read whole prefixes, padded on the right.

        Args:
            ids: integers (B, T), each row beginning with `start_id`.
            mask: bool (B, T), True on tokens.

        Returns:
            The logits of the token that follows each row's last one, (B, V), and the states there.
        """
        _, states = self._read(ids, None, mask=mask)
        return self._logits(states[-1][0]), states

    def step(self, ids: Any, states: AllStates) -> tuple[Any, AllStates]:
        """Read one token a row: a step of generation.

        Args:
            ids: integers (B,).
            states: what `read` or this method returned.

        Returns:
            The logits of the token that follows, (B, V), and the states after.
        """
        self._ensure_built()
        outputs, after = self.embedding(ids), []  # (B, E)
        for layer, before in zip(self.recurrent, states, strict=True):
            outputs, state = layer.advance(outputs, before)  # (B, H)
            after.append(state)
        return self._logits(outputs), tuple(after)

    def decoder(self, prefixes: Sequence[Sequence[int]]) -> "RecurrentDecoder":
        """Return a decoder that keeps the states: a new token costs one step."""
        return RecurrentDecoder(self, prefixes)

    def compute_output_shape(self, ids_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return (B, T, V)."""
        return (*ids_shape, self.vocab_size)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("vocab_size", "layer", "units", "embedding_dim", "tied", "dropout", "start_id")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "layers": self.depth,
        }

    def _read(
        self, ids: Any, states: AllStates | None, *, mask: Any = None, training: bool | None = None
    ) -> tuple[Any, AllStates]:
        self._ensure_built()
        outputs, after = self.embedding(ids), []  # (B, T, E)
        for i, layer in enumerate(self.recurrent):
            outputs = self.dropouts[i](outputs, training=training)
            before = None if states is None else states[i]
            outputs, *state = layer(outputs, initial_state=before, mask=mask)  # (B, T, H)
            after.append(tuple(state))
        return self.dropouts[-1](outputs, training=training), tuple(after)

    def _ensure_built(self) -> None:
        if not self.built:
            self.build((None, None))

    def _logits(self, outputs: Any) -> Any:
        """Return logits (…, V) from the top layer's outputs (…, H)."""
        if self.to_logits is not None:
            return self.to_logits(outputs)
        if self.to_embedding is not None:
            outputs = self.to_embedding(outputs)  # (…, E)
        table = ops.cast(self.embedding.embeddings, self.compute_dtype)
        return ops.matmul(outputs, ops.transpose(table)) + self.logits_bias

    def decoding_graphs(self) -> "_DecodingGraphs":
        """Return the compiled `read` and `step` of the model as it is now."""
        self._ensure_built()
        return _DecodingGraphs.of(self)


class RecurrentDecoder(Decoder):
    """Generation that keeps each row's states, so that it never reads a token twice.

    Args:
        model: a `RecurrentLanguageModel`.
        prefixes: B sequences of ids; their lengths may differ, and be zero.

    Raises:
        ValueError: if a prefix holds an id outside 0..V-1.
    """

    def __init__(self, model: RecurrentLanguageModel, prefixes: Sequence[Sequence[int]]):
        rows = document_ids(prefixes, model.vocab_size, "prefixes")
        self._vocab_size = model.vocab_size
        self._graphs = model.decoding_graphs()
        if rows:
            ids, mask = pad_rows([[model.start_id, *row] for row in rows])
            self._log_probs, self._states = self._graphs.read(ids.astype(np.int32), mask)
        else:
            self._log_probs, self._states = tf.zeros((0, model.vocab_size)), model.initial_states(0)

    def log_probs(self) -> NDArray[np.float64]:
        """Return ln P(next token) for each row, (B, V), in nats."""
        return self._log_probs.numpy().astype(np.float64)

    def append(self, ids: Sequence[int]) -> None:
        """Extend each row by one token."""
        (ids,) = document_ids([ids], self._vocab_size, "the rows' tokens: ids")
        if len(ids) != len(self._log_probs):
            raise ValueError(
                f"ids must have one entry for each of the {len(self._log_probs)} rows; got {len(ids)}."
            )
        self._log_probs, self._states = self._graphs.step(ids.astype(np.int32), self._states)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        rows = np.arange(len(self._log_probs))[np.asarray(rows, dtype=np.int64)]
        self._log_probs, self._states = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, rows), (self._log_probs, self._states)
        )


class _DecodingGraphs(ModelGraphs):
    """A model's `read` and `step` as compiled functions, one trace each for any number of rows."""

    def __init__(self, model: RecurrentLanguageModel):
        super().__init__(model)
        state = tf.TensorSpec((None, model.units), model.compute_dtype)
        states = tuple((state,) * layer.state_tensors for layer in model.recurrent)
        self.read = tf.function(
            lambda ids, mask: as_log_probs(model.read(ids, mask)),
            input_signature=[tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.bool)],
        )
        self.step = tf.function(
            lambda ids, states: as_log_probs(model.step(ids, states)),
            input_signature=[tf.TensorSpec((None,), tf.int32), states],
        )


@keras.saving.register_keras_serializable(package="lmcourse")
class CarriedState(NeuralLanguageModel):
    """Trains a recurrent model on a stream: each batch goes on in the state in which the one before ended.

    The state is carried forward, the gradient is not carried back: it ends where the batch begins (truncated
    backpropagation through time). Give it `lmcourse.training.StreamBatches`. The state is a variable, so a checkpoint
    holds it. Only training reads and writes it: scoring begins every row anew.

    Args:
        model: the model to train; it shares its weights.
        batch_size: B of the batches.
        reset_every: after how many batches the state begins anew: `StreamBatches.steps_per_epoch`, since an epoch
            cuts the stream elsewhere. None: never.
        **kwargs: what every Keras model takes (name, dtype).

    Raises:
        ValueError: if a number is less than 1; in training, if a batch has another number of rows.

    Reference: Williams and Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories", Neural Computation 2(4).
    """

    def __init__(
        self,
        model: RecurrentLanguageModel,
        batch_size: int,
        *,
        reset_every: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_positive(batch_size=batch_size, reset_every=reset_every)
        self.model, self.batch_size, self.reset_every = model, batch_size, reset_every
        self.vocab_size, self.start_id = model.vocab_size, model.start_id

    def build(self, input_shape: Any) -> None:
        """Make the variables that hold the state, and the model's weights if it has none yet."""
        self.model._ensure_built()
        self.carried = [
            [
                self.add_weight(
                    name=f"state_{i}_{j}",
                    shape=(self.batch_size, layer.units),
                    initializer="zeros",
                    trainable=False,
                )
                for j in range(layer.state_tensors)
            ]
            for i, layer in enumerate(self.model.recurrent)
        ]
        self.batches_read = self.add_weight(
            name="batches_read", shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, ids: Any, training: bool | None = None) -> Any:
        """Return logits (B, T, V); in training from the carried state on, which is moved on."""
        if not training:
            return self.model(ids, training=False)
        if ids.shape[0] not in (None, self.batch_size):
            raise ValueError(
                f"ids must have batch_size = {self.batch_size} rows in training; got {ids.shape[0]}."
            )
        logits, states = self.model.run(ids, self._before(), training=True)
        for variables, tensors in zip(self.carried, states, strict=True):
            for variable, tensor in zip(variables, tensors, strict=True):
                variable.assign(ops.stop_gradient(ops.cast(tensor, variable.dtype)))
        self.batches_read.assign_add(1)
        return logits

    def reset_state(self) -> None:
        """Begin anew: the next batch is read from a state of zeros."""
        for variable in (*itertools.chain(*self.carried), self.batches_read):
            variable.assign(ops.zeros_like(variable))

    def compute_output_shape(self, ids_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return (B, T, V)."""
        return (*ids_shape, self.vocab_size)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "batch_size": self.batch_size,
            "reset_every": self.reset_every,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "CarriedState":
        """Return what `get_config` describes."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(**{**config, "model": model})

    def _before(self) -> AllStates:
        """Return the states to begin the batch with."""
        keep = 1.0
        if self.reset_every is not None:
            keep = ops.cast(ops.mod(self.batches_read, self.reset_every) != 0, self.compute_dtype)
        return tuple(
            tuple(ops.cast(variable, self.compute_dtype) * keep for variable in variables)
            for variables in self.carried
        )


def _check_start(start_id: int, vocab_size: int) -> None:
    if not 0 <= start_id < vocab_size:
        raise ValueError(f"start_id must be between 0 and vocab_size - 1 = {vocab_size - 1}; got {start_id}.")
