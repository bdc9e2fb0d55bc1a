"""The only way into the index: an image is listed when all that it needs is there, and held."""

from __future__ import annotations

from collections.abc import Sequence

from corten.engine.images.index import ImageIndex
from corten.engine.images.layers import LayerStore
from corten.engine.images.records import StoredImage
from corten.engine.images.threads import in_thread, to_the_end
from corten.errors import DataCorrupt
from corten.specs.reference import Reference


async def enlist(index: ImageIndex, layers: LayerStore, image: StoredImage, names: Sequence[Reference]) -> None:
    """Store `image` and point `names` to it; durable on return.

    Whoever made it holds what it found there itself; this is where it would show if not. Raises DataCorrupt for an
    image of which something is missing, and lists nothing then.
    """
    async with layers.leases.take([*image.blobs, *image.chain_ids]):
        if lost := await in_thread(layers.lacking, image.blobs, image.chain_ids):
            raise DataCorrupt(f"image {image.id} is not stored, as {lost[0]} is missing or damaged; try again")
        async with index.lock:
            await to_the_end(layers.tasks, f"store {image.id}", index.add(image, names))
