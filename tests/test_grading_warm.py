"""A worker copied from a warm process grades as a fresh one does, and keeps no submission's secrets from another's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lmcourse.grading import chapters, classroom, grader
from lmcourse.grading.classroom import hidden_places
from lmcourse.grading.grader import Confinement, confined_environment, grade
from lmcourse.grading.warm import Warm, expensive_imports, possible
from lmcourse.paths import course_root
from lmcourse.sandbox import workspace

pytestmark = pytest.mark.skipif(not possible(), reason="copies of a process cannot be isolated here")

CHECKS = """
from lmcourse.grading import exercise

@exercise("92.1", points=1, hint="did you add instead?")
def test_double(double):
    assert double(3) == 6

@exercise("92.2", points=2, hint="which end?")
def test_last(last):
    assert last([1, 2]) == 2
"""
DOUBLE, LAST = "def double(number):\n    return 2 * number", "def last(values):\n    return values[-1]"
HOSTILE = {
    "right": [DOUBLE, LAST],
    "wrong": [DOUBLE.replace("2 *", "3 *"), LAST],
    "ends itself in a cell": [DOUBLE, "import os\nos._exit(3)", LAST],
    "ends itself in a test": ["def double(number):\n    import os\n    os._exit(0)", LAST],
    "endless loop": ["def double(number):\n    while True: pass", LAST],
    "deaf endless loop": [
        "import signal\ndef double(number):\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "    while True: pass",
        LAST,
    ],
    "memory bomb": ["def double(number):\n    held = b'x' * 2_000_000_000\n    return 6", LAST],
    # It waits, so that it is still at it when the processes are counted, which takes long on a busy machine.
    "many processes": [
        DOUBLE,
        "import os, time\nfor _ in range(60):\n    if os.fork() == 0:\n        break\ntime.sleep(9)",
        LAST,
    ],
    "reads the checks": [f"text = open({str(hidden_places()[0] / 'ch01_ngram.py')!r}).read()", DOUBLE, LAST],
    "patches": ["import numpy as np\nnp.allclose = lambda *a: True", DOUBLE, LAST],
    "asks": ["input()", DOUBLE, LAST],
    "magics": ["%matplotlib inline\n!ls", DOUBLE, LAST],
    "too much output": ["import os\nos.write(1, b'x' * 2_000_000)", DOUBLE, LAST],
}


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks")
    (folder / "ch92_warm.py").write_text(CHECKS)
    return chapters.find_chapter("92", folder)


@pytest.fixture(scope="module")
def warm():
    with Warm((), confined_environment()) as process:
        yield process


def graded(cells, chapter, warm, memory=500_000_000, **options):
    """Return what is graded, without the place."""
    confinement = Confinement(hidden=hidden_places(), memory=memory, processes=24)
    with workspace() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(grader, "GRACE_SECONDS", 0.5)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, folder / "a.ipynb")
        limits = {"test_seconds": 1, "cell_seconds": 30, **options}
        report = grade(folder / "a.ipynb", chapter, confinement=confinement, warm=warm, **limits)
    return {**report.as_json(), "notebook": ""}


@pytest.mark.parametrize("name", HOSTILE)
def test_warm_and_fresh_worker_give_the_same_grades(name, chapter, warm):
    assert warm.ready()
    before = warm.pid
    assert graded(HOSTILE[name], chapter, warm) == graded(HOSTILE[name], chapter, None)
    assert warm.pid == before


@pytest.mark.parametrize("folder", ["solutions", "exercises"])
def test_chapter_1_has_the_same_grades_from_a_warm_worker(folder, warm):
    code = json.loads((course_root() / folder / "ch01_ngram.ipynb").read_text(encoding="utf-8"))["cells"]
    cells = ["".join(cell["source"]) for cell in code if cell["cell_type"] == "code"]
    chapter = chapters.find_chapter("01")
    options = {"test_seconds": 10, "cell_seconds": 60}
    assert warm.ready()
    assert graded(cells, chapter, warm, **options) == graded(cells, chapter, None, **options)


def test_process_that_is_copied_holds_neither_the_checks_nor_answers(chapter, warm):
    assert warm.ready()
    cells = ["secret_of_ada = 1", DOUBLE, LAST]
    assert graded(cells, chapter, warm)["points"] == 3
    # A docstring of the module that it runs shows that its memory can be searched.
    words = [
        b"by copying a process that has made",
        b"secret_of_ada",
        b"did you add instead",
        b"def test_last",
    ]
    assert [word in memory(warm.pid) for word in words] == [True, False, False, False]


def memory(pid):
    """Return what a process may write to and holds, as one string of bytes."""
    held = []
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in place.split("-"))
            if rights.startswith("rw"):
                file.seek(begin)
                held.append(file.read(end - begin))
    return b"".join(held)


def test_no_descriptor_leads_an_answer_to_the_checks(chapter, warm):
    assert warm.ready()
    cell = """
import contextlib, os
for descriptor in range(256):
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert b"hint" + b"=" not in os.read(descriptor, 100_000), descriptor
"""
    result = graded([cell, DOUBLE, LAST], chapter, warm)
    assert result["failed_cells"] == []
    assert result["points"] == 3


def test_copies_do_not_share_random_numbers(chapter, warm):
    assert warm.ready()
    cell = "import numpy as np\nimport random\nraise ValueError(np.random.random(), random.random())"
    errors = [graded([DOUBLE, cell], chapter, warm)["failed_cells"][0]["error"] for _ in range(2)]
    assert errors[0] != errors[1]


def test_submission_whose_warm_process_dies_is_graded_in_a_fresh_one(chapter, warm, monkeypatch):
    assert warm.ready()
    before, start = warm.pid, warm.start

    def start_and_die(*args, **options):
        process = start(*args, **options)
        os.kill(warm.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(warm, "start", start_and_die)
    assert graded([DOUBLE, LAST], chapter, warm)["points"] == 3
    assert warm.pid is None
    monkeypatch.undo()
    assert warm.ready()
    assert warm.pid != before
    assert graded([DOUBLE, LAST], chapter, warm)["points"] == 3


def test_process_that_cannot_be_copied_is_not_used(chapter):
    """With a second thread, a copy might hang in a lock that nobody holds."""
    with workspace() as folder:
        (folder / "threaded.py").write_text(
            "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
        )
        environment = confined_environment()
        environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
        with Warm(("threaded",), environment) as warm:
            assert warm.ready()
            assert graded([DOUBLE, LAST], chapter, warm)["points"] == 3
            assert not warm.ready()


def test_module_that_cannot_be_imported_leaves_fresh_processes():
    with Warm(("nosuchmodule",), confined_environment()) as warm:
        assert not warm.ready()


def test_expensive_imports_are_found_in_checks_and_cells():
    sources = [
        "%pip x\nimport tensorflow as tf",
        "    from keras import ops",
        "import kerasy, keras.layers as layers  # keras.wrong",
        "from lmcourse import core, text, __version__\nfrom lmcourse.ngram import NGram",
        "from lmcourse import (  generation, plotting as plot )",
    ]
    assert expensive_imports(sources) == (
        "keras",
        "keras.layers",
        "lmcourse.core",
        "lmcourse.generation",
        "lmcourse.ngram",
        "lmcourse.plotting",
        "lmcourse.text",
        "tensorflow",
    )
    assert expensive_imports(["# import keras", "x = 1", "from . import y"]) == ()


THROUGH_LMCOURSE = """
from lmcourse.grading import exercise
from lmcourse.training import next_token_loss

@exercise("92.1", points=1, hint="is Keras there?")
def test_keras_was_there_before_the_first_cell(before):
    assert before
    assert next_token_loss is not None
"""


def test_keras_that_checks_reach_through_lmcourse_is_imported_once_and_never_by_the_command(tmp_path):
    (tmp_path / "ch92_through.py").write_text(THROUGH_LMCOURSE)
    (tmp_path / "class").mkdir()
    for name in ("ada", "bob"):
        cells = [nbformat.v4.new_code_cell(f"import sys\n# {name}\nbefore = 'keras' in sys.modules")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "class" / f"{name}.ipynb")
    program = f"""
import sys
from pathlib import Path
from lmcourse.cli import main
from lmcourse.grading import chapters
chapters.CHECKS = Path({str(tmp_path)!r})
assert main(["grade", "class", "--chapter", "92", "--jobs", "1"]) == 0
print([name for name in ("keras", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    rows = json.loads((tmp_path / "grades" / "results.json").read_text())["submissions"]
    assert [row["grade"]["points"] for row in rows] == [1, 1]


KERAS_CHECKS = """
import keras
import numpy as np
from lmcourse.grading import exercise

@exercise("92.1", points=2, hint="divide by the root of the mean square")
def test_rms_is_one(RMSNormalization):
    inputs = keras.random.normal((4, 8), seed=1)
    outputs = keras.ops.convert_to_numpy(RMSNormalization()(inputs))
    assert np.allclose((outputs**2).mean(axis=-1), 1, atol=1e-3)

@exercise("92.2", points=1, hint="a compiled model calls it too")
def test_in_a_compiled_model(RMSNormalization):
    model = keras.Sequential([keras.Input((8,)), RMSNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((16, 8)), np.ones((16, 1)), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
"""
LAYER = """
import keras
from keras import ops

class RMSNormalization(keras.layers.Layer):
    def call(self, inputs):
        return inputs * ops.rsqrt(ops.mean(ops.square(inputs), axis=-1, keepdims=True) + 1e-6)
"""


def test_layers_of_keras_are_graded_in_copies_of_one_import(tmp_path):
    """TensorFlow computes in a copy: nothing was computed, and no thread started, before."""
    (tmp_path / "ch92_layers.py").write_text(KERAS_CHECKS)
    chapter = chapters.find_chapter("92", tmp_path)
    limits = {"test_seconds": 30, "cell_seconds": 60, "memory": 2 * 1024**3}
    with classroom._warm(chapter, None, 1) as (warm,):
        assert warm.ready()
        pid = warm.pid
        for cells, points in (
            ([LAYER], 3),
            ([LAYER.replace("ops.rsqrt", "")], 1),
            ([LAYER, "keras.ops.ones(3) + 1\nimport os\nos._exit(1)"], 3),
        ):
            result = graded(cells, chapter, warm, **limits)
            assert result["points"] == points, result
        assert warm.pid == pid
