"""`docker save`: images as a tar in OCI's layout, with the manifest.json that Docker adds for older readers."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corten.engine.images.index import ImageIndex, StoredImage, Target
from corten.engine.images.layers import LayerStore
from corten.engine.images.threads import in_thread
from corten.errors import InvalidArgument, NotFound
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import reference as references
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference
from corten.storage.types import ContentStore

CHUNK = 1 << 20


@dataclass(slots=True)
class _Selection:
    """An image to save, the names to save with it, and what they point to."""

    image: StoredImage
    target: Target
    names: list[Reference] = field(default_factory=list)


def closure(content: ContentStore, digest: str, media_type: str) -> list[Descriptor] | None:
    """A manifest or index and all below it, the lowest first; None when the store has not all of it (blocking)."""
    if not content.exists(digest):
        return None
    data = content.read(digest)
    here = Descriptor(media_type=media_type, digest=digest, size=len(data))
    if media_type in oci.INDEX_TYPES:
        children = [closure(content, child.digest, child.media_type) for child in oci.parse_index(data).manifests]
    elif media_type in oci.MANIFEST_TYPES:
        manifest = oci.parse_manifest(data)
        children = [[blob] if content.exists(blob.digest) else None for blob in (*manifest.layers, manifest.config)]
    else:
        return [here]
    below: dict[str, Descriptor] = {}
    for child in children:
        if child is None:
            return None
        below.update((descriptor.digest, descriptor) for descriptor in child)
    return [*below.values(), here]


def portable(content: ContentStore, target: Target) -> list[Descriptor]:
    """What to hand on for `target`: the index when all its platforms are here, else the manifest that is (blocking).

    Raises NotFound for an image of which blobs are missing.
    """
    found = closure(content, target.digest, target.media_type) or closure(
        content, target.manifest, target.manifest_media_type
    )
    if found is None:
        raise NotFound("blob", target.manifest, f"content of {target.manifest} is missing; pull the image again")
    return found


class Saver:
    """Writes images out. Errors come before the first byte, save those of the disk."""

    def __init__(self, index: ImageIndex, layers: LayerStore) -> None:
        self._index, self._layers = index, layers

    async def run(self, refs: Sequence[str], platform: str) -> AsyncGenerator[bytes, None]:
        """The archive, in pieces."""
        chosen = self._select(refs, platform)
        images = [selection.image for selection in chosen]
        async with self._layers.lease({blob for image in images for blob in image.blobs}):
            plans = [await in_thread(portable, self._layers.content, selection.target) for selection in chosen]
            blobs = {descriptor.digest: descriptor for plan in plans for descriptor in plan}
            yield _directory("blobs/") + _directory("blobs/sha256/")
            for digest in sorted(blobs):
                async with aclosing(self._blob(digest)) as parts:
                    async for part in parts:
                        yield part
            yield _file("index.json", _index_document(chosen, plans))
            yield _file("manifest.json", await in_thread(self._docker_document, chosen))
            yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            yield bytes(2 * tarfile.BLOCKSIZE)

    def selected(self, refs: Sequence[str], platform: str) -> list[StoredImage]:
        """The images that `run` would write. Raises NotFound."""
        return [selection.image for selection in self._select(refs, platform)]

    def _select(self, refs: Sequence[str], platform: str) -> list[_Selection]:
        found: dict[tuple[str, str], _Selection] = {}
        for ref in refs:
            for text in self._expand(ref):
                image = self._index.for_platform(text, platform)
                reference = self._index.find(text)[1]
                named = self._index.name(reference) if reference is not None else None
                target = named.target if named is not None and named.image_id == image.id else image.target
                selection = found.setdefault((image.id, target.digest), _Selection(image, target))
                if reference is not None and reference.tag and reference not in selection.names:
                    selection.names.append(reference)
        return list(found.values())

    def _expand(self, ref: str) -> list[str]:
        """A name without a tag means all its tags, as in Docker."""
        try:
            bare = references.parse(ref, default_tag=False)
        except InvalidArgument:
            return [ref]
        if bare.tag or bare.digest:
            return [ref]
        return [tagged.canonical for tagged in self._index.tags_in(bare.name)] or [ref]

    async def _blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        info = await in_thread(self._layers.content.info, digest)
        yield _header(f"blobs/sha256/{digests.hex_of(digest)}", info.size)
        file = await in_thread(self._layers.content.open, digest)
        try:
            while part := await in_thread(file.read, CHUNK):
                yield part
        finally:
            await asyncio.to_thread(file.close)
        yield bytes(-info.size % tarfile.BLOCKSIZE)

    def _docker_document(self, chosen: Sequence[_Selection]) -> bytes:
        entries: list[dict[str, Any]] = []
        for selection in chosen:
            manifest = oci.parse_manifest(self._layers.content.read(selection.target.manifest))
            entries.append(
                {
                    "Config": f"blobs/sha256/{digests.hex_of(manifest.config.digest)}",
                    "RepoTags": [name.familiar for name in selection.names] or None,
                    "Layers": [f"blobs/sha256/{digests.hex_of(layer.digest)}" for layer in manifest.layers],
                }
            )
        return msgspec.json.encode(entries)


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
