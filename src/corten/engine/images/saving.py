"""`docker save`: images as a tar in OCI's layout, with the manifest.json that Docker adds for older readers."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corten.engine.images.index import ImageIndex
from corten.engine.images.layers import LayerStore
from corten.engine.images.records import StoredImage, Target
from corten.engine.images.threads import in_thread
from corten.errors import InvalidArgument, NotFound
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference as references
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference
from corten.storage.types import ContentStore

CHUNK = 1 << 20
_MAX_DEPTH = 8  # of indexes in indexes

_Entry = dict[str, Any]


@dataclass(slots=True)
class _Selection:
    """Images of one index (or a single one) to save, what the names point to, and the names. The first image is what
    they mean where only one platform can be said. `wanted` are the manifests to take of the index; None for all.
    """

    images: list[StoredImage]
    target: Target
    wanted: frozenset[str] | None = None
    names: list[Reference] = field(default_factory=list)

    @property
    def image(self) -> StoredImage:
        return self.images[0]

    @property
    def blobs(self) -> set[str]:
        return {blob for image in self.images for blob in image.blobs}


def alone(target: Target) -> Target:
    """The manifest without the index that it came in."""
    return Target(
        digest=target.manifest,
        media_type=target.manifest_media_type,
        manifest=target.manifest,
        manifest_media_type=target.manifest_media_type,
    )


def missing(digest: str) -> NotFound:
    """The error for an image whose blobs were lost."""
    return NotFound("blob", digest, f"content of {digest} is missing; pull the image again")


def closure(content: ContentStore, digest: str, media_type: str) -> list[Descriptor] | None:
    """A manifest or index and all below it, the lowest first; None when the store has not all of it (blocking)."""
    found: dict[str, Descriptor] = {}
    return list(found.values()) if _collect(content, digest, media_type, found, 0) else None


def _collect(content: ContentStore, digest: str, media_type: str, found: dict[str, Descriptor], depth: int) -> bool:
    """Add what `closure` gives for one document; each once, however often indexes name it."""
    if digest in found:
        return True
    if not content.exists(digest):
        return False
    if depth > _MAX_DEPTH:
        raise InvalidArgument("the image index holds indexes too deep to follow")
    data = content.read(digest)
    if media_type in oci.INDEX_TYPES:
        for child in oci.parse_index(data).manifests:
            if not _collect(content, child.digest, child.media_type, found, depth + 1):
                return False
    elif media_type in oci.MANIFEST_TYPES:
        manifest = oci.parse_manifest(data)
        for blob in (*manifest.layers, manifest.config):
            if not content.exists(blob.digest):
                return False
            found[blob.digest] = blob
    found[digest] = Descriptor(media_type=media_type, digest=digest, size=len(data))
    return True


def present(
    content: ContentStore, digest: str, media_type: str, wanted: Collection[str] | None = None
) -> list[Descriptor]:
    """Like `closure`, but of an index only what is here, and in `wanted` (digests of manifests) where that is given.

    Empty when no image of it is here whole (blocking).
    """
    return _present(content, digest, media_type, wanted, set())


def _present(
    content: ContentStore, digest: str, media_type: str, wanted: Collection[str] | None, seen: set[str]
) -> list[Descriptor]:
    if digest in seen or not content.exists(digest):
        return []
    seen.add(digest)
    if media_type not in oci.INDEX_TYPES:
        return closure(content, digest, media_type) or [] if wanted is None or digest in wanted else []
    data = content.read(digest)
    below: dict[str, Descriptor] = {}
    for child in oci.parse_index(data).manifests:
        below.update((found.digest, found) for found in _present(content, child.digest, child.media_type, wanted, seen))
    if not any(found.media_type in oci.MANIFEST_TYPES for found in below.values()):
        return []
    return [*below.values(), Descriptor(media_type=media_type, digest=digest, size=len(data))]


class Saver:
    """Writes images out. Errors come before the first byte, save those of the disk."""

    def __init__(self, index: ImageIndex, layers: LayerStore) -> None:
        self._index, self._layers = index, layers

    async def run(self, refs: Sequence[str], platforms: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The archive, in pieces."""
        chosen = self._select(refs, platforms)
        async with self._layers.leases.take({blob for selection in chosen for blob in selection.blobs}):
            plans = [await in_thread(self._plan, selection) for selection in chosen]
            blobs = {descriptor.digest: descriptor for plan in plans for descriptor in plan}
            yield _directory("blobs/") + _directory("blobs/sha256/")
            for digest in sorted(blobs):
                async with aclosing(self._blob(digest)) as parts:
                    async for part in parts:
                        yield part
            yield _file("index.json", _index_document(chosen, plans))
            entries = await in_thread(self._docker_entries, chosen)
            yield _file("manifest.json", msgspec.json.encode(entries))
            yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            if repositories := _repositories(chosen, entries):
                yield _file("repositories", msgspec.json.encode(repositories))
            yield bytes(2 * tarfile.BLOCKSIZE)

    def selected(self, refs: Sequence[str], platforms: Sequence[str]) -> list[StoredImage]:
        """The images that `run` would write. Raises NotFound."""
        return [image for selection in self._select(refs, platforms) for image in selection.images]

    def _plan(self, selection: _Selection) -> list[Descriptor]:
        """What to write for an image, the top last. Raises NotFound for one of which blobs are missing."""
        content, target = self._layers.content, selection.target
        plan = present(content, target.digest, target.media_type, selection.wanted)
        found = plan or closure(content, target.manifest, target.manifest_media_type)
        if not found:
            raise missing(target.manifest)
        return found

    def _select(self, refs: Sequence[str], platforms: Sequence[str]) -> list[_Selection]:
        found: dict[tuple[str, str], _Selection] = {}
        for ref in refs:
            for text in self._expand(ref):
                reference = self._index.find(text)[1]
                selection = self._selection(text, reference, platforms)
                selection = found.setdefault((selection.image.id, selection.target.digest), selection)
                if reference is not None and reference.tag and reference not in selection.names:
                    selection.names.append(reference)
        return list(found.values())

    def _selection(self, text: str, reference: Reference | None, platforms: Sequence[str]) -> _Selection:
        images = [self._index.for_platform(text, platform) for platform in dict.fromkeys(platforms or [""])]
        image = images[0]
        named = self._index.names.get(reference) if reference is not None else None
        target = named.target if named is not None and named.image_id == image.id else image.target
        if not platforms:
            if self._index.names.head(image):  # one of several platforms, named by its own id
                return _Selection([image], alone(target))
            return _Selection(self._index.family(image), target)
        if len(images) == 1:
            return _Selection(images, alone(target))
        return _Selection(images, target, frozenset(image.target.manifest for image in images))

    def _expand(self, ref: str) -> list[str]:
        """A name without a tag means all its tags, as in Docker."""
        try:
            bare = references.parse(ref, default_tag=False)
        except InvalidArgument:
            return [ref]
        if bare.tag or bare.digest:
            return [ref]
        return [tagged.canonical for tagged in self._index.names.tags_in(bare.name)] or [ref]

    async def _blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        info = await in_thread(self._layers.content.info, digest)
        yield _header(_blob_name(digest), info.size)
        file = await in_thread(self._layers.content.open, digest)
        try:
            while part := await in_thread(file.read, CHUNK):
                yield part
        finally:
            await asyncio.to_thread(file.close)
        yield bytes(-info.size % tarfile.BLOCKSIZE)

    def _docker_entries(self, chosen: Sequence[_Selection]) -> list[_Entry]:
        """Docker's own list, which knows one platform of a name."""
        entries: list[_Entry] = []
        for selection in chosen:
            manifest = oci.parse_manifest(self._layers.content.read(selection.image.target.manifest))
            entries.append(
                {
                    "Config": _blob_name(manifest.config.digest),
                    "RepoTags": [name.familiar for name in selection.names] or None,
                    "Layers": [_blob_name(layer.digest) for layer in manifest.layers],
                }
            )
        return entries


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digests.hex_of(digest)}"


def _repositories(chosen: Sequence[_Selection], entries: Sequence[_Entry]) -> dict[str, dict[str, str]]:
    """What readers from before manifest.json look names up in: the id of the top layer by repository and tag."""
    found: dict[str, dict[str, str]] = {}
    for selection, entry in zip(chosen, entries, strict=True):
        for name in selection.names if entry["Layers"] else ():
            found.setdefault(name.familiar_name, {})[name.tag] = entry["Layers"][-1].rpartition("/")[2]
    return found


def _index_document(chosen: Sequence[_Selection], plans: Sequence[list[Descriptor]]) -> bytes:
    manifests: list[Descriptor] = []
    for selection, plan in zip(chosen, plans, strict=True):
        top = plan[-1]
        for name in (*selection.names,) or (None,):
            named = {oci.ANNOTATION_IMAGE_NAME: name.canonical, oci.ANNOTATION_REF_NAME: name.tag} if name else {}
            manifests.append(Descriptor(media_type=top.media_type, digest=top.digest, size=top.size, annotations=named))
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": manifests})


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o444
    return info.tobuf(tarfile.GNU_FORMAT)


def _directory(name: str) -> bytes:
    return _header(name, 0, tarfile.DIRTYPE)


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
