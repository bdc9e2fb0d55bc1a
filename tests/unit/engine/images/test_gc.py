"""Pulls, loads, removals, prunes and sweeps at the same time, at random: what is listed is never broken, and when all
is quiet nothing is left that no image needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.engine.images import ImageService
from corten.errors import Conflict, NotFound
from corten.storage.content import LocalContentStore
from corten.storage.database import Database
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.types import Applied
from corten.testing.registry import FakeRegistry
from corten.testing.snapshots import TarApplier
from tests.unit.engine.images.stepping import broken
from tests.unit.engine.images.support import World, collect, make_image, pieces, publish
from tests.unit.engine.images.test_archives import docker_archive
from tests.waiting import until_async

# Five images over shared lower layers, so that removing one races with pulling another.
LAYERS = [{f"file{number}": f"{number}" * 500} for number in range(5)]
IMAGES = [make_image(*(LAYERS[at] for at in stack)) for stack in ((0, 1, 2), (0, 1, 3), (0, 4), (0,), (4, 1))]
ROUNDS, AT_ONCE = 12, 6
SEEDS = int(os.environ.get("CORTEN_TEST_SEEDS", "4"))


@pytest.fixture(params=["memory", "disk"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World()
    if request.param == "memory":
        yield made
        return
    database = Database(tmp_path / "db")
    made.content = LocalContentStore(tmp_path / "content")  # type: ignore[assignment]
    made.snapshotter = OverlaySnapshotter(tmp_path / "snapshots", database)  # type: ignore[assignment]
    yield made
    made.snapshotter.settle()  # type: ignore[attr-defined]
    database.close()


async def at_random(choose: random.Random, images: ImageService, refs: list[str]) -> None:
    """One operation. Conflicts and names that are gone are answers like any other."""

    async def cut_short() -> None:
        stream = images.pull(choose.choice(refs), "", None)
        async for _ in stream:
            if choose.random() < 0.2:
                break
        await stream.aclose()  # type: ignore[attr-defined]

    number = choose.randrange(len(IMAGES))
    archive = docker_archive(IMAGES[number], [f"loaded:{number}"])
    operations: list[Callable[[], Awaitable[Any]]] = [
        lambda: collect(images.pull(choose.choice(refs), "", None)),
        lambda: collect(images.pull(choose.choice(refs), "", None)),
        lambda: collect(images.archives.load(pieces(archive, 700), quiet=True)),
        lambda: images.remove(choose.choice(refs), force=True, prune=True),
        lambda: images.remove(f"loaded:{number}", force=True, prune=True),
        lambda: images.prune({"dangling": ["false"]}),
        lambda: images.layers.sweep(2e10),  # long after: everything unused is old
        cut_short,
    ]
    with contextlib.suppress(NotFound, Conflict):
        await choose.choice(operations)()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_listed_is_ever_broken(world: World, seed: int) -> None:
    async def script() -> None:
        choose = random.Random(seed)
        async with FakeRegistry() as registry, world.service() as images:
            refs = [publish(registry, f"test/image{number}", made) for number, made in enumerate(IMAGES)]
            for _ in range(ROUNDS):
                work = [at_random(choose, images, refs) for _ in range(AT_ONCE)]
                for done in asyncio.as_completed(work):
                    await done
                    async with images.index.lock:
                        found = broken(world, images)
                        assert not found, "\n".join(found)
            await images.prune({"dangling": ["false"]})
            await images.layers.sweep(2e10)
            await until_async(lambda: world.blobs() == set() and world.snapshots() == set())
            for ref in refs:
                await collect(images.pull(ref, "", None))
            assert (len(images.list()), broken(world, images)) == (len(IMAGES), [])

    asyncio.run(script())


class HeldApplier(TarApplier):
    """Unpacks nothing before `go`; `asked` when somebody wants it to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def apply(
        self, blob: Path, media_type: str, target: Path, progress: Callable[[int], None] | None = None
    ) -> Applied:
        self.asked.set()
        await self.go.wait()
        return await super().apply(blob, media_type, target, progress)


@pytest.mark.parametrize("first", ["load", "pull"])
def test_the_same_files_from_two_blobs_at_once(first: str) -> None:
    """An archive has its layers as they are, the registry has them compressed: one image, one layer, two blobs."""

    async def script() -> None:
        applier = HeldApplier()
        world = World(applier=applier)
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "test/image", IMAGES[3])
            archive = docker_archive(IMAGES[3], ["loaded:3"])
            work = {
                "pull": lambda: collect(images.pull(ref, "", None)),
                "load": lambda: collect(images.archives.load(pieces(archive), quiet=True)),
            }
            second = "pull" if first == "load" else "load"
            begun = [asyncio.ensure_future(work[first]())]  # noqa: TID251 - the test waits for it
            await applier.asked.wait()
            begun.append(asyncio.ensure_future(work[second]()))  # noqa: TID251
            joined = images.layers._layer_jobs._jobs
            await until_async(lambda: any(len(job.observers) == 2 for job in joined.values()), what="both to wait")
            applier.go.set()
            await asyncio.gather(*begun)
            assert broken(world, images) == []
            assert len(images.list()[0].names) == 2

    asyncio.run(script())
