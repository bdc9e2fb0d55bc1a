"""Events of images, with the attributes that Docker gives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from corten.errors import CortenError
from corten.specs.oci_image import ImageConfig


class Emit(Protocol):
    """Publishes an event."""

    def emit(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> None: ...


class ImageAnnouncer:
    """Publishes; the image's labels are attributes of each of its events. `configs` finds one by the image's id."""

    def __init__(self, events: Emit, configs: Callable[[str], Awaitable[ImageConfig]]) -> None:
        self._events, self._configs = events, configs

    async def image(self, action: str, image_id: str, name: str = "", *, actor: str = "") -> None:
        """`name` is what the image was called in this, its id where it was not; `actor` in the place of the id."""
        attributes = {**await self._labels(image_id), "name": name or image_id}
        self._events.emit("image", action, actor or image_id, attributes)

    async def _labels(self, image_id: str) -> dict[str, str]:
        """None of an image that is gone, or damaged: what happened is told all the same."""
        if not image_id:
            return {}
        try:
            return (await self._configs(image_id)).run.labels or {}
        except CortenError:
            return {}

    def pruned(self, freed: int) -> None:
        self._events.emit("image", "prune", "", {"reclaimed": str(freed)})
