"""Loading a seccomp filter that has been compiled to BPF before."""

from __future__ import annotations

import ctypes

from corten.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

_INSTRUCTION_SIZE = 8  # linux/filter.h: struct sock_filter


class _sock_fprog(ctypes.Structure):
    """linux/filter.h: struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


_seccomp = syscall("seccomp", ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_sock_fprog))


def prepare_filter(program: bytes, flags: int) -> Callable[[], None]:
    """A call that loads `program` (struct sock_filter, one after the other), with nothing left to allocate.

    Needs no_new_privs or CAP_SYS_ADMIN.
    """
    argument = ctypes.byref(_sock_fprog(len(program) // _INSTRUCTION_SIZE, program))

    def load() -> None:
        _seccomp(SECCOMP_SET_MODE_FILTER, flags, argument)

    return load
