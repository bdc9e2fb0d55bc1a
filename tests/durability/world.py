"""What the operations work on: images at a registry and in archives, and the stores as the daemon opens them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from corten.clock import SystemClock
from corten.engine.images import ImageParts, ImageService
from corten.engine.images.checking import CheckParts, CheckService
from corten.linux.process import PR_SET_PDEATHSIG, prctl
from corten.registry.endpoints import RegistrySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.storage.content import LocalContentStore
from corten.storage.database import Database
from corten.storage.documents import Documents
from corten.storage.overlay import OverlaySnapshotter
from corten.storage.workers import WorkerApplier, WorkerVerifier
from corten.testing.registry import FakeRegistry
from tests.unit.engine.images.support import Made, describe, publish
from tests.unit.storage.tars import archive, directory, file, hard_link, member, symlink

NOW_NS = 1_790_000_000_000_000_000
"""The time of every operation, so that what is made has the same digest each time."""
CONTAINER = "c" * 64
"""The key of the snapshot that a container stands on."""


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


BASE = archive(
    directory("etc", mode=0o750, uid=7, gid=8),
    file("etc/a", _noise(1, 3000)),
    file("etc/gone", b"gone"),
    hard_link("etc/hard", "etc/a"),
    symlink("etc/link", "a"),
    member("etc/device", b"3", devmajor=1, devminor=3, mode=0o620),
)
ABOVE = archive(file("etc/.wh.gone", b""), file("etc/b", _noise(2, 5000), mode=0o4755), directory("var", mode=0o700))
LARGE = archive(directory("large"), file("large/file", _noise(3, 1_200_000)))  # comes while it is being unpacked
OTHER = archive(file("other", _noise(4, 2000)), directory("etc"), file("etc/.wh..wh..opq", b""))
THIRD = archive(file("third", _noise(5, 2000)), file("etc/a", b"third's"))
ROOTFS = archive(directory("bin"), file("bin/sh", _noise(6, 4000), mode=0o755))


def image(*tars: bytes) -> Made:
    packed = [gzip.compress(tar, 1, mtime=0) for tar in tars]
    config = json.dumps(
        {
            "created": "2024-05-06T07:08:09Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digests.of(tar) for tar in tars]},
        }
    ).encode()
    layers = [describe(layer, oci.OCI_LAYER_GZIP) for layer in packed]
    manifest = {"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "config": describe(config, oci.OCI_CONFIG)}
    return Made(packed, config, json.dumps({**manifest, "layers": layers}).encode())


IMAGES = {
    "base:1": image(BASE),
    "other:1": image(BASE, OTHER),
    "moved:old": image(BASE, THIRD, OTHER),
    "moved:1": image(BASE, THIRD),
    "new:1": image(BASE, ABOVE, LARGE),
}


@dataclass(frozen=True)
class World:
    """Where the stores are and which registry they know."""

    root: Path
    registry: str

    def ref(self, name: str) -> str:
        return f"{self.registry}/{name}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stores]:
        """The stores and the image service over them, as the daemon makes them; the first sweep is over."""
        async with AsyncExitStack() as stack:
            database = Database(self.root / "corten.db")
            stack.callback(database.close)
            snapshotter = OverlaySnapshotter(self.root / "snapshots", database)
            stack.callback(snapshotter.close)
            content = LocalContentStore(self.root / "content")
            applier = WorkerApplier()
            stack.push_async_callback(applier.close)
            transport = Transport(RegistrySettings(), StoppedClock())
            stack.push_async_callback(transport.close)
            parts = ImageParts(
                content=content,
                snapshotter=snapshotter,
                applier=applier,
                images=Documents(database, "image"),
                names=Documents(database, "image-name"),
                registries=transport,
                clock=StoppedClock(),
                events=_Silent(),
                in_use=lambda id: [(CONTAINER, False)] if id == IMAGES["base:1"].id else [],
            )
            service = await stack.enter_async_context(ImageService(parts))
            verifier = WorkerVerifier()
            stack.push_async_callback(verifier.close)
            checked = CheckParts(service.index, service.layers, verifier, database.check, list, list)
            check = CheckService(checked, transport, StoppedClock())
            stores = Stores(database, snapshotter, content, service, check)
            await stores.quiet()
            yield stores


class StoppedClock(SystemClock):
    """Always NOW_NS; nobody waits."""

    def now_ns(self) -> int:
        return NOW_NS

    async def sleep(self, seconds: float) -> None:
        return


class _Silent:
    def emit(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        """Nobody listens."""


@dataclass(frozen=True)
class Stores:
    database: Database
    snapshotter: OverlaySnapshotter
    content: LocalContentStore
    images: ImageService
    checks: CheckService

    async def quiet(self) -> None:
        """Until nothing goes on in the background."""
        owner = self.images.layers.tasks
        while tasks := owner._tasks:
            await asyncio.wait(list(tasks))
        await asyncio.to_thread(self.snapshotter.settle)

    def listing(self) -> dict[str, list[str]]:
        """The names of each image that is listed, by its id."""
        return {image.id: sorted([*image.names, *image.digests]) for image in self.images.list()}


def serve_registry() -> tuple[int, str]:
    """A registry with IMAGES in a process of its own, which ends with this one; its pid and address."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            asyncio.run(_serve(writer))
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as told:
        host = told.readline().strip()
    assert host, "the registry did not start"
    return pid, host


async def _serve(writer: int) -> None:
    async with FakeRegistry() as registry:
        for name, made in IMAGES.items():
            repository, _, tag = name.partition(":")
            publish(registry, repository, made, tag)
        os.write(writer, registry.host.encode() + b"\n")
        os.close(writer)
        await asyncio.Event().wait()


def tree_digest(root: Path) -> str:
    """Of everything in a tree but times: names, types, owners, modes, contents, links, devices, attributes."""
    lines: list[str] = []
    inodes: dict[int, str] = {}
    for base, directories, files in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = f"{base}/{name}"
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            said = [os.path.relpath(path, root), oct(status.st_mode), str(status.st_uid), str(status.st_gid)]
            if kind == stat.S_IFREG:
                said.append(digests.of(Path(path).read_bytes()))
                said.append(inodes.setdefault(status.st_ino, said[0]) if status.st_nlink > 1 else "")
            elif kind == stat.S_IFLNK:
                said.append(os.readlink(path))
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                said.append(str(status.st_rdev))
            said += [key for key in os.listxattr(path, follow_symlinks=False) if key.startswith("user.")]
            lines.append("\0".join(said))
    return digests.of("\n".join(lines).encode())
