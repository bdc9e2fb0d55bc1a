"""Pushing: blobs first, those that the registry has not; then manifests, byte for byte as they are kept.

Of an index everything goes that is here. What is not here may be at the registry already; what is nowhere leaves the
index unpushable: then a single platform that is here is pushed instead of it, and the user is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from corten.engine.images import saving
from corten.engine.images.index import ImageIndex
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import LayerStore
from corten.engine.images.progress import ProgressStream
from corten.engine.images.records import Target
from corten.engine.images.threads import in_thread
from corten.errors import NotFound
from corten.registry.client import RegistryClient
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference

Pushed = Callable[[Reference, str], Awaitable[None]]
DOCUMENTS = (*oci.INDEX_TYPES, *oci.MANIFEST_TYPES)


class Pusher:
    """Sends out what names of one repository point to. Used once; `uploads` blobs go at a time."""

    def __init__(
        self, index: ImageIndex, layers: LayerStore, client: RegistryClient, stream: ProgressStream, uploads: int
    ) -> None:
        self._index, self._layers, self._client, self._stream = index, layers, client, stream
        self._slots = asyncio.Semaphore(uploads)
        self._sent: set[str] = set()
        self._notes: list[dict[str, Any]] = []

    async def run(self, names: Sequence[Reference], platform: str, pushed: Pushed) -> None:
        """Push `names`, each of them here; `platform` ("" for all) chooses from an index. `pushed` is told each name
        and the digest that it stands for at the registry now.

        Raises NotFound for a platform that is not here, and what the registry refuses.
        """
        self._stream.status(f"The push refers to repository [{self._client.reference.name}]")
        for name in names:
            await pushed(name, await self._push(name, self._target(name, platform)))
        for note in self._notes:
            self._stream.say({"progressDetail": {}, "aux": note})

    def _target(self, name: Reference, platform: str) -> Target:
        named = self._index.names.get(name)
        if named is None:  # untagged meanwhile
            raise NotFound("image", name.familiar)
        if not platform:
            return named.target
        target = self._index.for_platform(name.canonical, platform).target
        return saving.alone(target)

    async def _push(self, name: Reference, target: Target) -> str:
        everything = await self._plan(target)
        top = everything[-1]
        blobs = [descriptor for descriptor in everything if descriptor.media_type not in DOCUMENTS]
        async with self._layers.leases.take([descriptor.digest for descriptor in everything]):
            shown = [blob for blob in blobs if blob.media_type not in oci.CONFIG_TYPES]
            for blob in shown:
                self._stream.layer(digests.short(blob.digest), Update("Preparing"))
            await together(*(self._blob(blob, show=blob in shown) for blob in blobs))
            for descriptor in everything[:-1]:
                if descriptor.media_type in DOCUMENTS and descriptor.digest not in self._sent:
                    await self._manifest(descriptor, descriptor.digest)
            await self._manifest(top, name.tag or top.digest)
        tag = name.tag or top.digest
        self._stream.status(f"{tag}: digest: {top.digest} size: {top.size}")
        self._stream.say({"progressDetail": {}, "aux": {"Tag": tag, "Digest": top.digest, "Size": top.size}})
        return top.digest

    async def _plan(self, target: Target) -> list[Descriptor]:
        """What to send, the top last. Raises NotFound for an index of which something is nowhere."""
        content = self._layers.content
        whole = await in_thread(saving.closure, content, target.digest, target.media_type)
        if whole is not None:
            return whole
        own = await in_thread(saving.closure, content, target.manifest, target.manifest_media_type)
        if own is None:
            raise saving.missing(target.manifest)
        here = await in_thread(saving.present, content, target.digest, target.media_type)
        if not here:
            return own
        lacking = await self._lacking(target, {descriptor.digest for descriptor in here})
        if lacking is None:
            return here
        top = here[-1]
        if sum(descriptor.media_type in oci.MANIFEST_TYPES for descriptor in here) == 1:
            note = {"originalIndex": _wire(top), "selectedManifest": _wire(own[-1])}
            self._notes.append({"manifestPushedInsteadOfIndex": True, **note})
            return own
        self._stream.say({"progressDetail": {}, "aux": {"contentMissing": True, "desc": _wire(lacking)}})
        raise NotFound(
            "content",
            lacking.digest,
            f"missing content: content digest {lacking.digest}: not found: the index {top.digest} has platforms that"
            " are neither here nor at the registry; push one platform with --platform",
        )

    async def _lacking(self, target: Target, here: set[str]) -> Descriptor | None:
        """A manifest of the index that is neither here nor at the registry; None when all are at one of them."""
        index = oci.parse_index(await in_thread(self._layers.content.read, target.digest))
        for child in index.manifests:
            if child.digest not in here and not await self._client.has_manifest(child.digest):
                return child
        return None

    async def _manifest(self, descriptor: Descriptor, name: str) -> None:
        data = await in_thread(self._layers.content.read, descriptor.digest)
        await self._client.put_manifest(name, descriptor.media_type, data)
        self._sent.add(descriptor.digest)

    async def _blob(self, blob: Descriptor, *, show: bool) -> None:
        def report(update: Update) -> None:
            if show:
                self._stream.layer(digests.short(blob.digest), update)

        if self._slots.locked():
            report(Update("Waiting"))
        async with self._slots:
            if blob.digest in self._sent or await self._client.has_blob(blob.digest):
                report(Update("Layer already exists"))
                return
            size = (await in_thread(self._layers.content.info, blob.digest)).size
            source = self._mount_source(blob.digest)
            mounted = await self._client.upload(
                blob.digest,
                size,
                lambda: self._layers.content.open(blob.digest),
                mount_from=source,
                progress=lambda sent: report(Update("Pushing", sent, size)),
            )
            self._sent.add(blob.digest)
            report(Update(f"Mounted from {source}" if mounted else "Pushed"))

    def _mount_source(self, digest: str) -> str:
        """A repository of the same registry that should have the blob, as an image with it has a name there."""
        reference = self._client.reference
        for image in self._index.images():
            if digest in image.blobs:
                for name in self._index.names.of(image.id):
                    if name.domain == reference.domain and name.path != reference.path:
                        return name.path
        return ""


def _wire(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
