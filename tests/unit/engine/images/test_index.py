"""The index keeps what it says and what is stored the same: a change that fails has not happened at all."""

from __future__ import annotations

import asyncio

import pytest

from corten.engine.images import ImageService
from corten.errors import SystemFault
from corten.storage.types import Changes, DocumentStore
from corten.testing.registry import FakeRegistry
from corten.testing.storage import MemoryDocuments
from tests.unit.engine.images.support import World, collect, make_image, publish


class FailingDocuments(MemoryDocuments):
    """Refuses every change while `refusing`."""

    refusing = False

    async def change(self, changes: Changes, other: DocumentStore, along: Changes) -> None:
        if self.refusing:
            raise SystemFault("the disk says no", step="write")
        await super().change(changes, other, along)


def listing(images: ImageService) -> list[tuple[str, list[str], list[str], int]]:
    return [(image.id, image.names, image.digests, image.last_tagged_ns) for image in images.list()]


def test_a_change_that_cannot_be_stored_changes_nothing() -> None:
    async def script() -> None:
        documents, names = FailingDocuments(), FailingDocuments()
        world = World(images=documents, names=names)
        async with FakeRegistry() as registry, world.service() as images:
            first = publish(registry, "first", make_image({"a": "1"}))
            other = publish(registry, "other", make_image({"a": "2"}))
            await collect(images.pull(first, "", None))
            await images.tag(first, "second:1")
            before, seen = listing(images), list(world.events.seen)
            documents.refusing = names.refusing = True
            for work in (
                images.tag(first, "third:1"),
                images.remove("second:1", force=False, prune=True),
                images.remove(images.list()[0].id, force=True, prune=True),
                collect(images.pull(other, "", None)),
            ):
                with pytest.raises(SystemFault, match="the disk says no"):
                    await work
                assert listing(images) == before
            assert world.events.seen == seen
        async with world.service() as images:
            assert listing(images) == before

    asyncio.run(script())


def test_an_image_is_stored_and_removed_together_with_its_names() -> None:
    async def script() -> None:
        documents = FailingDocuments()
        world = World(images=documents)
        async with FakeRegistry() as registry, world.service() as images:
            await collect(images.pull(publish(registry, "first", make_image({"a": "1"})), "", None))
            assert (documents.durable_puts, len(world.names.all())) == (1, 2)
            await images.remove(images.list()[0].id, force=False, prune=True)
            assert (documents.durable_puts, documents.all(), world.names.all()) == (2, {}, {})

    asyncio.run(script())
