"""The filters of `GET /images/search`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corten.api.docker.params import check_filters, filter_flag
from corten.engine.models import Filters
from corten.errors import InvalidArgument, clip

KNOWN = frozenset(("is-official", "is-automated", "stars"))


def search_test(filters: Filters) -> Callable[[dict[str, Any]], bool]:
    """A function that says whether a repository, in the API's shape, passes. Raises InvalidArgument."""
    check_filters(filters, KNOWN)
    official, automated = filter_flag(filters, "is-official"), filter_flag(filters, "is-automated")
    least = 0
    for text in filters.get("stars", []):
        if not text.isascii() or not text.isdigit():
            raise InvalidArgument(f"invalid filter 'stars=[{clip(text, 64)}]'")
        least = max(least, int(text))
    return lambda entry: (
        official in (None, entry["is_official"])
        and automated in (None, entry["is_automated"])
        and entry["star_count"] >= least
    )
