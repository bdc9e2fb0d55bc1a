"""Snapshots and layers without root: plain directories, and a tar reader in this process."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zstandard

from corten.errors import Conflict, InvalidArgument, NotFound
from corten.storage.bounds import too_large
from corten.storage.types import Applied, LayerLimits, MountPlan, Replacement, SnapshotInfo, Usage, Verified


class MemorySnapshotter:
    """A Snapshotter that keeps its records in a dict and its files in a temporary directory."""

    name = "memory"

    def __init__(self, *, rebases: bool = True) -> None:
        self.rebases = rebases
        self._infos: dict[str, SnapshotInfo] = {}
        self._dirs: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._root = Path(tempfile.mkdtemp(prefix="corten-snapshots-"))
        self._serial = 0
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)

    def prepare(self, key: str, parent: str = "") -> Sequence[MountPlan]:
        return self._create(key, parent, view=False)

    def view(self, key: str, parent: str) -> Sequence[MountPlan]:
        return self._create(key, parent, view=True)

    def _create(self, key: str, parent: str, *, view: bool) -> Sequence[MountPlan]:
        with self._lock:
            if key in self._infos:
                raise Conflict(f"snapshot {key} exists already")
            if parent and self._get(parent).kind != "committed":
                raise Conflict(f"snapshot {parent} is not committed")
            self._serial += 1
            directory = self._root / str(self._serial)
            directory.mkdir()
            if parent:
                shutil.copymode(self._dirs[parent], directory)
            self._dirs[key] = directory
            self._infos[key] = SnapshotInfo(key, parent, "view" if view else "active", Usage(0, 0))
        return self.mounts(key)

    def mounts(self, key: str) -> Sequence[MountPlan]:
        info = self._get(key)
        if info.kind == "committed":
            raise InvalidArgument(f"snapshot {key} is committed")
        mode = "ro" if info.kind == "view" else "rw"
        return (MountPlan("bind", str(self._dirs[key]), ("rbind", mode)),)

    def commit(
        self, name: str, key: str, usage: Usage | None = None, *, parent: str = "", implied: Sequence[str] = ()
    ) -> None:
        with self._lock:
            info = self._get(key)
            if parent:
                if not self.rebases:
                    raise InvalidArgument("this snapshotter cannot stack at commit")
                if self._get(parent).kind != "committed":
                    raise NotFound("snapshot", parent)
            if info.kind != "active" or name in self._infos:
                raise Conflict(f"snapshot {name} exists already, or {key} is not active")
            for path in implied:
                below, mine = self._dirs[parent] / path, self._dirs[key] / path
                if below.is_dir() and mine.is_dir():
                    shutil.copymode(below, mine)
            del self._infos[key]
            self._dirs[name] = self._dirs.pop(key)
            self._infos[name] = SnapshotInfo(name, parent or info.parent, "committed", usage or self._count(name))

    def replacing(self, name: str, key: str, *, implied: Sequence[str] = ()) -> Replacement:
        with self._lock:
            if self._get(name).kind != "committed" or self._get(key).kind != "active":
                raise Conflict(f"{name} is not committed, or {key} not active")

        def swap() -> None:
            with self._lock:
                self._dirs[name], self._dirs[key] = self._dirs[key], self._dirs[name]

        return Replacement(swap, lambda: None)

    def layer_dir(self, key: str) -> Path:
        self._get(key)
        return self._dirs[key]

    def info(self, key: str) -> SnapshotInfo:
        return self._get(key)

    def usage(self, key: str) -> Usage:
        info = self._get(key)
        return info.usage if info.kind == "committed" else self._count(key)

    def remove(self, key: str) -> None:
        with self._lock:
            self._get(key)
            if any(info.parent == key for info in self._infos.values()):
                raise Conflict(f"snapshot {key} is a parent")
            del self._infos[key]
            shutil.rmtree(self._dirs.pop(key), ignore_errors=True)  # a test may have lost it

    def walk(self) -> Iterator[SnapshotInfo]:
        with self._lock:
            infos = list(self._infos.values())
        yield from infos

    def _get(self, key: str) -> SnapshotInfo:
        if key not in self._infos:
            raise NotFound("snapshot", key)
        return self._infos[key]

    def _count(self, key: str) -> Usage:
        files = list(self._dirs[key].rglob("*"))
        return Usage(sum(path.lstat().st_size for path in files if path.is_file()), 1 + len(files))


class TarApplier:
    """A LayerApplier that unpacks regular files and directories, without owners. `applied` lists the blobs. Of the
    limits it knows that of an archive's size.

    With `gate` set to an event, nothing is unpacked until it is.
    """

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.limits = LayerLimits()
        self.gate: asyncio.Event | None = None

    async def apply(
        self, blob: Path, media_type: str, target: Path, progress: Callable[[int], None] | None = None
    ) -> Applied:
        if self.gate is not None:
            await self.gate.wait()
        self.applied.append(blob.name)
        data = _decompress(blob.read_bytes())
        if len(data) > self.limits.size:
            raise too_large(self.limits.size)
        size = inodes = 0
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python is older than it
                for member in tar:
                    if ".." in member.name.split("/"):
                        raise InvalidArgument(f"invalid layer: {member.name} climbs out")
                    tar.extract(member, target)
                    size, inodes = size + member.size, inodes + 1
        except tarfile.TarError as error:
            raise InvalidArgument(f"invalid layer: {error}") from None
        if progress is not None:
            progress(blob.stat().st_size)
        return Applied("sha256:" + hashlib.sha256(data).hexdigest(), Usage(size, inodes))

    async def close(self) -> None:
        """Nothing runs outside `apply`."""


class TreeVerifier:
    """A LayerVerifier beside TarApplier: what it would unpack, compared file by file in this process."""

    async def verify(
        self, blobs: Sequence[Path], target: Path, lower: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> Verified:
        expected: dict[str, bytes] = {}
        diff_ids = []
        for blob in blobs:
            data = _decompress(blob.read_bytes())
            diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for member in tar:
                    if (file := tar.extractfile(member)) is not None:
                        expected[member.name] = file.read()
        found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
        damage = [(f"/{name}", "is missing") for name in expected.keys() - found.keys()]
        damage += [(f"/{name}", "does not belong to the layer") for name in found.keys() - expected.keys()]
        same = expected.keys() & found.keys()
        damage += [(f"/{name}", "has another content") for name in same if expected[name] != found[name]]
        return Verified(tuple(diff_ids), tuple(sorted(damage)), len(damage))


def _decompress(data: bytes) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return bz2.decompress(data) if data.startswith(b"BZh") else data
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InvalidArgument(f"invalid layer: {error}") from None
