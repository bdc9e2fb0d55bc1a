"""What storage needs of the kernel beyond `os` and `corten.linux`. Raises OSError. For the workers too: keep light."""

from __future__ import annotations

import ctypes
import os

from corten.linux import openat2
from corten.linux.libc import function

# linux/fs.h
FICLONE = 0x40049409

_syncfs = function("syncfs", ctypes.c_int)


def syncfs(fd: int) -> None:
    """Everything written to the file system that holds `fd` is on disk on return."""
    _syncfs(fd)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Open `path` as if the directory `root` were /: links and `..` cannot lead out of it."""
    return openat2.open_in_root(root, os.fsdecode(path), flags)
