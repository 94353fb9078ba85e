"""Rows of experiments: measure them once, save them, compare them.

A chapter's longer experiments are listed in `lmcourse/<chapter>/experiments.py`:

    EXPERIMENTS = {
        "kneser-ney-5": Experiment(measure, model="Kneser–Ney, order 5", dataset="pythondocs", settings={"order": 5}),
    }

where `measure(seed, **settings)` trains and scores one model and returns a `Measurement`. Each (experiment, seed)
is measured in a process of its own, on one core, and saved to `data/results/chNN.json` as soon as it is done. The
rows are committed; notebooks and README draw them beside their own quick runs.
"""

import contextlib
import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcourse import chapters
from lmcourse.files import write_text
from lmcourse.paths import course_root

if TYPE_CHECKING:
    from tqdm import tqdm

# The package whose subpackages hold the experiments.
PACKAGE = "lmcourse"

# A run has one core: two fit side by side on a laptop, and its minutes mean the same on a larger machine.
CORES_PER_RUN = 1
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

LIMIT_MINUTES = 15.0
POLL_SECONDS = 0.05
RECORDED_PACKAGES = ("numpy", "keras", "tensorflow")

# More digits would only record the machine: results agree between machines to about four.
SIGNIFICANT_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run of an experiment found.

    Attributes:
        metrics: numbers by name, with the unit in the name (`bits_per_byte`, `tokens_per_second`). Infinity is a
            result (the perplexity of a model that gave a token no probability); NaN is a fault.
        data_sha256: of the text that was measured on, where it can differ between machines.

    Raises:
        ValueError: if there is no metric, or one is NaN.
    """

    metrics: Mapping[str, float]
    data_sha256: str | None = None

    def __post_init__(self):
        if not self.metrics:
            raise ValueError("metrics must hold at least one number; got none.")
        for name, value in self.metrics.items():
            if math.isnan(value):
                raise ValueError(f"metrics[{name!r}] must be a number; got NaN. Did the training diverge?")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Something to measure, once for each seed.

    Attributes:
        measure: called as `measure(seed, **settings)`; returns a `Measurement`.
        model: what is measured, as the leaderboard names it.
        dataset: what it is measured on, as `lmcourse data list` names it.
        seeds: one row for each.
        settings: arguments of measure, which JSON can hold. Changing one makes the saved rows outdated.
        limit_minutes: how long one run may take by the clock.
    """

    measure: Callable[..., Measurement]
    model: str
    dataset: str
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limit_minutes: float = LIMIT_MINUTES


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of one experiment with one seed, and all that is needed to run it again.

    Attributes:
        chapter: as in "ch01".
        experiment: its name in the chapter's EXPERIMENTS.
        model: as the leaderboard names it.
        dataset: as `lmcourse data list` names it.
        seed: what the run was given.
        metrics: numbers by name, to six significant digits.
        settings: what the run was given besides the seed.
        versions: of Python, NumPy, Keras and TensorFlow; a package that is not installed is absent.
        date: the day of the run (UTC), as in "2026-11-21".
        cores: how many cores the run could use.
        minutes: how long it took by the clock; see `readable_time`.
        data_sha256: of the text it was measured on, or None.
    """

    chapter: str
    experiment: str
    model: str
    dataset: str
    seed: int
    metrics: dict[str, float]
    settings: dict[str, Any]
    versions: dict[str, str]
    date: str
    cores: int
    minutes: float
    data_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that gave no row.

    Attributes:
        experiment: its name.
        seed: what it was given.
        reason: why there is no row, in one line.
        log: all that the run printed, a traceback included.
    """

    experiment: str
    seed: int
    reason: str
    log: str


@dataclasses.dataclass
class Report:
    """What `run` did.

    Attributes:
        saved: rows measured now.
        skipped: how many runs were not needed, because their rows were there.
        failures: runs that raised, crashed or took too long.
    """

    saved: list[Row] = dataclasses.field(default_factory=list)
    skipped: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Standing:
    """An experiment's place on a leaderboard: one metric over its seeds.

    Attributes:
        rows: the experiment's rows, one for each seed.
        mean: the metric's mean over the rows.
        lowest: its lowest value.
        highest: its highest value.
    """

    rows: list[Row]
    mean: float
    lowest: float
    highest: float

    def mean_of(self, metric: str) -> float:
        """Return another metric's mean over the rows."""
        return statistics.fmean(row.metrics[metric] for row in self.rows)

    def parts(self, prefix: str = "excess_", suffix: str = "_bits_per_token") -> dict[str, float]:
        """Return the means of what a total is split into, by name: `excess_copy_name_bits_per_token` as "copy-name"."""
        shortest = len(prefix) + len(suffix) + 1
        return {
            metric[len(prefix) : -len(suffix)].replace("_", "-"): self.mean_of(metric)
            for metric in self.rows[0].metrics
            if metric.startswith(prefix) and metric.endswith(suffix) and len(metric) >= shortest
        }


def run(
    chapter: str,
    names: Collection[str] | None = None,
    workers: int = 2,
    *,
    again: bool = False,
    limit_minutes: float | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> Report:
    """Measure a chapter's experiments and save each row as soon as it is there.

    A run whose row is saved with the same settings is not repeated. Ctrl-C ends what is running and keeps what is
    done. A run that fails does not stop the others, and its older row stays. Rows of experiments and seeds that
    the chapter no longer lists are removed when the whole chapter is run.

    Args:
        chapter: as in "ch01", "01" or "1".
        names: which experiments; None is all of them.
        workers: how many runs at a time, each on one core.
        again: measure also what is saved already.
        limit_minutes: how long one run may take by the clock; None is what its experiment says.
        folder: where the rows are; by default the course's data/results.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if the chapter has no experiments, a name is not one of them, or workers is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}.")
    chapter = canonical_chapter(chapter)
    experiments = find_experiments(chapter)
    tasks = [(name, seed) for name in _chosen(names, experiments) for seed in experiments[name].seeds]
    if names is None:
        _save(chapter, folder, only=tasks)
    rows = {(row.experiment, row.seed): row for row in load(chapter, folder)}
    pending = [
        (name, seed)
        for name, seed in tasks
        if again or not _is_current(rows.get((name, seed)), experiments[name])
    ]
    limits = {
        name: each.limit_minutes if limit_minutes is None else limit_minutes
        for name, each in experiments.items()
    }
    report = Report(skipped=len(tasks) - len(pending))
    outcomes = _carry_out(_module_name(chapter), pending, workers, limits)
    with contextlib.closing(outcomes), _progress_bar(len(pending), chapter, progress) as bar:
        for name, seed, outcome in outcomes:
            bar.update()
            if isinstance(outcome, Failure):
                report.failures.append(outcome)
                continue
            row = _row(chapter, name, seed, experiments[name], outcome)
            _save(chapter, folder, [row])
            report.saved.append(row)
    return report


def load(chapter: str, folder: Path | None = None) -> list[Row]:
    """Return a chapter's saved rows, sorted by dataset, experiment and seed; none where nothing was run.

    Args:
        chapter: as in "ch01", "01" or "1".
        folder: where the rows are; by default the course's data/results.
    """
    path = _path(canonical_chapter(chapter), folder)
    return [_decode(entry) for entry in json.loads(path.read_text("utf-8"))] if path.exists() else []


def leaderboard(
    dataset: str, metric: str = "bits_per_byte", *, highest_first: bool = False, folder: Path | None = None
) -> list[Row]:
    """Return all chapters' rows on a dataset, the best first.

    Args:
        dataset: its name; see `datasets_with_results`.
        metric: what to rank by. Rows without it are left out. Bits per byte compare models whatever their
            tokenizers; perplexities compare only with equal tokens.
        highest_first: whether more is better.
        folder: where the rows are; by default the course's data/results.
    """
    rows = [row for row in _load_all(folder) if row.dataset == dataset and metric in row.metrics]
    return sorted(rows, key=lambda row: row.metrics[metric], reverse=highest_first)


def standings(
    dataset: str,
    metric: str = "bits_per_byte",
    *,
    until: str | None = None,
    highest_first: bool = False,
    folder: Path | None = None,
) -> list[Standing]:
    """Return the experiments on a dataset, the best mean over their seeds first.

    Args:
        dataset: as in `leaderboard`, and so metric, highest_first and folder.
        metric: what to rank by.
        until: the last chapter to take, as in "ch02": the leaderboard as it stands there. Default: all.
        highest_first: whether more is better.
        folder: where the rows are.
    """
    by_experiment: dict[tuple[str, str], list[Row]] = {}
    for row in leaderboard(dataset, metric, folder=folder):
        if until is not None and row.chapter > canonical_chapter(until):
            continue
        by_experiment.setdefault((row.chapter, row.experiment), []).append(row)
    entries = [_standing(rows, metric) for rows in by_experiment.values()]
    return sorted(entries, key=lambda standing: standing.mean, reverse=highest_first)


def datasets_with_results(folder: Path | None = None) -> list[str]:
    """Return the names of the datasets that rows were measured on, in alphabetical order."""
    return sorted({row.dataset for row in _load_all(folder)})


def find_experiments(chapter: str) -> dict[str, Experiment]:
    """Return a chapter's experiments by name.

    Raises:
        ValueError: if there is no such chapter, or it has no experiments.
    """
    module_name = _module_name(chapter)
    try:
        return dict(importlib.import_module(module_name).EXPERIMENTS)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the chapter has experiments; something that they import is missing
        raise ValueError(f"chapter {chapter!r} has no experiments ({module_name} does not exist).") from None


def canonical_chapter(chapter: str) -> str:
    """Return a chapter's name as its files begin with it.

    Raises:
        ValueError: if there is no such chapter.

    Example:
        >>> canonical_chapter("1"), canonical_chapter("ch10")
        ('ch01', 'ch10')
    """
    number, _ = chapters.find(chapter)
    return f"ch{number}"


def readable_time(minutes: float) -> str:
    """Return a time of which a reader needs two digits or so, in seconds below 100.

    Example:
        >>> readable_time(0.02), readable_time(0.004), readable_time(1.25), readable_time(1.75)
        ('1 s', '<1 s', '75 s', '1.8 min')
    """
    seconds = round(minutes * 60)
    if seconds >= 100:
        return f"{minutes:.1f} min"
    return f"{seconds} s" if seconds else "<1 s"


def installed_versions() -> dict[str, str]:
    """Return the versions a row records, read from the packages' metadata: nothing is imported."""
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _module_name(chapter: str) -> str:
    _, name = chapters.find(chapter)
    return f"{PACKAGE}.{name}.experiments"


def _chosen(names: Collection[str] | None, experiments: Mapping[str, Experiment]) -> list[str]:
    unknown = sorted(set(names or ()) - set(experiments))
    if unknown:
        raise ValueError(
            f"names must be among this chapter's experiments, {', '.join(experiments)}; got {', '.join(unknown)}."
        )
    return [name for name in experiments if names is None or name in names]


def _is_current(row: Row | None, experiment: Experiment) -> bool:
    """Return whether a saved row answers what the experiment asks now."""
    return row is not None and (row.model, row.dataset, row.settings) == (
        experiment.model,
        experiment.dataset,
        _as_json(experiment.settings),
    )


def _row(chapter: str, name: str, seed: int, experiment: Experiment, outcome: dict[str, Any]) -> Row:
    return Row(
        chapter=chapter,
        experiment=name,
        model=experiment.model,
        dataset=experiment.dataset,
        seed=seed,
        metrics={metric: _rounded(float(value)) for metric, value in outcome["metrics"].items()},
        settings=_as_json(experiment.settings),
        versions=installed_versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cores=CORES_PER_RUN,
        minutes=round(outcome["minutes"], 4),
        data_sha256=outcome["data_sha256"],
    )


def _standing(rows: list[Row], metric: str) -> Standing:
    values = [row.metrics[metric] for row in rows]
    return Standing(rows, statistics.fmean(values), min(values), max(values))


def _folder(folder: Path | None) -> Path:
    return course_root() / "data" / "results" if folder is None else Path(folder)


def _path(chapter: str, folder: Path | None) -> Path:
    return _folder(folder) / f"{chapter}.json"


def _load_all(folder: Path | None) -> list[Row]:
    return [row for path in sorted(_folder(folder).glob("ch??.json")) for row in load(path.stem, folder)]


def _save(
    chapter: str,
    folder: Path | None,
    rows: Iterable[Row] = (),
    only: Collection[tuple[str, int]] | None = None,
) -> None:
    """Add rows to a chapter's file, each in place of an older one of its experiment and seed.

    The file is read anew under a lock: of two runs of one chapter at a time, neither loses the other's rows. It has
    a row a line, so that a diff shows what changed, and a reader never sees half of it.

    Args:
        chapter: as in "ch01".
        folder: where the rows are; by default the course's data/results.
        rows: what to add.
        only: the experiments and seeds to keep; None keeps all.
    """
    path = _path(chapter, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        saved = {(row.experiment, row.seed): row for row in [*load(chapter, folder), *rows]}
        kept = [row for key, row in saved.items() if only is None or key in only]
        kept.sort(key=lambda row: (row.dataset, row.experiment, row.seed))
        lines = [
            json.dumps(_encode(row), sort_keys=True, ensure_ascii=False, allow_nan=False) for row in kept
        ]
        if lines or path.exists():
            write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes that lock the folder waiting; not where the system or the disk has no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which ends the lock, as does the end of the process


def _encode(row: Row) -> dict[str, Any]:
    """Return what JSON can hold; it has no infinity, so that is written as a string."""
    fields = dataclasses.asdict(row)
    fields["metrics"] = {
        name: value if math.isfinite(value) else str(value) for name, value in row.metrics.items()
    }
    return fields


def _decode(entry: dict[str, Any]) -> Row:
    return Row(**entry | {"metrics": {name: float(value) for name, value in entry["metrics"].items()}})


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as they come back from a file: tuples as lists."""
    return json.loads(json.dumps(dict(settings)))


class _Run:
    """One experiment with one seed, being measured in a process of its own."""

    def __init__(self, module_name: str, name: str, seed: int, limit_minutes: float):
        self.name, self.seed = name, seed
        self._limit_seconds = limit_minutes * 60
        self._deadline = time.monotonic() + self._limit_seconds
        self._folder = tempfile.TemporaryDirectory(prefix="lmcourse-results-")
        self._answer = Path(self._folder.name) / "answer.json"
        self._log = Path(self._folder.name) / "log.txt"
        arguments = [module_name, name, str(seed), str(self._answer), str(self._limit_seconds)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from lmcourse.results import _answer; _answer()", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                process_group=0,  # Ctrl-C reaches this process alone, which then ends the others in order
            )

    def outcome(self) -> dict[str, Any] | Failure | None:
        """Return the measurement, or why there is none, or None while it is not known."""
        if self._process.poll() is None:
            if time.monotonic() < self._deadline:
                return None
            return self._failure(f"took more than {self._limit_seconds / 60:g} minutes")
        if not self._answer.exists():
            return self._failure(f"ended with status {self._process.returncode} and no answer")
        answer = json.loads(self._answer.read_text("utf-8"))
        return self._failure(answer["error"]) if "error" in answer else answer

    def _failure(self, reason: str) -> Failure:
        return Failure(self.name, self.seed, reason, self._log.read_text("utf-8", errors="replace"))

    def close(self) -> None:
        """End the process and what it started, and remove its files."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


def _carry_out(
    module_name: str, tasks: list[tuple[str, int]], workers: int, limits: Mapping[str, float]
) -> Iterator[tuple[str, int, dict[str, Any] | Failure]]:
    """Run the tasks, `workers` at a time; yield name, seed and outcome of each as it ends."""
    waiting, running = list(tasks), []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name, seed = waiting.pop(0)
                running.append(_Run(module_name, name, seed, limits[name]))
            for candidate in list(running):
                outcome = candidate.outcome()
                if outcome is not None:
                    running.remove(candidate)
                    candidate.close()
                    yield candidate.name, candidate.seed, outcome
            time.sleep(POLL_SECONDS)
    finally:
        for candidate in running:
            candidate.close()


def _environment() -> dict[str, str]:
    """Return this process's environment, kept to one core and to the same modules."""
    return {
        **os.environ,
        **dict.fromkeys(THREAD_VARIABLES, str(CORES_PER_RUN)),
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "2",  # its notes about the processor would hide the error in the log
    }


def _answer() -> None:
    """Measure what the command line names; this is what a run's process executes."""
    module_name, name, seed, path, limit_seconds = sys.argv[1:]
    # The parent enforces the limit; should it be killed, this ends the orphan.
    signal.alarm(math.ceil(float(limit_seconds)) + 10)
    try:
        answer = _measured(importlib.import_module(module_name).EXPERIMENTS[name], int(seed))
    except Exception as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    write_text(path, json.dumps(answer))


def _measured(experiment: Experiment, seed: int) -> dict[str, Any]:
    start = time.monotonic()
    measurement = experiment.measure(seed, **experiment.settings)
    return {
        "metrics": {metric: float(value) for metric, value in measurement.metrics.items()},
        "data_sha256": measurement.data_sha256,
        "minutes": (time.monotonic() - start) / 60,
    }


def _progress_bar(total: int, chapter: str, shown: bool) -> "tqdm":
    from tqdm import tqdm

    return tqdm(total=total, desc=chapter, unit="run", disable=not shown)
