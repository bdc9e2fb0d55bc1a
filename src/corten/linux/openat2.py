"""openat2(2): opening paths that must not leave a directory."""

from __future__ import annotations

import ctypes
import errno

from corten.linux.libc import encode, syscall

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

O_PATH = 0o10000000
O_CLOEXEC = 0o2000000


class _open_how(ctypes.Structure):
    """linux/openat2.h: struct open_how."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_openat2 = syscall("openat2", ctypes.c_long, ctypes.c_char_p, ctypes.POINTER(_open_how), ctypes.c_size_t)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd`; close-on-exec. `resolve` are RESOLVE_ flags."""
    how = _open_how(flags | O_CLOEXEC, mode, resolve)
    encoded = encode(path)
    for _ in range(64):
        try:
            return _openat2(dir_fd, encoded, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            # EAGAIN: a rename somewhere in the system raced with a ".."; the kernel cannot vouch for the result.
            if error.errno != errno.EAGAIN:
                error.filename = path
                raise
    raise OSError(errno.EAGAIN, "path keeps changing while it is resolved", path)


def open_in_root(root_fd: int, path: str, flags: int = O_PATH) -> int:
    """Open `path` as a process chrooted to `root_fd` would see it; links of /proc that jump elsewhere are refused."""
    return openat2(root_fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
