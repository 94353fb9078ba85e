"""What every chapter that trains needs: a base for neural language models, batches, `fit` and checkpoints.

A neural model of the next token is a `NeuralLanguageModel`, which scores and generates like any other
`LanguageModel`. `DocumentBatches` or `StreamBatches` give it text, and `fit` trains it:

    model.compile(optimizer=keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    history = fit(model, DocumentBatches(train, 32), steps=1000, validation=held_out, checkpoint="run.ckpt")

`keras.utils.set_random_seed` before the model is made makes a run repeatable; to the bit on one machine.
"""

from lmcourse.training.batches import Batches, DocumentBatches, StreamBatches
from lmcourse.training.checkpoint import Checkpoint, CheckpointError, Extra
from lmcourse.training.fitting import History, fit, train_epochs, training_metrics
from lmcourse.training.graphs import ModelGraphs
from lmcourse.training.language_model import (
    NeuralLanguageModel,
    NextTokenModel,
    SmoothedCrossEntropy,
    as_log_probs,
    check_known_ids,
    next_token_loss,
    values_are_known,
)
from lmcourse.training.runs import Run, RunError, RunFolder, load_run
from lmcourse.training.schedules import InverseSquareRootSchedule, scheduled_adam
from lmcourse.training.sliding import SlidingContext

__all__ = [
    "Batches",
    "Checkpoint",
    "CheckpointError",
    "DocumentBatches",
    "Extra",
    "History",
    "InverseSquareRootSchedule",
    "ModelGraphs",
    "NeuralLanguageModel",
    "NextTokenModel",
    "Run",
    "RunError",
    "RunFolder",
    "SlidingContext",
    "SmoothedCrossEntropy",
    "StreamBatches",
    "as_log_probs",
    "check_known_ids",
    "fit",
    "load_run",
    "next_token_loss",
    "scheduled_adam",
    "train_epochs",
    "training_metrics",
    "values_are_known",
]
