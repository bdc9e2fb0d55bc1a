"""A position in a log, moved on block by block. Blocks; runs in threads, one step at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from corten.logs import jsonread, localread, tail
from corten.logs.runs import Run
from corten.logs.tail import OpenFile
from corten.logs.types import LogSource, LogWindow

BLOCK = 512 * 1024
_LARGEST = 64 * 1024 * 1024  # a record that does not fit here is no record

Runs = Callable[[bytes, bool, bool], Iterator[Run]]


class Cursor:
    """Reads a log from its first wanted entry. `step` gives what is ready to send."""

    def __init__(self, source: LogSource, window: LogWindow) -> None:
        """Raises OSError when the log cannot be read; one that does not exist yet is empty."""
        self._source, self._window = source, window
        self._path = str(source.path)
        self._runs: Runs = localread.runs if source.driver == "local" else jsonread.runs
        self._files = tail.open_all(self._path)
        self._skip = 0
        self._done = False
        self._lock = threading.Lock()
        if window.tail is not None:
            self._skip = tail.seek(self._files, source.driver, window.tail)

    def step(self) -> bytes | None:
        """What the next block holds (b"" when nothing of it is wanted); None when there is no more now."""
        with self._lock:
            return self._step()

    def _step(self) -> bytes | None:
        while not self._done:
            if not self._files and not self._begin():
                return None
            file = self._files[0]
            block = self._block(file)
            if block:
                return b"".join(self._render(block))
            if not self._next(file):
                return None
        return None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can belong to the window."""
        return self._done

    def close(self) -> None:
        """Waits for a step that runs in a thread whose caller was cancelled; there is none after it."""
        with self._lock:
            self._done = True
            for file in self._files:
                os.close(file.fd)
            self._files.clear()

    def _begin(self) -> bool:
        self._files = tail.open_all(self._path)
        return bool(self._files)

    def _block(self, file: OpenFile) -> bytes:
        """The next whole records of a file; empty at its end."""
        size = BLOCK
        while True:
            block = os.pread(file.fd, size, file.offset)
            whole = localread.whole(block) if self._source.driver == "local" else block.rfind(b"\n") + 1
            if whole or len(block) < size or size >= _LARGEST:
                break
            size *= 2
        file.offset += whole
        return block[:whole]

    def _next(self, file: OpenFile) -> bool:
        """`file` is at its end: go on with the one after it. False when it is the live one."""
        if len(self._files) > 1:
            self._leave(file)
            return True
        if os.fstat(file.fd).st_size < file.offset:  # a log of one file was started over
            file.offset = 0
            return True
        follower = tail.successor(self._path, file)
        if follower is None:
            return False
        self._files.append(follower)
        return True  # what was appended before the rotation comes first

    def _leave(self, file: OpenFile) -> None:
        os.close(file.fd)
        del self._files[0]

    def _render(self, block: bytes) -> Iterator[bytes]:
        window, framed = self._window, not self._source.tty
        for run in self._runs(block, window.timestamps, window.details):
            if window.until_ns and run.mark.time_ns > window.until_ns:
                self._done = True
                return
            data = run.data
            if self._skip:
                data = self._after_skipped(data)
            if not data or run.mark.time_ns < window.since_ns:
                continue
            if window.stdout if run.mark.stream == 1 else window.stderr:
                yield _frames(run.mark.stream, data) if framed else data

    def _after_skipped(self, data: bytes) -> bytes:
        """`data` without the entries that `--tail` leaves out of the first record."""
        lines = data.split(b"\n", self._skip)
        self._skip = 0
        return lines[-1]


class _Headers(dict[int, bytes]):
    """Headers of Docker's multiplexed stream by the length of a line without its newline."""

    def __init__(self, stream: int) -> None:
        super().__init__()
        self._stream = stream

    def __missing__(self, length: int) -> bytes:
        header = bytes((self._stream, 0, 0, 0)) + (length + 1).to_bytes(4, "big")
        if len(self) < 4096:
            self[length] = header
        return header


_HEADERS = {1: _Headers(1), 2: _Headers(2)}


def _frames(stream: int, data: bytes) -> bytes:
    """One frame for each line, as Docker sends them: clients take a frame for a line."""
    headers = _HEADERS[stream]
    *lines, rest = data.split(b"\n")
    framed = b"\n".join([headers[len(line)] + line for line in lines])
    if lines:
        framed += b"\n"
    if rest:
        framed += headers[len(rest) - 1] + rest
    return framed
