"""Pushing: blobs first, those that the registry has not; then manifests, byte for byte as they are kept."""

from __future__ import annotations

import asyncio

from corten.engine.images.index import ImageIndex, Target
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import LayerStore
from corten.engine.images.progress import ProgressStream
from corten.engine.images.saving import portable
from corten.engine.images.threads import in_thread
from corten.registry.client import RegistryClient
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor

PARALLEL_UPLOADS = 5


class Pusher:
    """Sends out what one name points to. Used once."""

    def __init__(
        self, index: ImageIndex, layers: LayerStore, client: RegistryClient, target: Target, stream: ProgressStream
    ) -> None:
        self._index, self._layers, self._client, self._target, self._stream = index, layers, client, target, stream
        self._slots = asyncio.Semaphore(PARALLEL_UPLOADS)

    async def run(self) -> None:
        reference = self._client.reference
        everything = await in_thread(portable, self._layers.content, self._target)
        self._stream.status(f"The push refers to repository [{reference.name}]")
        documents = (*oci.INDEX_TYPES, *oci.MANIFEST_TYPES)
        blobs = [descriptor for descriptor in everything if descriptor.media_type not in documents]
        async with self._layers.lease([descriptor.digest for descriptor in everything]):
            shown = [blob for blob in blobs if blob.media_type not in oci.CONFIG_TYPES]
            for blob in shown:
                self._stream.layer(digests.short(blob.digest), Update("Preparing"))
            await together(*(self._blob(blob, show=blob in shown) for blob in blobs))
            manifests = [descriptor for descriptor in everything if descriptor.media_type in documents]
            for descriptor in manifests[:-1]:
                await self._manifest(descriptor, descriptor.digest)
            top = manifests[-1]
            await self._manifest(top, reference.tag or top.digest)
        tag = reference.tag or top.digest
        self._stream.status(f"{tag}: digest: {top.digest} size: {top.size}")
        self._stream.say({"progressDetail": {}, "aux": {"Tag": tag, "Digest": top.digest, "Size": top.size}})

    async def _manifest(self, descriptor: Descriptor, name: str) -> None:
        data = await in_thread(self._layers.content.read, descriptor.digest)
        await self._client.put_manifest(name, descriptor.media_type, data)

    async def _blob(self, blob: Descriptor, *, show: bool) -> None:
        def report(update: Update) -> None:
            if show:
                self._stream.layer(digests.short(blob.digest), update)

        if self._slots.locked():
            report(Update("Waiting"))
        async with self._slots:
            if await self._client.has_blob(blob.digest):
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
            report(Update(f"Mounted from {source}" if mounted else "Pushed"))

    def _mount_source(self, digest: str) -> str:
        """A repository of the same registry that should have the blob, as an image with it has a name there."""
        reference = self._client.reference
        for image in self._index.images():
            if digest in image.blobs:
                for name in self._index.names_of(image.id):
                    if name.domain == reference.domain and name.path != reference.path:
                        return name.path
        return ""
