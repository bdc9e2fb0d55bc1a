"""Values of limits: what they are called in messages, and their ranges."""

from __future__ import annotations

from corten.errors import InvalidArgument

LARGEST = (1 << 63) - 1


def at(name: str) -> str:
    """The place of a limit in config.json."""
    return f"linux.resources.{name}"


def within(name: str, value: int | None, low: int, high: int = LARGEST, *, unset: int | None = None) -> None:
    """Raises InvalidArgument with the member's name for what is not between `low` and `high`, both included; None and
    `unset` are "not said"."""
    if value is None or value == unset or low <= value <= high:
        return
    bounds = f"between {low} and {high}" if high != LARGEST else f"{low} or more"
    also = "" if unset is None else f", or {unset} for none"
    raise InvalidArgument(f"{at(name)} is out of range: {value} (it must be {bounds}{also})")
