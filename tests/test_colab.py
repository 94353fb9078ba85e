"""Colab's first cell and `lmcourse.colab`, with a fake google.colab and a pip that only records."""

import subprocess
import sys
import tomllib
import types

import nbformat
import pytest

from lmcourse import colab, paths

ROOT = paths.PACKAGE.parent
NOTEBOOKS = sorted(
    path for folder in ("chapters", "exercises", "solutions") for path in (ROOT / folder).glob("*.ipynb")
)
REQUIREMENTS = [
    "keras>=3.10",
    "numpy>=1.26",
    "pooch>=1.8",
    "tensorflow-text>=2.18",
    "ruff>=0.8; extra == 'dev'",
]
RUNTIME = {"lmcourse": "0.1.0", "tensorflow": "2.19.0", "keras": "3.10.0", "numpy": "2.0.2"}


@pytest.fixture
def pip(monkeypatch):
    """Record the calls of pip, and run nothing."""
    calls = []

    def record(command, check=False, **options):
        assert check, "a failing pip must not go unnoticed"
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        calls.append([word for word in command[4:] if word != "--quiet"])

    monkeypatch.setattr(subprocess, "run", record)
    return calls


@pytest.fixture
def runtime(monkeypatch):
    """Pretend that these distributions, and no others, are installed; None takes one away."""

    def pretend(**changes):
        versions = RUNTIME | {name.replace("_", "-"): version for name, version in changes.items()}
        monkeypatch.setattr(colab, "installed", versions.get)
        monkeypatch.setattr(colab.metadata, "requires", lambda name: REQUIREMENTS)

    pretend()
    return pretend


def test_the_first_cell_does_nothing_elsewhere(pip):
    exec(colab.FIRST_CELL, {})
    assert pip == []


def test_the_first_cell_installs_the_course_and_then_sets_up(pip, monkeypatch):
    google = types.ModuleType("google")
    google.colab = types.ModuleType("google.colab")
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", google.colab)
    monkeypatch.setattr(colab, "setup", lambda: pip.append("setup"))
    exec(colab.FIRST_CELL, {})
    assert pip == [["--no-deps", f"lmcourse @ git+{repository()}"], "setup"]


def test_the_first_cell_is_short():
    assert len(colab.FIRST_CELL.splitlines()) <= 15


def repository():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_notebook_begins_with_the_first_cell(path):
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code[0] == colab.FIRST_CELL


def test_there_are_notebooks_to_check():
    assert ROOT / "chapters" / "00_start_here.ipynb" in NOTEBOOKS


def test_setup_adds_the_matching_tensorflow_text_and_what_is_missing(runtime, pip, capsys):
    colab.setup()
    assert pip == [["--no-deps", "tensorflow-text==2.19.*"], ["pooch>=1.8"]]
    assert capsys.readouterr().out == "lmcourse 0.1.0 is ready, with TensorFlow 2.19.0.\n"


def test_setup_replaces_a_tensorflow_text_of_another_minor_version(runtime, pip):
    runtime(tensorflow_text="2.20.1", pooch="1.8.2")
    colab.setup()
    assert pip == [["--no-deps", "tensorflow-text==2.19.*"]]


def test_setup_leaves_a_complete_runtime_alone(runtime, pip):
    runtime(tensorflow_text="2.19.0", pooch="1.8.2")
    colab.setup()
    assert pip == []


def test_setup_renews_a_light_dependency_that_is_too_old(runtime, pip):
    runtime(tensorflow_text="2.19.0", pooch="1.7.0")
    colab.setup()
    assert pip == [["pooch>=1.8"]]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2.17.1", "has TensorFlow 2.17.1; the course supports 2.18 to 2.21. Choose another runtime version"),
        ("2.22.0", "has TensorFlow 2.22.0; the course supports"),
        (None, "has no TensorFlow; the course supports"),
    ],
)
def test_an_unsupported_tensorflow_is_refused_before_anything_is_installed(runtime, pip, version, message):
    runtime(tensorflow=version)
    with pytest.raises(RuntimeError, match=message):
        colab.setup()
    assert pip == []


def test_an_old_keras_is_refused_with_the_remedy(runtime, pip):
    runtime(keras="3.8.0")
    with pytest.raises(
        RuntimeError, match=r"has Keras 3\.8\.0; the course needs keras>=3\.10.*pip install -U keras"
    ):
        colab.setup()
    assert pip == []


def test_the_supported_range_holds_the_tested_tensorflow_and_begins_where_the_package_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"tensorflow>={colab.SUPPORTED_MINORS[0]}" in project["dependencies"]
    locked = next(
        line.split("==")[1]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.startswith("tensorflow==")
    )
    assert colab.minor_of(locked) in colab.SUPPORTED_MINORS


def test_every_light_dependency_of_the_package_is_met_here():
    assert colab.missing_dependencies(colab.metadata.requires("lmcourse")) == []
