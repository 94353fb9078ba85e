"""The words of the sandbox: what may be used, what is kept away, how it ended."""

import dataclasses
import sys

NAMESPACES, BUBBLEWRAP, LIMITS_ONLY = "namespaces", "bubblewrap", "limits only"

TOO_SLOW = "too slow"
OUT_OF_MEMORY = "out of memory"
TOO_MANY_PROCESSES = "too many processes"
TOO_MUCH_OUTPUT = "too much output"

LINUX = sys.platform == "linux"
_MIB = 2**20


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
class Plan:
    """What the child's side has to know; it goes to a fresh interpreter as JSON."""

    how: str
    folder: str
    limits: Limits
    hidden: tuple[str, ...]
    readable: tuple[str, ...]
    parent: int
    threads: int  # those of this user's other processes, where the kernel's count includes them
