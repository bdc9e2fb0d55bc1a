"""The daemon's end of the archive workers, whose server is started when there is work and ended when there is none."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from corten.errors import CortenError, Forbidden, InvalidArgument, NotFound, SystemFault, Unavailable
from corten.linux.process import pidfd_open, pidfd_send_signal
from corten.linux.scm import send_fds
from corten.storage.archiving.protocol import FORK, MAX_MESSAGE, METER, read_meter

log = logging.getLogger(__name__)

Message = dict[str, Any]
_BOOT = "import sys; from corten.storage.archiving.server import main; main(int(sys.argv[1]))"


class ClientGone(ConnectionError):
    """Nobody reads, or sends, what is copied any more."""


class ContainerGone(Exception):
    """The container that was asked about as a running one has ended meanwhile."""


class ArchiveServer:
    """Starts workers. At most `limit` at a time for one container, further ones wait; the clients of one do not hold up
    those of another. Idle for `idle_seconds` the server is ended.
    """

    def __init__(self, *, limit: int = 32, idle_seconds: float = 10.0) -> None:
        self._limit, self._idle_seconds = limit, idle_seconds
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()
        self._busy = 0
        self._closed = False

    @asynccontextmanager
    async def job(self, container_id: str, request: Message, *, settled: bool = False) -> AsyncIterator[Job]:
        """A worker that has been told `request`; on leaving, whatever it still does ends.

        With `settled`, and when it had to be killed, all that it held, such as mounts, has been given back then.
        """
        slots = self._slots.setdefault(container_id, asyncio.Semaphore(self._limit))
        async with slots:
            self._busy += 1
            if self._timer is not None:
                self._timer.cancel()
            try:
                control = await self._fork()
                job = Job(control)
                try:
                    await job.begin(request)
                    yield job
                finally:
                    await job.close(settled=settled)
            finally:
                self._busy -= 1
                if not self._busy and not self._closed:
                    self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire)

    async def close(self) -> None:
        """End the server and with it all workers."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        process = self._retire()
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _fork(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                for attempt in range(2):
                    sock = await self._server()
                    try:
                        await asyncio.to_thread(send_fds, sock, FORK, [theirs.fileno()])
                    except OSError:
                        self._retire()  # it has died: once more with a new one
                        if attempt:
                            raise
                    else:
                        break
        except OSError as error:
            ours.close()
            raise SystemFault(f"cannot start an archive worker: {error}", step="archive") from error
        except BaseException:
            ours.close()
            raise
        return ours

    async def _server(self) -> socket.socket:
        async with self._starting:
            if self._closed:
                raise Unavailable("the daemon is shutting down")
            if self._sock is not None:
                return self._sock
            self._process, sock = await asyncio.to_thread(_start)
            self._sock = sock
            return sock

    def _retire(self) -> subprocess.Popen[bytes] | None:
        """Let the server end; it does with its socket. Its process, if there was one."""
        process, self._process = self._process, None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if process is not None and not self._closed:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, process.wait)
        return process


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:
            ours.close()
            raise
    return process, ours


class Job:
    """One worker."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pidfd = self._held = -1
        self._ended = False

    async def begin(self, request: Message) -> None:
        first = await self.answer()
        self._pidfd = pidfd_open(first["pid"])
        await asyncio.get_running_loop().sock_sendall(self._control, json.dumps(request).encode())

    async def answer(self) -> Message:
        """The next message. Raises what the worker raised, SystemFault when it has died."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._control, MAX_MESSAGE)
        except ConnectionError:
            data = b""
        if not data:
            self._ended = True
            raise SystemFault("the archive worker ended unexpectedly", step="archive")
        message: Message = json.loads(data)
        self._ended = "done" in message or "error" in message
        if "error" in message:
            raise _raised(message)
        return message

    async def give(self, fd: int, framing: str, prefix: bytes = b"") -> None:
        """The socket that the worker is to read or write; it gets a descriptor of its own. See `conduit`."""
        self._held = os.memfd_create("body", os.MFD_CLOEXEC)
        os.write(self._held, bytes(METER) + prefix)  # too much for a message
        send_fds(self._control, json.dumps({"framing": framing}).encode(), [fd, self._held])

    def meter(self) -> tuple[int, bool]:
        """How many bytes of a body the worker has taken, and whether it waits for more."""
        return read_meter(self._held) if self._held >= 0 else (0, True)

    async def close(self, *, settled: bool) -> None:
        self._control.close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        if self._pidfd >= 0:
            pidfd, self._pidfd = self._pidfd, -1
            if not self._ended:
                settled = True
                with suppress(ProcessLookupError):
                    pidfd_send_signal(pidfd, signal.SIGKILL)
            try:
                if settled:
                    await _end_of(pidfd)
            finally:
                os.close(pidfd)


async def _end_of(pidfd: int) -> None:
    """Its mounts go before the process is seen to have ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)


def _raised(message: Message) -> Exception:
    kind, text = message["error"], message["message"]
    known: dict[str, type[CortenError]] = {"invalid": InvalidArgument, "forbidden": Forbidden}
    if kind in known:
        return known[kind](text)
    if kind == "missing":
        return NotFound("file", "", text)
    if kind == "gone":
        return ContainerGone()
    if kind == "lost":
        return ClientGone(text)
    return SystemFault(text, step="archive", errno=message["errno"])
