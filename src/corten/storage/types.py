"""What storage offers: content, snapshots, documents.

Their docstrings are their specification; `corten.testing` has the contract suites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class MountPlan:
    """One mount, as data; the runtime executes it."""

    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk and inodes, accounted as written."""

    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class BlobInfo:
    digest: str
    size: int


class Ingest(Protocol):
    """A blob on its way in.

    Kept across restarts under its ref until committed or aborted, so that a download can go on at `offset`.
    """

    @property
    def offset(self) -> int: ...

    @property
    def path(self) -> Path | None:
        """The file that other processes can read as it grows; None where there is none. Gone after `commit`."""

    def write(self, data: bytes | memoryview) -> None: ...

    def commit(self, digest: str, size: int | None = None) -> BlobInfo:
        """Verify, make durable, publish.

        Raises DataCorrupt (and drops the ingest) when digest or size differ. A blob that exists already is no
        error.
        """

    def abort(self) -> None: ...

    def close(self) -> None:
        """Let go without dropping what was written."""


class ContentStore(Protocol):
    """Blobs by digest ("sha256:…") in OCI layout: `blobs/sha256/<hex>`.

    Blocking calls; use from worker threads for anything large.
    """

    def path(self, digest: str) -> Path: ...

    def info(self, digest: str) -> BlobInfo:
        """Raises NotFound; DataCorrupt for a blob that is there but zero-length or of a wrong size on record."""

    def exists(self, digest: str) -> bool: ...

    def open(self, digest: str) -> BinaryIO: ...

    def read(self, digest: str, limit: int = 8 << 20) -> bytes:
        """The whole blob, verified against its digest. For manifests and configs."""

    def verify(self, digest: str) -> BlobInfo:
        """Read the whole blob and compare it with its digest. Raises NotFound, DataCorrupt."""

    def ingest(self, ref: str) -> Ingest: ...

    def put(self, data: bytes) -> BlobInfo: ...

    def delete(self, digest: str) -> None: ...

    def walk(self) -> Iterator[BlobInfo]: ...


SnapshotKind = Literal["active", "committed", "view"]


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    key: str
    parent: str
    kind: SnapshotKind
    usage: Usage


class Snapshotter(Protocol):
    """File systems in layers.

    Vocabulary: a snapshot is *committed* (immutable, may be a parent) or *active* (writable, may be mounted) or a
    *view* (a read-only active one). `key`
    and `parent` are names of the caller's choice: chain ids for image layers, container ids for writable layers. All
    calls are blocking, crash-safe
    (a half-made snapshot is gone at the next start) and may run in several threads. A second `prepare` of a key
    raises Conflict; a missing parent or key
    raises NotFound; removing a snapshot that is a parent raises Conflict.
    """

    name: str
    rebases: bool
    """Whether `commit` takes a parent: then the layers of an image can be unpacked at the same time, each into a
    snapshot prepared without one, and committed in order."""

    def prepare(self, key: str, parent: str = "") -> Sequence[MountPlan]:
        """A writable snapshot on top of a committed one ("" for an empty one)."""

    def view(self, key: str, parent: str) -> Sequence[MountPlan]: ...

    def mounts(self, key: str) -> Sequence[MountPlan]: ...

    def commit(
        self, name: str, key: str, usage: Usage | None = None, *, parent: str = "", implied: Sequence[str] = ()
    ) -> None:
        """Freeze active `key` as committed `name`; its data is on disk first. `usage` where the writer counted it.

        `parent` puts a snapshot that was prepared without one on top of that committed snapshot; InvalidArgument
        unless `rebases`. `implied` are directories (as in `Applied`) that take owner and mode from the parents.
        """

    def layer_dir(self, key: str) -> Path:
        """Where the files of this snapshot alone lie: what a layer is unpacked into, and read from for a diff."""

    def info(self, key: str) -> SnapshotInfo: ...

    def usage(self, key: str) -> Usage:
        """Of an active one: counted now. Of a committed one: as accounted."""

    def remove(self, key: str) -> None:
        """Gone for the caller at once; its files are deleted in the background and after a crash."""

    def walk(self) -> Iterator[SnapshotInfo]: ...


@dataclass(frozen=True, slots=True)
class Replacement:
    """`swap` is one step, quick, and may be called on the event loop; `sync`, called after it, blocks until the disk
    has it.
    """

    swap: Callable[[], None]
    sync: Callable[[], None]


class HealingSnapshotter(Snapshotter, Protocol):
    """A Snapshotter whose committed snapshots can be made anew in their place."""

    def replacing(self, name: str, key: str, *, implied: Sequence[str] = ()) -> Replacement:
        """Make ready that the files of active `key` take the place of those of committed `name`; on disk on return.

        `implied` as for `commit`. After the swap `key` has the old files, if there were any, and is the caller's to
        remove. Whoever has the old files mounted goes on seeing them, as long as they are there. Nothing has changed
        when the swap is not made, and what was lost is lost until then.
        """


@dataclass(frozen=True, slots=True)
class Applied:
    """Of an unpacked layer: digest of its uncompressed tar, what it takes on disk, and directories that its archive
    has no entry for (made as root's, 0755) because only something in them changed.
    """

    diff_id: str
    usage: Usage
    implied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """What one layer may be at most, unpacked: bytes of its archive, and of its files with their holes; entries in it;
    and how many times its packed size, from `ratio_from` bytes on.

    More than any image has that was made in good faith; a decompression bomb ends at it instead of with the disk.
    """

    size: int = 256 << 30
    entries: int = 10_000_000
    ratio: int = 200
    ratio_from: int = 4 << 30


class LayerApplier(Protocol):
    """Unpacks layers in worker processes, off the event loop and its GIL."""

    limits: LayerLimits
    """What a layer may be at most; it may change at any time, and holds for layers begun from then on."""

    async def apply(
        self, blob: Path, media_type: str, target: Path, progress: Callable[[int], None] | None = None
    ) -> Applied:
        """Unpack a layer blob (gzip, zstd or plain, told by its bytes) into `target`, confined to it, whiteouts as
        overlayfs wants them.

        Keeps owners, modes, times, xattrs, hard links, devices, sparse files. Raises InvalidArgument for an archive
        that climbs out or is truncated,
        SystemFault for the host's refusals (disk full). `progress` is told bytes of the blob that were read so far.
        Cancelling kills the work.
        """

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Verified:
    """Of a layer that was compared with its blobs: their diff ids, `damage` as (path, what is wrong), the first of
    `count`.
    """

    diff_ids: tuple[str, ...]
    damage: tuple[tuple[str, str], ...]
    count: int


class LayerVerifier(Protocol):
    """Compares unpacked layers with their blobs, in worker processes."""

    async def verify(
        self, blobs: Sequence[Path], target: Path, lower: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> Verified:
        """Compare the directory `target` with what unpacking `blobs` gives, lowest first: for layers that are kept by
        themselves only the layer's own, for whole trees all. `lower` are the directories of the layers below, topmost
        first. `progress` is told bytes of the blobs. Raises InvalidArgument for blobs that are no layers.
        """


class GrowingBlob(Protocol):
    """A blob that is still being written, to be read along with its writer."""

    @property
    def path(self) -> Path:
        """The file that grows. It may have its final name already."""

    async def beyond(self, known: int) -> tuple[int, bool]:
        """The bytes that can be read and whether that is all of them, once there are more than `known` or it is.

        Does not return when the blob is given up: the reader is cancelled then.
        """


@runtime_checkable
class StreamingApplier(Protocol):
    """A LayerApplier that unpacks what is still being written."""

    async def apply_growing(
        self,
        blob: GrowingBlob,
        final: Path,
        media_type: str,
        target: Path,
        progress: Callable[[int], None] | None = None,
    ) -> Applied | None:
        """Like `LayerApplier.apply`. None, at once, when no worker is free: it never waits for one. `final` is where
        the blob may have gone when its file is opened. The bytes are not verified: the caller keeps what was made of
        them from everybody until they are.
        """


class DocumentStore(Protocol):
    """Records of one kind (container, image, volume, network, endpoint…) by id, each a blob of JSON, in the
    metadata database.
    """

    async def put(self, id: str, body: bytes, *, durable: bool = True) -> None:
        """Durable on return, unless told otherwise (then: atomic, ordered, and on disk with the next durable write)."""

    async def delete(self, id: str, *, durable: bool = True) -> None: ...

    def all(self) -> dict[str, bytes]:
        """Everything of this kind; for the start of the daemon."""


Changes = Mapping[str, bytes | None]
"""What becomes of records, by id: the new one, or None for none."""


class JointDocuments(DocumentStore, Protocol):
    """A DocumentStore whose changes can be joined with those of another one in the same place."""

    async def change(self, changes: Changes, other: DocumentStore, along: Changes) -> None:
        """All of `changes`, and all of `along` in `other`, or nothing at all; durable on return."""
