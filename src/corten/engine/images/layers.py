"""Blobs into the content store, layers into snapshots; and out of both again when no image needs them.

A layer goes through: download into an ingest (resumable, shared by digest) → verified blob → unpacked snapshot →
committed under its chain id. Layers of one image are unpacked side by side where the snapshotter can stack them
afterwards, and committed from the lowest up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from corten.engine.images.jobs import Report, SharedJobs, Update, together
from corten.engine.images.threads import in_thread, settled
from corten.errors import Conflict, CortenError, DataCorrupt, NotFound, clip
from corten.specs import digest as digests
from corten.specs.oci_image import Descriptor
from corten.storage.types import ContentStore, Ingest, LayerApplier, Snapshotter
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

PARALLEL_DOWNLOADS = 3
WRITE_SIZE = 1 << 20
KEEP_UNUSED = 24 * 3600
"""Seconds for which a blob that no image needs is kept at a start: a pull that was broken off may go on."""

TEMPORARY = "unpack-"
"""How the keys of snapshots begin that layers are unpacked into; what is left of them at a start is removed."""


Used = Callable[[], tuple[set[str], set[str]]]
"""Blobs and chain ids that some image needs."""


class BlobSource(Protocol):
    """Where the bytes of a blob come from, from an offset on."""

    def blob(self, digest: str, size: int, offset: int = 0) -> AsyncGenerator[bytes, None]: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer to be made: `chain_id` is what it becomes on top of `parent` ("" for the lowest)."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str


def plan_layers(descriptors: Sequence[Descriptor], diff_ids: Sequence[str]) -> list[Layer]:
    """The layers of an image, lowest first. Raises DataCorrupt when manifest and config disagree on their number."""
    if len(descriptors) != len(diff_ids):
        raise DataCorrupt(
            f"invalid image: the manifest has {len(descriptors)} layers, the config {len(diff_ids)} diff ids"
        )
    chain = digests.chain_ids(list(diff_ids))
    rows = zip(descriptors, diff_ids, chain, ["", *chain[:-1]], strict=False)
    return [Layer(descriptor, diff_id, chain_id, parent) for descriptor, diff_id, chain_id, parent in rows]


class LayerStore:
    """See the module."""

    def __init__(
        self,
        content: ContentStore,
        snapshotter: Snapshotter,
        applier: LayerApplier,
        tasks: TaskOwner,
        used: Used,
        max_downloads: int = PARALLEL_DOWNLOADS,
    ) -> None:
        self.content, self.snapshotter, self.tasks = content, snapshotter, tasks
        self._used = used
        self._applier = applier
        self._blob_jobs = SharedJobs[None](tasks)
        self._layer_jobs = SharedJobs[None](tasks)
        self._slots = asyncio.Semaphore(max_downloads)
        self._leases: Counter[str] = Counter()
        self._holders: list[set[str]] = []
        self._hold_lock = threading.Lock()
        self._deleting: dict[str, asyncio.Future[None]] = {}
        self._serial = itertools.count(1)
        self._run = secrets.token_hex(4)

    @asynccontextmanager
    async def lease(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Nothing of `keys` (digests, chain ids) is deleted meanwhile; deletions that had begun are waited for."""
        held = list(keys)
        self._leases.update(held)
        try:
            while going := [self._deleting[key] for key in held if key in self._deleting]:
                await asyncio.wait(going)
            yield
        finally:
            self._leases.subtract(held)
            self._leases += Counter()  # drops those at zero

    def committed(self, chain_id: str) -> bool:
        try:
            return self.snapshotter.info(chain_id).kind == "committed"
        except NotFound:
            return False

    def complete(self, layers: Iterable[Layer]) -> bool:
        """Whether blob and snapshot of every layer are there (blocking)."""
        return all(self.committed(layer.chain_id) and self.content.exists(layer.descriptor.digest) for layer in layers)

    async def fetch(self, source: BlobSource, descriptor: Descriptor, report: Report) -> None:
        """The blob is in the content store, verified. Shared with whoever wants the same one."""
        if not await in_thread(self.content.exists, descriptor.digest):
            await self._blob_jobs.run(
                descriptor.digest, lambda inner: self._download(source, descriptor, inner), report
            )

    def size_of(self, chain_ids: Iterable[str]) -> int:
        """Bytes on disk of these layers together (blocking)."""
        return sum(self.snapshotter.info(chain_id).usage.size for chain_id in chain_ids)

    def size_known(self, chain_ids: Iterable[str]) -> int:
        """Like `size_of`, passing over what is not there."""
        total = 0
        for chain_id in chain_ids:
            with contextlib.suppress(NotFound):
                total += self.snapshotter.info(chain_id).usage.size
        return total

    async def ensure(self, layers: Sequence[Layer], at: int, source: BlobSource, report: Report) -> None:
        """Layer `at` and those below it are committed, their blobs in the store. Shared with whoever wants the same."""
        layer = layers[at]

        async def work(inner: Report) -> None:
            if await in_thread(self.committed, layer.chain_id):
                await self.fetch(source, layer.descriptor, inner)
                return
            await self._make(layers, at, source, inner)

        await self._layer_jobs.run(layer.chain_id, work, report)

    async def _make(self, layers: Sequence[Layer], at: int, source: BlobSource, report: Report) -> None:
        layer = layers[at]

        async def parent() -> None:
            if at > 0:
                await self.ensure(layers, at - 1, source, _ignore)

        key = f"{TEMPORARY}{self._run}-{next(self._serial)}"
        if not self.snapshotter.rebases:
            await together(self.fetch(source, layer.descriptor, report), parent())
            await self._unpack(key, layer, layer.parent, report)
            return
        parent_done = asyncio.Event()

        async def raise_parent() -> None:
            await parent()
            parent_done.set()

        async def own() -> None:
            await self.fetch(source, layer.descriptor, report)
            await self._unpack(key, layer, "", report, parent_done)

        await together(own(), raise_parent())

    async def _unpack(
        self, key: str, layer: Layer, base: str, report: Report, parent_done: asyncio.Event | None = None
    ) -> None:
        """Unpack into snapshot `key` made on `base`, commit on top of the parent. Nothing is left after a failure."""
        snapshotter, digest = self.snapshotter, layer.descriptor.digest
        total = layer.descriptor.size
        report(Update("Extracting", 0, total))
        try:
            await in_thread(snapshotter.prepare, key, base)
            applied = await self._applier.apply(
                self.content.path(digest),
                layer.descriptor.media_type,
                snapshotter.layer_dir(key),
                lambda done: report(Update("Extracting", done, total)),
            )
            if applied.diff_id != layer.diff_id:
                told = f"the config says {layer.diff_id}, unpacked it is {applied.diff_id}"
                raise DataCorrupt(f"layer {digest}: diff id mismatch: {told}")
            if parent_done is not None:
                await parent_done.wait()
            stacked = layer.parent if parent_done is not None else ""
            await in_thread(
                snapshotter.commit, layer.chain_id, key, applied.usage, parent=stacked, implied=applied.implied
            )
        except BaseException as error:
            await self._drop_snapshot(key)
            if not (isinstance(error, Conflict) and await in_thread(self.committed, layer.chain_id)):
                raise

    async def _drop_snapshot(self, key: str) -> None:
        try:
            await in_thread(self.snapshotter.remove, key)
        except NotFound:
            return
        except CortenError as error:
            log.warning("snapshot %s is left until the next start: %s", key, error)

    async def adopt(self, digest: str, media_type: str, report: Report) -> tuple[str, int]:
        """Unpack a blob of unknown diff id as a lowest layer; its diff id (also its chain id) and usage in bytes."""
        key = f"{TEMPORARY}{self._run}-{next(self._serial)}"
        size = self.content.info(digest).size
        try:
            await in_thread(self.snapshotter.prepare, key)
            applied = await self._applier.apply(
                self.content.path(digest),
                media_type,
                self.snapshotter.layer_dir(key),
                lambda done: report(Update("Extracting", done, size)),
            )
            if await in_thread(self.committed, applied.diff_id):
                await self._drop_snapshot(key)
            else:
                await in_thread(self.snapshotter.commit, applied.diff_id, key, applied.usage)
        except BaseException:
            await self._drop_snapshot(key)
            raise
        return applied.diff_id, applied.usage.size

    async def _download(self, source: BlobSource, descriptor: Descriptor, report: Report) -> None:
        if self._slots.locked():
            report(Update("Waiting"))
        async with self._slots:
            resumed = await self._download_once(source, descriptor, report)
            if resumed is None:
                return
            # What an earlier attempt had left may have been bad: once more from the start.
            log.info("the resumed download of %s was damaged; it is begun anew", descriptor.digest)
            if await self._download_once(source, descriptor, report) is not None:
                raise AssertionError("a download from the start is never taken for a resumed one")

    async def _download_once(self, source: BlobSource, descriptor: Descriptor, report: Report) -> int | None:
        """None when the blob is in; the offset it was resumed at when that spoilt it. Raises DataCorrupt otherwise."""
        digest, size = descriptor.digest, descriptor.size
        ingest = await in_thread(self.content.ingest, digest)
        try:
            if ingest.offset > size:
                ingest.abort()
                ingest = await in_thread(self.content.ingest, digest)
            start = ingest.offset
            done = start
            report(Update("Downloading", done, size))
            async with aclosing(source.blob(digest, size, start)) as parts:
                async with _Sink(ingest) as sink:
                    async for part in parts:
                        await sink.write(part)
                        done += len(part)
                        report(Update("Downloading", done, size))
            report(Update("Verifying Checksum"))
            try:
                await in_thread(ingest.commit, digest, size)
            except DataCorrupt as error:
                if start > 0:
                    return start
                raise DataCorrupt(
                    f"filesystem layer verification failed for digest {digest}: {clip(str(error))}"
                ) from error
            report(Update("Download complete"))
            return None
        finally:
            ingest.close()

    async def free(self, blobs: Iterable[str], chains: Sequence[str]) -> None:
        """Delete what of `blobs` and `chains` (parents first) nothing needs: neither an image, nor a lease, nor, for
        snapshots, a container or a layer above it.
        """
        for chain_id in reversed(chains):
            if chain_id not in self._used()[1]:
                await self._delete(chain_id, lambda key=chain_id: self.snapshotter.remove(key))  # type: ignore[misc]
        for digest in blobs:
            if digest not in self._used()[0]:
                await self._delete(digest, lambda key=digest: self.content.delete(key))  # type: ignore[misc]

    async def _delete(self, key: str, delete: Callable[[], None]) -> None:
        if self._leases[key] > 0 or key in self._deleting:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._deleting[key] = done
        try:
            await in_thread(self._delete_unless_held, key, delete)
        except (NotFound, Conflict):
            pass  # gone already; or a container, or another image's layer, stands on it
        except CortenError as error:
            log.warning("%s could not be deleted: %s", key, error)
        finally:
            del self._deleting[key]
            done.set_result(None)

    def _delete_unless_held(self, key: str, delete: Callable[[], None]) -> None:
        with self._hold_lock:
            if not any(key in held for held in self._holders):
                delete()

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[str], bool]]:
        """A function that worker threads call with a digest before they look for it or store it: from then on, and
        until the block ends, it is not deleted. A deletion that has begun is over when the function returns. It tells
        whether somebody else holds the same.
        """
        held: set[str] = set()

        def hold(digest: str) -> bool:
            with self._hold_lock:
                held.add(digest)
                return any(digest in other for other in self._holders if other is not held)

        self._holders.append(held)
        try:
            yield hold
        finally:
            self._holders.remove(held)

    async def sweep(self, now: float) -> None:
        """At a start: remove what unpacking left behind, and what no image needs. `now` in seconds since the epoch."""
        infos = await in_thread(lambda: list(self.snapshotter.walk()))
        for info in infos:
            if info.kind != "committed" and info.key.startswith(TEMPORARY):
                await self._drop_snapshot(info.key)
        layers = [(info.key, info.parent) for info in infos if info.kind == "committed" and digests.is_digest(info.key)]
        await self.free([], _parents_first(layers))
        known = self._used()[0]
        blobs = await in_thread(lambda: [info.digest for info in self.content.walk() if info.digest not in known])
        old = await in_thread(lambda: [digest for digest in blobs if self._age(digest, now) > KEEP_UNUSED])
        await self.free(old, [])

    def _age(self, digest: str, now: float) -> float:
        try:
            return now - self.content.path(digest).stat().st_mtime
        except OSError:
            return 0.0


class _Sink:
    """Writes to an ingest in large pieces in a worker thread, while the next piece is being received."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._parts: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    async def __aenter__(self) -> _Sink:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self._flush()
            await self._settle()
            return
        # The next attempt goes on from here, so what was received is kept; the failure that is on its way counts.
        with contextlib.suppress(CortenError):
            await settled(self._writing)
            await in_thread(self._ingest.write, b"".join(self._parts))

    async def write(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size >= WRITE_SIZE:
            await self._flush()

    async def _flush(self) -> None:
        await self._settle()
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._ingest.write, data)

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)


def _parents_first(snapshots: Sequence[tuple[str, str]]) -> list[str]:
    """Keys ordered so that a parent stands before its children."""
    parents = dict(snapshots)

    def depth(key: str) -> int:
        count = 0
        while key in parents and count <= len(parents):
            key, count = parents[key], count + 1
        return count

    return sorted(parents, key=depth)


def _ignore(update: Update) -> None:
    """For those who only want the result."""
