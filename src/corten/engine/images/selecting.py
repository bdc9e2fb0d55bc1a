"""Which images a prune means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corten.engine.models import Filters
from corten.errors import InvalidArgument, clip
from corten.specs.filters import label_test
from corten.specs.times import parse_moment

_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class Selection:
    """`until_ns` None for no bound, `labelled` None where no label is asked for."""

    dangling: bool
    until_ns: int | None
    labelled: Callable[[Mapping[str, str]], bool] | None

    def wants(self, *, tagged: bool, created_ns: int) -> bool:
        if self.dangling and tagged:
            return False
        return self.until_ns is None or created_ns < self.until_ns


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
    labels, without = filters.get("label", []), filters.get("label!", [])
    labelled = label_test(labels, without) if labels or without else None
    return Selection(dangling, _moment(untils[0], now_ns) if untils else None, labelled)


def _moment(text: str, now_ns: int) -> int:
    try:
        return parse_moment(text, now_ns)
    except ValueError:
        raise InvalidArgument(f"invalid until filter: {clip(text, 64)!r}") from None
