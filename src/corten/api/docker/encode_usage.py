"""`system df` since API 1.52: totals for each kind of object, the objects themselves only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corten.api.docker.encode import Json

Items = list[dict[str, Any]]

_ALIVE = ("running", "paused", "restarting")


def totals(usage: Json, kinds: list[str], *, verbose: bool) -> Json:
    """`usage` is in the shape of the versions before: LayersSize, Images, Containers, Volumes, BuildCache."""
    out: Json = {}
    for kind in kinds:
        name, members, make = _MAKERS[kind]
        items = usage.get(members) or []
        out[name] = make(items, usage)
        if verbose:
            out[name]["Items"] = items
    return out


def _entry(active: int, total: int, size: int, reclaimable: int) -> Json:
    return {"ActiveCount": active, "TotalCount": total, "TotalSize": size, "Reclaimable": max(0, reclaimable)}


def _images(items: Items, usage: Json) -> Json:
    """What layers take once, less what images in use have for themselves."""
    active = [image for image in items if image.get("Containers", 0) > 0]
    used = sum(image["Size"] - image["SharedSize"] for image in active if image.get("SharedSize", -1) >= 0)
    size = usage.get("LayersSize") or 0
    return _entry(len(active), len(items), size, size - used)


def _containers(items: Items, _: Json) -> Json:
    active = [container for container in items if container.get("State") in _ALIVE]
    size = sum(container.get("SizeRw") or 0 for container in items)
    return _entry(len(active), len(items), size, size - sum(container.get("SizeRw") or 0 for container in active))


def _volumes(items: Items, _: Json) -> Json:
    """A size of -1 is one that is not known."""
    usages = [volume.get("UsageData") or {} for volume in items]
    active = [usage for usage in usages if usage.get("RefCount", 0) > 0]
    size = sum(max(0, usage.get("Size", 0)) for usage in usages)
    return _entry(len(active), len(items), size, size - sum(max(0, usage.get("Size", 0)) for usage in active))


def _build_cache(items: Items, _: Json) -> Json:
    active = [record for record in items if record.get("InUse")]
    size = sum(record.get("Size", 0) for record in items if not record.get("Shared"))
    used = sum(record.get("Size", 0) for record in active if not record.get("Shared"))
    return _entry(len(active), len(items), size, size - used)


_MAKERS: dict[str, tuple[str, str, Callable[[Items, Json], Json]]] = {
    "container": ("ContainerUsage", "Containers", _containers),
    "image": ("ImageUsage", "Images", _images),
    "volume": ("VolumeUsage", "Volumes", _volumes),
    "build-cache": ("BuildCacheUsage", "BuildCache", _build_cache),
}
