"""`corten system df`."""

from __future__ import annotations

import sys

from corten.cli.commands import images, ps, volumes
from corten.cli.commands.ps import FORMAT_HELP
from corten.cli.context import Context
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, render, write
from corten.cli.units import ago, human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

_ACTIVE = ("running", "paused", "restarting")


_KINDS = (
    ("Images", "ImageUsage", "Images"),
    ("Containers", "ContainerUsage", "Containers"),
    ("Local Volumes", "VolumeUsage", "Volumes"),
    ("Build Cache", "BuildCacheUsage", "BuildCache"),
)


def summary(usage: Row) -> list[Row]:
    """A row for each kind: how many, how many in use, bytes, bytes that could be freed, and whether as a share too."""
    if "ImageUsage" not in usage:
        return _counted(usage)
    rows = []
    for kind, key, _ in _KINDS:
        found = usage.get(key) or {}
        numbers = (int(found.get(name) or 0) for name in ("TotalCount", "ActiveCount", "TotalSize", "Reclaimable"))
        total, active, size, free = numbers
        share = key != "BuildCacheUsage"
        rows.append({"type": kind, "total": total, "active": active, "size": size, "free": free, "share": share})
    return rows


def _counted(usage: Row) -> list[Row]:
    """Before API 1.52 the client counts."""
    found_images, containers = usage.get("Images") or [], usage.get("Containers") or []
    found_volumes, cache = usage.get("Volumes") or [], usage.get("BuildCache") or []
    layers = int(usage.get("LayersSize") or 0)
    used = sum(
        image["Size"] - image["SharedSize"]
        for image in found_images
        if image.get("Containers") and image["Size"] >= 0 and image.get("SharedSize", -1) >= 0
    )
    active = [row for row in containers if row.get("State") in _ACTIVE]
    size = sum(row.get("SizeRw") or 0 for row in containers)
    free = size - sum(row.get("SizeRw") or 0 for row in active)
    in_use = [row for row in found_volumes if (row.get("UsageData") or {}).get("RefCount", 0) > 0]
    volume_size = _volume_size(found_volumes)
    cache_size = sum(row["Size"] for row in cache if not row.get("Shared"))
    cache_used = sum(row["Size"] for row in cache if not row.get("Shared") and row.get("InUse"))
    return [
        _row(
            "Images", found_images, sum(bool(image.get("Containers")) for image in found_images), layers, layers - used
        ),
        _row("Containers", containers, len(active), size, free),
        _row("Local Volumes", found_volumes, len(in_use), volume_size, volume_size - _volume_size(in_use)),
        _row("Build Cache", cache, sum(bool(row.get("InUse")) for row in cache), cache_size, cache_size - cache_used)
        | {"share": False},
    ]


def _volume_size(found: list[Row]) -> int:
    sizes = ((row.get("UsageData") or {}).get("Size", -1) for row in found)
    return sum(size for size in sizes if size > 0)


def _row(kind: str, found: list[Row], active: int, size: int, free: int) -> Row:
    return {"type": kind, "total": len(found), "active": active, "size": size, "free": free, "share": True}


def _reclaimable(row: Row) -> str:
    text = human_size(row["free"])
    return f"{text} ({row['free'] * 100 // row['size']}%)" if row["share"] and row["size"] > 0 else text


SHAPE = Shape(
    "formatter.diskUsageImagesContext",
    {
        "Type": lambda row: row["type"],
        "TotalCount": lambda row: str(row["total"]),
        "Active": lambda row: str(row["active"]),
        "Size": lambda row: human_size(row["size"]),
        "Reclaimable": _reclaimable,
    },
    {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
    ("Type", "TotalCount", "Active", "Size", "Reclaimable"),
)


def _with_columns(shape: Shape, *columns: str, **headers: str) -> Shape:
    return Shape(shape.type_name, shape.getters, {**shape.headers, **headers}, columns)


def _details(usage: Row) -> str:
    if "ImageUsage" in usage:
        usage = {name: (usage.get(key) or {}).get("Items") for _, key, name in _KINDS}
    image_shape = _with_columns(
        images.shape(truncate=True),
        *("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"),
    )
    container_shape = _with_columns(
        ps.shape(truncate=True),
        *("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
    )
    # The sizes here are those of the writable layers alone.
    container_shape.getters["Size"] = lambda row: human_size(row.get("SizeRw") or 0, 3)
    volume_shape = _with_columns(volumes.SHAPE, "Name", "Links", "Size")
    cache = usage.get("BuildCache") or []
    cache_size = sum(row["Size"] for row in cache if not row.get("Shared"))
    parts = [
        "Images space usage:\n",
        render(image_shape, images.rows_of(usage.get("Images") or [], digests=False), ""),
        "Containers space usage:\n",
        render(container_shape, usage.get("Containers") or [], ""),
        "Local Volumes space usage:\n",
        render(volume_shape, usage.get("Volumes") or [], ""),
        f"Build cache usage: {human_size(cache_size)}\n",
        render(_CACHE, cache, ""),
    ]
    return "\n".join(parts)


_CACHE = Shape(
    "formatter.buildCacheContext",
    {
        "ID": lambda row: short_id(row["ID"]),
        "CacheType": lambda row: row.get("Type") or "",
        "Size": lambda row: human_size(row["Size"]),
        "CreatedSince": lambda row: _since(row.get("CreatedAt")),
        "LastUsedSince": lambda row: _since(row.get("LastUsedAt")),
        "UsageCount": lambda row: str(row.get("UsageCount") or 0),
        "Shared": lambda row: "true" if row.get("Shared") else "false",
    },
    {
        "ID": "CACHE ID",
        "CacheType": "CACHE TYPE",
        "Size": "SIZE",
        "CreatedSince": "CREATED",
        "LastUsedSince": "LAST USED",
        "UsageCount": "USAGE",
        "Shared": "SHARED",
    },
    ("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"),
)


def _since(text: str | None) -> str:
    from corten.cli.units import parse_rfc3339

    return ago(parse_rfc3339(text)) if text else ""


def _df(context: Context, options: Options) -> None:
    if options["verbose"] and options["format"] not in ("", "table"):
        raise CliError("the verbose and the format options conflict")
    usage = context.client.system.disk_usage(verbose=options["verbose"])
    if options["verbose"]:
        sys.stdout.write(_details(usage))
        return
    write(SHAPE, summary(usage), options["format"])


DF = Command(
    "system df",
    "[OPTIONS]",
    _df,
    (
        Flag("format", "", "string", FORMAT_HELP),
        Flag("verbose", "v", "bool", "Show detailed information on space usage"),
    ),
    most=0,
)
