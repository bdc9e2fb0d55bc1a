"""One process's standard streams: between the process, the log and the attached clients.

Output is read in large chunks, sent to the clients and written to the log. Back-pressure is Docker's: a client that
does not read has up to a mebibyte queued, then the process has to wait for it, as it would for any reader of a pipe;
nothing is ever dropped for a client that stays. A client that goes away frees the process at once. When the process
has ended, the rest is read whatever the clients do, so its exit never waits for them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time

from corten.runtime.shim.attached import Attached
from corten.runtime.shim.loop import IN, OUT
from corten.runtime.shim.memory import trim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.logs.writer import LogWriter
    from corten.runtime.shim.backlog import Backlog
    from corten.runtime.shim.loop import Loop

CHUNK = 16 * 1024  # read at first; a stream that fills it is read in larger pieces
BULK = 256 * 1024
CALM = 1.0  # seconds without bulk after which memory is given back
QUEUE_LIMIT = 1024 * 1024
BULKY = 16  # large reads in a row after which the log gets a process of its own, if somebody waits for the output
LAST_READS = 64  # chunks read in one go after the end; more only comes when another process holds the pipe

TIOCSWINSZ = 0x5414  # asm-generic/ioctls.h


class Stdio:
    """Owns the shim's ends of the process's pipes or of its console, and the attached clients.

    `child_fds` are given to the process and closed by `started`.
    """

    def __init__(self, loop: Loop, terminal: bool, open_stdin: bool, stdin_once: bool) -> None:
        self.terminal = terminal
        self.child_fds: tuple[int, int, int] = (-1, -1, -1)
        self.on_idle: Callable[[], None] = _nothing
        self.on_detached: Callable[[], None] = _nothing
        self.log: LogWriter | None = None
        self.log_path = ""  # of a log that may be suspended
        self._backlog: Backlog | None = None
        self._bulky = 0
        self._then: Callable[[], None] = _nothing
        self._loop = loop
        self._open_stdin, self._stdin_once = open_stdin, stdin_once
        self._clients: list[Attached] = []
        self._outputs: dict[int, int] = {}  # fd: stream
        self._sizes: dict[int, int] = {}
        self._stalled: set[int] = set()
        self._input = -1
        self._pending: list[memoryview] = []
        self._end_pending = False
        self._ended = False
        self._finished = False

    def prepare(self) -> None:
        """Make the pipes (a terminal is made by the process itself)."""
        if self.terminal:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self.child_fds = (null, null, null)
            return
        if self._open_stdin:
            stdin, self._input = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input, False)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ends = [stdin]
        for stream in (1, 2):
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._outputs[ours] = stream
            ends.append(theirs)
        self.child_fds = (ends[0], ends[1], ends[2])

    def started(self, console: int, size: tuple[int, int] | None) -> None:
        """The process runs: close its ends, take its console, begin to pump."""
        self._close_child_fds()
        if self.terminal:
            os.set_blocking(console, False)
            self._outputs[console] = 1
            if size:
                self._set_size(console, *size)
            if self._open_stdin:
                self._input = os.dup(console)
        for fd in self._outputs:
            self._loop.watch(fd, IN, lambda events, fd=fd: self._readable(fd))  # type: ignore[misc]  # its default
        for client in list(self._clients):
            client.start()

    def attach(self, fd: int, settings: tuple[Any, ...]) -> None:
        """Take over a client's stream. Before `started` it waits for it."""
        if not self._open_stdin:
            settings = (False, *settings[1:])
        client = Attached(self._loop, fd, settings, raw=self.terminal, detach=self.terminal)
        client.on_input, client.on_input_end = self._typed, self._input_ended
        client.on_drained, client.on_closed = self._drained, self._left
        client.on_detached = self.on_detached
        self._clients.append(client)
        if self._finished:
            client.finish()
        elif self._outputs or self._ended:
            client.start()

    def resize(self, height: int, width: int) -> None:
        """Raises OSError (ENOTTY) without a terminal, and when the process has ended."""
        for fd in self._outputs:
            if self.terminal:
                self._set_size(fd, height, width)
                return
        raise OSError(errno.ENOTTY, "the process has no terminal")

    def drain(self) -> bool:
        """The process has ended: read what it has left. True when every stream is at its end.

        False means that another process still holds a stream open; it goes on being read until `finish`.
        """
        self._ended = True
        for fd in list(self._outputs):
            for _ in range(LAST_READS):
                if not self._pump(fd):
                    break
        for fd in self._stalled & set(self._outputs):
            self._loop.watch(fd, IN, lambda events, fd=fd: self._readable(fd))  # type: ignore[misc]  # its default
        self._stalled.clear()
        return not self._outputs

    def finish(self) -> None:
        """Close the process's side and the log; the clients get what is queued for them and then the end."""
        self._close_child_fds()
        for fd in list(self._outputs):
            self._close_output(fd)
        self._close_input()
        self.close_log()
        self._finished = True
        for client in list(self._clients):
            client.finish()

    def log_whole(self, then: Callable[[], None]) -> bool:
        """Whether no output waits to be logged. If some does, `then` is called when it is done."""
        if self._backlog is None or not self._backlog.left:
            return True
        self._then = then
        return False

    def close_log(self) -> None:
        """Write what came without its newline; from now on all output is in the log."""
        self._end_backlog()
        if self.log is not None:
            self.log.close()
            self.log = None

    @property
    def idle(self) -> bool:
        """Whether nobody is attached any more."""
        return not self._clients

    def drop_clients(self) -> None:
        for client in list(self._clients):
            client.close()

    def _close_child_fds(self) -> None:
        for fd in set(self.child_fds) - {-1}:
            os.close(fd)
        self.child_fds = (-1, -1, -1)

    def _readable(self, fd: int) -> None:
        if not self._ended and self._crowded():
            self._stalled.add(fd)
            self._loop.unwatch(fd)
            return
        self._pump(fd)
        if self._ended and not self._outputs:
            self.on_idle()

    def _pump(self, fd: int) -> bool:
        """Move one chunk. False when there is none now, or the stream is at its end (and closed)."""
        size = self._sizes.get(fd, CHUNK)
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a console whose last user has gone
                raise
            data = b""
        if not data:
            self._close_output(fd)
            return False
        if len(data) == CHUNK == size:
            self._sizes[fd] = size = BULK
            _enlarge(fd)
        if size == BULK:
            self._loop.after(CALM, "calm", self._calm)
            self._bulky += len(data) > CHUNK
        stream = self._outputs[fd]
        for client in list(self._clients):
            client.send(stream, data)
        if self.log is not None:
            if self._bulky >= BULKY and self._backlog is None and self._clients:
                self._begin_backlog()
            if self._backlog is not None:
                self._backlog.write(stream, data, time.time_ns())
            else:
                self.log.write(stream, data)
        return True

    def _crowded(self) -> bool:
        """Whether somebody has to be waited for."""
        full = self._backlog is not None and self._backlog.full
        return full or any(client.queued >= QUEUE_LIMIT for client in self._clients)

    def _calm(self) -> None:
        """The rush is over."""
        if self._backlog is not None and self._backlog.left:
            self._loop.after(CALM, "calm", self._calm)
            return
        self._end_backlog()
        self._sizes.clear()
        self._bulky = 0
        trim()

    def _begin_backlog(self) -> None:
        from corten.runtime.shim.backlog import Backlog  # for the few who write that much

        assert self.log is not None
        self._bulky = 0
        if not self.log_path:  # a log that no second process can go on with
            return
        try:
            self._backlog = Backlog(self._loop, self.log, os.path.dirname(self.log_path), self._caught_up)
        except OSError:  # no room, or a file system without unnamed files: the output waits for its log, as ever
            return

    def _end_backlog(self) -> None:
        if self._backlog is not None:
            backlog, self._backlog = self._backlog, None
            backlog.end()

    def _caught_up(self) -> None:
        """The log has room again, or all is in it."""
        self._drained()
        if self._backlog is not None and not self._backlog.left:
            then, self._then = self._then, _nothing
            then()

    def _close_output(self, fd: int) -> None:
        self._loop.unwatch(fd)
        del self._outputs[fd]
        self._sizes.pop(fd, None)
        self._stalled.discard(fd)
        os.close(fd)

    def _drained(self) -> None:
        """A client has caught up or gone: outputs that waited for it may be read again."""
        if not self._stalled or self._crowded():
            return
        for fd in self._stalled:
            self._loop.watch(fd, IN, lambda events, fd=fd: self._readable(fd))  # type: ignore[misc]  # its default
        self._stalled.clear()

    def _left(self, client: Attached) -> None:
        self._clients.remove(client)
        if self._finished and not self._clients:
            self.on_idle()

    def _typed(self, client: Attached, data: bytes) -> None:
        if self._input < 0 or self._end_pending:
            return
        view = memoryview(data)
        if not self._pending:
            view = view[self._write_input(view) :]
        if view and self._input >= 0:
            if not self._pending and not self.terminal:
                _enlarge(self._input)
            self._pending.append(view)
            for other in self._clients:
                other.pause_input()
            self._loop.watch(self._input, OUT, self._writable)

    def _write_input(self, view: memoryview) -> int:
        try:
            return os.write(self._input, view)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the process has closed its stdin; EIO: its console is gone
            self._close_input()
            return 0

    def _writable(self, events: int) -> None:
        while self._pending:
            sent = self._write_input(self._pending[0])
            if self._input < 0:
                return
            if sent < len(self._pending[0]):
                self._pending[0] = self._pending[0][sent:]
                return
            del self._pending[0]
        self._loop.unwatch(self._input)
        if self._end_pending:
            self._close_input()
        for client in list(self._clients):
            client.resume_input()

    def _input_ended(self, client: Attached) -> None:
        if self._stdin_once and not self.terminal and self._input >= 0:
            if self._pending:
                self._end_pending = True
            else:
                self._close_input()

    def _close_input(self) -> None:
        """End the process's stdin; what clients go on typing is read and thrown away, so that they never hang."""
        if self._input >= 0:
            fd, self._input = self._input, -1
            self._loop.unwatch(fd)
            os.close(fd)
        self._pending.clear()
        for client in list(self._clients):
            client.resume_input()

    def _set_size(self, fd: int, height: int, width: int) -> None:
        sizes = (height, width, 0, 0)  # struct winsize
        fcntl.ioctl(fd, TIOCSWINSZ, b"".join(size.to_bytes(2, sys.byteorder) for size in sizes))


def _enlarge(fd: int) -> None:
    """Fewer switches between writer and reader in bulk. Terminals have no such size, and pipes may be rationed."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BULK)
    except OSError:
        return


def _nothing() -> None:
    return
