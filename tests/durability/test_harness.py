"""That the harness sees what it is there to see."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.durability import checks, operations
from tests.durability.conftest import RemoteLab
from tests.durability.world import ROOTFS, Stores, World
from tests.unit.engine.images.support import collect, pieces

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.mark.parametrize(("operation", "way"), [("tag", "power"), ("pull", "journal")])
def test_a_disk_that_lies_about_syncs_loses_what_had_answered(lab: RemoteLab, operation: str, way: str) -> None:
    report = lab.ask(operation=operation, every=True, ways=[way], only="at answered", lying=True)
    assert report["cuts"] == 1
    assert any("it had answered, and is not there" in text for text in report["problems"]), report


def test_a_process_is_stopped_before_the_call(lab: RemoteLab) -> None:
    """Of the first tag that an empty database gets, nothing is there when the write to the log does not come."""
    report = lab.ask(operation="tag", every=True, ways=["kill", "eio"], only="fdatasync corten.db-wal [1]")
    assert (report["cuts"], report["missed"], report["problems"]) == (2, [], [])


async def _imported(stores: Stores) -> None:
    source = pieces(ROOTFS, 1000)
    await collect(stores.images.archives.import_rootfs(source, "x:1", message="", changes=[], platform=""))


def test_what_belongs_to_nobody_is_seen_and_cleaned_up(tmp_path: Path) -> None:
    async def script() -> None:
        world = World(tmp_path, "127.0.0.1:1")
        async with world.open() as stores:
            await _imported(stores)
            await operations._garbage(world, stores)
            (tmp_path / "stray").touch()
            seen = "\n".join(checks.unlisted(stores))
            for words in ("snapshot unpack-lost", "snapshot sha256:dddd", "blob sha256:", "ingest/", "snapshots/999"):
                assert words in seen
            assert "trash/888.ab" in seen
            assert "stray" in seen
            await checks.clean_up(stores)
            assert checks.unlisted(stores) == ["snapshots/999", "snapshots/trash/888.ab", "stray"]
        async with world.open() as stores:
            assert checks.unlisted(stores) == ["stray"]

    asyncio.run(script())


def test_damage_is_seen(tmp_path: Path) -> None:
    async def script() -> None:
        async with World(tmp_path, "127.0.0.1:1").open() as stores:
            await _imported(stores)
            trees: dict[str, str] = {}
            assert checks.whole(stores, tmp_path, trees) == []
            (stored,) = stores.images.index.images()
            layer = stores.snapshotter.layer_dir(stored.chain_ids[0])
            (layer / "bin/sh").write_bytes(b"other")
            assert checks.whole(stores, tmp_path, trees) == [f"image {stored.id} has other files than before"]
            stores.content.path(stored.layers[0]).write_bytes(b"")
            assert "damaged" in checks.whole(stores, tmp_path, trees)[0]
            assert checks.sound(stores) == []
            (tmp_path / "content/oci-layout").write_bytes(b"")
            assert checks.sound(stores) == ["content/oci-layout is b''"]

    asyncio.run(script())
