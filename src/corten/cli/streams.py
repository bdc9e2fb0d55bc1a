"""One loop for everything that `run`, `attach`, `start -a` and `exec` wait for at once: the container's output, our
input, signals, the exit status. A single thread with poll: it starts at no cost and cannot deadlock, since neither
direction ever waits for the other; only our own stdout may block.
"""

from __future__ import annotations

import os
import select
import signal

from corten.cli.terminal import DetachKeys
from corten.client.frames import STDERR, SYSTEM, FrameReader
from corten.client.transport import half_close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.client.session import Response
    from corten.client.transport import Socket

READ_SIZE = 1024 * 1024
STDIN_SIZE = 256 * 1024

# What a user or an init system sends; the rest (SIGCHLD, SIGPIPE, SIGWINCH, …) is this process's own.
_PROXIED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGIO,
)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of `data`, whether or not somebody has made `fd` non-blocking. Raises BrokenPipeError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait_writable(fd)


def write_pieces(pieces: list[tuple[int, bytes]]) -> None:
    """Payload of frames to stdout and stderr."""
    for stream, piece in pieces:
        write_all(2 if stream in (STDERR, SYSTEM) else 1, piece)


def _wait_writable(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    poller.poll()


class Signals:
    """While entered, signals arrive as bytes on `fd` instead of interrupting. Those not watched keep their effect."""

    def __init__(self, watched: tuple[signal.Signals, ...]) -> None:
        self._watched = watched
        self._saved: list[tuple[signal.Signals, Any]] = []
        self.fd = -1

    def __enter__(self) -> Signals:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._watched:
            self._saved.append((number, signal.signal(number, lambda *_: None)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._saved:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._writer)

    def read(self) -> bytes:
        """The numbers of signals that have come."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""


def watched_signals(*, proxy: bool, resize: bool) -> tuple[signal.Signals, ...]:
    return (*(_PROXIED if proxy else ()), *((signal.SIGWINCH,) if resize else ()))


class Loop:
    """`add_stream` and `add_wait` say what to wait for; `run` returns when all of it has ended, or on detach.

    `on_signal` gets the number of each signal that came.
    """

    def __init__(self, signals: Signals, on_signal: Callable[[int], None]) -> None:
        self._signals, self._on_signal = signals, on_signal
        self._poller = select.poll()
        self._poller.register(signals.fd, select.POLLIN)
        self._stream: _Stream | None = None
        self._wait: Response | None = None
        self.status: Any = None
        self.detached = False

    def add_stream(self, sock: Socket, early: bytes, *, tty: bool, stdin: int | None, keys: DetachKeys | None) -> None:
        """A hijacked connection; `stdin` is the fd to copy into it, None for none. `keys` are looked for in it."""
        self._stream = _Stream(sock, tty=tty, stdin=stdin, keys=keys)
        self._stream.output(early)
        self._poller.register(sock, select.POLLIN)
        if stdin is not None:
            self._poller.register(stdin, select.POLLIN)

    def add_wait(self, response: Response) -> None:
        """A pending wait; its answer is `status` afterwards."""
        if response.fileno() < 0:
            self.status = response.json()
            return
        self._wait = response
        self._poller.register(response.fileno(), select.POLLIN)

    def run(self) -> None:
        while not self.detached and (self._stream or self._wait):
            for fd, _ in self._poller.poll():
                self._dispatch(fd)

    def run_stream(self) -> None:
        """As `run`, until the stream has ended; a wait may stay pending."""
        while not self.detached and self._stream:
            for fd, _ in self._poller.poll():
                self._dispatch(fd)

    def _dispatch(self, fd: int) -> None:
        if fd == self._signals.fd:
            for number in self._signals.read():
                self._on_signal(number)
        elif self._stream and fd == self._stream.fd:
            self._serve_socket(self._stream)
        elif self._stream and fd == self._stream.stdin:
            self._serve_stdin(self._stream)
        elif self._wait and fd == self._wait.fileno():
            self._poller.unregister(fd)
            self.status, self._wait = self._wait.json(), None

    def _serve_socket(self, stream: _Stream) -> None:
        if stream.pending:
            stream.flush()
            self._want(stream)
        if not stream.receive():
            self._poller.unregister(stream.fd)
            if stream.stdin_watched:
                assert stream.stdin is not None
                self._poller.unregister(stream.stdin)
            stream.close()
            self._stream = None

    def _serve_stdin(self, stream: _Stream) -> None:
        self.detached = stream.read_stdin()
        stream.flush()
        self._want(stream)

    def _want(self, stream: _Stream) -> None:
        """Polls for room to write while something is pending, and for more input only when nothing is."""
        self._poller.modify(stream.fd, select.POLLIN | (select.POLLOUT if stream.pending else 0))
        watch = not stream.pending and not stream.stdin_at_end and stream.stdin is not None
        if watch != stream.stdin_watched and stream.stdin is not None:
            if watch:
                self._poller.register(stream.stdin, select.POLLIN)
            else:
                self._poller.unregister(stream.stdin)
            stream.stdin_watched = watch


class _Stream:
    """Both directions of one hijacked connection."""

    def __init__(self, sock: Socket, *, tty: bool, stdin: int | None, keys: DetachKeys | None) -> None:
        sock.setblocking(False)
        self._sock, self.stdin, self._keys = sock, stdin, keys
        self.fd = sock.fileno()
        self._frames = None if tty else FrameReader()
        self.pending = memoryview(b"")
        self.stdin_at_end = stdin is None
        self.stdin_watched = stdin is not None
        self._closed = False
        self._tls = hasattr(sock, "unwrap")

    def output(self, data: bytes) -> None:
        if self._frames is None:
            write_all(1, data)
        elif data:
            write_pieces(self._frames.feed(data))

    def receive(self) -> bool:
        """What has come, written out. False at the end of the stream."""
        while True:
            try:
                data = self._sock.recv(READ_SIZE)
            except ConnectionResetError:
                return False
            except OSError as error:
                if _would_block(error):
                    return True
                # Once both sides have said goodbye, OpenSSL reports the end as an error.
                if type(error).__name__ in ("SSLZeroReturnError", "SSLEOFError"):
                    return False
                raise
            if not data:
                return False
            self.output(data)
            if not self._tls:
                return True

    def read_stdin(self) -> bool:
        """Takes up input to be sent. True when the user has detached."""
        assert self.stdin is not None
        try:
            data = os.read(self.stdin, STDIN_SIZE)
        except OSError:
            data = b""
        if not data:
            self.stdin_at_end = True
            return False
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        self.pending = memoryview(data)
        return detached

    def flush(self) -> None:
        """Sends what is pending as far as there is room; after the last of it, the end of the input."""
        while self.pending:
            try:
                self.pending = self.pending[self._sock.send(self.pending) :]
            except OSError as error:
                if _would_block(error):
                    return
                # The other side reads no more: the container's process has closed its stdin, or is gone.
                self.pending, self.stdin_at_end, self._closed = memoryview(b""), True, True
        if self.stdin_at_end:
            self.half_close()

    def half_close(self) -> None:
        if not self._closed:
            self._closed = True
            half_close(self._sock)

    def close(self) -> None:
        self._sock.close()


def _would_block(error: OSError) -> bool:
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
