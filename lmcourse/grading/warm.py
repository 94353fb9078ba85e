"""Starts workers in milliseconds: by copying a process that has made the expensive imports already.

`Warm` is the grader's side; `python -m lmcourse.grading.warm` is the process that is copied, one worker at a time.
It has one thread, and it never sees a check or an answer: the worker's job goes past it, in a descriptor that only
the copy reads. So no copy finds in its memory what another submission wrote.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lmcourse.grading import worker
from lmcourse.paths import PACKAGE
from lmcourse.sandbox import NAMESPACES, Completed, Limits, SandboxError, capabilities, fork, workspace

# Importing TensorFlow takes 10 s, on a busy machine several times as long.
_READY_SECONDS = 120.0
# What ending a process may take after its time is up, before the one that should do it is taken for dead.
_KILL_SECONDS = 20.0
_MESSAGE_BYTES = 65536
# What every worker needs, and it itself imports late.
_ALWAYS = ("IPython.core.inputtransformer2", "numpy", "pytest", "pytest_timeout")
# What takes from a tenth of a second to many seconds. With a module of the course comes all that it imports in turn.
_EXPENSIVE = frozenset({"keras", "lmcourse", "matplotlib", "tensorflow", "tensorflow_text"})
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t(]+([^#\n]+)", re.MULTILINE)


class WarmError(RuntimeError):
    """The warm process cannot start a worker, or has ended; a fresh process can do the work."""


def possible() -> bool:
    """Tell whether a copy of a process is isolated here as well as a fresh one."""
    return capabilities("fork").how == NAMESPACES


def expensive_imports(sources: Iterable[str]) -> tuple[str, ...]:
    """Return which expensive modules some code imports, the course's own among them.

    What those import is not followed: whoever imports them imports it too, so that a chapter whose code reaches Keras
    only through lmcourse needs no more than lmcourse's name.

    Example:
        >>> expensive_imports(["import numpy as np, keras", "from lmcourse import core"])
        ('keras', 'lmcourse.core')
    """
    found = set()
    for source in sources:
        for package, names in _IMPORT.findall(source):
            listed = [name.split()[0] for name in names.strip(" )").split(",") if name.strip(" )")]
            found.update(_modules(package, listed))
    return tuple(sorted(name for name in found if name.partition(".")[0] in _EXPENSIVE))


def _modules(package: str, names: Sequence[str]) -> list[str]:
    """Return the modules that `from package import names`, or without a package `import names`, loads."""
    if package != "lmcourse":
        return [package] if package else list(names)
    there = [name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()]
    return [f"lmcourse.{name}" for name in there]


class Warm:
    """A process to copy workers from; started when it is first needed, and again when it has died.

    It serves one thread at a time. Leaving the `with` block ends it and the worker it may have.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]):
        """Start nothing yet.

        Args:
            modules: what to import besides what every worker needs.
            environment: variables that the workers get.
        """
        self._modules = modules
        self._environment = environment
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._stack = contextlib.ExitStack()
        self._broken = False

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ready(self) -> bool:
        """Wait until it has made its imports; False if it cannot be used."""
        if self._broken or self._process is not None:
            return not self._broken
        try:
            self._launch()
            self.hear(_READY_SECONDS)
        except (OSError, WarmError):
            self._broken = True
            self.close()
        return not self._broken

    def start(
        self,
        job: str,
        events: int,
        *,
        folder: Path,
        limits: Limits,
        hidden: Sequence[Path] = (),
        readable: Sequence[Path] = (),
    ) -> "WarmProcess":
        """Start a worker, and return the process to wait for.

        Args:
            job: what the worker is to read.
            events: the descriptor that it writes its events to.
            folder: as for `sandbox.fork`, like what follows.
            limits: what it may use.
            hidden: what it must not read.
            readable: what it must read nevertheless.

        Raises:
            WarmError: if there is no process to copy.
        """
        order = {
            "folder": str(folder),
            "limits": dataclasses.asdict(limits),
            "hidden": [str(path) for path in hidden],
            "readable": [str(path) for path in readable],
        }
        if self._control is None:
            raise WarmError("there is no warm process.")
        with _file(json.dumps(order)) as orders, _file(job) as input:
            try:
                socket.send_fds(self._control, [b"start"], [orders.fileno(), input.fileno(), events])
            except OSError as error:
                self.close()
                raise WarmError(f"the warm process has gone: {error}.") from None
        return WarmProcess(self, time.monotonic() + limits.seconds)

    @property
    def pid(self) -> int | None:
        """The process to copy; None while there is none."""
        return self._process.pid if self._process else None

    def fileno(self) -> int:
        """Return the descriptor on which it answers, for a selector."""
        if self._control is None:
            raise WarmError("there is no warm process.")
        return self._control.fileno()

    def tell(self, **message: Any) -> None:
        """Send it a message; one that has gone is found out when it does not answer."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps(message).encode())

    def hear(self, seconds: float) -> dict[str, Any]:
        """Return its next message.

        Raises:
            WarmError: if none comes in so many seconds; it is ended then.
        """
        data = b""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.settimeout(max(0.001, seconds))
                data = self._control.recv(_MESSAGE_BYTES)
        if not data:
            self.close()
            raise WarmError("the warm process does not answer.")
        return json.loads(data)

    def refuse(self) -> None:
        """End it for good: it cannot be copied here."""
        self._broken = True
        self.close()

    def close(self) -> None:
        """End it; the kernel ends its worker with it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None
        self._stack.close()

    def _launch(self) -> None:
        home = str(self._stack.enter_context(workspace()))
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lmcourse.grading.warm", str(theirs.fileno()), *self._modules],
                cwd=home,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "LANG": "C.UTF-8",
                    "HOME": home,
                    "TMPDIR": home,
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "OPENBLAS_NUM_THREADS": "1",  # its threads would start with the import
                    **self._environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )


class WarmProcess:
    """A worker copied from a warm process; used like `sandbox.Process`."""

    def __init__(self, warm: Warm, due: float):
        self._warm = warm
        self._due = due
        self._completed: Completed | None = None

    def __enter__(self) -> "WarmProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._completed is None:
            self.kill()
            with contextlib.suppress(WarmError):
                self.wait()

    @property
    def due(self) -> float:
        """When it is ended as too slow, by `time.monotonic()`."""
        return self._due

    @due.setter
    def due(self, due: float) -> None:
        self._due = due
        self._warm.tell(due=due)

    def kill(self, why: str = "killed") -> None:
        """End all of it; `wait` then returns with this reason."""
        self._due = min(self._due, time.monotonic())
        self._warm.tell(kill=why)

    def wait(self, listen: Mapping[int, Callable[[bytes], None]] | None = None) -> Completed:
        """Wait until it has ended; `listen` as for `sandbox.Process.wait`.

        Raises:
            WarmError: if the warm process died first, or could not be copied.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._warm, selectors.EVENT_READ)
            for descriptor, call in (listen or {}).items():
                selector.register(descriptor, selectors.EVENT_READ, call)
            while not _read(selector, max(0.0, self._due + _KILL_SECONDS - time.monotonic())):
                if time.monotonic() >= self._due + _KILL_SECONDS:
                    break
            answer = self._warm.hear(0)
            selector.unregister(self._warm)
            while selector.get_map() and selector.select(0):
                _read(selector, 0)
        if "failed" in answer:
            self._warm.refuse()
            raise WarmError(answer["failed"])
        self._completed = Completed(answer["returncode"], "", "", answer["why"])
        return self._completed


def _read(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Take in what has arrived; True if the warm process is among those that have something to say."""
    answered = False
    for key, _ in selector.select(seconds):
        if key.data is None:
            answered = True
            continue
        data = os.read(key.fd, _MESSAGE_BYTES)
        key.data(data)
        if not data:
            selector.unregister(key.fileobj)
    return answered


def _file(text: str) -> IO[bytes]:
    """Return a file without a name that holds a text."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's to close
    file.write(text.encode())
    file.seek(0)
    return file


def main() -> None:
    """Be the process that is copied: import, then start one worker after the other until the grader has gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # what is imported stays: looking for garbage in it takes a sixth of TensorFlow's import
    for name in (*_ALWAYS, *sys.argv[2:]):
        importlib.import_module(name)
    gc.collect()
    gc.enable()
    gc.freeze()  # the copies' collectors leave these objects alone, so their pages stay shared
    control.send(b"{}")
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 3)
        if not data:
            return
        if descriptors:  # else it is for a worker that has ended meanwhile
            control.send(json.dumps(_one_worker(control.fileno(), *descriptors)).encode())


def _one_worker(control: int, orders: int, job: int, events: int) -> dict[str, Any]:
    """Copy this process, watch the copy to its end, and return how it ended."""

    def listen(data: bytes) -> None:
        message = json.loads(data or b'{"kill": "the grader has gone"}')
        if "due" in message:
            process.due = message["due"]
        else:
            process.kill(message["kill"])

    with os.fdopen(orders, encoding="utf-8") as file:
        order = json.load(file)
    order["limits"] = Limits(**order["limits"])
    try:
        with contextlib.ExitStack() as stack:
            for descriptor in (job, events):
                stack.callback(os.close, descriptor)
            process = stack.enter_context(
                fork(
                    functools.partial(_work, job, events),
                    importable=(),  # what a fresh worker may read, no more
                    keep=(job, events),
                    how=NAMESPACES,
                    **order,
                )
            )
            completed = process.wait({control: listen})
    except SandboxError as error:
        return {"failed": str(error)}
    return {"returncode": completed.returncode, "why": completed.why}


def _work(job: int, events: int) -> None:
    import numpy as np

    np.random.seed()  # noqa: NPY002 - a fresh process would have a state of its own
    with os.fdopen(job, encoding="utf-8") as file:  # closed before the answers run: it holds the checks
        contents = json.load(file)
    worker.serve(contents, events)


if __name__ == "__main__":
    main()
