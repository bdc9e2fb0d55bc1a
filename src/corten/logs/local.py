"""The `local` driver: a compact binary file of Corten's own.

A file is a sequence of records. One record holds whatever one stream said at one moment, as it was said: many lines,
or a piece of a line.

    offset  size  what
    0       4     length of the data, big endian
    4       8     time in nanoseconds since 1970, big endian
    12      1     stream: 1 stdout, 2 stderr
    13      1     flags: 1 = the data is a piece of one line, without its newline
    14      n     the data; without flag 1 it ends with a newline
    14+n    4     length of the data again, so that `--tail` can walk backwards

Runs in the shim.
"""

from __future__ import annotations

import os

from corten.logs.files import RotatingFile

HEADER = 14
TRAILER = 4
PIECE = 1


def encode(data: bytes, terminated: bool, stream: int, stamp_ns: int) -> bytes:
    length = len(data).to_bytes(4, "big")
    flags = 0 if terminated else PIECE
    return b"".join((length, stamp_ns.to_bytes(8, "big"), bytes((stream, flags)), data, length))


def whole_records(fd: int, size: int) -> int:
    """The length of a file up to and with its last whole record, found from the front."""
    at = 0
    while at + HEADER + TRAILER <= size:
        length = int.from_bytes(os.pread(fd, 4, at), "big")
        end = at + HEADER + length + TRAILER
        if end > size or int.from_bytes(os.pread(fd, 4, end - TRAILER), "big") != length:
            break
        at = end
    return at


class Local:
    """The driver: `write` takes what LineCutter yields."""

    __slots__ = ("_file",)

    def __init__(self, path: str, max_size: int, max_files: int, *, compress: bool = False) -> None:
        self._file = RotatingFile(path, max_size, max_files, whole_records, compress=compress)

    def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        """Append; a file takes lines until it is at or over its size, then the next one is begun."""
        while data:
            room = self._file.room
            if not room:
                self._file.rotate()
                room = self._file.room
            end = len(data)
            if terminated and 0 <= room < end + HEADER + TRAILER:
                end = data.find(b"\n", max(0, room - HEADER - TRAILER - 1)) + 1
            self._file.append(encode(data[:end], terminated, stream, stamp_ns))
            data = data[end:]

    def close(self) -> None:
        self._file.close()
