"""The helper's half of `logs.relay`: a process that takes a container's lines and may block on what it does with them.

Code after fork: it ends in os._exit on every path. When its driver fails it tries again and again, at growing
intervals, and reads nothing meanwhile: what is not taken waits in the shim.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal, for which no types are published
import os
import select
import sys
import time

from corten.linux.process import set_process_name
from corten.logs.local import HEADER, PIECE, TRAILER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    class Sender(Protocol):
        """A driver in the helper. Each call may block for some seconds, and raises OSError.

        `send` takes what LineCutter yields, and gives the part of `data` that is still to be sent after a failure.
        """

        def open(self) -> None: ...
        def send(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> tuple[bytes, OSError | None]: ...
        def close(self) -> None: ...


def line_by_line(data: bytes, terminated: bool, send: Callable[[bytes], None]) -> tuple[bytes, OSError | None]:
    """`Sender.send` for whoever has a message for each line: `send` gets them without their newlines."""
    at = 0
    try:
        while at < len(data):
            end = data.find(b"\n", at) if terminated else len(data)
            send(data[at:end])
            at = end + 1
    except OSError as error:
        return data[at:], error
    return b"", None


OK = b"+"
FAILED = b"-"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts
FAREWELL = 2.0  # seconds of attempts after the container has ended
_SIGCHLD = 17


def serve(sock: _socket.socket, make: Callable[[], Sender], retry: bool) -> NoReturn:
    """The life of a helper. `retry` when it is not to end if the driver cannot be opened."""
    try:
        fd = sock.fileno()
        os.closerange(3, fd)
        os.closerange(fd + 1, 1 << 20)
        _signal.set_wakeup_fd(-1)
        _signal.signal(_SIGCHLD, _signal.SIG_DFL)
        set_process_name("corten-log")
        Helper(sock, make()).run(retry)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


class Helper:
    def __init__(self, sock: _socket.socket, sender: Sender) -> None:
        self._socket, self._sender = sock, sender
        self._open = False
        self._told = False
        self._end = 0.0  # when to give up; 0 while the container runs

    def run(self, retry: bool) -> None:
        try:
            self._sender.open()
            self._open = True
        except OSError as error:
            if not retry:
                self._socket.sendall(FAILED + _text(error).encode())
                return
        if not retry:
            self._socket.sendall(OK + b"\n")
        rest = b""
        while block := self._socket.recv(256 * 1024):
            rest = self._take(rest + block)
        self._sender.close()

    def _take(self, block: bytes) -> bytes:
        """Deliver the whole records; what is left."""
        at = 0
        while at + HEADER <= len(block):
            size = int.from_bytes(block[at : at + 4], "big")
            end = at + HEADER + size + TRAILER
            if end > len(block):
                break
            stamp_ns = int.from_bytes(block[at + 4 : at + 12], "big")
            data = block[at + HEADER : at + HEADER + size]
            self._deliver(data, not block[at + 13] & PIECE, block[at + 12], stamp_ns)
            at = end
        return block[at:]

    def _deliver(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None:
        pause = FIRST_PAUSE
        while data:
            error: OSError | None = None
            before = len(data)
            try:
                if not self._open:
                    self._sender.open()
                    self._open = True
                data, error = self._sender.send(data, terminated, stream, stamp_ns)
            except OSError as failure:
                error = failure
            if error is None:
                self._told = False
                return
            self._failed(error)
            if len(data) < before:
                pause = FIRST_PAUSE
            elif not self._pause(pause):
                lines = data.count(b"\n") or 1
                self._tell(f"{lines} log lines could not be delivered")
                return
            else:
                pause = min(LONGEST_PAUSE, pause * 2)

    def _failed(self, error: OSError) -> None:
        if self._open:
            self._sender.close()
            self._open = False
        if not self._told:
            self._told = True
            self._tell(f"the log is interrupted: {_text(error)}")

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt. False when the time for attempts is over, as the container has ended."""
        if not self._end:
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLRDHUP)
            if not poll.poll(seconds * 1000):
                return True
            self._end = time.monotonic() + FAREWELL
        time.sleep(min(seconds, 0.2))
        return time.monotonic() < self._end

    def _tell(self, text: str) -> None:
        try:
            self._socket.sendall(text.encode() + b"\n")
        except OSError:
            return


def _text(error: OSError) -> str:
    return error.strerror or str(error)


class FileSender:
    """A driver that writes files, in a helper: so that not even a disk that hangs stops a non-blocking container."""

    def __init__(self, make: Callable[[], _Files]) -> None:
        self._make = make

    def open(self) -> None:
        self._files = self._make()

    def send(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> tuple[bytes, OSError | None]:
        try:
            self._files.write(data, terminated, stream, stamp_ns)
        except OSError as error:
            return data, error
        return b"", None

    def close(self) -> None:
        self._files.close()


if TYPE_CHECKING:

    class _Files(Protocol):
        def write(self, data: bytes, terminated: bool, stream: int, stamp_ns: int) -> None: ...
        def close(self) -> None: ...
