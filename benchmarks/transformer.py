"""GPT's training against Keras's layers and PyTorch, generation with a cache, and SmolLM2 against the memory's speed.

The competitors have the same configuration, optimizer and batches, and take turns, each in a process of its own; what
comes first (tracing, compiling) is not timed. A ratio is the median of those of the turns. Training has a thread for
each core; generation has one, as the products of a single row with a matrix wait for the memory, and a second thread
has little to do but to be woken up for each of them. PyTorch is needed for nothing else: where another interpreter
has it, give its path in LMCOURSE_TORCH_PYTHON.

What keeps our training behind PyTorch's is the products of matrices: of the small model's shapes, on one core of the
machine of 2026-11-22, PyTorch's reach 74 to 81 GFLOP/s, XLA's 55 to 57, and 27 to 38 for the gradient of a matrix,
which sums over all tokens. With TensorFlow's own kernels in place of XLA's the products are no faster.
"""

import importlib.util
import math
import os
import statistics
import sys

from benchmarks._transformer_work import Size, Worker

ROUNDS = 7
WARM_UP = 2
# A model that a lesson trains and one six times as wide; so many steps that each turn takes a few seconds.
SIZES = {
    Size(width=128, depth=4, heads=4, time=64, rows=12, steps=40): {
        "Keras": ">= 1.25",
        "PyTorch": ">= 1 (0.9)",
    },
    Size(width=384, depth=6, heads=6, time=256, rows=8, steps=4): {
        "Keras": ">= 0.95",
        "PyTorch": ">= 1 (0.75)",
    },
}
# How many tokens are read before the first new one: a short question, or half of what the model can read.
PROMPTS = {16: "", 127: ">= 10"}
OURS = "_transformer_ours"


def main() -> list[dict[str, object]]:
    """Return the rows of the table."""
    python = torch_python()
    if python is None:
        print("PyTorch is absent: give an interpreter that has it in LMCOURSE_TORCH_PYTHON.\n")
    rows: list[dict[str, object]] = []
    for size, targets in SIZES.items():
        rows += training_rows(size, targets, python)
    for prompt, target in PROMPTS.items():
        rows.append(generation_row(prompt, target))
    return [*rows, *smollm2_rows()]


def torch_python() -> str | None:
    """Return an interpreter that has torch, or None."""
    named = os.environ.get("LMCOURSE_TORCH_PYTHON")
    if named:
        return named
    return sys.executable if importlib.util.find_spec("torch") else None


def training_rows(size: Size, targets: dict[str, str], python: str | None) -> list[dict[str, object]]:
    workers = {
        "ours": Worker(OURS, "training", size),
        "Keras": Worker("_transformer_keras", "training", size),
    }
    if python is not None:
        workers["PyTorch"] = Worker("_transformer_torch", "training", size, python)
    parameters = {whose: worker.facts["parameters"] for whose, worker in workers.items()}
    assert len(set(parameters.values())) == 1, f"not the same model: {parameters}"
    turns = take_turns(workers)
    losses = {whose: answers[-1]["loss"] for whose, answers in turns.items()}
    # They start from other numbers, so their losses differ while they fall; that all of them learn is what counts.
    guess = math.log(size.vocabulary)
    assert max(losses.values()) < 0.8 * guess, f"not all have learned, a guess is {guess:.2f} nats: {losses}"
    speeds = {whose: [size.tokens / each["seconds"] for each in answers] for whose, answers in turns.items()}
    memory = {whose: worker.close() for whose, worker in workers.items()}
    what = f"training, GPT {size.model}, batch {size.rows} (tokens/s)"
    return [
        row(what, {"Keras": "Keras's layers and fit", "PyTorch": "PyTorch, eager"}[whose])
        | compared(speeds["ours"], speeds[whose], targets[whose])
        | {"ours (MiB)": memory["ours"], "theirs (MiB)": memory[whose]}
        for whose in workers
        if whose != "ours"
    ]


def take_turns(workers: dict[str, Worker], rounds: int = ROUNDS) -> dict[str, list[dict]]:
    """Return the answers of each, in as many rounds; in each round all have their turn."""
    for worker in workers.values():
        worker.run(WARM_UP)
    turns: dict[str, list[dict]] = {whose: [] for whose in workers}
    for _ in range(rounds):
        for whose, worker in workers.items():
            turns[whose] += worker.run()
    return turns


def row(what: str, against: str) -> dict[str, object]:
    return {"what": what, "against": against}


def compared(ours: list[float], theirs: list[float], target: str) -> dict[str, object]:
    """Return the columns of a comparison of speeds, of which those at the same place were measured together."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "ours / theirs": statistics.median(ratios),
        "target": target,
    }


def generation_row(prompt: int, target: str) -> dict[str, object]:
    size = Size(width=384, depth=6, heads=6, time=256, rows=1, steps=1, prompt=prompt)
    tasks = {"ours": "generation_with_cache", "without": "generation_without_cache"}
    workers = {name: Worker(OURS, task, size, threads=1) for name, task in tasks.items()}
    turns = take_turns(workers, rounds=3)
    ids = {name: answers[0]["ids"] for name, answers in turns.items()}
    assert ids["ours"] == ids["without"], f"not the same tokens: {ids}"
    speeds = {name: [len(each["ids"]) / each["seconds"] for each in turns[name]] for name in turns}
    memory = {name: worker.close() for name, worker in workers.items()}
    what = f"{len(ids['ours'])} tokens after {prompt}, GPT {size.model}, with a cache (tokens/s)"
    return (
        row(what, "reading all again")
        | compared(speeds["ours"], speeds["without"], target)
        | {"ours (MiB)": memory["ours"], "theirs (MiB)": memory["without"]}
    )


def smollm2_rows() -> list[dict[str, object]]:
    """Return the rows of SmolLM2; none where its weights have not been fetched."""
    from lmcourse import datasets

    try:
        datasets.path("smollm2")
    except datasets.DatasetNotCached as absent:
        print(f"SmolLM2 is absent: {absent}\n")
        return []
    workers = {
        "alone": Worker(OURS, "smollm2_alone", threads=1),
        "eight": Worker(OURS, "smollm2_eight", threads=1),
        "memory": Worker("_transformer_work", "copying", threads=1),
    }
    turns = take_turns(workers, rounds=3)
    alone, eight = ([each["tokens_per_second"] for each in turns[name]] for name in ("alone", "eight"))
    bounds = [each["bytes_per_second"] / workers["alone"].facts["bytes"] for each in turns["memory"]]
    memory = {name: worker.close() for name, worker in workers.items()}
    what = "SmolLM2-135M, float32, greedy (tokens/s), {} at a time"
    return [
        row(what.format(1), "bytes copied a second, over those of the weights")
        | compared(alone, bounds, ">= 0.6")
        | {"ours (MiB)": memory["alone"]},
        row(what.format(8), "1 at a time")
        | compared(eight, alone, ">= 2.5")
        | {"ours (MiB)": memory["eight"], "theirs (MiB)": memory["alone"]},
    ]
