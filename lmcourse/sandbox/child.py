"""The child's side: the warden, the keeper, and what becomes the untrusted process."""

import contextlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lmcourse.sandbox import world
from lmcourse.sandbox.process import Pipes
from lmcourse.sandbox.terms import BUBBLEWRAP, LINUX, NAMESPACES, Limits, Plan


def launch() -> NoReturn:
    """Be the warden of a program: what `start` calls this file for."""
    orders, report = int(sys.argv[1]), int(sys.argv[2])
    with open(orders, "rb") as file:
        order = json.load(file)
    fields = order["plan"]
    plan = Plan(**{**fields, "limits": Limits(**fields["limits"])})
    argv, env = order["argv"], order["env"]
    if plan.how == BUBBLEWRAP:
        argv = world.bubblewrap(plan, argv)

    def work() -> NoReturn:
        try:
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            print(f"{argv[0]} cannot be run: {error.strerror}.", file=sys.stderr)
            sys.exit(127)

    _ward(work, plan, report, order["keep"])


def copied_child(work: Callable[[], Any], plan: Plan, pipes: Pipes, keep: Sequence[int]) -> NoReturn:
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


def _ward(work: Callable[[], Any], plan: Plan, report: int, keep: Sequence[int]) -> NoReturn:
    """Be the warden: make the child's world and wait in it, or before it."""
    try:
        _close_all_but({report, *keep})
        with contextlib.suppress(PermissionError):  # a launcher leads its session already
            os.setsid()
        world.die_with_parent()
        if os.getppid() != plan.parent:
            os._exit(1)
        if plan.how == NAMESPACES:
            world.enter_namespaces()
            first = os.fork()
            if first:
                os.write(report, b"first %d\n" % first)
                _close_all_but(set())
                os.waitpid(first, 0)
                os._exit(0)
            world.die_with_parent()
            world.make_world(plan)
        _keep(work, plan, report, keep)
    except BaseException as error:
        _report_failure(report, error)
    finally:
        os._exit(1)


def _keep(work: Callable[[], Any], plan: Plan, report: int, keep: Sequence[int]) -> None:
    """Start the untrusted process, say how it ended, and stay to adopt orphans until the parent ends everything."""
    if LINUX:
        if plan.how != BUBBLEWRAP:  # it drops them itself, once it has used them
            world.give_up_privileges()
        # The untrusted process has our user id: what cannot be dumped cannot be read or traced by it either.
        world.prctl(world.PR_SET_DUMPABLE, 0)
        world.prctl(world.PR_SET_CHILD_SUBREAPER, 1)
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
            memory = usage.ru_maxrss * (1024 if LINUX else 1)
            os.write(report, b"ended %d %d\n" % (status, memory))


def _untrusted(work: Callable[[], Any], plan: Plan, report: int, keep: Sequence[int]) -> NoReturn:
    status = 1
    try:
        try:
            os.setsid()
            world.die_with_parent()
            if LINUX:
                world.prctl(world.PR_SET_DUMPABLE, 1)
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


def _set_limits(plan: Plan) -> None:
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
        if world.linux_version() >= (5, 14):
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
        with contextlib.suppress(ValueError if not LINUX else ()):  # macOS refuses some
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
