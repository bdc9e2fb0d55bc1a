"""`corten network ls`."""

from __future__ import annotations

import sys

from corten.cli.commands.ps import FORMAT_HELP, labels
from corten.cli.context import Context
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, write
from corten.cli.values import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]


def _created(row: Row) -> str:
    """As Go prints a time that it has read: its fraction without trailing zeros, its zone by name."""
    text = str(row.get("Created") or "")
    whole, _, rest = text.partition(".")
    fraction = rest.rstrip("Z").partition("+")[0].partition("-")[0] if rest else ""
    offset = text[-6:] if text[-6:-5] in ("+", "-") else "Z"
    name = "+0000 UTC" if offset == "Z" else offset.replace(":", "") + " " + offset.replace(":", "")
    stamp = whole.removesuffix("Z").replace("T", " ")[:19]
    return f"{stamp}.{fraction.rstrip('0')} {name}" if fraction.strip("0") else f"{stamp} {name}"


def _flag(row: Row, key: str) -> str:
    return "true" if row.get(key) else "false"


def shape(*, truncate: bool) -> Shape:
    """The fields of `network ls`."""
    return Shape(
        "network.networkContext",
        {
            "ID": lambda row: row["Id"][:12] if truncate else row["Id"],
            "Name": lambda row: row["Name"],
            "Driver": lambda row: row["Driver"],
            "Scope": lambda row: row["Scope"],
            "IPv4": lambda row: _flag(row, "EnableIPv4"),
            "IPv6": lambda row: _flag(row, "EnableIPv6"),
            "Internal": lambda row: _flag(row, "Internal"),
            "Labels": labels,
            "Label": lambda row, name: (row.get("Labels") or {}).get(name, ""),
            "CreatedAt": _created,
        },
        {
            "ID": "NETWORK ID",
            "Name": "NAME",
            "Driver": "DRIVER",
            "Scope": "SCOPE",
            "IPv4": "IPV4",
            "IPv6": "IPV6",
            "Internal": "INTERNAL",
            "Labels": "LABELS",
            "CreatedAt": "CREATED AT",
        },
        ("ID", "Name", "Driver", "Scope"),
    )


def _list(context: Context, options: Options) -> None:
    rows = sorted(context.client.networks.list(filters(options["filter"])), key=lambda row: str(row["Name"]))
    layout = shape(truncate=not options["no-trunc"])
    format_ = options["format"] or ("" if options["quiet"] else context.config.get("networksFormat") or "")
    if options["quiet"] and format_ in ("", "table"):
        sys.stdout.write("".join(layout.getters["ID"](row) + "\n" for row in rows))
        return
    write(layout, rows, format_)


NETWORKS = Command(
    "network ls",
    "[OPTIONS]",
    _list,
    (
        Flag("filter", "f", "filter*", 'Provide filter values (e.g. "driver=bridge")'),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("no-trunc", "", "bool", "Do not truncate the output"),
        Flag("quiet", "q", "bool", "Only display network IDs"),
    ),
    most=0,
)
