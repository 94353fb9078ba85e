"""The results machinery, on experiments made up for the purpose."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from lmcourse import chapters, cli, results
from lmcourse.grading.chapters import chapters as grading_chapters
from lmcourse.grading.chapters import find_chapter
from lmcourse.results import Measurement, Row, leaderboard, load, run, standings
from tools import leaderboard as tool

EXPERIMENTS = '''
import os
import time
from pathlib import Path

from lmcourse.results import Experiment, Measurement

HERE = Path(__file__).parent


def measure(seed, base):
    with (HERE / "calls.txt").open("a") as calls:
        calls.write(f"{base} {seed}\\n")
    return Measurement({"bits_per_byte": base + seed / 10, "perplexity": float("inf")}, "5ha")


def threads(seed):
    return Measurement({"threads": int(os.environ["TF_NUM_INTRAOP_THREADS"]) + int(os.environ["OMP_NUM_THREADS"])})


def meet(seed):
    """Return only if the other seed is being measured at the same time."""
    (HERE / f"arrived{seed}").touch()
    while not (HERE / f"arrived{1 - seed}").exists():
        time.sleep(0.01)
    return Measurement({"met": 1.0})


def fail(seed):
    raise RuntimeError("the loss is a duck")


def crash(seed):
    os._exit(7)


def sleep(seed):
    (HERE / "sleeper.pid").write_text(str(os.getpid()))
    time.sleep(100)


EXPERIMENTS = {
    "good": Experiment(measure, "Good", "toytext", seeds=(0, 1), settings={"base": 2.0}),
    "better": Experiment(measure, "Better", "toytext", seeds=(0,), settings={"base": 1.0}),
    "threads": Experiment(threads, "Threads", "other"),
    "meet": Experiment(meet, "Meet", "other", seeds=(0, 1)),
    "fail": Experiment(fail, "Fail", "other"),
    "crash": Experiment(crash, "Crash", "other"),
    "sleep": Experiment(sleep, "Sleep", "other"),
    "short": Experiment(sleep, "Sleep", "other", limit_minutes=0.05),
}
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package with experiments for chapter 1, and a course without results; returns the package's folder."""
    package = f"toy_{tmp_path.name}"
    folder = tmp_path / package / "ngram"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "__init__.py").touch()
    (folder / "experiments.py").write_text(EXPERIMENTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(results, "PACKAGE", package)
    monkeypatch.setattr(results, "course_root", lambda: tmp_path)
    return folder


def calls(toy):
    path = toy / "calls.txt"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def made_up_row(**changes):
    fields = {
        "chapter": "ch01",
        "experiment": "e",
        "model": "M",
        "dataset": "d",
        "seed": 0,
        "metrics": {"bits_per_byte": 2.0},
        "settings": {},
        "versions": {"python": "3.11.7"},
        "date": "2026-11-21",
        "cores": 1,
        "minutes": 0.5,
    }
    return Row(**fields | changes)


def save_rows(folder, *rows):
    for chapter in {row.chapter for row in rows}:
        results._save(chapter, folder, [row for row in rows if row.chapter == chapter])


def test_each_experiment_and_seed_gives_a_saved_row(toy):
    report = run("ch01", ["good", "better"], progress=False)
    assert len(report.saved) == 3
    assert calls(toy) == ["1.0 0", "2.0 0", "2.0 1"]
    rows = load("ch01")
    assert [(row.experiment, row.seed, row.metrics["bits_per_byte"]) for row in rows] == [
        ("better", 0, 1.0),
        ("good", 0, 2.0),
        ("good", 1, 2.1),
    ]
    row = rows[0]
    assert (row.chapter, row.model, row.dataset, row.settings) == ("ch01", "Better", "toytext", {"base": 1.0})
    assert (row.data_sha256, row.cores) == ("5ha", 1)
    assert row.versions["python"] == sys.version.split()[0]
    assert row.versions["tensorflow"].count(".") >= 2


def test_saved_rows_are_read_back_as_they_were_even_an_infinite_perplexity(toy):
    [saved] = run("ch01", ["better"], progress=False).saved
    assert load("ch01") == [saved]
    assert math.isinf(saved.metrics["perplexity"])


def test_the_file_is_strict_json_with_a_row_a_line_and_sorted_keys(toy, tmp_path):
    run("1", ["good"], progress=False)
    text = (tmp_path / "data" / "results" / "ch01.json").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    entries = json.loads(text, parse_constant=refuse)
    assert [list(entry) for entry in entries] == [sorted(entry) for entry in entries]
    assert len(text.splitlines()) == 2 + len(entries)


def test_a_saved_row_is_not_measured_again_unless_asked(toy):
    run("ch01", ["good"], progress=False)
    report = run("ch01", ["good", "better"], progress=False)
    assert (len(report.saved), report.skipped) == (1, 2)
    assert calls(toy) == ["1.0 0", "2.0 0", "2.0 1"]
    report = run("ch01", ["better"], again=True, progress=False)
    assert (len(report.saved), report.skipped) == (1, 0)
    assert calls(toy) == ["1.0 0", "1.0 0", "2.0 0", "2.0 1"]
    assert len(load("ch01")) == 3


@pytest.mark.parametrize("change", [{"settings": {"base": 9.0}}, {"model": "Old"}, {"dataset": "old"}])
def test_a_row_with_other_settings_is_measured_again_and_replaced(toy, tmp_path, change):
    [row] = run("ch01", ["better"], progress=False).saved
    changed = dataclasses.replace(row, **change)
    save_rows(tmp_path / "data" / "results", changed)
    assert run("ch01", ["better"], progress=False).skipped == 0
    assert [(row.model, row.settings) for row in load("ch01")] == [("Better", {"base": 1.0})]


def test_rows_the_chapter_no_longer_lists_go_when_the_whole_chapter_is_run(toy, tmp_path):
    folder = tmp_path / "data" / "results"
    source = EXPERIMENTS.split("EXPERIMENTS = {")[0]
    (toy / "experiments.py").write_text(source + "EXPERIMENTS = {}\n")
    save_rows(folder, made_up_row(experiment="gone"))
    run("ch01", [], progress=False)
    assert len(load("ch01")) == 1
    run("ch01", progress=False)
    assert load("ch01") == []


def test_two_runs_of_a_chapter_at_a_time_keep_each_others_rows(toy, monkeypatch):
    carry_out = results._carry_out

    def while_another_runs(*arguments):
        monkeypatch.setattr(results, "_carry_out", carry_out)
        run("ch01", ["better"], progress=False)
        yield from carry_out(*arguments)

    monkeypatch.setattr(results, "_carry_out", while_another_runs)
    run("ch01", ["good"], progress=False)
    assert [(row.experiment, row.seed) for row in load("ch01")] == [("better", 0), ("good", 0), ("good", 1)]


def test_rows_saved_at_the_same_moment_are_all_kept(tmp_path):
    def save_ten(writer):
        for seed in range(10):
            save_rows(tmp_path, made_up_row(experiment=f"e{writer}", seed=seed))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save_ten, range(8)))
    assert len(load("ch01", tmp_path)) == 80
    assert [path.name for path in tmp_path.iterdir()] == ["ch01.json"]


def test_each_run_is_kept_to_one_core(toy):
    assert run("ch01", ["threads"], progress=False).saved[0].metrics == {"threads": 2.0}


def test_two_runs_go_side_by_side(toy):
    report = run("ch01", ["meet"], workers=2, limit_minutes=0.5, progress=False)
    assert [row.metrics for row in report.saved] == [{"met": 1.0}] * 2


def test_a_failure_names_its_cause_and_spares_the_others(toy):
    report = run("ch01", ["fail", "crash", "better"], progress=False)
    assert [row.experiment for row in report.saved] == ["better"]
    assert {failure.experiment: failure.reason for failure in report.failures} == {
        "fail": "RuntimeError: the loss is a duck",
        "crash": "ended with status 7 and no answer",
    }
    assert "in fail" in next(failure.log for failure in report.failures if failure.experiment == "fail")


def test_a_run_over_its_time_is_ended(toy):
    report = run("ch01", ["sleep"], limit_minutes=0.05, progress=False)
    assert [failure.reason for failure in report.failures] == ["took more than 0.05 minutes"]
    assert not psutil.pid_exists(int((toy / "sleeper.pid").read_text()))


def test_an_experiment_has_a_limit_of_its_own(toy):
    report = run("ch01", ["short"], progress=False)
    assert [failure.reason for failure in report.failures] == ["took more than 0.05 minutes"]


def test_an_interrupt_keeps_what_is_done_and_ends_what_is_running(toy, tmp_path):
    program = f"""
        from lmcourse import results
        results.PACKAGE = {results.PACKAGE!r}
        results.run("ch01", ["better", "sleep"], folder={str(tmp_path)!r}, progress=False)
    """
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
    )
    pid_file = toy / "sleeper.pid"
    deadline = time.monotonic() + 30
    while not (load("ch01", tmp_path) and pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert errors.strip().endswith(b"KeyboardInterrupt")
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert [row.experiment for row in load("ch01", tmp_path)] == ["better"]
    assert run("ch01", ["better"], folder=tmp_path, progress=False).skipped == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chapter": "ch11"}, "chapter must be one of ch01 to ch10; got 'ch11'"),
        ({"chapter": "ngram"}, "chapter must be one of ch01 to ch10; got 'ngram'"),
        ({"chapter": "ch02"}, r"chapter 'ch02' has no experiments \(.*recurrent.experiments does not exist"),
        ({"names": ["best"]}, "names must be among .* good, better, .*; got best"),
        ({"workers": 0}, "workers must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(toy, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**{"chapter": "ch01", "progress": False} | arguments)


@pytest.mark.parametrize("text", [3, "3", "03", "ch3", "ch03", " 3 "])
def test_a_chapter_is_found_however_its_number_is_written(text):
    assert chapters.find(text) == ("03", "attention")
    assert results.canonical_chapter(text) == "ch03"


@pytest.mark.parametrize("text", ["0", "11", "003", "-1", "1.0", "attention", "", "²", "٣"])
def test_what_is_no_number_of_a_chapter_is_refused(text):
    with pytest.raises(ValueError, match="chapter must be one of ch01 to ch10; got "):
        chapters.find(text)


def test_each_chapter_with_exercises_is_named_as_the_course_names_it():
    found = {chapter.number: chapter.name for chapter in grading_chapters()}
    assert found
    assert found.items() <= chapters.CHAPTERS.items()
    assert [find_chapter(f" ch{number} ").number for number in found] == list(found)


def test_a_module_that_experiments_miss_is_not_mistaken_for_missing_experiments(toy):
    (toy / "experiments.py").write_text("import no_such_module_here\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        run("ch01", progress=False)


@pytest.mark.parametrize(
    ("metrics", "message"), [({}, "at least one number"), ({"loss": math.nan}, r"metrics\['loss'\].*NaN")]
)
def test_a_measurement_without_a_number_is_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        Measurement(metrics)


@pytest.mark.parametrize(
    ("minutes", "time"), [(0.0, "<1 s"), (0.02, "1 s"), (1.65, "99 s"), (1.66, "1.7 min")]
)
def test_a_short_time_is_told_in_seconds(minutes, time):
    assert results.readable_time(minutes) == time


def test_the_time_of_a_fast_run_is_saved_to_the_hundredth_of_a_second(toy):
    (toy / "experiments.py").write_text(
        "import time\n"
        "from lmcourse.results import Experiment, Measurement\n"
        "def nap(seed):\n    time.sleep(0.15)\n    return Measurement({'naps': 1.0})\n"
        "EXPERIMENTS = {'nap': Experiment(nap, 'Nap', 'd')}\n"
    )
    [row] = run("ch01", progress=False).saved
    assert 0.0024 <= row.minutes < 1
    assert load("ch01") == [row]


def test_metrics_keep_six_significant_digits(toy):
    (toy / "experiments.py").write_text(
        "from lmcourse.results import Experiment, Measurement\n"
        "EXPERIMENTS = {'third': Experiment(lambda seed: Measurement({'third': 20 / 3}), 'Third', 'd')}\n"
    )
    assert run("ch01", progress=False).saved[0].metrics == {"third": 6.66667}


def test_the_leaderboard_is_best_first_over_all_chapters(tmp_path):
    save_rows(
        tmp_path,
        made_up_row(model="middle", metrics={"bits_per_byte": 2.0, "accuracy": 0.9}),
        made_up_row(model="worst", experiment="f", metrics={"bits_per_byte": 3.0, "accuracy": 0.7}),
        made_up_row(model="best", chapter="ch02", metrics={"bits_per_byte": 1.0, "accuracy": 0.8}),
        made_up_row(model="elsewhere", experiment="g", dataset="other"),
        made_up_row(model="unmeasured", experiment="h", metrics={"minutes": 1.0}),
    )
    assert [row.model for row in leaderboard("d", folder=tmp_path)] == ["best", "middle", "worst"]
    by_accuracy = leaderboard("d", "accuracy", highest_first=True, folder=tmp_path)
    assert [row.model for row in by_accuracy] == ["middle", "best", "worst"]
    assert results.datasets_with_results(tmp_path) == ["d", "other"]


def test_standings_rank_by_the_mean_over_seeds(tmp_path):
    save_rows(
        tmp_path,
        *(
            made_up_row(experiment=name, seed=seed, metrics={"bits_per_byte": value})
            for name, values in {"steady": [2.0, 2.2], "lucky once": [1.0, 4.0]}.items()
            for seed, value in enumerate(values)
        ),
    )
    found = [
        (entry.rows[0].experiment, entry.mean, entry.lowest, entry.highest)
        for entry in standings("d", folder=tmp_path)
    ]
    assert found == [("steady", 2.1, 2.0, 2.2), ("lucky once", 2.5, 1.0, 4.0)]


README = f"before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n"


def test_the_leaderboard_tool_writes_the_table_between_the_markers(tmp_path):
    save_rows(
        tmp_path,
        made_up_row(model="Kneser–Ney", metrics={"bits_per_byte": 1.96549}),
        made_up_row(model="MLE", experiment="mle", metrics={"bits_per_byte": math.inf}, minutes=0.02),
        made_up_row(model="LSTM", chapter="ch02", experiment="l", metrics={"bits_per_byte": 1.8}),
        made_up_row(
            model="LSTM", chapter="ch02", experiment="l", seed=1, metrics={"bits_per_byte": 2.0}, minutes=3.95
        ),
    )
    readme = tmp_path / "README.md"
    readme.write_text(README)
    arguments = ["--readme", str(readme), "--results", str(tmp_path)]
    assert tool.main([*arguments, "--check"]) == 1
    assert readme.read_text() == README
    assert tool.main(arguments) == 0
    assert readme.read_text() == textwrap.dedent("""\
        before
        <!-- leaderboard -->

        **d**

        | model | chapter | bits a byte | seeds | time a run |
        |---|---|---:|---:|---:|
        | LSTM | 2 | 1.900 (1.800–2.000) | 2 | 2.2 min |
        | Kneser–Ney | 1 | 1.965 | 1 | 30 s |
        | MLE | 1 | ∞ | 1 | 1 s |

        Measured 2026-11-21, 1 core a run, by `lmcourse results ch01`, `lmcourse results ch02`. {unequal}

        <!-- /leaderboard -->
        after
        """).format(unequal=tool.UNEQUAL_SEEDS)
    assert tool.main([*arguments, "--check"]) == 0


def test_the_leaderboard_tool_puts_the_distance_to_the_floor_first(tmp_path):
    save_rows(
        tmp_path,
        made_up_row(
            model="far", experiment="a", metrics={"bits_per_byte": 1.0, "excess_bits_per_token": 0.5}
        ),
        made_up_row(
            model="near", experiment="b", metrics={"bits_per_byte": 1.1, "excess_bits_per_token": 0.1}
        ),
        made_up_row(model="no floor", experiment="c", metrics={"bits_per_byte": 0.9}),
    )
    models = [line.split(" | ")[0] for line in tool.render(tmp_path).splitlines() if line.startswith("| ")]
    assert models == ["| model", "| near", "| far", "| no floor"]
    assert "| no floor | 1 | – | 0.900 | 1 | 30 s |" in tool.render(tmp_path)


@pytest.mark.parametrize("text", ["", tool.BEGIN, f"{tool.END} {tool.BEGIN}", README + README])
def test_the_leaderboard_tool_refuses_a_text_without_its_markers(text, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path)]) == 1
    assert "must hold <!-- leaderboard --> once" in capsys.readouterr().err
    assert readme.read_text() == text


def test_the_command_measures_and_shows_the_rows(toy, capsys):
    assert cli.main(["results", "ch01", "--only", "good", "--only", "better"]) == 0
    shown = capsys.readouterr().out
    assert "3 measured, 0 there already, 0 failed." in shown
    assert "bits_per_byte 2.1" in shown
    assert cli.main(["results", "ch01", "--only", "better", "--again"]) == 0
    assert "1 measured, 0 there already" in capsys.readouterr().out


def test_the_command_reports_failures(toy, capsys):
    assert cli.main(["results", "ch01", "--only", "fail"]) == 1
    shown = capsys.readouterr().out
    assert "fail, seed 0: RuntimeError: the loss is a duck" in shown
    assert "Traceback" in shown


def test_the_command_says_what_was_wrong_with_the_call(toy, capsys):
    assert cli.main(["results", "ch99"]) == 2
    assert "lmcourse results: chapter must be one of ch01 to ch10; got 'ch99'." in capsys.readouterr().err


def test_importing_results_does_not_import_tensorflow():
    code = "import sys, lmcourse.results, lmcourse.commands.results; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
