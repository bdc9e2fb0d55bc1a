"""The operations that are cut short: what each stands on, does, and may leave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from corten.engine.images.committing import Commitment
from corten.engine.models import ProgressMessage
from corten.errors import SystemFault
from corten.specs import reference as references
from corten.specs.oci_image import RunConfig
from corten.storage.types import Usage
from tests.durability.world import CONTAINER, IMAGES, NOW_NS, ROOTFS, Stores, World
from tests.unit.engine.images.support import collect, pieces
from tests.unit.engine.images.test_archives import docker_archive

Work = Callable[[World, Stores], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Operation:
    """`prepare` is done once to the stores that every run begins with; `run` is what is cut short, and repeated after
    it. With `opening` the opening of the stores belongs to it, and `run` may do nothing.
    """

    run: Work
    prepare: Work | None = None
    opening: bool = False
    empty: bool = False
    """Begins without any stores."""
    heals: bool = False
    """Begins with damage, which `run` heals."""
    frees: bool = False
    """Must succeed though the disk is full."""
    by_image: bool = False
    """Is about several images, one after the other: some may be as before, others as after."""


async def base(world: World, stores: Stores) -> None:
    """What all begin with: three images that share a layer, one without a name of its own, and a container."""
    for name in ("base:1", "other:1", "moved:old"):
        await collect(stores.images.pull(world.ref(name), "", None))
    await stores.images.tag(world.ref("moved:old"), world.ref("moved:1"))
    chain_id = stores.images.get(world.ref("base:1")).chain_ids[-1]
    stores.snapshotter.prepare(CONTAINER, chain_id)
    changed = stores.snapshotter.layer_dir(CONTAINER)
    (changed / "etc").mkdir()
    (changed / "etc/changed").write_bytes(b"by the container" * 500)
    for path in (changed / "etc/changed", changed / "etc"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    stores.database.write_blocking(lambda connection: None)


async def _pull(world: World, stores: Stores) -> None:
    await _through(stores.images.pull(world.ref("new:1"), "", None))


async def _pull_moved(world: World, stores: Stores) -> None:
    await _through(stores.images.pull(world.ref("moved:1"), "", None))


async def _load(world: World, stores: Stores) -> None:
    archive = docker_archive(IMAGES["new:1"], ["loaded:1", "loaded:2"])
    await _through(stores.images.archives.load(pieces(archive, 1 << 18), quiet=True))


async def _import(world: World, stores: Stores) -> None:
    source = pieces(ROOTFS, 1 << 16)
    await _through(stores.images.archives.import_rootfs(source, "imported:1", message="", changes=[], platform=""))


async def _through(stream: Any) -> None:
    """To its end. Raises what a failure in it stands for."""
    async for message in stream:
        _look(message)


def _look(message: ProgressMessage) -> None:
    if "error" in message:
        raise AssertionError(f"the stream says: {message['error']}")


async def _commit(world: World, stores: Stores) -> None:
    still: AbstractAsyncContextManager[None] = nullcontext()
    wanted = Commitment(
        parent=stores.images.get(world.ref("base:1")).id,
        layer=stores.snapshotter.layer_dir(CONTAINER),
        run=RunConfig(),
        reference=references.parse("committed:1"),
        author="",
        comment="",
        created_by="sh",
        created_ns=NOW_NS,
    )
    await stores.images.commit(wanted, still)


async def _tag(world: World, stores: Stores) -> None:
    await stores.images.tag(world.ref("base:1"), "tagged:1")


async def _retag(world: World, stores: Stores) -> None:
    await stores.images.tag(world.ref("base:1"), world.ref("moved:1"))


def _gone(world: World, stores: Stores, name: str) -> bool:
    return not any(world.ref(name) in names for names in stores.listing().values())


async def _rmi(world: World, stores: Stores) -> None:
    if not _gone(world, stores, "other:1"):
        await stores.images.remove(world.ref("other:1"), force=False, prune=True)


async def _rmi_id(world: World, stores: Stores) -> None:
    found = [image.id for image in stores.images.list() if image.id == IMAGES["moved:old"].id]
    for id in found:
        await stores.images.remove(id, force=True, prune=True)


async def _prune(world: World, stores: Stores) -> None:
    await stores.images.prune({"dangling": ["false"]})


async def _nothing(world: World, stores: Stores) -> None:
    return


async def _garbage(world: World, stores: Stores) -> None:
    """One of each kind of thing that a crash may leave: old blobs and ingests, a layer that no image has, half of a
    layer, a directory without a row, trash.
    """
    long_ago = 1_000_000_000.0
    for number in range(2):
        info = stores.content.put(b"nobody's %d" % number)
        os.utime(stores.content.path(info.digest), (long_ago, long_ago))
        ingest = stores.content.ingest(f"broken off {number}")
        ingest.write(b"half")
        ingest.close()
        os.utime(ingest.path, (long_ago, long_ago))
    for name in ("unpack-lost", "unpack-whole"):
        stores.snapshotter.prepare(name)
        (stores.snapshotter.layer_dir(name) / "file").write_bytes(b"x" * 5000)
    stores.snapshotter.commit("sha256:" + "d" * 64, "unpack-whole", Usage(5000, 2))
    root = stores.snapshotter.root
    (root / "999/fs/d").mkdir(parents=True)
    (root / "trash/888.ab").mkdir()
    (root / "trash/888.ab/file").write_bytes(b"x")


async def _damage(world: World, stores: Stores) -> None:
    """A layer's files are lost, on which others stand, and two blobs are: one gone, one empty."""
    made = IMAGES["moved:old"]
    stored = stores.images.index.get(made.id)
    assert stored is not None
    shutil.rmtree(stores.snapshotter.layer_dir(stored.chain_ids[1]).parent)
    stores.content.path(stored.layers[2]).unlink()
    stores.content.path(made.id).write_bytes(b"")


async def _pull_damaged(world: World, stores: Stores) -> None:
    await _through(stores.images.pull(world.ref("moved:old"), "", None))


async def _repair(world: World, stores: Stores) -> None:
    found = [message["aux"] async for message in stores.checks.check(repair=True, auths={}) if "aux" in message]
    unhealed = [aux["Finding"] for aux in found if "Finding" in aux and not aux["Finding"]["Healed"]]
    if unhealed:
        raise SystemFault(f"not healed: {unhealed}", step="repair")


OPERATIONS: dict[str, Operation] = {
    "first-start": Operation(_nothing, opening=True, empty=True),
    "pull": Operation(_pull),
    "pull-moved": Operation(_pull_moved),
    "pull-damaged": Operation(_pull_damaged, _damage, heals=True),
    "repair": Operation(_repair, _damage, heals=True),
    "load": Operation(_load),
    "import": Operation(_import),
    "commit": Operation(_commit),
    "tag": Operation(_tag),
    "retag": Operation(_retag),
    "rmi": Operation(_rmi, frees=True),
    "rmi-id": Operation(_rmi_id, frees=True),
    "prune": Operation(_prune, frees=True, by_image=True),
    "sweep": Operation(_nothing, _garbage, opening=True),
}
