"""The parent's side: a limited process, watched until it and its whole family have ended."""

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

from lmcourse.sandbox import machine
from lmcourse.sandbox.terms import (
    OUT_OF_MEMORY,
    TOO_MANY_PROCESSES,
    TOO_MUCH_OUTPUT,
    TOO_SLOW,
    Completed,
    Plan,
    SandboxError,
)

# A bomb gets this long before somebody looks: short enough that memory at 2 GB/s stays within 50 MB of its limit.
_LOOK_SECONDS = 0.025
# Looking at every process of a busy machine takes milliseconds; a tenth of a core is what watching may cost.
_LOOK_SHARE = 0.1
# A disk takes longer to fill than memory, and a folder longer to measure.
_MEASURE_SECONDS = 0.5
_DRAIN_SECONDS = 1.0
_KILL_SECONDS = 10.0


class Process:
    """A limited process and everything that it starts.

    Use it as a context manager: leaving the block ends them all.

    Attributes:
        pid: of the warden, whose descendants they are.
        due: when it is ended as too slow, by `time.monotonic()`; may be set nearer or further while it runs.
    """

    def __init__(self, pid: int, plan: Plan, pipes: "Ends", popen: subprocess.Popen | None = None):
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
                    if machine.folder_size(self._folder) > self._limits.folder_bytes:
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
            memory = sum(machine.proportional_memory(process) for process in mine)
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

    def _members(self) -> list[machine.Running]:
        """Return the living processes of the family."""
        table = machine.processes()
        children: dict[int, list[machine.Running]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process)
        roots = [table[pid] for pid, began in self._family if pid in table and table[pid].began == began]
        if self.pid in table:
            roots.append(table[self.pid])
        found: dict[int, machine.Running] = {}
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
class Ends:
    """The descriptors that the parent reads."""

    out: int
    err: int
    report: int


class Pipes:
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

    def take(self) -> Ends:
        """Return the reading ends, which are the caller's to close from now on."""
        self._reading.pop_all()
        return Ends(self._out, self._err, self._report)
