"""The two doors to a limited process, and what can be closed behind them on this machine."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcourse.paths import PACKAGE
from lmcourse.sandbox import child, machine
from lmcourse.sandbox.process import Pipes, Process
from lmcourse.sandbox.terms import (
    BUBBLEWRAP,
    LIMITS_ONLY,
    LINUX,
    NAMESPACES,
    Capabilities,
    Completed,
    Limits,
    Plan,
    SandboxError,
)

# Last in the search path: whatever lies beside the package takes no standard module's place.
_LAUNCHER = f"import sys; sys.path.append({str(PACKAGE.parent)!r}); from lmcourse.sandbox.child import launch; launch()"


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
        pipes = Pipes(stack)
        data = stack.enter_context(tempfile.TemporaryFile())
        data.write(input.encode() if isinstance(input, str) else input or b"")
        data.seek(0)
        orders = stack.enter_context(tempfile.TemporaryFile())
        orders.write(json.dumps(order).encode())
        orders.seek(0)
        # A fresh interpreter that imports nothing but the standard library has one thread, whatever this one has:
        # only then may a process fork and enter a user namespace.
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(orders.fileno()), str(pipes.report_in)]
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
    threads = machine.count_threads()
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
        pipes = Pipes(stack)
        warden = os.fork()
        if warden == 0:
            child.copied_child(work, plan, pipes, keep)
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


@functools.cache
def _works(how: str) -> bool:
    """Whether a trivial program can be isolated this way."""
    if not LINUX or (how == BUBBLEWRAP and shutil.which("bwrap") is None):
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
) -> Plan:
    ways = (NAMESPACES, BUBBLEWRAP, LIMITS_ONLY) if door == "run" else (NAMESPACES, LIMITS_ONLY)
    if how is None:
        how = capabilities(door).how
    if how not in ways:
        raise ValueError(f"how must be one of {', '.join(ways)}, or None; got {how!r}.")
    place = Path(folder).resolve()
    if not place.is_dir():
        raise ValueError(f"folder must be a folder that exists; got {str(folder)!r}.")
    return Plan(
        how=how,
        folder=str(place),
        limits=limits or Limits(),
        hidden=machine.real_paths(hidden),
        readable=machine.real_paths(readable),
        parent=os.getpid(),
        threads=machine.user_threads() if how != NAMESPACES else 0,
    )


def _interpreter() -> tuple[str, ...]:
    """Return what Python cannot start without, wherever it is installed."""
    return (
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        sys.executable,
        os.path.dirname(os.path.realpath(__file__)),
    )


def _environment(plan: Plan, extra: Mapping[str, str] | None) -> dict[str, str]:
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
