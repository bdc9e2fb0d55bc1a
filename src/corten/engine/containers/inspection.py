"""Looking at containers: their records, processes, counters and sizes. Takes no lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from corten.clock import Clock
from corten.engine.containers import processes, samples
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Catalog
from corten.engine.containers.links import Links
from corten.engine.containers.sampler import Sampler
from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container, Sizes, StatsSample, Status, Top
from corten.errors import Conflict, NotFound
from corten.network.types import InterfaceStats
from corten.runtime.types import RuntimeResources
from corten.storage.types import Snapshotter


class Traffic(Protocol):
    """What went through a container's interfaces."""

    async def stats(self, container_id: str) -> Sequence[InterfaceStats]: ...


class Inspection:
    """Implements `api.docker.backends.ContainerInspection`."""

    def __init__(
        self,
        catalog: Catalog,
        resources: RuntimeResources,
        traffic: Traffic,
        snapshotter: Snapshotter,
        clock: Clock,
        facts: HostFacts,
        announce: Announcer,
    ) -> None:
        self._announce, self._links = announce, Links(catalog)
        self._catalog, self._resources, self._traffic = catalog, resources, traffic
        self._snapshotter, self._clock, self._facts = snapshotter, clock, facts
        self._sampler = Sampler(self.stats, clock)

    def get(self, ref: str) -> Container:
        return self._catalog.find(ref).container

    def list(self) -> Sequence[Container]:
        """All, newest first."""
        return self._catalog.newest_first()

    def link_names(self) -> Mapping[str, Sequence[str]]:
        """By id of a container, what others call it: "/web/db"."""
        return self._links.names()

    async def top(self, ref: str, ps_args: str) -> Top:
        container = self.get(ref)
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        found = await processes.top(self._resources.pids(container.id), ps_args)
        self._announce.container(container, "top")
        return found

    async def stats(self, ref: str) -> dict[str, Any]:
        """One sample in the API's shape; all zero for a container that does not run."""
        container = self.get(ref)
        now_ns = self._clock.now_ns()
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            return samples.empty(container)
        try:
            counters, interfaces = await asyncio.gather(
                self._resources.stats(container.id), self._traffic.stats(container.id)
            )
        except (NotFound, OSError):
            return samples.empty(container)  # it ended just now
        return samples.sample(container, counters, interfaces, now_ns, self._facts)

    def follow(self, ref: str) -> AsyncGenerator[StatsSample, None]:
        """See `Sampler.follow`. Raises NotFound now."""
        return self._sampler.follow(self.get(ref).id)

    async def close(self) -> None:
        """No more samples."""
        await self._sampler.close()

    async def sizes(self, ref: str) -> Sizes:
        return await asyncio.to_thread(self._sizes, self.get(ref))

    def _sizes(self, container: Container) -> Sizes:
        snapshotter = self._snapshotter
        own = snapshotter.usage(container.id).size
        total, key = own, container.chain_id
        while key:
            total += snapshotter.usage(key).size
            key = snapshotter.info(key).parent
        return Sizes(own, total)
