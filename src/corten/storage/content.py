"""Blobs on disk, in OCI layout.

`blobs/sha256/<hex>` holds what is complete and verified, `ingest/<hash of the ref>` what is on its way. A blob is
written
and synced before it is renamed to its place, so a file under `blobs` is whole even after a power cut; its size and
the time of its last write are kept in an extended attribute, so that a blob which something else cut short or wrote to
later is found without reading it. One whose time is another is read once: where its digest holds, the new time counts.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from corten.errors import Conflict, DataCorrupt, InvalidArgument, NotFound, SystemFault, TooLarge, clip
from corten.storage.faults import host
from corten.storage.types import BlobInfo

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EMPTY = hashlib.sha256(b"").hexdigest()
_SIZE_ATTRIBUTE = "user.corten.size"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK = 1 << 20

KEEP_INGESTS_SECONDS = 24 * 3600
"""How long a download that was broken off can go on; older ones are removed when the store is opened."""


def hex_of(digest: str) -> str:
    """The hexadecimal half of a digest. Raises InvalidArgument for anything but sha256 in lower case."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"invalid digest: {clip(digest, 100)!r}")
    return digest[7:]


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Ingests:
    """The directory of what is on its way in. A file in it belongs to whoever has claimed its ref."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._claimed: set[Path] = set()
        self._lock = threading.Lock()
        directory.mkdir(exist_ok=True)

    def claim(self, ref: str) -> Path:
        """The file of `ref`, the caller's until it is released. Raises Conflict while it is somebody else's."""
        path = self._directory / hashlib.sha256(ref.encode()).hexdigest()
        with self._lock:
            if path in self._claimed:
                raise Conflict(f"ingest {clip(ref, 200)} is in progress")
            self._claimed.add(path)
        return path

    def release(self, path: Path) -> None:
        with self._lock:
            self._claimed.discard(path)

    def size(self) -> int:
        """Bytes in all of them."""
        total = 0
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def drop(self, older_than: float) -> int:
        """Remove those that nobody holds and that were last written before `older_than` (seconds since the epoch)."""
        dropped = 0
        for path in list(self._directory.iterdir()):
            with self._lock:
                if path not in self._claimed and path.stat().st_mtime < older_than:
                    path.unlink()
                    dropped += 1
        return dropped


class LocalIngest:
    """A blob being written; see `storage.types.Ingest`. Belongs to one writer at a time."""

    def __init__(self, blobs: Path, ingests: Ingests, path: Path) -> None:
        self._blobs, self._ingests, self._path = blobs, ingests, path
        self._hash = hashlib.sha256()
        self._offset = 0
        self._fd = -1
        self._spoilt = False
        try:
            with host("open ingest"):
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._rehash()
        except BaseException:
            if self._fd >= 0:
                os.close(self._fd)
            ingests.release(path)
            raise

    def _rehash(self) -> None:
        """Take up where an earlier process stopped: the hash of what is there already."""
        with host("read ingest"):
            while data := os.read(self._fd, _CHUNK):
                self._hash.update(data)
                self._offset += len(data)

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def path(self) -> Path:
        return self._path

    def write(self, data: bytes | memoryview) -> None:
        """Append. After a failed write (disk full) the file is cut back, so that `offset` stays true."""
        view = memoryview(data)
        self._check_open()
        try:
            with host("write blob"):
                written = 0
                while written < len(view):
                    written += os.write(self._fd, view[written:])
        except BaseException:
            self._cut_back()
            raise
        self._hash.update(view)
        self._offset += len(view)

    def _cut_back(self) -> None:
        """Drop what a failed write may have written. Where that fails too, the file is not what was hashed any more and
        must never become a blob.
        """
        try:
            os.ftruncate(self._fd, self._offset)
            os.lseek(self._fd, self._offset, os.SEEK_SET)
        except OSError as error:
            log.warning("%s is given up: %s", self._path, error)
            self._spoilt = True

    def commit(self, digest: str, size: int | None = None) -> BlobInfo:
        self._check_open()
        expected = hex_of(digest)
        actual = self._hash.hexdigest()
        if actual != expected or (size is not None and size != self._offset):
            offset = self._offset
            self.abort()
            if actual == expected or (size is not None and size != offset):
                raise DataCorrupt(f"unexpected commit size {offset}, expected {size}: {digest}")
            raise DataCorrupt(f"unexpected commit digest sha256:{actual}, expected {digest}")
        self._publish(expected)
        return BlobInfo(digest, self._offset)

    def _publish(self, name: str) -> None:
        target = self._blobs / name
        with host("commit blob"):
            try:
                os.setxattr(self._fd, _SIZE_ATTRIBUTE, _stamp(os.fstat(self._fd)))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.ENOSPC):
                    raise
            os.fchmod(self._fd, 0o644)
            os.fsync(self._fd)
            # An existing blob is replaced too: that heals one which was damaged meanwhile, and costs nothing.
            os.rename(self._path, target)
            sync_dir(self._blobs)
        self.close()

    def abort(self) -> None:
        """Never fails: what cannot be removed now is, like every ingest that nobody goes on with, after a day."""
        if self._fd < 0:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed now: %s", self._path, error)
            with suppress(OSError):
                os.ftruncate(self._fd, 0)  # so that nobody takes it up
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._ingests.release(self._path)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError("the ingest is closed")
        if self._spoilt:
            raise SystemFault(f"write {self._path}: it failed before", step="write blob", errno=errno.EIO)


class LocalContentStore:
    """See `storage.types.ContentStore`. One process at a time writes to a root; any number of threads do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        with host("create the content store"):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.blobs.mkdir(parents=True, exist_ok=True)
            self.ingests = Ingests(root / "ingest")
            self._write_layout()
            self.ingests.drop(time.time() - KEEP_INGESTS_SECONDS)

    def _write_layout(self) -> None:
        """The file by which others know the layout. A power cut right after the first start may have emptied it."""
        layout = self.root / "oci-layout"
        if layout.exists() and layout.read_bytes() == _LAYOUT:
            return
        beside = self.root / "ingest" / layout.name
        with beside.open("wb") as file:
            file.write(_LAYOUT)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(layout)
        sync_dir(self.root)

    def path(self, digest: str) -> Path:
        return self.blobs / hex_of(digest)

    def info(self, digest: str) -> BlobInfo:
        path = self.path(digest)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise NotFound("blob", digest, f"content {digest}: not found") from None
        self._check_record(path, digest, status)
        return BlobInfo(digest, status.st_size)

    def exists(self, digest: str) -> bool:
        """Whether the blob is there and whole, so that a damaged one is fetched again."""
        try:
            self.info(digest)
        except (NotFound, DataCorrupt):
            return False
        return True

    def open(self, digest: str) -> BinaryIO:
        self.info(digest)
        with host("open blob"):
            return self.path(digest).open("rb")

    def read(self, digest: str, limit: int = 8 << 20) -> bytes:
        info = self.info(digest)
        if info.size > limit:
            raise TooLarge(f"content {digest} has {info.size} bytes; at most {limit} are read at once")
        with host("read blob"):
            data = self.path(digest).read_bytes()
        if (actual := hashlib.sha256(data).hexdigest()) != hex_of(digest):
            raise _altered(digest, actual)
        return data

    def ingest(self, ref: str) -> LocalIngest:
        """Open or take up the ingest `ref`. Raises Conflict while another holder has it open."""
        return LocalIngest(self.blobs, self.ingests, self.ingests.claim(ref))

    def put(self, data: bytes) -> BlobInfo:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        ingest = self.ingest(f"put:{digest}:{threading.get_ident()}")
        if ingest.offset:
            ingest.abort()
            ingest = self.ingest(f"put:{digest}:{threading.get_ident()}")
        try:
            ingest.write(data)
            return ingest.commit(digest, len(data))
        except BaseException:
            ingest.abort()
            raise

    def delete(self, digest: str) -> None:
        """Remove a blob. One that is not there is no error."""
        with host("delete blob"):
            self.path(digest).unlink(missing_ok=True)

    def walk(self) -> Iterator[BlobInfo]:
        """Every blob, with the size that it has on disk, damaged ones included."""
        with os.scandir(self.blobs) as entries:
            for entry in entries:
                try:
                    yield BlobInfo("sha256:" + entry.name, entry.stat().st_size)
                except FileNotFoundError:
                    continue

    def size(self) -> int:
        """Bytes of all blobs, and of those on their way in."""
        return self.ingests.size() + sum(info.size for info in self.walk())

    def verify(self, digest: str) -> BlobInfo:
        """Read the whole blob and compare. Raises NotFound or DataCorrupt."""
        info = self.info(digest)
        with host("read blob"), self.path(digest).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != hex_of(digest):
            raise _altered(digest, actual)
        return info

    def _check_record(self, path: Path, digest: str, status: os.stat_result) -> None:
        """Compare a blob with what was recorded when it was written. Raises DataCorrupt."""
        size, written = _recorded(path)
        if size is None and not status.st_size and path.name != _EMPTY:
            raise DataCorrupt(f"content {digest} is damaged: it has 0 bytes; pull the image again")
        if size is not None and size != status.st_size:
            text = f"it has {status.st_size} bytes; {size} were written; pull the image again"
            raise DataCorrupt(f"content {digest} is damaged: {text}")
        if written is not None and written != status.st_mtime_ns:
            self._reread(path, digest)

    def _reread(self, path: Path, digest: str) -> None:
        """Something has written to the blob, or only copied the store: its bytes decide."""
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            raise NotFound("blob", digest, f"content {digest}: not found") from None
        with host("read blob"), opened as file:
            status = os.fstat(file.fileno())
            if (actual := hashlib.file_digest(file, "sha256").hexdigest()) != path.name:
                raise _altered(digest, actual)
            with suppress(OSError):  # then it is read the next time too
                os.setxattr(path, _SIZE_ATTRIBUTE, _stamp(status))


def _altered(digest: str, actual: str) -> DataCorrupt:
    return DataCorrupt(
        f"content {digest} was altered on disk: its bytes have digest sha256:{actual}; pull or load the image again"
        " to heal it"
    )


def _stamp(status: os.stat_result) -> bytes:
    """What the extended attribute says of a whole blob."""
    return b"%d:%d" % (status.st_size, status.st_mtime_ns)


def _recorded(path: Path) -> tuple[int | None, int | None]:
    """Size and time of the last write on record; None for what is not."""
    try:
        size, _, written = os.getxattr(path, _SIZE_ATTRIBUTE).partition(b":")
        return int(size), int(written) if written else None
    except (OSError, ValueError):
        return None, None
