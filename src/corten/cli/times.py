"""Points in time as users give them to --since and --until."""

from __future__ import annotations

import re
import time

from corten.cli.errors import CliError
from corten.cli.values import duration

_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?")


def unix_time(text: str, what: str) -> str:
    """Seconds since the epoch with nine decimals: of a date, of "42m" for 42 minutes ago, of a Unix time. "" stays.

    Raises CliError, which names the flag `what`.
    """
    if not text:
        return ""
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        return text
    match = _STAMP.fullmatch(text)
    if match:
        return _from_date(match)
    try:
        nanos = time.time_ns() - duration(text)
    except ValueError:
        raise CliError(f'invalid value for "{what}": failed to parse value as time or duration: "{text}"') from None
    return f"{nanos // 1_000_000_000}.{nanos % 1_000_000_000:09d}"


def _from_date(match: re.Match[str]) -> str:
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    parts = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
    if zone is None:
        seconds = int(time.mktime((*parts, 0, 0, -1)))
    else:
        import calendar

        seconds = calendar.timegm((*parts, 0, 0, 0))
        if zone != "Z":
            offset = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
            seconds += offset if zone[0] == "-" else -offset
    return f"{seconds}.{(fraction or '0').ljust(9, '0')}"


def local_stamp(nanoseconds: int) -> str:
    """RFC 3339 with nine decimals in local time, a zero offset written as Z: how `events` begins a line."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanos:09d}{zone(seconds)}"


def zone(seconds: float) -> str:
    """The offset of local time then: Z or +01:00."""
    offset = time.strftime("%z", time.localtime(seconds))
    return "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
