"""Giving memory back."""

from __future__ import annotations

import ctypes

from corten.linux.libc import function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _find() -> Callable[..., int]:
    try:
        return function("malloc_trim", ctypes.c_size_t)
    except AttributeError:  # musl keeps nothing back
        return lambda pad: 0


_malloc_trim = _find()


def trim() -> None:
    """Return what the allocator has kept of large blocks: glibc keeps half a megabyte once it has seen some."""
    _malloc_trim(0)
