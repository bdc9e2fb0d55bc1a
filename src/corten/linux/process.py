"""Processes: clone3, namespaces, pidfds, prctl, personality, scheduling, io priority, descriptors, execve.

Descriptors returned are close-on-exec and owned by the caller.
"""

from __future__ import annotations

import ctypes
import os

from corten.linux.libc import failed, function, number, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/personality.h
PER_LINUX = 0
PER_LINUX32 = 8

# linux/close_range.h
CLOSE_RANGE_CLOEXEC = 4

# linux/ioprio.h
IOPRIO_WHO_PROCESS = 1
IOPRIO_CLASS_SHIFT = 13

# linux/mempolicy.h, asm-generic/signal.h
SIGCHLD = 17


class _clone_args(ctypes.Structure):
    """linux/sched.h: struct clone_args, CLONE_ARGS_SIZE_VER2."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class _sched_attr(ctypes.Structure):
    """linux/sched/types.h: struct sched_attr, SCHED_ATTR_SIZE_VER1, which the utilisation clamps ask for."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
        ("sched_util_min", ctypes.c_uint32),
        ("sched_util_max", ctypes.c_uint32),
    ]


# PyDLL keeps the GIL: it must be held across the clone, as in os.fork, since the child starts holding a copy of it.
_clone3 = ctypes.PyDLL(None, use_errno=True)["syscall"]
_clone3.argtypes = (ctypes.c_long, ctypes.POINTER(_clone_args), ctypes.c_size_t)
_clone3.restype = ctypes.c_long
_NR_clone3 = number("clone3")

_setfsuid = function("setfsuid", ctypes.c_uint)
_setfsgid = function("setfsgid", ctypes.c_uint)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_unshare = function("unshare", ctypes.c_int)
_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_prctl_name = function("prctl", ctypes.c_int, ctypes.c_char_p)
_personality = function("personality", ctypes.c_ulong)
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_sethostname = function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_pidfd_open = syscall("pidfd_open", ctypes.c_long, ctypes.c_ulong)
_pidfd_send_signal = syscall("pidfd_send_signal", ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)
_pidfd_getfd = syscall("pidfd_getfd", ctypes.c_long, ctypes.c_long, ctypes.c_ulong)
_close_range = syscall("close_range", ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_ioprio_set = syscall("ioprio_set", ctypes.c_long, ctypes.c_long, ctypes.c_long)
_sched_setattr = syscall("sched_setattr", ctypes.c_long, ctypes.POINTER(_sched_attr), ctypes.c_ulong)
_execve = function("execve", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with new namespaces. In the parent (pid, pidfd), in the child (0, -1).

    The calling process must have one thread: as the C library knows nothing of this fork, another thread that holds
    malloc's lock would hold it for ever in the child. With `cgroup_fd`, an open cgroup v2 directory, the child is born
    there. With CLONE_PARENT it is a sibling of the caller.
    """
    pidfd = ctypes.c_int(-1)
    signal = 0 if flags & CLONE_PARENT else SIGCHLD  # a sibling's is the caller's own
    arguments = _clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=signal)
    if cgroup_fd >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _clone3(_NR_clone3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    error = failed() if pid == -1 else None
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if error is not None:
        raise error
    return pid, pidfd.value


def setns(fd: int, nstype: int = 0) -> None:
    """Enter the namespace of `fd`, or with a pidfd all those of the process that `nstype` names."""
    _setns(fd, nstype)


def unshare(flags: int) -> None:
    _unshare(flags)


def set_file_ids(uid: int, gid: int) -> None:
    """Who the calling thread is to file systems (setfsuid(2), setfsgid(2)).

    Leaving 0 takes the capabilities that concern files out of the effective set.
    """
    _setfsgid(gid)
    _setfsuid(uid)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return _prctl(option, arg2, arg3, arg4, arg5)


def set_process_name(name: str) -> None:
    """PR_SET_NAME: what ps shows as the command, at most 15 bytes."""
    _prctl_name(PR_SET_NAME, name.encode()[:15])


_arguments: tuple[int, int] | None = None


def set_command_line(text: str) -> None:
    """What /proc/PID/cmdline and ps show, cut to the room that the original arguments take.

    Written over the arguments on the stack: moving them needs CAP_SYS_RESOURCE (PR_SET_MM). Only for an interpreter
    that does not look at its C argv again.
    """
    global _arguments
    if _arguments is None:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        _arguments = int(fields[45]), int(fields[46])  # proc(5): arg_start (48), arg_end (49); forks keep them
    start, end = _arguments
    if 0 < start < end:
        ctypes.memmove(start, text.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def personality(persona: int) -> None:
    _personality(persona)


def sethostname(name: str) -> None:
    encoded = name.encode()
    _sethostname(encoded, len(encoded))


def setdomainname(name: str) -> None:
    encoded = name.encode()
    _setdomainname(encoded, len(encoded))


def pidfd_open(pid: int, flags: int = 0) -> int:
    return _pidfd_open(pid, flags)


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    _pidfd_send_signal(pidfd, signo, None, 0)


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """A duplicate of another process's descriptor. Needs the right to trace it."""
    return _pidfd_getfd(pidfd, target_fd, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close descriptors, or with CLOSE_RANGE_CLOEXEC have execve close them."""
    _close_range(first, last, flags)


def ioprio_set(ioclass: int, priority: int) -> None:
    """I/O priority of the calling process; `ioclass` 1 real-time, 2 best effort, 3 idle."""
    _ioprio_set(IOPRIO_WHO_PROCESS, 0, (ioclass << IOPRIO_CLASS_SHIFT) | priority)


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """Scheduling policy of the calling process (SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5, DEADLINE 6)."""
    attr = _sched_attr(ctypes.sizeof(_sched_attr), policy, flags, nice, priority, runtime, deadline, period)
    _sched_setattr(0, ctypes.byref(attr), 0)


def prepare_execve(path: str, args: Sequence[str], env: Sequence[str]) -> Callable[[], None]:
    """A call of execve with all memory allocated beforehand: after a seccomp filter is loaded only execve is made."""
    encoded = os.fsencode(path)
    argv = (ctypes.c_char_p * (len(args) + 1))(*[os.fsencode(word) for word in args], None)
    envp = (ctypes.c_char_p * (len(env) + 1))(*[os.fsencode(word) for word in env], None)
    arguments = (encoded, ctypes.addressof(argv), ctypes.addressof(envp))

    def execve(keep: tuple[object, ...] = (argv, envp)) -> None:
        _execve(*arguments)

    return execve
