"""Flag values: text to numbers, sizes and durations, with Docker's wording where it is wrong (ValueError)."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Compiled when first used, as `ps` needs neither.
_SIZE = r"(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?[iI]?[bB]?"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(text: str) -> int:
    """In base 10, or as 0x…, 0b…, 0o… and 0…; within 64 bits."""
    try:
        value = int(text, 8) if re.fullmatch(r"[+-]?0\d+", text) else int(text, 0)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def _bounded(text: str, bits: int) -> int:
    try:
        value = integer(text)
    except ValueError:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax') from None
    if value < 0:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if value >= 1 << bits:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def size(text: str) -> int:
    """Bytes of "512", "64m", "1.5g", "2GiB": powers of 1024."""
    match = re.fullmatch(_SIZE, text)
    if not match:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** _POWERS[(match[2] or "").lower()])


def swap_size(text: str) -> int:
    return -1 if text == "-1" else size(text)


def duration(text: str) -> int:
    """Nanoseconds of "1m30s", as Go writes durations."""
    from corten.specs.times import parse_duration

    return parse_duration(text)


def cpus(text: str) -> int:
    """Billionths of a CPU of "1.5"."""
    from fractions import Fraction

    try:
        nanos = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nanos.denominator != 1:
        raise ValueError("value is too precise")
    return int(nanos)


def key_value(text: str) -> str:
    """For maps: what has no "=" has an empty value, and an empty key is refused."""
    return text


def filter_pair(text: str) -> tuple[str, str]:
    """`name=value`, spaces around either dropped, the name in lower case."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def label(text: str) -> str:
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def environment(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def host_address(text: str) -> str:
    """NAME:ADDRESS, "=" accepted for the colon; the address an IP or "host-gateway"."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare != "host-gateway" and not is_ip(bare):
        raise ValueError(f'invalid IP address in add-host: "{address}"')
    return f"{name}:{bare}"


def ip_address(text: str) -> str:
    if is_ip(text.strip()):
        return text.strip()
    raise ValueError(f"IP address is not correctly formatted: {text}")


def is_ip(text: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        return False
    return True


def link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def standard_stream(text: str) -> str:
    lowered = text.lower()
    if lowered not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return lowered


KINDS: dict[str, Callable[[str], Any]] = {
    "bool": boolean,
    "int": integer,
    "uint16": lambda text: _bounded(text, 16),
    "uint": lambda text: _bounded(text, 64),
    "string": str,
    "list": str,
    "map": key_value,
    "bytes": size,
    "swap": swap_size,
    "duration": duration,
    "decimal": cpus,
    "filter": filter_pair,
    "label": label,
    "env": environment,
    "host": host_address,
    "ip": ip_address,
    "link": link,
    "stream": standard_stream,
}


def filters(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """`--filter` values as the API groups them."""
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


def comma_separated(values: list[str]) -> list[str]:
    """A flag that may be given several times, with several values each."""
    return [word for value in values for word in value.split(",") if word]
