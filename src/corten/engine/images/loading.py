"""`docker load`: the images of an archive, unpacked and named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from corten.engine.images import archive as archives
from corten.engine.images.archive import Candidate
from corten.engine.images.downloads import NoSource
from corten.engine.images.family import ANNOTATION_DESCRIBES
from corten.engine.images.index import ImageIndex
from corten.engine.images.intake import Intake, intake
from corten.engine.images.jobs import Update, together
from corten.engine.images.layers import Layer, LayerStore, plan_layers
from corten.engine.images.listing import enlist
from corten.engine.images.progress import ProgressStream
from corten.engine.images.pull import MAX_INDEX_DEPTH, describe
from corten.engine.images.records import StoredImage, Target
from corten.engine.images.saving import closure
from corten.engine.images.threads import ThreadBody, in_thread
from corten.errors import InvalidArgument, NotFound, clip
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs import reference as references
from corten.specs.oci_image import Descriptor, ImageConfig, Manifest
from corten.specs.reference import Reference


def _missing(descriptor: Descriptor) -> InvalidArgument:
    return InvalidArgument(f"invalid archive: blob {descriptor.digest} is missing")


@dataclass(frozen=True, slots=True)
class _Offer:
    """A manifest in the archive, and the documents from the top down to it."""

    manifest: Descriptor
    documents: list[str]


@dataclass(frozen=True, slots=True)
class _Choice:
    """An image to load; `documents` are blobs of its own besides config and layers."""

    target: Target
    manifest: Manifest
    config: ImageConfig
    documents: list[str]

    @property
    def image_id(self) -> str:
        return self.manifest.config.digest


class Loader:
    """Takes in one archive. Used once. A failure leaves neither images nor blobs of this archive behind that were not
    there before; images that were complete before it stay.
    """

    def __init__(
        self, index: ImageIndex, layers: LayerStore, wanted: Sequence[str], stream: ProgressStream, *, quiet: bool
    ) -> None:
        """`wanted` are platforms; without any, all that the archive has are loaded."""
        self._index, self._layers, self._stream, self._quiet = index, layers, stream, quiet
        self._platforms = [platforms.parse(text) for text in wanted]

    async def run(self, source: AsyncIterator[bytes]) -> list[StoredImage]:
        async with intake(self._layers) as blobs:
            found = await self._receive(source, blobs)
            return [image for candidate in found for image in await self._load(candidate)]

    async def _receive(self, source: AsyncIterator[bytes], blobs: Intake) -> list[Candidate]:
        body = ThreadBody(source)

        def read() -> list[Candidate]:
            archive = archives.receive(body, blobs)
            return archives.candidates(archive, self._layers.content, blobs)

        return await body.run(read)

    async def _load(self, candidate: Candidate) -> list[StoredImage]:
        names = list(dict.fromkeys(_name(text) for text in candidate.names))
        chosen = await in_thread(self._choose, candidate.target)
        # The one that the names are for is stored last: by then the others of its index are there.
        images = [await self._bring(choice, []) for choice in reversed(chosen[1:])]
        for name in names:
            known = self._index.names.get(name)
            if known is not None and known.image_id != chosen[0].image_id:
                text = f"The image {name.familiar} already exists, renaming the old one with ID"
                self._stream.say({"stream": f"{text} {known.image_id} to empty string\n"})
        images.append(await self._bring(chosen[0], names))
        for name in names:
            self._stream.say({"stream": f"Loaded image: {name.familiar}\n"})
        if not names:
            self._stream.say({"stream": f"Loaded image ID: {images[-1].id}\n"})
        return images

    async def _bring(self, choice: _Choice, names: list[Reference]) -> StoredImage:
        plan = plan_layers(choice.manifest.layers, choice.config.rootfs.diff_ids)
        layers = (layer.digest for layer in choice.manifest.layers)
        blobs = sorted({*choice.documents, choice.image_id, *layers})
        async with self._layers.leases.take([*blobs, *(layer.chain_id for layer in plan)]):
            await together(*(self._layer(plan, at) for at in range(len(plan))))
            image = await describe(self._layers, choice.target, choice.config, choice.manifest, plan, blobs)
            await enlist(self._index, self._layers, image, names)
        return image

    async def _layer(self, plan: list[Layer], at: int) -> None:
        id = digests.short(plan[at].diff_id)

        def report(update: Update) -> None:
            if update.status == "Extracting" and not self._quiet:
                self._stream.layer(id, Update("Loading layer", update.current, update.total))

        await self._layers.ensure(plan, at, NoSource(_missing), report)

    def _choose(self, top: Descriptor) -> list[_Choice]:
        """The images to load of what the names in the archive stand for, the one that they will mean first (blocking).

        Raises NotFound for a platform that was asked for and is not in the archive.
        """
        offers, extra = self._offers(top, set(), 0)
        found = [self._read(top, offer) for offer in offers]
        here = [choice.config.platform for choice in found]
        if self._platforms:
            order = [platforms.best(platform, here) for platform in self._platforms]
            if None in order:
                missing = self._platforms[order.index(None)]
                raise NotFound("image", top.digest, f"the archive has no image for platform {missing}")
        else:
            order = [platforms.best(platforms.host(), here), *range(len(found))]
        chosen = [found[at] for at in dict.fromkeys(order) if at is not None]
        if not chosen:
            raise NotFound("image", top.digest, "the archive has an index without any of its images")
        for choice in chosen:
            choice.documents.extend(digest for about, digest in extra if about == choice.target.manifest)
        return chosen

    def _offers(self, top: Descriptor, seen: set[str], depth: int) -> tuple[list[_Offer], list[tuple[str, str]]]:
        """Manifests of images below `top` that are here, with the documents on the way; and (the manifest that is
        described, blob) of what is said about them. What is in `seen` is left out: indexes that hold the same ones a
        thousand times each would otherwise be gone through a thousand times a thousand times.
        """
        content = self._layers.content
        if top.media_type not in oci.INDEX_TYPES:
            if not content.exists(top.digest):
                raise InvalidArgument(f"invalid archive: the manifest {top.digest} is missing")
            return [_Offer(top, [top.digest])], []
        if depth > MAX_INDEX_DEPTH:
            raise InvalidArgument("invalid archive: its index holds indexes too deep to follow")
        offers: list[_Offer] = []
        extra: list[tuple[str, str]] = []
        for child in archives.read_index(content, top.digest).manifests:
            about = child.annotations.get(ANNOTATION_DESCRIBES, "")
            if child.media_type not in (*oci.MANIFEST_TYPES, *oci.INDEX_TYPES) or not content.exists(child.digest):
                continue
            if child.digest in seen:
                continue
            seen.add(child.digest)
            if about:
                extra += [(about, found.digest) for found in closure(content, child.digest, child.media_type) or []]
                continue
            inner, said = self._offers(child, seen, depth + 1)
            offers += [_Offer(offer.manifest, [top.digest, *offer.documents]) for offer in inner]
            extra += said
        return offers, extra

    def _read(self, top: Descriptor, offer: _Offer) -> _Choice:
        content = self._layers.content
        manifest = archives.read_manifest(content, offer.manifest.digest)
        try:
            config = oci.parse_config(content.read(manifest.config.digest))
        except NotFound:
            raise InvalidArgument(f"invalid archive: the config {manifest.config.digest} is missing") from None
        target = Target(
            digest=top.digest,
            media_type=top.media_type,
            manifest=offer.manifest.digest,
            manifest_media_type=offer.manifest.media_type,
        )
        return _Choice(target, manifest, config, list(offer.documents))


def _name(text: str) -> Reference:
    try:
        return references.parse(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid archive: {clip(text, 128)!r}: {error}") from None
