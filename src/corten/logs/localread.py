"""Reading the `local` driver's files, whose format `logs.local` describes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from corten.logs.local import HEADER, PIECE, TRAILER
from corten.logs.runs import Mark, Run
from corten.logs.stamps import format_ns, pad_fraction


def whole(block: bytes) -> int:
    """The length of the whole records at the beginning of `block`."""
    at = 0
    while at + HEADER + TRAILER <= len(block):
        end = at + HEADER + int.from_bytes(block[at : at + 4], "big") + TRAILER
        if end > len(block):
            break
        at = end
    return at


def runs(block: bytes, timestamps: bool, details: bool) -> Iterator[Run]:
    """The runs of a block of whole records."""
    at = 0
    while at < len(block):
        length = int.from_bytes(block[at : at + 4], "big")
        time_ns = int.from_bytes(block[at + 4 : at + 12], "big")
        stream, flags = block[at + 12], block[at + 13]
        data = block[at + HEADER : at + HEADER + length]
        mark = Mark(stream, pad_fraction(format_ns(time_ns)), time_ns)
        if prefix := mark.prefix(timestamps, details):
            data = prefix + (data if flags & PIECE else data[:-1].replace(b"\n", b"\n" + prefix) + b"\n")
        yield Run(mark, data)
        at += HEADER + length + TRAILER


def back(fd: int, size: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` entries of a file begin: the offset of their record, and how many of its entries to skip.

    The second number of a file that holds fewer is minus what is missing.
    """
    at = whole_size(fd, size)
    while at > 0:
        length = int.from_bytes(os.pread(fd, TRAILER, at - TRAILER), "big")
        at -= HEADER + length + TRAILER
        record = os.pread(fd, HEADER + length, at)
        entries = 1 if record[13] & PIECE else record.count(b"\n", HEADER)
        if entries >= lines:
            return at, entries - lines
        lines -= entries
    return 0, -lines


def whole_size(fd: int, size: int) -> int:
    """The length up to the last whole record, for a file that may be torn at its end or is being written."""
    if size >= HEADER + TRAILER:
        length = int.from_bytes(os.pread(fd, TRAILER, size - TRAILER), "big")
        start = size - TRAILER - length - HEADER
        if start >= 0 and int.from_bytes(os.pread(fd, 4, start), "big") == length:
            return size
    at = 0
    while at + HEADER + TRAILER <= size:
        end = at + HEADER + int.from_bytes(os.pread(fd, 4, at), "big") + TRAILER
        if end > size:
            break
        at = end
    return at
