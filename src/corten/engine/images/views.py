"""Images as the API reads them."""

from __future__ import annotations

from collections.abc import Callable

from corten.engine.images.names import ImageNames
from corten.engine.images.records import StoredImage
from corten.engine.models import Image


class ImageViews:
    """Made when they are asked for, and kept until the index says that something has changed."""

    def __init__(self, names: ImageNames, blob_size: Callable[[str], int]) -> None:
        self._names, self._blob_size = names, blob_size
        self._views: dict[str, Image] = {}

    def of(self, stored: StoredImage) -> Image:
        """The record that the API reads; not to be changed."""
        if (image := self._views.get(stored.id)) is None:
            names = self._names.of(stored.id)
            image = self._views[stored.id] = Image(
                id=stored.id,
                target=stored.target.digest,
                target_media_type=stored.target.media_type,
                manifest=stored.target.manifest,
                size=stored.size,
                created_ns=stored.created_ns,
                platform=stored.platform,
                chain_ids=stored.chain_ids,
                names=[name.canonical for name in names if name.tag],
                digests=[name.canonical for name in names if name.digest],
                parent_id=stored.parent_id,
                last_tagged_ns=stored.last_tagged_ns,
                head=self._names.head(stored),
                target_size=self._blob_size(stored.target.digest),
            )
        return image

    def drop(self, id: str) -> None:
        self._views.pop(id, None)
