"""Loading a seccomp filter that has been compiled to BPF before."""

from __future__ import annotations

import ctypes

from corten.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 16
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
SECCOMP_RET_USER_NOTIF = 0x7FC00000

_INSTRUCTION_SIZE = 8  # linux/filter.h: struct sock_filter


class _sock_fprog(ctypes.Structure):
    """linux/filter.h: struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_seccomp = syscall("seccomp", ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_sock_fprog))
_get_action = syscall("seccomp", ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(ctypes.c_uint32))
_LISTENING = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC_ESRCH | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


def prepare_filter(program: bytes, flags: int) -> Callable[[], int]:
    """A call that loads `program` (struct sock_filter, one after the other), with nothing left to allocate.

    Needs no_new_privs or CAP_SYS_ADMIN. It returns the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER: the lowest
    number that is free, close-on-exec.
    """
    argument = ctypes.byref(_sock_fprog(len(program) // _INSTRUCTION_SIZE, program))

    def load() -> int:
        return _seccomp(SECCOMP_SET_MODE_FILTER, flags, argument)

    return load


def without_listener(flags: int) -> int:
    """For a process whose calls nobody is asked about: they are answered with ENOSYS."""
    return flags & ~_LISTENING


def flag_available(flag: int) -> bool:
    """Whether the kernel knows a flag of SECCOMP_SET_MODE_FILTER."""
    if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        flag |= SECCOMP_FILTER_FLAG_NEW_LISTENER  # is refused alone
    try:
        _seccomp(SECCOMP_SET_MODE_FILTER, flag, None)
    except OSError as error:
        return error.errno == 14  # EFAULT: it would have read the program
    return True


def action_available(action: int) -> bool:
    """Whether the kernel knows a SECCOMP_RET_ action."""
    try:
        _get_action(SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(action)))
    except OSError:
        return False
    return True
