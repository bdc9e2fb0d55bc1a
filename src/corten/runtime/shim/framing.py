"""The bytes of an attached stream, without any IO: Docker's multiplexed frames, and the keys that detach."""

from __future__ import annotations

STDIN, STDOUT, STDERR = 0, 1, 2
HEADER = 8


def frame_header(stream: int, size: int) -> bytes:
    """What precedes `size` bytes of output: the stream's number, three zeros, the size in big endian."""
    return bytes((stream, 0, 0, 0)) + size.to_bytes(4, "big")


class DetachScanner:
    """Looks for the detach sequence in what a client types.

    As in Docker, a beginning of the sequence is held back until the next byte decides; what turns out not to be the
    sequence is passed on whole, and the byte that broke it does not begin a new one.
    """

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the process, and whether the client has detached (the rest of `data` is dropped then)."""
        keys = self._keys
        if not keys or (not self._matched and keys[0] not in data):
            return data, False
        passed = bytearray()
        for byte in data:
            if byte != keys[self._matched]:
                passed += keys[: self._matched]
                passed.append(byte)
                self._matched = 0
                continue
            self._matched += 1
            if self._matched == len(keys):
                self._matched = 0
                return bytes(passed), True
        return bytes(passed), False

    def finish(self) -> bytes:
        """The client's input has ended: what was held back goes on."""
        held, self._matched = self._keys[: self._matched], 0
        return held
