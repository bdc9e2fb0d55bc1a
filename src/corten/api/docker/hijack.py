"""Giving a client's connection away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
import termios
from typing import TYPE_CHECKING

from aiohttp import web

from corten.api.docker.server import Connection
from corten.engine.models import Hijacked

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.engine.models import Upgrade

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

# A client that waits for the head reads it within a few turns of the loop; one that does not is not waited for long.
_TURNS = 20
_TICKS = 50


class GivenAway(web.Response):
    """Stands for an answer that was written to the socket already. aiohttp sends nothing and closes its own copy of
    the descriptor; the connection lives on in the copy that was given away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def stream_type(call: Call, tty: bool) -> str:
    """The content type of container output: it says since API 1.42 whether it is multiplexed."""
    return MULTIPLEXED_STREAM if not tty and call.api >= 42 else RAW_STREAM


def upgrade(call: Call, tty: bool, *, settle: bool) -> Upgrade:
    """A function that answers 101 (200 to a client that asks for no upgrade) and gives the connection away.

    With `settle` it returns when the client has read the answer: for streams on which output is due at once. Not for
    one that waits for its container to be started: the client starts it when it has the answer, and must not be faster
    than the hand-over.

    The descriptor is a non-blocking stream socket, and the receiver's own: nothing here reads, shuts down or writes to
    it afterwards.
    """

    async def take() -> Hijacked:
        copy, prefix = seize(call)
        try:
            # Straight to the socket: the transport has nothing buffered, as the client waits for this answer.
            await asyncio.get_running_loop().sock_sendall(copy, _head(call, tty))
            if settle:
                await _taken(copy)
        except BaseException:
            copy.close()
            raise
        call.taken = True
        return Hijacked(copy.detach(), prefix)

    return take


def seize(call: Call) -> tuple[socket.socket, bytes]:
    """A non-blocking copy of the client's connection, no longer read here, and what was read of it beyond the head.

    `call.taken` is the caller's to set, when the answer is out.
    """
    transport, protocol = call.request.transport, call.request.protocol
    if transport is None or transport.is_closing() or not isinstance(protocol, Connection):
        raise ConnectionResetError("the client went away")
    # From here on what the client sends stays in the kernel for the receiver.
    transport.pause_reading()
    prefix = protocol.take_held()
    copy = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    copy.setblocking(False)
    return copy, prefix


async def _taken(sock: socket.socket) -> None:
    """Wait, a moment at most, until the client has read the head.

    docker-py reads the head through a buffer and the stream past it: what is in that buffer behind the head is lost to
    it. So the container's first output must not be there before the head was read.
    """
    if sock.family != socket.AF_UNIX:
        return  # elsewhere the kernel cannot tell
    for turn in range(_TURNS + _TICKS):
        if not int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder):
            return
        await asyncio.sleep(0 if turn < _TURNS else 0.001)


def _head(call: Call, tty: bool) -> bytes:
    if "Upgrade" in call.request.headers:
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {stream_type(call, tty)}", "Connection: Upgrade"]
        lines.append("Upgrade: tcp")
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {RAW_STREAM}"]
    lines += [f"{name}: {value}" for name, value in call.services.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
