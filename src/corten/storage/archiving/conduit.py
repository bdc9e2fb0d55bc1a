"""The two ends of a transfer over a client's own socket: HTTP bodies written in large pieces, and read.

Blocking, on descriptors that stay their owner's. Imported by the workers: keep light.
"""

from __future__ import annotations

import errno
import os

from corten.errors import InvalidArgument
from corten.storage.apply import Ahead
from corten.storage.archiving.protocol import METER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 256 << 10
_READ = 256 << 10
_SENDFILE = 1 << 30
_INLINE = 128 << 10  # a smaller file is read: that costs less than its calls of sendfile
_MAX_LINE = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ZEROS = bytes(64 << 10)


class Outlet:
    """A body that is written: in HTTP chunks when `chunked`, else plain until the descriptor is closed."""

    def __init__(self, fd: int, *, chunked: bool) -> None:
        self._fd, self._chunked = fd, chunked
        self._pending: list[bytes] = []
        self._size = 0
        self._tail = b""  # the line end of the chunk before

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size >= _PIECE:
            self._flush(0)

    def file(self, fd: int, offset: int, size: int) -> None:
        """`size` bytes of the file `fd` from `offset`; zeros for what it has lost meanwhile."""
        if size <= _INLINE:
            data = os.pread(fd, size, offset)
            while len(data) < size:
                more = os.pread(fd, size - len(data), offset + len(data))
                data += more or bytes(size - len(data))
            self.write(data)
            return
        self._flush(size)
        end = offset + size
        while offset < end:
            try:
                sent = os.sendfile(self._fd, fd, offset, min(end - offset, _SENDFILE))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                sent = self._copy(fd, offset, end)  # a file system that cannot be spliced from
            if not sent:
                self._zeros(end - offset)
                return
            offset += sent

    def close(self) -> None:
        """Everything has been written."""
        self._flush(0)
        if self._chunked:
            self._send([self._tail + b"0\r\n\r\n"])

    def _copy(self, fd: int, offset: int, end: int) -> int:
        data = os.pread(fd, min(end - offset, _READ), offset)
        if data:
            self._send([data])
        return len(data)

    def _zeros(self, count: int) -> None:
        while count:
            part = _ZEROS[:count]
            self._send([part])
            count -= len(part)

    def _flush(self, following: int) -> None:
        """Send what is pending, as one chunk with the `following` bytes that the caller sends itself."""
        pieces, total = self._pending, self._size + following
        self._pending, self._size = [], 0
        if self._chunked and total:
            pieces.insert(0, self._tail + b"%x\r\n" % total)
            self._tail = b"\r\n"
        if pieces:
            self._send([b"".join(pieces)])

    def _send(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(self._fd, left) :]


class Inlet:
    """A body that is read. `framing` is "chunked", "raw" (to the end of the stream) or a decimal length; `prefix` are
    bytes that were read before.
    """

    def __init__(self, fd: int, framing: str, prefix: bytes = b"", *, meter: int = -1, ahead: bool = False) -> None:
        """With `ahead` a thread reads, so that a busy client and a busy disk hold each other up less. It may read to
        the end of the process: only where `fd` is not closed before. The file `meter` tells how it gets on, see
        `protocol.read_meter`.
        """
        self._framing, self._prefix = framing, prefix
        self._meter, self._total = meter, 0
        self._pieces: Iterator[bytes] = iter(lambda: os.read(fd, _READ), b"")
        if ahead:
            self._pieces = iter(Ahead(self._pieces))

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces. Raises InvalidArgument when it ends early or is malformed."""
        if self._framing == "chunked":
            yield from self._dechunked()
        elif self._framing == "raw":
            if self._prefix:
                yield self._prefix
            while data := self._next():
                yield data
        else:
            yield from self._counted(int(self._framing))

    def _read(self) -> bytes:
        data, self._prefix = self._prefix, b""
        data = data or self._next()
        if not data:
            raise InvalidArgument("unexpected EOF")
        return data

    def _next(self) -> bytes:
        if self._meter < 0:
            return next(self._pieces, b"")
        self._tell(waiting=True)
        data = next(self._pieces, b"")
        self._total += len(data)
        self._tell(waiting=False)
        return data

    def _tell(self, *, waiting: bool) -> None:
        os.pwrite(self._meter, self._total.to_bytes(METER - 1, "little") + bytes([waiting]), 0)

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            data = self._read()[:left]
            left -= len(data)
            yield data

    def _dechunked(self) -> Iterator[bytes]:
        data, at = b"", 0
        while True:
            end = data.find(b"\n", at)
            if end < 0:
                if len(data) - at > _MAX_LINE:
                    raise InvalidArgument("malformed chunked encoding")
                data, at = data[at:] + self._read(), 0
                continue
            left, at = _chunk_size(data[at:end]), end + 1
            last = not left
            while left:
                if at == len(data):
                    data, at = self._read(), 0
                piece = data[at : at + left]
                at += len(piece)
                left -= len(piece)
                yield piece
            while len(data) - at < 2:
                data, at = data[at:] + self._read(), 0
            if data[at : at + 2] != b"\r\n":
                if last:
                    return  # trailers, which nobody reads: the connection ends with this request
                raise InvalidArgument("malformed chunked encoding")
            at += 2
            if last:
                return


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t\r")
    if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
        raise InvalidArgument("malformed chunked encoding")
    return int(digits, 16)
