"""`docker load`: the images of an archive, unpacked and named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from corten.engine.images import archive as archives
from corten.engine.images.archive import Candidate
from corten.engine.images.index import ImageIndex, StoredImage, Target
from corten.engine.images.intake import Intake, intake
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import Layer, LayerStore, plan_layers
from corten.engine.images.progress import ProgressStream
from corten.engine.images.pull import describe
from corten.engine.images.threads import ThreadBody, in_thread, to_the_end
from corten.errors import InvalidArgument, NotFound, clip
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs import reference as references
from corten.specs.oci_image import Descriptor
from corten.specs.platform import Platform
from corten.specs.reference import Reference


class _NoSource:
    """Everything that an archive brings is in the store before layers are made; what is not there is missing in it."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(1)

    async def blob(
        self, descriptor: Descriptor, offset: int, waiting: Callable[[int], None]
    ) -> AsyncGenerator[bytes, None]:
        raise InvalidArgument(f"invalid archive: blob {descriptor.digest} is missing")
        yield b""


class Loader:
    """Takes in one archive. Used once. A failure leaves neither images nor blobs of this archive behind that were not
    there before; images that were complete before it stay.
    """

    def __init__(
        self, index: ImageIndex, layers: LayerStore, platform: str, stream: ProgressStream, *, quiet: bool
    ) -> None:
        self._index, self._layers, self._stream, self._quiet = index, layers, stream, quiet
        self._asked = bool(platform)
        self._platform = platforms.parse(platform) if platform else platforms.host()

    async def run(self, source: AsyncIterator[bytes]) -> list[StoredImage]:
        async with intake(self._layers) as blobs:
            found = await self._receive(source, blobs)
            return [await self._load(candidate) for candidate in found]

    async def _receive(self, source: AsyncIterator[bytes], blobs: Intake) -> list[Candidate]:
        body = ThreadBody(source)

        def read() -> list[Candidate]:
            archive = archives.receive(body, blobs)
            return archives.candidates(archive, self._layers.content, blobs)

        return await body.run(read)

    async def _load(self, candidate: Candidate) -> StoredImage:
        names = [_name(text) for text in dict.fromkeys(candidate.names)]
        target, documents = await in_thread(self._choose, candidate.target)
        content = self._layers.content
        manifest = await in_thread(archives.read_manifest, content, target.manifest)
        try:
            config = oci.parse_config(await in_thread(content.read, manifest.config.digest))
        except NotFound:
            raise InvalidArgument(f"invalid archive: the config {manifest.config.digest} is missing") from None
        plan = plan_layers(manifest.layers, config.rootfs.diff_ids)
        blobs = sorted({*documents, manifest.config.digest, *(layer.digest for layer in manifest.layers)})
        async with self._layers.lease([*blobs, *(layer.chain_id for layer in plan)]):
            await together(*(self._layer(plan, at) for at in range(len(plan))))
            image = await describe(self._layers, target, config, manifest, plan, blobs)
            async with self._index.lock:
                await to_the_end(self._layers.tasks, f"store {image.id}", self._index.add(image, names))
        for name in dict.fromkeys(names):
            self._stream.say({"stream": f"Loaded image: {name.familiar}\n"})
        if not names:
            self._stream.say({"stream": f"Loaded image ID: {image.id}\n"})
        return image

    async def _layer(self, plan: list[Layer], at: int) -> None:
        id = digests.short(plan[at].diff_id)

        def report(update: Update) -> None:
            if update.status == "Extracting" and not self._quiet:
                self._stream.layer(id, Update("Loading layer", update.current, update.total))

        await self._layers.ensure(plan, at, _NoSource(), report)

    def _choose(self, top: Descriptor) -> tuple[Target, list[str]]:
        """The manifest to load under `top`, and the documents on the way to it."""
        content = self._layers.content
        at, documents = top, [top.digest]
        while at.media_type in oci.INDEX_TYPES:
            here = [
                offer
                for offer in archives.read_index(content, at.digest).manifests
                if offer.media_type in (*oci.MANIFEST_TYPES, *oci.INDEX_TYPES) and content.exists(offer.digest)
            ]
            best = platforms.best(self._platform, [offer.platform or Platform() for offer in here])
            if best is None and (self._asked or not here or len(documents) > 3):
                raise NotFound("image", top.digest, f"the archive has no image for platform {self._platform}")
            at = here[best or 0]
            documents.append(at.digest)
        if not content.exists(at.digest):
            raise InvalidArgument(f"invalid archive: the manifest {at.digest} is missing")
        target = Target(
            digest=top.digest, media_type=top.media_type, manifest=at.digest, manifest_media_type=at.media_type
        )
        return target, documents


def _name(text: str) -> Reference:
    try:
        return references.parse(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid archive: {clip(text, 128)!r}: {error}") from None
