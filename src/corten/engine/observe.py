"""Looking into containers: logs, processes, counters, sizes. Takes no lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from corten.engine import processes, samples
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.models import Container, LogWindow, Sizes, Status, Top
from corten.errors import Conflict, InvalidArgument, NotFound


class Observer:
    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings = deps, settings

    def logs(self, container: Container, window: LogWindow) -> AsyncIterator[bytes]:
        """Ready to send: framed without a terminal, raw with one. Raises before the first item."""
        if not window.stdout and not window.stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if not container.log_path:
            raise InvalidArgument("configured logging driver does not support reading")
        return self._deps.logs.read(container, window, self._ended(container))

    def _ended(self, container: Container) -> asyncio.Future[Any]:
        """Done when no more will be written."""
        entry = self._deps.catalog.by_id(container.id)
        if entry is None or not container.state.running:
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return entry.subscribe("not-running")

    async def top(self, container: Container, ps_args: str) -> Top:
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        return await processes.top(self._deps.runtime.pids(container.id), ps_args)

    async def stats(self, container: Container) -> dict[str, Any]:
        """One sample in the API's shape; all zero for a container that does not run."""
        now_ns = self._deps.clock.now_ns()
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            return samples.empty(container)
        try:
            counters, interfaces = await asyncio.gather(
                self._deps.runtime.stats(container.id), self._deps.controller.stats(container.id)
            )
        except (NotFound, OSError):
            return samples.empty(container)  # it ended just now
        return samples.sample(container, counters, interfaces, now_ns, self._settings.facts)

    async def sizes(self, container: Container) -> Sizes:
        return await asyncio.to_thread(self._sizes, container)

    def _sizes(self, container: Container) -> Sizes:
        snapshotter = self._deps.snapshotter
        own = snapshotter.usage(container.id).size
        total, key = own, container.chain_id
        while key:
            total += snapshotter.usage(key).size
            key = snapshotter.info(key).parent
        return Sizes(own, total)
