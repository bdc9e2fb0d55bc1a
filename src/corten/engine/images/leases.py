"""Who needs what is stored, and the deletion of what nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from corten.engine.images.threads import in_thread
from corten.errors import Conflict, CortenError, NotFound
from corten.storage.types import ContentStore, Snapshotter

log = logging.getLogger(__name__)

Used = Callable[[], tuple[set[str], set[str]]]
"""Blobs and chain ids that some image needs."""


class _Deletion:
    """One that was decided. `off` before it has `begun`: somebody needs the key after all, and it is not made."""

    def __init__(self) -> None:
        self.begun = self.off = False
        self.over = threading.Event()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Leases:
    """What is leased, or held, or needed by an image, is not deleted.

    The rule: who lists an image holds each of its blobs and layers from before the look whether it is there until the
    index has the image. A deletion is decided in one step of the event loop, in which neither a holder nor an image may
    need the key; who comes after that calls it off, or, where it has begun, waits for its end. So whatever a holder
    finds stays, and what is missing its holder has to bring.
    """

    def __init__(self, content: ContentStore, snapshotter: Snapshotter, used: Used) -> None:
        self._content, self._snapshotter, self._used = content, snapshotter, used
        self._lock = threading.Lock()  # of the two below; never held while something is deleted
        self._holders: Counter[str] = Counter()
        self._deletions: dict[str, _Deletion] = {}

    @asynccontextmanager
    async def take(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Nothing of `keys` (digests, chain ids) is deleted meanwhile; deletions that had begun are waited for."""
        held = list(keys)
        begun = [deletion.done for key in held if (deletion := self._hold(key)) is not None]
        try:
            if begun:
                await asyncio.wait(begun)
            yield
        finally:
            self._let_go(held)

    def held(self, key: str) -> int:
        """By how many."""
        return self._holders[key]

    def _hold(self, key: str) -> _Deletion | None:
        """One holder more; the deletion that could not be called off."""
        with self._lock:
            self._holders[key] += 1
            deletion = self._deletions.get(key)
            if deletion is None or deletion.begun:
                return deletion
            deletion.off = True
            return None

    def _let_go(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._holders[key] -= 1
                if not self._holders[key]:
                    del self._holders[key]

    async def free(self, blobs: Iterable[str], chains: Sequence[str]) -> None:
        """Delete what of `blobs` and `chains` (parents first) nothing needs: neither an image, nor a lease, nor, for
        snapshots, a container or a layer above it.
        """
        for chain_id in reversed(chains):
            await self._delete(chain_id, self._snapshotter.remove, lambda: self._used()[1])
        for digest in blobs:
            await self._delete(digest, self._content.delete, lambda: self._used()[0])

    async def discard(self, digest: str) -> bool:
        """Delete a blob that the caller holds, unless an image needs it or somebody else holds it; whether it went."""
        return await self._delete(digest, self._content.delete, lambda: self._used()[0], own=1)

    async def _delete(
        self, key: str, delete: Callable[[str], None], needed: Callable[[], set[str]], own: int = 0
    ) -> bool:
        # Another try may fail for what has gone meanwhile, such as a layer above: ours is made after it.
        while (going := self._deletions.get(key)) is not None:
            await asyncio.wait([going.done])
        with self._lock:
            if self._holders[key] > own or key in needed():
                return False
            deletion = self._deletions[key] = _Deletion()
        try:
            return await in_thread(self._perform, key, deletion, delete)
        except (NotFound, Conflict):
            pass  # gone already; or a container, or another image's layer, stands on it
        except CortenError as error:
            log.warning("%s could not be deleted: %s", key, error)
        finally:
            with self._lock:
                del self._deletions[key]
            deletion.done.set_result(None)
        return False

    def _perform(self, key: str, deletion: _Deletion, delete: Callable[[str], None]) -> bool:
        with self._lock:
            if deletion.off:
                return False
            deletion.begun = True
        try:
            delete(key)
        finally:
            deletion.over.set()
        return True

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[str], bool]]:
        """A function that worker threads call with a digest before they look for it or store it: from then on, and
        until the block ends, it is not deleted. A deletion that has begun is over when the function returns. It tells
        whether somebody else holds the same.
        """
        held: set[str] = set()

        def hold(digest: str) -> bool:
            if digest not in held:
                held.add(digest)
                # Having begun it needs nothing but the thread that it runs in, so that waiting for it always ends.
                if (begun := self._hold(digest)) is not None:
                    begun.over.wait()
            return self.held(digest) > 1

        try:
            yield hold
        finally:
            self._let_go(held)
