"""The container service: one place for the API to call, each kind of work in a class of its own behind it."""

from __future__ import annotations

import asyncio
import builtins
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from corten.engine import prune
from corten.engine.attach import Attacher
from corten.engine.control import Controller
from corten.engine.create import Creator
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.execs import ExecService
from corten.engine.health import HealthMonitor
from corten.engine.launch import Launcher
from corten.engine.models import (
    AttachOptions,
    Container,
    Created,
    Filters,
    LogWindow,
    Sizes,
    Status,
    Top,
    Upgrade,
    WaitCondition,
    WaitResult,
)
from corten.engine.observe import Observer
from corten.engine.release import Releaser
from corten.engine.supervisor import Supervisor
from corten.errors import CortenError
from corten.network.types import Endpoint
from corten.specs.container import CreateRequest, Resources, RestartPolicy
from corten.storage.types import SnapshotInfo
from corten.storage.walking import delete_tree

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """What of the network belongs to containers that were running when the daemon stopped."""

    endpoints: list[Endpoint]
    sandboxes: list[str]


class ContainerService:
    """Implements `api.docker.backends.ContainerBackend`.

    At the start of the daemon: `load`, then the networks, then `recover`. At its end: `shutdown`; containers go on.
    """

    def __init__(self, deps: EngineDeps, settings: EngineSettings, execs: ExecService) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        releaser = Releaser(deps, settings)
        self.supervisor = Supervisor(deps, settings, Launcher(deps, settings), releaser)
        self._health = HealthMonitor(deps, execs)
        self.supervisor.watch(self._health.started, self._health.ended)
        self.supervisor.watch(lambda entry: None, lambda entry: execs.container_ended(entry.container.id))
        self._creator = Creator(deps, settings)
        self._controller = Controller(deps, settings, self.supervisor, releaser)
        self._observer = Observer(deps, settings)
        self._attacher = Attacher(deps, self._observer.logs)

    # -- the daemon's life -------------------------------------------------------------------------------------------

    def load(self) -> LiveNetwork:
        """Read the records. Nothing is started or stopped yet."""
        running = [
            entry.container
            for entry in self._catalog.load()
            if entry.container.state.status in (Status.RUNNING, Status.PAUSED)
        ]
        return LiveNetwork(
            [endpoint for container in running for endpoint in container.endpoints],
            [container.id for container in running if container.sandbox_id],
        )

    async def recover(self) -> None:
        """Find running containers again, settle the rest, remove what was left half made."""
        snapshots = {info.key: info for info in await asyncio.to_thread(lambda: list(self._deps.snapshotter.walk()))}
        for entry in self._catalog.entries():
            if entry.container.id not in snapshots and not entry.container.state.started_ns:
                log.warning("container %s was left half made and is removed", entry.container.id)
                await self._catalog.drop(entry)
        await self.supervisor.recover()
        await asyncio.to_thread(self._drop_orphans, list(snapshots.values()))

    def _drop_orphans(self, snapshots: Sequence[SnapshotInfo]) -> None:
        """What a crash amid a create or a remove has left without a record."""
        for key in (info.key for info in snapshots if info.kind == "active"):
            if not self._orphan(key):
                continue
            log.warning("the writable layer %s has no container and is removed", key)
            try:
                self._deps.snapshotter.remove(key)
            except CortenError as error:
                log.warning("the writable layer %s stays: %s", key, error)
        for parent in {self._settings.state_dir("x").parent, self._settings.run_dir("x").parent}:
            for directory in parent.iterdir() if parent.is_dir() else ():
                if self._orphan(directory.name):
                    log.warning("%s has no container and is removed", directory)
                    with suppress(OSError):
                        delete_tree(directory)

    def _orphan(self, name: str) -> bool:
        return re.fullmatch(r"[0-9a-f]{64}", name) is not None and self._catalog.by_id(name) is None

    async def shutdown(self) -> None:
        """Let go of everything. Running containers go on; the next start finds them."""
        await self._health.close()
        await self.supervisor.close()
        await self._controller.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, ref: str) -> Container:
        return self._catalog.find(ref).container

    def list(self) -> Sequence[Container]:
        return self._catalog.newest_first()

    async def wait(self, ref: str, condition: WaitCondition) -> Awaitable[WaitResult]:
        return self._catalog.find(ref).subscribe(condition)

    def logs(self, ref: str, window: LogWindow) -> AsyncIterator[bytes]:
        return self._observer.logs(self.get(ref), window)

    async def top(self, ref: str, ps_args: str) -> Top:
        return await self._observer.top(self.get(ref), ps_args)

    async def stats(self, ref: str) -> dict[str, Any]:
        return await self._observer.stats(self.get(ref))

    async def sizes(self, ref: str) -> Sizes:
        return await self._observer.sizes(self.get(ref))

    # -- changing ----------------------------------------------------------------------------------------------------

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> Created:
        return await self._creator.create(name, request, platform)

    async def start(self, ref: str) -> None:
        await self._controller.start(self._catalog.find(ref))

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self._controller.stop(self._catalog.find(ref), timeout, signal)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self._controller.restart(self._catalog.find(ref), timeout, signal)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        await self._controller.kill(self._catalog.find(ref), signal)

    async def pause(self, ref: str) -> None:
        await self._controller.pause(self._catalog.find(ref))

    async def unpause(self, ref: str) -> None:
        await self._controller.unpause(self._catalog.find(ref))

    async def rename(self, ref: str, name: str) -> None:
        await self._controller.rename(self._catalog.find(ref), name)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        await self._controller.remove(self._catalog.find(ref), force=force, volumes=volumes, link=link)

    async def update(self, ref: str, resources: Resources, restart_policy: RestartPolicy | None) -> builtins.list[str]:
        return await self._controller.update(self._catalog.find(ref), resources, restart_policy)

    async def attach(self, ref: str, options: AttachOptions, upgrade: Upgrade) -> None:
        await self._attacher.attach(self._catalog.find(ref), options, upgrade)

    async def resize(self, ref: str, height: int, width: int) -> None:
        await self._controller.resize(self._catalog.find(ref), height, width)

    async def prune(self, filters: Filters) -> tuple[builtins.list[str], int]:
        """Remove what does not run. Returns ids and the bytes that their writable layers took."""
        wanted = prune.selector(filters, self._deps.clock.now_ns())
        removed, reclaimed = [], 0
        for container in self._catalog.newest_first():
            if container.state.running or not wanted(container):
                continue
            try:
                size = (await self.sizes(container.id)).rw
                await self.remove(container.id)
            except CortenError as error:
                log.info("container %s was not pruned: %s", container.id, error)
                continue
            removed.append(container.id)
            reclaimed += size
        self._deps.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return removed, reclaimed
