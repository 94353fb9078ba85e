"""`lmcourse grade` and `lmcourse start`, end to end on a made-up chapter 96."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest

from lmcourse.cli import main
from lmcourse.commands import start
from lmcourse.commands.grade import print_report
from lmcourse.grading import chapters, grader
from lmcourse.grading.grader import GradingError, chapter_of_notebook, grade
from lmcourse.grading.notebook import NotebookError, Runner, read_notebook
from lmcourse.paths import PACKAGE

CHECKS = """
from lmcourse.grading import assert_equal, exercise

@exercise("96.1", points=1, hint="did you add instead?")
def test_double_of_three(double):
    assert_equal(double(3), 6, "double(3)")

@exercise("96.1", points=2, hint="the sign is lost")
def test_double_of_a_negative(double):
    assert double(-3) == -6

@exercise("96.2", points=2, hint="which end?")
def test_last(last):
    assert last([1, 2]) == 2
"""

RIGHT = "def double(number):\n    return 2 * number", "def last(values):\n    return values[-1]"


@pytest.fixture(autouse=True)
def chapter(tmp_path, monkeypatch):
    folder = tmp_path / "checks"
    folder.mkdir()
    (folder / "ch96_commands.py").write_text(CHECKS)
    monkeypatch.setattr(chapters, "CHECKS", folder)
    monkeypatch.chdir(tmp_path)
    return chapters.find_chapter("96")


def write(path, *cells, **metadata):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells], metadata=metadata
    )
    nbformat.write(notebook, path)
    return path


def outcomes(report):
    return [outcome.state for exercise in report.exercises for outcome in exercise.outcomes]


def test_right_notebook_gets_all_points_in_table_and_json(tmp_path, capsys):
    notebook = write(tmp_path / "ch96_x.ipynb", *RIGHT)
    assert main(["grade", str(notebook), "--json", "report.json"]) == 0
    assert "5 of 5 points" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["chapter"], report["points"], report["out_of"]) == ("96", 5, 5)
    assert [exercise["state"] for exercise in report["exercises"]] == ["passed", "passed"]


def test_a_cell_that_kills_the_process_and_a_test_that_does_cost_only_themselves(tmp_path):
    notebook = write(
        tmp_path / "ch96_x.ipynb",
        "import os\nos._exit(0)",
        "import os, signal\n"
        "def double(number):\n"
        "    if number < 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return 2 * number",
        RIGHT[1],
    )
    report = grade(notebook)
    assert outcomes(report) == ["passed", "crashed", "passed"]
    assert "SIGKILL" in report.exercises[0].outcomes[1].message
    assert [failure.cell for failure in report.failed_cells] == [1]
    assert report.points == 3


def test_a_test_that_cannot_be_stopped_from_within_is_killed_once_and_other_answers_are_tested(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(grader, "GRACE_SECONDS", 0.5)
    stubborn = (
        "def double(number):\n"
        "    while number > 0:\n"
        "        try:\n"
        "            sum(range(100))\n"
        "        except BaseException:\n"
        "            pass\n"
        "    return 2 * number"
    )
    notebook = write(tmp_path / "ch96_x.ipynb", stubborn, RIGHT[1])
    report = grade(notebook, test_seconds=0.2)
    assert outcomes(report) == ["too slow", "too slow", "passed"]
    assert "not run" in report.exercises[0].outcomes[1].message


BLOCKING = "import ctypes\ndef double(number):\n    ctypes.CDLL(None).sleep(60)"


def test_when_the_time_is_up_the_rest_counts_as_too_slow(tmp_path, monkeypatch):
    take = grader._Grading._take

    def time_is_up_at_the_first_test(self, event):
        take(self, event)
        if self.running and self.running[0] == "test":
            self.deadline = time.monotonic()

    monkeypatch.setattr(grader._Grading, "_take", time_is_up_at_the_first_test)
    assert outcomes(grade(write(tmp_path / "ch96_x.ipynb", BLOCKING))) == ["too slow"] * 3


def test_when_the_time_is_up_before_the_first_test_that_is_a_fault(tmp_path):
    with pytest.raises(GradingError, match="before its first test"):
        grade(write(tmp_path / "ch96_x.ipynb", BLOCKING), total_seconds=0.1)


def test_shortcuts_are_flagged_with_their_line_and_cost_no_points(tmp_path, capsys):
    answer = "from lmcourse import core\ndef double(number):\n    core.perplexity\n    return 2 * number"
    assert main(["grade", str(write(tmp_path / "ch96_x.ipynb", answer)), "--json", "-"]) == 0
    exercise = json.loads(capsys.readouterr().out)["exercises"][0]
    assert exercise["points"] == 3
    assert exercise["flags"] == [
        {
            "answer": "double",
            "uses": "lmcourse.core.perplexity",
            "line": 3,
            "cell": "code cell 1",
            "source": "core.perplexity",
        }
    ]


def test_cards_magics_failing_cells_and_output_do_not_matter(tmp_path):
    notebook = write(
        tmp_path / "ch96_x.ipynb",
        "%matplotlib inline\n!rm -rf nothing\nfrom lmcourse.grading import check, progress",
        "print('{\"event\": \"done\"}', flush=True)\nimport os\nos.write(1, b'noise')\ninput()",
        f"%%time\n{RIGHT[0]}",
        "%%bash\nexit 1",
        f"{RIGHT[1]}\ncheck('96.1')\nprogress('96')\n1 / 0",
        "import dataclasses, pickle\n@dataclasses.dataclass\nclass Point:\n    x: int\npickle.dumps(Point(1))",
    )
    report = grade(notebook)
    assert report.points == 5
    assert [(failure.cell, failure.error) for failure in report.failed_cells] == [
        (2, "EOFError: EOF when reading a line"),
        (5, "ZeroDivisionError: division by zero"),
    ]


def test_cells_may_await_as_in_jupyter(tmp_path):
    asynchronous = "import asyncio\nend = await asyncio.sleep(0, result=-1)"
    last = "%time await asyncio.sleep(0)\ndef last(values):\n    return values[end]"
    report = grade(write(tmp_path / "ch96_x.ipynb", RIGHT[0], asynchronous, last))
    assert list(report.failed_cells) == []
    assert report.points == 5


def test_error_that_no_terminal_can_print_leaves_table_and_json(tmp_path, capsys):
    write(tmp_path / "ch96_x.ipynb", "def double(number):\n    raise ValueError('caf\\udce9')", RIGHT[1])
    assert main(["grade", "ch96_x.ipynb", "--json", "report.json"]) == 0
    assert "caf\\udce9" in capsys.readouterr().out
    message = json.loads((tmp_path / "report.json").read_text())["exercises"][0]["tests"][0]["message"]
    assert message.startswith("ValueError: caf\\udce9")


def write_to_every_pipe(line):
    return (
        "import contextlib, os\n"
        "for descriptor in range(3, 20):\n"
        "    with contextlib.suppress(OSError):\n"
        f"        os.write(descriptor, {line!r})\n"
    )


@pytest.mark.parametrize("line", [b"hello\n", b"hello", b"{}\n", b'{"event": "cell", "cell": 9', b"\xff\n"])
def test_what_a_cell_writes_among_the_events_is_passed_over(line, tmp_path):
    report = grade(write(tmp_path / "ch96_x.ipynb", write_to_every_pipe(line), *RIGHT))
    assert list(report.failed_cells) == []
    assert report.points == 5


def test_outcomes_that_an_answer_writes_itself_earn_nothing(tmp_path):
    names = "test_double_of_three", "test_double_of_a_negative", "test_last"
    events = [{"event": "outcome", "test": name, "state": "passed"} for name in names] + [{"event": "done"}]
    forged = "".join(f"{json.dumps(event)}\n" for event in events).encode()
    body = textwrap.indent(write_to_every_pipe(forged), "    ")
    answer = f"def double(number):\n{body}    os._exit(0)"
    report = grade(write(tmp_path / "ch96_x.ipynb", answer, "def last(values):\n    return 0"))
    assert outcomes(report) == ["crashed", "crashed", "wrong"]


def test_outcome_counts_only_for_the_test_that_runs_and_once(tmp_path, chapter):
    contents = read_notebook(write(tmp_path / "ch96_x.ipynb", *RIGHT))
    grading = grader._Grading(tmp_path / "ch96_x.ipynb", contents, chapter, 1.0, 1.0, 0.0)
    events = [("test", "b", {}), ("outcome", "a", {"state": "passed"})]
    events += [("outcome", "b", {"state": "wrong"}), ("outcome", "b", {"state": "passed"})]
    for event, test, more in events:
        grading._take({"event": event, "test": test, **more})
    assert {name: outcome.state for name, outcome in grading.outcomes.items()} == {"b": "wrong"}


def test_the_token_of_the_events_is_in_no_environment_or_argument(tmp_path):
    spy = "import os, sys\nopen('seen.txt', 'w').write(repr([*os.environ.values(), sys.argv]))"
    tokens = []
    real = grader.secrets.token_hex

    def token_hex():
        tokens.append(real())
        return tokens[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grader.secrets, "token_hex", token_hex)
        assert grade(write(tmp_path / "ch96_x.ipynb", spy, *RIGHT)).points == 5
    assert len(tokens) == 1
    assert tokens[0] not in (tmp_path / "seen.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel, as only Linux lets one")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_notebooks_process_ends_with_the_command_that_started_it(ending, tmp_path):
    cell = "import os, time\nopen('pid.part', 'w').write(str(os.getpid()))\nos.rename('pid.part', 'pid')"
    write(tmp_path / "ch01_x.ipynb", f"{cell}\ntime.sleep(60)")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "lmcourse", "grade", "ch01_x.ipynb"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "pid").exists)
        worker = Path("/proc", (tmp_path / "pid").read_text())
        process.send_signal(ending)
        error = process.stderr.read()
    assert (process.returncode, error) in [(130, "\nlmcourse grade: interrupted\n"), (-signal.SIGKILL, "")]
    # A process that nobody waits for stays in the list, ended.
    wait_for(
        lambda: not worker.exists() or worker.joinpath("stat").read_text().rsplit(")")[-1].split()[0] in "ZX"
    )


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_notebook_without_an_answer_tells_the_cells_that_failed(tmp_path):
    notebook = write(
        tmp_path / "ch96_x.ipynb", f"import nosuchmodule\n{RIGHT[0]}", "raise ValueError('a\\nb')"
    )
    with pytest.raises(GradingError) as caught:
        grade(notebook)
    assert str(caught.value) == (
        "ch96_x.ipynb defines no answer to chapter 96: none of double, last. code cell 1 failed: "
        "ModuleNotFoundError: No module named 'nosuchmodule'; code cell 2 failed: ValueError: a b."
    )


def test_failed_cell_is_told_with_its_exercise_and_explains_what_is_missing(tmp_path, capsys):
    path = tmp_path / "ch96_x.ipynb"
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("1 / 0"),
            nbformat.v4.new_markdown_cell("## Exercise 96.1 Double\nNot Exercise 96.7."),
            nbformat.v4.new_code_cell("def double(number:\n    return 2"),
            nbformat.v4.new_code_cell(f"{RIGHT[1]}\n1 / 0", metadata={"tags": ["exercise-96.2"]}),
        ]
    )
    nbformat.write(notebook, path)
    report = grade(path)
    assert [failure.exercise for failure in report.failed_cells] == ["", "96.1", "96.2"]
    missing = report.exercises[0].outcomes[0].message
    assert missing.startswith("the notebook defines no `double`; code cell 2 failed: SyntaxError: ")
    assert outcomes(report) == ["missing", "missing", "passed"]
    print_report(report)
    out = capsys.readouterr().out
    assert "Code cell 1 failed: ZeroDivisionError" in out
    assert "Code cell 2 (exercise 96.1) failed: SyntaxError" in out


@pytest.mark.parametrize(
    ("answer", "error"), [("return number + 2", ""), ("return number.x", "AttributeError"), ("1 / 0", "Zero")]
)
def test_table_tells_the_hint_apart_from_the_error(answer, error, tmp_path, capsys):
    write(tmp_path / "ch96_x.ipynb", f"def double(number):\n    {answer}", RIGHT[1])
    assert main(["grade", "ch96_x.ipynb"]) == 0
    out = capsys.readouterr().out
    assert "Hint: did you add" in out
    assert error in out[: out.index("Hint:")]


def test_table_asks_for_the_loop_of_a_slow_answer(tmp_path, capsys):
    write(tmp_path / "ch96_x.ipynb", "def double(number):\n    while True:\n        pass", RIGHT[1])
    assert main(["grade", "ch96_x.ipynb", "--timeout", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "Hint: does your loop end?" in out
    assert "did you add" not in out


def test_help_says_that_few_points_are_no_failure(capsys):
    with pytest.raises(SystemExit):
        main(["grade", "--help"])
    assert "exit status is 0 when the notebook was graded, whatever its points" in " ".join(
        capsys.readouterr().out.split()
    )


def test_stubs_get_no_points_and_are_not_a_fault(tmp_path, capsys):
    stub = 'def double(number):\n    raise NotImplementedError("Exercise 96.1")'
    assert main(["grade", str(write(tmp_path / "ch96_x.ipynb", stub))]) == 0
    out = capsys.readouterr().out
    assert "0 of 5 points" in out
    assert "not implemented" in out
    assert "missing" in out


def test_notebook_may_be_renamed_when_its_metadata_say_the_chapter(tmp_path):
    path = write(tmp_path / "ada.ipynb", RIGHT[0], lmcourse={"chapter": "96"})
    assert chapter_of_notebook(path, read_notebook(path)).number == "96"


def test_faults_are_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "README.md").write_text("# not JSON")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "dict.ipynb").write_text('{"a": 1}')
    write(tmp_path / "ada.ipynb", RIGHT[0])
    write(tmp_path / "ch95_x.ipynb", RIGHT[0])
    write(tmp_path / "ch96_empty.ipynb")
    write(tmp_path / "ch96_other.ipynb", "def something_else(): pass")
    faults = {
        ("absent.ipynb",): "There is no file",
        ("README.md",): "README.md cannot be read as a notebook; name one such as my/ch01_ngram.ipynb.\n",
        ("picture.png",): "cannot be read as a notebook",
        ("dict.ipynb",): "cannot be read as a notebook",
        ("picture.png", "ada.ipynb"): "picture.png is no notebook, folder or zip archive",
        ("checks",): "There is no notebook (.ipynb) in checks.",
        ("ada.ipynb", "--out", "grades", "--json", "-"): "--json is for one notebook",
        ("ada.ipynb",): "add --chapter",
        ("ada.ipynb", "--chapter", "12"): "there is 96 (commands)",
        ("ch95_x.ipynb",): "there is 96 (commands)",
        ("ch96_empty.ipynb",): "no code cell",
        ("ch96_other.ipynb",): "defines no answer",
        ("ada.ipynb", "--chapter", "96", "--json", "absent/report.json"): "cannot be written",
    }
    for arguments, message in faults.items():
        assert main(["grade", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1, error


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_impossible_timeout_is_refused(seconds, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["grade", "x.ipynb", "--timeout", seconds])
    assert exit_.value.code == 2
    assert "above zero" in capsys.readouterr().err


def test_broken_checks_are_a_fault_that_says_why(chapter, tmp_path):
    chapter.checks.write_text("import no_such_module\n")
    with pytest.raises(GradingError, match="no_such_module"):
        grade(write(tmp_path / "ch96_x.ipynb", RIGHT[0]))


def test_older_notebook_formats_are_read(tmp_path):
    path = tmp_path / "old.ipynb"
    old = nbformat.v3.new_notebook(
        worksheets=[nbformat.v3.new_worksheet(cells=[nbformat.v3.new_code_cell(input="x = 1")])]
    )
    path.write_text(nbformat.v3.writes_json(old))
    assert read_notebook(path).code == ["x = 1"]


def test_directory_is_no_notebook(tmp_path):
    with pytest.raises(NotebookError):
        read_notebook(tmp_path)


def test_cell_that_takes_too_long_is_given_up_and_the_next_is_run():
    runner = Runner()
    failures = list(runner.run(["while True:\n    pass", "x = 1"], seconds=0.2))
    assert [(failure.cell, failure.error) for failure in failures] == [(1, "still running after 0.2 s")]
    assert runner.namespace["x"] == 1


@pytest.fixture
def course(tmp_path, monkeypatch):
    root = tmp_path / "course"
    (root / "exercises").mkdir(parents=True)
    write(root / "exercises" / "ch96_commands.ipynb", RIGHT[0])
    write(root / "exercises" / "ch97_other.ipynb", RIGHT[1])
    monkeypatch.setattr(start, "course_root", lambda: root)
    return root


def test_start_copies_the_stubs_to_my(course, tmp_path, capsys):
    assert main(["start", "96"]) == 0
    copy = tmp_path / "my" / "ch96_commands.ipynb"
    assert copy.read_bytes() == (course / "exercises" / "ch96_commands.ipynb").read_bytes()
    assert "ch96_commands.ipynb" in capsys.readouterr().out


def test_start_ends_with_what_to_do_next(course, capsys):
    for again in ([], [], ["--again"]):
        main(["start", "96", *again])
        name = "ch96_commands-2.ipynb" if again else "ch96_commands.ipynb"
        assert capsys.readouterr().out.splitlines()[-2:] == [
            "Open them:  lmcourse lab",
            f"Grade them: lmcourse grade my/{name}",
        ]


def test_start_never_overwrites(course, tmp_path, capsys):
    main(["start", "96"])
    mine = tmp_path / "my" / "ch96_commands.ipynb"
    mine.write_text("my work")
    assert main(["start", "96"]) == 0
    assert "stays as it is" in capsys.readouterr().out
    assert main(["start", "96", "--again"]) == 0
    assert main(["start", "ch96", "--again"]) == 0
    assert mine.read_text() == "my work"
    assert sorted(path.name for path in mine.parent.iterdir()) == [
        "ch96_commands-2.ipynb",
        "ch96_commands-3.ipynb",
        "ch96_commands.ipynb",
    ]


def test_start_without_a_chapter_lists_them(course, capsys):
    assert main(["start"]) == 0
    assert capsys.readouterr().out == "96  commands\n97  other\n"


@pytest.mark.parametrize("chapter_number", ["12", "x", "²"])
def test_start_of_an_unknown_chapter_says_which_there_are(course, chapter_number, capsys):
    assert main(["start", chapter_number]) == 2
    assert "there is 96, 97" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit on a file's size")
def test_start_on_a_full_disk_leaves_no_half_notebook(course, tmp_path, capsys):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # a write beyond it fails, as on a full disk
    try:
        status = main(["start", "96"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (status, list((tmp_path / "my").iterdir())) == (2, [])
    assert "cannot be written: File too large" in capsys.readouterr().err


def test_start_where_nothing_can_be_written_is_one_clear_line(course, tmp_path, capsys):
    (tmp_path / "my").write_text("a file, not a folder")
    assert main(["start", "96"]) == 2
    assert "cannot be written" in capsys.readouterr().err
