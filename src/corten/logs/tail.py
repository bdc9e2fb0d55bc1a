"""Where reading begins: the files of a log, and the offset at which its last entries start. Blocks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corten.logs import localread
from corten.logs.jsonfile import whole_records

BLOCK = 64 * 1024


@dataclass(slots=True)
class OpenFile:
    """One file of a log, and the offset of what is read next. `inode` tells it from others after a rotation."""

    fd: int
    inode: int
    offset: int = 0


def open_all(path: str) -> list[OpenFile]:
    """Every file of a log, oldest first; empty when there is none. The caller closes them.

    The live one is opened first: if a rotation happens in between, a file shows up twice, and none is missed.
    """
    files: list[OpenFile] = []
    for index in range(1 << 16):
        name = f"{path}.{index}" if index else path
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            break
        inode = os.fstat(fd).st_ino
        if any(file.inode == inode for file in files):
            os.close(fd)
        else:
            files.append(OpenFile(fd, inode))
    return files[::-1]


def seek(files: list[OpenFile], driver: str, entries: int) -> int:
    """Set offsets so that the last `entries` entries are read.

    The number of entries to skip at the beginning: a record of the `local` driver holds many.
    """
    skip, missing = 0, entries
    for file in reversed(files):
        size = os.fstat(file.fd).st_size
        if missing <= 0:
            file.offset = localread.whole_size(file.fd, size) if driver == "local" else whole_records(file.fd, size)
        elif driver == "local":
            file.offset, skip = localread.back(file.fd, size, missing)
            missing, skip = (-skip, 0) if skip < 0 else (0, skip)
        else:
            file.offset, missing = _back(file.fd, whole_records(file.fd, size), missing)
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


def successor(path: str, file: OpenFile) -> OpenFile | None:
    """The file that was begun after `file` was rotated away; None when `file` is the live one."""
    opened = open_all(path)
    newer = opened
    for index, other in enumerate(opened):
        if other.inode == file.inode:
            newer = opened[index + 1 :]
    for other in opened:
        if not newer or other is not newer[0]:
            os.close(other.fd)
    return newer[0] if newer else None
