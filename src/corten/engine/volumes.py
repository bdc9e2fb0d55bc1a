"""Named and anonymous volumes of the local driver: `<root>/<name>/_data`, and a record for each.

A volume's directory is made before its record and moved away before the record goes, so a record without a directory,
found at start, is a removal that a crash interrupted, and an empty directory without a record a creation. An anonymous
volume names the container that it was made for: one that nobody uses any more comes of a crash amid the container's
creation or removal, and goes. One that is to outlive its container is told so before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from corten.clock import Clock
from corten.engine import localmounts
from corten.engine.models import Volume
from corten.errors import Conflict, CortenError, InvalidArgument, NotFound, clip
from corten.specs.filters import label_test
from corten.storage.content import sync_dir
from corten.storage.faults import host
from corten.storage.snapshots import count_usage
from corten.storage.trash import Trash
from corten.storage.types import DocumentStore

log = logging.getLogger(__name__)

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
Filters = dict[str, list[str]]
_Names = list[str]  # inside the class `list` is a method
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_TRASH = ".trash"


class EventSink(Protocol):
    """Where events go; `engine.events.EventBus` is one."""

    def publish(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> object: ...


class VolumeService:
    """See `api.docker.backends.VolumeBackend`. `in_use` gives the ids of containers that refer to a volume.

    The records are read by the constructor.
    """

    def __init__(
        self, root: Path, store: DocumentStore, clock: Clock, in_use: Callable[[str], _Names], events: EventSink
    ) -> None:
        self._root, self._store, self._clock, self._in_use, self._events = root, store, clock, in_use, events
        self._volumes: dict[str, Volume] = {}
        self._lock = asyncio.Lock()
        self._holders: dict[str, set[str]] = {}
        self._mounting: dict[str, asyncio.Lock] = {}
        with host("open the volumes"):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._trash = Trash(root / _TRASH)
        self._lost: _Names = []
        for name, body in store.all().items():
            if (root / name).is_dir():
                self._volumes[name] = msgspec.json.decode(body, type=Volume)
            else:
                log.warning("volume %s has a record and no directory: its removal was interrupted", name)
                self._lost.append(name)

    def list(self) -> Sequence[Volume]:
        return list(self._volumes.values())

    def get(self, name: str) -> Volume:
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound("volume", name, f"get {clip(name, 255)}: no such volume")
        return volume

    async def create(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str], made_for: str = ""
    ) -> Volume:
        """The volume `name`, made if it is not there; an anonymous one with a random name for "", which goes with the
        container that it is `made_for`.
        """
        anonymous = not name
        name = name or secrets.token_hex(32)
        if driver not in ("", "local"):
            raise NotFound(
                "plugin", driver, f'error looking up volume plugin {clip(driver)}: plugin "{clip(driver)}" not found'
            )
        _check_name(name)
        if (found := self._volumes.get(name)) is not None:
            return found
        localmounts.check(name, options)
        async with self._lock:
            if (found := self._volumes.get(name)) is not None:
                return found
            volume = Volume(
                name=name,
                created_ns=self._clock.now_ns(),
                mountpoint=str(self._root / name / "_data"),
                labels={**labels, ANONYMOUS_LABEL: ""} if anonymous else labels,
                options=options,
                anonymous=anonymous or ANONYMOUS_LABEL in labels,
                made_for=made_for if anonymous else "",
            )
            await asyncio.to_thread(_make, self._root, name)
            await self._store.put(name, msgspec.json.encode(volume))
            self._volumes[name] = volume
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    async def remove(self, name: str, *, force: bool) -> None:
        """Raises Conflict while containers refer to it, NotFound unless `force`."""
        async with self._lock:
            if name not in self._volumes and force:
                return
            self.get(name)
            await self._remove(name)

    async def outlive(self, names: Sequence[str]) -> None:
        """These stay when the container that they were made for has gone. Durable by when what comes next is."""
        for name in names:
            volume = self._volumes.get(name)
            if volume is not None and volume.made_for:
                volume.made_for = ""
                await self._store.put(name, msgspec.json.encode(volume), durable=False)

    async def acquire(self, names: Sequence[str], holder: str) -> None:
        """Mount those that have something to mount, for `holder`, which owes `release`, on failure too.

        Raises NotFound; SystemFault in Docker's words.
        """
        for name in names:
            if options := self.get(name).options:
                async with self._mounting.setdefault(name, asyncio.Lock()):
                    self._holders.setdefault(name, set()).add(holder)
                    await asyncio.to_thread(localmounts.attach, self._root / name / "_data", options)

    async def release(self, holder: str) -> None:
        """Unmount what nobody else holds. A failure is logged."""
        for name in [name for name, holders in self._holders.items() if holder in holders]:
            async with self._mounting[name]:
                self._holders[name].discard(holder)
                await self._unmount_idle(name)

    async def settle(self) -> None:
        """At the start of the daemon, when those that run have acquired theirs again: unmount the rest, and remove what
        a crash has left of containers that are not there.
        """
        await asyncio.to_thread(_remove_unmade, self._root, set(self._volumes))
        while self._lost:
            await self._store.delete(self._lost.pop())
        for volume in [volume for volume in self._volumes.values() if volume.made_for]:
            users = self._in_use(volume.name)
            if not users:
                log.warning("volume %s was made for a container that is not there, and is removed", volume.name)
                await self.remove(volume.name, force=True)
            elif volume.made_for not in users:
                await self.outlive([volume.name])
        for name in [volume.name for volume in self._volumes.values() if volume.options]:
            async with self._mounting.setdefault(name, asyncio.Lock()):
                await self._unmount_idle(name)

    async def _unmount_idle(self, name: str) -> None:
        if self._holders.get(name):
            return
        self._holders.pop(name, None)
        try:
            await asyncio.to_thread(localmounts.detach, self._root / name / "_data")
        except CortenError as error:
            log.error("volume %s stays mounted: %s", name, error)

    async def prune(self, filters: Filters) -> tuple[_Names, int]:
        """Names of what was removed and the bytes that it took. Only anonymous volumes, unless filter `all` is true."""
        everything = _read_filters(filters)
        labelled = label_test(filters.get("label", []), filters.get("label!", []))
        removed: _Names = []
        reclaimed = 0
        async with self._lock:
            for volume in list(self._volumes.values()):
                if not (everything or volume.anonymous) or not labelled(volume.labels):
                    continue
                if self._in_use(volume.name):
                    continue
                size = await self.usage(volume.name)
                await self._remove(volume.name)
                removed.append(volume.name)
                reclaimed += size
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return removed, reclaimed

    async def usage(self, name: str) -> int:
        """Bytes on disk, counted now."""
        self.get(name)
        with host(f"count volume {name}"):
            return await asyncio.to_thread(self.count, name)

    def count(self, name: str) -> int:
        """`usage` from a worker thread; raises OSError for a volume that has gone."""
        if self._volumes[name].options:
            return 0  # what it mounts is not its own
        return count_usage(self._root / name / "_data").size

    async def _remove(self, name: str) -> None:
        """With the lock held."""
        if users := self._in_use(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        if self._volumes[name].options:
            await asyncio.to_thread(localmounts.detach, self._root / name / "_data")
        with host(f"remove volume {name}"):
            await asyncio.to_thread(self._trash.throw, self._root / name)
        await self._store.delete(name)
        del self._volumes[name]
        self._mounting.pop(name, None)
        self._events.publish("volume", "destroy", name, {"driver": "local"})


def _make(root: Path, name: str) -> None:
    """The directory, durable before its record is. One that is there already (of a crash) is taken as it is."""
    with host(f"create volume {name}"):
        base = root / name
        data = base / "_data"
        base.mkdir(mode=0o701, exist_ok=True)
        if not data.exists():
            data.mkdir()
            os.chmod(data, 0o755)
        sync_dir(base)
        sync_dir(root)


def _remove_unmade(root: Path, known: Collection[str]) -> None:
    """Directories of volumes that have no record, where there is nothing in them. Blocks."""
    with os.scandir(root) as entries:
        unknown = [entry.path for entry in entries if entry.name not in known and entry.name != _TRASH]
    for path in unknown:
        for directory in (f"{path}/_data", path):
            with suppress(OSError):
                os.rmdir(directory)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {clip(name, 255)}: "{clip(name, 255)}" includes invalid characters for a local volume name, only'
            ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if len(name) > 255:
        raise InvalidArgument(f"create {clip(name, 64)}: volume name is too long, a name has at most 255 characters")


def _read_filters(filters: Filters) -> bool:
    """Whether `all` is asked for. Raises InvalidArgument for what prune does not know."""
    for key in filters:
        if key not in ("all", "label", "label!"):
            raise InvalidArgument(f"invalid filter '{clip(key)}'")
    words = [word.lower() for word in filters.get("all", [])]
    for word in words:
        if word not in ("1", "t", "true", "0", "f", "false"):
            raise InvalidArgument(f"invalid filter 'all={clip(word)}'")
    return any(word in ("1", "t", "true") for word in words)
