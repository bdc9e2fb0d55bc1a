"""`docker import`: an image of one layer, made of a root file system's tar."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from corten.engine.images import changes as instructions
from corten.engine.images.archive import decompressed, describe_layer, encode_manifest
from corten.engine.images.index import ImageIndex
from corten.engine.images.intake import Intake, compression_of, intake, pieces
from corten.engine.images.jobs import Update
from corten.engine.images.layers import LayerStore
from corten.engine.images.listing import enlist
from corten.engine.images.progress import ProgressStream
from corten.engine.images.records import StoredImage, Target
from corten.engine.images.threads import ThreadBody, in_thread
from corten.errors import InvalidArgument
from corten.registry import download
from corten.specs import digest as digests
from corten.specs import oci_image as oci
from corten.specs import platform as platforms
from corten.specs.oci_image import Descriptor, History, ImageConfig, RootFS, RunConfig
from corten.specs.reference import Reference
from corten.specs.times import format_time


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """`reference` None leaves the image without a name; `created_ns` is the time to record."""

    reference: Reference | None
    message: str
    changes: Sequence[str]
    platform: str
    created_ns: int

    def config(self) -> ImageConfig:
        """The image's config without its layer. Raises InvalidArgument for a bad platform or change."""
        platform = platforms.parse(self.platform) if self.platform else platforms.host()
        if platform.os != "linux":
            raise InvalidArgument(f'operating system "{platform.os}" is not supported')
        run = RunConfig()
        instructions.apply(self.changes, run)
        created = format_time(self.created_ns)
        comment = self.message or "Imported from -"
        return ImageConfig(
            created=created,
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            config=run,
            history=[History(created=created, comment=comment)],
            comment=comment,
        )


async def fetched(url: str, stream: ProgressStream) -> AsyncIterator[bytes]:
    """The archive at `url`, with its progress on `stream`."""
    stream.status(f"Downloading from {download.shown(url)}")
    told = stream.observer("")
    async with aclosing(download.fetch(url, lambda done, total: told(Update("Importing", done, total)))) as parts:
        async for part in parts:
            yield part


async def run(
    index: ImageIndex, layers: LayerStore, archive: AsyncIterator[bytes], options: ImportOptions, stream: ProgressStream
) -> StoredImage:
    """Import; the stream's one message is the new image's id."""
    config = options.config()
    async with intake(layers) as blobs:
        body = ThreadBody(archive)
        digest = await body.run(_receive, blobs, body)
        async with layers.leases.take([digest]):
            layer = await in_thread(describe_layer, layers.content, digest)
            async with layers.adopted(digest, layer.media_type, lambda update: None) as (diff_id, size):
                image = await _record(blobs, config, layer, diff_id)
                image.size = size
                names = [options.reference] if options.reference is not None else []
                await enlist(index, layers, image, names)
    stream.status(image.id)
    return image


def _receive(blobs: Intake, body: ThreadBody) -> str:
    start = body.read(1 << 16)
    if not start:
        raise InvalidArgument("the archive is empty")
    whole = _Whole(start, body)
    if compression_of(start) in ("bzip2", "xz"):  # which image layers may not have
        return blobs.store(decompressed(whole))
    return blobs.store(pieces(whole))


class _Whole:
    """A body whose first bytes were read already."""

    def __init__(self, start: bytes, rest: ThreadBody) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int = -1, /) -> bytes:
        start, self._start = self._start, b""
        return start or self._rest.read(size)


async def _record(blobs: Intake, config: ImageConfig, layer: Descriptor, diff_id: str) -> StoredImage:
    config.rootfs = RootFS(diff_ids=[diff_id])
    data = msgspec.json.encode(config)
    config_digest = await in_thread(blobs.put, data)
    manifest = encode_manifest(Descriptor(media_type=oci.OCI_CONFIG, digest=config_digest, size=len(data)), [layer])
    manifest_digest = await in_thread(blobs.put, manifest)
    return StoredImage(
        id=config_digest,
        target=Target(
            digest=manifest_digest,
            media_type=oci.OCI_MANIFEST,
            manifest=manifest_digest,
            manifest_media_type=oci.OCI_MANIFEST,
        ),
        size=0,
        created_ns=config.created_ns,
        platform=str(config.platform.normalised()),
        chain_ids=digests.chain_ids([diff_id]),
        layers=[layer.digest],
        blobs=sorted({config_digest, manifest_digest, layer.digest}),
    )
