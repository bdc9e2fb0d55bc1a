"""A run: entries of one stream and one time, which is what the writer wrote in one go. The unit of reading."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from corten.logs.stamps import SECOND


@dataclass(frozen=True, slots=True)
class Mark:
    """What all entries of a run have in common. `stamp` is the time as `--timestamps` prints it, `attributes` what
    `--details` puts before a line."""

    stream: int
    stamp: bytes
    time_ns: int
    attributes: bytes = b""

    def prefix(self, timestamps: bool, details: bool) -> bytes:
        """What precedes each entry."""
        return (self.stamp + b" " if timestamps else b"") + (self.attributes + b" " if details else b"")


@dataclass(frozen=True, slots=True)
class Run:
    """`data` are the entries as they were said, each with its prefix already before it."""

    mark: Mark
    data: bytes


def parse_stamp(stamp: bytes) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time. Raises ValueError."""
    text = stamp.decode()
    zone = max(text.rfind("Z"), text.rfind("+"), text.rfind("-", 19))
    whole, _, fraction = text[:zone].partition(".")
    moment = datetime.fromisoformat(whole + text[zone:].replace("Z", "+00:00"))
    return int(moment.astimezone(UTC).timestamp()) * SECOND + int(fraction.ljust(9, "0")[:9] or 0)
