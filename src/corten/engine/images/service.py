"""The image service: what `api.docker.backends.ImageBackend` asks for, and `resolve` for the container service."""

from __future__ import annotations

import builtins
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from corten.clock import Clock
from corten.engine.images import committing, family, saving, selecting
from corten.engine.images.announce import Emit, ImageAnnouncer
from corten.engine.images.archives import ImageArchives
from corten.engine.images.budget import Budget, disk_full
from corten.engine.images.committing import Commitment
from corten.engine.images.family import size_of
from corten.engine.images.index import ImageIndex
from corten.engine.images.layers import LayerStore
from corten.engine.images.progress import ProgressStream
from corten.engine.images.pull import Puller
from corten.engine.images.push import Pusher
from corten.engine.images.records import StoredImage
from corten.engine.images.removal import Changes, InUse, Remover
from corten.engine.images.threads import in_thread, to_the_end
from corten.engine.models import Filters, Image, ImageDetails, ImageManifest, ProgressMessage, RegistryAuth
from corten.errors import InvalidArgument, NotFound, SystemFault
from corten.registry.auth import Credentials
from corten.registry.client import RegistryClient
from corten.registry.transport import Transport
from corten.specs import oci_image as oci
from corten.specs import reference as references
from corten.specs.oci_image import ImageConfig
from corten.specs.reference import Reference
from corten.storage.types import ContentStore, HealingSnapshotter, JointDocuments, LayerApplier
from corten.tasks import TaskOwner

KEPT_CONFIGS = 64
"""Parsed configs that stay in memory for the next container of the same image."""


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """What a container is made of: `name` as the user said it, `chain_id` "" for an image without layers."""

    id: str
    config: ImageConfig
    chain_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ImageParts:
    """What the image service stands on. The registry transport is closed by its owner, not by the service."""

    content: ContentStore
    snapshotter: HealingSnapshotter
    applier: LayerApplier
    images: JointDocuments
    names: JointDocuments
    registries: Transport
    clock: Clock
    events: Emit
    in_use: InUse
    max_downloads: int = 3
    storage_limit: int = 0
    stored: Callable[[], int] = lambda: 0
    """Bytes that count against the limit (blocking); asked only where there is one."""
    max_uploads: int = 5


class ImageService:
    """Images by name and id. Entering it cleans up what a crash left, leaving it cancels what is going on."""

    def __init__(self, parts: ImageParts) -> None:
        self._clock, self._registries = parts.clock, parts.registries
        self._announce = ImageAnnouncer(parts.events, self._config)
        self._tasks = TaskOwner("images")
        self._index = ImageIndex(parts.images, parts.names, parts.clock, partial(size_of, parts.content))
        self._layers = LayerStore(parts.content, parts.snapshotter, parts.applier, self._tasks, self._index.referenced)
        # For what looks after the stores beside this service: the check of them.
        self.index, self.layers = self._index, self._layers
        self.archives = ImageArchives(self._index, self._layers, self._announce, parts.clock)
        self._layers.budget = Budget(parts.stored, self._free_dangling, parts.storage_limit)
        self.max_downloads = parts.max_downloads
        """Layers that each pull from now on fetches at a time."""
        self.max_uploads = parts.max_uploads
        self._remover = Remover(self._index, self._layers, parts.in_use, self._announce)
        self._in_use = parts.in_use
        self._configs: OrderedDict[str, ImageConfig] = OrderedDict()

    async def __aenter__(self) -> ImageService:
        self._tasks.start("sweep", self._layers.sweep(self._clock.now_ns() / 1e9))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close("the image service is closed")

    async def resolve(self, ref: str, platform: str = "") -> ResolvedImage:
        """The image for a new container. Raises NotFound in Docker's words, InvalidArgument for a bad reference."""
        image = self._index.for_platform(ref, platform)
        config = await self._config(image.id)
        return ResolvedImage(image.id, config, image.chain_ids[-1] if image.chain_ids else "", ref)

    async def _config(self, id: str) -> ImageConfig:
        if id not in self._configs:
            self._configs[id] = oci.parse_config(await in_thread(self._layers.content.read, id))
            if len(self._configs) > KEPT_CONFIGS:
                self._configs.popitem(last=False)
        self._configs.move_to_end(id)
        return self._configs[id]

    def list(self) -> Sequence[Image]:
        """All images, the newest first."""
        images = sorted(self._index.images(), key=lambda image: image.created_ns, reverse=True)
        return [self._index.views.of(image) for image in images]

    def get(self, ref: str) -> Image:
        return self._index.views.of(self._index.find(ref)[0])

    async def details(self, ref: str, platform: str = "") -> ImageDetails:
        image = self._index.for_platform(ref, platform)

        def read() -> tuple[bytes, builtins.list[int]]:
            sizes = [self._layers.size_of([chain_id]) for chain_id in image.chain_ids]
            return self._layers.content.read(image.id), sizes

        data, sizes = await in_thread(read)
        view = self._index.views.of(image)
        if platform and (head := self._index.get(view.head)) is not None:
            shown = self._index.views.of(head)
            view = msgspec.structs.replace(view, names=shown.names, digests=shown.digests)
        return ImageDetails(view, msgspec.json.decode(data), sizes)

    async def manifests(self, ref: str) -> Sequence[ImageManifest]:
        """What the image's names point to, manifest by manifest."""
        image, name = self._index.find(ref)
        targets = family.targets_of(self._index, image, name)
        members = family.family(self._index, targets)
        return await in_thread(family.manifests, self._layers.content, image, targets, members)

    async def pull(
        self, ref: str, platform: str, auth: RegistryAuth | None, *, all_tags: bool = False
    ) -> AsyncIterator[ProgressMessage]:
        reference = references.parse(ref, default_tag=not all_tags)
        client = RegistryClient(self._registries, reference, _credentials(auth))
        await client.locate()
        stream = ProgressStream(self._clock)
        puller = Puller(self._index, self._layers, client, platform, stream, self.max_downloads)
        done = self._with_room(lambda: puller.run(partial(self._told, "pull")))
        async with aclosing(stream.run(self._tasks, f"pull {reference.familiar}", done)) as told:
            async for line in told:
                yield line

    async def push(self, ref: str, auth: RegistryAuth | None, platform: str = "") -> AsyncIterator[ProgressMessage]:
        """Without a tag in `ref` all tags of its repository."""
        reference = references.parse(ref, default_tag=False)
        names = [reference] if reference.tag or reference.digest else self._index.names.tags_in(reference.name)
        missing = next((name for name in names if self._index.names.get(name) is None), None)
        if missing is not None and self._index.names.tags_in(reference.name):
            raise NotFound("image", ref, f"tag does not exist: {missing.familiar}")
        if not names or missing is not None:
            name = reference.familiar_name
            raise NotFound("image", ref, f"An image does not exist locally with the tag: {name}")
        client = RegistryClient(self._registries, reference, _credentials(auth), push=True)
        await client.locate()
        stream = ProgressStream(self._clock)
        pusher = Pusher(self._index, self._layers, client, stream, self.max_uploads)
        done = pusher.run(names, platform, self._pushed)
        async with aclosing(stream.run(self._tasks, f"push {reference.familiar}", done)) as told:
            async for line in told:
                yield line

    async def _pushed(self, name: Reference, digest: str) -> None:
        """An image is known by the digest that a registry has it under, be it pulled from there or pushed to it."""
        await self._told("push", name)
        async with self._index.lock:
            named = self._index.names.get(name)
            targets = [named.target, saving.alone(named.target)] if named is not None else []
            target = next((target for target in targets if target.digest == digest), None)
            if named is not None and target is not None:
                work = self._index.point(name.with_digest(digest), named.image_id, target)
                await to_the_end(self._tasks, f"note {digest}", work)

    async def commit(self, wanted: Commitment, still: AbstractAsyncContextManager[None]) -> str:
        """See `engine.commit.Committer`."""
        image = await committing.run(self._index, self._layers, wanted, still)
        await self._announce.image("create", image.id)
        if wanted.reference is not None:
            await self._announce.image("tag", image.id, wanted.reference.familiar)
        return image.id

    async def tag(self, ref: str, target: str) -> None:
        wanted = references.parse(target)
        if wanted.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        async with self._index.lock:
            image, reference = self._index.find(ref)
            named = self._index.names.get(reference) if reference is not None else None
            points_to = named.target if named is not None else image.target
            await to_the_end(self._tasks, f"tag {wanted}", self._index.tag(image, wanted, points_to))
        await self._announce.image("tag", image.id, wanted.familiar)

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[str] = ()) -> Changes:
        """`prune` takes along nameless parents that nothing needs any more; `platforms` chooses from an index."""
        async with self._index.lock:
            work = self._remove(ref, platforms, force=force, prune=prune)
            result = await to_the_end(self._tasks, f"remove {ref[:80]}", work)
        if isinstance(result, Exception):
            raise result
        return result

    async def _remove(self, ref: str, platforms: Sequence[str], *, force: bool, prune: bool) -> Changes | Exception:
        # Handed back instead of raised, as the task that it runs in would be logged as failed.
        try:
            if platforms:
                return await self._remover.remove_platforms(ref, platforms, force=force, prune=prune)
            return await self._remover.remove(ref, force=force, prune=prune)
        except Exception as error:
            return error

    async def prune(self, filters: Filters) -> tuple[Changes, int]:
        """Remove images without a name; all that no container uses with the filter dangling=false."""
        async with self._index.lock:
            chosen = await self._prunable(filters)
            changes, freed = await to_the_end(self._tasks, "prune", self._remover.prune(chosen))
        self._announce.pruned(freed)
        return changes, freed

    async def _with_room(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run, and once more when the disk was full and something could be freed."""
        try:
            await run()
        except SystemFault as error:
            if not disk_full(error) or not await self._layers.budget.rescue():
                raise
            await run()

    async def _free_dangling(self, needed: int) -> int:
        """Remove what `prune` would, the oldest first, until `needed` bytes are free. The bytes that came free."""
        freed = 0
        async with self._index.lock:
            chosen = sorted(await self._prunable({}), key=lambda image: image.last_tagged_ns or image.created_ns)
            for image in chosen:
                if freed >= needed:
                    break
                sizes = await in_thread(self._blob_sizes, image)
                _, gained = await to_the_end(self._tasks, "make room", self._remover.prune([image]))
                await self._layers.leases.free(image.blobs, image.chain_ids)
                kept = self._index.referenced()[0]
                freed += gained + sum(size for blob, size in sizes.items() if blob not in kept)
        return freed

    def _blob_sizes(self, image: StoredImage) -> dict[str, int]:
        return {blob: size_of(self._layers.content, blob) for blob in image.blobs}

    async def _prunable(self, filters: Filters) -> builtins.list[StoredImage]:
        selection = selecting.parse(filters, self._clock.now_ns())
        chosen = []
        for image in self._index.images():
            head = self._index.names.head(image)
            members = {image.id, head or image.id}
            # An index that no tag means any more is none, though the image that stood for it has others.
            names = self._index.names.to(image.target.digest) if head else self._index.names.of(image.id)
            tagged = any(name.tag for name in names)
            if any(map(self._in_use, members)) or not selection.wants(tagged=tagged, created_ns=image.created_ns):
                continue
            if selection.labelled is None or selection.labelled((await self._config(image.id)).run.labels or {}):
                chosen.append(image)
        return chosen

    async def _told(self, action: str, name: Reference) -> None:
        """The actor of a pull or push is what was asked for, not the image."""
        stored = self._index.names.get(name)
        image_id = stored.image_id if stored is not None else ""
        await self._announce.image(action, image_id, name.familiar_name, actor=name.familiar)


def _credentials(auth: RegistryAuth | None) -> Credentials:
    if auth is None:
        return Credentials()
    return Credentials(auth.username, auth.password, auth.identity_token, auth.registry_token)
