"""Image archives as they arrive: a tar, perhaps compressed, in Docker's or OCI's layout, streamed into the store.

Nothing is written by the names in the archive: a name is only a key here, so one that climbs out reaches nothing. Small
documents are kept in memory, everything else becomes a blob.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from corten.engine.images import legacy
from corten.engine.images.intake import Intake, compression_of, pieces
from corten.engine.images.threads import ThreadBody
from corten.errors import InvalidArgument, clip
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import wire
from corten.specs.oci_image import Descriptor, Index, Manifest
from corten.storage.bounds import Bounds
from corten.storage.decompress import chunks
from corten.storage.tarstream import HARD_LINK, REGULAR, SYMLINK, Entry, TarReader
from corten.storage.types import ContentStore, LayerLimits

MAX_DOCUMENT = 8 << 20
MAX_DOCUMENTS = 64 << 20
"""Bytes of one document at the archive's top, and of all of them and all names together."""

MAX_MEMBERS = 100_000
MAX_IMAGES = 4096
_PIECE = 1 << 18
_MAGIC = 16  # bytes that tell how the whole is compressed
_BLOBS = "blobs/sha256/"
_MAX_LINKS = 8


class _DockerEntry(msgspec.Struct, rename="pascal"):
    """One image in Docker's manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive held, by normalised name: documents, digests of the stored blobs, and links."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """The name that stands behind links."""
        for _ in range(_MAX_LINKS):
            if name not in self.links:
                break
            name = self.links[name]
        return name


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image in an archive: what names would point to, and the names. For Docker's layout the manifest is made."""

    target: Descriptor
    names: list[str]


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def receive(body: ThreadBody, blobs: Intake) -> Archive:
    """Read an archive to its end (blocking). Raises InvalidArgument for one that is broken or too large to be true."""
    archive = Archive()
    reader = TarReader(decompressed(body))
    _take(reader, archive, blobs)
    reader.drain()
    for _ in pieces(body):
        pass  # what follows the end, so that the client can finish sending
    return archive


def decompressed(body: _Readable) -> Iterator[bytes]:
    """What an archive holds that may be compressed, in pieces (blocking).

    Raises InvalidArgument for one that is broken, or larger than what it came in can say in good faith.
    """
    taken = 0

    def count(size: int) -> None:
        nonlocal taken
        taken += size

    def read() -> bytes:
        part = body.read(_PIECE)
        while taken == 0 and len(part) < _MAGIC and (more := body.read(_PIECE)):
            part += more
        return part

    limits = LayerLimits()
    bounds = Bounds(ratio=limits.ratio, ratio_from=limits.ratio_from, what="archive")
    try:
        yield from bounds.pieces(chunks(read, count), lambda: taken)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid archive: {error}") from None


def _take(reader: TarReader, archive: Archive, blobs: Intake) -> None:
    total = 0
    for count, entry in enumerate(_entries(reader), 1):
        if count > MAX_MEMBERS:
            raise InvalidArgument(f"invalid archive: more than {MAX_MEMBERS} members")
        name, link = _normalised(os.fsdecode(entry.name)), os.fsdecode(entry.link)
        total += len(name) + len(link)
        if entry.kind == SYMLINK:
            archive.links[name] = _normalised(posixpath.join(posixpath.dirname(name), link))
        elif entry.kind == HARD_LINK:
            archive.links[name] = _normalised(link)
        elif entry.kind == REGULAR and _is_document(name, entry.size):
            total += entry.size
            archive.documents[name] = b"".join(_data(reader))
        elif entry.kind == REGULAR:
            expected = f"sha256:{name.removeprefix(_BLOBS)}" if name.startswith(_BLOBS) else ""
            archive.blobs[name] = blobs.store(_data(reader), expected if digests.is_digest(expected) else "")
        if total > MAX_DOCUMENTS:
            raise InvalidArgument("invalid archive: its documents are too large")


def _entries(reader: TarReader) -> Iterator[Entry]:
    members = iter(reader)
    while True:
        try:
            entry = next(members, None)
        except InvalidArgument as error:
            raise _broken(error) from None
        if entry is None:
            return
        if entry.sparse is not None:
            raise InvalidArgument(f"invalid archive: {clip(os.fsdecode(entry.name), 128)} is a sparse member")
        yield entry


def _data(reader: TarReader) -> Iterator[bytes]:
    try:
        for piece in reader.data():
            yield bytes(piece)
    except InvalidArgument as error:
        raise _broken(error) from None


def _broken(error: InvalidArgument) -> InvalidArgument:
    text = str(error)
    return error if text.startswith("invalid archive") else InvalidArgument(f"invalid archive: {text}")


def _normalised(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


def _is_document(name: str, size: int) -> bool:
    if name.startswith(_BLOBS) or size > MAX_DOCUMENT:
        return False
    return name.endswith((".json", "/json", "/VERSION")) or name in ("repositories", "oci-layout")


def candidates(archive: Archive, content: ContentStore, blobs: Intake) -> list[Candidate]:
    """The images in an archive (blocking). Raises InvalidArgument when it has none, or an incomplete one."""
    if "index.json" in archive.documents:
        return _from_layout(archive, content)
    if "manifest.json" in archive.documents:
        return [_from_docker(entry, archive, content, blobs) for entry in _docker_entries(archive)]
    if "repositories" in archive.documents:
        named = legacy.names(archive.documents)
        return [_from_legacy(id, names, archive, content, blobs) for id, names in named.items()]
    raise InvalidArgument("invalid archive: does not contain a manifest.json or an index.json")


def _docker_entries(archive: Archive) -> list[_DockerEntry]:
    entries = wire.read(archive.documents.get("manifest.json", b"[]"), list[_DockerEntry], "archive: manifest.json")
    if len(entries) > MAX_IMAGES:
        raise InvalidArgument(f"invalid archive: more than {MAX_IMAGES} images")
    return entries


def _from_layout(archive: Archive, content: ContentStore) -> list[Candidate]:
    index = oci.parse_index(archive.documents["index.json"])
    tags = {entry.config: entry.repo_tags or [] for entry in _docker_entries(archive)}
    found: dict[str, Candidate] = {}
    for descriptor in index.manifests:
        if descriptor.media_type not in (*oci.MANIFEST_TYPES, *oci.INDEX_TYPES):
            continue
        candidate = found.setdefault(descriptor.digest, Candidate(descriptor, []))
        candidate.names.extend(_names_in(descriptor.annotations))
        if descriptor.media_type in oci.MANIFEST_TYPES and content.exists(descriptor.digest):
            config = oci.parse_manifest(content.read(descriptor.digest)).config.digest
            candidate.names.extend(tags.get(_BLOBS + digests.hex_of(config), []))
        if len(found) > MAX_IMAGES:
            raise InvalidArgument(f"invalid archive: more than {MAX_IMAGES} images")
    if not found:
        raise InvalidArgument("invalid archive: its index names no image")
    return list(found.values())


def _names_in(annotations: dict[str, str]) -> list[str]:
    if name := annotations.get(oci.ANNOTATION_IMAGE_NAME):
        return [name]
    # OCI's own annotation may be a bare tag, which is the name of nothing.
    name = annotations.get(oci.ANNOTATION_REF_NAME, "")
    return [name] if ":" in name or "/" in name else []


def _from_docker(entry: _DockerEntry, archive: Archive, content: ContentStore, blobs: Intake) -> Candidate:
    config_name = archive.resolve(_normalised(entry.config))
    config = archive.documents.get(config_name)
    if config is None:
        config = content.read(_blob(archive, config_name))
    layers = [_blob(archive, archive.resolve(_normalised(name))) for name in entry.layers or []]
    return _candidate(config, layers, list(entry.repo_tags or []), content, blobs)


def _from_legacy(id: str, names: list[str], archive: Archive, content: ContentStore, blobs: Intake) -> Candidate:
    steps = legacy.chain(archive.documents, _normalised(id))
    layers = [_blob(archive, archive.resolve(f"{step.id}/layer.tar")) for step in steps]
    # These layers were never compressed, so their digests are their diff ids.
    return _candidate(legacy.config(steps, layers), layers, names, content, blobs)


def _candidate(
    config: bytes, layer_digests: list[str], names: list[str], content: ContentStore, blobs: Intake
) -> Candidate:
    """An image of these layers, lowest first, with a manifest of our own."""
    if len(layer_digests) > oci.MAX_LAYERS:
        raise InvalidArgument(
            f"invalid archive: an image of {len(layer_digests)} layers, at most {oci.MAX_LAYERS} are supported"
        )
    config_digest = blobs.put(config)
    layers = [describe_layer(content, digest) for digest in layer_digests]
    descriptor = Descriptor(media_type=oci.OCI_CONFIG, digest=config_digest, size=len(config))
    data = encode_manifest(descriptor, layers)
    target = Descriptor(media_type=oci.OCI_MANIFEST, digest=blobs.put(data), size=len(data))
    return Candidate(target, names)


def _blob(archive: Archive, name: str) -> str:
    if name not in archive.blobs:
        raise InvalidArgument(f"invalid archive: {clip(name, 128)} is missing")
    return archive.blobs[name]


def describe_layer(content: ContentStore, digest: str) -> Descriptor:
    """The descriptor of a stored layer, its type told by its first bytes (blocking)."""
    with content.open(digest) as file:
        kind = compression_of(file.read(16))
    media_type = {"gzip": oci.OCI_LAYER_GZIP, "zstd": oci.OCI_LAYER_ZSTD}.get(kind, oci.OCI_LAYER)
    return Descriptor(media_type=media_type, digest=digest, size=content.info(digest).size)


def encode_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """A manifest of our own; the same parts give the same bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": config,
        "layers": layers,
    }
    return msgspec.json.encode(document)


def read_manifest(content: ContentStore, digest: str) -> Manifest:
    return oci.parse_manifest(content.read(digest))


def read_index(content: ContentStore, digest: str) -> Index:
    return oci.parse_index(content.read(digest))
