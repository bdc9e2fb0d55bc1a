"""A new image on top of another one: one layer more, made of what a container changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from corten.engine.images.archive import describe_layer, encode_manifest, read_manifest
from corten.engine.images.downloads import NoSource
from corten.engine.images.index import ImageIndex
from corten.engine.images.intake import Intake, intake, pieces
from corten.engine.images.jobs import together
from corten.engine.images.layers import Layer, LayerStore, plan_layers
from corten.engine.images.listing import enlist
from corten.engine.images.pull import describe
from corten.engine.images.records import StoredImage, Target
from corten.engine.images.threads import in_thread
from corten.errors import InvalidArgument, NotFound, SystemFault, clip
from corten.specs import oci_image as oci
from corten.specs import reference as references
from corten.specs.oci_image import Descriptor, History, ImageConfig, RunConfig
from corten.specs.reference import Reference
from corten.specs.times import format_time

STUBS = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv")
"""What is made in a container's layer to mount on, and as its mark; empty, it is nobody's change."""

_OCI_TYPES = {
    oci.DOCKER_LAYER: oci.OCI_LAYER,
    oci.DOCKER_LAYER_GZIP: oci.OCI_LAYER_GZIP,
}


@dataclass(frozen=True, slots=True)
class Commitment:
    """`parent` is the id of the image below, `layer` the directory with the changes, `run` the new image's presets;
    `created_by` says for the history what made the layer. With a `base` the two directories are whole trees, and what
    differs between them are the changes.
    """

    parent: str
    layer: Path
    run: RunConfig
    reference: Reference | None
    author: str
    comment: str
    created_by: str
    created_ns: int
    base: Path | None = None


def parse_name(text: str) -> Reference | None:
    """Raises InvalidArgument for a name with a digest: it would have to be that of the new image."""
    reference = references.parse(text) if text else None
    if reference is not None and reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return reference


async def run(
    index: ImageIndex, layers: LayerStore, wanted: Commitment, still: AbstractAsyncContextManager[None]
) -> StoredImage:
    """Make the image and name it. `still` is entered while the changes are read.

    Raises NotFound when the image below is gone, SystemFault for what cannot be read.
    """
    parent = index.get(wanted.parent)
    if parent is None:
        raise NotFound("image", wanted.parent)
    # Leased in the same step as it was looked up: making room for the intake may remove it.
    async with layers.leases.take([*parent.blobs, *parent.chain_ids]), intake(layers) as blobs:
        async with still:
            digest, diff_id = await in_thread(_read_changes, wanted, blobs)
        config = oci.parse_config(await in_thread(layers.content.read, parent.id))
        manifest = await in_thread(read_manifest, layers.content, parent.target.manifest)
        below = [_in_oci_words(layer) for layer in manifest.layers]
        own = [await in_thread(describe_layer, layers.content, digest)] if digest else []
        data = _config(config, wanted, diff_id)
        document = Descriptor(media_type=oci.OCI_CONFIG, digest=await in_thread(blobs.put, data), size=len(data))
        stored = await in_thread(blobs.put, encode_manifest(document, [*below, *own]))
        plan = plan_layers([*below, *own], oci.parse_config(data).rootfs.diff_ids)
        return await _store(index, layers, wanted, stored, plan)


async def _store(
    index: ImageIndex, layers: LayerStore, wanted: Commitment, digest: str, plan: list[Layer]
) -> StoredImage:
    manifest = await in_thread(read_manifest, layers.content, digest)
    config = oci.parse_config(await in_thread(layers.content.read, manifest.config.digest))
    target = Target(digest=digest, media_type=oci.OCI_MANIFEST, manifest=digest, manifest_media_type=oci.OCI_MANIFEST)
    blobs = sorted({digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)})
    async with layers.leases.take([*blobs, *(layer.chain_id for layer in plan)]):
        if plan:
            await together(layers.ensure(plan, len(plan) - 1, NoSource(_lost), lambda update: None))
        image = await describe(layers, target, config, manifest, plan, blobs)
        image.parent_id = wanted.parent
        await enlist(index, layers, image, [wanted.reference] if wanted.reference is not None else [])
    return image


def _config(config: ImageConfig, wanted: Commitment, diff_id: str) -> bytes:
    """The new image's config: its parent's with what is new."""
    created = format_time(wanted.created_ns)
    step = History(
        created=created,
        created_by=wanted.created_by,
        author=wanted.author,
        comment=wanted.comment,
        empty_layer=not diff_id,
    )
    config.created, config.author, config.comment = created, wanted.author, wanted.comment
    config.config = wanted.run
    config.container = config.parent = ""
    config.history = [*config.history, step]
    if diff_id:
        config.rootfs.diff_ids = [*config.rootfs.diff_ids, diff_id]
    return msgspec.json.encode(config)


def _in_oci_words(layer: Descriptor) -> Descriptor:
    return msgspec.structs.replace(layer, media_type=_OCI_TYPES.get(layer.media_type, layer.media_type))


def _read_changes(wanted: Commitment, blobs: Intake) -> tuple[str, str]:
    """(digest of the stored blob, diff id) of what was changed; "" for both when nothing was."""
    report: dict[str, object] = {}
    directories = (os.fspath(wanted.layer), os.fspath(wanted.base) if wanted.base is not None else "")
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", "from corten.storage.diffing import main; main()", *directories, *STUBS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        digest = blobs.store(_whole(process.stdout, process.stderr, report))
    return (digest, str(report["diff_id"])) if report["entries"] else ("", "")


def _whole(out: IO[bytes], said: IO[bytes], report: dict[str, object]) -> Iterator[bytes]:
    """The layer; at its end `report` is filled. Raises SystemFault for one that was not read to the end."""
    yield from pieces(out)
    line = said.read()
    try:
        report.update(json.loads(line))
    except ValueError:
        text = clip(line.decode(errors="replace")) or "it ended unexpectedly"
        raise SystemFault(f"the container's changes could not be read: {text}", step="commit") from None
    if "error" in report:
        text = clip(str(report["error"]))
        raise SystemFault(f"the container's changes could not be read: {text}", step="commit")


def _lost(descriptor: Descriptor) -> NotFound:
    """The layers of the parent and the new one are here; what is not is lost."""
    text = f"content of {descriptor.digest} is missing; pull the image again"
    return NotFound("blob", descriptor.digest, text)
