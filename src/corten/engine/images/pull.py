"""Pulling: what a name means at its registry, the platform's manifest of it, its layers, and at last the name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from corten.engine.images.index import ImageIndex
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import Layer, LayerStore, plan_layers
from corten.engine.images.listing import enlist
from corten.engine.images.progress import ProgressStream
from corten.engine.images.records import StoredImage, Target
from corten.engine.images.threads import in_thread
from corten.errors import CortenError, InvalidArgument, NotFound, SystemFault, clip
from corten.registry.client import MAX_MANIFEST, Fetched, RegistryClient
from corten.registry.transport import NoAnswer
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs.oci_image import Descriptor, ImageConfig, Manifest
from corten.specs.platform import Platform
from corten.specs.reference import Reference

MAX_INDEX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Found:
    """An image at the registry: documents fetched and checked, layers not yet. `documents` are manifest, indexes and
    config as they came, by digest.
    """

    target: Target
    manifest: Manifest
    config: ImageConfig
    layers: list[Layer]
    documents: dict[str, bytes]

    @property
    def blobs(self) -> list[str]:
        return sorted({*self.documents, *(layer.descriptor.digest for layer in self.layers)})


@dataclass(frozen=True, slots=True)
class RegistryBlobs:
    """A `downloads.BlobSource`: the blobs of a repository, as many at a time as `slots` lets through."""

    client: RegistryClient
    slots: asyncio.Semaphore

    def blob(self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
        urls = descriptor.urls if descriptor.media_type in oci.FOREIGN_LAYERS else ()
        return self.client.blob(descriptor.digest, descriptor.size, offset, urls=urls, waiting=waiting)


class Puller:
    """Brings in one image, or all that a repository has names for. Used once; `downloads` blobs come at a time."""

    def __init__(
        self,
        index: ImageIndex,
        layers: LayerStore,
        client: RegistryClient,
        platform: str,
        stream: ProgressStream,
        downloads: int,
    ) -> None:
        self._index, self._layers, self._client = index, layers, client
        self._source = RegistryBlobs(client, asyncio.Semaphore(downloads))
        self._platform = platforms.parse(platform) if platform else None
        self._stream = stream

    async def run(self, pulled: Callable[[Reference], Awaitable[None]]) -> None:
        """Pull what the client's reference names, all tags where it has neither tag nor digest.

        `pulled` is told each name once its image is there. Raises what the registry or the disk refuses.
        """
        reference = self._client.reference
        if reference.tag or reference.digest:
            new = await self._pull(self._client)
            await pulled(reference)
        else:
            new = False
            for tag in await self._client.tags():
                named = self._client.at(reference.with_tag(tag))
                new |= await self._pull(named)
                await pulled(named.reference)
        word = "Downloaded newer image for" if new else "Image is up to date for"
        self._stream.status(f"Status: {word} {reference.familiar}")

    async def _pull(self, client: RegistryClient) -> bool:
        """One name; whether it is a newer image than before, or one that was made whole again."""
        reference = client.reference
        if (current := await self._up_to_date(client)) is not None:
            self._say_from(reference)
            self._stream.status(f"Digest: {current.target.digest}")
            return False
        found = await self._find(client)
        self._say_from(reference)
        await self._layers.admit(found.layers)
        keys = [*found.blobs, *(layer.chain_id for layer in found.layers)]
        needed = await in_thread(self._needed, found.layers) if self._layers.budget.limit else 0
        async with self._layers.leases.take(keys), self._layers.budget.room(needed, reference.familiar):
            await self._bring(found)
            await self._store(found, reference)
        self._stream.status(f"Digest: {found.target.digest}")
        return True

    def _say_from(self, reference: Reference) -> None:
        # Where both are given, the digest decides, and the tag is only a note.
        self._stream.status(f"Pulling from {reference.path}", reference.digest or reference.tag)

    async def _up_to_date(self, client: RegistryClient) -> StoredImage | None:
        """The image that the name means already, when the registry says the same and nothing of it is damaged."""
        reference = client.reference
        named = self._index.names.get(reference)
        stored = self._index.get(named.image_id) if named is not None else None
        if named is None or stored is None or stored.target != named.target:
            return None
        # Of an index it may be the image of another platform than is wanted now, or one that only serves as well.
        wanted = self._platform or platforms.host()
        if stored.target.digest != stored.target.manifest and platforms.recorded(stored.platform) != wanted:
            return None
        try:
            if await client.resolve() != named.target.digest:
                return None
        except NoAnswer:
            raise
        except CortenError:
            return None  # the answer to a HEAD has no words; asked again for the manifest, the registry says why
        return stored if await in_thread(self._whole, stored) else None

    def _whole(self, stored: StoredImage) -> bool:
        """Whether everything is there, and documents are what their digests say; large blobs are not read for it."""
        layers = set(stored.layers)
        content = self._layers.content
        try:
            for digest in stored.blobs:
                # Layers that the image has in another form too, as an archive brought them, are in no list.
                if digest not in layers and content.info(digest).size <= MAX_MANIFEST:
                    content.read(digest)
                elif not content.exists(digest):
                    return False
        except CortenError:
            return False
        return all(self._layers.committed(chain_id) for chain_id in stored.chain_ids)

    async def _find(self, client: RegistryClient) -> Found:
        top = fetched = await client.manifest()
        documents = {top.digest: top.data}
        depth = 0
        while fetched.media_type in oci.INDEX_TYPES:
            depth += 1
            if depth > MAX_INDEX_DEPTH:
                raise SystemFault("the image index holds indexes too deep to follow", step="registry")
            chosen = self._choose(fetched)
            fetched = await client.manifest(chosen.digest)
            documents[fetched.digest] = fetched.data
        manifest = oci.parse_manifest(fetched.data)
        config = await self._config(manifest, documents)
        target = Target(
            digest=top.digest,
            media_type=top.media_type,
            manifest=fetched.digest,
            manifest_media_type=fetched.media_type,
        )
        return Found(target, manifest, config, plan_layers(manifest.layers, config.rootfs.diff_ids), documents)

    def _choose(self, fetched: Fetched) -> Descriptor:
        offers = oci.parse_index(fetched.data).manifests
        wanted = self._platform or platforms.host()
        known = [offer for offer in offers if offer.media_type in (*oci.MANIFEST_TYPES, *oci.INDEX_TYPES)]
        best = platforms.best(wanted, [offer.platform or Platform() for offer in known])
        if best is not None:
            return known[best]
        # An index that leaves the platform out, as some tools write for a single image, means whatever is in it.
        if len(known) == 1 and known[0].platform is None:
            return known[0]
        text = f"no matching manifest for {wanted} in the manifest list entries"
        raise NotFound("manifest", self._client.reference.familiar, text)

    async def _config(self, manifest: Manifest, documents: dict[str, bytes]) -> ImageConfig:
        descriptor = manifest.config
        if descriptor.media_type not in (*oci.CONFIG_TYPES, *oci.ODD_CONFIG_TYPES):
            raise _no_image(descriptor)
        for layer in manifest.layers:
            # Signatures and attestations call themselves images too; what they have for layers is documents.
            if layer.media_type.endswith("+json"):
                raise _no_image(layer)
        data = await self._client.config(descriptor)
        documents[descriptor.digest] = data
        config = oci.parse_config(data)
        if config.os and config.os != "linux":
            raise InvalidArgument(
                f'image operating system "{config.os}" cannot be used on this platform: '
                "operating system is not supported"
            )
        return config

    def _needed(self, layers: list[Layer]) -> int:
        """Bytes that what is missing takes at least: each blob, and its files, which are rarely less."""
        blobs = {layer.descriptor.digest: layer.descriptor.size for layer in layers}
        missing = sum(size for digest, size in blobs.items() if not self._layers.content.exists(digest))
        return missing + sum(layer.descriptor.size for layer in layers if not self._layers.committed(layer.chain_id))

    async def _bring(self, found: Found) -> None:
        for data in found.documents.values():
            await in_thread(self._layers.content.put, data)
        missing = []
        for at, layer in enumerate(found.layers):
            id = digests.short(layer.descriptor.digest)
            if await in_thread(self._layers.complete, [layer]):
                self._stream.layer(id, Update("Already exists"))
            else:
                self._stream.layer(id, Update("Pulling fs layer"))
                missing.append((at, id))
        await together(*(self._one(found.layers, at, id) for at, id in missing))

    async def _one(self, layers: list[Layer], at: int, id: str) -> None:
        await self._layers.ensure(layers, at, self._source, self._stream.observer(id))
        self._stream.layer(id, Update("Pull complete"))

    async def _store(self, found: Found, reference: Reference) -> StoredImage:
        image = await describe(self._layers, found.target, found.config, found.manifest, found.layers, found.blobs)
        names = [reference.with_digest(found.target.digest)]
        if reference.tag and not reference.digest:
            names.append(reference)
        await enlist(self._index, self._layers, image, names)
        return image


def _no_image(descriptor: Descriptor) -> InvalidArgument:
    return InvalidArgument(f"unsupported media type {clip(descriptor.media_type, 100)}: this is no container image")


async def describe(
    layers: LayerStore,
    target: Target,
    config: ImageConfig,
    manifest: Manifest,
    plan: list[Layer],
    blobs: list[str],
) -> StoredImage:
    """The record of an image whose layers are committed."""

    return StoredImage(
        id=manifest.config.digest,
        target=target,
        size=await in_thread(layers.size_of, [layer.chain_id for layer in plan]),
        created_ns=config.created_ns,
        platform=str(config.platform.normalised() if config.os else platforms.host()),
        chain_ids=[layer.chain_id for layer in plan],
        layers=[layer.descriptor.digest for layer in plan],
        blobs=blobs,
    )
