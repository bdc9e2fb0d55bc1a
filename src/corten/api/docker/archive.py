"""Files of containers: `/containers/{id}/archive`, `/export`, `/changes`.

Archives go between the client's socket and a worker without passing through the daemon: the routes send the head, give
the connection away, and say at last how it went.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from corten.api.docker.encode import go_time
from corten.api.docker.errors import http_message, http_status
from corten.api.docker.hijack import GivenAway, seize
from corten.api.docker.server import Connection
from corten.engine.models import Conduit, ExtractOptions, PathStat
from corten.errors import CortenError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

TAR = "application/x-tar"
STAT_HEADER = "X-Docker-Container-Path-Stat"
LINGER = 10.0
"""Seconds in which a client that was refused may go on sending before it has read the refusal."""

# os.FileMode of Go: its own bits for what stat(2) says.
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def add_routes(router: Router) -> None:
    router.add("HEAD", "/containers/{id...}/archive", head)
    router.add("GET", "/containers/{id...}/archive", get)
    router.add("PUT", "/containers/{id...}/archive", put)
    router.add("GET", "/containers/{id...}/export", export)
    router.add("GET", "/containers/{id...}/changes", changes)


async def head(call: Call) -> web.Response:
    found = await call.backends.files.stat(call.args[0], _path(call))
    response = call.empty(200)
    response.headers[STAT_HEADER] = encode_stat(found)
    return response


async def get(call: Call) -> web.StreamResponse:
    begin = _answer(call, TAR)
    return await _sent(call, call.backends.files.read(call.args[0], _path(call), begin))


async def export(call: Call) -> web.StreamResponse:
    return await _sent(call, call.backends.files.export(call.args[0], _answer(call, "application/octet-stream")))


async def changes(call: Call) -> web.Response:
    found = await call.backends.files.changes(call.args[0])
    return call.json([{"Path": path, "Kind": kind} for kind, path in found] or None)


async def put(call: Call) -> web.StreamResponse:
    query = call.query
    options = ExtractOptions(keep_kinds=query.flag("noOverwriteDirNonDir"), own_by_user=query.flag("copyUIDGID"))
    failure: CortenError | None = None
    async with _Upload(call) as upload:
        try:
            await call.backends.files.write(call.args[0], _path(call), options, upload.begin)
        except CortenError as error:
            if upload.copy is None:
                raise
            failure = error
        if upload.copy is None:
            return call.empty(200)
        with contextlib.suppress(ConnectionError):
            await _conclude(call, upload.copy, failure)
    return GivenAway()


class _Upload:
    """The body of a request, given to a worker: with the connection (`copy` is one of it then), or through a pump when
    the parser has begun to read it.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pump: asyncio.Task[None] | None = None
        self.copy: socket.socket | None = None

    async def begin(self) -> Conduit:
        call = self._call
        if not isinstance(call.request.protocol, Connection) or not call.request.protocol.holding:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self._pump = call.services.tasks.start("upload", _pump(call, ours))
            return Conduit(theirs.detach(), "raw")
        self.copy, prefix = _take(call)
        if call.request.headers.get("Expect", "").lower() == "100-continue":
            await asyncio.get_running_loop().sock_sendall(self.copy, b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = "chunked" in call.request.headers.get("Transfer-Encoding", "").lower()
        framing = "chunked" if chunked else call.request.headers.get("Content-Length", "0")
        return Conduit(os.dup(self.copy.fileno()), framing, prefix)

    async def __aenter__(self) -> _Upload:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.copy is not None:
            self.copy.close()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])


async def _pump(call: Call, sock: socket.socket) -> None:
    with contextlib.closing(sock), contextlib.suppress(ConnectionError):
        async for chunk in call.upload():
            await asyncio.get_running_loop().sock_sendall(sock, chunk)


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def encode_stat(found: PathStat) -> str:
    mode = stat.S_IMODE(found.mode) & 0o777 | _KINDS.get(stat.S_IFMT(found.mode), 0)
    mode |= sum(theirs for ours, theirs in _BITS.items() if found.mode & ours)
    document = {
        "name": found.name,
        "size": found.size,
        "mode": mode,
        "mtime": go_time(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(document)).decode()


def _take(call: Call) -> tuple[socket.socket, bytes]:
    taken = seize(call)
    call.taken = True
    return taken


def _answer(call: Call, content_type: str) -> Callable[[PathStat | None], Awaitable[Conduit]]:
    async def begin(found: PathStat | None) -> Conduit:
        further = {STAT_HEADER: encode_stat(found)} if found is not None else {}
        copy, _ = _take(call)
        with contextlib.closing(copy):
            lines = {"Content-Type": content_type, **further, "Transfer-Encoding": "chunked"}
            await asyncio.get_running_loop().sock_sendall(copy, _head(call, "200 OK", lines))
            return Conduit(os.dup(copy.fileno()), "chunked")

    return begin


async def _sent(call: Call, work: Awaitable[None]) -> web.StreamResponse:
    """Once the head is out, an early end of the connection is all that can be said."""
    try:
        await work
    except (CortenError, OSError):
        if not call.taken:
            raise
    return GivenAway()


def _head(call: Call, status: str, lines: dict[str, str]) -> bytes:
    fields: dict[str, Any] = {**call.services.headers, **lines, "Connection": "close"}
    text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{text}\r\n".encode()


async def _conclude(call: Call, copy: socket.socket, failure: CortenError | None) -> None:
    """The answer to an archive that was sent. To a refused one as well: who still sends is listened to for a while, as
    a connection that is closed over unread data takes the answer with it.
    """
    loop = asyncio.get_running_loop()
    copy.setblocking(False)
    if failure is None:
        await loop.sock_sendall(copy, _head(call, "200 OK", {"Content-Length": "0"}))
        return
    body = msgspec.json.encode({"message": http_message(failure)}) + b"\n"
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    await loop.sock_sendall(copy, _head(call, f"{http_status(failure)} Error", lines) + body)
    copy.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await loop.sock_recv(copy, 1 << 18):
                pass
