"""A driver whose work is done by a helper process: what may block, and what needs costly imports.

    shim                                   helper (a fork of it)
      | <-- "+" and a newline, or "-REASON" ---- |   the driver is open, or cannot be opened
      | --- records in the `local` format -----> |
      | <-- a line of text for each complaint -- |
      | --- end ------------------------------>  |   the container has ended
      | <-- end -------------------------------- |   all is delivered, or given up

The shim never waits for ever. Of what the helper has not taken yet up to `limit` bytes are queued. When that is full a
blocking log waits for STALL seconds at most without any progress, and a non-blocking one not at all; then lines are
dropped, counted, and told of.

Loaded by shims that relay only.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from corten.logs import local
from corten.logs.helper import OK, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.logs.helper import Sender
    from corten.logs.writer import Driver, Watching


QUEUE = 1024 * 1024  # bytes of a blocking log; as many in Docker's ring by default
STALL = 2.0
OPENING = 15.0  # seconds; the helper gives up before
LAST = 10.0  # seconds that the end of the container waits for its last lines
AGAIN = 1.0  # seconds between two helpers, should one die


class Relay:
    """The driver: `write` takes what LineCutter yields."""

    def __init__(
        self, sender: Callable[[], Sender], loop: Watching, complain: Callable[[str], None], limit: int, blocking: bool
    ) -> None:
        """`limit` in bytes. Raises OSError with the reason when the helper cannot open its driver."""
        self._sender, self._loop, self._complain = sender, loop, complain
        self._limit, self._blocking = limit, blocking
        self._queue: list[memoryview] = []
        self._queued = 0
        self._begun = False  # whether part of the first record is sent
        self._stuck = False
        self._dropped = 0
        self._said = b""
        self._started = 0.0
        self._start(retry=False)
        self._wait_opened()

    def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        """Queue and send what can be sent now. Raises OSError when there is no helper any more."""
        if self._socket is None and time.monotonic() > self._started + AGAIN:
            self._start(retry=True)
        if self._socket is None:
            self._drop(data, terminated)
            return
        if self._queued + len(data) > self._limit and self._blocking:
            self._wait(len(data))
        if self._queued and self._queued + len(data) > self._limit:
            fits = max(0, self._limit - self._queued)
            fits = data.rfind(b"\n", 0, fits) + 1 if terminated else 0
            self._drop(data[fits:], terminated)
            data = data[:fits]
        if data:
            record = local.encode(data, terminated, stream, stamp_ns)
            self._queue.append(memoryview(record))
            self._queued += len(record)
            self._flush()

    def close(self) -> None:
        """Wait for the last lines to be delivered, for as long as the helper gets on with it."""
        end = time.monotonic() + LAST
        while self._queue and self._socket is not None and (left := end - time.monotonic()) > 0:
            if not self._poll(select.POLLOUT, left):
                break
            self._flush()
        for record in self._queue:
            self._drop(bytes(record[local.HEADER : -local.TRAILER]), True)
        if self._dropped:
            self._complain(f"{self._dropped} log lines were dropped")
        if self._socket is None:
            return
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:  # it has died
            self._lose()
            return
        while self._socket is not None and (left := end - time.monotonic()) > 0:
            if self._poll(select.POLLIN, left):
                self._hear()
        self._lose()

    def _start(self, retry: bool) -> None:
        """Fork a helper. With `retry` it goes on trying to open its driver."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._started = time.monotonic()
        self._pid = os.fork()
        if not self._pid:
            serve(theirs, self._sender, retry)
        theirs.close()
        ours.setblocking(False)
        self._socket: _socket.socket | None = ours
        self._loop.watch(ours.fileno(), select.EPOLLIN, self._ready)

    def _wait_opened(self) -> None:
        while not self._said and self._socket is not None and self._poll(select.POLLIN, OPENING):
            self._hear(first=True)
        said, self._said = self._said, b""
        if said.startswith(OK):
            return
        self._lose()
        if self._pid:
            os.kill(self._pid, 9)  # it may be that it hangs
        self._reap(0)
        raise OSError(said[1:].decode(errors="replace").strip() or "the log's helper did not answer")

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT and self._socket is not None:
            self._hear()

    def _hear(self, first: bool = False) -> None:
        assert self._socket is not None
        try:
            said = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._lose()
            self._reap(0)  # it holds its end for as long as it lives
        elif first:
            self._said = said
        else:
            *lines, self._said = (self._said + said).split(b"\n")
            for line in lines:
                self._complain(line.decode(errors="replace"))

    def _reap(self, options: int) -> None:
        try:
            ended, _ = os.waitpid(self._pid, options)
        except ChildProcessError:  # the shim waits for whoever ends
            ended = self._pid
        if ended:
            self._pid = 0

    def _flush(self) -> None:
        while self._queue and self._socket is not None:
            try:
                sent = self._socket.send(self._queue[0])
            except BlockingIOError:
                self._loop.watch(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT, self._ready)
                return
            except OSError:
                self._lose()
                return
            self._queued -= sent
            self._stuck = False
            self._begun = sent < len(self._queue[0])
            if self._begun:
                self._queue[0] = self._queue[0][sent:]
            else:
                del self._queue[0]
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), select.EPOLLIN, self._ready)

    def _wait(self, size: int) -> None:
        """Until `size` bytes fit into the queue. Without progress it gives up, until there is some again."""
        while self._queue and self._queued + size > self._limit and not self._stuck and self._socket is not None:
            if self._poll(select.POLLOUT, STALL):
                self._flush()
            else:
                self._stuck = True

    def _poll(self, events: int, seconds: float) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket.fileno(), events)
        return bool(poll.poll(seconds * 1000))

    def _drop(self, data: bytes, terminated: bool) -> None:
        if not self._dropped:
            self._complain("log lines are dropped: whoever takes them is too slow, or away")
        self._dropped += data.count(b"\n") if terminated else 1

    def _lose(self) -> None:
        """There is no helper any more. What is queued is for the next one, but for a record that is begun."""
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._begun and self._queue:
            self._queued -= len(self._queue[0])
            self._drop(b"\n", True)
            del self._queue[0]
        self._begun = False


class Cached:
    """A driver beside which everything is kept in files, for `logs` to read."""

    def __init__(self, driver: Driver, cache: Driver) -> None:
        self._driver, self._cache = driver, cache

    def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        try:
            self._cache.write(data, terminated, stream, stamp_ns)
        finally:
            self._driver.write(data, terminated, stream, stamp_ns)

    def close(self) -> None:
        try:
            self._cache.close()
        finally:
            self._driver.close()
