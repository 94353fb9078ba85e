"""Grading classes by `lmcourse grade`: seconds a submission, and the command's memory, which must not grow.

The submissions are a chapter's solution with one comment different in each, so that none is graded from the journal.
Chapter 1 is graded on all cores, chapter 2, which needs TensorFlow, on one. The first submission of a run pays what is
imported once: of TensorFlow's chapters some five seconds, which one core cannot overlap with anything.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from lmcourse.paths import course_root

# Chapter, cores (None: all), and how many hand in.
RUNS = [
    ("ch01_ngram", None, 1),
    ("ch01_ngram", None, 20),
    ("ch01_ngram", None, 200),
    ("ch02_recurrent", 1, 5),
]


def main() -> list[dict[str, object]]:
    rows = []
    for stem, cores, count in RUNS:
        if not (course_root() / "solutions" / f"{stem}.ipynb").exists():
            continue
        with tempfile.TemporaryDirectory() as name:
            folder, out = Path(name, "class"), Path(name, "grades")
            hand_in(folder, count, stem)
            for what in ("cold", "nothing changed"):
                seconds, memory = grade(folder, out, stem[2:4], cores)
                own = [
                    row["seconds"] for row in json.loads((out / "results.json").read_text())["submissions"]
                ]
                rows.append(
                    {
                        "chapter": stem[2:4],
                        "cores": cores or "all",
                        "submissions": count,
                        "run": what,
                        "seconds": seconds,
                        "seconds a submission": seconds / count,
                        "longest": max(own) if what == "cold" else "",
                        "median": statistics.median(own) if what == "cold" else "",
                        "MiB of the command at most": memory / 2**20,
                    }
                )
    return rows


def hand_in(folder: Path, count: int, stem: str) -> None:
    folder.mkdir(exist_ok=True)
    solution = (course_root() / "solutions" / f"{stem}.ipynb").read_text(encoding="utf-8")
    for number in range(count):
        notebook = json.loads(solution)
        code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        code["source"] = ["# learner ", f"{number}\n", *code["source"]]
        (folder / f"learner{number:03}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def grade(folder: Path, out: Path, chapter: str, cores: int | None) -> tuple[float, int]:
    """Return the seconds by the clock and the most resident memory of the command itself, in bytes."""
    command = [
        sys.executable,
        "-m",
        "lmcourse",
        "grade",
        str(folder),
        "--chapter",
        chapter,
        "--out",
        str(out),
    ]
    may_use = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(may_use)[:cores])  # the command inherits it
    start = time.monotonic()
    try:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            peak = [0]
            threading.Thread(target=watch, args=(process.pid, peak), daemon=True).start()
            if process.wait() != 0:
                raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}.")
    finally:
        os.sched_setaffinity(0, may_use)
    return time.monotonic() - start, peak[0]


def watch(pid: int, peak: list[int]) -> None:
    try:
        while True:
            peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss)
            time.sleep(0.05)
    except psutil.Error:
        return
