"""The cap on what is stored: dangling images go first, of them the oldest, then work is refused with numbers."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corten.engine.images import ImageService
from corten.engine.images.budget import Budget, in_units
from corten.errors import SystemFault
from corten.registry.endpoints import RegistrySettings
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import World, collect, make_image, pieces, publish, tar_of
from tests.unit.engine.images.test_archives import docker_archive


def noise(seed: int) -> str:
    """Some 20 kB that hardly compress."""
    return random.Random(seed).randbytes(10_000).hex()


IMAGES = [make_image({"f": noise(seed)}) for seed in range(4)]


def stored(world: World) -> int:
    layers = sum(world.snapshotter.usage(info.key).size for info in world.snapshotter.walk())
    return sum(info.size for info in world.content.walk()) + layers


@asynccontextmanager
async def limited(world: World) -> AsyncIterator[tuple[ImageService, FakeRegistry]]:
    async with FakeRegistry() as registry, world.service(RegistrySettings(insecure=(registry.host,))) as images:
        images.layers.budget._used = lambda: stored(world)
        yield images, registry


def test_a_pull_that_does_not_fit_is_refused_and_says_how_much_it_needs() -> None:
    async def script() -> None:
        world = World()
        async with limited(world) as (images, registry):
            refs = [publish(registry, f"image{number}", made) for number, made in enumerate(IMAGES)]
            await collect(images.pull(refs[0], "", None))
            before = stored(world)
            images.layers.budget.limit = before + 5000
            with pytest.raises(SystemFault) as caught:
                await collect(images.pull(refs[1], "", None))
            need = 2 * len(IMAGES[1].layers[0])
            assert str(caught.value) == (
                f"{refs[1]} needs at least {in_units(need)}: {in_units(before)} of the storage limit of"
                f" {in_units(before + 5000)} are used; remove images, containers or volumes, or raise storage-limit"
            )
            assert caught.value.errno == errno.ENOSPC
            assert (stored(world), len(images.list())) == (before, 1)
            images.layers.budget.limit = before * 3
            await collect(images.pull(refs[1], "", None))
            assert len(images.list()) == 2

    asyncio.run(script())


def test_dangling_images_go_first_and_of_them_the_oldest() -> None:
    async def script() -> None:
        world = World()
        async with limited(world) as (images, registry):
            for number in range(3):  # each takes the name from the one before
                await collect(images.pull(publish(registry, "moved", IMAGES[number]), "", None))
            world.users[IMAGES[0].id] = [("c", False)]
            images.layers.budget.limit = stored(world) + 1000
            await collect(images.pull(publish(registry, "new", IMAGES[3]), "", None))
            assert {image.id for image in images.list()} == {IMAGES[number].id for number in (0, 2, 3)}
            assert stored(world) <= images.layers.budget.limit

    asyncio.run(script())


def test_a_layer_that_turns_out_larger_than_its_blob_is_not_kept() -> None:
    async def script() -> None:
        world = World()
        bomb = make_image({"zeros": bytes(3_000_000)})
        async with limited(world) as (images, registry):
            images.layers.budget.limit = 1_000_000
            with pytest.raises(SystemFault, match=r"layer .* is larger than what is left"):
                await collect(images.pull(publish(registry, "bomb", bomb), "", None))
            assert (world.snapshots(), images.list()) == (set(), [])

    asyncio.run(script())


@pytest.mark.parametrize("way", ["load", "import"])
def test_archives_stop_at_the_limit_and_leave_nothing(way: str) -> None:
    async def script() -> None:
        world = World()
        async with limited(world) as (images, _):
            images.layers.budget.limit = 15_000
            if way == "load":
                stream = images.archives.load(pieces(docker_archive(IMAGES[0], ["x:1"])), quiet=True)
            else:
                stream = images.archives.import_rootfs(
                    pieces(tar_of({"f": noise(9)})), "x:1", message="", changes=(), platform=""
                )
            with pytest.raises(SystemFault, match="storage limit") as caught:
                await collect(stream)
            assert caught.value.errno == errno.ENOSPC
            assert (world.blobs(), world.snapshots(), images.list()) == (set(), set(), [])

    asyncio.run(script())


def test_a_load_makes_room_while_it_comes() -> None:
    async def script() -> None:
        world = World()
        async with limited(world) as (images, registry):
            for number in range(2):
                await collect(images.pull(publish(registry, "moved", IMAGES[number]), "", None))
            images.layers.budget.limit = stored(world) + 3000
            archive = docker_archive(make_image({"f": noise(9)[:9000]}), ["x:1"])
            await collect(images.archives.load(pieces(archive), quiet=True))
            assert [image.names for image in images.list() if image.id == IMAGES[0].id] == []
            assert images.get("x:1").size == 9000

    asyncio.run(script())


def test_a_full_disk_frees_what_is_dangling_and_tries_once_more() -> None:
    async def script() -> None:
        world = World()
        async with limited(world) as (images, registry):
            for number in range(2):
                await collect(images.pull(publish(registry, "moved", IMAGES[number]), "", None))
            commit = world.snapshotter.commit
            refusals = iter([SystemFault("commit snapshot: no space left on device", step="x", errno=errno.ENOSPC)] * 3)

            def full(*args: object, **kwargs: object) -> None:
                if IMAGES[0].id in {image.id for image in images.list()}:
                    raise next(refusals)
                commit(*args, **kwargs)  # type: ignore[arg-type]

            world.snapshotter.commit = full  # type: ignore[method-assign]
            await collect(images.pull(publish(registry, "new", IMAGES[2]), "", None))
            assert {image.id for image in images.list()} == {IMAGES[1].id, IMAGES[2].id}

            def always(*args: object, **kwargs: object) -> None:
                raise next(refusals)

            world.snapshotter.commit = always  # type: ignore[method-assign]
            with pytest.raises(SystemFault, match="no space left on device"):
                await collect(images.pull(publish(registry, "other", IMAGES[3]), "", None))
            assert len(images.list()) == 2

    asyncio.run(script())


async def nothing(needed: int) -> int:
    return 0


def test_two_pulls_are_not_promised_the_same_room() -> None:
    async def script() -> None:
        budget = Budget(lambda: 0, nothing, 100)
        async with budget.room(60, "one"):
            with pytest.raises(SystemFault, match="60B of the storage limit of 100B are used"):
                async with budget.room(60, "two"):
                    raise AssertionError("there is no room")
        async with budget.room(60, "two"):
            assert await budget.left() == 100

    asyncio.run(script())
