"""What is mounted into a new container: binds, volumes, and what other containers have."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corten.engine.containers.catalog import Catalog
from corten.engine.containers.mountspec import Wish
from corten.engine.deps import CopyUp, Images, Volumes
from corten.engine.faults import host_fault
from corten.engine.hostfacts import HostFacts
from corten.engine.models import MountPoint, volume_names
from corten.errors import InvalidArgument, clip


@dataclass(frozen=True, slots=True)
class Mounted:
    """A container's mount points, and those of them that are volumes to be filled from the image."""

    points: list[MountPoint]
    fillable: list[MountPoint]


class Mounts:
    """Makes mount points out of wishes. `copy_up` None leaves new volumes empty."""

    def __init__(
        self, catalog: Catalog, volumes: Volumes, images: Images, copy_up: CopyUp | None, facts: HostFacts
    ) -> None:
        self._catalog, self._volumes, self._images = catalog, volumes, images
        self._copy_up, self._facts = copy_up, facts

    async def make(
        self,
        container_id: str,
        wishes: Sequence[Wish],
        volumes_from: Sequence[str],
        owner: tuple[int, int] | None,
        undo: contextlib.AsyncExitStack,
    ) -> Mounted:
        """Those of other containers first. What is made for it belongs to `owner`, and goes again with `undo`."""
        inherited = self._inherited(wishes, volumes_from)
        points, fillable = list(inherited.values()), []
        for wish in wishes:
            if wish.destination in inherited:
                continue
            points.append(await self._point(container_id, wish, owner, undo))
            if wish.type == "volume" and wish.copy and not wish.subpath:
                fillable.append(points[-1])
        return Mounted(points, fillable)

    async def fill(self, container_id: str, volumes: Sequence[MountPoint]) -> None:
        """Empty ones get what the image has at their place. The container's file system is there."""
        if self._copy_up is None:
            return
        try:
            await self._volumes.acquire(volume_names(volumes), container_id)
            for point in volumes:
                await self._copy_up(container_id, point.destination, Path(point.source))
        finally:
            await self._volumes.release(container_id)

    def _inherited(self, wishes: Sequence[Wish], volumes_from: Sequence[str]) -> dict[str, MountPoint]:
        """By destination: mounts of other containers, where it has none of its own; the mode may make them ro."""
        own = {wish.destination for wish in wishes if wish.source}
        points: dict[str, MountPoint] = {}
        for spec in volumes_from:
            ref, separator, mode = spec.partition(":")
            if separator and mode not in ("ro", "rw", "z", "Z"):
                raise InvalidArgument(f'invalid mode: "{clip(mode, 40)}"')
            for point in self._catalog.find(ref).container.mounts:
                if point.destination not in own:
                    points[point.destination] = _inherited(point, read_only=mode == "ro")
        return points

    async def _point(
        self, container_id: str, wish: Wish, owner: tuple[int, int] | None, undo: contextlib.AsyncExitStack
    ) -> MountPoint:
        if wish.type == "volume":
            return await self._volume(container_id, wish, undo)
        if wish.type == "image":
            return await self._image(wish)
        if wish.type == "bind":
            await asyncio.to_thread(_check_source, wish, owner)
        return MountPoint(
            type=wish.type,
            destination=wish.destination,
            source=wish.source,
            mode=wish.mode,
            rw=wish.rw,
            propagation=wish.propagation,
            options=[*wish.tmpfs, *self._bind_options(wish)],
        )

    def _bind_options(self, wish: Wish) -> list[str]:
        can = self._facts.recursive_read_only
        if wish.deep_read_only and not can:
            raise InvalidArgument("this kernel cannot make bind mounts read-only recursively: it takes Linux 5.12")
        deep = wish.type == "bind" and not wish.rw and can and wish.deep_read_only is not False
        return (["nonrecursive"] if wish.non_recursive else []) + (["rro"] if deep else [])

    async def _image(self, wish: Wish) -> MountPoint:
        """Raises NotFound."""
        image = await self._images.resolve(wish.source, "")
        return MountPoint(
            type="image",
            name=wish.source,
            destination=wish.destination,
            rw=False,
            propagation=wish.propagation,
            subpath=wish.subpath,
            image_id=image.id,
            chain_id=image.chain_id,
        )

    async def _volume(self, container_id: str, wish: Wish, undo: contextlib.AsyncExitStack) -> MountPoint:
        anonymous = not wish.source
        volume = await self._volumes.create(wish.source, wish.driver, wish.driver_options, wish.labels, container_id)
        if anonymous:
            undo.push_async_callback(self._volumes.remove, volume.name, force=True)
        return MountPoint(
            type="volume",
            name=volume.name,
            destination=wish.destination,
            source=volume.mountpoint,
            driver=volume.driver,
            mode=wish.mode or ("z" if not anonymous else ""),
            rw=wish.rw,
            anonymous=anonymous,
            subpath=wish.subpath,
        )


def _check_source(wish: Wish, owner: tuple[int, int] | None) -> None:
    """A missing bind source is made for `-v`, and refused for `--mount`. It belongs to the container's root."""
    source = Path(wish.source)
    if source.exists():
        return
    if not wish.create_source:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {clip(wish.source, 200)}'
        )
    with host_fault(f"error while creating mount source path '{clip(wish.source, 200)}'"):
        made = [source, *(above for above in source.parents if not above.exists())]
        source.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            for folder in made:
                os.chown(folder, *owner)


def _inherited(point: MountPoint, *, read_only: bool) -> MountPoint:
    return MountPoint(
        type=point.type,
        destination=point.destination,
        source=point.source,
        name=point.name,
        driver=point.driver,
        mode="ro" if read_only else point.mode,
        rw=point.rw and not read_only,
        propagation=point.propagation,
        # The one that made it removes it.
        anonymous=False,
        options=list(point.options),
        subpath=point.subpath,
        image_id=point.image_id,
        chain_id=point.chain_id,
    )
