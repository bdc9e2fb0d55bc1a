"""The journald driver: systemd's native protocol, as systemd.journal-fields(7) and its protocol page describe it.

An entry is a datagram of fields. One that does not fit goes as a sealed memfd. Runs in the helper of `logs.relay`.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket

from corten.logs.helper import line_by_line
from corten.logs.lines import LIMIT
from corten.logs.stamps import format_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SOCKET = "/run/systemd/journal/socket"
TIMEOUT = 5.0  # seconds
INFO, ERROR = b"6", b"3"
# linux/fcntl.h; the names are in fcntl since 3.8 on most builds, not on all
F_ADD_SEALS = 1033
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # seal, shrink, grow, write


def field(name: str, value: bytes) -> bytes:
    """A field; with its length where the value holds a newline."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def sanitized(name: str) -> str:
    """A label's or a variable's name as a field's: upper case, digits and underscores, none of which begins it."""
    upper = "".join(c.upper() if c.isascii() and c.isalnum() else "_" for c in name)
    return upper.lstrip("_")


class Journald:
    """`settings`: the entry's own `fields` by name, and `socket`, a path."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._path: str = settings["socket"]
        fields: dict[str, str] = settings["fields"]
        self._fields = b"".join(field(name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items())
        self._epoch = os.urandom(32).hex()
        self._ordinal = 0
        self._pieces: dict[int, tuple[str, int]] = {}  # by stream: the long line's id, and its pieces so far
        self._socket: socket.socket | None = None

    def open(self) -> None:
        if not os.path.exists(self._path):
            raise OSError("journald is not enabled on this host")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT)

    def send(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> tuple[bytes, OSError | None]:
        last = terminated or len(data) < LIMIT
        return line_by_line(data, terminated, lambda line: self._entry(line, stream, stamp_ns, last=last))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _entry(self, line: bytes, stream: int, stamp_ns: int, *, last: bool) -> None:
        entry = (
            field("MESSAGE", line)
            + field("PRIORITY", INFO if stream == 1 else ERROR)
            + self._fields
            + field("SYSLOG_TIMESTAMP", format_ns(stamp_ns))
            + field("CONTAINER_LOG_EPOCH", self._epoch.encode())
            + field("CONTAINER_LOG_ORDINAL", b"%d" % (self._ordinal + 1))
        )
        piece = self._pieces.get(stream)
        if piece is not None or not last:
            id, count = piece or (os.urandom(32).hex(), 0)
            entry += field("CONTAINER_PARTIAL_ID", id.encode()) + field(
                "CONTAINER_PARTIAL_ORDINAL", b"%d" % (count + 1)
            )
            entry += field("CONTAINER_PARTIAL_LAST", b"true" if last else b"false")
            if not last:
                entry += field("CONTAINER_PARTIAL_MESSAGE", b"true")
            piece = None if last else (id, count + 1)
        self._post(entry)
        self._ordinal += 1
        if piece is None:
            self._pieces.pop(stream, None)
        else:
            self._pieces[stream] = piece

    def _post(self, entry: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._post_file(entry)

    def _post_file(self, entry: bytes) -> None:
        """As the one descriptor of an empty datagram: sealed, or journald would not trust it to stay as it is."""
        assert self._socket is not None
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(os.dup(fd), "wb") as file:
                file.write(entry)
            fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(fd)
