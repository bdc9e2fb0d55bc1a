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
_COARSE = 1_000_000_000  # nanoseconds by which a file's time may be behind the stamps in it
# To a client that was so slow that even what is kept for its like was too much. It cannot happen silently.
LOST = b"corten: log lines were deleted before they were read: this client is too slow\n"

Runs = Callable[[bytes, bool, bool], Iterator[Run]]


class Cursor:
    """Reads a log from its first wanted entry. `step` gives what is ready to send."""

    def __init__(self, source: LogSource, window: LogWindow) -> None:
        """Raises OSError when the log cannot be read; one that does not exist yet is empty."""
        self._source, self._window = source, window
        self._path = str(source.path)
        self._runs: Runs = localread.runs if source.driver == "local" else jsonread.runs
        self._skip = 0
        self._done = False
        self._lost = False
        self._lock = threading.Lock()
        self._files = tail.open_all(self._path, follow=window.follow)
        if window.tail is not None:
            self._skip = tail.seek(self._files, source.driver, window.tail)
        self._settle()

    def step(self) -> bytes | None:
        """What the next block holds (b"" when nothing of it is wanted); None when there is no more now."""
        with self._lock:
            return self._step()

    def _step(self) -> bytes | None:
        while not self._done:
            if not self._files:
                self._files = tail.open_all(self._path, follow=self._window.follow)
                self._settle()
                if not self._files:
                    return None
            file = self._files[0]
            block = self._block(file)
            if block:
                return b"".join(self._render(block))
            if not self._next(file):
                return None
            if self._lost:
                self._lost = False
                return self._note(LOST)
        return None

    @property
    def done(self) -> bool:
        """Whether nothing that follows can belong to the window."""
        return self._done

    def close(self) -> None:
        """Waits for a step that runs in a thread whose caller was cancelled; there is none after it."""
        with self._lock:
            self._done = True
            while self._files:
                self._move_on()

    def _settle(self) -> None:
        """Let go of the files that are not needed, or not yet: a follower holds one, and with it all that are newer."""
        since = self._window.since_ns - _COARSE
        while len(self._files) > 1 and self._files[0].modified_ns < since:
            self._files.pop(0).close()
        if self._window.follow:
            while len(self._files) > 1:
                self._files.pop().close()
        elif self._files:
            self._files[-1].limit = self._files[-1].size  # what is said from now on is not asked for

    def _block(self, file: OpenFile) -> bytes:
        """The next whole records of a file; empty at its end."""
        size, data = BLOCK, file.data
        while True:
            block = os.pread(data, min(size, file.limit - file.offset), file.offset)
            whole = localread.whole(block) if self._source.driver == "local" else block.rfind(b"\n") + 1
            if whole or len(block) < size or size >= _LARGEST:
                break
            size *= 2
        file.offset += whole
        return block[:whole]

    def _next(self, file: OpenFile) -> bool:
        """`file` is at its end: go on with the one after it. False when it is the live one."""
        if len(self._files) > 1:
            self._move_on()
            return True
        if not self._window.follow:
            return False
        if file.size < file.offset:  # a log of one file was started over
            file.offset = 0
            return True
        following, self._lost = tail.successor(self._path, file)
        if following is None:
            return False
        self._files.append(following)
        return True  # what was appended before the rotation comes first

    def _move_on(self) -> None:
        file = self._files.pop(0)
        if self._window.follow:
            tail.left(self._path, file)
        else:
            file.close()

    def _note(self, text: bytes) -> bytes:
        return text if self._source.tty else _frames(2, text)

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
