"""The framing of attach, exec and logs for containers without a TTY: stream (1 byte), zeros (3), length (4), payload.

Stream 1 is stdout, 2 stderr, 3 an error of the daemon's own. Without IO, and without copying payload twice: it passes
several hundred megabytes a second.
"""

from __future__ import annotations

from corten.client.errors import ProtocolError

STDIN, STDOUT, STDERR, SYSTEM = range(4)
HEADER = 8


class FrameReader:
    """`feed` gives the payload that `data` completes, in order, as (stream, piece); a frame may come in many pieces."""

    def __init__(self) -> None:
        self._stream = STDOUT
        self._left = 0
        self._header = b""

    def feed(self, data: bytes | memoryview) -> list[tuple[int, memoryview]]:
        """Raises ProtocolError for a stream number that does not exist."""
        view = memoryview(data)
        pieces: list[tuple[int, memoryview]] = []
        at, end = 0, len(view)
        while at < end:
            if self._left:
                piece = view[at : at + self._left]
                pieces.append((self._stream, piece))
                self._left -= len(piece)
                at += len(piece)
                continue
            header = self._header + bytes(view[at : at + HEADER - len(self._header)])
            at += len(header) - len(self._header)
            self._header = header
            if len(header) == HEADER:
                self._begin(header)
        return pieces

    def _begin(self, header: bytes) -> None:
        if header[0] > SYSTEM or header[1:4] != b"\0\0\0":
            raise ProtocolError(f"unrecognized input header: {header[0]}")
        self._stream = header[0]
        self._left = int.from_bytes(header[4:], "big")
        self._header = b""
