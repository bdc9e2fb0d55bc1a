"""Making whole again: blobs from the registry that they came from, layers by unpacking their blob once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from corten.engine.images.findings import Finding
from corten.engine.images.index import ImageIndex
from corten.engine.images.jobs import Update
from corten.engine.images.layers import Layer, LayerStore
from corten.engine.images.records import StoredImage
from corten.engine.images.threads import in_thread
from corten.errors import CortenError, DataCorrupt
from corten.registry.client import RegistryClient
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference

Connect = Callable[[Reference], RegistryClient]
"""A client for the repository of a name, with what credentials there are for it."""


class Healer:
    """Writes into a finding how it was healed, or the reason why not. Never raises for what it cannot heal."""

    def __init__(self, index: ImageIndex, layers: LayerStore, connect: Connect) -> None:
        self._index, self._layers, self._connect = index, layers, connect

    async def blob(self, finding: Finding, images: Sequence[StoredImage]) -> None:
        """Fetch a blob that `images` need; one that none needs is removed. The caller holds it."""
        digest = finding.id
        if not images:
            if await self._layers.leases.discard(digest):
                finding.healed = "removed, as no image needs it"
            else:
                finding.reason = "it came into use meanwhile; check again"
            return
        refusals = []
        for reference in self._origins(images):
            try:
                await self._fetch(self._connect(reference), digest, images)
            except CortenError as error:
                refusals.append(str(error))
            else:
                finding.healed = f"fetched again from {reference.name}"
                return
        remedy = "load, import or build the image again, or remove it"
        finding.reason = "; ".join(refusals) or f"the image came from no registry: {remedy}"

    def _origins(self, images: Sequence[StoredImage]) -> list[Reference]:
        """Repositories that the images were pulled from, one name of each: those have a digest, given names do not."""
        found: dict[str, Reference] = {}
        # Of the platforms of one index only one has the names.
        targets = {image.target.digest for image in images}
        for image in self._index.images():
            for reference in self._index.names.of(image.id) if image.target.digest in targets else ():
                if reference.digest:
                    found.setdefault(reference.name, reference)
        return list(found.values())

    async def _fetch(self, client: RegistryClient, digest: str, images: Sequence[StoredImage]) -> None:
        if all(digest not in (image.id, *image.layers) for image in images):
            await in_thread(self._layers.content.put, (await client.manifest(digest)).data)
            return
        descriptor = await self._described(client, digest, images)
        await self._layers.downloads.again(_Source(client), descriptor, _ignore)

    async def _described(self, client: RegistryClient, digest: str, images: Sequence[StoredImage]) -> Descriptor:
        """Size and type of a layer or config: from a manifest that has it, here or at the registry."""
        for image in images:
            try:
                data = await in_thread(self._layers.content.read, image.target.manifest)
            except CortenError:
                data = (await client.manifest(image.target.manifest)).data
            manifest = oci.parse_manifest(data)
            for descriptor in (*manifest.layers, manifest.config):
                if descriptor.digest == digest:
                    return descriptor
        raise DataCorrupt(f"no manifest of its images names the blob {digest}")

    async def layer(self, finding: Finding, plan: list[Layer], layer: Layer, refusal: Callable[[], str]) -> None:
        """Unpack a layer again. `refusal` says what speaks against it, such as containers that run on it."""
        try:
            if said := refusal():
                finding.reason = said
            elif await in_thread(self._recorded, layer):
                finding.reason = await self._layers.restore(layer, refusal)
            else:
                await self._layers.ensure(plan, plan.index(layer), _Source(None), _ignore)
        except CortenError as error:
            finding.reason = str(error)
        if not finding.reason:
            finding.healed = f"unpacked again from {layer.descriptor.digest}"

    def _recorded(self, layer: Layer) -> bool:
        return self._layers.committed(layer.chain_id) or self._layers.hollow(layer.chain_id)


class _Source:
    """A `downloads.BlobSource` for healing: one blob at a time."""

    def __init__(self, client: RegistryClient | None) -> None:
        self._client = client
        self.slots = asyncio.Semaphore(1)

    async def blob(
        self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]
    ) -> AsyncGenerator[bytes, None]:
        if self._client is None:
            raise DataCorrupt(f"the blob {descriptor.digest} of a layer below it is missing")
        urls = descriptor.urls if descriptor.media_type in oci.FOREIGN_LAYERS else ()
        async for part in self._client.blob(descriptor.digest, descriptor.size, offset, urls=urls, waiting=waiting):
            yield part


def _ignore(update: Update) -> None:
    """Progress of single blobs is not shown."""
