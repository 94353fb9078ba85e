"""A trained model as a folder: the model, its tokenizer, how it came about, and the checkpoint to go on from.

| file | what it holds |
|---|---|
| `run.json` | the settings, versions and data of the run, and when it has ended a summary of its history |
| `tokenizer.json` | the tokenizer, as `Tokenizer.save` writes it |
| `run.ckpt` | the whole state of training; see `Checkpoint` |
| `model.keras` | the model, without its optimizer; there when training has ended |

Each file is written whole or not at all, and `run.json` last when a run begins: a process that is killed at any moment
leaves a folder that can be gone on with.
"""

import dataclasses
import importlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from lmcourse.files import replacing, write_text
from lmcourse.text import Tokenizer
from lmcourse.training.checkpoint import Checkpoint
from lmcourse.training.fitting import History
from lmcourse.training.language_model import NeuralLanguageModel

FORMAT = "lmcourse run 1"

MODEL, TOKENIZER, RECORD, CHECKPOINT = "model.keras", "tokenizer.json", "run.json", "run.ckpt"

# What reading a damaged archive, or a config that does not fit its class, can raise.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class RunError(ValueError):
    """A folder cannot be used as a run: it holds none, its training has not ended, or a file is damaged."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and all that is needed to use it.

    Attributes:
        model: built, not compiled.
        tokenizer: of the text that it was trained on.
        record: what `run.json` says.
    """

    model: NeuralLanguageModel
    tokenizer: Tokenizer
    record: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was begun with."""
        return self.record["settings"]


def load_run(path: str | os.PathLike[str]) -> Run:
    """Return the trained model in a folder.

    Nothing in the folder is executed: the model's class has to be one of the course's, or imported already.

    Args:
        path: a folder that `lmcourse train` or `RunFolder` wrote.

    Raises:
        RunError: if there is no such folder, it holds no run, its training has not ended, or a file is damaged.
    """
    folder = RunFolder(path)
    record = folder.record()
    if not folder.has_model():
        raise RunError(
            f"{folder.path} holds a run whose training has not ended: there is no {MODEL} yet. Go on with "
            f"`lmcourse train --resume --out {folder.path}`."
        )
    tokenizer = folder.tokenizer()
    _import_class(record.get("module"))
    model = _load_model(folder.path / MODEL)
    if model.vocab_size != tokenizer.vocab_size:
        raise RunError(
            f"{folder.path} holds files of two runs: the model has a vocabulary of {model.vocab_size}, the tokenizer "
            f"one of {tokenizer.vocab_size}."
        )
    return Run(model, tokenizer, record)


class RunFolder:
    """The folder of a run that is being trained, or was.

    Args:
        path: of the folder; `begin` makes it.

    Example:
        >>> import tempfile
        >>> from lmcourse.text import CharTokenizer
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = RunFolder(Path(parent, "first"))
        ...     before = folder.exists()
        ...     folder.begin({"steps": 10}, CharTokenizer("ab"), versions={"keras": keras.__version__})
        ...     before, folder.exists(), folder.has_model(), folder.record()["settings"]
        (False, True, False, {'steps': 10})
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.checkpoint = Checkpoint(self.path / CHECKPOINT)

    def exists(self) -> bool:
        """Return whether the folder holds a run, ended or not."""
        return (self.path / RECORD).is_file()

    def has_model(self) -> bool:
        """Return whether a trained model is there."""
        return (self.path / MODEL).is_file()

    def begin(self, settings: Mapping[str, Any], tokenizer: Tokenizer, **about: Any) -> None:
        """Write what is known before training, in place of any run that the folder holds.

        Args:
            settings: what the run is made with; JSON must be able to hold it.
            tokenizer: of its text.
            **about: what else to record, such as versions and the hashes of the data.

        Raises:
            OSError: if the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (RECORD, MODEL, CHECKPOINT):  # the record first: without it, the rest is no run
            (self.path / name).unlink(missing_ok=True)
        tokenizer.save(self.path / TOKENIZER)
        self._write({"format": FORMAT, "settings": dict(settings), **about})

    def finish(self, model: NeuralLanguageModel, history: History) -> None:
        """Write the trained model, and a summary of its history into the record.

        Args:
            model: trained; it is saved without its optimizer, which the checkpoint keeps.
            history: what `fit` returned.
        """
        bare = type(model).from_config(model.get_config())
        bare.build((None, None))
        bare.set_weights(model.get_weights())
        self._write(
            {
                **self.record(),
                "module": type(model).__module__,
                "parameters": model.count_params(),
                "history": _summary(history),
            }
        )
        # Last, since a run that has a model has ended: stopped before this line, it can still be resumed.
        with replacing(self.path / MODEL) as draft:
            bare.save(draft)

    def record(self) -> dict[str, Any]:
        """Return what `run.json` says.

        Raises:
            RunError: if there is no such folder, it holds no run, or the file is damaged.
        """
        path = self.path / RECORD
        if not self.path.is_dir():
            there = "is a file" if self.path.exists() else "does not exist"
            raise RunError(f"{self.path} must be a folder that `lmcourse train` wrote; it {there}.")
        if not path.is_file():
            raise RunError(f"{self.path} must be a folder that `lmcourse train` wrote; it holds no {RECORD}.")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # of JSON or of UTF-8
            raise RunError(f"{path} is damaged: {error}.") from None
        if not (isinstance(record, dict) and record.get("format") == FORMAT and "settings" in record):
            raise RunError(
                f"{path} is damaged or no run's: it should hold settings, and the format {FORMAT!r}."
            )
        return record

    def tokenizer(self) -> Tokenizer:
        """Return the run's tokenizer.

        Raises:
            RunError: if the file is absent or damaged.
        """
        path = self.path / TOKENIZER
        importlib.import_module("lmcourse.datasets.fableworld")  # its tokenizer is one that the file may name
        try:
            return Tokenizer.load(path)
        except FileNotFoundError:
            raise RunError(f"{path} is missing; a run's folder needs it.") from None
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}") from None

    def _write(self, record: Mapping[str, Any]) -> None:
        write_text(self.path / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _load_model(path: Path) -> NeuralLanguageModel:
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path} is damaged or no model of the course's ({reason:.200}).") from None
    if not isinstance(model, NeuralLanguageModel):
        raise RunError(f"{path} must hold a NeuralLanguageModel; it holds a {type(model).__name__}.")
    return model


def _import_class(module: Any) -> None:
    """Import the module that defines the model's class, so that Keras knows it; never one from elsewhere."""
    if isinstance(module, str) and module.startswith("lmcourse."):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RunError(
                f"the model's class is defined in {module}, which is not there: {error}."
            ) from None


def _summary(history: History) -> dict[str, Any]:
    """Return what a reader wants to know of a history, as JSON can hold it (which has no NaN)."""
    last = float(history.smoothed()[-1]) if history.loss else math.nan
    numbers = {
        "steps": len(history.steps),
        "tokens": history.tokens,
        "seconds": round(history.seconds, 3),
        "tokens_per_second": history.tokens_per_second,
        "training_loss_nats_per_token": last,
    }
    return {
        **{name: value if math.isfinite(value) else str(value) for name, value in numbers.items()},
        "validation_steps": history.validation_steps,
        "validation_nats_per_token": [
            value if math.isfinite(value) else str(value) for value in history.validation_loss
        ],
    }
