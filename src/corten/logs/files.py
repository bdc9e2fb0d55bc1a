"""A file that is appended to and rotated by size: `x` is live, `x.1` the one before, and so on.

Runs in the shim, which is the only writer. Nothing is fsynced, as with every logger of this kind; a crash of the host
may tear the end of the live file, which the next writer repairs.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MODE = 0o640


class RotatingFile:
    """Appends records. `repair` finds the length of the whole records in a file of given fd and size."""

    __slots__ = ("_fd", "_keep", "_limit", "_path", "_size", "_torn")

    def __init__(self, path: str, max_size: int, max_files: int, repair: Callable[[int, int], int]) -> None:
        """`max_size` in bytes, 0 for no limit; `max_files` counts the live one."""
        self._path, self._limit, self._keep = path, max_size, max_files
        self._torn = False
        self._fd = self._open()
        size = os.fstat(self._fd).st_size
        self._size = repair(self._fd, size) if size else 0
        if self._size < size:
            os.ftruncate(self._fd, self._size)

    @property
    def room(self) -> int:
        """Bytes until the live file is full; -1 for no limit. A record that does not fit opens the next file."""
        return -1 if self._limit <= 0 else max(0, self._limit - self._size)

    def append(self, data: bytes) -> None:
        """Write whole records.

        Raises OSError (a full disk); then nothing of `data` stays, so that the file never holds half a record.
        """
        if self._torn:
            os.ftruncate(self._fd, self._size)
        self._torn = True
        done = os.write(self._fd, data)
        while done < len(data):
            done += os.write(self._fd, memoryview(data)[done:])
        self._torn = False
        self._size += done

    def rotate(self) -> None:
        """Start a new live file; the oldest one goes."""
        if self._keep < 2:
            os.ftruncate(self._fd, 0)
        else:
            # Not renamed over: ext4 would then write the new file to disk at once, before it goes on.
            oldest = f"{self._path}.{self._keep - 1}"
            if os.path.exists(oldest):
                os.unlink(oldest)
            for index in range(self._keep - 1, 0, -1):
                newer = f"{self._path}.{index - 1}" if index > 1 else self._path
                try:
                    os.rename(newer, f"{self._path}.{index}")
                except FileNotFoundError:
                    continue
            os.close(self._fd)
            self._fd = self._open()
        self._size, self._torn = 0, False

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
