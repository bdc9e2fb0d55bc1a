"""inotify: being told when files change."""

from __future__ import annotations

import ctypes
import os

from corten.linux.libc import encode, function

# linux/inotify.h
IN_MODIFY = 0x00000002
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_ONLYDIR = 0x01000000
IN_CLOEXEC = os.O_CLOEXEC
IN_NONBLOCK = os.O_NONBLOCK

_init = function("inotify_init1", ctypes.c_int)
_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def open_watch(path: str, mask: int) -> int:
    """A non-blocking descriptor that is readable when something of `mask` has happened at `path`. The caller's."""
    fd = _init(IN_CLOEXEC | IN_NONBLOCK)
    try:
        _add_watch(fd, encode(path), mask)
    except BaseException:
        os.close(fd)
        raise
    return fd


def drain(fd: int) -> None:
    """Throw away the events that have come: what matters is that there were some."""
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        return
