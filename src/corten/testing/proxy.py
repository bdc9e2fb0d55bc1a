"""A proxy in this process: tunnels by CONNECT and passes plain requests on, for those whom it knows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from urllib.parse import urlsplit


class FakeProxy:
    """`async with FakeProxy() as proxy`; then `proxy.host` is "127.0.0.1:<port>".

    `user` is "name:password", "" for a proxy that asks nobody. `seen` has the method and the target of each request
    that was let through; names are looked up in `names` first.
    """

    def __init__(
        self, *, user: str = "", names: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host = ""
        self.seen: list[tuple[str, str]] = []
        self._wanted = "Basic " + base64.b64encode(user.encode()).decode() if user else ""
        self._names, self._tls = names or {}, tls
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            method, target, _ = first.split()
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            if self._wanted and fields.get("proxy-authorization") != self._wanted:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            self.seen.append((method, target))
            await self._pass_on(method, target, lines, reader, writer)

    async def _pass_on(
        self, method: str, target: str, lines: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there = self._names.get(parts.netloc, parts.netloc)
        host, _, port = there.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        with contextlib.closing(far_writer):
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                far_writer.write(
                    "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode()
                )
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
