"""Room on the disk that the database keeps for the day when there is none."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 1 << 20  # bytes: some hundred transactions


class Reserve:
    """A file that holds `SIZE` bytes, given up when the disk is full, so that what frees space can be recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held = False

    def take(self) -> None:
        """Hold the room, if there is any. A second call does nothing."""
        if self.held:
            return
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE)
                self.held = True
            except OSError:
                os.ftruncate(fd, 0)
            finally:
                os.close(fd)

    def release(self) -> bool:
        """Give the room back. False when it was given already."""
        held, self.held = self.held, False
        with suppress(OSError):
            os.truncate(self._path, 0)
        return held
