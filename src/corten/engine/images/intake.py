"""Blobs that come in a request's body: read by a worker thread, hashed, stored; taken back when the whole fails."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Protocol

from corten.engine.images.budget import STEP
from corten.engine.images.layers import LayerStore
from corten.errors import SystemFault
from corten.storage.types import ContentStore

CHUNK = 1 << 20
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))


More = Callable[[int], int]
"""Called by a worker thread that wants that many bytes more: makes room, and gives what may come now."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def compression_of(start: bytes) -> str:
    """What the first bytes of a file say: gzip, zstd, bzip2, xz, or "" for none of these."""
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


class Intake:
    """Blobs that one request brings. Its methods block and are called by worker threads."""

    def __init__(
        self, content: ContentStore, hold: Callable[[str], bool], taken: set[str], left: int | None, more: More
    ) -> None:
        """`hold` as in `LayerStore.holding`; `taken` gets what was not in the store before this request, or others
        that may yet fail. `left` are the bytes that may come, None for any number; then `more` is asked.
        """
        self._left, self._more = left, more
        self._content, self._hold, self._taken = content, hold, taken
        self._prefix = f"intake-{secrets.token_hex(8)}"
        self._serial = itertools.count(1)

    def store(self, source: Iterator[bytes], expected: str = "") -> str:
        """Store the bytes of `source`; their digest. Raises DataCorrupt when `expected` is another."""
        ingest = self._content.ingest(f"{self._prefix}-{next(self._serial)}")
        try:
            hasher = hashlib.sha256()
            for part in source:
                self._count(len(part))
                if not expected:
                    hasher.update(part)
                ingest.write(part)
            digest = expected or f"sha256:{hasher.hexdigest()}"
            shared = self._hold(digest)
            known = self._content.exists(digest) and not shared
            ingest.commit(digest)
        except BaseException:
            ingest.abort()
            raise
        if not known:
            self._taken.add(digest)
        return digest

    def _count(self, size: int) -> None:
        if self._left is not None:
            if self._left < size:
                self._left = self._more(size)
            self._left -= size
            if self._left < 0:
                text = "the archive is larger than what is left below the storage limit; remove images, or raise it"
                raise SystemFault(text, step=STEP, errno=errno.ENOSPC)

    def put(self, data: bytes) -> str:
        return self.store(iter([data]))


@asynccontextmanager
async def intake(layers: LayerStore) -> AsyncIterator[Intake]:
    """An Intake whose blobs go again when the block fails, and those that it did not keep when it succeeds.

    What is kept is what images refer to by then.
    """
    taken: set[str] = set()
    try:
        with layers.leases.holding() as hold:
            loop = asyncio.get_running_loop()

            def more(wanted: int) -> int:
                return asyncio.run_coroutine_threadsafe(layers.budget.left(wanted), loop).result() or 0

            yield Intake(layers.content, hold, taken, await layers.budget.left(), more)
    finally:
        await layers.leases.free(sorted(taken), [])


def pieces(file: Readable | BinaryIO) -> Iterator[bytes]:
    """What is left in `file`, in pieces."""
    while part := file.read(CHUNK):
        yield part
