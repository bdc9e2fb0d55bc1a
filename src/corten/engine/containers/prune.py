"""Filters of `container prune`: label, label!, until."""

from __future__ import annotations

from collections.abc import Callable

from corten.engine.models import Container, Filters
from corten.errors import InvalidArgument, clip
from corten.specs.filters import label_test
from corten.specs.times import parse_moment


def selector(filters: Filters, now_ns: int) -> Callable[[Container], bool]:
    """Raises InvalidArgument for a filter that does not exist."""
    for name in filters:
        if name not in ("label", "label!", "until"):
            raise InvalidArgument(f"invalid filter '{clip(name, 60)}'")
    if len(untils := filters.get("until", [])) > 1:
        raise InvalidArgument("more than one until filter specified")
    before = _moment(untils[0], now_ns) if untils else None
    labelled = label_test(filters.get("label", []), filters.get("label!", []))

    def wanted(container: Container) -> bool:
        if before is not None and container.created_ns > before:
            return False
        return labelled(container.config.labels or {})

    return wanted


def _moment(text: str, now_ns: int) -> int:
    try:
        return parse_moment(text, now_ns)
    except ValueError:
        raise InvalidArgument(f"invalid until filter: {clip(text, 60)}") from None
