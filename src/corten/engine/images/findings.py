"""What a check of the stores finds, as data: one record for each damaged thing."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct, field

Kind = Literal["database", "blob", "layer", "image", "container", "volume"]


class Damage(Struct, rename="pascal"):
    """One path of a layer and what is wrong with it."""

    path: str
    what: str


class Finding(Struct, kw_only=True, rename="pascal"):
    """Something damaged. `id` is a digest, a chain id, an image's or container's id; `paths` are the first of `count`
    in a layer. `images` need it, by name where they have one; `containers` stand on it, `running` are those of them
    that run. `healed` says how it was made whole, `reason` why it was not.
    """

    kind: Kind
    id: str
    what: str
    paths: list[Damage] = field(default_factory=list)
    count: int = 0
    images: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    healed: str = ""
    reason: str = ""


class Summary(Struct, kw_only=True, rename="pascal"):
    """What was looked at. `unchecked` are layers without an image, whose blob is gone: nothing can be said of them."""

    blobs: int = 0
    blob_bytes: int = 0
    layers: int = 0
    unchecked: int = 0
    images: int = 0
    containers: int = 0
    damaged: int = 0
    healed: int = 0


def as_data(value: Finding | Summary) -> dict[str, Any]:
    """In the form of the API."""
    data: dict[str, Any] = msgspec.to_builtins(value)
    return data
