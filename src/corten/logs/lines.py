"""Cutting a stream into what is logged: whole lines in bulk, and pieces of lines that are too long.

Runs in the shim. Nothing is copied line by line: a chunk with a thousand lines stays one piece.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 16 * 1024  # the buffer of Docker's copier: a line that does not fit with its newline is logged in pieces


class LineCutter:
    """One stream's state between chunks: what of a line has come without its end.

    `feed` and `finish` yield (data, terminated, stamp): terminated data are whole lines, each with its newline; other
    data is a piece of one line without it. All pieces of a long line, and its last one, carry the time of the first.
    """

    __slots__ = ("_long_since", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._long_since = 0

    @property
    def state(self) -> tuple[bytes, int]:
        """What of a line has come, and when its first piece was logged (0: none was)."""
        return self._rest, self._long_since

    @state.setter
    def state(self, state: tuple[bytes, int]) -> None:
        self._rest, self._long_since = state

    def feed(self, chunk: bytes, now_ns: int) -> Iterator[tuple[bytes, bool, int]]:
        data = self._rest + chunk if self._rest else chunk
        start, at, size = 0, 0, len(data)
        while size - at >= LIMIT:
            newline = data.rfind(b"\n", at, at + LIMIT)
            if newline >= 0:
                at = newline + 1
                continue
            if at > start:
                yield from self._lines(data[start:at], now_ns)
            self._long_since = self._long_since or now_ns
            yield data[at : at + LIMIT], False, self._long_since
            at += LIMIT
            start = at
        at = data.rfind(b"\n", at) + 1 or at
        self._rest = data[at:] if at else data
        if at > start:
            yield from self._lines(data[start:at] if start or at < size else data, now_ns)

    def _lines(self, data: bytes, now_ns: int) -> Iterator[tuple[bytes, bool, int]]:
        """Whole lines, the first of which may be the end of one that was logged in pieces."""
        if self._long_since:
            first = data.find(b"\n") + 1
            yield data[:first], True, self._long_since
            self._long_since = 0
            data = data[first:]
        if data:
            yield data, True, now_ns

    def finish(self, now_ns: int) -> Iterator[tuple[bytes, bool, int]]:
        """The stream has ended: what is left is a line without its newline."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest, False, self._long_since or now_ns
        self._long_since = 0
