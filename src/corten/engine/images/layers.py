"""Blobs into the content store, layers into snapshots.

A layer goes through: download into an ingest (resumable, shared by digest) → verified blob → unpacked snapshot →
committed under its chain id. Layers of one image are unpacked side by side where the snapshotter can stack them
afterwards, each while it is still being downloaded, and committed from the lowest up. What was unpacked of a blob that
turns out to be another than its digest says is thrown away unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from corten.engine.images.budget import Budget
from corten.engine.images.downloads import BlobSource, Downloads, Feed
from corten.engine.images.jobs import Report, SharedJobs, Update, together
from corten.engine.images.leases import Leases, Used
from corten.engine.images.threads import in_thread, settled
from corten.errors import Conflict, CortenError, DataCorrupt, NotFound
from corten.specs import digest as digests
from corten.specs.oci_image import Descriptor
from corten.storage.bounds import too_large
from corten.storage.types import Applied, ContentStore, HealingSnapshotter, LayerApplier, LayerLimits, StreamingApplier
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

STREAM_FROM = 1 << 20
"""Bytes from which on a layer is unpacked while it is still coming; a smaller one is there before a worker is."""

KEEP_UNUSED = 24 * 3600
"""Seconds for which a blob that no image needs is kept at a start: a pull that was broken off may go on."""

TEMPORARY = "unpack-"
"""How the keys of snapshots begin that layers are unpacked into; what is left of them at a start is removed."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer to be made: `chain_id` is what it becomes on top of `parent` ("" for the lowest)."""

    descriptor: Descriptor
    diff_id: str
    chain_id: str
    parent: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A layer in the active snapshot `key`."""

    key: str
    applied: Applied


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
        snapshotter: HealingSnapshotter,
        applier: LayerApplier,
        tasks: TaskOwner,
        used: Used,
    ) -> None:
        self.content, self.snapshotter, self.tasks = content, snapshotter, tasks
        self._used = used
        self.budget = Budget(lambda: 0, _nothing)
        self._applier = applier
        self.downloads = Downloads(content, tasks)
        self._layer_jobs = SharedJobs[None](tasks)
        self.leases = Leases(content, snapshotter, used)
        self._serial = itertools.count(1)
        self._run = secrets.token_hex(4)

    @property
    def limits(self) -> LayerLimits:
        """What a layer may be at most, from the next one on that is begun."""
        return self._applier.limits

    @limits.setter
    def limits(self, limits: LayerLimits) -> None:
        self._applier.limits = limits

    def committed(self, chain_id: str) -> bool:
        """Whether the layer is there, its files too."""
        try:
            known = self.snapshotter.info(chain_id).kind == "committed"
            return known and self.snapshotter.layer_dir(chain_id).is_dir()
        except NotFound:
            return False

    def hollow(self, chain_id: str) -> bool:
        """Whether the layer is on record, as others stand on it, and its files are lost."""
        try:
            return not self.snapshotter.layer_dir(chain_id).is_dir()
        except NotFound:
            return False

    async def restore(self, layer: Layer, refusal: Callable[[], str]) -> str:
        """Make a layer anew from its blob, which is there, in its place.

        `refusal` is asked at the last moment; what it says against it is the result, and nothing was changed then.
        """
        unpacked = await self._unpack(layer, "" if self.snapshotter.rebases else layer.parent, _ignore)
        try:
            self._check_diff_id(layer, unpacked)
            return await self._replace(layer, unpacked, refusal)
        finally:
            await self._drop_snapshot(unpacked.key)

    async def _replace(self, layer: Layer, unpacked: Unpacked, refusal: Callable[[], str]) -> str:
        """Swap a layer's files for those of `unpacked`, which has the old ones then."""
        implied = unpacked.applied.implied
        ready = await in_thread(self.snapshotter.replacing, layer.chain_id, unpacked.key, implied=implied)
        # Nothing is awaited in between: no container can begin with the old files after it was asked about.
        if said := refusal():
            return said
        ready.swap()
        await in_thread(ready.sync)
        return ""

    def complete(self, layers: Iterable[Layer]) -> bool:
        """Whether blob and snapshot of every layer are there (blocking)."""
        return all(self.committed(layer.chain_id) and self.content.exists(layer.descriptor.digest) for layer in layers)

    def lacking(self, blobs: Iterable[str], chain_ids: Iterable[str]) -> list[str]:
        """Which of these are not there, or damaged (blocking)."""
        lost = [digest for digest in blobs if not self.content.exists(digest)]
        return lost + [chain_id for chain_id in chain_ids if not self.committed(chain_id)]

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

    async def admit(self, layers: Iterable[Layer]) -> None:
        """Raises InvalidArgument, before anything is downloaded, for a layer of which the blob is declared larger than
        a layer may be unpacked. Of what is here already nothing is asked.
        """
        limit = self.limits.size
        for layer in layers:
            if layer.descriptor.size > limit and not await in_thread(self.complete, [layer]):
                raise too_large(limit)

    async def ensure(self, layers: Sequence[Layer], at: int, source: BlobSource, report: Report) -> None:
        """Layer `at` and those below it are committed, their blobs in the store. Shared with whoever wants the same."""
        layer = layers[at]
        ours = False

        async def work(inner: Report) -> None:
            nonlocal ours
            ours = True
            if await in_thread(self.committed, layer.chain_id):
                await self.downloads.fetch(source, layer.descriptor, inner)
                return
            await self._make(layers, at, source, inner)

        await self._layer_jobs.run(layer.chain_id, work, report)
        if not ours:
            # What was shared is the files: whoever began may have had them from another blob, compressed otherwise.
            await self.downloads.fetch(source, layer.descriptor, report)

    async def _make(self, layers: Sequence[Layer], at: int, source: BlobSource, report: Report) -> None:
        layer = layers[at]

        async def parent() -> None:
            if at > 0:
                await self.ensure(layers, at - 1, source, _ignore)

        if not self.snapshotter.rebases:
            await together(self.downloads.fetch(source, layer.descriptor, report), parent())
            await self._commit(layer, await self._unpack(layer, layer.parent, report), "")
            return
        parent_done = asyncio.Event()

        async def raise_parent() -> None:
            await parent()
            parent_done.set()

        async def own() -> None:
            unpacked = await self._bring(layer, source, report)
            await self._commit(layer, unpacked, layer.parent, parent_done)

        await together(own(), raise_parent())

    async def _bring(self, layer: Layer, source: BlobSource, report: Report) -> Unpacked:
        """Download and unpack, side by side where that is possible. Nothing unverified gets out of here."""
        applier = self._applier
        if not isinstance(applier, StreamingApplier) or layer.descriptor.size < STREAM_FROM:
            await self.downloads.fetch(source, layer.descriptor, report)
            return await self._unpack(layer, "", report)
        feed = self.downloads.feed(layer.descriptor.digest)
        progress = _Extracting(report, layer.descriptor.size)
        name = f"unpack {layer.descriptor.digest} as it comes"
        early = self.tasks.start(name, self._unpack_along(applier, layer, feed, progress))
        wanted = False
        try:
            await self.downloads.fetch(source, layer.descriptor, report)
            if feed.begun.is_set() and not feed.broken:
                progress.show()
                result = await early
                if isinstance(result, CortenError):
                    raise result
                if wanted := result is not None:
                    return result
        finally:
            if not wanted:
                await self._throw_away(early)
        return await self._unpack(layer, "", report)

    async def _throw_away(self, early: asyncio.Task[Unpacked | CortenError | None]) -> None:
        early.cancel()
        await settled(early)
        if not early.cancelled() and early.exception() is None and isinstance(left := early.result(), Unpacked):
            await self._drop_snapshot(left.key)

    async def _unpack_along(
        self, applier: StreamingApplier, layer: Layer, feed: Feed, progress: _Extracting
    ) -> Unpacked | CortenError | None:
        """Unpack a blob while it is being downloaded; None when no worker is free for it.

        A failure is handed back and not raised: whether it was the layer's own or only that of bytes that nobody will
        ever see, the digest decides.
        """
        key = self._new_key()
        try:
            await feed.begun.wait()
            await in_thread(self.snapshotter.prepare, key, "")
            applied = await applier.apply_growing(
                feed,
                self.content.path(layer.descriptor.digest),
                layer.descriptor.media_type,
                self.snapshotter.layer_dir(key),
                progress.note,
            )
            if applied is not None:
                return Unpacked(key, applied)
            await self._drop_snapshot(key)
        except CortenError as error:
            await self._drop_snapshot(key)
            return error
        except BaseException:
            await self._drop_snapshot(key)
            raise
        return None

    async def _unpack(self, layer: Layer, base: str, report: Report) -> Unpacked:
        """Unpack a blob that is there, into a snapshot made on `base`. Nothing is left after a failure."""
        progress = _Extracting(report, layer.descriptor.size)
        progress.show()
        key = self._new_key()
        try:
            await in_thread(self.snapshotter.prepare, key, base)
            return Unpacked(
                key,
                await self._applier.apply(
                    self.content.path(layer.descriptor.digest),
                    layer.descriptor.media_type,
                    self.snapshotter.layer_dir(key),
                    progress.note,
                ),
            )
        except BaseException:
            await self._drop_snapshot(key)
            raise

    async def _commit(
        self, layer: Layer, unpacked: Unpacked, stacked: str, parent_done: asyncio.Event | None = None
    ) -> None:
        """Make the layer's snapshot of what was unpacked, on top of `stacked`. Nothing is left after a failure."""
        key, applied = unpacked.key, unpacked.applied
        try:
            self._check_diff_id(layer, unpacked)
            if parent_done is not None:
                await parent_done.wait()
            await self.budget.check(f"layer {digests.short(layer.descriptor.digest)}")
            if await in_thread(self.hollow, layer.chain_id):
                await self._replace(layer, unpacked, lambda: "")
                await self._drop_snapshot(key)
                return
            await in_thread(
                self.snapshotter.commit, layer.chain_id, key, applied.usage, parent=stacked, implied=applied.implied
            )
        except BaseException as error:
            await self._drop_snapshot(key)
            if not (isinstance(error, Conflict) and await in_thread(self.committed, layer.chain_id)):
                raise

    @staticmethod
    def _check_diff_id(layer: Layer, unpacked: Unpacked) -> None:
        if unpacked.applied.diff_id != layer.diff_id:
            told = f"the config says {layer.diff_id}, unpacked it is {unpacked.applied.diff_id}"
            raise DataCorrupt(f"layer {layer.descriptor.digest}: diff id mismatch: {told}")

    def _new_key(self) -> str:
        return f"{TEMPORARY}{self._run}-{next(self._serial)}"

    async def _drop_snapshot(self, key: str) -> None:
        try:
            await in_thread(self.snapshotter.remove, key)
        except NotFound:
            return
        except CortenError as error:
            log.warning("snapshot %s is left until the next start: %s", key, error)

    @contextlib.asynccontextmanager
    async def adopted(self, digest: str, media_type: str, report: Report) -> AsyncIterator[tuple[str, int]]:
        """Unpack a blob of unknown diff id as a lowest layer; its diff id (also its chain id) and usage in bytes.

        The layer is leased within the block, from before it is known whether it was there.
        """
        key = self._new_key()
        size = self.content.info(digest).size
        try:
            await in_thread(self.snapshotter.prepare, key)
            applied = await self._applier.apply(
                self.content.path(digest),
                media_type,
                self.snapshotter.layer_dir(key),
                lambda done: report(Update("Extracting", done, size)),
            )
        except BaseException:
            await self._drop_snapshot(key)
            raise
        descriptor = Descriptor(media_type=media_type, digest=digest, size=size)
        layer = Layer(descriptor, applied.diff_id, applied.diff_id, "")
        async with self.leases.take([layer.chain_id]):
            # One that is there already stays, and what was unpacked goes.
            await self._commit(layer, Unpacked(key, applied), "")
            yield applied.diff_id, applied.usage.size

    async def sweep(self, now: float) -> None:
        """At a start: remove what unpacking left behind, and what no image needs. `now` in seconds since the epoch."""
        infos = await in_thread(lambda: list(self.snapshotter.walk()))
        for info in infos:
            # What this run unpacks meanwhile has its owner.
            ours = info.key.startswith(f"{TEMPORARY}{self._run}-")
            if info.kind != "committed" and info.key.startswith(TEMPORARY) and not ours:
                await self._drop_snapshot(info.key)
        layers = [(info.key, info.parent) for info in infos if info.kind == "committed" and digests.is_digest(info.key)]
        await self.leases.free([], _parents_first(layers))
        known = self._used()[0]
        blobs = await in_thread(lambda: [info.digest for info in self.content.walk() if info.digest not in known])
        old = await in_thread(lambda: [digest for digest in blobs if self._age(digest, now) > KEEP_UNUSED])
        await self.leases.free(old, [])

    def _age(self, digest: str, now: float) -> float:
        try:
            return now - self.content.path(digest).stat().st_mtime
        except OSError:
            return 0.0


def _parents_first(snapshots: Sequence[tuple[str, str]]) -> list[str]:
    """Keys ordered so that a parent stands before its children."""
    parents = dict(snapshots)

    def depth(key: str) -> int:
        count = 0
        while key in parents and count <= len(parents):
            key, count = parents[key], count + 1
        return count

    return sorted(parents, key=depth)


class _Extracting:
    """Tells how far unpacking is, from `show` on: while the blob is still coming, that is what users are told of."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total = report, total
        self._done = 0
        self._shown = False

    def note(self, done: int) -> None:
        self._done = done
        if self._shown:
            self._report(Update("Extracting", done, self._total))

    def show(self) -> None:
        self._shown = True
        self.note(self._done)


async def _nothing(needed: int) -> int:
    """Without a limit nothing is freed."""
    return 0


def _ignore(update: Update) -> None:
    """For those who only want the result."""
