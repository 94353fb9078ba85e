"""The same GPT from Keras's own layers, trained by `model.fit` as Keras sets it up by default."""

from collections.abc import Callable

import keras
from keras import layers, ops

from benchmarks._transformer_work import BETAS, EPSILON, RATE, STDDEV, WEIGHT_DECAY, Size, windows


def training(size: Size) -> tuple[Callable[[], dict], dict]:
    """Return a function that makes the steps and gives their mean loss, and the number of parameters."""
    keras.utils.set_random_seed(0)
    model = gpt(size)
    optimizer = keras.optimizers.AdamW(
        RATE, weight_decay=WEIGHT_DECAY, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = windows(size)

    def train() -> dict:
        history = model.fit(x, y, batch_size=size.rows, shuffle=False, verbose=0)
        return {"loss": history.history["loss"][-1]}

    return train, {"parameters": model.count_params()}


def gpt(size: Size) -> keras.Model:
    start = keras.initializers.RandomNormal(stddev=STDDEV)
    ids = keras.Input((size.time,), dtype="int32")
    tokens = layers.ReversibleEmbedding(size.vocabulary, size.width, embeddings_initializer=start)
    places = layers.Embedding(size.time, size.width, embeddings_initializer=start.clone())
    positions = ops.zeros_like(ids) + ops.arange(
        size.time
    )  # of a constant alone, Keras would not learn the places
    x = tokens(ids) + places(positions)  # (B, T, D)
    for _ in range(size.depth):
        h = layers.LayerNormalization(epsilon=1e-5)(x)
        head = size.width // size.heads
        attention = layers.MultiHeadAttention(size.heads, head, kernel_initializer=start.clone())
        x = x + attention(h, h, use_causal_mask=True)
        h = layers.LayerNormalization(epsilon=1e-5)(x)
        h = layers.Dense(4 * size.width, gelu_tanh, kernel_initializer=start.clone())(h)
        x = x + layers.Dense(size.width, kernel_initializer=start.clone())(h)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    return keras.Model(ids, tokens(x, reverse=True))  # (B, T, V)


def gelu_tanh(x):
    return keras.activations.gelu(x, approximate=True)
