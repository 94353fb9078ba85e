"""Training with a progress bar, early stopping, and checkpoints from which a run goes on bit for bit."""

import contextlib
import dataclasses
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from lmcourse.core import LanguageModel, score
from lmcourse.training.batches import Batches
from lmcourse.training.checkpoint import Checkpoint, Extra
from lmcourse.training.schedules import scheduled_adam

# How to measure a model while it trains: documents, batches, or a function of the model.
Validation = Sequence[ArrayLike] | Batches | Callable[[keras.Model], float]

# Seconds between two refreshes of the progress bar, and between two checkpoints where the caller does not say.
REFRESH_SECONDS = 0.5
CHECKPOINT_SECONDS = 60.0


@dataclasses.dataclass
class History:
    """What happened in training, from its first step on, also if it was interrupted.

    Attributes:
        steps: the number of each step, from 1.
        loss: the loss of each step's batch before the step, in nats per token.
        validation_steps: after which steps the model was validated.
        validation_loss: what that gave, in nats per token.
        seconds: spent on training steps: without validation, checkpoints and interruptions.
        tokens: how many tokens were predicted in them.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    loss: list[float] = dataclasses.field(default_factory=list)
    validation_steps: list[int] = dataclasses.field(default_factory=list)
    validation_loss: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    # The same without the first step of each run, in which the graph is traced and compiled.
    warm_seconds: float = dataclasses.field(default=0.0, repr=False)
    warm_tokens: int = dataclasses.field(default=0, repr=False)

    @property
    def tokens_per_second(self) -> float:
        """The speed of training once its graph is compiled; NaN before a second step."""
        return self.warm_tokens / self.warm_seconds if self.warm_tokens else math.nan

    @property
    def best_step(self) -> int:
        """After which step the validation loss was lowest.

        Raises:
            ValueError: if the model was never validated.
        """
        if not self.validation_loss:
            raise ValueError("validation must be given to fit for a best step; there was none.")
        return self.validation_steps[self.best_validation]

    @property
    def best_validation(self) -> int:
        """The index of the lowest validation loss; one that is NaN never is."""
        return int(np.argmin(np.nan_to_num(self.validation_loss, nan=np.inf)))

    def describe(self) -> str:
        """Return the latest figures in one line, as the progress bar shows them."""
        parts = [f"loss {self.smoothed()[-1]:.4f} nats/token"] if self.loss else []
        if self.validation_loss:
            parts.append(f"validation {self.validation_loss[-1]:.4f}")
        if self.warm_tokens:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        return ", ".join(parts)

    def count(self, tokens: int, seconds: float, *, is_first: bool = False) -> None:
        """Add to the time spent and the tokens predicted; `is_first` marks the first step of a run."""
        self.tokens += tokens
        self.seconds += seconds
        if not is_first:
            self.warm_tokens += tokens
            self.warm_seconds += seconds

    def smoothed(self, window: int = 50) -> NDArray[np.float64]:
        """Return, for each step, the mean loss of the last `window` steps: what to draw.

        Example:
            >>> History(steps=[1, 2, 3], loss=[3.0, 1.0, 2.0]).smoothed(window=2).tolist()
            [3.0, 2.0, 1.5]
        """
        if window < 1:
            raise ValueError(f"window must be at least 1; got {window}.")
        sums = np.cumsum([0.0, *self.loss])
        ends = np.arange(1, len(self.loss) + 1)
        starts = np.maximum(ends - window, 0)
        return (sums[ends] - sums[starts]) / (ends - starts)


def train_epochs(model: keras.Model, batches: Batches, epochs: float, learning_rate: float) -> History:
    """Compile a model with `scheduled_adam` and fit it to all batches so many times, in silence.

    Args:
        model: what is trained.
        batches: its batches.
        epochs: how often to read them; need not be whole.
        learning_rate: the largest of the schedule's.
    """
    steps = round(epochs * batches.steps_per_epoch)
    model.compile(scheduled_adam(learning_rate, steps))
    return fit(model, batches, steps=steps, progress=False)


def training_metrics(model: keras.Model, history: History) -> dict[str, float]:
    """Return a model's size and how its training went, under the names that the rows of results have."""
    return {
        "parameters": model.count_params(),
        "training_loss_nats_per_token": float(history.smoothed()[-1]),
        "training_tokens_per_second": history.tokens_per_second,
    }


def fit(
    model: keras.Model,
    batches: Batches,
    *,
    steps: int,
    validation: Validation | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    checkpoint_every: int | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train a compiled model with its own train step, as one graph.

    With a checkpoint, a run that was stopped in any way, and is started again by the same call, ends with the same
    weights, bit for bit, as one that was never stopped (on the same machine and versions, with the same number of
    threads). Ctrl-C lets the step in hand end, writes a checkpoint and raises KeyboardInterrupt; a second one
    stops at once.

    Args:
        model: compiled.
        batches: what to train on; they go on from their position.
        steps: the number of steps after which training ends, those before an interruption included.
        validation: how to measure the model: documents to score (a `LanguageModel`), batches whose one epoch is
            evaluated with the model's loss, or a function from the model to nats per token.
        validate_every: after how many steps. Default: after each epoch. The last step is always followed by one.
        patience: stop after so many validations without a lower loss; then, and at the end of training, the
            weights of the best validation are set. Default: never stop early, keep the last weights.
        checkpoint: the file of the run, or None for no checkpoints.
        checkpoint_every: after how many steps to write it. Default: about once a minute. The end always does.
        resume: go on from the checkpoint if there is one; False starts anew and overwrites it.
        progress: show one line with steps, loss, tokens/s and the time left. Without a terminal or notebook
            nothing is shown.
        callbacks: Keras callbacks. Of their methods, `on_train_begin`, `on_train_batch_begin`,
            `on_train_batch_end`, `on_test_begin`, `on_test_end` and `on_train_end` are called; logs hold the `loss`.

    Returns:
        What happened, the part before an interruption included.

    Raises:
        ValueError: if the model is not compiled, the data does not fit it, or an argument makes no sense.
        CheckpointError: if the checkpoint is damaged or of another model or data; nothing was changed.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("model must be compiled: call model.compile(optimizer=...) first.")
    _require_positive(
        steps=steps, validate_every=validate_every, patience=patience, checkpoint_every=checkpoint_every
    )
    if validation is None and (patience is not None or validate_every is not None):
        raise ValueError("validation must be given with patience or validate_every; got None.")
    _require_fitting(model, batches)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    validate_every = validate_every or batches.steps_per_epoch
    validate = _validator(model, validation)
    _build(model, batches)
    run = _Run(model, batches, steps, validate, validate_every, patience, checkpoint, checkpoint_every)
    if checkpoint is not None:
        checkpoint.remove_drafts()
        if resume and checkpoint.exists():
            run.resume()
    return run.train(progress, callbacks)


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        steps: int,
        validate: Callable[[], float] | None,
        validate_every: int,
        patience: int | None,
        checkpoint: Checkpoint | None,
        checkpoint_every: int | None,
    ):
        self.model, self.batches, self.steps = model, batches, steps
        self.validate, self.validate_every, self.patience = validate, validate_every, patience
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self.history = History()
        self.best: list[NDArray] = []  # the weights of the best validation, where patience asks for them
        self.pending: list[Any] = []  # losses that may still be on their way: reading one waits for it
        self.saved_at = time.monotonic()
        self.is_cold = True  # the graph has not been traced yet

    @property
    def step(self) -> int:
        """How many steps were made."""
        return len(self.history.steps)

    def resume(self) -> None:
        """Go back to where the checkpoint was written."""
        extra = self.checkpoint.restore(self.model, self.batches)
        self.history = History(**extra.values, loss=extra.arrays["loss"][0].tolist())
        self.history.steps = list(range(1, len(self.history.loss) + 1))
        self.best = extra.arrays["best"]

    def train(self, progress: bool, callbacks: Sequence[keras.callbacks.Callback]) -> History:
        """Make the steps that are left."""
        step = compiled_step(self.model, self.batches)
        listeners = keras.callbacks.CallbackList(list(callbacks), model=self.model)
        self.model.stop_training = False
        listeners.on_train_begin()
        with _Interruption() as interruption, _Bar(self, progress) as bar:
            try:
                while True:
                    self._validate_if_due(listeners, interruption)
                    if self._is_over():
                        break
                    self._make_step(step, listeners if callbacks else None)
                    bar.refresh_if_due()
                    interruption.raise_if_asked()
                    self._save_if_due()
            except KeyboardInterrupt:
                if not interruption.forced:  # then nobody knows what was done and what was not
                    self._save()
                raise
            bar.refresh()
        self._save()
        if self.best:
            self.model.set_weights(self.best)
        listeners.on_train_end()
        return self.history

    def read_losses(self) -> None:
        """Move the losses of the last steps to the history."""
        if not self.pending:
            return
        began = time.perf_counter()
        self.history.loss += [float(loss) for loss in self.pending]
        self.pending = []
        self.history.count(0, time.perf_counter() - began)

    def _make_step(self, step: Callable[[Any], Any], listeners: keras.callbacks.CallbackList | None) -> None:
        if listeners:
            listeners.on_train_batch_begin(self.step)
        began = time.perf_counter()
        batch = next(self.batches)
        self.pending.append(step(batch))
        self.history.steps.append(self.step + 1)
        tokens = int(np.count_nonzero(batch[2]))
        self.history.count(tokens, time.perf_counter() - began, is_first=self.is_cold)
        self.is_cold = False
        if listeners:
            self.read_losses()
            listeners.on_train_batch_end(self.step - 1, {"loss": self.history.loss[-1]})

    def _validate_if_due(
        self, listeners: keras.callbacks.CallbackList, interruption: "_Interruption"
    ) -> None:
        """Measure the model, unless that was done after this very step before an interruption."""
        due = self.step and (self.step % self.validate_every == 0 or self.step >= self.steps)
        if self.validate is None or not due or self.history.validation_steps[-1:] == [self.step]:
            return
        listeners.on_test_begin()
        with interruption.allowed():
            loss = float(self.validate())
        if self.patience is not None and loss < min(self._finite_losses(), default=math.inf):
            self.best = self.model.get_weights()
        self.history.validation_steps.append(self.step)
        self.history.validation_loss.append(loss)
        listeners.on_test_end({"loss": loss})

    def _finite_losses(self) -> list[float]:
        return [loss for loss in self.history.validation_loss if not math.isnan(loss)]

    def _is_over(self) -> bool:
        return self.step >= self.steps or self._lost_patience() or self.model.stop_training

    def _lost_patience(self) -> bool:
        if self.patience is None or not self.history.validation_loss:
            return False
        since_best = len(self.history.validation_loss) - 1 - self.history.best_validation
        return since_best >= self.patience

    def _save_if_due(self) -> None:
        if self.checkpoint_every is None:
            due = time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        else:
            due = self.step % self.checkpoint_every == 0
        if due:
            self._save()

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self.read_losses()
        values = dataclasses.asdict(self.history)
        loss = np.array(values.pop("loss"), dtype=np.float64)
        del values["steps"]
        self.checkpoint.save(self.model, self.batches, Extra(values, {"loss": [loss], "best": self.best}))
        self.saved_at = time.monotonic()


class _Interruption:
    """Ctrl-C, held back while a step is made, so that a checkpoint never stands between a step and its count.

    A second Ctrl-C is not held back. Only the main thread can do this; elsewhere nothing is changed.

    Attributes:
        forced: whether there was a second one.
    """

    def __init__(self):
        self.forced = False
        self._asked = False
        self._allowed = False
        self._before: Any = None

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
        if self._before is not None:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def raise_if_asked(self) -> None:
        """Raise KeyboardInterrupt if it was asked for."""
        if self._asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let Ctrl-C through at once in this block, which changes nothing that a checkpoint holds."""
        self._allowed = True
        try:
            self.raise_if_asked()
            yield
        finally:
            self._allowed = False

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self.forced = self._asked
        self._asked = True
        if self.forced or self._allowed:
            raise KeyboardInterrupt


class _Bar:
    """One line on standard error: steps, loss, speed, time left; nothing where nobody would see it move."""

    def __init__(self, run: _Run, wanted: bool):
        self._run = run
        self._bar = tqdm(
            total=run.steps,
            initial=run.step,
            disable=not (wanted and _is_watched()),
            bar_format="{n_fmt}/{total_fmt} steps |{bar:20}| {desc}{remaining} left",
            file=sys.stderr,
            mininterval=0,
        )
        self._refreshed_at = 0.0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def refresh_if_due(self) -> None:
        """Show the state if the last one is old."""
        if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
            self.refresh()

    def refresh(self) -> None:
        """Show the state as it is."""
        self._run.read_losses()
        self._refreshed_at = time.monotonic()
        if self._bar.disable:
            return
        self._bar.set_description_str(f"{self._run.history.describe()}, ", refresh=False)
        self._bar.n = self._run.step
        self._bar.refresh()


def compiled_step(model: keras.Model, batches: Batches, method: str = "train_step") -> Callable[[Any], Any]:
    """Return the model's own train step, or test step, as one graph: from a batch to its loss in nats per token.

    The graph is the same whatever lengths came before, so that a resumed run computes what the whole one would
    have. It is kept on the model until that is compiled anew or its variables are others.

    Args:
        model: compiled and built.
        batches: which shapes will come.
        method: "train_step" or "test_step".
    """
    batch = batches.at(batches.position)
    signature = keras.tree.map_structure(lambda array: _spec(array, batches.fixed_shape), batch)
    # Each compile() makes the first metric anew; freezing a layer changes which variables are trainable.
    state = [*model.metrics[:1], *model.trainable_variables, *model.variables]
    kept = getattr(model, f"_lmcourse_{method}", None)
    if kept is not None and kept.fits(signature, state):
        return kept.function

    def step(batch: Any) -> Any:
        for metric in model.metrics:
            metric.reset_state()  # Keras shows the mean since the last reset
        return getattr(model, method)(batch)["loss"]

    if not model.run_eagerly:
        step = tf.function(
            step, input_signature=[signature], jit_compile=bool(model.jit_compile), autograph=False
        )
    setattr(model, f"_lmcourse_{method}", _KeptStep(step, signature, state))
    return step


class _KeptStep:
    """A compiled step and what it was compiled for."""

    def __init__(self, function: Callable[[Any], Any], signature: Any, state: list[Any]):
        self.function, self._signature, self._state = function, signature, state

    def fits(self, signature: Any, state: list[Any]) -> bool:
        """Return whether it can be used for these shapes and this state of the model."""
        return signature == self._signature and list(map(id, state)) == list(map(id, self._state))


def _spec(array: NDArray, fixed: bool) -> tf.TensorSpec:
    shape = array.shape if fixed else array.shape[:1] + (None,) * (array.ndim - 1)
    return tf.TensorSpec(shape, array.dtype)


def _build(model: keras.Model, batches: Batches) -> None:
    """Make the variables of model and optimizer, without computing anything that could change a state."""
    if not model.built:
        x = batches.at(batches.position)[0]
        model(keras.tree.map_structure(lambda a: keras.KerasTensor(a.shape, str(a.dtype)), x))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _validator(model: keras.Model, validation: Validation | None) -> Callable[[], float] | None:
    """Return a function that measures the model in nats per token."""
    if validation is None:
        return None
    if isinstance(validation, Batches):
        return lambda: _epoch_loss(model, validation)
    if callable(validation):
        return lambda: validation(model)
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"validation must be batches or a function of the model, because {type(model).__name__} is no "
            "LanguageModel that could score documents."
        )
    return lambda: score(model, validation).nats_per_token


def _epoch_loss(model: keras.Model, batches: Batches) -> float:
    """Return the loss over one epoch of batches, weighted by the tokens that count."""
    step = compiled_step(model, batches, "test_step")
    nats = tokens = 0.0
    for position in range(batches.steps_per_epoch):
        batch = batches.at(position)
        weight = float(np.sum(batch[2]))
        nats += float(step(batch)) * weight
        tokens += weight
    return nats / tokens


def _is_watched() -> bool:
    """Return whether standard error is a terminal or a notebook's cell."""
    if sys.stderr is None:
        return False
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return hasattr(running, "kernel") or sys.stderr.isatty()


def _require_fitting(model: keras.Model, batches: Batches) -> None:
    """Raise if the data cannot be of this model, before TensorFlow finds out in its own words."""
    vocab_size, largest = getattr(model, "vocab_size", None), getattr(batches, "largest_id", None)
    if isinstance(vocab_size, int) and largest is not None and largest >= vocab_size:
        raise ValueError(
            f"batches must hold ids between 0 and vocab_size - 1 = {vocab_size - 1}; got {largest}."
        )
    ours, theirs = getattr(model, "start_id", None), getattr(batches, "start_id", None)
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(f"batches must begin documents with the model's start_id = {ours}; got {theirs}.")


def _require_positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1; got {number}.")
