"""Filters of `container prune`: label, label!, until."""

from __future__ import annotations

import re
from collections.abc import Callable

from corten.engine.models import Container, Filters
from corten.errors import InvalidArgument, clip
from corten.specs.oci_image import parse_time

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}


def selector(filters: Filters, now_ns: int) -> Callable[[Container], bool]:
    """Raises InvalidArgument for a filter that does not exist."""
    for name in filters:
        if name not in ("label", "label!", "until"):
            raise InvalidArgument(f"invalid filter '{clip(name, 60)}'")
    if len(untils := filters.get("until", [])) > 1:
        raise InvalidArgument("more than one until filter specified")
    before = _moment(untils[0], now_ns) if untils else None

    def wanted(container: Container) -> bool:
        if before is not None and container.created_ns > before:
            return False
        labels = container.config.labels or {}
        has = all(_matches(labels, text) for text in filters.get("label", []))
        return has and not any(_matches(labels, text) for text in filters.get("label!", []))

    return wanted


def _matches(labels: dict[str, str], text: str) -> bool:
    name, separator, value = text.partition("=")
    return name in labels and (not separator or labels[name] == value)


def _moment(text: str, now_ns: int) -> int:
    """A Unix time in seconds, a duration before now in Go's notation, or an RFC 3339 time."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return round(float(text) * 1e9)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_ns - round(sum(float(number) * _UNITS[unit] for number, unit in parts) * 1e9)
    if moment := parse_time(text):
        return moment
    raise InvalidArgument(f"invalid until filter: {clip(text, 60)}")
