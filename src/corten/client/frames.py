"""The framing of attach, exec and logs for containers without a TTY: stream (1 byte), zeros (3), length (4), payload.

Stream 1 is stdout, 2 stderr, 3 an error of the daemon's own. Without IO. Complete frames are taken in one loop and
handed on together: a daemon may send a frame for each line of a log, and 100 MB of short lines are millions.
"""

from __future__ import annotations

from struct import Struct

from corten.client.errors import ProtocolError

STDIN, STDOUT, STDERR, SYSTEM = range(4)
HEADER = 8
_HEAD = Struct(">BxxxI")


class FrameReader:
    """`feed` gives the payload that `data` completes, in order, as (stream, bytes); a frame may come in many pieces.

    Payload of frames of one stream in a row is joined.
    """

    def __init__(self) -> None:
        self._stream = STDOUT
        self._left = 0
        self._header = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Raises ProtocolError for a stream number that does not exist."""
        out: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                out.append((self._stream, piece))
                self._left -= len(piece)
                at += len(piece)
            elif not self._header and end - at >= HEADER:
                at = self._whole_frames(data, at, out)
            else:
                part = data[at : at + HEADER - len(self._header)]
                at += len(part)
                self._header += part
                if len(self._header) == HEADER:
                    self._begin(*_HEAD.unpack(self._header))
        return out

    def _whole_frames(self, data: bytes, at: int, out: list[tuple[int, bytes]]) -> int:
        """Takes frames that are complete in `data`, then the header of one that is not. Returns where it ended."""
        end, unpack = len(data), _HEAD.unpack_from
        stream, group = -1, list[bytes]()
        while end - at >= HEADER:
            kind, size = unpack(data, at)
            at += HEADER
            if at + size > end or kind > SYSTEM:
                self._begin(kind, size)
                break
            if kind != stream:
                if group:
                    out.append((stream, b"".join(group)))
                stream, group = kind, []
            group.append(data[at : at + size])
            at += size
        if group:
            out.append((stream, b"".join(group)))
        return at

    def _begin(self, kind: int, size: int) -> None:
        if kind > SYSTEM:
            raise ProtocolError(f"unrecognized input header: {kind}")
        self._stream, self._left, self._header = kind, size, b""
