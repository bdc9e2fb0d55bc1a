"""The C library and the system calls that it does not wrap, each declared once.

`function` and `syscall` give callables that raise OSError: nothing else in Corten looks at errno. Calls release the
GIL.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MACHINE = os.uname().machine

_library = ctypes.CDLL(None, use_errno=True)

# From the kernel's arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "capget": 125,
        "capset": 126,
        "pivot_root": 155,
        "add_key": 248,
        "keyctl": 250,
        "ioprio_set": 251,
        "ioprio_get": 252,
        "set_mempolicy": 238,
        "sched_setattr": 314,
        "seccomp": 317,
        "bpf": 321,
    },
    "aarch64": {
        "capget": 90,
        "capset": 91,
        "pivot_root": 41,
        "add_key": 217,
        "keyctl": 219,
        "ioprio_set": 30,
        "ioprio_get": 31,
        "set_mempolicy": 237,
        "sched_setattr": 274,
        "seccomp": 277,
        "bpf": 280,
    },
}

# System calls added since Linux 5.1 have one number on all architectures.
_COMMON: dict[str, int] = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}


def number(name: str, machine: str = MACHINE) -> int:
    """The number of a system call on `machine`. Raises OSError (ENOSYS) for an architecture or a call not known."""
    table = _NUMBERS.get(machine)
    if table is not None:
        found = table.get(name, _COMMON.get(name))
        if found is not None:
            return found
    raise OSError(38, f"no number is known for system call {name} on {machine}")  # ENOSYS


def failed(*names: str) -> OSError:
    """The error of the call that has just returned -1; `names` are the files that it was about."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), names[0] if names else None, None, names[1] if len(names) > 1 else None)


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """A function of the C library that returns -1 on failure."""
    # _library[...] makes a new function object each time, so that two declarations never share argtypes.
    call = _library[name]
    call.argtypes, call.restype = argtypes, ctypes.c_long if name == "syscall" else ctypes.c_int

    def checked(*arguments: Any) -> int:
        result: int = call(*arguments)
        if result == -1:
            raise failed()
        return result

    return checked


def syscall(name: str, *argtypes: Any) -> Callable[..., int]:
    """A system call by its name. Importing for an unknown architecture raises OSError."""
    nr = number(name)
    call = _library["syscall"]
    # Arguments are widened to the register size: a C int passed through varargs leaves its upper half undefined.
    call.argtypes, call.restype = (ctypes.c_long, *argtypes), ctypes.c_long

    def checked(*arguments: Any) -> int:
        result: int = call(nr, *arguments)
        if result == -1:
            raise failed()
        return result

    return checked


def encode(path: str) -> bytes:
    """A path as the kernel takes it. One with a NUL in it would be cut there, and mean another file."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, "embedded null byte", path)
    return encoded
