"""TLS in front of the HTTP server.

asyncio's own TLS cannot close one direction only: when a client says that it has no more input, as `docker run -i` does
at the end of its file, the output still to come is lost. And a connection under TLS has no descriptor that could be
given away. So TLS ends here, in a pump between the client and one end of a socket pair; the HTTP server has the other
end, and sees an ordinary local connection that it can give away.

    client  ── TLS records ──►  TlsClient  ── bytes ──►  LocalEnd  ── socket pair ──►  HTTP server, or a container
    close_notify, or end        ─────────────────────►   its sending side is closed
    close_notify                ◄──────────────────────  the other side has closed its sending side
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from corten.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 30.0
BACKLOG = 512
_CHUNK = 256 * 1024


def make_site(runner: web.ServerRunner, sock: socket.socket, tls: ssl.SSLContext | None = None) -> web.BaseSite:
    """The server of `runner` on a listening socket, behind TLS or not. `start` it; the runner's `cleanup` ends it."""
    return web.SockSite(runner, sock, backlog=BACKLOG) if tls is None else TlsSite(runner, sock, tls)


class TlsSite(web.BaseSite):
    """A listening socket whose connections are decrypted here and handed to the server in the clear."""

    def __init__(self, runner: web.ServerRunner, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(runner)
        self._sock, self._context = sock, context
        self._tasks = TaskOwner("tls")

    @property
    def name(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        factory: Callable[[], asyncio.Protocol] = server
        self._server = await asyncio.get_running_loop().create_server(
            lambda: TlsClient(self._context, factory, self._tasks), sock=self._sock, backlog=BACKLOG
        )

    async def stop(self) -> None:
        await super().stop()
        # Connections that are open end when the server, or who was given them, closes its end.
        await self._tasks.close("the listener is closed")


class TlsClient(asyncio.Protocol):
    """The side of the pump that speaks TLS with the client."""

    def __init__(self, context: ssl.SSLContext, server: Callable[[], asyncio.Protocol], tasks: TaskOwner) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._server, self._tasks = server, tasks
        self._transport: asyncio.Transport | None = None
        self._local: LocalEnd | None = None
        self._opening = False
        self._shaken = False
        self._heard_end = False
        self._said_end = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are not registered as such
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._too_slow)

    def _too_slow(self) -> None:
        if not self._shaken:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        """The client closed its sending side without TLS's own word for it; what it asked for is still sent."""
        if not self._heard_end:
            self._incoming.write_eof()
            self._advance()
        return self._shaken

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._local is not None:
            self._local.abort()

    def pause_writing(self) -> None:
        if self._local is not None:
            self._local.pause()

    def resume_writing(self) -> None:
        if self._local is not None:
            self._local.resume()

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _advance(self) -> None:
        """Take what the records at hand yield: the handshake, then bytes, then the end."""
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            if self._local is None:
                self._open_local()
            else:
                self._decrypt(self._local)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            if self._shaken:
                self._end_of_input()
            else:
                self._close()
        except ssl.SSLError as error:
            log.info("TLS with a client failed: %s", error.reason or error)
            self._flush()  # an alert tells the client why
            self._close()
            return
        self._flush()

    def _decrypt(self, local: LocalEnd) -> None:
        while not self._heard_end:
            data = self._tls.read(_CHUNK)
            if not data:
                self._end_of_input()
            else:
                local.write(data)

    def _end_of_input(self) -> None:
        self._heard_end = True
        if self._local is not None:
            self._local.end()
            if self._said_end:
                self._close()

    def _open_local(self) -> None:
        if not self._opening:
            self._opening = True
            self.pause()
            self._tasks.start("connection", self._connect_local())

    async def _connect_local(self) -> None:
        """The socket pair: one end for the HTTP server, the other for us."""
        loop = asyncio.get_running_loop()
        inner, outer = socket.socketpair()
        inner.setblocking(False)
        outer.setblocking(False)
        await loop.connect_accepted_socket(self._server, inner)
        _, local = await loop.connect_accepted_socket(lambda: LocalEnd(self), outer)
        if self._transport is None or self._transport.is_closing():
            local.abort()
            return
        self._local = local
        self.resume()
        self._advance()
        if self._heard_end:
            local.end()

    def send(self, data: bytes) -> None:
        """Bytes from the server's side to the client."""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            log.info("TLS with a client failed: %s", error.reason or error)
            self.abort()
            return
        self._flush()

    def send_end(self) -> None:
        """The server's side has said everything; the client may still talk."""
        if not self._said_end:
            self._said_end = True
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # sends our close_notify; the client's comes when it wants
            self._flush()
        if self._heard_end:
            self._close()

    def local_lost(self) -> None:
        """Nobody is left behind the pump."""
        self.send_end()
        self._close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class LocalEnd(asyncio.Protocol):
    """The side of the pump that speaks with the server, or with whom the server gave its end to."""

    def __init__(self, client: TlsClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are not registered as such

    def data_received(self, data: bytes) -> None:
        self._client.send(data)

    def eof_received(self) -> bool:
        self._client.send_end()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._client.local_lost()

    def pause_writing(self) -> None:
        self._client.pause()

    def resume_writing(self) -> None:
        self._client.resume()

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def end(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
