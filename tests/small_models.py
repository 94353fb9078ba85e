"""Neural language models small enough for tests, and quick to trace."""

import keras
from keras import ops

from lmcourse.training import NeuralLanguageModel


@keras.saving.register_keras_serializable(package="lmcourse_tests")
class Bigram(NeuralLanguageModel):
    """A table of logits: the next token given the one before."""

    def __init__(self, vocab_size, max_length=None, start_id=0, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.max_length, self.start_id = vocab_size, max_length, start_id
        self.table = keras.layers.Embedding(vocab_size, vocab_size, embeddings_initializer="normal")

    def build(self, input_shape):
        self.table.build(input_shape)
        self.built = True

    def call(self, ids, training=None):
        return self.table(ids)

    def get_config(self):
        own = {"vocab_size": self.vocab_size, "max_length": self.max_length, "start_id": self.start_id}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="lmcourse_tests")
class CausalBag(NeuralLanguageModel):
    """The sum of the vectors of all tokens so far, a hidden layer with dropout, and logits."""

    def __init__(self, vocab_size, units=16, dropout=0.2, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.units, self.dropout = vocab_size, units, dropout
        self.embedding = keras.layers.Embedding(vocab_size, units)
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.drop = keras.layers.Dropout(dropout)
        self.logits = keras.layers.Dense(vocab_size)

    def build(self, input_shape):
        self.embedding.build(input_shape)
        for layer in (self.hidden, self.drop, self.logits):
            layer.build((*input_shape, self.units))
        self.built = True

    def call(self, ids, training=None):
        return self.read(ops.cumsum(self.embedding(ids), axis=1), training)

    def read(self, bag, training):
        return self.logits(self.drop(self.hidden(bag), training=training))

    def get_config(self):
        own = {"vocab_size": self.vocab_size, "units": self.units, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="lmcourse_tests")
class CarriesState(CausalBag):
    """In training, the sum of each batch goes on, half forgotten, from the one that the batch before ended with."""

    def __init__(self, vocab_size, batch_size, **kwargs):
        super().__init__(vocab_size, **kwargs)
        self.batch_size = batch_size

    def build(self, input_shape):
        super().build(input_shape)
        shape = (self.batch_size, self.units)
        self.state = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="state")

    def call(self, ids, training=None):
        bag = ops.cumsum(self.embedding(ids), axis=1)
        if training:
            bag = bag + self.state[:, None]
            self.state.assign(0.5 * bag[:, -1])
        return self.read(bag, training)

    def get_config(self):
        return {**super().get_config(), "batch_size": self.batch_size}
