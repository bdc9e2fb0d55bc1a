"""Points in time and lengths of time as Docker, OCI documents and Go programs write them. All in nanoseconds."""

from __future__ import annotations

import re
import time

SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART = r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)"
_TIME = r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)"


def parse_duration(text: str) -> int:
    """Of "1h30m", "250ms", "-1.5s" or "0". Raises ValueError in the words of Go's time package."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total, at = 0, 0
    for match in re.finditer(_PART, body, re.ASCII):
        whole, fraction, unit = match.groups()
        if match.start() != at or not (whole or fraction):
            break
        total += int(whole or 0) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction or "")
        at = match.end()
    if not body or at != len(body):
        if re.fullmatch(r"\d+(\.\d*)?", body, re.ASCII):
            raise ValueError(f'time: missing unit in duration "{text}"')
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total


def format_duration(ns: int) -> str:
    """As Go writes it: "500ms", "1m30s", "1.5s", "2h0m0s"."""
    sign, left = "-" if ns < 0 else "", abs(ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if 0 < left < size * 1000:
            return f"{sign}{_decimal(left, size)}{unit}"
    minutes, rest = divmod(left, 60 * SECOND)
    text = _decimal(rest, SECOND) + "s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    if minutes >= 60:
        text = f"{minutes // 60}h{text}"
    return sign + text


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = len(str(size)) - 1
    fraction = f"{part:0{digits}}".rstrip("0") if part else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def parse_moment(text: str, now_ns: int) -> int:
    """A point in time as filters and `since` have it: Unix seconds with a fraction, RFC 3339 (its zone or less may be
    missing; UTC then), or a duration before now. Raises ValueError.
    """
    import datetime
    from decimal import Decimal, InvalidOperation

    try:
        if re.fullmatch(r"-?[\d.]+", text, re.ASCII):
            return int(Decimal(text) * SECOND)
        if re.fullmatch(rf"[+-]?(?:{_PART})+", text, re.ASCII):
            return now_ns - parse_duration(text)
        fraction = re.search(r"\.(\d{1,9})\d*", text, re.ASCII)
        moment = datetime.datetime.fromisoformat(text.replace(fraction[0], "") if fraction else text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return int(moment.timestamp()) * SECOND + (int(fraction[1].ljust(9, "0")) if fraction else 0)
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError("it is no time and no duration") from None


def parse_time(text: str) -> int:
    """An RFC 3339 time as nanoseconds since the epoch; 0 for none, for one that cannot be read, and before 1970."""
    import datetime

    if (match := re.fullmatch(_TIME, text)) is None:
        return 0
    try:
        moment = datetime.datetime.fromisoformat(match[1].upper() + match[3].upper().replace("Z", "+00:00"))
        return max(0, int(moment.timestamp()) * SECOND + int((match[2] or "0").ljust(9, "0")))
    except (ValueError, OverflowError):
        return 0


def format_time(ns: int) -> str:
    """Nanoseconds since the epoch as Go writes a time: UTC, with as many digits of a second as it needs."""
    seconds, fraction = divmod(ns, SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"
