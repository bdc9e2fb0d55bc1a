"""`corten search`."""

from __future__ import annotations

from corten.cli.commands.ps import FORMAT_HELP
from corten.cli.context import Context
from corten.cli.credentials import auth_for
from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, write
from corten.cli.units import ellipsis
from corten.cli.values import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

WIDTH = 45
"""Columns of a description that is cut."""


def shape(*, truncate: bool) -> Shape:
    """The fields of `search`."""
    return Shape(
        "formatter.SearchContext",
        {
            "Name": lambda row: row["name"],
            "Description": lambda row: _description(row, truncate=truncate),
            "StarCount": lambda row: str(row["star_count"]),
            "IsOfficial": lambda row: "[OK]" if row["is_official"] else "",
            "IsAutomated": lambda row: "[OK]" if row.get("is_automated") else "",
        },
        {
            "Name": "NAME",
            "Description": "DESCRIPTION",
            "StarCount": "STARS",
            "IsOfficial": "OFFICIAL",
            "IsAutomated": "AUTOMATED",
        },
        ("Name", "Description", "StarCount", "IsOfficial"),
    )


def _description(row: Row, *, truncate: bool) -> str:
    text = (row.get("description") or "").replace("\n", " ").replace("\r", " ")
    return ellipsis(text, WIDTH) if truncate else text


def _search(context: Context, options: Options) -> None:
    term = options.args[0]
    found = context.client.images.search(
        term, limit=options["limit"], filters=filters(options["filter"]), auth=auth_for(term, context.config)
    )
    found.sort(key=lambda row: -int(row["star_count"]))
    write(shape(truncate=not options["no-trunc"]), found, options["format"])


SEARCH = Command(
    "search",
    "[OPTIONS] TERM",
    _search,
    (
        Flag("filter", "f", "filter*", "Filter output based on conditions provided"),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("limit", "", "int", "Max number of search results"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    ),
    least=1,
    most=1,
)
