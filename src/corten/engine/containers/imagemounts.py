"""Images mounted into containers. Each has a view of its own, which keeps the layers as long as the container is there,
whatever becomes of the image.

All of it blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from corten.engine.models import Container, MountPoint
from corten.errors import NotFound
from corten.storage.types import MountPlan, Snapshotter

IMAGE = "image"


def view_key(container_id: str, number: int) -> str:
    """The snapshot that the container's mount `number` shows."""
    return f"{container_id}.{number}"


def owner_of(key: str) -> str:
    """The container that a snapshot belongs to, be it its own layer or a view."""
    return key.partition(".")[0]


def mounted(container: Container) -> list[MountPoint]:
    return [point for point in container.mounts if point.type == IMAGE]


def make(snapshotter: Snapshotter, container_id: str, points: Sequence[MountPoint]) -> None:
    """Make the views of a new container. Raises NotFound for an image that has gone meanwhile."""
    for key, point in _keys(container_id, points):
        snapshotter.view(key, point.chain_id)
        point.source = str(snapshotter.layer_dir(key))


def remove(snapshotter: Snapshotter, container_id: str, points: Sequence[MountPoint]) -> None:
    """Remove what is there of them."""
    for key, _ in _keys(container_id, points):
        with contextlib.suppress(NotFound):
            snapshotter.remove(key)


def layers(plan: MountPlan) -> tuple[list[str], list[str]]:
    """The directories that a view shows, topmost first, and what else an overlay of them is mounted with."""
    if plan.type == "bind":
        return [plan.source], []
    lower = next(option for option in plan.options if option.startswith("lowerdir="))
    return lower.removeprefix("lowerdir=").split(":"), [option for option in plan.options if option != lower]


def _keys(container_id: str, points: Sequence[MountPoint]) -> Iterator[tuple[str, MountPoint]]:
    for number, point in enumerate(points):
        if point.type == IMAGE:
            yield view_key(container_id, number), point
