"""Attaching by a websocket: the daemon itself passes bytes on between the socket and what the runtime was given.

As Docker's does, it sends both streams as they come, in binary messages without frames of their own, and takes text and
binary messages as input.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from corten.engine.models import AttachOptions, Hijacked
from corten.errors import InvalidArgument

if TYPE_CHECKING:
    from corten.api.docker.call import Call

READ = 256 * 1024
HEADER = 8
"""Bytes before each piece of output of a container without a terminal: stream, three zeros, length."""


async def attach(call: Call) -> web.StreamResponse:
    """`GET /containers/{id}/attach/ws`."""
    query = call.query
    container = call.backends.containers.inspection.get(call.args[0])
    chosen = call.api >= 42  # before, a client got all streams whatever it asked for
    options = AttachOptions(
        stdin=query.flag("stdin") or not chosen,
        stdout=query.flag("stdout") or not chosen,
        stderr=query.flag("stderr") or not chosen,
        logs=query.flag("logs"),
        stream=query.flag("stream"),
        detach_keys=query.text("detachKeys"),
    )
    peer = web.WebSocketResponse(max_msg_size=0, compress=False)
    if not peer.can_prepare(call.request):
        raise InvalidArgument("the request is no handshake of a websocket")
    relay = Relay(peer, framed=not container.config.tty)

    async def take() -> Hijacked:
        await peer.prepare(call.request)
        return Hijacked(relay.begin(), b"")

    try:
        await call.backends.containers.streams.attach(container.id, options, take)
        await relay.run()
    finally:
        relay.close()
    return peer


class Relay:
    """Between a websocket and one end of a pair of stream sockets, the other end of which `begin` gives away."""

    def __init__(self, peer: web.WebSocketResponse, *, framed: bool) -> None:
        self._peer, self._framed = peer, framed
        self._ours: socket.socket | None = None
        self._left = 0
        self._header = b""

    def begin(self) -> int:
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        theirs.setblocking(False)
        return theirs.detach()

    def close(self) -> None:
        if self._ours is not None:
            self._ours.close()

    async def run(self) -> None:
        """Until the runtime has ended the stream, or the client has gone. What the client still had to say is said."""
        assert self._ours is not None
        async with asyncio.TaskGroup() as group:
            typing = group.create_task(self._type(self._ours))
            with contextlib.suppress(ConnectionError):
                await self._show(self._ours)
                await self._peer.close(code=WSCloseCode.OK)
            typing.cancel()

    async def _show(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(ours, READ):
            for piece in self._unframed(data) if self._framed else (data,):
                await self._peer.send_bytes(piece)

    def _unframed(self, data: bytes) -> list[bytes]:
        """What the frames hold, which may be cut anywhere."""
        found = []
        while data:
            if self._left:
                found.append(data[: self._left])
                self._left, data = self._left - len(found[-1]), data[self._left :]
                continue
            wanted = HEADER - len(self._header)
            self._header, data = self._header + data[:wanted], data[wanted:]
            if len(self._header) == HEADER:
                self._left, self._header = int.from_bytes(self._header[4:], "big"), b""
        return found

    async def _type(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            async for message in self._peer:
                if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    data = message.data
                    await loop.sock_sendall(ours, data.encode() if isinstance(data, str) else data)
            # The client has closed its side: for the container that is the end of the input.
            ours.shutdown(socket.SHUT_WR)
