"""What an image's names point to, manifest by manifest: of an index also what is not here."""

from __future__ import annotations

from contextlib import suppress

from corten.engine.images.index import ImageIndex, StoredImage
from corten.engine.models import ImageManifest
from corten.errors import CortenError
from corten.specs import oci_image as oci
from corten.specs.oci_image import Descriptor
from corten.storage.types import ContentStore

ANNOTATION_KIND = "vnd.docker.reference.type"
ANNOTATION_DESCRIBES = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"


def manifests(content: ContentStore, image: StoredImage, members: list[StoredImage]) -> list[ImageManifest]:
    """In the order of the index; one for an image without an index, or whose index is lost (blocking).

    `members` are the images of the index that are here, `image` among them.
    """
    by_manifest = {member.target.manifest: member for member in members}
    target = image.target
    own = Descriptor(
        media_type=target.manifest_media_type, digest=target.manifest, size=_size(content, target.manifest)
    )
    offers = [own]
    if target.media_type in oci.INDEX_TYPES:
        with suppress(CortenError):  # without it, what is known of the image itself is still true
            offers = oci.parse_index(content.read(target.digest)).manifests
    return [_describe(content, offer, by_manifest.get(offer.digest)) for offer in offers]


def family(index: ImageIndex, image: StoredImage) -> list[StoredImage]:
    """All images of the index that `image` came in, whether they have names or not."""
    return [other for other in index.images() if other.target.digest == image.target.digest]


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
    return len(data) + sum(_size(content, blob) for blob in blobs)


def _size(content: ContentStore, digest: str) -> int:
    try:
        return content.info(digest).size
    except CortenError:
        return 0
