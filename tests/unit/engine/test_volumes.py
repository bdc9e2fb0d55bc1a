"""Volumes: Docker's names, words and rules, over the real directory and a store in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from corten.clock import ManualClock
from corten.engine.volumes import VolumeService
from corten.errors import Conflict, InvalidArgument, NotFound
from corten.testing.storage import MemoryDocuments


class Recorder:
    """An event sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str, dict[str, str]]] = []

    def publish(self, type: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        self.events.append((type, action, actor_id, attributes))


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = MemoryDocuments()
        self.users: dict[str, list[str]] = {}
        self.sink = Recorder()
        self.service = self.again()

    def again(self) -> VolumeService:
        """The service as after a restart of the daemon."""
        return VolumeService(self.root, self.store, ManualClock(), lambda name: self.users.get(name, []), self.sink)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "volumes")


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await script()

    asyncio.run(main())


def test_create_get_list_remove(world: World) -> None:
    async def script() -> None:
        made = await world.service.create("data", "", {}, {"a": "b"})
        assert made.mountpoint == str(world.root / "data" / "_data")
        assert os.listdir(made.mountpoint) == []
        assert world.service.get("data") == made
        assert await world.service.create("data", "local", {}, {"other": "x"}) == made
        assert world.service.list() == [made]
        await world.service.remove("data", force=False)
        assert world.service.list() == []
        assert not (world.root / "data").exists()
        assert world.sink.events == [
            ("volume", "create", "data", {"driver": "local"}),
            ("volume", "destroy", "data", {"driver": "local"}),
        ]

    run(script)


def test_anonymous_volumes_have_a_random_name_and_the_label(world: World) -> None:
    async def script() -> None:
        made = await world.service.create("", "", {}, {})
        assert len(made.name) == 64
        assert made.anonymous
        assert made.labels == {"com.docker.volume.anonymous": ""}

    run(script)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a b", "ä", "a\n"])
def test_names_with_other_characters(world: World, name: str) -> None:
    async def script() -> None:
        with pytest.raises(InvalidArgument, match=r'includes invalid characters for a local volume name, only "\[a-zA'):
            await world.service.create(name, "", {}, {})

    run(script)


@pytest.mark.parametrize(("name", "words"), [("a", "too short"), ("a" * 256, "too long")])
def test_lengths_of_names(world: World, name: str, words: str) -> None:
    async def script() -> None:
        with pytest.raises(InvalidArgument, match=words):
            await world.service.create(name, "", {}, {})

    run(script)


def test_drivers_and_options(world: World) -> None:
    async def script() -> None:
        with pytest.raises(NotFound, match='error looking up volume plugin nfs: plugin "nfs" not found'):
            await world.service.create("data", "nfs", {}, {})
        with pytest.raises(InvalidArgument, match='invalid option: "size"'):
            await world.service.create("data", "", {"size": "1"}, {})
        for options, missing in (({"type": "tmpfs"}, "device"), ({"device": "/x"}, "type"), ({"o": "ro"}, "device")):
            with pytest.raises(InvalidArgument, match=f'create data: missing required option: "{missing}"'):
                await world.service.create("data", "", options, {})
        assert world.service.list() == []
        assert not (world.root / "data").exists()

    run(script)


def test_remove_of_one_in_use(world: World) -> None:
    async def script() -> None:
        await world.service.create("data", "", {}, {})
        world.users["data"] = ["c1", "c2"]
        for force in (False, True):
            with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[c1, c2\]$"):
                await world.service.remove("data", force=force)
        assert (world.root / "data" / "_data").is_dir()

    run(script)


def test_what_is_missing(world: World) -> None:
    async def script() -> None:
        with pytest.raises(NotFound, match=r"^get data: no such volume$"):
            world.service.get("data")
        with pytest.raises(NotFound):
            await world.service.remove("data", force=False)
        await world.service.remove("data", force=True)

    run(script)


def test_prune(world: World) -> None:
    async def script() -> None:
        service = world.service
        anonymous = await service.create("", "", {}, {})
        (Path(anonymous.mountpoint) / "f").write_bytes(b"x" * 10_000)
        used = await service.create("", "", {}, {})
        world.users[used.name] = ["c"]
        await service.create("named", "", {}, {"keep": "no"})
        await service.create("other", "", {}, {"keep": "yes"})
        names, reclaimed = await service.prune({})
        assert names == [anonymous.name]
        assert reclaimed >= 10_000
        assert (await service.prune({"all": ["true"], "label!": ["keep=yes"]}))[0] == ["named"]
        assert (await service.prune({"all": ["1"], "label": ["keep"]}))[0] == ["other"]
        assert [volume.name for volume in service.list()] == [used.name]
        with pytest.raises(InvalidArgument, match="invalid filter 'size'"):
            await service.prune({"size": ["1"]})
        with pytest.raises(InvalidArgument, match="invalid filter 'all=maybe'"):
            await service.prune({"all": ["maybe"]})

    run(script)


def test_a_restart_finds_volumes_and_their_data(world: World) -> None:
    async def script() -> None:
        made = await world.service.create("data", "", {}, {"a": "b"})
        (Path(made.mountpoint) / "f").write_text("kept")
        again = world.again()
        assert again.list() == [made]
        assert (Path(again.get("data").mountpoint) / "f").read_text() == "kept"

    run(script)


def test_an_interrupted_removal_is_finished_by_the_restart(world: World) -> None:
    async def script() -> None:
        await world.service.create("data", "", {}, {})
        (world.root / "data").rename(world.root / ".trash" / "data")
        again = world.again()
        assert again.list() == []
        assert os.listdir((await again.create("data", "", {}, {})).mountpoint) == []

    run(script)


def test_many_at_once(world: World) -> None:
    async def script() -> None:
        made = await asyncio.gather(*(world.service.create(f"v{i % 5}", "", {}, {}) for i in range(40)))
        assert len({id(volume) for volume in made}) == 5
        assert len(world.sink.events) == 5

    run(script)


def test_what_a_crash_has_left_of_a_container_goes_at_the_next_start(world: World) -> None:
    async def script() -> None:
        names = ("kept", "left", "stays", "shared")
        volumes = {name: (await world.service.create("", "", {}, {}, "maker of " + name)).name for name in names}
        named = (await world.service.create("data", "", {}, {}, "maker of kept")).name
        before = (await world.service.create("", "", {}, {})).name  # of a version that did not say
        world.users[volumes["kept"]] = ["maker of kept"]
        world.users[volumes["shared"]] = ["another"]
        await world.service.outlive([volumes["stays"], "unknown"])
        again = world.again()
        await again.settle()
        assert {volume.name for volume in again.list()} == {
            volumes["kept"],
            volumes["stays"],
            volumes["shared"],
            named,
            before,
        }
        assert not (world.root / volumes["left"]).exists()
        world.users.clear()
        again = world.again()
        await again.settle()
        assert {volume.name for volume in again.list()} == {volumes["stays"], volumes["shared"], named, before}

    run(script)


def test_empty_directories_without_a_record_go_at_start_and_full_ones_stay(world: World) -> None:
    async def script() -> None:
        for name in ("empty", "bare", "full"):
            (world.root / name).mkdir()
        for name in ("empty", "full"):
            (world.root / name / "_data").mkdir()
        (world.root / "full/_data/file").write_text("precious")
        await world.service.create("known", "", {}, {})
        await world.again().settle()
        assert sorted(os.listdir(world.root)) == [".trash", "full", "known"]

    run(script)


def test_a_record_whose_directory_has_gone_goes_at_start(world: World) -> None:
    async def script() -> None:
        made = await world.service.create("data", "", {}, {})
        os.rmdir(made.mountpoint)
        os.rmdir(world.root / "data")
        await world.again().settle()
        assert world.store.all() == {}

    run(script)
