"""What users may say about a log: `--log-driver` and `--log-opt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corten.errors import InvalidArgument, clip

DEFAULT_MAX_SIZE = 20 * 1000 * 1000  # bytes
DEFAULT_MAX_FILES = 5

_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3} | {
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
DRIVERS = ("json-file", "local", "none")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`max_size` in bytes, 0 for no limit; `max_files` counts the live file."""

    driver: str
    max_size: int = DEFAULT_MAX_SIZE
    max_files: int = DEFAULT_MAX_FILES


def parse(driver: str, options: Mapping[str, str]) -> LogSettings:
    """Check a driver and its options. Raises InvalidArgument in Docker's words where it has some."""
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{clip(driver)}' is registered")
    allowed = () if driver == "none" else ("max-size", "max-file")
    for name in options:
        if name not in allowed:
            raise InvalidArgument(f"unknown log opt '{clip(name)}' for {driver} log driver")
    size = _size(options["max-size"]) if "max-size" in options else DEFAULT_MAX_SIZE
    files = _count(options["max-file"]) if "max-file" in options else DEFAULT_MAX_FILES
    if files > 1 and size == 0:
        files = 1  # without a limit nothing is ever rotated
    return LogSettings(driver, size, files)


def _size(text: str) -> int:
    word = text.strip().lower()
    if word == "-1":
        return 0
    digits = word.rstrip("bkmgi")
    unit = _UNITS.get(word[len(digits) :].strip())
    try:
        size = round(float(digits) * unit) if unit is not None else -1
    except (ValueError, OverflowError):
        size = -1
    if size <= 0:
        raise InvalidArgument(f"invalid log opt max-size: '{clip(text)}'; use a number with k, m or g, or -1")
    return size


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    return count
