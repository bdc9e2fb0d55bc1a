"""Where reading begins: the files of a log, and the offset at which its last entries start. Blocks."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from corten.logs import localread
from corten.logs.compress import SUFFIX, origin
from corten.logs.files import kept_files, lock, sweep
from corten.logs.jsonfile import whole_records

BLOCK = 64 * 1024


class OpenFile:
    """One file of a log, the offset of what is read next, and the one where reading ends.

    `inode` tells it from others after a rotation.

    A compressed file has the inode of the one that it was made of as `origin`, and is unpacked when `data` is used.
    """

    def __init__(self, name: str, fd: int) -> None:
        status = os.fstat(fd)
        self.fd, self.inode, self.modified_ns = fd, status.st_ino, status.st_mtime_ns
        self.offset, self.limit = 0, 1 << 62
        self._packed = name.endswith(SUFFIX)
        self.origin = origin(fd) if self._packed else 0
        self._place = os.path.dirname(name)
        self._unpacked: IO[bytes] | None = None

    @property
    def data(self) -> int:
        """A descriptor of the text."""
        if not self._packed:
            return self.fd
        if self._unpacked is None:
            self._unpacked = _unpack(self.fd, self._place)
        return self._unpacked.fileno()

    @property
    def size(self) -> int:
        return os.fstat(self.data).st_size

    def close(self) -> None:
        os.close(self.fd)
        if self._unpacked is not None:
            self._unpacked.close()

    def follow(self) -> None:
        """Have the writer keep this file and all newer ones until it is closed, as `logs.files` says."""
        lock(self.fd, fcntl.LOCK_SH)


def _unpack(fd: int, directory: str) -> IO[bytes]:
    """A nameless file with the text of a compressed one, as far as it is whole."""
    target = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # the caller's
    with open(os.dup(fd), "rb") as raw, gzip.GzipFile(fileobj=raw) as packed, suppress(OSError, EOFError):
        shutil.copyfileobj(packed, target, 1 << 20)
    target.flush()
    return target


@contextmanager
def _at_rest(path: str) -> Iterator[None]:
    """No names change meanwhile. Raises FileNotFoundError when there is no directory."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def open_all(path: str, *, follow: bool = False) -> list[OpenFile]:
    """Every file of a log, oldest first; empty when there is none. The caller closes them.

    With `follow` they are followed.
    """
    try:
        with _at_rest(path):
            files = _open(_numbered(path))
            for file in files if follow else ():
                file.follow()
            return files
    except FileNotFoundError:
        return []


def _numbered(path: str) -> list[str]:
    """The names of the files, oldest first. Of one whose compressing was broken off there are two: the first counts."""
    directory, base = os.path.split(path)
    found: dict[int, str] = {}
    for name in os.listdir(directory):
        number = name.removeprefix(base + ".").removesuffix(SUFFIX)
        if name == base:
            found[0] = path
        elif name.startswith(base + ".") and number.isdigit() and not (name.endswith(SUFFIX) and int(number) in found):
            found[int(number)] = f"{directory}/{name}"
    return [found[index] for index in sorted(found, reverse=True)]


def _open(names: list[str]) -> list[OpenFile]:
    files: list[OpenFile] = []
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # the lock could not be had
            continue
        files.append(OpenFile(name, fd))
    return files


def seek(files: list[OpenFile], driver: str, entries: int) -> int:
    """Set offsets so that the last `entries` entries are read.

    The number of entries to skip at the beginning: a record of the `local` driver holds many. Files in which nothing
    is wanted are closed and taken out of the list.
    """
    skip, missing = 0, entries
    for index in range(len(files) - 1, -1, -1):
        file = files[index]
        live = index == len(files) - 1
        if missing <= 0 and not live:
            for _ in range(index + 1):
                files.pop(0).close()
            break
        size = file.size
        if missing <= 0:
            file.offset = localread.whole_size(file.data, size) if driver == "local" else whole_records(file.data, size)
        elif driver == "local":
            file.offset, skip = localread.back(file.data, size, missing)
            missing, skip = (-skip, 0) if skip < 0 else (0, skip)
        else:
            file.offset, missing = _back(file.data, whole_records(file.data, size), missing)
    return skip


def _back(fd: int, size: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines begin, and how many are missing because the file has fewer."""
    at = size
    lines += 1  # the newline before the first of them
    while at > 0:
        start = max(0, at - BLOCK)
        block = os.pread(fd, at - start, start)
        count = block.count(b"\n")
        if count >= lines:
            position = len(block)
            for _ in range(lines):
                position = block.rfind(b"\n", 0, position)
            return start + position + 1, 0
        lines -= count
        at = start
    return 0, lines - 1


def successor(path: str, file: OpenFile) -> tuple[OpenFile | None, bool]:
    """The file that was begun after `file` was rotated away, followed; None when `file` is the live one.

    The second value says that files between the two have gone.
    """
    try:
        if os.stat(path).st_ino == file.inode:
            return None, False
        with _at_rest(path):
            files = _open([*kept_files(path), *_numbered(path)])
            place = _place(files, file)
            following = files[place + 1 : place + 2]
            for other in files:
                if other not in following:
                    other.close()
            for other in following:
                other.follow()
            return (following[0] if following else None), place < 0
    except FileNotFoundError:
        return None, False


def _place(files: list[OpenFile], file: OpenFile) -> int:
    """Where `file` is among the files that there are; -1 when it has gone.

    As it is open its inode has not been given to another. Only when there is none of its inode it may have been
    compressed: the newest that was made of such a one, as it may have been somebody else's before.
    """
    inodes = [other.inode for other in files]
    if file.inode in inodes:
        return inodes.index(file.inode)
    origins = [other.origin for other in files]
    return len(files) - 1 - origins[::-1].index(file.inode) if file.inode in origins else -1


def left(path: str, file: OpenFile) -> None:
    """Close a file that was followed, and delete what was there for its followers only."""
    file.close()
    try:
        with _at_rest(path):
            sweep(path)
    except FileNotFoundError:
        return
