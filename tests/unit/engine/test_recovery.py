"""The daemon is killed and started again over the same records."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corten.engine.models import Status
from corten.errors import NotFound
from corten.runtime.types import ExitStatus
from corten.specs.container import Mount, PortBinding, RestartPolicy
from tests.unit.engine.harness import engine, settle


def test_a_running_container_is_found_again_with_its_network(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web", port_bindings={"80/tcp": [PortBinding(host_port="8080")]})
            before = e.containers.inspection.get(id)
            await e.restart()
            after = e.containers.inspection.get("web")
            assert after is not before
            assert after == before
            assert list(e.controller.sandboxes) == [id]
            assert e.told() == []
            waiter = await e.containers.life_cycle.wait(id, "not-running")
            await e.runtime.finish(id, 5)
            assert (await waiter).status_code == 5

    asyncio.run(story())


def test_an_exit_meanwhile_has_its_code(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run()
            e.runtime.containers[id].exit = ExitStatus(42, e.clock.now_ns())
            await e.restart()
            assert e.status(id) is Status.EXITED
            assert e.containers.inspection.get(id).state.exit_code == 42
            assert e.controller.sandboxes == {}
            assert (await (await e.containers.life_cycle.wait(id, "not-running"))).status_code == 42
            assert e.told() == ["die"]

    asyncio.run(story())


def test_rm_is_kept_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(auto_remove=True)
            e.runtime.containers[id].exit = ExitStatus(0, e.clock.now_ns())
            await e.restart()
            with pytest.raises(NotFound):
                e.containers.inspection.get(id)
            assert e.snapshots.active == set()

    asyncio.run(story())


def test_a_lost_shim_has_a_reason(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run()
            await e.restart(keep_runtime=False)
            state = e.containers.inspection.get(id).state
            assert (state.status, state.exit_code, state.error) == (Status.EXITED, 137, "the shim is gone")

    asyncio.run(story())


@pytest.mark.parametrize(
    ("policy", "stopped", "starts"),
    [("always", True, True), ("unless-stopped", True, False), ("unless-stopped", False, True), ("no", False, False)],
)
def test_restart_policies_at_boot(tmp_path: Path, policy: str, stopped: bool, starts: bool) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run(restart_policy=RestartPolicy(name=policy))
            if stopped:
                await e.containers.life_cycle.stop(id)
            else:
                e.runtime.containers[id].exit = ExitStatus(0, e.clock.now_ns())
            await e.create("never-started", restart_policy=RestartPolicy(name="always"))
            await e.restart()
            await settle()
            assert (e.status(id) is Status.RUNNING) is starts
            assert e.status("never-started") is Status.CREATED

    asyncio.run(story())


def test_half_made_things_go(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("no-layer")
            kept = await e.create("kept")
            e.snapshots.active.discard(id)
            e.snapshots.active |= {"f" * 64, "extract-123"}
            await e.restart()
            assert [container.name for container in e.containers.inspection.list()] == ["kept"]
            assert e.snapshots.active == {kept, "extract-123"}

    asyncio.run(story())


def test_directories_without_a_record_go(tmp_path: Path) -> None:
    """A crash between the record's removal and that of the files."""

    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("kept")
            orphan = "e" * 64
            for directory in (e.settings.state_dir(orphan) / "shm", e.settings.run_dir(orphan)):
                directory.mkdir(parents=True)
                (directory / "file").touch()
            beside = e.settings.state_dir("x").parent / "not-ours"
            beside.mkdir()
            await e.restart()
            assert not e.settings.state_dir(orphan).exists()
            assert not e.settings.run_dir(orphan).exists()
            assert e.settings.state_dir(id).exists()
            assert beside.exists()

    asyncio.run(story())


def test_a_process_of_an_unrecorded_start_is_ended(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create()
            recorded = e.records.all()[id]
            await e.containers.life_cycle.start(id)
            (e.settings.run_dir(id) / "shim.sock").touch()
            await e.records.put(id, recorded)  # as if the daemon had died before it wrote that it started
            await e.restart()
            assert e.status(id) is Status.CREATED
            assert e.runtime.containers[id].signals == [9]
            assert e.runtime.forgotten == [id]
            assert "being started" in e.containers.inspection.get(id).state.error

    asyncio.run(story())


def test_a_removal_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create()
            e.containers.inspection.get(id).state.status = Status.REMOVING
            await e.catalog.save(e.catalog.find(id))
            await e.restart()
            assert list(e.containers.inspection.list()) == []

    asyncio.run(story())


def test_anonymous_volumes_outlive_a_container_that_goes_without_them(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            ids = [await e.create(f"c{n}", mounts=[Mount(type="volume", target="/data")]) for n in range(3)]
            volumes = [e.containers.inspection.get(id).mounts[0].name for id in ids]
            await e.containers.removal.remove(ids[0])
            await e.containers.removal.remove(ids[1], volumes=True)
            await e.restart()
            assert {volume.name for volume in e.volumes.list()} == {volumes[0], volumes[2]}

    asyncio.run(story())


def test_anonymous_volumes_go_with_a_container_that_a_crash_has_taken(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("box", mounts=[Mount(type="volume", target="/data")])
            await e.catalog.drop(e.catalog.find(id))  # and here the daemon dies
            assert len(e.volumes.list()) == 1
            await e.restart()
            assert e.volumes.list() == []

    asyncio.run(story())
