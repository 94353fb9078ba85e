"""A class of hostile submissions is graded in time, nothing outside changes, and each gets what its answers earn."""

import socket
import tempfile
import time

import nbformat
import psutil
import pytest
from hostile.submissions import SUBMISSIONS

from lmcourse.grading import chapters, grader, reports
from lmcourse.grading.classroom import Limits, grade_class, hidden_places
from lmcourse.grading.handed_in import submissions_in
from lmcourse.grading.warm import possible
from lmcourse.paths import course_root
from lmcourse.sandbox import BUBBLEWRAP, LIMITS_ONLY, capabilities, doors, missing, workspace

CHECKS = """
import numpy as np
from lmcourse.grading import assert_equal, exercise

@exercise("93.1", points=1, hint="did you add instead?")
def test_double(double):
    assert_equal(double(3), 6, "double(3)")

@exercise("93.2", points=2, hint="which end?")
def test_last(last):
    assert_equal(last([1, 2]), 2, "last([1, 2])")

@exercise("93.3", points=1, hint="divide by how many there are")
def test_mean(mean):
    assert np.allclose(mean([1, 2]), 1.5)
"""
LIMITS = Limits(test_seconds=1, cell_seconds=2, total_seconds=40, memory=500_000_000, processes=24)
# Each submission by itself may take the 40 s; on two cores all of them take about as many seconds as there are.
SECONDS = 150
ISOLATED = capabilities().filesystem


@pytest.fixture(scope="module")
def outside():
    """A folder that is not in /tmp, of which every submission has its own."""
    with workspace(course_root() / "tests" / "hostile") as folder:
        (folder / "precious").write_text("mine")
        yield folder


@pytest.fixture(scope="module")
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def graded(outside, listener, tmp_path_factory):
    """Grade all that may run here, in the best way that works."""
    names = [name for name, submission in SUBMISSIONS.items() if ISOLATED or not submission.isolated]
    return grade_together(names, outside, listener, tmp_path_factory)


def grade_together(names, outside, listener, tmp_path_factory):
    """Grade some in one run, which must end; return the grades by name, what it took and left, and the chapter."""
    folder = tmp_path_factory.mktemp("class")
    places = {
        "$OUTSIDE": str(outside),
        "$PORT": str(listener.getsockname()[1]),
        "$SOLUTIONS": str(course_root() / "solutions"),
        "$CHECKS": str(hidden_places()[0]),
    }
    for name in names:
        notebook = nbformat.v4.new_notebook()
        for cell in SUBMISSIONS[name].cells:
            for word, place in places.items():
                cell = cell.replace(word, place)
            notebook.cells.append(nbformat.v4.new_code_cell(cell))
        nbformat.write(notebook, folder / f"{name}.ipynb")
    (folder / "not UTF-8.ipynb").write_bytes(b'{"nbformat": 4, "cells": ["\xff"]}')
    checks = tmp_path_factory.mktemp("checks")
    (checks / "ch93_hostile.py").write_text(CHECKS)
    chapter = chapters.find_chapter("93", checks)
    scratch = tmp_path_factory.mktemp("scratch")
    temporary = tmp_path_factory.mktemp("temporary")  # another grading may be at work on this machine
    before = _seen(temporary)
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        patch.setattr(grader, "GRACE_SECONDS", 0.5)
        results = grade_class(
            submissions_in([folder], scratch), chapter, journal=scratch / "journal", limits=LIMITS, jobs=2
        )
    return {one.learner: one for one in results}, time.monotonic() - start, _seen(temporary) - before, chapter


def _seen(temporary):
    """Return the processes below this one and the workspaces that are there."""
    processes = {process.pid for process in psutil.Process().children(recursive=True)}
    return processes | {path.name for path in temporary.glob("lmcourse-*")}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_hostile_submission_earns_what_its_answers_are_worth(name, graded):
    if SUBMISSIONS[name].isolated and not ISOLATED:
        pytest.skip(missing())
    assert_earns(name, graded[0][name])


def assert_earns(name, one):
    """Fail unless a submission got its points and, for a human, the flag that it deserves, or none."""
    submission, report = SUBMISSIONS[name], one.report
    assert report is not None, one.fault
    assert report.out_of == 4
    assert report.points == submission.points, (name, report.as_json())
    flags = [flag for exercise in report.exercises for flag in exercise.flags]
    if submission.flag:
        assert any(submission.flag in flag.uses and flag.cell.startswith("code cell") for flag in flags), (
            flags
        )
    else:
        assert flags == [], name


# The ways that are second choice where namespaces work: a fresh process for each submission, none copied.
OTHER_WAYS = [
    pytest.param(
        BUBBLEWRAP, marks=pytest.mark.skipif(not doors._works(BUBBLEWRAP), reason="no bubblewrap here")
    ),
    LIMITS_ONLY,
]
# One for each thing that isolation or limits must stop.
SHORT_FORM = [
    "all right",
    "endless loop in an answer",
    "fork bomb",
    "memory bomb in a cell",
    "os._exit in a cell",
    "forged events",
    "writes outside",
    "network",
    "reads the checks",
]


@pytest.mark.parametrize("how", OTHER_WAYS)
@pytest.mark.parametrize(
    "names", [SHORT_FORM, pytest.param(list(SUBMISSIONS), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_other_ways_to_isolate_give_the_same_grades(
    names, how, outside, listener, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(doors, "_works", lambda one: one == how)
    assert capabilities().how == how
    assert not possible()
    allowed = [name for name in names if how != LIMITS_ONLY or not SUBMISSIONS[name].isolated]
    results, _, left, _ = grade_together(allowed, outside, listener, tmp_path_factory)
    for name in allowed:
        assert_earns(name, results[name])
    assert left == set()
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "mine"}
    if how != LIMITS_ONLY:
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_run_ends_in_time(graded):
    assert graded[1] < SECONDS


def test_nothing_is_left_running_and_no_folder_is_left(graded):
    assert graded[2] == set()


@pytest.mark.skipif(not ISOLATED, reason=missing())
def test_nothing_outside_has_changed(graded, outside):
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "mine"}


@pytest.mark.skipif(not ISOLATED, reason=missing())
def test_nobody_got_through_to_the_network(graded, listener):
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_notebook_that_is_not_utf8_is_a_fault(graded):
    assert "cannot be read as a notebook" in graded[0]["not UTF-8"].fault


def test_page_in_a_message_is_text_on_the_learners_page(graded, tmp_path):
    results, _, _, chapter = graded
    reports.write_reports(list(results.values()), tmp_path, chapter=chapter, meta=reports.provenance(chapter))
    pages = {path.name: path.read_text() for path in tmp_path.rglob("*.html")}
    assert not any("<script>alert" in page or "<img src=x" in page for page in pages.values())
    assert "&lt;script&gt;alert(1)" in pages["page-in-a-message.html"]
