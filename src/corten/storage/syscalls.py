"""What storage needs of the kernel beyond `os` and `corten.linux`. Raises OSError. For the workers too: keep light."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys

from corten.linux import openat2
from corten.linux.libc import function

# linux/fs.h
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_TOPDIR_FL = 0x00020000

# linux/fs.h, fcntl.h
RENAME_EXCHANGE = 1 << 1
_AT_FDCWD = -100

_syncfs = function("syncfs", ctypes.c_int)
_renameat2 = function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def syncfs(fd: int) -> None:
    """Everything written to the file system that holds `fd` is on disk on return."""
    _syncfs(fd)


def exchange(one: str, other: str) -> None:
    """Each of the two paths gets what the other had, in one step."""
    _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open `path` as if the directory `root` were /: links and `..` cannot lead out of it."""
    return openat2.open_in_root(root, os.fsdecode(path), flags)


def spread_below(directory: str) -> None:
    """Ask ext4 to lay each new directory in `directory` somewhere else on the disk; no effect on other file systems.

    Layers that are unpacked at the same time then do not wait for each other's block group.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
        value = int.from_bytes(flags[:4], sys.byteorder)
        if not value & FS_TOPDIR_FL:
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, (value | FS_TOPDIR_FL).to_bytes(4, sys.byteorder) + bytes(4))
    except OSError:
        pass  # it is a hint
    finally:
        os.close(fd)
