"""The doctor: every fault it can find is injected, and every finding that is not ok says how to mend it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmcourse import cli, datasets
from lmcourse.commands import doctor
from lmcourse.commands.doctor import GIB, Finding

HEALTHY = {
    "tensorflow": {"version": "2.21.0"},
    "keras": {"version": "3.15.1"},
    "tensorflow_text": {"version": "2.21.1"},
    "backend": {"version": "tensorflow"},
    "gpus": {"version": 0},
}


@pytest.fixture
def healthy(monkeypatch):
    """A machine on which importing the libraries went well, without the seconds it takes."""
    monkeypatch.setattr(doctor, "probe_libraries", lambda: HEALTHY)
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 16 * GIB)


def test_this_machine_runs_the_course():
    findings = doctor.examine()  # TensorFlow is really imported
    assert [finding for finding in findings if finding.status == "fault"] == []
    versions = {finding.name: finding.detail for finding in findings}
    assert versions["tensorflow"].split(".")[:2] == versions["tensorflow-text"].split(".")[:2]


@pytest.mark.parametrize(
    ("version", "system", "machine", "status", "word"),
    [
        ((3, 11, 0), "linux", "x86_64", "ok", ""),
        ((3, 13, 9), "darwin", "arm64", "ok", ""),
        ((3, 10, 13), "linux", "x86_64", "fault", "Install Python 3.11"),
        ((3, 14, 0), "linux", "x86_64", "fault", "Install Python 3.11"),
        ((3, 12, 1), "win32", "AMD64", "fault", "WSL2"),
        ((3, 12, 1), "darwin", "x86_64", "fault", "Intel Macs"),
    ],
)
def test_python_and_its_platform_are_judged(version, system, machine, status, word):
    finding = doctor.check_python(version, system, machine)
    assert finding.status == status
    assert word in finding.fix


def test_the_doctors_range_of_pythons_is_the_packages():
    lines = (Path(doctor.__file__).parents[2] / "pyproject.toml").read_text().splitlines()
    oldest, newest = doctor.OLDEST_PYTHON, doctor.NEWEST_PYTHON
    assert f'requires-python = ">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"' in lines


def test_a_missing_library_is_a_fault_mended_by_installing_the_requirements():
    facts = HEALTHY | {"keras": {"error": "ModuleNotFoundError: No module named 'keras'"}}
    assert doctor.check_library("keras", facts) == Finding("keras", "fault", "not installed", doctor.INSTALL)


def test_a_broken_library_is_a_fault_mended_by_installing_it_again():
    facts = HEALTHY | {"tensorflow_text": {"error": "NotFoundError: undefined symbol: _ZN4absl"}}
    finding = doctor.check_library("tensorflow_text", facts)
    assert (finding.status, finding.detail) == ("fault", "NotFoundError: undefined symbol: _ZN4absl")
    assert finding.fix.startswith("pip install --force-reinstall --no-deps tensorflow-text==2.")


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "an instruction this processor lacks"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (signal 11)"),
        ("raise SystemExit(3)", "it ended with 3"),
    ],
)
def test_a_crash_while_importing_is_a_finding(code, detail):
    before = 'print(\'{"name": "tensorflow", "version": "2.21.0"}\', flush=True); '
    facts = doctor.probe_libraries(before + code)
    assert doctor.check_library("tensorflow", facts).status == "ok"
    assert detail in doctor.check_library("keras", facts).detail
    after = doctor.check_library("tensorflow_text", facts)
    assert (after.status, after.detail) == ("fault", "not tried, because an import before it failed")


def test_an_import_that_hangs_is_a_finding():
    facts = doctor.probe_libraries("import time; time.sleep(60)", timeout=0.5)
    assert doctor.check_library("tensorflow", facts).detail == "the import took more than 0.5 seconds"


def test_the_probe_reports_an_import_that_raises(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise OSError('libdevice not found')")
    (tmp_path / "keras.py").write_text("raise ImportError('numpy.dtype size changed')")
    (tmp_path / "tensorflow_text.py").write_text("__version__ = '2.19.0'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.probe_libraries() == {
        "tensorflow": {"error": "OSError: libdevice not found"},
        "keras": {"error": "ImportError: numpy.dtype size changed"},
        "tensorflow_text": {"version": "2.19.0"},
    }


def test_versions_that_do_not_match_are_a_fault_with_the_right_version_in_the_fix():
    facts = HEALTHY | {"tensorflow_text": {"version": "2.20.1"}}
    finding = doctor.check_text_matches_tensorflow(facts)
    assert (finding.status, finding.fix) == ("fault", 'pip install "tensorflow-text==2.21.*"')


def test_another_keras_backend_is_a_fault():
    finding = doctor.check_backend(HEALTHY | {"backend": {"version": "jax"}})
    assert (finding.status, finding.fix) == ("fault", "export KERAS_BACKEND=tensorflow")


@pytest.mark.parametrize(
    ("present", "usable", "status", "word"),
    [
        ([], 0, "ok", "`quick`"),
        (["Tesla T4"], 1, "ok", "TensorFlow uses 1: Tesla T4"),
        (["Tesla T4"], 0, "warning", "does not see the Tesla T4"),
    ],
)
def test_a_gpu_that_tensorflow_does_not_see_is_a_warning(present, usable, status, word):
    finding = doctor.check_gpu(HEALTHY | {"gpus": {"version": usable}}, present)
    assert finding.status == status
    assert word in finding.detail


@pytest.mark.parametrize(("gib", "status"), [(1, "fault"), (4, "warning"), (8, "ok")])
def test_memory_is_judged(gib, status):
    assert doctor.check_memory(gib * GIB).status == status


def test_memory_that_the_system_does_not_tell_is_a_warning(monkeypatch):
    monkeypatch.delattr(doctor.os, "sysconf")  # Windows has neither this nor control groups
    monkeypatch.setattr(doctor, "CONTAINER_LIMITS", ())
    finding = doctor.check_memory()
    assert (finding.status, finding.detail) == ("warning", "not known here")
    assert "2 GiB" in finding.fix


def test_memory_is_at_most_the_machines():
    listing = Path("/proc/meminfo")
    if not listing.exists():
        pytest.skip("the reference value is Linux's /proc/meminfo")
    total_kib = int(listing.read_text().split()[1])
    assert 0 < doctor.memory_bytes() <= total_kib * 1024


@pytest.mark.parametrize(("gib", "status"), [(0.4, "fault"), (0.6, "warning"), (2, "ok")])
def test_disk_is_judged_even_before_the_cache_exists(tmp_path, gib, status):
    finding = doctor.check_disk(tmp_path / "not" / "yet", free=int(gib * GIB))
    assert finding.status == status
    assert bool(finding.fix) == (status != "ok")


def test_a_cache_that_cannot_be_written_to_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    finding = doctor.check_disk(tmp_path)
    assert finding.status == "fault"
    assert "LMCOURSE_CACHE" in finding.fix


def test_notebooks_run_in_this_python():
    assert doctor.check_kernel().status == "ok"


def test_a_kernel_of_another_python_is_a_fault():
    finding = doctor.check_kernel(["/opt/other/bin/python", "-m", "ipykernel_launcher"])
    assert finding.status == "fault"
    assert "/opt/other/bin/python" in finding.detail


def test_a_missing_ipykernel_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.check_kernel() == Finding("kernel", "fault", "ipykernel is not installed", doctor.INSTALL)


def test_data_that_has_been_changed_is_a_fault(monkeypatch):
    def damaged(name):
        raise datasets.DatasetError(f"{name} has been changed")

    monkeypatch.setattr(datasets, "verify", damaged)
    finding = doctor.check_data()
    assert (finding.status, finding.fix) == ("fault", "git restore data")


def test_an_empty_cache_is_fine_and_says_how_to_fill_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCOURSE_CACHE", str(tmp_path))
    finding = doctor.check_data()
    assert finding.status == "ok"
    assert finding.detail.startswith("0 of ")
    assert finding.detail.endswith("lmcourse data fetch --all")


def test_every_finding_that_is_not_ok_says_how_to_mend_it(monkeypatch):
    monkeypatch.setattr(doctor, "probe_libraries", lambda: {"tensorflow": {"error": "it ended with 1"}})
    monkeypatch.setattr(doctor, "memory_bytes", lambda: GIB)
    findings = doctor.examine()
    assert {finding.status for finding in findings} == {"ok", "warning", "fault"}
    assert [finding for finding in findings if finding.status != "ok" and not finding.fix] == []


def test_the_command_ends_with_zero_where_all_is_well(healthy, capsys):
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("The course runs here.\n")


def test_the_command_ends_with_one_at_a_fault_and_prints_the_fix(healthy, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "memory_bytes", lambda: GIB)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    fault = next(number for number, line in enumerate(lines) if line.startswith("fault"))
    assert lines[fault].split() == ["fault", "memory", "1.0", "GiB"]
    assert lines[fault + 1].strip() == "-> Use a machine with 2 GiB or more, or Colab."
    assert lines[-1] == "To mend before you start: 1."


def test_json_holds_the_same_findings(healthy, capsys):
    assert cli.main(["doctor", "--json"]) == 0
    assert [Finding(**found) for found in json.loads(capsys.readouterr().out)] == doctor.examine()


def test_the_doctor_starts_where_nothing_is_installed():
    # -S leaves site-packages out: only the standard library and this clone remain.
    code = (
        "from lmcourse.commands import doctor\n"
        "doctor.probe_libraries = dict\n"
        "print(doctor.report(doctor.examine()))"
    )
    root = Path(doctor.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "ipykernel is not installed" in ended.stdout
