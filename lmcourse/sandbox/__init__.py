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

from lmcourse.sandbox.doors import capabilities, fork, missing, run, start, workspace
from lmcourse.sandbox.process import Process
from lmcourse.sandbox.terms import (
    BUBBLEWRAP,
    LIMITS_ONLY,
    NAMESPACES,
    OUT_OF_MEMORY,
    TOO_MANY_PROCESSES,
    TOO_MUCH_OUTPUT,
    TOO_SLOW,
    Capabilities,
    Completed,
    Limits,
    SandboxError,
)

__all__ = [
    "BUBBLEWRAP",
    "LIMITS_ONLY",
    "NAMESPACES",
    "OUT_OF_MEMORY",
    "TOO_MANY_PROCESSES",
    "TOO_MUCH_OUTPUT",
    "TOO_SLOW",
    "Capabilities",
    "Completed",
    "Limits",
    "Process",
    "SandboxError",
    "capabilities",
    "fork",
    "missing",
    "run",
    "start",
    "workspace",
]
