"""Chapter 2's longer runs: neural models without attention, against the floor and against chapter 1's n-grams.

On Fableworld all models read the training and test stories of chapter 1's rows. On the Python documentation an LSTM
over characters stands beside an 8-gram at each of three training sizes.
"""

from typing import Any

import keras

from lmcourse.ngram.experiments import FableworldTexts, PythondocsTexts
from lmcourse.ngram.experiments import measure_pythondocs as measure_ngram_on_pythondocs
from lmcourse.recurrent.models import CarriedState, RecurrentLanguageModel, WindowLanguageModel
from lmcourse.results import Experiment, Measurement
from lmcourse.training import (
    DocumentBatches,
    NeuralLanguageModel,
    StreamBatches,
    fit,
    scheduled_adam,
    train_epochs,
    training_metrics,
)


def measure_fableworld(
    seed: int,
    *,
    model: str,
    tokens: int,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    **settings: Any,
) -> Measurement:
    """Train a neural model on stories and measure its excess over the floor.

    Args:
        seed: of the training stories, the weights and the order; the test stories are always the same.
        model: "window", or the layer of a `RecurrentLanguageModel`: "simple", "gru" or "lstm".
        tokens: the least number of tokens to train on.
        epochs: how often to read them.
        batch_size: stories in a batch.
        learning_rate: the largest of the schedule's.
        **settings: of the model.
    """
    keras.utils.set_random_seed(seed)
    texts = FableworldTexts.load(seed, tokens)
    network = make_model(model, texts.tokenizer.vocab_size, **settings)
    batches = DocumentBatches(texts.ids(texts.train), batch_size, seed=seed)
    history = train_epochs(network, batches, epochs, learning_rate)
    return texts.measure(network, **training_metrics(network, history))


def measure_pythondocs(
    seed: int,
    *,
    layer: str,
    characters: int | None,
    steps: int,
    batch_size: int,
    time: int,
    learning_rate: float,
    **settings: Any,
) -> Measurement:
    """Train a recurrent model on characters of the Python documentation; measure bits per byte.

    A twentieth of the training documents decides when to stop: the weights that predict it best are kept.

    Args:
        seed: of the split into training and held-out documents, the weights and the order.
        layer: of the `RecurrentLanguageModel`.
        characters: how many to train on; None is all.
        steps: the most steps of training.
        batch_size: parts of the stream that are read side by side.
        time: tokens after which the gradient is cut.
        learning_rate: the largest of the schedule's.
        **settings: of the model.
    """
    keras.utils.set_random_seed(seed)
    texts = PythondocsTexts.load(seed, characters=characters)
    # No character begins a document: the start has an id of its own.
    start = texts.vocab_size
    network = RecurrentLanguageModel(start + 1, layer=layer, start_id=start, **settings)
    train, validation = hold_out(texts.train)
    batches = StreamBatches(train, batch_size, time, start_id=start, seed=seed)
    carried = CarriedState(network, batch_size, reset_every=batches.steps_per_epoch)
    carried.compile(scheduled_adam(learning_rate, steps))
    history = fit(
        carried,
        batches,
        steps=steps,
        validation=validation,
        validate_every=max(1, steps // 12),
        patience=4,
        progress=False,
    )
    return texts.measure(
        network,
        training_tokens=sum(map(len, texts.train)),
        epochs=history.steps[-1] / batches.steps_per_epoch,
        best_epoch=history.best_step / batches.steps_per_epoch,
        **training_metrics(network, history),
    )


def make_model(model: str, vocab_size: int, **settings: Any) -> NeuralLanguageModel:
    """Return a window model, or a recurrent one of this layer."""
    if model == "window":
        return WindowLanguageModel(vocab_size, **settings)
    return RecurrentLanguageModel(vocab_size, layer=model, **settings)


def hold_out(documents: list[list[int]], share: float = 0.05) -> tuple[list[list[int]], list[list[int]]]:
    """Return training and validation documents: the end of each is held out, so that even one document has both.

    Args:
        documents: sequences of ids.
        share: of each document to hold out.
    """
    cuts = [round(len(document) * (1 - share)) for document in documents]
    pairs = list(zip(documents, cuts, strict=True))
    train = [document[:cut] for document, cut in pairs if cut]
    return train, [document[cut:] for document, cut in pairs if cut < len(document)]


def _fableworld(name: str, model: str, **settings: Any) -> Experiment:
    settings = {"tokens": 1_000_000, "model": model, **settings}
    return Experiment(measure_fableworld, name, "fableworld", seeds=(0, 1, 2), settings=settings)


def _pythondocs_pair(size: str, characters: int | None, steps: int) -> dict[str, Experiment]:
    """Return an LSTM and an 8-gram on the same characters."""
    lstm = {
        "layer": "lstm",
        "characters": characters,
        "steps": steps,
        "batch_size": 16,
        "time": 64,
        "learning_rate": 4e-3,
        "units": 256,
        "embedding_dim": 32,
        "dropout": 0.2,
    }
    ngram = {"order": 8, "smoothing": "kneser-ney", "merges": 0, "characters": characters}
    rows = {
        f"pythondocs-lstm-{size}": Experiment(
            measure_pythondocs, f"LSTM, characters, {size}", "pythondocs", seeds=(0, 1, 2), settings=lstm
        )
    }
    if characters is not None:  # chapter 1 has the row of all of them
        rows[f"pythondocs-8-gram-{size}"] = Experiment(
            measure_ngram_on_pythondocs,
            f"8-gram, Kneser–Ney, characters, {size}",
            "pythondocs",
            seeds=(0, 1, 2),
            settings=ngram,
        )
    return rows


EXPERIMENTS = {
    "fableworld-window": _fableworld(
        "Window of 8 tokens (Bengio)",
        "window",
        window=8,
        embedding_dim=64,
        units=512,
        epochs=3,
        batch_size=16,
        learning_rate=3e-3,
    ),
    "fableworld-simple": _fableworld(
        "Simple RNN", "simple", units=256, embedding_dim=96, epochs=3, batch_size=16, learning_rate=2e-3
    ),
    "fableworld-gru": _fableworld(
        "GRU", "gru", units=192, embedding_dim=96, epochs=3, batch_size=16, learning_rate=5e-3
    ),
    "fableworld-lstm": _fableworld(
        "LSTM", "lstm", units=192, embedding_dim=96, epochs=3, batch_size=16, learning_rate=5e-3
    ),
    **_pythondocs_pair("20,000", 20_000, 600),
    **_pythondocs_pair("80,000", 80_000, 1_200),
    **_pythondocs_pair("all", None, 1_600),
}
