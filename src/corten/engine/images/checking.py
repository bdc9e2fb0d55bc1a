"""`corten system check`: every blob, every committed layer and every record, compared with what they should be.

Order: the database, then records and the documents of images, then blobs by digest, then layers against their blobs.
What is found in one step is healed, where that is asked for, before the next step builds on it. Nothing that is being
looked at is deleted meanwhile, and what goes away before its turn is passed over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from corten.clock import Clock
from corten.engine.images.findings import Damage, Finding, Summary, as_data
from corten.engine.images.healing import Healer
from corten.engine.images.index import ImageIndex
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import Layer, LayerStore, plan_layers
from corten.engine.images.progress import ProgressStream
from corten.engine.images.records import StoredImage
from corten.engine.images.threads import in_thread
from corten.engine.models import Container, ProgressMessage, RegistryAuth, Volume
from corten.errors import Conflict, CortenError, DataCorrupt, NotFound
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.transport import Transport
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.reference import Reference
from corten.storage.types import BlobInfo, LayerVerifier

PARALLEL = 2
"""Blobs or layers that are read at the same time."""


@dataclass(frozen=True, slots=True)
class User:
    """A container, and whether it runs or is just being started."""

    container: Container
    busy: bool


@dataclass(frozen=True, slots=True)
class CheckParts:
    """What is checked. `database` blocks and gives the faults of the metadata database."""

    index: ImageIndex
    layers: LayerStore
    verifier: LayerVerifier
    database: Callable[[], list[str]]
    containers: Callable[[], Sequence[User]]
    volumes: Callable[[], Sequence[Volume]]


@dataclass(slots=True)
class _Place:
    """A committed layer, and where it is from: None when no image has it (any more)."""

    chain_id: str
    lower: list[str]
    layer: Layer | None = None
    images: list[StoredImage] = field(default_factory=list)


class Checker:
    """One check. Used once; what it finds goes to `stream` as it is found, and a summary last."""

    def __init__(self, parts: CheckParts, stream: ProgressStream, healer: Healer | None) -> None:
        self._parts, self._stream, self._healer = parts, stream, healer
        self._index, self._layers = parts.index, parts.layers
        self._broken: set[str] = set()  # blobs that are damaged or missing, and were not healed
        self._slots = asyncio.Semaphore(PARALLEL)
        self.summary = Summary()

    async def run(self) -> None:
        self._stream.status("Checking the metadata database")
        for fault in await in_thread(self._parts.database):
            reason = "restore the database from a backup"
            self._tell(Finding(kind="database", id="corten.db", what=fault, reason=reason))
        self._containers()
        await self._blobs()
        plans = await self._documents()
        await self._all_layers(plans)
        self._stream.say({"aux": {"Summary": as_data(self.summary)}})

    def _tell(self, finding: Finding) -> None:
        self.summary.damaged += 1
        self.summary.healed += bool(finding.healed)
        self._stream.say({"aux": {"Finding": as_data(finding)}})

    # Records

    def _containers(self) -> None:
        volumes = {volume.name: volume for volume in self._parts.volumes()}
        for volume in volumes.values():
            if not os.path.isdir(volume.mountpoint):
                reason = "remove the volume, or make the directory again"
                self._tell(
                    Finding(kind="volume", id=volume.name, what=f"{volume.mountpoint} is missing", reason=reason)
                )
        for user in self._parts.containers():
            self.summary.containers += 1
            container = user.container
            found = [
                f"its volume {point.name} is missing"
                for point in container.mounts
                if point.type == "volume" and point.name not in volumes
            ]
            if not self._has_layer(container):
                found.append("its writable layer is missing")
            for what in found:
                reason = "remove the container and make it anew"
                self._tell(
                    Finding(kind="container", id=container.id, what=what, containers=[_name(user)], reason=reason)
                )

    def _has_layer(self, container: Container) -> bool:
        snapshotter = self._layers.snapshotter
        try:
            info = snapshotter.info(container.id)
            return info.parent == container.chain_id and snapshotter.layer_dir(container.id).is_dir()
        except NotFound:
            return False

    # Blobs

    async def _blobs(self) -> None:
        present = await in_thread(lambda: list(self._layers.content.walk()))
        total, done = sum(info.size for info in present), 0
        self.summary.blob_bytes = total
        known = {info.digest for info in present}

        async def one(info: BlobInfo) -> None:
            nonlocal done
            if not digests.is_digest(info.digest):
                what, reason = "is no blob", "remove the file from the content store"
                self._tell(Finding(kind="blob", id=info.digest, what=what, reason=reason))
                return
            async with self._slots, self._layers.leases.take([info.digest]):
                try:
                    await in_thread(self._layers.content.verify, info.digest)
                except NotFound:
                    return  # removed before its turn
                except CortenError as error:
                    await self._bad_blob(info.digest, str(error))
            self.summary.blobs += 1
            done += info.size
            self._stream.layer("blobs", Update("Verifying", done, total))

        await together(*map(one, present))
        for digest in sorted(self._index.referenced()[0] - known):
            async with self._layers.leases.take([digest]):
                if self._images_of(digest) and not await in_thread(self._layers.content.exists, digest):
                    await self._bad_blob(digest, "is missing")

    async def _bad_blob(self, digest: str, what: str) -> None:
        images = self._images_of(digest)
        finding = Finding(kind="blob", id=digest, what=what, images=self._names(images))
        if self._healer is not None:
            await self._healer.blob(finding, images)
        if not finding.healed:
            self._broken.add(digest)
        self._tell(finding)

    def _images_of(self, digest: str) -> list[StoredImage]:
        return [image for image in self._index.images() if digest in image.blobs]

    # Documents

    async def _documents(self) -> dict[str, list[Layer]]:
        """The layers of each image whose documents are whole and agree with its record, by id."""
        plans = {}
        for image in self._index.images():
            self.summary.images += 1
            if self._broken & {image.id, image.target.manifest}:
                continue  # said already
            async with self._layers.leases.take(image.blobs):
                try:
                    plans[image.id] = await in_thread(self._plan, image)
                except CortenError as error:
                    if self._index.get(image.id) is None:
                        continue
                    reason = "remove the image, then pull or load it again"
                    names = self._names([image])
                    self._tell(Finding(kind="image", id=image.id, what=str(error), images=names, reason=reason))
        return plans

    def _plan(self, image: StoredImage) -> list[Layer]:
        content = self._layers.content
        manifest = oci.parse_manifest(content.read(image.target.manifest))
        if manifest.config.digest != image.id:
            raise DataCorrupt(f"its manifest has another config, {manifest.config.digest}")
        config = oci.parse_config(content.read(image.id))
        plan = plan_layers(manifest.layers, config.rootfs.diff_ids)
        if [layer.chain_id for layer in plan] != image.chain_ids:
            raise DataCorrupt("its record names other layers than its documents")
        if missing := {layer.descriptor.digest for layer in plan} - set(image.blobs):
            raise DataCorrupt(f"its record does not hold the blobs {', '.join(sorted(missing))}")
        return plan

    # Layers

    async def _all_layers(self, plans: dict[str, list[Layer]]) -> None:
        places = self._places(plans)
        found: dict[str, Finding] = {}
        done = 0

        async def one(place: _Place) -> None:
            nonlocal done
            async with self._slots, self._layers.leases.take(self._needed(place)):
                if (finding := await self._layer(place)) is not None:
                    found[place.chain_id] = finding
            done += 1
            self._stream.layer("layers", Update("Comparing", done, len(places)))

        await together(*map(one, places))
        # From the lowest up: a layer may be made from the one below it.
        for place in places:
            if (finding := found.get(place.chain_id)) is None:
                continue
            if self._healer is not None and place.layer is not None and not finding.reason:
                async with self._layers.leases.take(self._needed(place)):
                    await self._healer.layer(finding, plans[place.images[0].id], place.layer, self._busy(place))
            self._tell(finding)

    def _needed(self, place: _Place) -> list[str]:
        blob = [place.layer.descriptor.digest] if place.layer is not None else []
        return [place.chain_id, *place.lower, *blob]

    def _places(self, plans: dict[str, list[Layer]]) -> list[_Place]:
        """All committed layers and those that should be there, parents before their children."""
        infos = {info.key: info for info in self._layers.snapshotter.walk() if info.kind == "committed"}
        places: dict[str, _Place] = {}
        for image in self._index.images():
            for at, layer in enumerate(plans.get(image.id, ())):
                lower = image.chain_ids[:at][::-1]
                place = places.setdefault(layer.chain_id, _Place(layer.chain_id, lower, layer))
                place.images.append(image)
        for key in infos.keys() - places.keys():
            lower, parent = [], infos[key].parent
            while parent in infos:
                lower.append(parent)
                parent = infos[parent].parent
            images = [image for image in self._index.images() if key in image.chain_ids]
            places[key] = _Place(key, lower, None, images)
        return sorted(places.values(), key=lambda place: len(place.lower))

    async def _layer(self, place: _Place) -> Finding | None:
        self.summary.layers += 1
        if not await in_thread(self._layers.committed, place.chain_id):
            if self._gone(place):
                return None
            return self._finding(place, "is missing")
        if place.layer is None:
            self.summary.unchecked += 1
            return None
        if place.layer.descriptor.digest in self._broken:
            self.summary.unchecked += 1  # the blob was told of
            return None
        return await self._compare(place, place.layer)

    async def _compare(self, place: _Place, layer: Layer) -> Finding | None:
        content, snapshotter = self._layers.content, self._layers.snapshotter
        chain = [place.chain_id] if snapshotter.rebases else [*place.lower[::-1], place.chain_id]
        blobs = [content.path(digest) for digest in self._blobs_of(place, chain)]
        try:
            lower = await in_thread(self._directories, place.lower)
            target = snapshotter.layer_dir(place.chain_id)
            verified = await self._parts.verifier.verify(blobs, target, lower)
        except CortenError as error:
            return None if self._gone(place) else self._finding(place, str(error))
        if not verified.count:
            return None
        finding = self._finding(place, f"differs from its blob {layer.descriptor.digest}")
        finding.paths = [Damage(path, what) for path, what in verified.damage]
        finding.count = verified.count
        return finding

    def _directories(self, chain_ids: Sequence[str]) -> list[Path]:
        """Of those layers that are there."""
        there = [chain_id for chain_id in chain_ids if self._layers.committed(chain_id)]
        return [self._layers.snapshotter.layer_dir(chain_id) for chain_id in there]

    def _blobs_of(self, place: _Place, chain: Sequence[str]) -> list[str]:
        image = place.images[0]
        by_chain = dict(zip(image.chain_ids, image.layers, strict=False))
        return [by_chain[chain_id] for chain_id in chain]

    def _gone(self, place: _Place) -> bool:
        return place.chain_id not in self._index.referenced()[1] and not self._users(place)

    def _finding(self, place: _Place, what: str) -> Finding:
        users = self._users(place)
        finding = Finding(
            kind="layer",
            id=place.chain_id,
            what=what,
            images=self._names(place.images),
            containers=[_name(user) for user in users],
            running=[_name(user) for user in users if user.busy],
        )
        if place.layer is None:
            finding.reason = "no image has the layer's blob any more"
            if place.images:
                finding.reason = "the documents of its image are damaged too"
        return finding

    def _users(self, place: _Place) -> list[User]:
        """The containers that stand on a layer, itself or one above it."""
        snapshotter = self._layers.snapshotter
        parents = {info.key: info.parent for info in snapshotter.walk() if info.kind == "committed"}
        return [user for user in self._parts.containers() if _stands_on(user.container, place.chain_id, parents)]

    def _busy(self, place: _Place) -> Callable[[], str]:
        def refusal() -> str:
            # A whole copy is nobody's root but the container's own; layers are mounted by those that run.
            names = [_name(user) for user in self._users(place) if user.busy and self._layers.snapshotter.rebases]
            return f"stop the containers that run on it first: {', '.join(names)}" if names else ""

        return refusal

    def _names(self, images: Iterable[StoredImage]) -> list[str]:
        found = []
        for image in images:
            names = self._index.names.of(image.id)
            found.append(names[0].familiar if names else digests.short(image.id))
        return found


class CheckService:
    """What the API asks for: `parts` are the stores, `transport` reaches the registries that may heal them."""

    def __init__(self, parts: CheckParts, transport: Transport, clock: Clock) -> None:
        self._parts, self._transport, self._clock = parts, transport, clock
        self._running = asyncio.Lock()

    async def check(self, *, repair: bool, auths: Mapping[str, RegistryAuth]) -> AsyncIterator[ProgressMessage]:
        """Progress, findings (`{"aux": {"Finding": …}}`) as they come, `{"aux": {"Summary": …}}` at last.

        `auths` are credentials by registry host. Raises Conflict while another check runs.
        """
        if self._running.locked():
            raise Conflict("another check of the stores is running")
        async with self._running:
            healer = Healer(self._parts.index, self._parts.layers, lambda name: self._client(name, auths))
            stream = ProgressStream(self._clock)
            work = Checker(self._parts, stream, healer if repair else None).run()
            async with aclosing(stream.run(self._parts.layers.tasks, "system check", work)) as told:
                async for line in told:
                    yield line

    def _client(self, reference: Reference, auths: Mapping[str, RegistryAuth]) -> RegistryClient:
        auth = auths.get(reference.domain)
        given = Credentials(auth.username, auth.password, auth.identity_token, auth.registry_token) if auth else None
        return RegistryClient(self._transport, reference, given)


def _name(user: User) -> str:
    return user.container.name


def _stands_on(container: Container, chain_id: str, parents: dict[str, str]) -> bool:
    tops = {container.chain_id, *(point.chain_id for point in container.mounts)}
    return any(chain_id in _up(top, parents) for top in tops)


def _up(chain_id: str, parents: dict[str, str]) -> list[str]:
    found: list[str] = []
    while chain_id and chain_id not in found:
        found.append(chain_id)
        chain_id = parents.get(chain_id, "")
    return found
