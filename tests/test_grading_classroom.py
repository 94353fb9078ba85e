"""A class of submissions on a made-up chapter 94: how they are found, graded, kept and told."""

import json
import zipfile
from pathlib import Path, PurePosixPath

import nbformat
import pytest

from lmcourse.cli import main
from lmcourse.grading import chapters, classroom, handed_in
from lmcourse.grading.classroom import grade_class
from lmcourse.grading.handed_in import ClassError, Submission, submissions_in
from lmcourse.grading.tampering import suspicious

CHECKS = """
from lmcourse.grading import exercise

@exercise("94.1", points=1, hint="did you add instead?")
def test_double_of_three(double):
    assert double(3) == 6

@exercise("94.2", points=2, hint="which end?")
def test_last(last):
    assert last([1, 2]) == 2
"""
HIDDEN = (
    CHECKS[: CHECKS.index('@exercise("94.2"')].replace("of_three", "of_zero").replace("(3) == 6", "(0) == 0")
)
RIGHT = "def double(number):\n    return 2 * number", "def last(values):\n    return values[-1]"


@pytest.fixture(autouse=True)
def chapter(tmp_path, monkeypatch):
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "ch94_class.py").write_text(CHECKS)
    monkeypatch.setattr(chapters, "CHECKS", folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "class").mkdir()
    return chapters.find_chapter("94")


def text(*cells, **metadata):
    notebook = nbformat.v4.new_notebook(metadata=metadata)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    return nbformat.writes(notebook)


def hand_in(name, *cells, **metadata):
    path = Path("class", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(*cells, **metadata))
    return path


def results():
    rows = json.loads(Path("grades/results.json").read_text())["submissions"]
    return {row["learner"]: row["grade"]["points"] if row["grade"] else row["fault"] for row in rows}


@pytest.mark.parametrize(
    ("place", "learner"),
    [
        ("Zoë O'Neil_77_assignsubmission_file_/sub/ch01.ipynb", "Zoë O'Neil"),
        ("oneilzoe_12_345_ch01_ngram.ipynb", "oneilzoe"),
        ("oneilzoe_LATE_12_345_ch01_ngram-1.ipynb", "oneilzoe"),
        ("zoe/ch01_ngram.ipynb", "zoe"),
        ("zoe.o.neil.ipynb", "zoe.o.neil"),
    ],
)
def test_learner_is_named_as_the_platform_names_them(place, learner):
    assert handed_in.learner_of(PurePosixPath(place))[0] == learner


def test_learners_of_one_name_are_told_apart_by_their_number_and_files_of_one_learner_by_theirs(tmp_path):
    for place in ("Li_1_assignsubmission_file_/a.ipynb", "Li_2_assignsubmission_file_/a.ipynb"):
        hand_in(place, RIGHT[0])
    for place in ("bo/a.ipynb", "bo/b.ipynb"):
        hand_in(place, RIGHT[0])
    found = submissions_in([Path("class")], tmp_path)
    assert [one.learner for one in found] == ["Li (1)", "Li (2)", "bo: a.ipynb", "bo: b.ipynb"]


def test_class_is_graded_with_a_row_for_everything_that_cannot_be(capsys):
    hand_in("ada.ipynb", *RIGHT)
    hand_in("bob/ch94_class.ipynb", RIGHT[0], "import os\nos._exit(0)")
    hand_in("other.ipynb", *RIGHT, lmcourse={"chapter": "95"})
    hand_in("nothing.ipynb", "x = 1")
    hand_in("empty.ipynb")
    Path("class/text.ipynb").write_text("no JSON")
    Path("class/deep.ipynb").write_text("[" * 100_000)
    Path("class/latin.ipynb").write_bytes(b'{"nbformat": 4, "cells": ["\xe9"]}')
    Path("class/cell.ipynb").write_text('{"nbformat": 4, "cells": [3]}')
    with Path("class/huge.ipynb").open("wb") as huge:
        huge.truncate(50_000_000)
    Path("class/pdf").mkdir()
    Path("class/pdf/answers.pdf").touch()
    Path("class/link.ipynb").symlink_to(Path("class/ada.ipynb").absolute())
    assert main(["grade", "class", "--chapter", "94"]) == 0
    found = results()
    faults = {
        "other": "it is for chapter 95, not for 94.",
        "nothing": "nothing.ipynb defines no answer to chapter 94",
        "empty": "no code cell",
        "text": "text.ipynb cannot be read as a notebook",
        "deep": "cannot be read as a notebook",
        "latin": "cannot be read as a notebook",
        "cell": "cannot be read as a notebook",
        "huge": "has 50 MB",
        "pdf": "there is no notebook (.ipynb), only answers.pdf.",
        "link": "it is a link",
    }
    assert found.keys() == {"ada", "bob", *faults}
    assert (found["ada"], found["bob"]) == (3, 1)
    for learner, fault in faults.items():
        assert fault in found[learner]
        assert "/tmp" not in found[learner]
    assert "12 submissions, 10 of them could not be graded" in capsys.readouterr().out


def test_only_what_has_changed_is_graded_again(monkeypatch):
    hand_in("ada.ipynb", *RIGHT)
    hand_in("bob.ipynb", RIGHT[0])
    graded = []
    real = classroom.grade
    monkeypatch.setattr(classroom, "grade", lambda *args, **kw: graded.append(1) or real(*args, **kw))
    arguments = ["grade", "class", "--chapter", "94", "--jobs", "1"]
    for change, times in (
        (lambda: None, 2),
        (lambda: None, 0),
        (lambda: hand_in("bob.ipynb", RIGHT[1]), 1),
        (lambda: (chapters.CHECKS / "ch94_class.py").write_text(CHECKS + "\n"), 2),
        (lambda: arguments.extend(["--timeout", "9"]), 2),
        (lambda: arguments.append("--again"), 2),
    ):
        change()
        graded.clear()
        assert main(arguments) == 0
        assert len(graded) == times
    assert results() == {"ada": 3, "bob": 2}


def test_grade_from_the_journal_equals_the_one_it_was_made_of(chapter, tmp_path):
    hand_in("ada.ipynb", RIGHT[0], "def last(values):\n    import os\n    os._exit(3)\nprint(undefined)")
    submissions = submissions_in([Path("class")], tmp_path)
    first = grade_class(submissions, chapter, journal=tmp_path / "journal")
    with (tmp_path / "journal").open("a") as journal:
        journal.write('{"key": "torn')  # as when the run was killed
    second = grade_class(submissions, chapter, journal=tmp_path / "journal")
    assert [one.as_json() for one in first] == [one.as_json() for one in second]
    assert first[0].report.exercises[1].state == "crashed"


def test_hidden_checks_count_besides_the_courses(capsys):
    Path("mine").mkdir()
    Path("mine/ch94_class.py").write_text(HIDDEN)
    hand_in("ada.ipynb", *RIGHT)
    hand_in("bob.ipynb", "def double(number):\n    return {3: 6}[number]", RIGHT[1])
    assert main(["grade", "class", "--chapter", "94", "--hidden", "mine"]) == 0
    assert results() == {"ada": 4, "bob": 3}
    assert main(["grade", "class/ada.ipynb", "--chapter", "94", "--hidden", "mine"]) == 0
    assert "4 of 4 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("ch93_x.py", HIDDEN, "must hold one, such as ch94_class.py"),
        ("ch94_x.py", CHECKS, "two tests called test_double_of_three; rename one"),
        ("ch94_x.py", "import nosuchmodule", "nosuchmodule"),
    ],
)
def test_hidden_checks_that_cannot_be_used_stop_the_run_before_it_begins(name, contents, message, capsys):
    Path("mine").mkdir()
    Path("mine", name).write_text(contents)
    hand_in("ada.ipynb", *RIGHT)
    assert main(["grade", "class", "--chapter", "94", "--hidden", "mine"]) == 2
    assert message in capsys.readouterr().err


def test_archive_is_graded_and_what_leads_out_of_it_is_refused(tmp_path):
    outside = tmp_path / "outside.ipynb"
    outside.write_text("mine")
    with zipfile.ZipFile("class.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Ada_1_assignsubmission_file_/ch94_class.ipynb", text(*RIGHT))
        archive.writestr("../outside.ipynb", text(*RIGHT))
        archive.writestr(f"{outside}", text(*RIGHT))
        archive.writestr("bomb.ipynb", b"0" * 50_000_000)
        link = zipfile.ZipInfo("link.ipynb")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(outside))
        archive.writestr("Bo_2_assignsubmission_file_/answers.docx", "")
    assert main(["grade", "class.zip", "--chapter", "94"]) == 0
    found = results()
    assert found.pop("Ada") == 3
    assert sorted(fault.partition(",")[0].partition(":")[0] for fault in found.values()) == [
        "it is 50 MB; a notebook of answers is at most 20 MB",
        "it is a link",
        "its path leads out of the archive",
        "its path leads out of the archive",
        "there is no notebook (.ipynb)",
    ]
    assert outside.read_text() == "mine"


def test_gradescope_gets_its_one_file(capsys):
    hand_in("ada.ipynb", *RIGHT)
    arguments = ["--chapter", "94", "--format", "gradescope", "--out", "results"]
    assert main(["grade", "class", *arguments]) == 0
    assert json.loads(Path("results/results.json").read_text())["score"] == 3
    hand_in("bob.ipynb", *RIGHT)
    assert main(["grade", "class", *arguments]) == 2
    assert "is for one submission; there are 2" in capsys.readouterr().err


def test_no_archive_and_no_such_folder_are_told_in_one_line(tmp_path):
    Path("broken.zip").write_text("no zip")
    for path, message in (("broken.zip", "cannot be read as a zip"), ("absent", "no file or folder absent")):
        with pytest.raises(ClassError, match=message):
            submissions_in([Path(path)], tmp_path)


def test_jobs_must_be_positive(chapter, tmp_path):
    with pytest.raises(ValueError, match="at least 1; got 0"):
        grade_class([Submission("a", "a")], chapter, journal=tmp_path / "j", jobs=0)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import numpy as np\nnp.allclose = print", "numpy.allclose, which it replaces"),
        (
            "from numpy import testing as t\nt.assert_allclose = print",
            "numpy.testing.assert_allclose, which it replaces",
        ),
        ("import builtins\nsetattr(builtins, 'all', any)", "builtins, in which it replaces something"),
        ("import sys\nsys.modules['numpy'] = 1", "sys.modules"),
        ("from os import fork as f\nf()", "os.fork"),
        ("from ctypes import CDLL", "ctypes.CDLL"),
        ("open('../solutions/ch01_ngram.ipynb')", "the path '../solutions/ch01_ngram.ipynb'"),
    ],
)
def test_cell_that_reaches_for_the_grader_is_found(source, what):
    assert what in [flag.uses for flag in suspicious([source], ["94.1"])["94.1"]]


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.seed(1)\nx = np.zeros(3)\nx[0] = 1",
        "class A:\n    def __init__(self):\n        self.sys = 1",
        '"""See ch01_ngram.ipynb."""',
        "%%bash\nrm -rf",
        "import os\nos.path.join('a')",
    ],
)
def test_ordinary_cell_is_not_suspected(source):
    assert suspicious([source], [""]) == {}


def test_cells_that_the_course_gives_out_are_not_suspected():
    given = "import subprocess"
    assert suspicious([given], [""], [given]) == {}
