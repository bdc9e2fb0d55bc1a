"""`corten volume ls|create|rm`."""

from __future__ import annotations

import sys

from corten.cli.commands.lifecycle import for_each
from corten.cli.commands.ps import FORMAT_HELP, labels
from corten.cli.context import Context, say
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, write
from corten.cli.spec.pieces import as_map
from corten.cli.units import human_size
from corten.cli.values import filters
from corten.client.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]


def _usage(row: Row, key: str) -> int:
    return int((row.get("UsageData") or {}).get(key, -1))


def links(row: Row) -> str:
    return "N/A" if _usage(row, "RefCount") < 0 else str(_usage(row, "RefCount"))


def size(row: Row) -> str:
    return "N/A" if _usage(row, "Size") < 0 else human_size(_usage(row, "Size"))


SHAPE = Shape(
    "formatter.volumeContext",
    {
        "Name": lambda row: row["Name"],
        "Driver": lambda row: row["Driver"],
        "Scope": lambda row: row.get("Scope") or "",
        "Mountpoint": lambda row: row.get("Mountpoint") or "",
        "Labels": labels,
        "Label": lambda row, name: (row.get("Labels") or {}).get(name, ""),
        "Links": links,
        "Size": size,
        # Fields of cluster volumes, which a local one does not have.
        "Group": lambda row: "N/A",
        "Availability": lambda row: "N/A",
        "Status": lambda row: "N/A",
    },
    {
        "Name": "VOLUME NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Group": "GROUP",
        "Availability": "AVAILABILITY",
        "Status": "STATUS",
    },
    ("Driver", "Name"),
)


def _list(context: Context, options: Options) -> None:
    rows = sorted(context.client.volumes.list(filters(options["filter"])), key=lambda row: str(row["Name"]))
    format_ = options["format"] or ("" if options["quiet"] else context.config.get("volumesFormat") or "")
    if options["quiet"] and format_ in ("", "table"):
        sys.stdout.write("".join(f"{row['Name']}\n" for row in rows))
        return
    write(SHAPE, rows, format_)


def _create(context: Context, options: Options) -> None:
    body: Row = {"Driver": options["driver"], "DriverOpts": as_map(options["opt"]), "Labels": as_map(options["label"])}
    if options.args:
        body["Name"] = options.args[0]
    say(str(context.client.volumes.create(body)["Name"]))


def _remove(context: Context, options: Options) -> None:
    force, remove = options["force"], context.client.volumes.remove

    def one(name: str) -> None:
        try:
            remove(name, force=force)
        except NotFound:
            if not force:
                raise

    for_each(options.args, one)


VOLUMES = Command(
    "volume ls",
    "[OPTIONS]",
    _list,
    (
        Flag("filter", "f", "filter*", 'Provide filter values (e.g. "dangling=true")'),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("quiet", "q", "bool", "Only display volume names"),
    ),
    most=0,
)
VOLUME_CREATE = Command(
    "volume create",
    "[OPTIONS] [VOLUME]",
    _create,
    (
        Flag("driver", "d", "string", "Volume driver", default="local"),
        Flag("label", "", "label*", "Set metadata for the volume", says="list"),
        Flag("opt", "o", "map*", "Set options of the driver"),
    ),
    most=1,
)
VOLUME_RM = Command(
    "volume rm",
    "[OPTIONS] VOLUME [VOLUME...]",
    _remove,
    (Flag("force", "f", "bool", "Do not mind volumes that do not exist"),),
    least=1,
)
