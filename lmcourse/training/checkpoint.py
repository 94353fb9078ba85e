"""The whole state of a training run in one file, written whole or not at all."""

import contextlib
import dataclasses
import json
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lmcourse.files import replacing
from lmcourse.training.batches import Batches

FORMAT = "lmcourse training checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint cannot be used: it is damaged, or of another model or other data. Nothing was changed."""


@dataclasses.dataclass
class Extra:
    """What a caller keeps in a checkpoint besides the model.

    Attributes:
        values: anything JSON can hold.
        arrays: named lists of arrays.
    """

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: dict[str, list[NDArray]] = dataclasses.field(default_factory=dict)


class Checkpoint:
    """A file that holds a model's variables, its optimizer's, and where its data stands.

    The model's variables include the states of its random generators (dropout) and whatever state it carries. So a
    run that is taken up from a checkpoint draws, sees and computes what it would have without the stop. Random
    numbers that are drawn without a `keras.random.SeedGenerator` of the model's are outside it.

    A checkpoint takes the place of the one before in one step: a process killed at any moment leaves a whole one.

    Args:
        path: the file; its folder must exist. By custom it ends in `.ckpt`.

    Example:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer="adam", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = Checkpoint(Path(folder, "run.ckpt"))
        ...     checkpoint.save(model)
        ...     before = model.get_weights()[0].copy()
        ...     _ = model.train_on_batch(np.ones((1, 2)), np.ones((1, 1)))
        ...     changed = bool((model.get_weights()[0] != before).all())
        ...     _ = checkpoint.restore(model)
        ...     changed, bool((model.get_weights()[0] == before).all())
        (True, True)
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def exists(self) -> bool:
        """Return whether there is one to restore."""
        return self.path.is_file()

    def save(self, model: keras.Model, batches: Batches | None = None, extra: Extra | None = None) -> None:
        """Write the state of model, optimizer and batches.

        Args:
            model: built; if it is compiled, its optimizer is saved too.
            batches: what it is trained on.
            extra: what else to keep.

        Raises:
            ValueError: if the model is not built.
        """
        _require_built(model)
        extra = extra or Extra()
        groups = {"model": [v.numpy() for v in model.variables]}
        groups["optimizer"] = [v.numpy() for v in _optimizer_variables(model)]
        groups |= {f"extra/{name}": list(arrays) for name, arrays in extra.arrays.items()}
        about = {
            "format": FORMAT,
            **_identity(model, batches),
            "position": batches.position if batches is not None else None,
            "values": extra.values,
            "counts": {name: len(arrays) for name, arrays in groups.items()},
            "dtypes": {name: [array.dtype.name for array in arrays] for name, arrays in groups.items()},
        }
        named = {f"{name}/{i}": _storable(a) for name, arrays in groups.items() for i, a in enumerate(arrays)}
        with replacing(self.path) as draft, draft.open("wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **named)

    def restore(self, model: keras.Model, batches: Batches | None = None) -> Extra:
        """Set model, optimizer and batches to what was saved.

        The file is read and compared with the model as a whole before anything is set.

        Args:
            model: built, of the same configuration, compiled with the same kind of optimizer.
            batches: the same data; their position is set.

        Returns:
            What else was kept.

        Raises:
            CheckpointError: if the file is damaged, or was saved by another model or with other data.
            FileNotFoundError: if there is none.
        """
        _require_built(model)
        about, groups = self._read()
        self._require_same(about, _identity(model, batches))
        for variable, value in zip(model.variables, groups["model"], strict=True):
            variable.assign(value)
        for variable, value in zip(_optimizer_variables(model), groups["optimizer"], strict=True):
            variable.assign(value)
        if batches is not None:
            batches.position = about["position"]
        kept = {name.removeprefix("extra/"): a for name, a in groups.items() if name.startswith("extra/")}
        return Extra(about["values"], kept)

    def remove_drafts(self) -> None:
        """Remove what a process that was killed while it wrote has left beside the file."""
        for draft in self.path.parent.glob(f".????????.{self.path.name}"):
            with contextlib.suppress(OSError):
                draft.unlink()

    def _read(self) -> tuple[dict[str, Any], dict[str, list[NDArray]]]:
        """Return the file's description and all its arrays; each carries a CRC-32, which reading checks."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                about = json.loads(archive["about"].tobytes())
                if about["format"] != FORMAT:
                    raise ValueError(about["format"])
                return about, {
                    name: [_restored(archive[f"{name}/{i}"], about["dtypes"][name][i]) for i in range(count)]
                    for name, count in about["counts"].items()
                }
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CheckpointError(
                f"{self.path} is damaged or no checkpoint ({type(error).__name__}: {error}). Remove it to start anew."
            ) from None

    def _require_same(self, saved: dict[str, Any], here: dict[str, Any]) -> None:
        """Raise unless the checkpoint fits what is here."""
        for part, now in here.items():
            then = saved[part]
            if then == now or now is None:
                continue
            if isinstance(now, list):
                then, now = _first_difference(then, now)
            raise CheckpointError(
                f"{self.path} was saved with other contents ({part}): {then} in the file, {now} here. Give the same "
                "model, optimizer and data, or another path."
            )


def _identity(model: keras.Model, batches: Batches | None) -> dict[str, Any]:
    """Return what has to be the same when a checkpoint is restored; None where it does not matter."""
    compiled = getattr(model, "compiled", False) and model.optimizer is not None
    return {
        "kind of model": type(model).__name__,
        "variables of the model": _signature(model.variables),
        "kind of optimizer": type(model.optimizer).__name__ if compiled else "none",
        "variables of the optimizer": _signature(_optimizer_variables(model)),
        "data": batches.identity if batches is not None else None,
    }


def _signature(variables: Sequence[Any]) -> list[str]:
    """Name each variable by the last word of its path: what stands before counts the models of this process."""
    return [f"{re.split('[/_]', v.path)[-1]} {tuple(v.shape)} {v.dtype}" for v in variables]


def _first_difference(then: list[str], now: list[str]) -> tuple[str, str]:
    """Return the first entries that differ."""
    longest = max(len(then), len(now))
    then, now = (part + ["nothing"] * (longest - len(part)) for part in (then, now))
    return next((a, b) for a, b in zip(then, now, strict=True) if a != b)


def _optimizer_variables(model: keras.Model) -> list[Any]:
    """Return the optimizer's variables, made if they were not yet."""
    if not getattr(model, "compiled", False) or model.optimizer is None:
        return []
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return model.optimizer.variables


def _require_built(model: keras.Model) -> None:
    if not model.built:
        raise ValueError("model must be built, so that it has variables; call it on a batch first.")


def _storable(array: NDArray) -> NDArray:
    """Return an array of a dtype that NumPy's format knows: bfloat16 and its like go as bytes."""
    array = np.asarray(array)
    if array.dtype.kind in "biufc":
        return array
    return array.reshape(*array.shape, 1).view(np.uint8)


def _restored(array: NDArray, dtype: str) -> NDArray:
    if array.dtype.name == dtype:
        return array
    return array.view(np.dtype(dtype))[..., 0]
