"""Attaching clients: to a running container at once, to one that is not yet started by parking them for its launch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

from corten.engine import detach
from corten.engine.announce import Announcer
from corten.engine.catalog import Entry
from corten.engine.deps import EngineDeps
from corten.engine.models import AttachOptions, Container, Hijacked, LogWindow, Status, Upgrade
from corten.errors import Conflict, NotFound
from corten.runtime.types import Stream

ReadLogs = Callable[[Container, LogWindow], AsyncIterator[bytes]]


class Attacher:
    """Hands clients' connections to the runtime. `read_logs` gives what was said before, ready to send."""

    def __init__(self, deps: EngineDeps, read_logs: ReadLogs) -> None:
        self._deps, self._read_logs = deps, read_logs
        self._announce = Announcer(deps.events)

    async def attach(self, entry: Entry, options: AttachOptions, upgrade: Upgrade) -> None:
        container = entry.container
        keys = detach.parse(options.detach_keys)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        client = await upgrade()
        try:
            if options.logs:
                await self._replay(container, options, client)
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
                    await self._deps.runtime.attach(container.id, stream)
            elif entry.removing:
                os.close(stream.fd)
            else:
                entry.parked.append(stream)

    async def _replay(self, container: Container, options: AttachOptions, client: Hijacked) -> None:
        window = LogWindow(stdout=options.stdout, stderr=options.stderr)
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=os.dup(client.fd)) as connection:
            blocking = connection.getblocking()
            connection.setblocking(False)
            try:
                async for piece in self._read_logs(container, window):
                    await loop.sock_sendall(connection, piece)
            except OSError:
                pass  # the client has gone; the runtime will notice too
            finally:
                connection.setblocking(blocking)
