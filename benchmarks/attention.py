"""Our multi-head attention against Keras's on the same work; chunked attention against plain, in time and memory.

The layers have the same weights and read the same batch; a step is forward, backward and Adam as one compiled graph.
The two take turns, so that what else the machine does falls on both; the times are medians of the processor's seconds.
Chunked and plain attention are measured forward and backward, the memory as what one pass adds to the peak of a fresh
process.
"""

import statistics
import time

ROUNDS = 15
# (B, T, D, H): a small model's layer, and one with rows long enough for the scores to weigh.
SIZES = [(32, 120, 128, 4), (4, 512, 256, 8)]
LENGTH, HEADS, WIDTH = 4096, 4, 32


def main() -> list[dict[str, object]]:
    """Return the rows of the table."""
    return [
        *(layer_row(kind, size) for kind in ("multi-head", "grouped-query") for size in SIZES),
        *long_rows(),
    ]


def layer_row(kind: str, size: tuple[int, int, int, int]) -> dict[str, object]:
    steps = {"ours": training_step("ours", kind, size), "Keras": training_step("Keras", kind, size)}
    losses = {whose: step() for whose, step in steps.items()}  # the first call traces the graph
    assert abs(losses["ours"] - losses["Keras"]) < 1e-5, f"not the same work: {losses}"
    seconds: dict[str, list[float]] = {whose: [] for whose in steps}
    for _ in range(ROUNDS):
        for whose, step in steps.items():
            began = time.process_time()
            step()
            seconds[whose].append(time.process_time() - began)
    medians = {whose: statistics.median(times) for whose, times in seconds.items()}
    return {
        "what": f"{kind}, training step, B, T, D, heads = {', '.join(map(str, size))} (ms)",
        "ours": medians["ours"] * 1000,
        "theirs": medians["Keras"] * 1000,
        "theirs / ours": medians["Keras"] / medians["ours"],
    }


def training_step(whose: str, kind: str, size: tuple[int, int, int, int]):
    """Return a function that makes a training step and returns the loss before it."""
    import keras
    import tensorflow as tf

    from lmcourse.attention import MultiHeadAttention

    rows, length, width, heads = size
    shape, head = (rows, length, width), width // heads
    keras.utils.set_random_seed(0)
    if kind == "multi-head":
        like, ours = keras.layers.MultiHeadAttention(heads, head), MultiHeadAttention(heads, head)
    else:
        like = keras.layers.GroupQueryAttention(head, heads, heads // 4)
        ours = MultiHeadAttention(heads, head, num_kv_heads=heads // 4)
    like.build(shape, shape)
    layer = like
    if whose == "ours":
        layer = ours
        layer.build(shape)
        layer.set_weights(like.get_weights())
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    inputs = tf.random.stateless_normal(shape, (0, 1))
    targets = tf.random.stateless_normal(shape, (0, 2))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            # As in a model, where the layer below needs a gradient too.
            tape.watch(inputs)
            loss = tf.reduce_mean((layer(inputs, inputs, use_causal_mask=True) - targets) ** 2)
        weights = [weight.value for weight in layer.trainable_variables]
        *gradients, below = tape.gradient(loss, [*weights, inputs])
        optimizer.apply(gradients)
        return loss, tf.reduce_sum(below)

    return lambda: float(step()[0])


def long_rows() -> list[dict[str, object]]:
    from lmcourse.attention.cost import measure_cost

    plain, chunked = (
        measure_cost(kind, [LENGTH], heads=HEADS, width=WIDTH, memory=True)[0]
        for kind in ("plain", "chunked")
    )
    what = f"{HEADS} heads of {WIDTH}, length {LENGTH:,}, forward and backward"
    return [
        {
            "what": f"chunked (ours) and plain (theirs), {what} ({unit})",
            "ours": ours,
            "theirs": theirs,
            "theirs / ours": theirs / ours,
        }
        for unit, ours, theirs in (
            ("ms", chunked.seconds * 1000, plain.seconds * 1000),
            ("MiB", chunked.mebibytes, plain.mebibytes),
        )
    ]
