"""Blobs from where they are into the content store: resumed, verified, shared by digest, readable while they grow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from corten.engine.images.jobs import Report, SharedJobs, Update
from corten.engine.images.threads import in_thread, opened_in_thread, settled
from corten.errors import CortenError, DataCorrupt, clip
from corten.specs.oci_image import Descriptor
from corten.storage.types import ContentStore, Ingest
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

WRITE_SIZE = 1 << 20


class BlobSource(Protocol):
    """Where the bytes of a blob come from, from an offset on."""

    @property
    def slots(self) -> asyncio.Semaphore:
        """Taken for each download: how many blobs of this source come at a time."""

    def blob(self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
        """`waiting` hears of the seconds left before another attempt."""


class NoSource:
    """Where everything should be in the store before layers are made: what is not there is `missing`."""

    def __init__(self, missing: Callable[[Descriptor], CortenError]) -> None:
        self.slots = asyncio.Semaphore(1)
        self._missing = missing

    async def blob(
        self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]
    ) -> AsyncGenerator[bytes, None]:
        raise self._missing(descriptor)
        yield b""


class Feed:
    """A blob that is being downloaded, for who reads along: see `storage.types.GrowingBlob`.

    What was read is worth nothing before the download has ended well, and nothing ever where `broken`: then bytes
    that had been there were thrown away, and the blob came a second time.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.broken = False
        self._path: Path | None = None
        self._have = 0
        self._whole = False
        self._changed = asyncio.Event()

    @property
    def path(self) -> Path:
        """Where the bytes are while they grow; after `begun`."""
        assert self._path is not None
        return self._path

    def start(self, path: Path | None, have: int) -> None:
        """A download begins. A second one breaks the feed; so does one without a file, before it is begun."""
        if path is None or self.begun.is_set():
            self.broken = True
            return
        self._path, self._have = path, have
        self.begun.set()

    def grow(self, have: int, *, whole: bool = False) -> None:
        if not self.broken:
            self._have, self._whole = have, self._whole or whole
            self._changed.set()

    async def beyond(self, known: int) -> tuple[int, bool]:
        """The bytes that can be read and whether that is all of them, once there are more than `known` or it is."""
        while self.broken or not (self._have > known or self._whole):
            self._changed.clear()
            await self._changed.wait()
        return self._have, self._whole


class Downloads:
    """See the module."""

    def __init__(self, content: ContentStore, tasks: TaskOwner) -> None:
        self._content = content
        self._jobs = SharedJobs[None](tasks)
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()

    async def fetch(self, source: BlobSource, descriptor: Descriptor, report: Report) -> None:
        """The blob is in the content store, verified. Shared with whoever wants the same one."""
        if not await in_thread(self._content.exists, descriptor.digest):
            await self._jobs.run(descriptor.digest, lambda inner: self._download(source, descriptor, inner), report)

    async def again(self, source: BlobSource, descriptor: Descriptor, report: Report) -> None:
        """`fetch` of a blob that is there and damaged; what comes takes its place."""
        await self._jobs.run(descriptor.digest, lambda inner: self._download(source, descriptor, inner), report)

    def feed(self, digest: str) -> Feed:
        """Of the download of `digest` that is under way, or that somebody will begin."""
        if (feed := self._feeds.get(digest)) is None:
            feed = self._feeds[digest] = Feed()
        return feed

    async def _download(self, source: BlobSource, descriptor: Descriptor, report: Report) -> None:
        if source.slots.locked():
            report(Update("Waiting"))
        feed = self.feed(descriptor.digest)
        async with source.slots:
            resumed = await self._download_once(source, descriptor, report, feed)
            if resumed is None:
                return
            # What an earlier attempt had left may have been bad: once more from the start.
            log.info("the resumed download of %s was damaged; it is begun anew", descriptor.digest)
            if await self._download_once(source, descriptor, report, feed) is not None:
                raise AssertionError("a download from the start is never taken for a resumed one")

    async def _download_once(
        self, source: BlobSource, descriptor: Descriptor, report: Report, feed: Feed
    ) -> int | None:
        """None when the blob is in; the offset it was resumed at when that spoilt it. Raises DataCorrupt otherwise."""
        digest, size = descriptor.digest, descriptor.size
        ingest = await opened_in_thread(self._content.ingest, digest)
        try:
            if ingest.offset > size:
                ingest.abort()
                ingest = await opened_in_thread(self._content.ingest, digest)
            start = ingest.offset
            feed.start(ingest.path, start)
            await self._receive(source, descriptor, report, _Sink(ingest, feed))
            feed.grow(ingest.offset, whole=True)
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

    async def _receive(self, source: BlobSource, descriptor: Descriptor, report: Report, sink: _Sink) -> None:
        size, done = descriptor.size, sink.offset
        report(Update("Downloading", done, size))

        def waiting(seconds: int) -> None:
            report(Update(f"Retrying in {seconds} second{'s' if seconds != 1 else ''}"))

        async with aclosing(source.blob(descriptor, done, waiting)) as parts, sink:
            async for part in parts:
                await sink.write(part)
                done += len(part)
                report(Update("Downloading", done, size))


class _Sink:
    """Writes to an ingest in large pieces in a worker thread, while the next piece is being received."""

    def __init__(self, ingest: Ingest, feed: Feed) -> None:
        self._ingest, self._feed = ingest, feed
        self._parts: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    @property
    def offset(self) -> int:
        return self._ingest.offset

    async def __aenter__(self) -> _Sink:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self._flush()
                await self._settle()
        finally:
            # Whoever gave up, even now: the ingest is closed next, and its descriptor may be another file's then.
            await settled(self._writing)
        if kind is not None and not self._failed():
            # The next attempt goes on from here, so what was received is kept; the failure on its way counts.
            with contextlib.suppress(CortenError):
                await in_thread(self._ingest.write, b"".join(self._parts))

    def _failed(self) -> bool:
        """Whether the last write did, so that nothing may follow it."""
        return self._writing is not None and (self._writing.cancelled() or self._writing.exception() is not None)

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
        self._writing.add_done_callback(lambda _: self._feed.grow(self._ingest.offset))

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
