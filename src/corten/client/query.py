"""Query parameters as the API wants them."""

from __future__ import annotations

import json

from corten.client.http1 import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Filters = Mapping[str, list[str]]


def segment(name: str) -> str:
    """A name as part of a path. Slashes, colons and @ of image references stay."""
    return quote(name, b"/:@")


def flags(**values: bool | str | int | None) -> dict[str, str]:
    """True as "1"; None, False and "" left out; a trailing underscore of a Python keyword dropped."""
    return {
        key.rstrip("_"): "1" if value is True else str(value)
        for key, value in values.items()
        if value is not None and value is not False and value != ""
    }


def filters(values: Filters | None) -> dict[str, str]:
    """`{"name": ["a", "b"]}` in the API's form, a map of sets in JSON; nothing when there are none."""
    if not values:
        return {}
    return {"filters": json.dumps({key: dict.fromkeys(items, True) for key, items in values.items()})}
