"""`lmcourse doctor`: is this machine set up for the course, and if not, what mends it.

Each check returns one `Finding`. Nothing here needs more than Python itself, so that it also runs where the
set-up went wrong: the libraries are imported in a process of their own.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lmcourse import paths, scale

GIB = 2**30

# JupyterLab and an idle kernel with TensorFlow take 0.8 GiB (Linux); fine-tuning chapter 6's model takes 4.2.
MEMORY_NEEDED, MEMORY_COMFORTABLE = 2 * GIB, 6 * GIB
# `lmcourse data fetch --all` downloads about 310 MB and unpacks it to a little more.
DISK_NEEDED, DISK_COMFORTABLE = GIB // 2, GIB

# Where Linux says how much memory a container may use: control groups of version 2, of version 1.
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
LIBRARIES = {"tensorflow": "tensorflow", "keras": "keras", "tensorflow_text": "tensorflow-text"}
INSTALL = "pip install -r requirements.txt"

# One line of JSON for each thing learned, printed at once: what a crash leaves out is what crashed.
PROBE = """
import importlib, json

def tell(**facts):
    print(json.dumps(facts), flush=True)

for name in ("tensorflow", "keras", "tensorflow_text"):
    try:
        tell(name=name, version=importlib.import_module(name).__version__)
    except Exception as error:
        tell(name=name, error=f"{type(error).__name__}: {error}".splitlines()[0])
try:
    import keras
    tell(name="backend", version=keras.backend.backend())
    import tensorflow
    tell(name="gpus", version=len(tensorflow.config.list_physical_devices("GPU")))
except Exception:
    pass
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was checked.
        status: "ok", "warning" (the course runs, with limits) or "fault" (it does not).
        detail: what was found, in a line.
        fix: what to do about a warning or a fault, in a line.
    """

    name: str
    status: Literal["ok", "warning", "fault"]
    detail: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every finding.

    Returns:
        0 if the course runs here, 1 if there is a fault.
    """
    findings = examine()
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print(report(findings))
    return int(any(finding.status == "fault" for finding in findings))


def examine() -> list[Finding]:
    """Run every check; importing TensorFlow for them takes some seconds."""
    facts = probe_libraries()
    return [
        check_python(),
        *(check_library(name, facts) for name in LIBRARIES),
        check_text_matches_tensorflow(facts),
        check_backend(facts),
        check_gpu(facts),
        check_memory(),
        check_disk(),
        check_kernel(),
        check_data(),
    ]


def report(findings: Iterable[Finding]) -> str:
    """Lay the findings out as text: a line each, and below it how to mend what is wrong."""
    findings = list(findings)
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.name:<{width}}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.fix}")
    faults = sum(finding.status == "fault" for finding in findings)
    lines.append("\nThe course runs here." if not faults else f"\nTo mend before you start: {faults}.")
    return "\n".join(lines)


def probe_libraries(code: str = PROBE, timeout: float = 300) -> dict[str, dict[str, Any]]:
    """Import TensorFlow, Keras and tensorflow-text in a process of their own and return what was learned.

    Args:
        code: the Python code to run there.
        timeout: in seconds; a first import from a cold, slow disk can take minutes.

    Returns:
        For each name, `version` or `error`. After a crash, the name that was being imported has the crash as
        its error, and those after it have none of the two.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        output, ending = process.stdout, describe_exit(process.returncode)
    except subprocess.TimeoutExpired as expired:
        # The output collected so far is bytes even where text was asked for.
        output, ending = (expired.stdout or b"").decode(), f"the import took more than {timeout:g} seconds"
    facts = {fact.pop("name"): fact for fact in map(json.loads, output.splitlines())}
    unfinished = [name for name in LIBRARIES if name not in facts]
    if unfinished:
        facts[unfinished[0]] = {"error": ending}
    return facts


def describe_exit(returncode: int) -> str:
    """Say how a process ended; on Unix a negative status is the signal that killed it."""
    if returncode == -4:
        return "the import crashed on an instruction this processor lacks (TensorFlow needs AVX)"
    return f"the import crashed (signal {-returncode})" if returncode < 0 else f"it ended with {returncode}"


def check_python(
    version: Sequence[int] = sys.version_info, system: str = sys.platform, machine: str | None = None
) -> Finding:
    """Check the Python version, and that TensorFlow and tensorflow-text exist for this kind of machine."""
    machine = machine or platform.machine()
    detail = f"{'.'.join(map(str, version[:3]))} on {system} {machine}"
    if not OLDEST_PYTHON <= tuple(version[:2]) <= NEWEST_PYTHON:
        fix = "Install Python 3.11, 3.12 or 3.13 and set up again: make lab PYTHON=python3.12"
        return Finding("Python", "fault", detail, fix)
    if system == "win32":
        fix = "tensorflow-text has no Windows version: use the course inside WSL2 (wsl --install)."
        return Finding("Python", "fault", detail, fix)
    if (system, machine) == ("darwin", "x86_64"):
        fix = "TensorFlow no longer supports Intel Macs (on Apple silicon, use an arm64 Python): try Colab."
        return Finding("Python", "fault", detail, fix)
    return Finding("Python", "ok", detail)


def check_library(name: str, facts: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Check that a library imports.

    Args:
        name: its module.
        facts: what `probe_libraries` learned.
    """
    label, fact = LIBRARIES[name], facts.get(name, {})
    if "version" in fact:
        return Finding(label, "ok", str(fact["version"]))
    error = fact.get("error")
    if error is None:
        return Finding(
            label, "fault", "not tried, because an import before it failed", "Mend that one first."
        )
    missing = f"No module named {name!r}" in error
    fix = INSTALL if missing else f"pip install --force-reinstall --no-deps {label}=={locked_version(label)}"
    return Finding(label, "fault", "not installed" if missing else error, fix)


def locked_version(distribution: str) -> str:
    """Return the version of a distribution in requirements.txt, or `*` where there is no such file."""
    lock = paths.PACKAGE.parent / "requirements.txt"
    pins = lock.read_text().split() if lock.is_file() else []
    return next((pin.split("==")[1] for pin in pins if pin.startswith(f"{distribution}==")), "*")


def check_text_matches_tensorflow(facts: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Check that tensorflow-text was compiled against this TensorFlow: their minor versions are equal."""
    name = "versions match"
    versions = [facts.get(library, {}).get("version") for library in ("tensorflow", "tensorflow_text")]
    if None in versions:
        return Finding(name, "warning", "not checked: a library does not import", "See above.")
    tensorflow, text = (".".join(version.split(".")[:2]) for version in versions)
    detail = f"TensorFlow {tensorflow}, tensorflow-text {text}"
    if tensorflow == text:
        return Finding(name, "ok", detail)
    return Finding(name, "fault", detail, f'pip install "tensorflow-text=={tensorflow}.*"')


def check_backend(facts: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Check that Keras computes with TensorFlow, and not with a backend set for another project."""
    backend = facts.get("backend", {}).get("version")
    if backend is None:
        return Finding("Keras backend", "warning", "not checked: Keras does not import", "See above.")
    if backend == "tensorflow":
        return Finding("Keras backend", "ok", backend)
    fix = "export KERAS_BACKEND=tensorflow"
    return Finding("Keras backend", "fault", f"{backend}; the course needs tensorflow", fix)


def check_gpu(facts: Mapping[str, Mapping[str, Any]], present: Sequence[str] | None = None) -> Finding:
    """Check that TensorFlow sees the CUDA GPUs the machine has; to have none is fine.

    Args:
        facts: what `probe_libraries` learned.
        present: the names of the machine's GPUs; by default, those the driver reports.
    """
    present = scale.cuda_gpus() if present is None else present
    usable = facts.get("gpus", {}).get("version", 0)
    if usable:
        return Finding("GPU", "ok", f"TensorFlow uses {usable}: {', '.join(present) or 'of another make'}")
    if not present:
        return Finding("GPU", "ok", "none; the notebooks run at the scale `quick`")
    version = facts.get("tensorflow", {}).get("version", "2.21.0")
    fix = f'pip install "tensorflow[and-cuda]=={version}" (about 3 GB), or go on without it.'
    return Finding("GPU", "warning", f"TensorFlow does not see the {present[0]}", fix)


def check_memory(total: int | None = None) -> Finding:
    """Check the memory of the machine or container, in bytes."""
    total = memory_bytes() if total is None else total
    if total is None:
        return Finding("memory", "warning", "not known here", "Make sure that there are 2 GiB; 6 are better.")
    detail = f"{total / GIB:.1f} GiB"
    if total < MEMORY_NEEDED:
        return Finding("memory", "fault", detail, "Use a machine with 2 GiB or more, or Colab.")
    if total < MEMORY_COMFORTABLE:
        fix = "Close other programs before chapters 4 and 6; with less than 6 GiB they may not fit."
        return Finding("memory", "warning", detail, fix)
    return Finding("memory", "ok", detail)


def memory_bytes() -> int | None:
    """Return the memory this process may use: the machine's, or its container's limit if that is lower.

    Returns:
        The bytes; None where the system does not tell, as Windows does not without a library.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for file in CONTAINER_LIMITS:
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or "max": no limit
    return min(limits, default=None)


def check_disk(folder: Path | None = None, free: int | None = None) -> Finding:
    """Check the free space, in bytes, where downloads go."""
    folder = paths.cache_root() if folder is None else folder
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free if free is None else free
    detail = f"{free / GIB:.1f} GiB free for downloads in {short(folder)}"
    if not os.access(existing, os.W_OK):
        fix = "Name a folder you may write to: export LMCOURSE_CACHE=/path/to/folder"
        return Finding("disk", "fault", f"{short(existing)} cannot be written to", fix)
    fix = "Free some space, or put the downloads elsewhere: export LMCOURSE_CACHE=/path/to/folder"
    if free < DISK_NEEDED:
        return Finding("disk", "fault", detail, fix)
    return Finding(
        "disk", "warning" if free < DISK_COMFORTABLE else "ok", detail, fix * (free < DISK_COMFORTABLE)
    )


def check_kernel(argv: Sequence[str] | None = None) -> Finding:
    """Check that notebooks run in this Python.

    Args:
        argv: the call of the kernel that notebooks name, "python3"; by default, what Jupyter finds.
    """
    if importlib.util.find_spec("ipykernel") is None:
        return Finding("kernel", "fault", "ipykernel is not installed", INSTALL)
    argv = kernel_call() if argv is None else argv
    executable = Path(sys.executable if argv[0] in ("python", "python3") else argv[0])
    if executable.absolute() == Path(sys.executable).absolute():
        return Finding("kernel", "ok", f"notebooks run in {short(executable)}")
    fix = f"{sys.executable} -m ipykernel install --sys-prefix, or open notebooks with `lmcourse lab`"
    return Finding("kernel", "fault", f"notebooks run in another Python, {short(executable)}", fix)


def short(path: Path) -> str:
    """Return a path from the clone or the home folder on, where it lies in one of them."""
    path = path.absolute()
    for folder, name in ((paths.PACKAGE.parent, ""), (Path.home(), "~")):
        if path.is_relative_to(folder):
            return str(Path(name) / path.relative_to(folder))
    return str(path)


def kernel_call() -> list[str]:
    """Return the call of the kernel named "python3", which every notebook of the course asks for."""
    from jupyter_client.kernelspec import KernelSpecManager

    return KernelSpecManager().get_kernel_spec("python3").argv


def check_data() -> Finding:
    """Check the data that came with the course, and count the downloads; chapters say which they need."""
    try:
        from lmcourse import datasets
    except ImportError as error:
        return Finding("data", "fault", f"a library is missing: {error}", INSTALL)
    try:
        entries = datasets.entries().values()
        for entry in entries:
            if entry.kind == "bundled":
                datasets.verify(entry.name)
    except datasets.DatasetError as error:
        return Finding("data", "fault", str(error), "git restore data")
    downloads = [entry.name for entry in entries if entry.is_downloaded]
    fetched = sum(map(datasets.available, downloads))
    detail = f"{fetched} of {len(downloads)} downloads in {short(paths.cache_root())}"
    hint = "" if fetched == len(downloads) else "; for the rest: lmcourse data fetch --all"
    return Finding("data", "ok", detail + hint)
