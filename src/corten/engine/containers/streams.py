"""What flows between clients and containers: attached connections, terminals, and logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

from corten.engine.containers import detach
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.deps import Logs
from corten.engine.models import AttachOptions, Hijacked, LogWindow, Status, Upgrade
from corten.errors import Conflict, InvalidArgument, NotFound
from corten.runtime.types import RuntimeStdio, Stream


class Streams:
    """Implements `api.docker.backends.ContainerStreams`.

    Clients are attached to a running container at once, and to one that has not started by parking them for its launch.
    """

    def __init__(self, catalog: Catalog, stdio: RuntimeStdio, logs: Logs, announce: Announcer) -> None:
        self._catalog, self._stdio, self._logs, self._announce = catalog, stdio, logs, announce
        stdio.on_detach(self._detached)

    async def attach(self, ref: str, options: AttachOptions, upgrade: Upgrade) -> None:
        """Hand the client's connection to the runtime, after what was said before if `options.logs`."""
        entry = self._catalog.find(ref)
        container = entry.container
        keys = detach.parse(options.detach_keys)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        client = await upgrade()
        try:
            if options.logs:
                await self._replay(entry, options, client)
        except BaseException:
            os.close(client.fd)
            raise
        self._announce.container(container, "attach")
        if not options.stream:
            os.close(client.fd)
            return
        stdin = options.stdin and container.config.open_stdin
        await self._hand_over(
            entry, Stream(client.fd, stdin, options.stdout, options.stderr, False, keys, client.prefix)
        )

    async def _hand_over(self, entry: Entry, stream: Stream) -> None:
        """Under the lock, so that no launch begins between the look at the state and the hand-over."""
        async with entry.lock:
            container = entry.container
            if container.state.status in (Status.RUNNING, Status.PAUSED):
                with contextlib.suppress(NotFound):  # it ended just now: the runtime has closed the connection
                    await self._stdio.attach(container.id, stream)
            elif entry.removing:
                os.close(stream.fd)
            else:
                entry.parked.append(stream)

    def _detached(self, container_id: str, exec_id: str) -> None:
        """The runtime's callback."""
        if (entry := self._catalog.by_id(container_id)) is None:
            return
        if exec_id:
            self._announce.container(entry.container, "exec_detach", execID=exec_id)
        else:
            self._announce.container(entry.container, "detach")

    async def _replay(self, entry: Entry, options: AttachOptions, client: Hijacked) -> None:
        window = LogWindow(stdout=options.stdout, stderr=options.stderr)
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=os.dup(client.fd)) as connection:
            blocking = connection.getblocking()
            connection.setblocking(False)
            try:
                async for piece in self._read(entry, window):
                    await loop.sock_sendall(connection, piece)
            except OSError:
                pass  # the client has gone; the runtime will notice too
            finally:
                connection.setblocking(blocking)

    def logs(self, ref: str, window: LogWindow) -> AsyncIterator[bytes]:
        """Ready to send: framed without a terminal, raw with one. Raises before the first item."""
        return self._read(self._catalog.find(ref), window)

    def _read(self, entry: Entry, window: LogWindow) -> AsyncIterator[bytes]:
        if not window.stdout and not window.stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if not entry.container.log_path:
            raise InvalidArgument("configured logging driver does not support reading")
        ended: asyncio.Future[Any] = entry.subscribe("not-running")  # then no more will be written
        return self._logs.read(entry.container, window, ended)

    async def resize(self, ref: str, height: int, width: int) -> None:
        """The terminal's size in characters. Raises Conflict when the container does not run."""
        container = self._catalog.find(ref).container
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            raise Conflict(f"container {container.id} is not running")
        await self._stdio.resize(container.id, height, width)
        self._announce.container(container, "resize", height=str(height), width=str(width))
