"""What `system df` tells: images and layers as they were accounted when they were unpacked, containers and volumes from
accounts that are kept.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from corten.engine.accounts import Accounts, Tree
from corten.engine.deps import EngineDeps
from corten.engine.models import Container, Image, Status, Volume
from corten.specs import reference
from corten.specs.times import format_time
from corten.storage.types import SnapshotInfo
from corten.tasks import TaskOwner

_CONTAINER, _VOLUME = "container ", "volume "
"""What the keys of accounts begin with."""


class DiskUsage:
    """`close` ends what is being counted."""

    def __init__(self, deps: EngineDeps) -> None:
        self._deps = deps
        self._tasks = TaskOwner("disk usage")
        self._accounts = Accounts(deps.clock, self._tasks)

    async def keep(self) -> None:
        """Never returns. See `Accounts.keep`."""
        await self._accounts.keep(lambda: self._trees(self._containers(), self._deps.volumes.list()))

    async def close(self) -> None:
        await self._tasks.close("the daemon stops")

    async def report(self) -> dict[str, Any]:
        """In the shape of the API before 1.52; of containers without what `GET /containers/json` tells of them too."""
        containers, volumes = self._containers(), self._deps.volumes.list()
        sizes = await self._accounts.sizes(self._trees(containers, volumes))
        infos = [info for info in self._deps.snapshotter.walk() if info.kind == "committed"]
        layers, stacks = {info.key: info.usage.size for info in infos}, _stacks(infos)
        images = self._deps.images.list()
        users = Counter(chain for image in images for chain in set(image.chain_ids))
        mounted = Counter(name for container in containers for name in self._mounted(container))
        return {
            "LayersSize": sum(size for key, size in layers.items() if key in users),
            "Images": _images(images, layers, users, Counter(container.image_id for container in containers)),
            "Containers": [
                _container(entry, sizes.get(_CONTAINER + entry.id, 0), stacks.get(entry.chain_id, 0))
                for entry in containers
            ],
            "Volumes": [_volume(entry, sizes.get(_VOLUME + entry.name, -1), mounted[entry.name]) for entry in volumes],
            "BuildCache": [],
        }

    def _containers(self) -> list[Container]:
        return [entry.container for entry in self._deps.catalog.entries()]

    def _trees(self, containers: Sequence[Container], volumes: Sequence[Volume]) -> list[Tree]:
        own = [Tree(_CONTAINER + entry.id, _state(entry), partial(self._count, entry)) for entry in containers]
        count = self._deps.volumes.count
        return own + [Tree(_VOLUME + volume.name, None, partial(count, volume.name)) for volume in volumes]

    def _count(self, container: Container) -> int:
        """Bytes of its writable layer and of its log."""
        return self._deps.snapshotter.usage(container.id).size + _log_size(container)

    @staticmethod
    def _mounted(container: Container) -> set[str]:
        return {point.name for point in container.mounts if point.type == "volume"}


def _state(container: Container) -> Hashable:
    """What does not change while nothing runs in it; None while something does."""
    state = container.state
    if state.running or state.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING):
        return None
    return state.status, state.started_ns, state.finished_ns


def _volume(volume: Volume, size: int, links: int) -> dict[str, Any]:
    return {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint,
        "CreatedAt": format_time(volume.created_ns),
        "Labels": volume.labels,
        "Scope": volume.scope,
        "Options": volume.options or None,
        "UsageData": {"RefCount": links, "Size": size},
    }


def _images(
    images: Sequence[Image], layers: Mapping[str, int], users: Mapping[str, int], containers: Mapping[str, int]
) -> list[dict[str, Any]]:
    """All from accounts that are kept. `users` counts the images of a layer, `containers` those of an image. Images of
    one index are told of as one, as `docker images` does.
    """
    families: dict[str, list[Image]] = {}
    for image in images:
        families.setdefault(image.head or image.id, []).append(image)
    return [_image(image, families[image.id], layers, users, containers) for image in images if image.id in families]


def _image(
    image: Image,
    family: Sequence[Image],
    layers: Mapping[str, int],
    users: Mapping[str, int],
    containers: Mapping[str, int],
) -> dict[str, Any]:
    own = Counter(chain for member in family for chain in set(member.chain_ids))
    return {
        "Id": image.id,
        "ParentId": image.parent_id,
        "RepoTags": [_familiar(name) for name in image.names],
        "RepoDigests": [_familiar(name) for name in image.digests],
        "Created": image.created_ns // 1_000_000_000,
        "Size": image.size if len(family) == 1 else sum(layers.get(chain, 0) for chain in own),
        "SharedSize": sum(layers.get(chain, 0) for chain, count in own.items() if users[chain] > count),
        "Labels": {},
        "Containers": sum(containers.get(member.id, 0) for member in family),
    }


def _container(container: Container, size: int, below: int) -> dict[str, Any]:
    return {
        "Id": container.id,
        "ImageID": container.image_id,
        "State": str(container.state.status),
        "SizeRw": size,
        "SizeRootFs": size + below,
    }


def _stacks(infos: Sequence[SnapshotInfo]) -> dict[str, int]:
    """Bytes of each committed layer together with all that are below it."""
    by_key = {info.key: info for info in infos}
    totals: dict[str, int] = {"": 0}
    for key in by_key:
        pile = []
        while key not in totals and key in by_key:
            pile.append(key)
            key = by_key[key].parent
        for known in reversed(pile):
            totals[known] = totals.get(by_key[known].parent, 0) + by_key[known].usage.size
    return totals


@lru_cache(maxsize=4096)
def _familiar(name: str) -> str:
    return reference.parse(name, default_tag=False).familiar


def _log_size(container: Container) -> int:
    if not container.log_path:
        return 0
    live = Path(container.log_path)
    total = 0
    for path in live.parent.glob(live.name + "*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512
    return total
