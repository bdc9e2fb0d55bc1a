"""A client that is attached to a process: what waits to be sent to it, and what it types."""

from __future__ import annotations

import _socket
import os

from corten.runtime.shim.framing import DetachScanner, frame_header
from corten.runtime.shim.loop import ERR, HUP, IN, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.shim.loop import Loop

READ = 256 * 1024
LINGER = 5.0  # seconds that a client has to close its side after everything was sent


class Attached:
    """Owns the stream's fd.

    Output that the client does not take at once is queued, unboundedly here: who feeds it looks at `queued` and stops.
    `on_input(client, data)` gets what was typed, `on_input_end(client)` follows once, and `on_drained()` is called when
    the queue has become empty; `on_detached()` when its detach keys came; `on_closed(client)` when the fd is gone.
    """

    def __init__(self, loop: Loop, fd: int, settings: tuple[Any, ...], raw: bool, detach: bool) -> None:
        """`settings` are (stdin, stdout, stderr, raw, detach keys, prefix), as protocol.ATTACH carries them."""
        self.wants_stdin, self.stdout, self.stderr, plain, keys, self._prefix = settings
        self.on_input: Callable[[Attached, bytes], None]
        self.on_input_end: Callable[[Attached], None]
        self.on_drained: Callable[[], None]
        self.on_detached: Callable[[], None]
        self.on_closed: Callable[[Attached], None]
        self.queued = 0
        self._loop, self._fd = loop, fd
        self._raw = raw or plain
        self._scanner = DetachScanner(keys if detach else b"")
        self._queue: list[bytes | memoryview] = []
        self._reading = False
        self._input_open = bool(self.wants_stdin)
        self._output_open = True
        self._finishing = False
        os.set_blocking(fd, False)

    def start(self) -> None:
        """Begin with what was typed before the hand-over; callbacks are set by now."""
        prefix, self._prefix = self._prefix, b""
        self._reading = self._input_open
        self._watch()
        if prefix and self._input_open:
            self._typed(prefix)

    def send(self, stream: int, data: bytes) -> None:
        if not self._output_open or not (self.stdout if stream == 1 else self.stderr):
            return
        parts: list[bytes | memoryview] = [data] if self._raw else [frame_header(stream, len(data)), data]
        size = sum(map(len, parts))
        if not self._queue:
            sent = self._writev(parts)
            if sent == size or not self._output_open:
                return
            parts, size = _after(parts, sent), size - sent
        self._queue += parts
        self.queued += size
        self._watch()

    def pause_input(self) -> None:
        self._reading = False
        self._watch()

    def resume_input(self) -> None:
        if self._input_open and not self._reading and self._fd >= 0:
            self._reading = True
            self._watch()

    def finish(self) -> None:
        """No more output comes: send what is queued, then end the stream."""
        self._finishing = True
        self._end_input()
        if not self._queue:
            self._shut_down()

    def close(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._loop.unwatch(fd)
        self._loop.cancel(f"linger {fd}")
        os.close(fd)
        self._queue.clear()
        self.queued = 0
        self._output_open = False
        self._end_input()
        self.on_closed(self)
        self.on_drained()

    def _watch(self) -> None:
        if self._fd < 0:
            return
        events = (IN if self._reading else 0) | (OUT if self._queue else 0)
        if not events and self._input_open:
            # A hang-up would be told again and again while its last input has to wait for the process to read.
            self._loop.unwatch(self._fd)
        else:
            self._loop.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if events & (IN | HUP | ERR) and self._fd >= 0:
            if self._reading or self._finishing:
                self._read()
            elif events & (HUP | ERR):
                self._lost()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            if not self._finishing:
                self._typed(data)
            return
        self._reading = False
        if self._finishing:
            self.close()
            return
        if self._input_open and (held := self._scanner.finish()):
            self.on_input(self, held)
        self._end_input()
        self._watch()

    def _typed(self, data: bytes) -> None:
        passed, detached = self._scanner.feed(data)
        if passed:
            self.on_input(self, passed)
        if detached:
            self._input_open = False  # without on_input_end: whoever detaches leaves the process as it is
            self.on_detached()
            self.close()

    def _end_input(self) -> None:
        if self._input_open:
            self._input_open = False
            self.on_input_end(self)

    def _flush(self) -> None:
        sent = self._writev(self._queue[:64])
        if not self._output_open:
            return
        self._queue = _after(self._queue, sent)
        self.queued -= sent
        if self._queue:
            return
        self._watch()
        self.on_drained()
        if self._finishing and self._fd >= 0:
            self._shut_down()

    def _writev(self, parts: list[bytes | memoryview]) -> int:
        try:
            return os.writev(self._fd, parts)
        except BlockingIOError:
            return 0
        except OSError:
            self._lost()
            return 0

    def _lost(self) -> None:
        """The client takes no more output. What it has typed before is still delivered."""
        self._output_open = False
        self._queue.clear()
        self.queued = 0
        if self._input_open and not self._finishing:
            self._watch()
            self.on_drained()
        else:
            self.close()

    def _shut_down(self) -> None:
        """End the stream without losing its tail: on TCP a close with unread input would reset the connection."""
        if self._fd < 0:
            return
        sock = _socket.socket(fileno=self._fd)
        try:
            sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close()
            return
        finally:
            sock.detach()
        self._reading = True
        self._watch()
        self._loop.after(LINGER, f"linger {self._fd}", self.close)


def _after(parts: list[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """What is left of `parts` when `sent` bytes have gone."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:] if sent else part, *parts[index + 1 :]]
        sent -= len(part)
    return []
