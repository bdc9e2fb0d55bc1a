"""Sizes, durations and times as Docker words them."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def significant(value: float, digits: int) -> str:
    """%.{digits}g of Go, which unlike Python's prints exponents with at least two digits too: the same here."""
    return f"{value:.{digits}g}"


def _scale(value: float, base: float, names: tuple[str, ...], digits: int) -> str:
    index = 0
    while value >= base and index < len(names) - 1:
        value /= base
        index += 1
    return f"{significant(value, digits)}{names[index]}"


def human_size(value: float, digits: int = 4) -> str:
    """Powers of 1000: 1.984MB."""
    return _scale(float(value), 1000.0, _DECIMAL, digits)


def binary_size(value: float) -> str:
    """Powers of 1024: 23.54GiB."""
    return _scale(float(value), 1024.0, _BINARY, 4)


def human_duration(seconds: float) -> str:
    """ "About a minute", "3 weeks": one unit, rounded down, as go-units has it."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(timestamp: float) -> str:
    return f"{human_duration(max(0.0, time.time() - timestamp))} ago"


def local_time(timestamp: float) -> str:
    """As Go's Time.String of a local time without a fraction: 2026-11-24 06:22:16 +0000 UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(timestamp))


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch of 2026-11-24T06:22:16.893465492Z; 0 for Go's zero time or what is no time."""
    return parse_rfc3339_ns(text) / 1e9


def parse_rfc3339_ns(text: str) -> int:
    """As `parse_rfc3339`, in nanoseconds."""
    import calendar
    import re

    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:?\d\d)?", text)
    if not match or text.startswith("0001-"):
        return 0
    date, clock, fraction, zone = match.groups()
    seconds = calendar.timegm(time.strptime(f"{date} {clock}", "%Y-%m-%d %H:%M:%S"))
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "")
        offset = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        seconds += offset if zone[0] == "-" else -offset
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def ellipsis(text: str, width: int) -> str:
    """`text` cut to `width` columns, its last one an ellipsis. Wide characters count double."""
    if len(text) <= width and text.isascii():
        return text
    if width <= 0:
        return ""
    if width == 1:
        return text[:1]
    if sum(map(_columns, text)) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _columns(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "\N{HORIZONTAL ELLIPSIS}"


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    import unicodedata

    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def short_id(identifier: str) -> str:
    """The first twelve digits, without an algorithm's name."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]
