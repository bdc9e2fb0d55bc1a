"""Images mounted into containers: what is kept for them, and who is said to use them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corten.engine.containers import imagemounts
from corten.errors import CortenError, InvalidArgument
from corten.specs.container import ImageOptions, Mount
from corten.specs.oci_image import RunConfig
from corten.storage.types import MountPlan
from tests.unit.engine.harness import engine

TOOLS = "sha256:" + "2" * 64
MOUNTS = [
    Mount(type="tmpfs", target="/t"),
    Mount(type="image", source="tools", target="/x", image_options=ImageOptions(subpath="a")),
]


def test_a_view_comes_and_goes_with_the_container(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.images.add("tools", RunConfig())
            id = await e.create(mounts=MOUNTS)
            assert e.snapshots.active == {id, f"{id}.1"}
            point = e.containers.inspection.get(id).mounts[1]
            assert (point.name, point.image_id, point.subpath, point.rw) == ("tools", TOOLS, "a", False)
            assert point.source == f"{tmp_path}/layers/{id}.1"
            assert [user.id for user in e.catalog.image_users(TOOLS)] == [id]
            heir = await e.create("heir", volumes_from=["box"])
            await e.containers.removal.remove(id)
            assert e.snapshots.active == {heir, f"{heir}.1"}
            await e.restart()
            assert [user.id for user in e.catalog.image_users(TOOLS)] == [heir]
            await e.containers.removal.remove(heir)
            assert e.snapshots.active == set()
            assert e.catalog.image_users(TOOLS) == []

    asyncio.run(story())


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            with pytest.raises(InvalidArgument, match="No such image: tools"):
                await e.create(mounts=MOUNTS)
            e.images.add("tools", RunConfig())
            e.snapshots.fail = True
            with pytest.raises(CortenError):
                await e.create(mounts=MOUNTS)
            assert e.snapshots.active == set()

    asyncio.run(story())


def test_views_without_a_container_are_removed_at_the_start(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            e.images.add("tools", RunConfig())
            id = await e.create(mounts=MOUNTS)
            e.snapshots.active |= {f"{'f' * 64}.0", "layer.0"}
            await e.restart()
            assert e.snapshots.active == {id, f"{id}.1", "layer.0"}

    asyncio.run(story())


def test_the_layers_of_a_view() -> None:
    assert imagemounts.layers(MountPlan("bind", "/1/fs", ("rbind", "ro"))) == (["/1/fs"], [])
    overlay = MountPlan("overlay", "overlay", ("lowerdir=/2/fs:/1/fs", "index=off"))
    assert imagemounts.layers(overlay) == (["/2/fs", "/1/fs"], ["index=off"])
