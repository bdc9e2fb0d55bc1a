"""Times as Go's RFC3339Nano writes them, in UTC. Runs in the shim: no imports beyond `time`."""

from __future__ import annotations

import time

SECOND = 1_000_000_000

_last: tuple[int, str] = (-1, "")


def format_ns(ns: int) -> bytes:
    """`2006-01-02T15:04:05.12Z`: zeros at the end of the fraction, and an empty fraction, are left out as Go does."""
    global _last
    seconds, fraction = divmod(ns, SECOND)
    if _last[0] != seconds:
        _last = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    text = _last[1]
    if fraction:
        text += "." + f"{fraction:09d}".rstrip("0")
    return (text + "Z").encode()


def pad_fraction(stamp: bytes) -> bytes:
    """Nine digits of fraction, as `docker logs --timestamps` prints (Go's RFC3339NanoFixed)."""
    whole, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0") + b"Z"
