"""Removing containers: one that was named, or all that do not run."""

from __future__ import annotations

import logging

from corten.clock import Clock
from corten.engine.containers import prune, transfers
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.containers.inspection import Inspection
from corten.engine.containers.lifecycle import LifeCycle
from corten.engine.containers.links import Links
from corten.engine.containers.release import Releaser
from corten.engine.events import EventBus
from corten.engine.models import Container, Filters, Status
from corten.errors import Conflict, CortenError, NotFound

log = logging.getLogger(__name__)


class Removal:
    """Implements `api.docker.backends.ContainerRemoval`."""

    def __init__(
        self,
        catalog: Catalog,
        life_cycle: LifeCycle,
        inspection: Inspection,
        releaser: Releaser,
        events: EventBus,
        clock: Clock,
    ) -> None:
        self._catalog, self._life_cycle, self._inspection = catalog, life_cycle, inspection
        self._releaser, self._events, self._clock = releaser, events, clock
        self._links = Links(catalog)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """With its writable layer and log, with `volumes` its anonymous volumes too; with `force` one that runs.

        With `link` only the link that `ref` names. Raises Conflict when it runs, or is being removed already.
        """
        if link:
            await self._links.remove(ref)
            return
        entry = self._catalog.find(ref)
        container = entry.container
        if entry.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        while True:
            if container.state.running:
                self._refuse_running(container, force=force)
                await self._end(entry)
            # Now, as a start that waits for them has the lock.
            transfers.end_all(entry, f"container {container.id} is being removed")
            async with entry.lock:
                if self._catalog.by_id(container.id) is not entry:
                    return  # --rm was faster
                if not container.state.running:
                    await self._releaser.remove(entry, volumes=volumes)
                    return
            # It was started meanwhile.

    def _refuse_running(self, container: Container, *, force: bool) -> None:
        if force:
            return
        status = container.state.status
        advice = "and must be unpaused first"
        if status is not Status.PAUSED:
            advice = ": stop the container before removing or force remove"
        separator = " " if status is Status.PAUSED else ""
        raise Conflict(f'cannot remove container "/{container.name}": container is {status}{separator}{advice}')

    async def _end(self, entry: Entry) -> None:
        """Kill for a forced removal; that it ended meanwhile, or is gone, is as good."""
        try:
            await self._life_cycle.kill(entry.container.id)
        except (Conflict, NotFound):
            if entry.container.state.running:
                raise

    async def prune(self, filters: Filters) -> tuple[list[str], int]:
        """Remove what does not run. Returns ids and the bytes that their writable layers took."""
        wanted = prune.selector(filters, self._clock.now_ns())
        removed, reclaimed = [], 0
        for container in self._catalog.newest_first():
            if container.state.running or not wanted(container):
                continue
            try:
                size = (await self._inspection.sizes(container.id)).rw
                await self.remove(container.id)
            except CortenError as error:
                log.info("container %s was not pruned: %s", container.id, error)
                continue
            removed.append(container.id)
            reclaimed += size
        self._events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return removed, reclaimed
