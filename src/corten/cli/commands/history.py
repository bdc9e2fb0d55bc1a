"""`corten history`."""

from __future__ import annotations

import sys
import time

from corten.cli.commands.ps import FORMAT_HELP
from corten.cli.context import Context
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, write
from corten.cli.times import zone
from corten.cli.units import ago, ellipsis, human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]


def shape(*, truncate: bool, human: bool) -> Shape:
    """The fields of `history`."""
    return Shape(
        "image.historyContext",
        {
            "ID": lambda row: short_id(row["Id"]) if truncate else row["Id"],
            "CreatedAt": lambda row: _stamp(row["Created"]),
            "CreatedSince": lambda row: _since(row["Created"]) if human else _stamp(row["Created"]),
            "CreatedBy": lambda row: _created_by(row, truncate=truncate),
            "Size": lambda row: human_size(row["Size"], 3) if human else str(row["Size"]),
            "Comment": lambda row: row.get("Comment") or "",
        },
        {
            "ID": "IMAGE",
            "CreatedAt": "CREATED AT",
            "CreatedSince": "CREATED" if human else "CREATED AT",
            "CreatedBy": "CREATED BY",
            "Size": "SIZE",
            "Comment": "COMMENT",
        },
        ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
    )


def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + zone(seconds)


def _since(seconds: int) -> str:
    return ago(seconds) if seconds > 0 else "N/A"


def _created_by(row: Row, *, truncate: bool) -> str:
    text = (row.get("CreatedBy") or "").replace("\t", " ")
    return ellipsis(text, 45) if truncate else text


def _history(context: Context, options: Options) -> None:
    rows = context.client.images.history(options.args[0], platform=options["platform"])
    layout = shape(truncate=not options["no-trunc"], human=options["human"])
    if options["quiet"] and options["format"] in ("", "table"):
        sys.stdout.write("".join(layout.getters["ID"](row) + "\n" for row in rows))
        return
    write(layout, rows, options["format"])


HISTORY = Command(
    "image history",
    "[OPTIONS] IMAGE",
    _history,
    (
        Flag("format", "", "string", FORMAT_HELP),
        Flag("human", "H", "bool", "Print sizes and dates for people", default=True),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("platform", "", "string", "Platform to show, where the image has several"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    ),
    least=1,
    most=1,
)
