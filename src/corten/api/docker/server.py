"""The HTTP server: aiohttp's, taught to let go of a connection.

`attach` and `exec start` turn their connection into a raw stream. aiohttp's parser knows nothing of Docker's "Upgrade:
tcp" and would read what follows such a request as the next one, so the bytes behind it are kept away from the parser
until the request is answered: they go to whoever takes the connection, or, when the request is refused, nowhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corten.tasks import TaskOwner

MAX_HEAD = 64 * 1024
MAX_HELD = 64 * 1024
# Filters, the names of a `save` and registry credentials are long; Go's server takes a megabyte of head.
MAX_LINE = 1024 * 1024

_HIJACKABLE = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)[? ]")
# Its body goes past the parser, to a worker: all of it is held.
_ARCHIVE = re.compile(rb"PUT (?:/v[0-9.]+)?/containers/[^/ ?]+/archive[? ]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class Connection(RequestHandler):
    """One client's connection.

    Private names of RequestHandler that this leans on: `_waiter` is set while the handler waits for a request,
    `_request_count` counts the requests parsed, `_messages` holds those not yet handled, `_current_request` is the one
    that is being answered. The tests of the hijack fail
    when they change.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head = b""
        self._held: bytearray | None = None
        self._body_left = 0
        self._is_body = False
        self._eof = False
        self.streams = False

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._receive_held(data)
            return
        if self._between_requests():
            if self._head:
                data, self._head = self._head + data, b""
            if data.startswith((b"POST ", b"PUT ")) or b"POST ".startswith(data[:5]) or b"PUT ".startswith(data[:4]):
                end = data.find(b"\r\n\r\n") + 4
                if end < 4 and len(data) < MAX_HEAD:
                    self._head = data
                    return
                if _ARCHIVE.match(data) and not self._messages:
                    super().data_received(data[:end])
                    self._held = bytearray(data[end:])
                    self._is_body = True
                    return
                if _HIJACKABLE.match(data) and not _CHUNKED.search(data, 0, end) and not self._messages:
                    self._begin_hold(data, end)
                    return
        super().data_received(data)

    def _between_requests(self) -> bool:
        """Also while the handler is about to wait, as the answer is out and the client has it."""
        return self._waiter is not None or self._request_count == 0 or self._current_request is None

    def _begin_hold(self, data: bytes, end: int) -> None:
        length = _LENGTH.search(data, 0, end)
        stop = end + (int(length.group(1)) if length else 0)
        self._body_left = max(0, stop - len(data))
        super().data_received(data[:stop])
        self._held = bytearray(data[stop:])

    def _receive_held(self, data: bytes) -> None:
        assert self._held is not None
        if self._body_left:
            body, data = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(body)
            super().data_received(body)
        self._held += data
        if len(self._held) > MAX_HELD and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # theirs is said to return None
        """A client may have said all it has to say to the container before we answer: its connection lives on."""
        self._eof = True
        return self._held is not None

    def take_held(self) -> bytes:
        """What was received behind the request; from here on nothing more is read."""
        held = bytes(self._held or b"")
        self._held = bytearray()
        return held

    def release(self) -> bool:
        """The request was refused. True when the connection can go on to the next request."""
        held, self._held, self._body_left = self._held, None, 0
        if self._is_body:
            self._is_body = False
            if self.transport is not None:
                self.transport.resume_reading()
            super().data_received(bytes(held or b""))  # which is read to its end, so that the refusal arrives
            return not self._eof
        return not held and not self._eof

    def cut(self) -> None:
        """End a stream that may have no end of its own, as the server is about to stop."""
        if self.streams and self._task_handler is not None:
            self._task_handler.cancel("the API server shuts down")

    @property
    def holding(self) -> bool:
        return self._held is not None


class DockerServer(web.Server):
    """Serves `handler`; ends its background work when it is shut down."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], tasks: TaskOwner, **options: Any
    ) -> None:
        # A client that goes away ends what it asked for; what must not end half-way runs in `tasks`.
        options = {"max_line_size": MAX_LINE, "max_field_size": MAX_LINE, **options}
        super().__init__(handler, handler_cancellation=True, access_log=None, **options)
        self._tasks = tasks

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        super().pre_shutdown()
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.cut()

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        await self._tasks.close("the API server shuts down")
