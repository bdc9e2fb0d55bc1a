"""Storage in memory: second implementations of the content store and the document store, for tests."""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from corten.errors import Conflict, DataCorrupt, InvalidArgument, NotFound, TooLarge
from corten.specs.digest import of as digest_of
from corten.storage.types import BlobInfo, Changes, DocumentStore


class MemoryDocuments:
    """JointDocuments in a dict. `durable_puts` and `relaxed_puts` count what was asked for."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self.durable_puts = 0
        self.relaxed_puts = 0

    async def put(self, id: str, body: bytes, *, durable: bool = True) -> None:
        self._bodies[id] = bytes(body)
        if durable:
            self.durable_puts += 1
        else:
            self.relaxed_puts += 1

    async def delete(self, id: str, *, durable: bool = True) -> None:
        self._bodies.pop(id, None)

    async def change(self, changes: Changes, other: DocumentStore, along: Changes) -> None:
        if not isinstance(other, MemoryDocuments):
            raise TypeError("the records are not in the same place")
        for bodies, wanted in ((self._bodies, changes), (other._bodies, along)):
            for id, body in wanted.items():
                if body is None:
                    bodies.pop(id, None)
                else:
                    bodies[id] = bytes(body)
        self.durable_puts += 1

    def all(self) -> dict[str, bytes]:
        return dict(self._bodies)


class MemoryIngests:
    """What was written under each ref and is neither committed nor aborted; one holder each."""

    def __init__(self) -> None:
        self.kept: dict[str, bytearray] = {}
        self.claimed: set[str] = set()
        self._lock = threading.Lock()

    def claim(self, ref: str) -> bytearray:
        """Raises Conflict while somebody else holds it."""
        with self._lock:
            if ref in self.claimed:
                raise Conflict(f"ingest {ref} is in progress")
            self.claimed.add(ref)
            return self.kept.setdefault(ref, bytearray())

    def release(self, ref: str) -> None:
        with self._lock:
            self.claimed.discard(ref)

    def drop(self, ref: str) -> None:
        with self._lock:
            self.kept.pop(ref, None)


class MemoryIngest:
    """An Ingest in a bytearray that its store keeps until it is committed or aborted."""

    def __init__(self, store: MemoryContentStore, ingests: MemoryIngests, ref: str, buffer: bytearray) -> None:
        self._store, self._ingests, self._ref, self._buffer = store, ingests, ref, buffer
        self._open = True

    @property
    def offset(self) -> int:
        return len(self._buffer)

    @property
    def path(self) -> None:
        """No file."""

    def write(self, data: bytes | memoryview) -> None:
        if not self._open:
            raise ValueError("the ingest is closed")
        self._buffer += data

    def commit(self, digest: str, size: int | None = None) -> BlobInfo:
        if not self._open:
            raise ValueError("the ingest is closed")
        data = bytes(self._buffer)
        check_digest(digest)
        self.abort()
        if size is not None and size != len(data):
            raise DataCorrupt(f"unexpected commit size {len(data)}, expected {size}: {digest}")
        if (actual := digest_of(data)) != digest:
            raise DataCorrupt(f"unexpected commit digest {actual}, expected {digest}")
        return self._store.put(data)

    def abort(self) -> None:
        if self._open:
            self._ingests.drop(self._ref)
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._ingests.release(self._ref)


class MemoryContentStore:
    """A ContentStore in a dict. `path` writes the blob to a temporary file, as some callers need a real one."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self.ingests = MemoryIngests()
        self._scratch: Path | None = None

    def path(self, digest: str) -> Path:
        check_digest(digest)
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="corten-content-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        path = self._scratch / digest[7:]
        data = self._blobs.get(digest)  # another thread may delete it now
        if data is not None and not path.exists():
            written = path.with_suffix(f".{threading.get_ident()}")  # nobody sees half of it
            written.write_bytes(data)
            written.rename(path)
        return path

    def info(self, digest: str) -> BlobInfo:
        check_digest(digest)
        if digest not in self._blobs:
            raise NotFound("blob", digest, f"content {digest}: not found")
        return BlobInfo(digest, len(self._blobs[digest]))

    def exists(self, digest: str) -> bool:
        check_digest(digest)
        return digest in self._blobs

    def open(self, digest: str) -> BinaryIO:
        self.info(digest)
        return io.BytesIO(self._blobs[digest])

    def read(self, digest: str, limit: int = 8 << 20) -> bytes:
        size = self.info(digest).size
        if size > limit:
            raise TooLarge(f"content {digest} has {size} bytes; at most {limit} are read at once")
        return self._blobs[digest]

    def verify(self, digest: str) -> BlobInfo:
        info = self.info(digest)
        if digest_of(self._blobs[digest]) != digest:
            raise DataCorrupt(f"content {digest} was altered")
        return info

    def damage(self, digest: str) -> None:
        """Alter the bytes of a blob, for tests."""
        self._blobs[digest] = self._blobs[digest][:-1] + b"!"

    def ingest(self, ref: str) -> MemoryIngest:
        return MemoryIngest(self, self.ingests, ref, self.ingests.claim(ref))

    def put(self, data: bytes) -> BlobInfo:
        digest = digest_of(data)
        self._blobs[digest] = bytes(data)
        return BlobInfo(digest, len(data))

    def delete(self, digest: str) -> None:
        check_digest(digest)
        self._blobs.pop(digest, None)
        if self._scratch is not None:
            (self._scratch / digest[7:]).unlink(missing_ok=True)

    def walk(self) -> Iterator[BlobInfo]:
        for digest, data in list(self._blobs.items()):
            yield BlobInfo(digest, len(data))


def check_digest(digest: str) -> None:
    """Raises InvalidArgument for what no store can hold."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidArgument(f"invalid digest: {digest[:100]!r}")
