"""What is listed is never broken, whichever step of two operations comes first: each interleaving that once broke
something, step by step; and many more, chosen by seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from corten.engine.images import ImageService, committing
from corten.errors import Conflict, InvalidArgument, NotFound
from corten.specs import digest as digests
from tests.unit.engine.images.stepping import SteppedRegistry, Steps, broken, quiet, stepped_world, task
from tests.unit.engine.images.support import Made, World, collect, index_archive, make_image, pieces, tar_of
from tests.unit.engine.images.test_archives import docker_archive, oci_archive
from tests.unit.engine.images.test_committing import commitment, held

LAYERS = [{f"file{number}": f"{number}" * 500} for number in range(5)]
IMAGES = [make_image(*(LAYERS[at] for at in stack)) for stack in ((0, 1), (0, 2), (0,), (2, 0))]
ARM = make_image(LAYERS[3], architecture="arm64")
SEEDS = int(os.environ.get("CORTEN_TEST_SEEDS", "20"))
CHANGED = gzip.compress(tar_of({"changed": "by a container"}), mtime=0)
ACTED = 5


class Random:
    """Operations and steps chosen by one seed."""

    def __init__(self, seed: int, world: World, images: ImageService, steps: Steps) -> None:
        self.choose = random.Random(seed)
        self.world, self.images, self.steps = world, images, steps
        self.log: list[str] = []

    def operation(self) -> asyncio.Task[Any]:
        number = self.choose.randrange(len(IMAGES))
        made, images = IMAGES[number], self.images
        pulled, loaded = f"registry.test/image{number}:latest", f"loaded:{number}"
        both, _ = index_archive((IMAGES[0], "amd64"), (ARM, "arm64"), name="loaded:both")
        # The index without one of its images, which the store may have of another archive, or lose just now.
        half = _without(both, ARM) if self.choose.random() < 0.5 else both
        known: list[tuple[str, Callable[[], Coroutine[Any, Any, Any]]]] = [
            (f"pull {number}", lambda: collect(images.pull(pulled, "", None))),
            (f"load {number} plain", lambda: load(images, docker_archive(made, [loaded]))),
            (f"load {number}", lambda: load(images, oci_archive(made, loaded))),
            ("load both", lambda: load(images, half)),
            ("load arm", lambda: load(images, oci_archive(ARM, "loaded:arm"))),
            ("remove arm", lambda: images.remove("loaded:arm", force=True, prune=True)),
            ("remove both", lambda: images.remove("loaded:both", force=True, prune=True)),
            (f"remove {number}", lambda: images.remove(pulled, force=True, prune=True)),
            (f"remove {number} by id", lambda: images.remove(made.id, force=True, prune=True)),
            (f"remove loaded {number}", lambda: images.remove(loaded, force=True, prune=True)),
            ("prune", lambda: images.prune({"dangling": ["false"]})),
            ("sweep", lambda: images.layers.sweep(2e10)),
            ("import", lambda: bring(images)),
            ("remove imported", lambda: images.remove("imported:1", force=True, prune=True)),
            (f"commit on {number}", lambda: images.commit(commitment(made.id, Path("/"), ""), held())),
        ]
        name, begin = self.choose.choice(known)
        self.log.append(name)

        async def run() -> None:
            with contextlib.suppress(NotFound, Conflict, InvalidArgument):
                await begin()

        return task("", run())

    async def step(self, going: list[asyncio.Task[Any]]) -> None:
        await quiet()
        if self.choose.random() < 0.004:
            self.choose.choice(going).cancel()
        elif self.steps.waiting:
            step = self.choose.choice(self.steps.waiting)
            self.log.append(f"  {step.call} {step.args[:1]}")
            await self.steps.make(step)
        else:
            await quiet()
            assert self.steps.waiting or any(t.done() for t in going), "\n".join([*self.log[-40:], *map(str, going)])


async def load(images: ImageService, archive: bytes) -> None:
    await collect(images.archives.load(pieces(archive), quiet=True))


async def bring(images: ImageService) -> None:
    archive = pieces(gzip.compress(tar_of(LAYERS[0]), mtime=1))
    await collect(images.archives.import_rootfs(archive, "imported:1", message="", changes=[], platform=""))


def _without(archive: bytes, made: Made) -> bytes:
    gone = {digests.hex_of(digests.of(blob)) for blob in (*made.layers, made.config, made.manifest)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as source, tarfile.open(fileobj=buffer, mode="w") as target:
        for member in source:
            if member.name.rpartition("/")[2] not in gone:
                target.addfile(member, source.extractfile(member))
    return buffer.getvalue()


BOTH, _ = index_archive((IMAGES[0], "amd64"), (ARM, "arm64"), name="loaded:both")
PULLED = "registry.test/image0:latest"
MAKERS: dict[str, Callable[[ImageService], Coroutine[Any, Any, Any]]] = {
    "pull": lambda images: collect(images.pull("registry.test/image0:other", "", None)),
    "load": lambda images: load(images, oci_archive(IMAGES[0], "loaded:0")),
    "load plain": lambda images: load(images, docker_archive(IMAGES[0], ["loaded:0"])),
    "load half": lambda images: load(images, _without(BOTH, ARM)),
    "import": bring,
    "commit": lambda images: images.commit(commitment(IMAGES[0].id, Path("/"), "made:1"), held()),
}


async def clear(images: ImageService) -> None:
    """Away with everything."""
    for _ in range(3):
        await images.prune({"dangling": ["false"]})


@pytest.mark.parametrize("deletions", [0, 3, 1000])
@pytest.mark.parametrize("maker", MAKERS)
def test_everything_is_removed_at_each_step(maker: str, deletions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is there already; all of it is removed between any two steps of making it once more: up to so many
    deletions, the last of which is decided and not made; the rest of them comes when the image is there.
    """
    SteppedRegistry({"image0": IMAGES[0]}).install(monkeypatch)
    monkeypatch.setattr(committing, "_read_changes", _changes)
    at, ended = 0, False
    while not ended:
        ended = asyncio.run(_removed_at(at, maker, deletions))
        at += 1
    assert at > 5


async def _removed_at(at: int, maker: str, deletions: int) -> bool:
    """Whether the making had ended before its step `at`."""
    world, steps = stepped_world(), Steps()
    async with world.service() as images, steps:
        for make in (MAKERS["load plain"], lambda images: collect(images.pull(PULLED, "", None)), bring):
            await _finish(steps, "before", task("before", make(images)), world, images)
        await _finish(steps, "before", task("before", load(images, oci_archive(ARM, "loaded:arm"))), world, images)
        making: asyncio.Task[Any] = task("making", MAKERS[maker](images))
        for _ in range(at):
            if not await steps.advance("making", making):
                break
        ended = making.done()
        removing = task("removing", clear(images))
        for _ in range(deletions + 1):
            while await steps.advance("removing", removing, "Leases._"):
                assert broken(world, images) == []
            if deletions:
                await steps.advance("removing", removing)
                deletions -= 1
        await _finish(steps, "making", making, world, images)
        await _finish(steps, "removing", removing, world, images)
    return ended


async def _finish(steps: Steps, owner: str, going: asyncio.Task[Any], world: World, images: ImageService) -> None:
    while await steps.advance(owner, going):
        assert broken(world, images) == []
    with contextlib.suppress(NotFound, Conflict, InvalidArgument):
        await going


@pytest.mark.parametrize("seed", range(SEEDS))
def test_at_random(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = SteppedRegistry({f"image{number}": made for number, made in enumerate(IMAGES)})
    registry.install(monkeypatch)
    monkeypatch.setattr(committing, "_read_changes", _changes)

    async def script() -> None:
        world, steps = stepped_world(), Steps()
        async with world.service() as images, steps:
            at = Random(seed, world, images, steps)
            going: list[asyncio.Task[Any]] = []
            begun = 0
            while going or begun < 4 * ACTED:
                while len(going) < ACTED and begun < 4 * ACTED:
                    going.append(at.operation())
                    begun += 1
                await at.step(going)
                found = broken(world, images)
                assert not found, "\n".join([*at.log[-60:], *found])
                for done in [task for task in going if task.done()]:
                    going.remove(done)
                    if not done.cancelled():
                        done.result()
            last = task("", _empty(images))
            while await steps.advance("", last):
                pass
            await last
            left = (world.blobs(), world.snapshots(), world.content.ingests.claimed)
            assert left == (set(), set(), set()), "\n".join(at.log)

    asyncio.run(script())


async def _empty(images: ImageService) -> None:
    for _ in range(4):  # parents go after their children
        await images.prune({"dangling": ["false"]})
    assert images.list() == []
    await images.layers.sweep(2e10)


def _changes(layer: Path, blobs: Any) -> tuple[str, str]:
    return blobs.store(iter([CHANGED])), digests.of(gzip.decompress(CHANGED))
