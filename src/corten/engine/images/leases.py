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


class Leases:
    """What is leased, or held, or needed by an image, is not deleted."""

    def __init__(self, content: ContentStore, snapshotter: Snapshotter, used: Used) -> None:
        self._content, self._snapshotter, self._used = content, snapshotter, used
        self._leases: Counter[str] = Counter()
        self._holders: list[set[str]] = []
        self._hold_lock = threading.Lock()
        self._deleting: dict[str, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def take(self, keys: Iterable[str]) -> AsyncIterator[None]:
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

    async def free(self, blobs: Iterable[str], chains: Sequence[str]) -> None:
        """Delete what of `blobs` and `chains` (parents first) nothing needs: neither an image, nor a lease, nor, for
        snapshots, a container or a layer above it.
        """
        for chain_id in reversed(chains):
            await self._delete(chain_id, self._snapshotter.remove, lambda: self._used()[1])
        for digest in blobs:
            await self._delete(digest, self._content.delete, lambda: self._used()[0])

    async def _delete(self, key: str, delete: Callable[[str], None], needed: Callable[[], set[str]]) -> None:
        # Another try may fail for what has gone meanwhile, such as a layer above: ours is made after it.
        while (going := self._deleting.get(key)) is not None:
            await asyncio.wait([going])
        if self._leases[key] > 0 or key in needed():
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

    def _delete_unless_held(self, key: str, delete: Callable[[str], None]) -> None:
        with self._hold_lock:
            if not any(key in held for held in self._holders):
                delete(key)

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
            # By identity: two that hold the same are equal, and the other one goes on.
            with self._hold_lock:
                self._holders[:] = [other for other in self._holders if other is not held]
