"""Removing images, by Docker's rules.

A name goes first, the image with its last name; what a container uses goes only by force, what one runs not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corten.engine.images.announce import ImageAnnouncer
from corten.engine.images.family import left_by
from corten.engine.images.index import ImageIndex
from corten.engine.images.layers import LayerStore
from corten.engine.images.records import StoredImage
from corten.engine.images.threads import in_thread
from corten.errors import Conflict
from corten.specs import digest as digests
from corten.specs.reference import Reference

InUse = Callable[[str], Sequence[tuple[str, bool]]]
"""The containers of an image, by its id: each one's id, and whether it is running."""

Changes = list[dict[str, str]]


class Remover:
    """Takes names and images away. The rows go at once, blobs and snapshots in the background."""

    def __init__(self, index: ImageIndex, layers: LayerStore, in_use: InUse, announce: ImageAnnouncer) -> None:
        self._index, self._layers, self._in_use, self._announce = index, layers, in_use, announce

    async def remove(self, ref: str, *, force: bool, prune: bool) -> Changes:
        """What went, in Docker's order. Call with the index's lock held. Raises NotFound, Conflict."""
        return await self._remove(*self._index.find(ref), ref, force=force, prune=prune)

    async def remove_platforms(self, ref: str, platforms: Sequence[str], *, force: bool, prune: bool) -> Changes:
        """Take the images of these platforms out of an index that `ref` names; all of them go like the name itself.

        Its names stay while an image of it does. Raises NotFound for a platform that is not here, before anything
        went.
        """
        head, reference = self._index.find(ref)
        wanted = {image.id: image for image in (self._index.for_platform(ref, text) for text in platforms)}
        rest = [image for image in self._index.family(head) if image.id not in wanted]
        if not rest:
            return await self._remove(head, reference, ref, force=force, prune=prune)
        for image in wanted.values():
            self._refuse(image, hard_only=force)
        changes: Changes = []
        if head.id in wanted:
            for name in self._index.names.of(head.id):
                named = self._index.names.get(name)
                await self._index.tag(rest[0], name, named.target if named is not None else rest[0].target)
        for image in wanted.values():
            await self._delete(image, changes)
        return changes

    async def _remove(
        self, image: StoredImage, reference: Reference | None, ref: str, *, force: bool, prune: bool
    ) -> Changes:
        names = self._index.names.of(image.id)
        changes: Changes = []
        if reference is not None:
            going = self._going_with(reference, names)
            if len(going) < len(names):
                left = left_by(self._index, going)
                changes = await self._untag(image, going)
                for member in left:
                    if not self._held([member]):
                        await self._delete(member, changes)
                return changes
            family = self._whole(image, names)
            if not force:
                for member in family:
                    self._refuse_last_name(ref, member)
            if self._held(family):
                # The name was what was asked for: it goes, and the image stays for those who need it.
                return await self._untag(image, going)
        else:
            family = self._whole(image, names) if names else [image]
            for member in family:
                self._refuse(member, hard_only=force)
            if not force and not _single_repository(names):
                raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
        for member in family:
            await self._delete(member, changes)
        if prune:
            await self._prune_parents(image, changes)
        return changes

    def _whole(self, image: StoredImage, names: Sequence[Reference]) -> list[StoredImage]:
        """The image, and those that only `names`, all of its names, stood for."""
        members = [*self._index.family(image), *left_by(self._index, names)]
        return list({member.id: member for member in members}.values())

    @staticmethod
    def _going_with(reference: Reference, names: Sequence[Reference]) -> list[Reference]:
        """The name itself and, with the last tag of a repository, the digests that were pulled along with it."""
        named = reference.with_digest(reference.digest) if reference.digest else reference
        rest = [name for name in names if name != named]
        siblings = [name for name in rest if name.name == named.name]
        if named.digest or any(name.tag for name in siblings):
            return [named]
        return [named, *siblings]

    def _refuse_last_name(self, ref: str, image: StoredImage) -> None:
        for container_id, _ in self._in_use(image.id):
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - container {container_id[:12]}'
                f" is using its referenced image {digests.short(image.id)}"
            )

    def _held(self, images: Sequence[StoredImage]) -> bool:
        """Whether what cannot be forced stands against the removal of one of `images`."""
        try:
            for image in images:
                self._refuse(image, hard_only=True)
        except Conflict:
            return True
        return False

    def _refuse(self, image: StoredImage, *, hard_only: bool) -> None:
        if self._index.children(image.id):
            raise _conflict(image, "cannot be forced", "image has dependent child images")
        users = self._in_use(image.id)
        for container_id, running in users:
            if running:
                reason = f"image is being used by running container {container_id[:12]}"
                raise _conflict(image, "cannot be forced", reason)
        if not hard_only and users:
            reason = f"image is being used by stopped container {users[0][0][:12]}"
            raise _conflict(image, "must be forced", reason)

    async def _delete(self, image: StoredImage, changes: Changes) -> None:
        names = self._index.names.of(image.id)
        await self._index.delete(image.id)
        await self._untagged(image, names, changes)
        changes.append({"Deleted": image.id})
        needed = self._index.referenced()[1]
        changes += [{"Deleted": chain_id} for chain_id in reversed(image.chain_ids) if chain_id not in needed]
        await self._announce.image("delete", image.id)
        self._layers.tasks.start(f"free {image.id}", self._layers.leases.free(image.blobs, image.chain_ids))

    async def _untag(self, image: StoredImage, names: Sequence[Reference]) -> Changes:
        changes: Changes = []
        await self._index.untag(names)
        await self._untagged(image, names, changes)
        return changes

    async def _untagged(self, image: StoredImage, names: Sequence[Reference], changes: Changes) -> None:
        for name in names:
            changes.append({"Untagged": name.familiar})
            await self._announce.image("untag", image.id, name.familiar)

    async def _prune_parents(self, image: StoredImage, changes: Changes) -> None:
        """Parents that a builder left without a name, as far as nothing else needs them."""
        parent = self._index.get(image.parent_id)
        while parent is not None and not self._index.names.of(parent.id):
            if self._index.children(parent.id) or self._in_use(parent.id):
                return
            await self._delete(parent, changes)
            parent = self._index.get(parent.parent_id)

    async def prune(self, chosen: Sequence[StoredImage]) -> tuple[Changes, int]:
        """Delete those of `chosen` that no container uses; what went, and the bytes of disk that come free."""
        changes: Changes = []
        before = self._index.referenced()[1]
        sizes = await in_thread(lambda: {chain_id: self._layers.size_known([chain_id]) for chain_id in before})
        for image in chosen:
            if not self._in_use(image.id) and not self._index.children(image.id):
                await self._delete(image, changes)
        gone = before - self._index.referenced()[1]
        return changes, sum(sizes[chain_id] for chain_id in gone)


def _single_repository(names: Sequence[Reference]) -> bool:
    """At most one tag, and digests of its repository only: then an id means them all."""
    tags = [name for name in names if name.tag]
    return len(tags) <= 1 and len({name.name for name in names}) <= 1


def _conflict(image: StoredImage, force: str, reason: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {digests.short(image.id)} ({force}) - {reason}")
