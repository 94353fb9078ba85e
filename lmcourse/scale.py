"""How long the notebooks may run: one code at three scales.

`quick` suits a laptop and continuous integration, `full` a laptop left alone for half an hour, `gpu` a
machine with a CUDA GPU, such as Colab's.
"""

import ctypes.util
import functools
import importlib.util
import os
import shutil
import subprocess
from typing import Literal, TypeVar, get_args

Scale = Literal["quick", "full", "gpu"]
T = TypeVar("T")


def scale() -> Scale:
    """Return the scale to run at: `LMCOURSE_SCALE` if it is set, else what the device suggests.

    Returns:
        "gpu" where TensorFlow can use a CUDA GPU, otherwise "quick". "full" is only ever asked for.

    Raises:
        ValueError: if `LMCOURSE_SCALE` names no scale.
    """
    named = os.environ.get("LMCOURSE_SCALE")
    if not named:
        return "gpu" if has_cuda_gpu() else "quick"
    if named not in get_args(Scale):
        raise ValueError(f"LMCOURSE_SCALE must be one of {', '.join(get_args(Scale))}; got {named!r}.")
    return named


def choose(*, quick: T, full: T, gpu: T) -> T:
    """Return the value that belongs to the scale in force.

    Example:
        >>> import os
        >>> os.environ["LMCOURSE_SCALE"] = "full"
        >>> choose(quick=100, full=3_000, gpu=20_000)
        3000
        >>> del os.environ["LMCOURSE_SCALE"]
    """
    return {"quick": quick, "full": full, "gpu": gpu}[scale()]


@functools.cache
def has_cuda_gpu() -> bool:
    """Return whether a CUDA GPU is present together with the libraries TensorFlow needs to use it.

    TensorFlow is not imported for it: that takes seconds, and some chapters never need TensorFlow.
    """
    return bool(cuda_gpus()) and has_cudnn()


def cuda_gpus() -> list[str]:
    """Return the names of the CUDA GPUs that NVIDIA's driver reports, such as "Tesla T4"."""
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return []
    query = [nvidia_smi, "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.split("\n")[:-1] if listing.returncode == 0 else []


def has_cudnn() -> bool:
    """Return whether cuDNN is installed, by pip or by the system.

    A laptop with an NVIDIA card seldom has it, and would take hours over the "gpu" scale without.
    """
    by_pip = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cudnn")
    return bool(by_pip or ctypes.util.find_library("cudnn"))
