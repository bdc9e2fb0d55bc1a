"""What must hold of the stores whenever they are opened, and after the clean-up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from corten.engine.images.records import StoredImage
from corten.errors import CortenError
from corten.linux.mount import MS_RDONLY, mount, umount2
from tests.durability.world import CONTAINER, Stores, tree_digest

_LATER_SECONDS = 3 * 24 * 3600
"""After which nobody goes on with a download that was broken off."""
_TOP = {"content", "corten.db", "corten.db-wal", "corten.db-shm", "corten.db-reserve", "snapshots"}


def whole(stores: Stores, place: Path | None, trees: dict[str, str]) -> list[str]:
    """What listed images lack. With a `place` to mount them on, each one's tree is compared with that in `trees`
    (by image id), or put there.
    """
    found: list[str] = []
    for stored in stores.images.index.images():
        found += [f"image {stored.id}: {text}" for text in _lacks(stores, stored)]
        if place is not None and not found:
            digest = _mounted(stores, stored, place)
            if trees.setdefault(stored.id, digest) != digest:
                found.append(f"image {stored.id} has other files than before")
    return found


def _lacks(stores: Stores, stored: StoredImage) -> list[str]:
    found = []
    for digest in stored.blobs:
        try:
            stores.content.verify(digest)
        except CortenError as error:
            found.append(str(error))
    for chain_id in stored.chain_ids:
        if not stores.images.layers.committed(chain_id):
            found.append(f"the layer {chain_id} is not there")
    return found


def _mounted(stores: Stores, stored: StoredImage, place: Path) -> str:
    """The digest of what a container of this image would see."""
    (plan,) = stores.snapshotter.view("check", stored.chain_ids[-1])
    try:
        if plan.type == "bind":
            return tree_digest(Path(plan.source))
        mount(plan.source, str(place), plan.type, MS_RDONLY, ",".join(plan.options))
        try:
            return tree_digest(place)
        finally:
            umount2(str(place))
    finally:
        stores.snapshotter.remove("check")


async def clean_up(stores: Stores) -> None:
    """What goes on at a start some days later."""
    later = time.time() + _LATER_SECONDS
    stores.content.ingests.drop(later)
    await stores.images.layers.sweep(later)
    await stores.quiet()


def unlisted(stores: Stores) -> list[str]:
    """What is on the disk after the clean-up, or on record, and belongs to nothing."""
    blobs, chains = stores.images.index.referenced()
    rows = {info.key: info.kind for info in stores.snapshotter.walk()}
    owned = {key for key, kind in rows.items() if key in (chains if kind == "committed" else {CONTAINER})}
    root = stores.database.path.parent
    found = [f"snapshot {key}" for key in rows.keys() - owned]
    found += [f"blob {info.digest}" for info in stores.content.walk() if info.digest not in blobs]
    found += [f"content/ingest/{name}" for name in os.listdir(root / "content/ingest")]
    found += [f"content/{name}" for name in {*os.listdir(root / "content")} - {"blobs", "ingest", "oci-layout"}]
    found += [f"content/blobs/{name}" for name in {*os.listdir(root / "content/blobs")} - {"sha256"}]
    found += {*os.listdir(root)} - _TOP
    found += [f"snapshots/trash/{name}" for name in os.listdir(root / "snapshots/trash")]
    numbers = {stores.snapshotter.layer_dir(key).parent.name for key in rows}
    present = {*os.listdir(root / "snapshots")} - {"trash"}
    found += [f"snapshots/{name}" for name in present - numbers]
    for number in present & numbers:
        extra = {*os.listdir(root / "snapshots" / number)} - {"fs", "work"}
        found += [f"snapshots/{number}/{name}" for name in extra]
    return sorted(found)


def sound(stores: Stores) -> list[str]:
    """Faults of the database and of the fixed files."""
    found = [f"database: {text}" for text in stores.database.check()]
    layout = (stores.database.path.parent / "content/oci-layout").read_bytes()
    try:
        json.loads(layout)
    except ValueError:
        found.append(f"content/oci-layout is {layout!r}")
    return found
