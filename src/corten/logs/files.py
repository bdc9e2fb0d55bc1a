"""A file that is appended to and rotated by size: `x` is live, `x.1` the one before, and so on.

Runs in the shim, which is the only writer. Nothing is fsynced, as with every logger of this kind; a crash of the host
may tear the end of the live file, which the next writer repairs.

What writer and readers agree on:

- The directory is locked (flock) while names change, and shared-locked while a reader opens a set of files.
- A follower holds a shared lock on the file that it reads. A file whose turn to be deleted has come while it, or an
  older one, is locked is renamed to `x.kept.TIME` instead: however slow the follower, no line is lost to it. All kept
  files together take up to KEPT_LIMIT; beyond, the oldest goes, and its follower is told.
- With compression `x.1` becomes `x.1.gz` some time after the rotation, unless a follower is reading it.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corten.logs.compress import Compressor

MODE = 0o640
KEPT = ".kept."
KEPT_LIMIT = 256 * 1024 * 1024
_LOCK_TRIES = 200  # of a millisecond each: a reader that was stopped meanwhile must not stop the container


def lock(fd: int, operation: int) -> bool:
    """flock that gives up after a fifth of a second. False when it has."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        else:
            return True
    return False


def followed(path: str) -> bool:
    """Whether a follower is reading this file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def kept_files(path: str) -> list[str]:
    """Files that are there for their followers only, oldest first."""
    directory, name = os.path.split(path)
    return [f"{directory}/{entry}" for entry in sorted(os.listdir(directory)) if entry.startswith(name + KEPT)]


def sweep(path: str) -> list[str]:
    """Delete what is kept for nobody any more; a follower needs all that is newer than what it reads. What stays."""
    kept = kept_files(path)
    try:
        while kept and not followed(kept[0]):
            os.unlink(kept.pop(0))
    except FileNotFoundError:  # somebody else sweeps too
        return kept_files(path)
    return kept


class RotatingFile:
    """Appends records. `repair` finds the length of the whole records in a file of given fd and size."""

    __slots__ = ("_compressor", "_directory", "_fd", "_keep", "_kept", "_limit", "_path", "_size", "_torn")

    def __init__(
        self,
        path: str,
        max_size: int,
        max_files: int,
        repair: Callable[[int, int], int],
        *,
        compress: bool = False,
    ) -> None:
        """`max_size` in bytes, 0 for no limit; `max_files` counts the live one. `compress` what is rotated away."""
        self._path, self._limit, self._keep = path, max_size, max_files
        self._torn = False
        self._directory = -1
        self._kept: list[str] | None = None  # None: not known yet
        self._compressor: Compressor | None = None
        if compress:
            from corten.logs.compress import Compressor

            self._compressor = Compressor(path)
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
        if self._directory < 0:
            self._directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        locked = lock(self._directory, fcntl.LOCK_EX)
        try:
            self._shift()
        finally:
            if locked:
                fcntl.flock(self._directory, fcntl.LOCK_UN)
        self._size, self._torn = 0, False
        if self._compressor is not None:
            self._compressor.start()

    def close(self) -> None:
        if self._compressor is not None:
            self._compressor.stop()
        if self._kept:
            sweep(self._path)
        if self._directory >= 0:
            os.close(self._directory)
        os.close(self._fd)

    def _shift(self) -> None:
        if self._kept is None or self._kept:
            self._kept = sweep(self._path)
        if self._keep < 2 and not self._kept and not followed(self._path):
            os.ftruncate(self._fd, 0)
            return
        for oldest in self._names(self._keep - 1):
            self._retire(oldest)
        for index in range(self._keep - 1, 0, -1):
            for newer, name in zip(self._names(index - 1), self._names(index), strict=False):
                try:
                    os.rename(newer, name)
                except FileNotFoundError:
                    continue
        os.close(self._fd)
        self._fd = self._open()

    def _names(self, index: int) -> tuple[str, ...]:
        """Under which names the file of this age can be."""
        if not index:
            return (self._path,)
        name = f"{self._path}.{index}"
        return (name,) if self._compressor is None else (name, name + ".gz")

    def _retire(self, oldest: str) -> None:
        """The oldest file is over: unless somebody still has to read it."""
        kept = self._kept
        assert kept is not None
        try:
            if not kept and not followed(oldest):
                # Not renamed over: ext4 would then write the new file to disk at once, before it goes on.
                os.unlink(oldest)
                return
            name = f"{self._path}{KEPT}{time.time_ns():020d}" + (".gz" if oldest.endswith(".gz") else "")
            os.rename(oldest, name)
        except FileNotFoundError:
            return
        kept.append(name)
        for name in _too_much(kept):
            os.unlink(name)
            kept.remove(name)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


def _too_much(kept: list[str]) -> Iterator[str]:
    """The oldest of the kept files, until the others are within the limit."""
    sizes = [os.stat(name).st_size for name in kept]
    total = sum(sizes)
    for name, size in zip(list(kept), sizes, strict=True):
        if total <= KEPT_LIMIT:
            return
        yield name
        total -= size
