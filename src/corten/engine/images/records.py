"""What is stored of images and of their names."""

from __future__ import annotations

from msgspec import Struct, field


class Target(Struct, kw_only=True, frozen=True):
    """What a name points to: a manifest, or the index that the manifest was chosen from (else `digest` is it)."""

    digest: str
    media_type: str
    manifest: str
    manifest_media_type: str


class StoredImage(Struct, kw_only=True):
    """One image of one platform. `blobs` is everything in the content store that it needs, `layers` lowest first."""

    id: str
    target: Target
    size: int
    created_ns: int
    platform: str
    chain_ids: list[str]
    layers: list[str]
    blobs: list[str]
    parent_id: str = ""
    last_tagged_ns: int = 0


class StoredName(Struct, kw_only=True):
    image_id: str
    target: Target
    tagged_ns: int = field(default=0)
