"""Downloads on disk, unpacked while they come: nothing unverified is ever seen, and memory stays flat."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
import tarfile
import threading
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from corten.engine.images import downloads, layers
from corten.engine.images.downloads import Downloads
from corten.engine.images.jobs import Update
from corten.engine.images.service import ImageService
from corten.errors import DataCorrupt, InvalidArgument
from corten.registry.endpoints import RegistrySettings
from corten.specs import digest as digests
from corten.specs.oci_image import Descriptor
from corten.storage.content import LocalContentStore, LocalIngest
from corten.storage.workers import WorkerApplier
from corten.tasks import TaskOwner
from corten.testing.registry import FakeRegistry, Fault
from tests.unit.engine.images.support import Made, World, collect, make_image, publish, statuses
from tests.waiting import patience, until_async

NOISE = random.Random(2).randbytes(100_000)
FIRST, SECOND = NOISE[:50_000], NOISE[50_000:]


def on_disk(root: Path) -> World:
    """A world whose blobs and workers are the real ones."""
    world = World()
    world.content = LocalContentStore(root)  # type: ignore[assignment]  # the same interface
    world.applier = WorkerApplier(limit=2)  # type: ignore[assignment]
    return world


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done for large layers, done for small ones."""
    monkeypatch.setattr(layers, "STREAM_FROM", 1000)
    monkeypatch.setattr(downloads, "WRITE_SIZE", 1000)


@pytest.fixture
def made() -> Made:
    return make_image({"first": FIRST, "second": SECOND}, {"top": NOISE[:3000]})


def unpacked(world: World, name: str) -> list[Path]:
    """Files of that name that have arrived whole in snapshots that nobody may see yet."""
    found = [world.snapshotter.layer_dir(key) / name for key in world.snapshots() if key.startswith("unpack-")]
    return [path for path in found if path.exists() and path.read_bytes() in (FIRST, SECOND)]


async def closed(world: World) -> None:
    await world.applier.close()


def test_a_layer_is_unpacked_while_it_comes(tmp_path: Path, made: Made) -> None:
    async def script() -> None:
        world, layer = on_disk(tmp_path), digests.of(made.layers[0])
        async with FakeRegistry() as registry, world.service(RegistrySettings(stall_timeout=60)) as images:
            ref = publish(registry, "app", made)
            registry.fail(layer, Fault("stall", after=90_000))
            stream = images.pull(ref, "", None)
            told = [await anext(stream)]
            await until_async(lambda: unpacked(world, "first"))
            assert layer not in world.blobs()
            await stream.aclose()  # type: ignore[attr-defined]
            assert not {key for key in world.snapshots() if key.startswith("unpack-")}
            told = await collect(images.pull(ref, "", None))
            story = statuses(told, digests.short(layer))
            assert story[0] == "Pulling fs layer"
            assert story[-4:] == ["Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
            assert registry.seen("GET", layer)[1].range.startswith("bytes=")
            assert_there(world, images, ref, made)
        await closed(world)

    asyncio.run(script())


def assert_there(world: World, images: ImageService, ref: str, made: Made) -> None:
    assert images.get(ref).id == made.id
    chain = digests.chain_ids(made.diff_ids)
    assert world.snapshots() == set(chain)
    assert (world.snapshotter.layer_dir(chain[0]) / "first").read_bytes() == FIRST
    assert (world.snapshotter.layer_dir(chain[0]) / "second").read_bytes() == SECOND


def test_what_was_unpacked_of_another_blob_is_thrown_away(tmp_path: Path, made: Made) -> None:
    """A layer whose archive is in order, but not the one that was asked for."""

    async def script() -> None:
        world = on_disk(tmp_path)
        evil = make_image({"first": SECOND, "evil": "x" * 20_000})
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            layer = digests.of(made.layers[0])
            blob = evil.layers[0]
            registry.repositories["app"].blobs[layer] = blob + bytes(len(made.layers[0]) - len(blob))
            with pytest.raises(DataCorrupt, match=f"filesystem layer verification failed for digest {layer}"):
                await collect(images.pull(ref, "", None))
            assert images.list() == []
            assert not {key for key in world.snapshots() if key.startswith("unpack-")}
            assert layer not in world.blobs()
            publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            assert_there(world, images, ref, made)
        await closed(world)

    asyncio.run(script())


def test_a_resumed_download_that_was_spoilt_is_unpacked_anew(tmp_path: Path, made: Made) -> None:
    async def script() -> None:
        world, layer = on_disk(tmp_path), digests.of(made.layers[0])
        left = world.content.ingest(layer)
        left.write(gzip.compress(bytes(30_000), 0)[:20_000])
        left.close()
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            assert [entry.range for entry in registry.seen("GET", layer)] == ["bytes=20000-", ""]
            assert_there(world, images, ref, made)
        await closed(world)

    asyncio.run(script())


def test_a_layer_that_is_no_archive_is_refused_and_the_workers_serve_on(tmp_path: Path, made: Made) -> None:
    async def script() -> None:
        world, bad = on_disk(tmp_path), make_image({"../evil": NOISE})
        async with FakeRegistry() as registry, world.service() as images:
            with pytest.raises(InvalidArgument, match='is outside of "/"'):
                await collect(images.pull(publish(registry, "bad", bad), "", None))
            assert world.snapshots() == set()
            ref = publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            assert_there(world, images, ref, made)
        await closed(world)

    asyncio.run(script())


def test_without_a_free_worker_a_layer_is_unpacked_when_it_is_there(tmp_path: Path, made: Made) -> None:
    async def script() -> None:
        world = on_disk(tmp_path)
        world.applier._pool._streams = asyncio.Semaphore(0)  # type: ignore[attr-defined]
        async with FakeRegistry() as registry, world.service() as images:
            ref = publish(registry, "app", made)
            await collect(images.pull(ref, "", None))
            assert_there(world, images, ref, made)
        await closed(world)

    asyncio.run(script())


class Zeros:
    """A BlobSource of nothing but zeros, as many at a time as `slots` says; `go` lets them come."""

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.go = asyncio.Event()
        self.coming = self.most = 0

    async def blob(
        self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]
    ) -> AsyncGenerator[bytes, None]:
        self.coming += 1
        self.most = max(self.most, self.coming)
        try:
            await self.go.wait()
            piece = bytes(1 << 20)
            while offset < descriptor.size:
                part = piece[: descriptor.size - offset]
                offset += len(part)
                yield part
        finally:
            self.coming -= 1


def zeros(size: int) -> Descriptor:
    whole = hashlib.sha256()
    for _ in range(size >> 20):
        whole.update(bytes(1 << 20))
    whole.update(bytes(size & 0xFFFFF))
    return Descriptor(digest="sha256:" + whole.hexdigest(), size=size)


def test_so_many_at_a_time(tmp_path: Path) -> None:
    async def script() -> None:
        tasks, store = TaskOwner("test"), LocalContentStore(tmp_path)
        fetching, source = Downloads(store, tasks), Zeros(2)
        told: list[str] = []
        work = [
            tasks.start(str(size), fetching.fetch(source, zeros(size), lambda update: told.append(update.status)))
            for size in range(100, 105)
        ]
        await until_async(lambda: source.coming == 2 and told.count("Waiting") == 3)
        other = Zeros(2)  # another pull's do not wait for these
        other.go.set()
        await fetching.fetch(other, zeros(200), lambda update: None)
        source.go.set()
        await asyncio.gather(*work)
        assert source.most == 2
        assert len(list(store.walk())) == 6

    asyncio.run(script())


class SlowToOpen(LocalContentStore):
    """Opens no ingest before `go`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opening, self.go = threading.Event(), threading.Event()

    def ingest(self, ref: str) -> LocalIngest:
        self.opening.set()
        self.go.wait(patience(20))
        return super().ingest(ref)


def test_one_that_is_given_up_while_it_begins_stands_in_nobody_s_way(tmp_path: Path) -> None:
    async def script() -> None:
        tasks, store, source = TaskOwner("test"), SlowToOpen(tmp_path), Zeros(1)
        source.go.set()
        fetching = Downloads(store, tasks)
        given_up = tasks.start("given up", fetching.fetch(source, zeros(100), lambda update: None))
        await until_async(store.opening.is_set)
        given_up.cancel()
        asyncio.get_running_loop().call_later(0.01, store.go.set)
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await fetching.fetch(source, zeros(100), lambda update: None)
        assert store.exists(zeros(100).digest)

    asyncio.run(script())


class SlowToWrite(LocalContentStore):
    """Its ingests end no write before `go`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writing, self.go, self.closed_in_use = threading.Event(), threading.Event(), False

    def ingest(self, ref: str) -> LocalIngest:
        ingest = super().ingest(ref)
        write, close = ingest.write, ingest.close

        def slow(data: bytes | memoryview) -> None:
            self.writing.set()
            self.go.wait(patience(20))
            write(data)
            self.writing.clear()

        def watched() -> None:
            self.closed_in_use |= self.writing.is_set()
            close()

        ingest.write, ingest.close = slow, watched  # type: ignore[method-assign]
        return ingest


def test_one_that_is_given_up_at_its_last_write_closes_nothing_under_it(tmp_path: Path) -> None:
    """The number of a descriptor that was closed is another file's the next moment, perhaps that of another blob."""

    async def script() -> None:
        tasks, store, source = TaskOwner("test"), SlowToWrite(tmp_path), Zeros(1)
        source.go.set()
        fetching = Downloads(store, tasks)
        given_up = tasks.start("given up", fetching.fetch(source, zeros(100), lambda update: None))
        await until_async(store.writing.is_set)
        await until_async(lambda: source.coming == 0)  # nothing more comes: this is the last write
        given_up.cancel()
        asyncio.get_running_loop().call_later(0.05, store.go.set)
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert not store.closed_in_use

    asyncio.run(script())


def test_memory_does_not_grow_with_the_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the daemon's, for 300 MB that come, nor the worker's, for 300 MB that are unpacked."""
    monkeypatch.setattr(downloads, "WRITE_SIZE", 1 << 20)
    header = tarfile.TarInfo("big")
    header.size = 300 << 20
    members = [gzip.compress(header.tobuf()), gzip.compress(bytes(1 << 20)) * 300, gzip.compress(bytes(1024))]

    async def script() -> None:
        tasks, source = TaskOwner("test"), Zeros(1)
        source.go.set()
        descriptor = zeros(300 << 20)
        tracemalloc.start()
        await Downloads(LocalContentStore(tmp_path / "a"), tasks).fetch(source, descriptor, lambda update: None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16_000_000
        blob = tmp_path / "blob"
        blob.write_bytes(b"".join(members))
        applier = WorkerApplier(limit=1)
        (tmp_path / "target").mkdir()
        await applier.apply(blob, "", tmp_path / "target")
        (pid,) = applier._pool.pids
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["VmHWM"].split()[0]) < 80_000
        await applier.close()

    asyncio.run(script())
    os.unlink(tmp_path / "target/big")


def test_updates_of_a_download(tmp_path: Path) -> None:
    async def script() -> None:
        told: list[Update] = []
        source = Zeros(1)
        source.go.set()
        await Downloads(LocalContentStore(tmp_path), TaskOwner("t")).fetch(source, zeros(5000), told.append)
        assert [update.status for update in told] == [
            "Downloading",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
        ]
        assert (told[1].current, told[1].total) == (5000, 5000)

    asyncio.run(script())
