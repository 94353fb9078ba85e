"""What this machine tells of its processes and folders."""

import contextlib
import dataclasses
import math
import os
import re
import subprocess
from collections.abc import Sequence

from lmcourse.sandbox.terms import LINUX

_MOST_FILES = 20_000


@dataclasses.dataclass(frozen=True)
class Running:
    """A process of this machine at a moment: processor time in seconds, resident memory in bytes."""

    pid: int
    parent: int
    state: str
    cpu: float
    began: int
    memory: int
    threads: int = 1


def processes() -> dict[int, Running]:
    """Return the processes that this one can see."""
    return processes_of_linux() if LINUX else processes_of_ps()


def processes_of_linux() -> dict[int, Running]:
    """Return what /proc says."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                line = file.read()
        except OSError:
            continue  # it has ended meanwhile
        # proc_pid_stat(5); the second field, a name in parentheses, may hold anything, parentheses too.
        fields = line[line.rindex(b")") + 2 :].split()
        state, parent = fields[0].decode(), int(fields[1])
        cpu = (int(fields[11]) + int(fields[12])) / ticks
        pid = int(name)
        found[pid] = Running(
            pid, parent, state, cpu, int(fields[19]), int(fields[21]) * page, int(fields[17])
        )
    return found


def processes_of_ps() -> dict[int, Running]:
    """Return what POSIX's ps says; its start times are too coarse to tell a process from its successor, so none."""
    columns = ["ps", "-A", "-o", "pid=,ppid=,state=,rss=,time="]
    listed = subprocess.run(columns, capture_output=True, text=True, check=False).stdout
    found = {}
    for line in listed.splitlines():
        pid, parent, state, kib, clock = line.split()[:5]
        found[int(pid)] = Running(int(pid), int(parent), state[0], _clock(clock), 0, int(kib) * 1024)
    return found


def _clock(text: str) -> float:
    """Read ps's [days-][hours:]minutes:seconds.

    Example:
        >>> _clock("1-00:00:01"), _clock("2:03.50")
        (86401.0, 123.5)
    """
    days, _, clock = text.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds + 86400 * int(days or 0)


def proportional_memory(process: Running) -> int:
    """Return resident bytes, a page shared by n processes counted as 1/n: copies of a process share most."""
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            match = re.search(rb"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else process.memory


def folder_size(folder: str) -> float:
    """Return how many bytes a folder takes on the disk; infinite for more files than anybody needs."""
    size, seen, folders = 0, 0, [folder]
    while folders:
        # What cannot be read, or has gone meanwhile, is left out.
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_FILES:
                    return math.inf
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return size


def count_threads() -> int:
    """Return how many threads this process has, those that Python does not know included where that can be told."""
    if LINUX:
        return len(os.listdir("/proc/self/task"))
    import threading

    return threading.active_count()


def user_threads() -> int:
    """Return how many threads this user has."""
    count = 0
    for process in processes().values():
        with contextlib.suppress(OSError):
            if not LINUX or os.stat(f"/proc/{process.pid}").st_uid == os.getuid():
                count += process.threads
    return count


def real_paths(paths: Sequence[str | os.PathLike]) -> tuple[str, ...]:
    """Return the paths that exist, without symbolic links: what is not there can be neither shown nor hidden."""
    return tuple(os.path.realpath(path) for path in paths if os.path.exists(path))
