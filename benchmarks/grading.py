"""Grading a class of 200 on chapter 1 by `lmcourse grade`: seconds a submission, and the command's memory.

The submissions are the chapter's solution with one comment different in each, so that none is graded from the journal.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from lmcourse.paths import course_root

SUBMISSIONS = 200
SOLUTION = course_root() / "solutions" / "ch01_ngram.ipynb"


def main() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "class")
        rows = []
        for count in (1, SUBMISSIONS):
            hand_in(folder, count)
            for what, more in (("cold", ["--again"]), ("nothing changed", [])):
                seconds, memory = grade(folder, Path(name, "grades"), more)
                rows.append(
                    {
                        "submissions": count,
                        "run": what,
                        "seconds": seconds,
                        "seconds a submission": seconds / count,
                        "MiB of the command at most": memory / 2**20,
                    }
                )
        return rows


def hand_in(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        notebook = json.loads(SOLUTION.read_text(encoding="utf-8"))
        code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        code["source"] = ["# learner ", f"{number}\n", *code["source"]]
        (folder / f"learner{number:03}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def grade(folder: Path, out: Path, more: list[str]) -> tuple[float, int]:
    """Return the seconds by the clock and the most resident memory of the command itself, in bytes."""
    command = [
        sys.executable,
        "-m",
        "lmcourse",
        "grade",
        str(folder),
        "--chapter",
        "01",
        "--out",
        str(out),
        *more,
    ]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        peak = [0]
        threading.Thread(target=watch, args=(process.pid, peak), daemon=True).start()
        if process.wait() != 0:
            raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}.")
    return time.monotonic() - start, peak[0]


def watch(pid: int, peak: list[int]) -> None:
    try:
        while True:
            peak[0] = max(peak[0], psutil.Process(pid).memory_info().rss)
            time.sleep(0.05)
    except psutil.Error:
        return
