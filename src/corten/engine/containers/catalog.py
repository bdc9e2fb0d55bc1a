"""All containers: in memory for whoever reads, in the document store for the next start of the daemon."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from corten.engine.containers.linkindex import LinkIndex
from corten.engine.models import Container, WaitCondition, WaitResult
from corten.errors import Conflict, InvalidArgument, NotFound, clip
from corten.runtime.types import Stream
from corten.storage.types import DocumentStore, MountPlan

if TYPE_CHECKING:
    from corten.engine.containers.transfers import Transfer

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Container)


class Entry:
    """A container with what of it lives in memory only.

    `lock` orders the steps that change it; nobody holds two. `parked` are clients that attached before the start and
    belong to the next launch. `backoff_s` is the last pause before a restart by policy. `no_restart`: the next exit is
    final, as somebody asked for it; `manual_restart`: it is part of a restart that was asked for. `was_healthy`: a
    health check has succeeded in this run. `transfers` are the copies that are under way.
    """

    __slots__ = (
        "_waiters",
        "backoff_s",
        "container",
        "lock",
        "manual_restart",
        "no_restart",
        "parked",
        "removing",
        "restart_task",
        "rootfs",
        "started_at",
        "transfers",
        "was_healthy",
    )

    def __init__(self, container: Container) -> None:
        self.container = container
        self.lock = asyncio.Lock()
        self.parked: list[Stream] = []
        self.rootfs: Sequence[MountPlan] | None = None
        self.removing = False
        self.backoff_s = 0.0
        self.started_at = 0.0
        self.manual_restart = False
        self.no_restart = False
        self.was_healthy = False
        self.transfers: set[Transfer] = set()
        self.restart_task: asyncio.Task[None] | None = None
        self._waiters: dict[WaitCondition, list[asyncio.Future[WaitResult]]] = {}

    def subscribe(self, condition: WaitCondition) -> asyncio.Future[WaitResult]:
        """A future that `settle` completes; done already where not-running holds."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not self.container.state.running:
            future.set_result(WaitResult(self.container.state.exit_code))
        else:
            waiting = self._waiters.setdefault(condition, [])
            waiting[:] = [other for other in waiting if not other.done()]  # of clients that have gone
            waiting.append(future)
        return future

    def settle(self, conditions: Iterable[WaitCondition], result: WaitResult) -> None:
        for condition in conditions:
            for future in self._waiters.pop(condition, ()):
                if not future.done():
                    future.set_result(result)

    def unpark(self) -> list[Stream]:
        """The parked clients, now the caller's."""
        streams, self.parked = self.parked, []
        return streams

    def drop_parked(self) -> None:
        for stream in self.unpark():
            os.close(stream.fd)


class Catalog:
    """Finds containers by id, name, the name of a link, or the start of an id. Reading takes no lock.

    `links` knows who links to whom.
    """

    def __init__(self, records: DocumentStore) -> None:
        self._records = records
        self.links = LinkIndex()
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}

    @property
    def names(self) -> dict[str, str]:
        """Name → id, those that are being created included."""
        return self._names

    def load(self) -> list[Entry]:
        """Everything on record, oldest first. For the start of the daemon.

        Raises DecodeError for a record that cannot be read, with the id: better no start than a lost container.
        """
        for id, body in self._records.all().items():
            container = _decoder.decode(body)
            self._entries[id] = Entry(container)
            self._names[container.name] = id
            self.links.update(container)
        self._entries = dict(sorted(self._entries.items(), key=lambda item: item[1].container.created_ns))
        return list(self._entries.values())

    def entries(self) -> list[Entry]:
        """Oldest first."""
        return list(self._entries.values())

    def newest_first(self) -> list[Container]:
        return [entry.container for entry in reversed(self._entries.values())]

    def find(self, ref: str) -> Entry:
        """By full id, name (`web/db` is what web calls db), or unambiguous start of an id, in this order, as Docker
        does. Raises NotFound.
        """
        plain = ref.removeprefix("/")
        if (entry := self._entries.get(plain)) is not None:
            return entry
        if (entry := self._entries.get(self._names.get(plain, ""))) is not None:
            return entry
        if "/" in plain and (entry := self._linked(plain)) is not None:
            return entry
        found = [entry for id, entry in self._entries.items() if plain and id.startswith(plain)]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {clip(plain, 64)}")
        if not found:
            raise NotFound("container", clip(ref, 200))
        return found[0]

    def _linked(self, name: str) -> Entry | None:
        source, _, alias = name.partition("/")
        holder = self._entries.get(self._names.get(source, ""))
        for link in holder.container.links if holder is not None else ():
            if link.alias == alias:
                return self._entries.get(link.target)
        return None

    def by_id(self, id: str) -> Entry | None:
        return self._entries.get(id)

    def volume_users(self, name: str) -> list[str]:
        """Ids of the containers that refer to a volume."""
        return [
            entry.container.id
            for entry in self._entries.values()
            if any(point.type == "volume" and point.name == name for point in entry.container.mounts)
        ]

    def image_users(self, image_id: str) -> list[Container]:
        """Containers that were made from an image, or have it mounted."""
        found = [entry.container for entry in self._entries.values()]
        return [user for user in found if user.image_id == image_id or _mounts(user, image_id)]

    def claim(self, name: str, id: str) -> None:
        """Reserve a name. Raises Conflict in Docker's words."""
        if (holder := self._names.get(name)) is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = id

    def release(self, name: str) -> None:
        self._names.pop(name, None)

    def show(self, entry: Entry) -> None:
        """Make a new container visible. Its name was claimed and its record saved."""
        self._entries[entry.container.id] = entry
        self.links.update(entry.container)

    async def save(self, entry: Entry, *, durable: bool = True) -> None:
        await self._records.put(entry.container.id, _encode(entry.container), durable=durable)

    async def drop(self, entry: Entry, *, durable: bool = True) -> None:
        container = entry.container
        await self._records.delete(container.id, durable=durable)
        self._entries.pop(container.id, None)
        self.links.forget(container.id)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]


def _mounts(container: Container, image_id: str) -> bool:
    return any(point.type == "image" and point.image_id == image_id for point in container.mounts)
