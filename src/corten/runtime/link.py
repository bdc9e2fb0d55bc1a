"""cortend's end of a connection to one shim."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from corten.errors import Conflict, CortenError, StartFailed, SystemFault, Unavailable
from corten.runtime import protocol

Message = tuple[Any, ...]


def to_error(fields: Message) -> CortenError:
    """The error that a FAILED or REFUSED carries."""
    kind, message, step, errno, exit_code = fields
    if kind == protocol.START_FAILED:
        return StartFailed(message, step=step, errno=errno, exit_code=exit_code)
    if kind == protocol.CONFLICT:
        return Conflict(message)
    return SystemFault(message, step=step, errno=errno)


class ShimLink:
    """Sends requests and hands on what the shim says.

    `hello` resolves to the shim's state, or to None when the connection ends first. `launched` resolves to LAUNCHED's
    fields, or raises. `on_event` gets EXITED and EXEC_EXITED; `on_end` is called once, when the connection has ended
    and not by `close`.
    """

    def __init__(self, sock: socket.socket, on_event: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._sock = sock
        self._on_event, self._on_end = on_event, on_end
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.hello: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()
        self.launched: asyncio.Future[Message | None] = self._loop.create_future()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        return self._sock.fileno() < 0

    async def request(self, verb: str, *arguments: Any, fds: Sequence[int] = ()) -> Any:
        """The shim's answer. Raises what it refused with, and Unavailable when it is lost meanwhile."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[number] = future
        try:
            await self.send((protocol.REQUEST, number, verb, *arguments), fds)
            return await future
        finally:
            self._waiting.pop(number, None)

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Raises Unavailable when the shim is gone."""
        while not self.closed:
            try:
                protocol.send(self._sock, message, fds)
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise Unavailable(f"the shim is gone: {error.strerror}") from None
            else:
                return
        raise Unavailable("the shim is gone")

    def close(self) -> None:
        """Let go of the shim, which goes on. What waits for an answer fails."""
        if self.closed:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        if not self.hello.done():
            self.hello.set_result(None)
        if not self.launched.done():
            self.launched.set_result(None)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the connection to the shim was lost"))

    async def _writable(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        fd = self._sock.fileno()
        self._loop.add_writer(fd, _resolve, future)
        try:
            await future
        finally:
            if not self.closed:
                self._loop.remove_writer(fd)

    def _readable(self) -> None:
        while not self.closed:
            try:
                received = protocol.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self.close()
                self._on_end()
                return
            message, fds = received
            for fd in fds:
                os.close(fd)
            self._handle(message)

    def _handle(self, message: Message) -> None:
        kind, *fields = message
        if kind == protocol.HELLO:
            if not self.hello.done():
                self.hello.set_result(fields[1])
        elif kind in (protocol.LAUNCHED, protocol.FAILED):
            if self.launched.done():
                return
            if kind == protocol.LAUNCHED:
                self.launched.set_result(tuple(fields))
            else:
                self.launched.set_exception(to_error(fields[0]))
        elif kind in (protocol.REPLY, protocol.REFUSED):
            future = self._waiting.get(fields[0])
            if future is None or future.done():
                return
            if kind == protocol.REPLY:
                future.set_result(fields[1])
            else:
                future.set_exception(to_error(fields[1]))
        else:
            self._on_event(message)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def connect(path: str) -> socket.socket:
    """A connection to the shim that listens at `path`. Raises OSError when none does."""
    short, directory = protocol.near(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        sock.connect(short)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock
