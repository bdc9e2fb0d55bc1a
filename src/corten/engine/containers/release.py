"""Taking apart: what a container gives back when it stops, and all of it when it is removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence

from corten.engine.containers import imagemounts, transfers
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.models import Container, Status, WaitResult
from corten.errors import Conflict, CortenError, NotFound
from corten.storage.walking import delete_tree

log = logging.getLogger(__name__)


class Releaser:
    """The caller holds the entry's lock. A part that fails is logged and does not keep the rest from being released."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._announce = Announcer(deps.events)

    async def stopped(self, entry: Entry) -> None:
        """Give back network and run-time state of a container whose processes have ended."""
        container = entry.container
        connected = [name for name, endpoint in container.networks.items() if endpoint.endpoint_id]
        outcomes = await asyncio.gather(
            self._deps.controller.close_sandbox(container.id) if container.sandbox_id else _nothing(),
            self._deps.runtime.forget(container.id),
            return_exceptions=True,
        )
        _log_failures(container, outcomes)
        await self._deps.volumes.release(container.id)
        _forget_endpoints(container)
        for name in connected:
            try:
                network = self._deps.networks.find(name)
            except NotFound:
                continue  # removed meanwhile
            self._announce.network(network, "disconnect", container.id)
        self._announce.mounts(container, "unmount")

    async def remove(self, entry: Entry, *, volumes: bool, durable: bool = True) -> None:
        """Remove a container that does not run, with its writable layer, log and, with `volumes`, anonymous volumes.

        Not `durable` for one that goes by itself (`--rm`): were the record to come back after a power cut, the next
        start of the daemon would remove it again.
        """
        container = entry.container
        entry.removing = True
        container.state.status = Status.REMOVING
        entry.drop_parked()
        await transfers.removed(entry, self._deps.clock)
        anonymous = [point.name for point in container.mounts if point.type == "volume" and point.anonymous]
        if not volumes:
            await self._deps.volumes.outlive(anonymous)
        outcomes = await asyncio.gather(
            self._catalog.drop(entry, durable=durable),
            asyncio.to_thread(self._remove_files, container),
            return_exceptions=True,
        )
        _log_failures(container, outcomes)
        if isinstance(outcomes[0], BaseException):
            entry.removing = False
            container.state.status = Status.DEAD
            raise outcomes[0]
        if volumes:
            await self._remove_volumes(container, anonymous)
        self._announce.container(container, "destroy")
        state = container.state
        entry.settle(("not-running", "next-exit", "removed"), WaitResult(state.exit_code))

    def _remove_files(self, container: Container) -> None:
        with contextlib.suppress(NotFound):  # a removal that a crash cut off goes on here
            self._deps.snapshotter.remove(container.id)
        imagemounts.remove(self._deps.snapshotter, container.id, container.mounts)
        shutil.rmtree(self._settings.run_dir(container.id), ignore_errors=True)
        with contextlib.suppress(OSError):  # a shared /dev/shm is in it: as deep as the container has made it
            delete_tree(self._settings.state_dir(container.id))

    async def _remove_volumes(self, container: Container, names: Sequence[str]) -> None:
        for name in names:
            try:
                await self._deps.volumes.remove(name, force=False)
            except (Conflict, NotFound) as error:
                log.info("volume %s of container %s stays: %s", name, container.id, error)
                await self._deps.volumes.outlive([name])


async def _nothing() -> None:
    return None


def _forget_endpoints(container: Container) -> None:
    container.endpoints, container.ports = [], {}
    container.sandbox_id = container.sandbox_key = ""
    for name, endpoint in container.networks.items():
        endpoint.endpoint_id = endpoint.gateway = endpoint.ip_address = ""
        endpoint.ip_prefix_len = 0
        endpoint.mac_address = container.requested_macs.get(name, "")


def _log_failures(container: Container, outcomes: Sequence[BaseException | None]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, CortenError | OSError):
            log.error("container %s was not released whole: %s", container.id, outcome)
        elif isinstance(outcome, BaseException):
            log.error("container %s was not released whole", container.id, exc_info=outcome)
