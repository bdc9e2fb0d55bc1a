"""Which images a prune means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corten.engine.models import Filters
from corten.errors import InvalidArgument, clip
from corten.specs.oci_image import parse_time

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Selection:
    """`until_ns` 0 for no bound; `labels` are (name, value or None for any, whether it must be there)."""

    dangling: bool
    until_ns: int
    labels: tuple[tuple[str, str | None, bool], ...]

    def wants(self, *, tagged: bool, created_ns: int) -> bool:
        if self.dangling and tagged:
            return False
        return not self.until_ns or created_ns < self.until_ns

    def wants_labels(self, labels: Mapping[str, str]) -> bool:
        return all((name in labels and value in (None, labels[name])) == there for name, value, there in self.labels)


def parse(filters: Filters, now_ns: int) -> Selection:
    """Raises InvalidArgument for a filter that does not exist, and for a value that means nothing."""
    for name in filters:
        if name not in ("dangling", "until", "label", "label!"):
            raise InvalidArgument(f"invalid filter '{clip(name, 64)}'")
    dangling = True
    for value in filters.get("dangling", []):
        if value not in (*_TRUE, *_FALSE):
            raise InvalidArgument(f"invalid filter 'dangling=[{clip(value, 64)}]'")
        dangling = value in _TRUE
    untils = filters.get("until", [])
    if len(untils) > 1:
        raise InvalidArgument("more than one until filter specified")
    labels = []
    for key, there in (("label", True), ("label!", False)):
        for text in filters.get(key, []):
            name, equals, wanted = text.partition("=")
            labels.append((name, wanted if equals else None, there))
    return Selection(dangling, _moment(untils[0], now_ns) if untils else 0, tuple(labels))


def _moment(text: str, now_ns: int) -> int:
    """A time, a Unix time in seconds, or a duration before now, in nanoseconds since the epoch."""
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        return round(float(text) * 1e9)
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_ns - round(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1e9)
    zoned = text if re.search(r"(Z|[+-]\d\d:\d\d)$", text) else text + ("Z" if "T" in text else "T00:00:00Z")
    if not (moment := parse_time(zoned)):
        raise InvalidArgument(f"invalid until filter: {clip(text, 64)!r}")
    return moment
