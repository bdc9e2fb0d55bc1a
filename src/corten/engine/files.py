"""Files of containers: copied in and out, exported, compared with the image."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from corten.engine import remap
from corten.engine.containers import imagemounts
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.containers.transfers import Transfer
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.images.committing import STUBS
from corten.engine.models import Conduit, Container, ExtractOptions, PathStat, Status, volume_names
from corten.errors import Conflict, InvalidArgument, clip
from corten.storage.archiving.forks import ArchiveServer, ContainerGone, Job
from corten.storage.types import MountPlan

OpenRead = Callable[[PathStat | None], Awaitable[Conduit]]
OpenWrite = Callable[[], Awaitable[Conduit]]


class FileService:
    """Implements `api.docker.backends.FileBackend`."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings, workers: ArchiveServer) -> None:
        self._deps, self._settings, self._workers = deps, settings, workers
        self._announce = Announcer(deps.events)
        self._copies = itertools.count()

    async def stat(self, ref: str, path: str) -> PathStat:
        async with self._begun(self._deps.catalog.find(ref), "stat", _path(ref, path)) as (_, answer):
            return PathStat(**answer["stat"])

    async def read(self, ref: str, path: str, begin: OpenRead) -> None:
        entry = self._deps.catalog.find(ref)
        async with Transfer(entry, writes=False), self._begun(entry, "read", _path(ref, path)) as (job, answer):
            self._announce.container(entry.container, "archive-path")
            await _transfer(job, await begin(PathStat(**answer["stat"])))

    async def export(self, ref: str, begin: OpenRead) -> None:
        entry = self._deps.catalog.find(ref)
        async with Transfer(entry, writes=False), self._begun(entry, "export", {}) as (job, _):
            self._announce.container(entry.container, "export")
            await _transfer(job, await begin(None))

    async def write(self, ref: str, path: str, options: ExtractOptions, begin: OpenWrite) -> None:
        entry = self._deps.catalog.find(ref)
        owner = entry.container.config.user if options.own_by_user else ""
        request = _path(ref, path) | {"keep_kinds": options.keep_kinds, "owner": owner}
        async with Transfer(entry, writes=True) as transfer, self._begun(entry, "write", request) as (job, _):
            transfer.meter = job.meter
            await _transfer(job, await begin())
        self._announce.container(entry.container, "extract-to-dir")

    async def changes(self, ref: str) -> Sequence[tuple[int, str]]:
        container = self._deps.catalog.find(ref).container
        request = {"do": "changes", "stubs": STUBS, **await asyncio.to_thread(self._layers, container)}
        found: list[tuple[int, str]] = []
        async with self._workers.job(container.id, request) as job:
            while "done" not in (answer := await job.answer()):
                found += [(kind, path) for kind, path in answer["changes"]]
        return found

    @asynccontextmanager
    async def _begun(self, entry: Entry, do: str, request: dict[str, Any]) -> AsyncIterator[tuple[Job, dict[str, Any]]]:
        """A worker that has found what it was asked for, and its answer."""
        if entry.removing or entry.container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {entry.container.id} is being removed")
        for last in (False, False, True):
            async with (
                self._view(entry.container, bare=do == "export") as view,
                # The next user of a layer that was written to must be the only one.
                self._workers.job(
                    entry.container.id, {"do": do, "view": view, **request}, settled=do == "write" and "upper" in view
                ) as job,
            ):
                try:
                    answer = await job.answer()
                except ContainerGone:
                    if last:
                        raise Conflict(f"container {entry.container.id} is just ending") from None
                    await asyncio.sleep(0.05)  # until the daemon is told as well
                    continue
                yield job, answer
                return

    @asynccontextmanager
    async def _view(self, container: Container, *, bare: bool) -> AsyncIterator[dict[str, Any]]:
        """See `storage.archiving.root.enter`. What a stopped container's volumes mount is mounted meanwhile."""
        if _runs(container):
            yield {
                "pid": container.state.pid,
                "id": container.id,
                "remapped": bool(container.remapped),
                "bare": bare,
            }
            return
        layers = await asyncio.to_thread(self._root_of, container)
        layers["readonly"] = container.host_config.readonly_rootfs
        if bare:
            yield {**layers, "mounts": []}
            return
        holder = f"{container.id} copy {next(self._copies)}"
        try:
            await self._deps.volumes.acquire(volume_names(container.mounts), holder)
            mapped = remap.of(self._settings.remap, container.host_config)
            yield {**layers, "mounts": self._mounts(container), "inside": mapped and [mapped.uids, mapped.gids]}
        finally:
            await self._deps.volumes.release(holder)

    def _root_of(self, container: Container) -> dict[str, Any]:
        (plan,) = self._deps.snapshotter.mounts(container.id)
        if plan.type == "bind":
            return {"bind": plan.source}
        lower, upper, work, others = _parts(plan)
        return {"layers": [upper, *lower], "upper": upper, "work": work, "options": others}

    def _layers(self, container: Container) -> dict[str, Any]:
        """What is to be compared; `whole` where the container's layer holds the image's files too."""
        snapshotter = self._deps.snapshotter
        (plan,) = snapshotter.mounts(container.id)
        if plan.type != "bind":
            lower, upper, *_ = _parts(plan)
            return {"layers": lower, "upper": upper, "place": os.path.dirname(upper), "whole": False}
        whole = not snapshotter.rebases and bool(container.chain_id)
        lower = [str(snapshotter.layer_dir(container.chain_id))] if whole else []
        return {"layers": lower, "upper": plan.source, "place": plan.source, "whole": whole}

    def _mounts(self, container: Container) -> list[dict[str, Any]]:
        """Volumes, folders of the host and images, parents first; what lives in memory only is not there."""
        places = []
        for number, p in enumerate(container.mounts):
            if p.type == "tmpfs":
                continue
            place = {
                "source": p.source,
                "subpath": p.subpath,
                "destination": p.destination,
                "readonly": not p.rw,
                "owners": p.type == "bind",
            }
            if p.type == imagemounts.IMAGE:
                (plan,) = self._deps.snapshotter.mounts(imagemounts.view_key(container.id, number))
                place["layers"], place["options"] = imagemounts.layers(plan)
            places.append(place)
        return sorted(places, key=lambda place: place["destination"].rstrip("/").count("/"))


def _runs(container: Container) -> bool:
    return container.state.status in (Status.RUNNING, Status.PAUSED)


def _path(ref: str, path: str) -> dict[str, Any]:
    if "\0" in path:
        raise InvalidArgument("invalid path: it contains a NUL")
    return {"path": path, "missing": f"Could not find the file {clip(path, 300)} in container {clip(ref, 200)}"}


def _parts(plan: MountPlan) -> tuple[list[str], str, str, list[str]]:
    """Lower directories (topmost first), upper, work, and what else an overlay is mounted with."""
    named = dict(option.split("=", 1) for option in plan.options if "=" in option)
    lower = named.pop("lowerdir").split(":")
    upper, work = named.pop("upperdir"), named.pop("workdir")
    return lower, upper, work, [f"{key}={value}" for key, value in named.items()]


async def _transfer(job: Job, conduit: Conduit) -> None:
    try:
        await job.give(conduit.fd, conduit.framing, conduit.prefix)
    finally:
        os.close(conduit.fd)
    await job.answer()
