"""What an image's names point to, manifest by manifest: of an index also what is not here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from corten.engine.images.index import ImageIndex
from corten.engine.images.records import StoredImage, Target
from corten.engine.models import ImageManifest
from corten.errors import CortenError
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor
from corten.specs.reference import Reference
from corten.storage.types import ContentStore

ANNOTATION_KIND = "vnd.docker.reference.type"
ANNOTATION_DESCRIBES = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"


def manifests(
    content: ContentStore, image: StoredImage, targets: list[Target], members: list[StoredImage]
) -> list[ImageManifest]:
    """In the order of the indexes among `targets`; one for an image without an index, or whose index is lost
    (blocking). The targets are `image`'s, `members` the images of their indexes that are here.
    """
    by_manifest = {member.target.manifest: member for member in members} | {each.manifest: image for each in targets}
    offers: dict[str, Descriptor] = {}
    for target in targets:
        if target.media_type in oci.INDEX_TYPES:
            with suppress(CortenError):  # without it, what is known of the image itself is still true
                for offer in oci.parse_index(content.read(target.digest)).manifests:
                    offers.setdefault(offer.digest, offer)
    if not offers:
        own, kind = image.target.manifest, image.target.manifest_media_type
        offers[own] = Descriptor(media_type=kind, digest=own, size=size_of(content, own))
    return [_describe(content, offer, by_manifest.get(offer.digest)) for offer in offers.values()]


def targets_of(index: ImageIndex, image: StoredImage, reference: Reference | None) -> list[Target]:
    """What the name `reference` of an image points to, or else the image and all of its names, each once."""
    if reference is not None and (named := index.names.get(reference)) is not None:
        return [named.target]
    found = [image.target, *(named.target for name in index.names.of(image.id) if (named := index.names.get(name)))]
    return list({target.digest: target for target in found}.values())


def left_by(index: ImageIndex, names: Sequence[Reference]) -> list[StoredImage]:
    """Images without a name that no name stands for when `names` are gone."""
    going = {named.target.digest for name in names if (named := index.names.get(name)) is not None}
    lost = {target for target in going if set(index.names.to(target)) <= set(names)}
    return [other for other in index.images() if other.target.digest in lost and not index.names.of(other.id)]


def family(index: ImageIndex, targets: list[Target]) -> list[StoredImage]:
    """All images of the indexes `targets`, whether they have names or not."""
    wanted = {target.digest for target in targets}
    return [other for other in index.images() if other.target.digest in wanted]


def _describe(content: ContentStore, offer: Descriptor, image: StoredImage | None) -> ImageManifest:
    platform = str(offer.platform.normalised()) if offer.platform is not None else ""
    if offer.annotations.get(ANNOTATION_KIND) == ATTESTATION:
        here = content.exists(offer.digest)
        return ImageManifest(
            digest=offer.digest,
            media_type=offer.media_type,
            size=offer.size,
            platform=platform,
            kind="attestation",
            available=here,
            content=_total(content, offer.digest) if here else 0,
            describes=offer.annotations.get(ANNOTATION_DESCRIBES, ""),
        )
    known = offer.media_type in (*oci.MANIFEST_TYPES, *oci.INDEX_TYPES)
    return ImageManifest(
        digest=offer.digest,
        media_type=offer.media_type,
        size=offer.size,
        platform=image.platform if image is not None else platform,
        kind="image" if known and (image is not None or platform) else "unknown",
        available=image is not None,
        image_id=image.id if image is not None else "",
        content=_total(content, offer.digest) if image is not None else 0,
        unpacked=image.size if image is not None else 0,
    )


def _total(content: ContentStore, digest: str) -> int:
    """Bytes of a manifest and of those blobs below it that are here."""
    try:
        data = content.read(digest)
        below = oci.parse_manifest(data)
    except CortenError:
        return 0
    blobs = {below.config.digest, *(layer.digest for layer in below.layers)}
    return len(data) + sum(size_of(content, blob) for blob in blobs)


def size_of(content: ContentStore, digest: str) -> int:
    """Bytes of a blob; 0 for one that is not here, or damaged."""
    try:
        return content.info(digest).size
    except CortenError:
        return 0
