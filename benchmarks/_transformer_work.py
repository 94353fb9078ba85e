"""What the competitors of `benchmarks.transformer` share, and the process each of them runs in.

Only the standard library and NumPy are needed here: the interpreter that has torch may have nothing of the course.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import peak_mib
from benchmarks.__main__ import cores

# Of AdamW, in all of them: the libraries' own defaults differ.
RATE, WEIGHT_DECAY, BETAS, EPSILON = 1e-3, 0.01, (0.9, 0.999), 1e-7
STDDEV = 0.02
# What is copied: far more than any cache of the processor holds, so that the memory is measured.
COPIED_BYTES = 2**29


@dataclasses.dataclass(frozen=True)
class Size:
    """A model, its batches, how many training steps are timed together, and what is read before generation."""

    width: int
    depth: int
    heads: int
    time: int
    rows: int
    steps: int
    vocabulary: int = 512
    prompt: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens are predicted in the steps that are timed together."""
        return self.steps * self.rows * self.time

    @property
    def model(self) -> str:
        """The sizes of the model: width/depth/heads/context."""
        return f"{self.width}/{self.depth}/{self.heads}/{self.time}"


def windows(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return what is read and what is to be predicted, int32 (steps * rows, time), of a text that can be learned.

    Each token is one of four that the one before decides, equally likely: a model that has learned that
    reaches ln 4 = 1.386 nats.
    """
    generator = np.random.default_rng(0)
    ids = np.empty((size.steps * size.rows, size.time + 1), dtype=np.int32)
    ids[:, 0] = generator.integers(size.vocabulary, size=len(ids))
    choices = generator.integers(4, size=ids.shape)
    for t in range(size.time):
        ids[:, t + 1] = (5 * ids[:, t] + 101 * choices[:, t] + 7) % size.vocabulary
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def copying() -> tuple[Callable[[], dict], dict]:
    """Return a function that measures how many bytes a thread can copy in a second, each read once and written once."""
    original = np.ones(COPIED_BYTES, np.uint8)
    copied = original.copy()

    def copy_once() -> float:
        began = time.perf_counter()
        np.copyto(copied, original)
        return time.perf_counter() - began

    def copy() -> dict:
        return {"bytes_per_second": COPIED_BYTES / min(copy_once() for _ in range(5))}

    return copy, {}


class Worker:
    """A process of its own that does one competitor's work when asked, so that its memory is its own, too.

    Args:
        module: the competitor's, in this folder.
        task: the function in it that returns a function to call again and again, and a dict of facts.
        size: what the task is given, or None.
        python: the interpreter.
        threads: how many it may use; by default one for each core.
    """

    def __init__(
        self,
        module: str,
        task: str,
        size: Size | None = None,
        python: str = sys.executable,
        threads: int | None = None,
    ):
        threads = str(threads or cores())
        limits = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks._transformer_work", module, task, json.dumps(size and vars(size))],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **dict.fromkeys(limits, threads), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.facts = self._answer()

    def run(self, times: int = 1) -> list[dict]:
        """Do the work so many times; each answer has the seconds that it took."""
        return [self._ask("run") for _ in range(times)]

    def close(self) -> float:
        """End the process and return the most memory that it held, in MiB."""
        peak = self._ask("peak")["mib"]
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()
        return peak

    def _ask(self, what: str) -> dict:
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the process of a benchmark ended:\n{self._errors.read()[-3000:]}")
        return json.loads(line)


def serve(module: str, task: str, size: str) -> None:
    """Answer what a `Worker` asks, one line of JSON each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    chosen = json.loads(size)
    function = getattr(importlib.import_module(f"benchmarks.{module}"), task)
    work, facts = function(Size(**chosen)) if chosen else function()
    print(json.dumps(facts), file=answers, flush=True)
    for question in sys.stdin:
        if question.strip() == "peak":
            answer = {"mib": peak_mib()}
        else:
            began, used = time.perf_counter(), time.process_time()
            answer = work()
            clocks = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
            answer = clocks | answer
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
