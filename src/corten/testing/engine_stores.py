"""The parts of the engine without processes that keep things: images, volumes, networks."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from corten.clock import Clock
from corten.engine.models import (
    CommitOptions,
    Container,
    Filters,
    Image,
    ImageDetails,
    ImageManifest,
    ProgressMessage,
    RegistryAuth,
    Volume,
)
from corten.errors import Conflict, NotFound, SystemFault, Unauthorized
from corten.specs import reference

Strings = list[str]
Changes = list[dict[str, str]]


def sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class MemoryImages:
    """Images that pulling makes up from their name. A registry called broken.example fails in the middle of a pull."""

    def __init__(self) -> None:
        self._all: dict[str, Image] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.auth: RegistryAuth | None = None
        self.pushed: list[tuple[str, str]] = []
        self.add("busybox")

    def add(self, name: str, labels: dict[str, str] | None = None) -> Image:
        full = reference.parse(name)
        image = Image(
            id=sha256(full.canonical),
            target=sha256("target" + full.canonical),
            target_media_type="application/vnd.oci.image.manifest.v1+json",
            manifest=sha256("target" + full.canonical),
            size=1000,
            created_ns=1_700_000_000_000_000_000 + len(self._all) * 10**9,
            platform="linux/amd64",
            chain_ids=[sha256("layer" + full.canonical)],
            names=[full.canonical],
            digests=[full.with_digest(sha256("target" + full.canonical)).canonical],
        )
        self._all[image.id] = image
        self.labels[image.id] = labels or {}
        return image

    def list(self) -> Sequence[Image]:
        return sorted(self._all.values(), key=lambda image: image.created_ns, reverse=True)

    def get(self, ref: str) -> Image:
        for image in self._all.values():
            short = image.id.removeprefix("sha256:")
            if image.id == ref or (len(ref) >= 4 and short.startswith(ref)):
                return image
        full = reference.parse(ref).canonical
        for image in self._all.values():
            if full in image.names or full in image.digests:
                return image
        raise NotFound("image", reference.parse(ref).familiar)

    async def details(self, ref: str, platform: str = "") -> ImageDetails:
        image = self.get(ref)
        if platform and platform != image.platform:
            text = f"image with reference {ref} was found but does not provide the specified platform ({platform})"
            raise NotFound("image", ref, text)
        config = {
            "created": "2023-11-14T22:13:20.5Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": self.labels[image.id]},
            "rootfs": {"type": "layers", "diff_ids": [sha256("diff")]},
            "history": [
                {"created": "2023-11-14T22:13:20.5Z", "created_by": "ADD rootfs"},
                {"created": "2023-11-14T22:13:21Z", "created_by": "CMD sh", "empty_layer": True},
            ],
        }
        return ImageDetails(image, config, [1000])

    async def manifests(self, ref: str) -> Sequence[ImageManifest]:
        image = self.get(ref)
        return [
            ImageManifest(
                image.manifest,
                image.target_media_type,
                200,
                image.platform,
                available=True,
                image_id=image.id,
                content=700,
                unpacked=image.size,
            )
        ]

    async def pull(
        self, ref: str, platform: str, auth: RegistryAuth | None, *, all_tags: bool = False
    ) -> AsyncIterator[ProgressMessage]:
        self.auth = auth
        name = reference.parse(ref)
        if name.path.endswith("private"):
            raise Unauthorized("no basic auth credentials")
        if name.path.endswith("missing"):
            raise NotFound("image", ref, f"manifest for {ref} not found: manifest unknown: manifest unknown")
        yield {"status": f"Pulling from {name.path}", "id": name.tag}
        if name.domain == "broken.example":
            raise SystemFault("unexpected EOF")
        self.add(ref)
        yield {"status": "Pull complete", "progressDetail": {}, "id": "0123456789ab"}
        yield {"status": f"Status: Downloaded newer image for {name.familiar}"}

    async def push(self, ref: str, auth: RegistryAuth | None, platform: str = "") -> AsyncIterator[ProgressMessage]:
        self.auth = auth
        self.pushed.append((ref, platform))
        image = self.get(ref)
        yield {"status": f"The push refers to repository [{reference.parse(ref).name}]"}
        yield {"status": f"latest: digest: {image.target} size: 100"}

    async def tag(self, ref: str, target: str) -> None:
        self.get(ref).names.append(reference.parse(target).canonical)

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[str] = ()) -> Changes:
        image = self.get(ref)
        if len(image.names) > 1 and not force and image.id.removeprefix("sha256:").startswith(ref):
            raise Conflict(f"conflict: unable to delete {ref} (must be forced) - image is referenced in repositories")
        del self._all[image.id]
        return [{"Untagged": reference.parse(name).familiar} for name in image.names] + [{"Deleted": image.id}]

    async def prune(self, filters: Filters) -> tuple[Changes, int]:
        return [], 0


class MemoryArchives:
    """`uploaded` is the last archive that came."""

    def __init__(self, images: MemoryImages) -> None:
        self._images = images
        self.uploaded = b""

    async def load(
        self, archive: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[str] = ()
    ) -> AsyncIterator[ProgressMessage]:
        self.uploaded = b"".join([chunk async for chunk in archive])
        self._images.add("loaded")
        yield {"stream": "Loaded image: loaded:latest\n"}

    async def save(self, refs: Sequence[str], platforms: Sequence[str] = ()) -> AsyncIterator[bytes]:
        for ref in refs:
            yield f"archive of {self._images.get(ref).id}\n".encode()

    async def import_rootfs(
        self, source: AsyncIterator[bytes] | str, ref: str, *, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[ProgressMessage]:
        if isinstance(source, str):
            yield {"status": f"Downloading from {source}"}
        else:
            self.uploaded = b"".join([chunk async for chunk in source])
        yield {"status": self._images.add(ref or "imported").id}


class MemoryCommits:
    """Makes images of containers; `asked` is how."""

    def __init__(self, containers: ContainerFinder, images: MemoryImages) -> None:
        self._containers, self._images = containers, images
        self.asked: CommitOptions | None = None

    async def commit(self, ref: str, options: CommitOptions) -> str:
        self._containers.get(ref)
        self.asked = options
        return self._images.add(options.ref or "committed").id


class ContainerFinder(Protocol):
    def get(self, ref: str) -> Container: ...


class MemoryVolumes:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: dict[str, Volume] = {}
        self.pruned_with: Filters = {}

    def list(self) -> Sequence[Volume]:
        return list(self._all.values())

    def get(self, name: str) -> Volume:
        if name not in self._all:
            raise NotFound("volume", name, f"get {name}: no such volume")
        return self._all[name]

    async def create(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> Volume:
        name = name or hashlib.sha256(str(len(self._all)).encode()).hexdigest()
        mountpoint = f"/var/lib/corten/volumes/{name}/_data"
        volume = Volume(
            name=name, created_ns=self._clock.now_ns(), mountpoint=mountpoint, options=options, labels=labels
        )
        return self._all.setdefault(name, volume)

    async def remove(self, name: str, *, force: bool) -> None:
        if name not in self._all and force:
            return
        del self._all[self.get(name).name]

    async def prune(self, filters: Filters) -> tuple[Strings, int]:
        self.pruned_with = filters
        names = list(self._all)
        self._all.clear()
        return names, 0


class MemoryNetworks:
    """The three that are always there."""

    def list(self) -> Sequence[dict[str, Any]]:
        return [
            {
                "Name": name,
                "Id": hashlib.sha256(name.encode()).hexdigest(),
                "Created": "2024-01-01T00:00:00Z",
                "Scope": "local",
                "Driver": driver,
                "EnableIPv4": True,
                "EnableIPv6": False,
                "IPAM": {"Driver": "default", "Options": None, "Config": []},
                "Internal": False,
                "Attachable": False,
                "Ingress": False,
                "ConfigFrom": {"Network": ""},
                "ConfigOnly": False,
                "Containers": {},
                "Options": {},
                "Labels": {},
            }
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
        ]

    def get(self, ref: str) -> dict[str, Any]:
        for network in self.list():
            if ref == network["Name"] or network["Id"].startswith(ref):
                return network
        raise NotFound("network", ref, f"network {ref} not found")


class MemorySystem:
    async def info(self) -> dict[str, Any]:
        return {"ID": "memory", "Containers": 0, "OSType": "linux", "Driver": "memory", "ServerVersion": "0.0.0"}

    async def version(self) -> dict[str, Any]:
        return {"Version": "0.0.0", "ApiVersion": "1.56", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}

    async def disk_usage(self) -> dict[str, Any]:
        return {"LayersSize": 1000, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}


class MemoryChecks:
    """Finds what `findings` says, in the API's form. `asked` are the calls."""

    def __init__(self) -> None:
        self.findings: list[dict[str, Any]] = []
        self.asked: list[tuple[bool, dict[str, RegistryAuth]]] = []

    async def check(self, *, repair: bool, auths: Mapping[str, RegistryAuth]) -> AsyncIterator[ProgressMessage]:
        self.asked.append((repair, dict(auths)))
        yield {"status": "Verifying", "id": "blobs", "progressDetail": {"current": 1, "total": 2}}
        for finding in self.findings:
            yield {"aux": {"Finding": finding}}
        healed = sum(bool(finding.get("Healed")) for finding in self.findings)
        yield {"aux": {"Summary": {"Blobs": 2, "Damaged": len(self.findings), "Healed": healed}}}
