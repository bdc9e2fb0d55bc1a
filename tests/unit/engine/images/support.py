"""An image service over stores in memory, a registry in this process, and images made on the spot."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from corten.clock import SystemClock
from corten.engine.images import ImageParts, ImageService
from corten.engine.models import ProgressMessage
from corten.registry.endpoints import RegistrySettings
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.storage.types import LayerApplier
from corten.testing.registry import FakeRegistry
from corten.testing.snapshots import MemorySnapshotter, TarApplier
from corten.testing.storage import MemoryContentStore, MemoryDocuments


class EagerClock(SystemClock):
    """Real time, but nobody waits: pauses between attempts are only counted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Events:
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def emit(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        assert type == "image"
        self.seen.append((action, actor_id, attributes))


@dataclass
class World:
    """What outlives a daemon; `service` starts one over it."""

    content: MemoryContentStore = field(default_factory=MemoryContentStore)
    snapshotter: MemorySnapshotter = field(default_factory=MemorySnapshotter)
    applier: TarApplier = field(default_factory=TarApplier)
    images: MemoryDocuments = field(default_factory=MemoryDocuments)
    names: MemoryDocuments = field(default_factory=MemoryDocuments)
    events: Events = field(default_factory=Events)
    clock: EagerClock = field(default_factory=EagerClock)
    users: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)

    @asynccontextmanager
    async def service(self, settings: RegistrySettings | None = None) -> AsyncIterator[ImageService]:
        transport = Transport(settings or RegistrySettings(stall_timeout=0.3), self.clock)
        applier: LayerApplier = self.applier
        parts = ImageParts(
            content=self.content,
            snapshotter=self.snapshotter,
            applier=applier,
            images=self.images,
            names=self.names,
            registries=transport,
            clock=self.clock,
            events=self.events,
            in_use=lambda id: self.users.get(id, []),
        )
        try:
            async with ImageService(parts) as service:
                yield service
        finally:
            await transport.close()

    def blobs(self) -> set[str]:
        return {info.digest for info in self.content.walk()}

    def snapshots(self) -> set[str]:
        return {info.key for info in self.snapshotter.walk()}


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """A tar with these regular files, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            raw = data.encode() if isinstance(data, str) else data
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


@dataclass(frozen=True)
class Made:
    """An image as documents: layers compressed, lowest first."""

    layers: list[bytes]
    config: bytes
    manifest: bytes

    @property
    def id(self) -> str:
        return digests.of(self.config)

    @property
    def digest(self) -> str:
        return digests.of(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        return [digests.of(gzip.decompress(layer)) for layer in self.layers]


def make_image(
    *layers: Mapping[str, bytes | str],
    run: Mapping[str, Any] | None = None,
    diff_ids: Sequence[str] | None = None,
    docker: bool = False,
    architecture: str = "amd64",
) -> Made:
    tars = [tar_of(layer) for layer in layers]
    packed = [gzip.compress(tar, mtime=0) for tar in tars]
    config = json.dumps(
        {
            "created": "2024-05-06T07:08:09.5Z",
            "architecture": architecture,
            "os": "linux",
            "config": dict(run or {"Cmd": ["sh"]}),
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digests.of(tar) for tar in tars]},
        }
    ).encode()
    layer_type = oci.DOCKER_LAYER_GZIP if docker else oci.OCI_LAYER_GZIP
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST if docker else oci.OCI_MANIFEST,
            "config": describe(config, oci.DOCKER_CONFIG if docker else oci.OCI_CONFIG),
            "layers": [describe(layer, layer_type) for layer in packed],
        },
        indent=3,
    ).encode()
    return Made(packed, config, manifest)


def describe(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digests.of(data), "size": len(data), **more}


def publish(registry: FakeRegistry, repository: str, made: Made, tag: str = "latest") -> str:
    """Put an image into the registry; what to pull."""
    for blob in (*made.layers, made.config):
        registry.add_blob(repository, blob)
    registry.add_manifest(repository, made.manifest, json.loads(made.manifest)["mediaType"], tag)
    return f"{registry.host}/{repository}:{tag}"


async def collect(stream: AsyncIterator[ProgressMessage]) -> list[ProgressMessage]:
    return [message async for message in stream]


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """A request's body."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def statuses(messages: Sequence[ProgressMessage], id: str = "") -> list[str]:
    """The texts of a stream without what repeats; of one layer with `id`."""
    texts = [message["status"] for message in messages if "status" in message and (not id or message.get("id") == id)]
    return [text for at, text in enumerate(texts) if at == 0 or texts[at - 1] != text]


def index_archive(*images: tuple[Made, str], name: str = "", absent: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """An OCI layout with one index, of (image, architecture) pairs and of architectures that are not in it; and the
    index.
    """
    entries = [
        describe(made.manifest, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": architecture})
        for made, architecture in images
    ]
    for architecture in absent:
        gone = describe(architecture.encode(), oci.OCI_MANIFEST)
        entries.append({**gone, "platform": {"os": "linux", "architecture": architecture}})
    index = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}).encode()
    annotations = {oci.ANNOTATION_IMAGE_NAME: name} if name else {}
    blobs = [index, *(blob for made, _ in images for blob in (*made.layers, made.config, made.manifest))]
    files: dict[str, bytes | str] = {f"blobs/sha256/{digests.hex_of(digests.of(blob))}": blob for blob in blobs}
    top = {"schemaVersion": 2, "manifests": [describe(index, oci.OCI_INDEX, annotations=annotations)]}
    return tar_of({"oci-layout": "{}", "index.json": json.dumps(top), **files}), index
