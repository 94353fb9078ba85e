"""Our simple RNN, LSTM and GRU against Keras's on the same work: the time and memory of a training step.

Both have the same weights and read the same batch; a step is forward, backward and Adam as one compiled graph. The
two take turns, so that what else the machine does falls on both; the times are medians of the processor's seconds.
Memory is the peak of a fresh process that takes three such steps, less that of one that only made the layer.
"""

import statistics
import subprocess
import sys
import time

from benchmarks import peak_mib

ROUNDS = 12
# (B, T, D, H): what the course trains, and a smaller one, where the cost of each step's operations shows.
SIZES = [(32, 120, 128, 256), (16, 60, 64, 128)]
KINDS = ["simple", "lstm", "gru"]


def main() -> list[dict[str, object]]:
    """Return the rows of the table."""
    return [row(kind, size) for kind in KINDS for size in SIZES]


def row(kind: str, size: tuple[int, int, int, int]) -> dict[str, object]:
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
    memory = {whose: added_mib(whose, kind, size) for whose in steps}
    return {
        "layer": kind,
        "B, T, D, units": ", ".join(map(str, size)),
        "ours (ms)": medians["ours"] * 1000,
        "Keras (ms)": medians["Keras"] * 1000,
        "times as fast": medians["Keras"] / medians["ours"],
        "ours (MiB)": memory["ours"],
        "Keras (MiB)": memory["Keras"],
    }


def training_step(whose: str, kind: str, size: tuple[int, int, int, int]):
    """Return a function that makes a training step and returns the loss before it."""
    import keras
    import tensorflow as tf

    from lmcourse.recurrent import LAYERS

    rows, length, width, units = size
    theirs = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
    keras.utils.set_random_seed(0)
    like = theirs[kind](units, return_sequences=True)
    like.build((rows, length, width))
    layer = like if whose == "Keras" else LAYERS[kind](units)
    if layer is not like:
        layer.build((rows, length, width))
        layer.set_weights(like.get_weights())
    optimizer = keras.optimizers.Adam()
    optimizer.build(layer.trainable_variables)
    inputs = tf.random.stateless_normal((rows, length, width), (0, 1))
    targets = tf.random.stateless_normal((rows, length, units), (0, 2))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            # As in a model, where the layer below needs a gradient too.
            tape.watch(inputs)
            loss = tf.reduce_mean((layer(inputs) - targets) ** 2)
        weights = [weight.value for weight in layer.trainable_variables]
        *gradients, below = tape.gradient(loss, [*weights, inputs])
        optimizer.apply(gradients)
        return loss, tf.reduce_sum(below)

    return lambda: float(step()[0])


def added_mib(whose: str, kind: str, size: tuple[int, int, int, int]) -> float:
    """Return what three training steps add to the peak memory of a fresh process, in MiB."""
    command = [sys.executable, "-m", "benchmarks.recurrent", whose, kind, *map(str, size)]
    made, trained = (
        float(
            subprocess.run([*command, steps], check=True, capture_output=True, text=True).stdout.split()[-1]
        )
        for steps in ("0", "3")
    )
    return trained - made


def print_peak(whose: str, kind: str, *numbers: str) -> None:
    """Make so many steps and print the process's peak memory in MiB."""
    *size, steps = map(int, numbers)
    step = training_step(whose, kind, tuple(size))
    for _ in range(steps):
        step()
    print(peak_mib())


if __name__ == "__main__":
    print_peak(*sys.argv[1:])
