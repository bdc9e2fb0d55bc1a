"""The two system calls that storage needs and `os` lacks. Raises OSError. Imported by the layer workers: keep light."""

from __future__ import annotations

import ctypes
import os
import struct

# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
_SYS_openat2 = 437  # the same on every architecture: it came after the tables were unified

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = [ctypes.c_int]
_libc.syncfs.restype = ctypes.c_int
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.prctl.restype = ctypes.c_int
_libc.unshare.argtypes = [ctypes.c_int]
_libc.unshare.restype = ctypes.c_int
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.mount.restype = ctypes.c_int

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18  # linux/mount.h


def _check(result: int, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path or None)
    return result


def syncfs(fd: int) -> None:
    """Everything written to the file system that holds `fd` is on disk on return."""
    _check(_libc.syncfs(fd))


def open_in_root(root: int, path: bytes, flags: int, resolve: int = 0) -> int:
    """Open `path` as if the directory `root` were /: links and `..` cannot lead out of it."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)
    while True:
        fd = int(_libc.syscall(_SYS_openat2, root, path, how, len(how)))
        # EAGAIN: something was renamed during a walk over `..`; the kernel asks to try again (openat2(2)).
        if fd >= 0 or ctypes.get_errno() != 11:
            return _check(fd, os.fsdecode(path))


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0))


def private_mounts() -> None:
    """Give this process a mount namespace of its own, from which nothing propagates back."""
    _check(_libc.unshare(CLONE_NEWNS))
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind)]
    _check(_libc.mount(*words, flags, os.fsencode(data) if data else None), target)
