"""Run untrusted Python in a limited process.

Two doors lead to the same room. `run` starts a program; `fork` calls a function in a copy of this process, which has
made the expensive imports already. Either way the child has its own folder and its own session, and the parent
watches the clock and the child's whole family: their processor time, memory, number and output. Whatever goes past a
limit ends all of them.

On Linux the child also gets a world of its own, made of namespaces (bubblewrap makes the same one, where it is
installed): no network, every file system read-only but its folder and an empty /tmp, the hidden paths gone, no
process visible but its own, and no privileges, even for root. Elsewhere the limits are all there is: `missing` says
what that leaves open.

The chain of processes is: this one, the warden, (with namespaces) the first process of the new world, and the
untrusted one. The last but one is the keeper: it adopts orphans and reports how the untrusted process ended.
When the parent dies, the kernel kills the warden and, with namespaces, everything below it.
"""

import contextlib
import ctypes
import dataclasses
import errno
import functools
import json
import math
import os
import re
import resource
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

NAMESPACES, BUBBLEWRAP, LIMITS_ONLY = "namespaces", "bubblewrap", "limits only"

TOO_SLOW = "too slow"
OUT_OF_MEMORY = "out of memory"
TOO_MANY_PROCESSES = "too many processes"
TOO_MUCH_OUTPUT = "too much output"

_LINUX = sys.platform == "linux"
_MIB = 2**20
# A bomb gets this long before somebody looks: short enough that memory at 2 GB/s stays within 50 MB of its limit.
_LOOK_SECONDS = 0.025
# Looking at every process of a busy machine takes milliseconds; a tenth of a core is what watching may cost.
_LOOK_SHARE = 0.1
# A disk takes longer to fill than memory, and a folder longer to measure.
_MEASURE_SECONDS = 0.5
_MOST_FILES = 20_000
_DRAIN_SECONDS = 1.0
_KILL_SECONDS = 10.0
_TEMPORARY = ("/tmp", "/var/tmp")  # empty, private and writable in the child's world
_RUNTIME = (
    "/run"  # the sockets of the machine's services: read-only mounts do not stop anyone from connecting
)
_DEVICES = ("null", "zero", "full", "random", "urandom")


class SandboxError(RuntimeError):
    """The limited process could not be set up; nothing untrusted has run."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an untrusted program may use, all its processes together unless said otherwise.

    Attributes:
        seconds: time by the clock.
        cpu_seconds: processor time; None allows `seconds` on two cores.
        memory: bytes of resident memory, pages shared with others counted in part. Polled; the kernel refuses
            a single process more than twice this at once.
        processes: how many there may be.
        output: bytes written to standard output and error together.
        file_bytes: size of one file, and of the private /tmp.
        folder_bytes: everything in its folder; polled.
        open_files: descriptors of one process.
        threads: threads of all processes, where the kernel counts them (not for root on limits alone).

    Raises:
        ValueError: if a limit is not above zero.
    """

    seconds: float = 60.0
    cpu_seconds: float | None = None
    memory: int = 2048 * _MIB
    processes: int = 32
    output: int = _MIB
    file_bytes: int = 64 * _MIB
    folder_bytes: int = 512 * _MIB
    open_files: int = 256
    threads: int = 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ValueError(f"{field.name} must be above zero; got {value!r}.")

    @property
    def cpu(self) -> float:
        """Processor seconds allowed."""
        return 2 * self.seconds if self.cpu_seconds is None else self.cpu_seconds


@dataclasses.dataclass(frozen=True)
class Completed:
    """How a limited process ended.

    Attributes:
        returncode: its exit status, or minus the signal that ended it.
        stdout: what it printed, cut at the limit; bytes that are not UTF-8 are replaced.
        stderr: what it printed to standard error, likewise.
        why: "" where it ended by itself, otherwise the limit that ended it: "too slow", "out of memory",
            "too many processes" or "too much output", or what the caller told `Process.kill`.
        seconds: how long it took by the clock.
        memory: the most resident memory that was seen, in bytes; a page that copies of a process share may be
            counted for each of them.
    """

    returncode: int
    stdout: str
    stderr: str
    why: str = ""
    seconds: float = 0.0
    memory: int = 0


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What this machine can keep untrusted code from.

    Attributes:
        network: it cannot reach the network.
        filesystem: it cannot write outside its folder or read what is hidden.
        processes: it cannot see or outlive; without this a process that works at it may escape the limits.
        how: "namespaces", "bubblewrap" or "limits only".
    """

    network: bool
    filesystem: bool
    processes: bool
    how: str

    def missing(self) -> str:
        """Return, in a sentence, what is not prevented; empty where nothing is missing."""
        open_doors = [
            door
            for closed, door in (
                (self.network, "use the network"),
                (self.filesystem, "read and write this user's files"),
                (self.processes, "see this user's processes, and leave some running if it tries hard"),
            )
            if not closed
        ]
        if not open_doors:
            return ""
        return (
            f"Limits on time, memory, processes and output hold, but on this machine untrusted code can "
            f"{'; '.join(open_doors)}: run it where nothing is at stake."
        )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What the child's side has to know; it goes to a fresh interpreter as JSON."""

    how: str
    folder: str
    limits: Limits
    hidden: tuple[str, ...]
    readable: tuple[str, ...]
    parent: int
    threads: int  # those of this user's other processes, where the kernel's count includes them


def capabilities(door: str = "run") -> Capabilities:
    """Return what untrusted code can be kept from here; found by trying, once.

    Args:
        door: "run" or "fork": bubblewrap can isolate a program but not a copy of this process.

    Raises:
        ValueError: if door is another word.
    """
    if door not in ("run", "fork"):
        raise ValueError(f'door must be "run" or "fork"; got {door!r}.')
    for how in (BUBBLEWRAP, NAMESPACES) if door == "run" else (NAMESPACES,):
        if _works(how):
            return Capabilities(network=True, filesystem=True, processes=True, how=how)
    return Capabilities(network=False, filesystem=False, processes=False, how=LIMITS_ONLY)


def missing(door: str = "run") -> str:
    """Return, in a sentence to say once, what untrusted code is not kept from; empty where nothing is missing."""
    return capabilities(door).missing()


def run(
    argv: Sequence[str],
    *,
    folder: str | os.PathLike | None = None,
    limits: Limits | None = None,
    hidden: Sequence[str | os.PathLike] = (),
    readable: Sequence[str | os.PathLike] = (),
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    how: str | None = None,
) -> Completed:
    r"""Run a program to its end, or to the first limit that it passes.

    Args:
        argv: the program and its arguments.
        folder: where it runs and the one place where it may write; must exist. None: a fresh one, removed
            afterwards.
        limits: what it may use; the default is `Limits()`.
        hidden: files and folders that it must not read.
        readable: files and folders that it must read although they lie in a hidden one or in /tmp, which is
            private. Of two nested paths the inner one decides. The interpreter's own folders are readable.
        input: what it reads from standard input; text as UTF-8. None: nothing.
        env: variables added to a small environment (PATH, HOME, LANG, TMPDIR); nothing else is inherited.
        how: "namespaces", "bubblewrap" or "limits only" to insist on one; None takes the best that works.

    Raises:
        SandboxError: if the process cannot be set up.
        ValueError: if folder does not exist or how is another word.

    Example:
        >>> run([sys.executable, "-c", "print(6 * 7)"]).stdout
        '42\n'
        >>> run([sys.executable, "-c", "while True: pass"], limits=Limits(seconds=0.5)).why
        'too slow'
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(workspace()) if folder is None else folder
        options = {
            "limits": limits,
            "hidden": hidden,
            "readable": readable,
            "input": input,
            "env": env,
            "how": how,
        }
        with start(argv, folder=place, **options) as process:
            return process.wait()


def start(
    argv: Sequence[str],
    *,
    folder: str | os.PathLike,
    limits: Limits | None = None,
    hidden: Sequence[str | os.PathLike] = (),
    readable: Sequence[str | os.PathLike] = (),
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
    how: str | None = None,
) -> "Process":
    """Start a program as `run` does, and return the process to wait for.

    Args:
        argv: as for `run`, like everything not named here.
        folder: where it runs; must exist.
        limits: what it may use.
        hidden: what it must not read.
        readable: what it must read nevertheless.
        input: its standard input.
        env: variables to add.
        keep: descriptors that it inherits, under the same numbers; all others are closed.
        how: the way to isolate it.

    Raises:
        SandboxError: if the process cannot be set up.
        ValueError: if folder does not exist or how is another word.
    """
    plan = _plan("run", how, folder, limits, hidden, (*_interpreter(), *readable))
    order = {
        "plan": dataclasses.asdict(plan),
        "argv": list(argv),
        "env": _environment(plan, env),
        "keep": list(keep),
    }
    with contextlib.ExitStack() as stack:
        pipes = _Pipes(stack)
        data = stack.enter_context(tempfile.TemporaryFile())
        data.write(input.encode() if isinstance(input, str) else input or b"")
        data.seek(0)
        orders = stack.enter_context(tempfile.TemporaryFile())
        orders.write(json.dumps(order).encode())
        orders.seek(0)
        # A fresh interpreter that imports nothing but the standard library has one thread, whatever this one has:
        # only then may a process fork and enter a user namespace.
        launcher = [sys.executable, "-I", "-S", __file__, str(orders.fileno()), str(pipes.report_in)]
        warden = subprocess.Popen(
            launcher,
            cwd="/",
            stdin=data,
            stdout=pipes.out_in,
            stderr=pipes.err_in,
            pass_fds=(orders.fileno(), pipes.report_in, *keep),
            start_new_session=True,
        )
        return Process(warden.pid, plan, pipes.take(), warden)


def fork(
    work: Callable[[], Any],
    *,
    folder: str | os.PathLike,
    limits: Limits | None = None,
    hidden: Sequence[str | os.PathLike] = (),
    readable: Sequence[str | os.PathLike] = (),
    importable: Sequence[str | os.PathLike] | None = None,
    keep: Sequence[int] = (),
    how: str | None = None,
) -> "Process":
    """Call a function in a limited copy of this process, and return the process to wait for.

    The copy has what this process has imported, so it starts in milliseconds. What this process holds in memory it
    holds too: secrets must not be loaded before. Its exit status is 0 when the function returns, 1 when it raises
    (the traceback goes to its standard error), and the exception's own for SystemExit.

    Args:
        work: what to call; its result is dropped.
        folder: where it runs and the one place where it may write; must exist.
        limits: what it may use.
        hidden: files and folders that it must not read.
        readable: as for `run`.
        importable: folders that are readable too, so that it can import from them; None: those of `sys.path`.
        keep: descriptors that it inherits, pipes for events for example; all others are closed.
        how: "namespaces" or "limits only" to insist on one; None takes the best that works.

    Raises:
        SandboxError: if this process has more than one thread: a copy of it may hang in a lock that nobody holds.
        ValueError: if folder does not exist or how is another word.
    """
    threads = _count_threads()
    if threads > 1:
        raise SandboxError(
            f"Only a process with one thread can be copied safely; this one has {threads}. Fork before the first "
            f"computation, and set OPENBLAS_NUM_THREADS=1 before NumPy is imported."
        )
    paths = [path for path in (sys.path if importable is None else importable) if path]
    plan = _plan("fork", how, folder, limits, hidden, (*_interpreter(), *paths, *readable))
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        pipes = _Pipes(stack)
        warden = os.fork()
        if warden == 0:
            _copied_child(work, plan, pipes, keep)
        return Process(warden, plan, pipes.take())


@contextlib.contextmanager
def workspace(parent: str | os.PathLike | None = None) -> Iterator[Path]:
    """Make a folder for one untrusted program, and remove it afterwards, whatever has been done to it.

    Args:
        parent: where to make it; default: the system's temporary folder.

    Yields:
        The folder, resolved.

    Example:
        >>> with workspace() as folder:
        ...     _ = run(["mkdir", "-m", "0", "locked"], folder=folder)
        >>> folder.exists()
        False
    """
    folder = Path(tempfile.mkdtemp(prefix="lmcourse-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        _remove(folder)


class Process:
    """A limited process and everything that it starts.

    Use it as a context manager: leaving the block ends them all.

    Attributes:
        pid: of the warden, whose descendants they are.
        due: when it is ended as too slow, by `time.monotonic()`; may be set nearer or further while it runs.
    """

    def __init__(self, pid: int, plan: _Plan, pipes: "_Ends", popen: subprocess.Popen | None = None):
        self.pid = pid
        self._limits = plan.limits
        self._folder = plan.folder
        self._start = time.monotonic()
        self.due = self._start + plan.limits.seconds
        self._popen = popen
        self._output, self._errors = bytearray(), bytearray()
        self._report = bytearray()
        self._streams = {pipes.out: self._output, pipes.err: self._errors, pipes.report: self._report}
        self._report_end = pipes.report
        self._why = ""
        self._peak = 0
        self._cpu: dict[tuple[int, int], float] = {}
        # Pairs of process id and start time: a process that was once in the family stays in it, wherever it goes.
        self._family: set[tuple[int, int]] = set()
        self._completed: Completed | None = None

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def kill(self, why: str = "killed") -> None:
        """End all of it; `wait` then returns with this reason. May be called while `wait` listens."""
        self._why = self._why or why

    def close(self) -> None:
        """End all of it and let go of its pipes; nothing happens the second time."""
        if self._completed is None:
            self.kill()
            with contextlib.suppress(SandboxError):
                self.wait()

    def wait(self, listen: Mapping[int, Callable[[bytes], None]] | None = None) -> Completed:
        """Watch it until it has ended, end what it left running, and say how it went.

        Args:
            listen: for each descriptor to read meanwhile, what to call with the bytes that arrive. It is called
                once more with b"" at the end of the file; the descriptors stay the caller's to close.

        Raises:
            SandboxError: if the process could not be set up.
        """
        if self._completed is not None:
            return self._completed
        with selectors.DefaultSelector() as selector:
            for descriptor, buffer in self._streams.items():
                selector.register(descriptor, selectors.EVENT_READ, buffer.extend)
            for descriptor, call in (listen or {}).items():
                selector.register(descriptor, selectors.EVENT_READ, call)
            try:
                self._watch(selector)
            finally:
                self._end()
                self._drain(selector)
                for descriptor in self._streams:
                    os.close(descriptor)
                self._completed = self._result()
        failed = self._told("failed")
        if failed:
            raise SandboxError(f"The limited process could not be set up: {failed}.")
        return self._completed

    def _watch(self, selector: selectors.BaseSelector) -> None:
        look_at, measure_at = 0.0, self._start + _MEASURE_SECONDS
        while not self._why and not self._told("ended") and not self._told("failed"):
            now = time.monotonic()
            if now >= self.due:
                return self.kill(TOO_SLOW)
            if now >= look_at:
                self._look()
                if now >= measure_at:
                    measure_at = now + _MEASURE_SECONDS
                    if _folder_size(self._folder) > self._limits.folder_bytes:
                        self.kill(TOO_MUCH_OUTPUT)
                pause = max(_LOOK_SECONDS, (time.monotonic() - now) / _LOOK_SHARE)
                look_at = time.monotonic() + pause
            self._read(selector, max(0.0, min(look_at, self.due) - time.monotonic()))
            if self._report_end not in selector.get_map():
                return None  # the keeper has gone without a word
        return None

    def _read(self, selector: selectors.BaseSelector, timeout: float) -> bool:
        """Take in what has arrived; False if nothing had."""
        ready = selector.select(timeout)
        for key, _ in ready:
            data = os.read(key.fd, 65536)
            key.data(data)
            if not data:
                selector.unregister(key.fd)
        if len(self._output) + len(self._errors) > self._limits.output:
            self.kill(TOO_MUCH_OUTPUT)
        return bool(ready)

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Read what was in the pipes when the last process died; whoever holds one open does not keep us."""
        end = time.monotonic() + _DRAIN_SECONDS
        while selector.get_map() and time.monotonic() < end:
            if not self._read(selector, 0):
                return
            if self._why == TOO_MUCH_OUTPUT:
                return

    def _look(self) -> None:
        """Compare what the family uses with its limits."""
        family = self._members()
        mine = [process for process in family if process.pid not in self._staff()]
        self._cpu.update({(process.pid, process.began): process.cpu for process in mine})
        memory = sum(process.memory for process in mine)
        if memory > self._limits.memory:
            memory = sum(_proportional_memory(process) for process in mine)
        self._peak = max(self._peak, memory)
        if len(mine) > self._limits.processes:
            self.kill(TOO_MANY_PROCESSES)
        elif memory > self._limits.memory:
            self.kill(OUT_OF_MEMORY)
        elif sum(self._cpu.values()) > self._limits.cpu:
            self.kill(TOO_SLOW)

    def _staff(self) -> set[int]:
        """Return the processes that are ours, not the untrusted program's."""
        first = self._told("first")
        return {self.pid, int(first)} if first else {self.pid}

    def _members(self) -> "list[_Running]":
        """Return the living processes of the family."""
        table = _processes()
        children: dict[int, list[_Running]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process)
        roots = [table[pid] for pid, began in self._family if pid in table and table[pid].began == began]
        if self.pid in table:
            roots.append(table[self.pid])
        found: dict[int, _Running] = {}
        while roots:
            process = roots.pop()
            if process.pid not in found:
                found[process.pid] = process
                roots.extend(children.get(process.pid, ()))
        self._family = {(process.pid, process.began) for process in found.values()}
        return [process for process in found.values() if process.state != "Z"]

    def _end(self) -> None:
        """Kill the whole family, the warden last: while it lives, orphans stay below it."""
        end = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < end:
            others = [process.pid for process in self._members() if process.pid != self.pid]
            if not others:
                break
            # Stopped first, so that those at the end of the list cannot multiply while the first ones die.
            for sign in (signal.SIGSTOP, signal.SIGKILL):
                for pid in others:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, sign)
            time.sleep(0.002)
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            return
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _told(self, word: str) -> str:
        """Return what the child's side has reported after this word; empty where it has not."""
        for line in bytes(self._report).split(b"\n")[:-1]:
            if line.startswith(word.encode() + b" "):
                return line.decode(errors="replace").partition(" ")[2]
        return ""

    def _result(self) -> Completed:
        ended, why = self._told("ended"), self._why
        returncode = -signal.SIGKILL
        if ended:
            status, memory = (int(number) for number in ended.split())
            returncode = os.waitstatus_to_exitcode(status)
            self._peak = max(self._peak, memory)
            if not why and returncode:
                why = self._natural_limit(returncode)
        room = self._limits.output
        output = bytes(self._output[:room])
        errors = bytes(self._errors[: room - len(output)])
        return Completed(
            returncode=returncode,
            stdout=output.decode(errors="replace"),
            stderr=errors.decode(errors="replace"),
            why=why,
            seconds=time.monotonic() - self._start,
            memory=self._peak,
        )

    def _natural_limit(self, returncode: int) -> str:
        """Return the limit that the kernel, not we, enforced."""
        if returncode == -signal.SIGXCPU:
            return TOO_SLOW
        if returncode == -signal.SIGXFSZ:
            return TOO_MUCH_OUTPUT
        return OUT_OF_MEMORY if self._peak > self._limits.memory else ""


@dataclasses.dataclass(frozen=True)
class _Ends:
    """The descriptors that the parent reads."""

    out: int
    err: int
    report: int


class _Pipes:
    """Three pipes; the writing ends are closed with the stack, the reading ends too unless they have been taken."""

    def __init__(self, stack: contextlib.ExitStack):
        self._reading = stack.enter_context(contextlib.ExitStack())
        ends = []
        for _ in range(3):
            reading, writing = os.pipe()
            self._reading.callback(os.close, reading)
            stack.callback(os.close, writing)
            ends += [reading, writing]
        self._out, self.out_in, self._err, self.err_in, self._report, self.report_in = ends

    def take(self) -> _Ends:
        self._reading.pop_all()
        return _Ends(self._out, self._err, self._report)


@functools.cache
def _works(how: str) -> bool:
    """Whether a trivial program can be isolated this way."""
    if not _LINUX or (how == BUBBLEWRAP and shutil.which("bwrap") is None):
        return False
    try:
        done = run([sys.executable, "-I", "-S", "-c", "print('in')"], limits=Limits(seconds=10), how=how)
    except (SandboxError, OSError):
        return False
    return done.returncode == 0 and done.stdout == "in\n"


def _plan(
    door: str,
    how: str | None,
    folder: str | os.PathLike,
    limits: Limits | None,
    hidden: Sequence[str | os.PathLike],
    readable: Sequence[str | os.PathLike],
) -> _Plan:
    ways = (NAMESPACES, BUBBLEWRAP, LIMITS_ONLY) if door == "run" else (NAMESPACES, LIMITS_ONLY)
    if how is None:
        how = capabilities(door).how
    if how not in ways:
        raise ValueError(f"how must be one of {', '.join(ways)}, or None; got {how!r}.")
    place = Path(folder).resolve()
    if not place.is_dir():
        raise ValueError(f"folder must be a folder that exists; got {str(folder)!r}.")
    return _Plan(
        how=how,
        folder=str(place),
        limits=limits or Limits(),
        hidden=_real(hidden),
        readable=_real(readable),
        parent=os.getpid(),
        threads=_user_threads() if how != NAMESPACES else 0,
    )


def _real(paths: Sequence[str | os.PathLike]) -> tuple[str, ...]:
    """Return the paths that exist, without symbolic links: what is not there can be neither shown nor hidden."""
    return tuple(os.path.realpath(path) for path in paths if os.path.exists(path))


def _interpreter() -> tuple[str, ...]:
    """Return what Python cannot start without, wherever it is installed."""
    return (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.executable, os.path.realpath(__file__))


def _environment(plan: _Plan, extra: Mapping[str, str] | None) -> dict[str, str]:
    """Return a small environment: what this process's holds may be secret."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": plan.folder,
        "TMPDIR": plan.folder,
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra or {}),
    }


def _remove(folder: Path) -> None:
    """Remove a tree, also one that has been locked or is nested deeply; never follows a link out of it."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
    if folder.exists():
        # Unlike shutil's, these two do not call themselves for each level, and neither follows links.
        subprocess.run(["chmod", "-R", "u+rwx", "--", folder], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)


@dataclasses.dataclass(frozen=True)
class _Running:
    """A process of this machine at a moment: processor time in seconds, resident memory in bytes."""

    pid: int
    parent: int
    state: str
    cpu: float
    began: int
    memory: int
    threads: int = 1


def _processes() -> dict[int, _Running]:
    """Return the processes that this one can see."""
    return _processes_of_linux() if _LINUX else _processes_of_ps()


def _processes_of_linux() -> dict[int, _Running]:
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
        found[pid] = _Running(
            pid, parent, state, cpu, int(fields[19]), int(fields[21]) * page, int(fields[17])
        )
    return found


def _processes_of_ps() -> dict[int, _Running]:
    """Return what POSIX's ps says; its start times are too coarse to tell a process from its successor, so none."""
    columns = ["ps", "-A", "-o", "pid=,ppid=,state=,rss=,time="]
    listed = subprocess.run(columns, capture_output=True, text=True, check=False).stdout
    found = {}
    for line in listed.splitlines():
        pid, parent, state, kib, clock = line.split()[:5]
        found[int(pid)] = _Running(int(pid), int(parent), state[0], _clock(clock), 0, int(kib) * 1024)
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


def _proportional_memory(process: _Running) -> int:
    """Return resident bytes, a page shared by n processes counted as 1/n: copies of a process share most."""
    try:
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            match = re.search(rb"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else process.memory


def _folder_size(folder: str) -> float:
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


def _count_threads() -> int:
    """Return how many threads this process has, those that Python does not know included where that can be told."""
    if _LINUX:
        return len(os.listdir("/proc/self/task"))
    import threading

    return threading.active_count()


def _user_threads() -> int:
    """Return how many threads this user has."""
    count = 0
    for process in _processes().values():
        with contextlib.suppress(OSError):
            if not _LINUX or os.stat(f"/proc/{process.pid}").st_uid == os.getuid():
                count += process.threads
    return count


def _launch() -> NoReturn:
    """Be the warden of a program: what `start` calls this file for."""
    orders, report = int(sys.argv[1]), int(sys.argv[2])
    with open(orders, "rb") as file:
        order = json.load(file)
    fields = order["plan"]
    plan = _Plan(**{**fields, "limits": Limits(**fields["limits"])})
    argv, env = order["argv"], order["env"]
    if plan.how == BUBBLEWRAP:
        argv = _bubblewrap(plan, argv)

    def work() -> NoReturn:
        try:
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            print(f"{argv[0]} cannot be run: {error.strerror}.", file=sys.stderr)
            sys.exit(127)

    _ward(work, plan, report, order["keep"])


def _copied_child(work: Callable[[], Any], plan: _Plan, pipes: _Pipes, keep: Sequence[int]) -> NoReturn:
    """Be the warden of a function: a copy of the caller that never returns to it."""
    try:
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.dup2(pipes.out_in, 1)
        os.dup2(pipes.err_in, 2)
        signal.set_wakeup_fd(-1)
        # The caller's handlers belong to the caller. And the first process of a namespace cannot be killed from
        # inside by a signal that it does not handle.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(
            2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
        )
        tempfile.tempdir = None
        os.environ.update(HOME=plan.folder, TMPDIR=plan.folder)
        _ward(work, plan, pipes.report_in, keep)
    finally:
        os._exit(1)


def _ward(work: Callable[[], Any], plan: _Plan, report: int, keep: Sequence[int]) -> NoReturn:
    """Be the warden: make the child's world and wait in it, or before it."""
    try:
        _close_all_but({report, *keep})
        with contextlib.suppress(PermissionError):  # a launcher leads its session already
            os.setsid()
        _die_with_parent()
        if os.getppid() != plan.parent:
            os._exit(1)
        if plan.how == NAMESPACES:
            _enter_namespaces()
            first = os.fork()
            if first:
                os.write(report, b"first %d\n" % first)
                _close_all_but(set())
                os.waitpid(first, 0)
                os._exit(0)
            _die_with_parent()
            _make_world(plan)
        _keep(work, plan, report, keep)
    except BaseException as error:
        _report_failure(report, error)
    finally:
        os._exit(1)


def _keep(work: Callable[[], Any], plan: _Plan, report: int, keep: Sequence[int]) -> None:
    """Start the untrusted process, say how it ended, and stay to adopt orphans until the parent ends everything."""
    if _LINUX:
        if plan.how != BUBBLEWRAP:  # it drops them itself, once it has used them
            _give_up_privileges()
        # The untrusted process has our user id: what cannot be dumped cannot be read or traced by it either.
        _prctl(_PR_SET_DUMPABLE, 0)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    untrusted = os.fork()
    if untrusted == 0:
        _untrusted(work, plan, report, keep)
    _close_all_but({report})
    while True:
        try:
            pid, status, usage = os.wait3(0)
        except ChildProcessError:
            signal.pause()
            continue
        if pid == untrusted:
            # Linux counts in KiB, macOS in bytes.
            memory = usage.ru_maxrss * (1024 if _LINUX else 1)
            os.write(report, b"ended %d %d\n" % (status, memory))


def _untrusted(work: Callable[[], Any], plan: _Plan, report: int, keep: Sequence[int]) -> NoReturn:
    status = 1
    try:
        try:
            os.setsid()
            _die_with_parent()
            if _LINUX:
                _prctl(_PR_SET_DUMPABLE, 1)
            os.chdir(plan.folder)
            _set_limits(plan)
        except BaseException as error:
            _report_failure(report, error)
            os._exit(1)
        os.close(report)
        for descriptor in keep:
            os.set_inheritable(descriptor, True)
        try:
            work()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(status & 0xFF)


def _report_failure(report: int, error: BaseException) -> None:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    with contextlib.suppress(OSError):
        os.write(report, f"failed {text}\n".encode()[:4096])


def _close_all_but(descriptors: set[int]) -> None:
    """Close what was inherited, except the standard streams and these; with none given, the streams too."""
    last = 3 if descriptors else 0
    for descriptor in sorted(descriptors):
        os.closerange(last, descriptor)
        last = descriptor + 1
    # Where the number is unlimited, so would be the time to close them all.
    os.closerange(last, min(os.sysconf("SC_OPEN_MAX"), 2**20))


def _set_limits(plan: _Plan) -> None:
    """Set what the kernel limits for each process by itself: the net below the parent's watch."""
    limits = plan.limits
    cpu = int(limits.cpu) + 1
    wanted = {
        "CPU": (cpu, cpu + 1),
        "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files,
        "CORE": 0,
        # Not RLIMIT_AS: TensorFlow maps far more than it uses. A copy starts with what its parent holds.
        "DATA": _data_size() + 2 * limits.memory,
    }
    if plan.how == NAMESPACES:
        # Since Linux 5.14 a user namespace has its own count; before, all of the user's processes are in it.
        if _linux_version() >= (5, 14):
            wanted["NPROC"] = limits.threads
    else:
        wanted["NPROC"] = plan.threads + limits.threads
    for name, value in wanted.items():
        which = getattr(resource, f"RLIMIT_{name}", None)
        if which is None:
            continue
        soft, hard = value if isinstance(value, tuple) else (value, value)
        _, highest = resource.getrlimit(which)
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        with contextlib.suppress(ValueError if not _LINUX else ()):  # macOS refuses some
            resource.setrlimit(which, (soft, hard))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, the kernel should take this process, not its parent


def _data_size() -> int:
    """Return how many bytes of private writable memory this process has mapped, where that can be told."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:
        match = re.search(rb"^VmData:\s+(\d+) kB", file.read(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    return 0


def _bubblewrap(plan: _Plan, argv: Sequence[str]) -> list[str]:
    """Return the command that runs argv in bubblewrap's version of the same world."""
    size = str(plan.limits.file_bytes)
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
    command += ["--dev", "/dev", "--proc", "/proc"]
    sealed = []
    for path, kind in _view(plan):
        if kind == "private":
            command += ["--size", size, "--tmpfs", path]
        elif kind == "hide" and os.path.isdir(path):
            command += ["--tmpfs", path]
            sealed += ["--remount-ro", path]
        elif kind == "hide":
            command += ["--ro-bind", "/dev/null", path]
        else:
            command += ["--bind" if kind == "write" else "--ro-bind", path, path]
    return [*command, *sealed, "--chdir", plan.folder, "--", *argv]


def _view(plan: _Plan) -> list[tuple[str, str]]:
    """Return what to do with which path, outer paths first, so that the inner one of two decides.

    "private" empties a folder and lets it be written, "hide" empties it, "read" and "write" bring back what was there.
    """
    wishes = {path: "private" for path in _real(_TEMPORARY)}
    wishes |= dict.fromkeys(_real((_RUNTIME,)), "hide")
    wishes |= dict.fromkeys(plan.readable, "read")
    wishes |= dict.fromkeys(plan.hidden, "hide")
    wishes[plan.folder] = "write"
    return sorted(wishes.items(), key=lambda wish: len(Path(wish[0]).parts))


# <linux/sched.h>, <linux/prctl.h>, <linux/mount.h>, <linux/fcntl.h>, <linux/capability.h>
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 1, 2, 4, 8, 4096, 16384
_MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # Linux 5.12; the same number on every architecture that Python wheels exist for
_CAPABILITY_VERSION_3 = 0x20080522


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    _checked(_libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a new file system of this kind."""
    arguments = (kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(_libc().mount(*arguments), f"mount {kind} on {target}")


def _bind(source: int, target: str) -> None:
    """Show at a path what a descriptor was opened for, whatever covers it now."""
    path = f"/proc/self/fd/{source}".encode()
    flags = ctypes.c_ulong(_MS_BIND | _MS_REC)
    _checked(_libc().mount(path, target.encode(), None, flags, None), f"bind {target}")


def _set_attributes(
    target: str, set: int = 0, clear: int = 0, *, deep: bool = False, private: bool = False
) -> None:
    """Change a mount's attributes; with deep, those of all mounts below it too."""
    attributes = _MountAttr(set, clear, _MS_PRIVATE if private else 0, 0)
    flags = _AT_RECURSIVE if deep else 0
    size = ctypes.sizeof(attributes)
    number = ctypes.c_long(_SYS_MOUNT_SETATTR)
    result = _libc().syscall(number, _AT_FDCWD, target.encode(), flags, ctypes.byref(attributes), size)
    _checked(result, f"mount_setattr {target}")


def _linux_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _die_with_parent() -> None:
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_namespaces() -> None:
    """Leave the machine's network, mounts, message queues and process ids (those from the next fork on)."""
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    _checked(_libc().unshare(flags), "unshare")
    # user_namespaces(7): an ordinary user may map one id, its own, and only after giving up setgroups.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _make_world(plan: _Plan) -> None:
    """Make everything read-only, and put the child's own folders over it."""
    opened = {path: os.open(path, os.O_PATH) for path, kind in _view(plan) if kind in ("read", "write")}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES}
    locked = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    _set_attributes("/", locked, deep=True, private=True)
    _make_proc(plan)
    _make_devices(devices, plan)
    sealed = []
    for path, kind in _view(plan):
        if kind == "private":
            _mount("tmpfs", path, _MS_NOSUID | _MS_NODEV, f"mode=1777,size={plan.limits.file_bytes}")
        elif kind == "hide" and not os.path.exists(path):
            continue  # something that covers it has hidden it already
        elif kind == "hide" and os.path.isdir(path):
            _mount("tmpfs", path, _MS_NOSUID | _MS_NODEV, "mode=555,size=1m")
            sealed.append(path)
        elif kind == "hide":
            # On a mount without devices, opening one is refused.
            _bind(devices["null"], path)
        else:
            _make_place(path, opened[path])
            _bind(opened[path], path)
            if kind == "write":
                _set_attributes(path, clear=_MOUNT_ATTR_RDONLY)
    for path in sealed:
        _set_attributes(path, _MOUNT_ATTR_RDONLY)
    for descriptor in (*opened.values(), *devices.values()):
        os.close(descriptor)


def _make_proc(plan: _Plan) -> None:
    """Show only the processes of the new namespace, and forbid further namespaces in it."""
    try:
        _mount("proc", "/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    except PermissionError:
        # Containers that cover parts of /proc do not let a fresh one uncover them. The old one stays, read-only.
        return
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    # RLIMIT_NPROC does not hold for root. A namespace's own pid_max does; it exists since Linux 6.14, and writing
    # it before would change the machine's.
    if _linux_version() >= (6, 14):
        with contextlib.suppress(OSError), open("/proc/sys/kernel/pid_max", "w") as file:
            file.write(str(max(301, plan.limits.threads)))  # 301 is the least that Linux takes
    _set_attributes("/proc", _MOUNT_ATTR_RDONLY)


def _make_devices(devices: Mapping[str, int], plan: _Plan) -> None:
    """Cover /dev by a few harmless devices: a disk can be written although its mount is read-only."""
    _mount("tmpfs", "/dev", _MS_NOSUID, "mode=755,size=1m")
    for name, descriptor in devices.items():
        Path("/dev", name).touch()
        _bind(descriptor, f"/dev/{name}")
        _set_attributes(f"/dev/{name}", clear=_MOUNT_ATTR_NODEV)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")
    os.mkdir("/dev/shm")
    _mount("tmpfs", "/dev/shm", _MS_NOSUID | _MS_NODEV, f"mode=1777,size={plan.limits.file_bytes}")
    _set_attributes("/dev", _MOUNT_ATTR_RDONLY)


def _make_place(path: str, descriptor: int) -> None:
    """Make something to mount on, where a fresh file system has covered what was there."""
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.mkdir(path)
    else:
        Path(path).touch()


def _give_up_privileges() -> None:
    """Drop all capabilities, and see to it that no program brings any back."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                break  # the kernel knows no more, or an ordinary user has none to drop
            raise
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc().capset(header, nothing), "capset")
    _die_with_parent()  # changing what a process may do has cleared it


if __name__ == "__main__":
    _launch()
