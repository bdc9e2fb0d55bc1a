"""Going down into a tree of any depth with few descriptors. Imported by the workers: keep light.

No link is followed. A directory far above the one at hand is closed, and found again by the `..` of the one below it.
"""

from __future__ import annotations

import errno
import os

READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64


class Descent:
    """The directories from a tree's top, which stays the caller's, down to `fd`."""

    def __init__(self, top: int) -> None:
        self._fds = [os.dup(top)]
        self._identities = [_identity(top)]

    @property
    def fd(self) -> int:
        """The lowest, open."""
        return self._fds[-1]

    def enter(self, inner: int) -> None:
        """Go down into the directory `inner` of `fd`, which is this object's from now on."""
        self._fds.append(inner)
        self._identities.append(_identity(inner))
        if len(self._fds) > _OPEN:
            above = len(self._fds) - _OPEN - 1
            os.close(self._fds[above])
            self._fds[above] = -1

    def leave(self) -> None:
        """Go up again. Raises OSError (ESTALE) when there is no way back, as somebody has moved the directory."""
        if len(self._fds) > 1 and self._fds[-2] < 0:
            self._fds[-2] = self._above()
        os.close(self._fds.pop())
        self._identities.pop()

    def close(self) -> None:
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)
        self._fds.clear()

    def _above(self) -> int:
        fd = os.open("..", READ_DIR, dir_fd=self._fds[-1])
        if _identity(fd) != self._identities[-2]:
            os.close(fd)
            raise OSError(errno.ESTALE, "the tree is being changed")
        return fd


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
