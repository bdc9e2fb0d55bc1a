"""Which images there are and what they are called: in memory for reading, one durable write for each change, which is
there whole or not at all, whenever the power goes.

Two kinds of documents: an image by its id, and a name by its canonical spelling (with a tag or a digest).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from corten.clock import Clock
from corten.engine.images.names import ImageNames
from corten.engine.images.records import StoredImage, StoredName, Target
from corten.engine.images.views import ImageViews
from corten.errors import NotFound
from corten.specs import digest as digests
from corten.specs import platform as platforms
from corten.specs import reference as references
from corten.specs.reference import Reference
from corten.storage.types import JointDocuments


class ImageIndex:
    """See the module. `lock` is held by those who look and then change.

    Images of one index, each of a platform of its own, are a family: those that have no name are kept, shown and
    removed with the one that the names point to, their head. An image may have come in several indexes, of which its
    `target` is the last, and each name keeps the one that it was given with.
    """

    def __init__(
        self, images: JointDocuments, names: JointDocuments, clock: Clock, blob_size: Callable[[str], int] | None = None
    ) -> None:
        self.lock = asyncio.Lock()
        self.names = ImageNames()
        self.views = ImageViews(self.names, blob_size or (lambda digest: 0))
        self._image_documents, self._name_documents, self._clock = images, names, clock
        self._images = {id: msgspec.json.decode(body, type=StoredImage) for id, body in images.all().items()}
        self._by_target: dict[str, set[str]] = {}
        for image in self._images.values():
            self._by_target.setdefault(image.target.digest, set()).add(image.id)
        for name, body in names.all().items():
            stored = msgspec.json.decode(body, type=StoredName)
            if stored.image_id in self._images:
                self._remember(name, stored)

    def images(self) -> Sequence[StoredImage]:
        return list(self._images.values())

    def get(self, id: str) -> StoredImage | None:
        return self._images.get(id)

    def find(self, text: str) -> tuple[StoredImage, Reference | None]:
        """The image that `text` means: an id, a name, or an unambiguous start of an id, in this order.

        With it comes the name by which it was found. Raises NotFound, InvalidArgument for what is no reference.
        """
        if digests.is_digest(text) or digests.is_digest("sha256:" + text):
            id = text if text.startswith("sha256:") else "sha256:" + text
            if id in self._images:
                return self._images[id], None
            raise NotFound("image", text)
        reference = references.parse(text)
        if (named := self.names.lookup(reference)) is not None:
            return self._images[named.image_id], reference
        start = "sha256:" + text.removeprefix("sha256:")
        matches = [id for id in self._images if id.startswith(start)] if len(start) > len("sha256:") else []
        if len(matches) == 1:
            return self._images[matches[0]], None
        raise NotFound("image", reference.familiar)

    def for_platform(self, text: str, platform: str) -> StoredImage:
        """Like `find`, of the images under a name the one that serves `platform` best. Raises NotFound."""
        stored, reference = self.find(text)
        if not platform:
            return stored
        target = stored.target.digest
        if reference is not None and (named := self.names.lookup(reference)) is not None:
            target = named.target.digest
        offered = [stored, *(self._images[id] for id in sorted(self._by_target.get(target, ())) if id != stored.id)]
        best = platforms.best(platforms.parse(platform), [platforms.recorded(image.platform) for image in offered])
        if best is None:
            raise NotFound(
                "image",
                text,
                f"image with reference {text} was found but does not provide the specified platform ({platform})",
            )
        return offered[best]

    def family(self, stored: StoredImage) -> list[StoredImage]:
        """The image and, of one that came in an index, those of the index's other platforms without a name."""
        if stored.target.digest == stored.target.manifest:
            return [stored]
        others = [self._images[id] for id in sorted(self._by_target.get(stored.target.digest, ())) if id != stored.id]
        return [stored, *(other for other in others if not self.names.spelled(other.id))]

    async def add(self, image: StoredImage, names: Iterable[Reference] = ()) -> None:
        """Store `image` and point `names` to it; durable on return. An image that is there keeps what it had."""
        known = self._images.get(image.id)
        if known is not None:
            image.blobs = sorted({*known.blobs, *image.blobs})
            image.parent_id = image.parent_id or known.parent_id
            image.last_tagged_ns = known.last_tagged_ns
        wanted = list(names)
        if wanted:
            image.last_tagged_ns = self._clock.now_ns()
        await self._store(image, wanted, image.target)
        if known is not None:
            self._by_target[known.target.digest].discard(image.id)
            self._changed(known)
        self._images[image.id] = image
        self._by_target.setdefault(image.target.digest, set()).add(image.id)
        self._changed(image)
        self._point(wanted, image, image.target)

    async def tag(self, image: StoredImage, reference: Reference, target: Target) -> None:
        """Point one more name to an image; a name that points elsewhere moves."""
        tagged_ns = self._clock.now_ns()
        await self._store(msgspec.structs.replace(image, last_tagged_ns=tagged_ns), [reference], target)
        image.last_tagged_ns = tagged_ns
        self._point([reference], image, target)

    async def point(self, reference: Reference, image_id: str, target: Target) -> None:
        """A name more, or another meaning of one, without it being the user who gives it: durable on return."""
        known, image = self.names.get(reference), self._images.get(image_id)
        if image is not None and (known is None or known.image_id != image_id or known.target != target):
            await self._store(image, [reference], target)
            self._point([reference], image, target)

    async def _store(self, image: StoredImage, names: Sequence[Reference], target: Target) -> None:
        body = msgspec.json.encode(self._named(image, target))
        named = {reference.canonical: body for reference in names}
        await self._image_documents.change({image.id: msgspec.json.encode(image)}, self._name_documents, named)

    def _named(self, image: StoredImage, target: Target) -> StoredName:
        return StoredName(image_id=image.id, target=target, tagged_ns=image.last_tagged_ns)

    def _point(self, names: Iterable[Reference], image: StoredImage, target: Target) -> None:
        """Keep in mind what was stored."""
        for reference in names:
            self._forget(reference.canonical)
            self._remember(reference.canonical, self._named(image, target))

    async def untag(self, names: Sequence[Reference]) -> None:
        """Take names away; durable on return."""
        gone: dict[str, None] = dict.fromkeys(reference.canonical for reference in names)
        await self._name_documents.change(gone, self._image_documents, {})
        for name in gone:
            self._forget(name)

    async def delete(self, id: str) -> StoredImage | None:
        """Forget an image and its names; durable on return."""
        gone: dict[str, None] = dict.fromkeys(self.names.spelled(id))
        await self._image_documents.change({id: None}, self._name_documents, gone)
        for name in gone:
            self._forget(name)
        image = self._images.pop(id, None)
        if image is not None:
            members = self._by_target[image.target.digest]
            members.discard(id)
            self._changed(image)
            if not members:
                del self._by_target[image.target.digest]
        return image

    def _changed(self, image: StoredImage, target: Target | None = None) -> None:
        """Views of it and of its family, and of all that came in `target`, are made anew."""
        self.views.drop(image.id)
        for digest in {image.target.digest, (target or image.target).digest}:
            for id in self._by_target.get(digest, ()):
                self.views.drop(id)

    def referenced(self) -> tuple[set[str], set[str]]:
        """Blobs and chain ids that some image needs."""
        blobs: set[str] = set()
        chains: set[str] = set()
        for image in self._images.values():
            blobs.update(image.blobs)
            chains.update(image.chain_ids)
        return blobs, chains

    def children(self, id: str) -> bool:
        return any(image.parent_id == id for image in self._images.values())

    def _remember(self, name: str, stored: StoredName) -> None:
        self.names.remember(name, stored)
        self._changed(self._images[stored.image_id], stored.target)

    def _forget(self, name: str) -> None:
        if (old := self.names.forget(name)) is not None and (image := self._images.get(old.image_id)) is not None:
            self._changed(image, old.target)
