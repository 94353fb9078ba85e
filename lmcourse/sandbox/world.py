"""The world of the child on Linux: namespaces, mounts and privileges, made here or by bubblewrap."""

import contextlib
import ctypes
import errno
import functools
import os
import re
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmcourse.sandbox import machine
from lmcourse.sandbox.terms import LINUX, Plan

_TEMPORARY = ("/tmp", "/var/tmp")  # empty, private and writable in the child's world
_RUNTIME = (
    "/run"  # the sockets of the machine's services: read-only mounts do not stop anyone from connecting
)
_DEVICES = ("null", "zero", "full", "random", "urandom")

# <linux/sched.h>, <linux/prctl.h>, <linux/mount.h>, <linux/fcntl.h>, <linux/capability.h>
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 1, 2, 4, 8, 4096, 16384
_MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # Linux 5.12; the same number on every architecture that Python wheels exist for
_CAPABILITY_VERSION_3 = 0x20080522


def bubblewrap(plan: Plan, argv: Sequence[str]) -> list[str]:
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


def _view(plan: Plan) -> list[tuple[str, str]]:
    """Return what to do with which path, outer paths first, so that the inner one of two decides.

    "private" empties a folder and lets it be written, "hide" empties it, "read" and "write" bring back what was there.
    """
    wishes = {path: "private" for path in machine.real_paths(_TEMPORARY)}
    wishes |= dict.fromkeys(machine.real_paths((_RUNTIME,)), "hide")
    wishes |= dict.fromkeys(plan.readable, "read")
    wishes |= dict.fromkeys(plan.hidden, "hide")
    wishes[plan.folder] = "write"
    return sorted(wishes.items(), key=lambda wish: len(Path(wish[0]).parts))


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int) -> None:
    """Change an attribute of this process: <linux/prctl.h>."""
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


def linux_version() -> tuple[int, ...]:
    """Return the kernel's two numbers, as in (6, 14)."""
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends."""
    if LINUX:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def enter_namespaces() -> None:
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


def make_world(plan: Plan) -> None:
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


def _make_proc(plan: Plan) -> None:
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
    if linux_version() >= (6, 14):
        with contextlib.suppress(OSError), open("/proc/sys/kernel/pid_max", "w") as file:
            file.write(str(max(301, plan.limits.threads)))  # 301 is the least that Linux takes
    _set_attributes("/proc", _MOUNT_ATTR_RDONLY)


def _make_devices(devices: Mapping[str, int], plan: Plan) -> None:
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


def give_up_privileges() -> None:
    """Drop all capabilities, and see to it that no program brings any back."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                break  # the kernel knows no more, or an ordinary user has none to drop
            raise
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc().capset(header, nothing), "capset")
    die_with_parent()  # changing what a process may do has cleared it
