"""Neural language models small enough for tests."""

import keras

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
class SmallRecurrent(NeuralLanguageModel):
    """An embedding, a GRU with dropout, and logits."""

    def __init__(self, vocab_size, units=16, dropout=0.2, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.units, self.dropout = vocab_size, units, dropout
        self.embedding = keras.layers.Embedding(vocab_size, units)
        self.recurrent = keras.layers.GRU(units, return_sequences=True)
        self.drop = keras.layers.Dropout(dropout)
        self.logits = keras.layers.Dense(vocab_size)

    def build(self, input_shape):
        self.embedding.build(input_shape)
        for layer in (self.recurrent, self.drop, self.logits):
            layer.build((*input_shape, self.units))
        self.built = True

    def call(self, ids, training=None):
        hidden = self.recurrent(self.embedding(ids))
        return self.logits(self.drop(hidden, training=training))

    def get_config(self):
        own = {"vocab_size": self.vocab_size, "units": self.units, "dropout": self.dropout}
        return {**super().get_config(), **own}
