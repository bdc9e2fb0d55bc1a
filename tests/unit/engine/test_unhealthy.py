"""What is done with a container that is unhealthy, and when it is not asked how it is."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path
from typing import Any

import pytest

from corten.engine.models import Health, Status
from corten.errors import InvalidArgument, StartFailed
from corten.specs.container import CreateRequest, HealthConfig, HostConfig, Resources, RestartPolicy
from corten.specs.oci_image import RunConfig
from corten.tasks import TaskOwner
from tests.unit.engine.harness import Engine, engine, settle

SECOND = 1_000_000_000
LABEL = "corten.health-on-failure"


async def run(e: Engine, on_failure: str, *, labels: dict[str, str] | None = None, **host: Any) -> str:
    check = HealthConfig(test=["CMD", "ok"], interval=10 * SECOND, retries=1, on_failure=on_failure)
    request = CreateRequest(image="busybox", healthcheck=check, labels=labels, host_config=HostConfig(**host))
    id = (await e.containers.creation.create("web", request)).id
    await e.containers.life_cycle.start(id)
    return id


def health(e: Engine, id: str) -> Health:
    found = e.containers.inspection.get(id).state.health
    assert found is not None
    return found


async def probe(e: Engine, id: str, code: int) -> None:
    """Let the next probe begin and end."""
    await e.clock.advance(10)
    await settle()
    (exec_id,) = e.containers.inspection.get(id).exec_ids
    await e.runtime.execs.finish(id, exec_id, code)
    await settle()


async def restarted_after(e: Engine, id: str, pause: float) -> None:
    """It is between two runs, and is started after this pause and not before."""
    assert e.status(id) is Status.RESTARTING
    launches = len(e.runtime.launches)
    await e.clock.advance(pause * 0.9)
    await settle()
    assert len(e.runtime.launches) == launches
    await e.clock.advance(pause * 0.2)
    await settle()
    assert len(e.runtime.launches) == launches + 1
    assert e.status(id) is Status.RUNNING


def test_restart_without_a_policy_backs_off_until_it_is_healthy(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "restart")
            for pause in (0.1, 0.2, 0.4, 0.8):  # ten seconds and more each, but none of them good
                await probe(e, id, 1)
                await restarted_after(e, id, pause)
                assert (health(e, id).status, health(e, id).failing_streak) == ("starting", 0)
            assert e.containers.inspection.get(id).restart_count == 4
            await probe(e, id, 0)
            await probe(e, id, 1)
            await restarted_after(e, id, 0.1)
            assert [action for action in e.told() if "exec" not in action][-6:] == [
                "health_status: healthy",
                "health_status: unhealthy",
                "health_on_failure: restart",
                "kill",
                "die",
                "start",
            ]
            await e.containers.life_cycle.stop(id)
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_restart_ends_it_by_force_after_its_patience(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "restart")
            e.runtime.exit_on_signal = {signal.SIGKILL}
            await probe(e, id, 1)
            await e.clock.advance(9)
            await settle()
            assert e.runtime.containers[id].signals == [signal.SIGTERM]
            assert e.containers.inspection.get(id).exec_ids == []  # nobody asks it any more
            process = e.runtime.containers[id]
            await e.clock.advance(1.5)
            await settle()
            assert process.signals == [signal.SIGTERM, signal.SIGKILL]
            assert e.status(id) is Status.RUNNING
            assert len(e.runtime.launches) == 2

    asyncio.run(story())


def test_restart_ends_where_on_failure_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "restart", restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=1))
            e.runtime.exit_on_signal = {signal.SIGTERM}
            await probe(e, id, 1)
            await restarted_after(e, id, 0.1)
            await probe(e, id, 1)
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_a_stop_of_the_users_is_final(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "restart")
            tasks = TaskOwner("test")
            e.runtime.exit_on_signal = set()
            await probe(e, id, 1)
            stopping = tasks.start("stop", e.containers.life_cycle.stop(id, timeout=60))
            await settle()
            await e.runtime.finish(id, 0)
            await stopping
            await e.clock.advance(5)
            await settle()
            assert e.status(id) is Status.EXITED
            assert len(e.runtime.launches) == 1

    asyncio.run(story())


def test_nothing_is_done_to_what_is_being_stopped(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "kill")
            tasks = TaskOwner("test")
            e.runtime.exit_on_signal = set()
            stopping = tasks.start("stop", e.containers.life_cycle.stop(id, timeout=60))
            await settle()
            await probe(e, id, 1)
            assert health(e, id).status == "unhealthy"
            assert e.runtime.containers[id].signals == [signal.SIGTERM]
            await e.runtime.finish(id, 0)
            await stopping

    asyncio.run(story())


def test_stop_is_as_the_users(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "stop", restart_policy=RestartPolicy(name="always"))
            await probe(e, id, 1)
            assert e.status(id) is Status.EXITED
            assert e.runtime.containers[id].signals == [signal.SIGTERM]
            assert e.told()[-4:] == ["health_on_failure: stop", "kill", "die", "stop"]
            await e.clock.advance(120)
            await settle()
            assert len(e.runtime.launches) == 1

    asyncio.run(story())


@pytest.mark.parametrize(("policy", "restarts"), [("no", False), ("on-failure", True), ("unless-stopped", True)])
def test_kill_is_as_a_crash(tmp_path: Path, policy: str, restarts: bool) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "kill", restart_policy=RestartPolicy(name=policy))
            await probe(e, id, 1)
            assert e.runtime.containers[id].signals == [signal.SIGKILL]
            assert e.told()[-3:] == ["health_on_failure: kill", "kill", "die"]
            if restarts:
                await restarted_after(e, id, 0.1)
                await probe(e, id, 1)
                await restarted_after(e, id, 0.2)
            else:
                assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_a_restart_that_the_daemon_did_not_live_to_make_is_made(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "restart")
            await probe(e, id, 1)
            assert e.status(id) is Status.RESTARTING
            await e.restart()
            assert e.status(id) is Status.RUNNING
            await e.containers.life_cycle.stop(id)
            await e.restart()
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_who_says_what(tmp_path: Path) -> None:
    """The container's field, its label, the image's field, the image's label."""

    async def story() -> None:
        async with engine(tmp_path) as e:
            check = HealthConfig(test=["CMD", "ok"])
            e.images.add("checked", RunConfig(cmd=["sh"], healthcheck=check, labels={LABEL: "stop"}))

            async def chosen(name: str, **config: Any) -> HealthConfig:
                id = (await e.containers.creation.create(name, CreateRequest(image="checked", **config))).id
                found = e.containers.inspection.get(id).config.healthcheck
                assert found is not None
                return found

            assert (await chosen("aa")).on_failure == "stop"
            assert (await chosen("bb", labels={LABEL: "restart"})).on_failure == "restart"
            own = await chosen("cc", labels={LABEL: "restart"}, healthcheck=HealthConfig(on_failure="none"))
            assert own.on_failure == "none"
            assert own.test == ["CMD", "ok"]
            assert (await chosen("dd", healthcheck=HealthConfig(test=["NONE"]))).on_failure == ""

    asyncio.run(story())


def test_what_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            check = HealthConfig(test=["CMD", "ok"], on_failure="restart")
            create = e.containers.creation.create
            with pytest.raises(InvalidArgument, match="needs a health check, and the container has none"):
                await create("aa", CreateRequest(image="busybox", healthcheck=HealthConfig(on_failure="kill")))
            with pytest.raises(InvalidArgument, match="AutoRemove"):
                await create(
                    "aa", CreateRequest(image="busybox", healthcheck=check, host_config=HostConfig(auto_remove=True))
                )
            reboot = CreateRequest(
                image="busybox", labels={LABEL: "reboot"}, healthcheck=HealthConfig(test=["CMD", "ok"])
            )
            with pytest.raises(InvalidArgument, match="invalid health-on-failure 'reboot': use one of 'none', 're"):
                await create("aa", reboot)
            made = await create("aa", CreateRequest(image="busybox", labels={LABEL: "stop"}))
            assert made.warnings == [f"The label {LABEL} has no effect, as the container has no health check."]
            with pytest.raises(InvalidArgument, match="needs a health check"):
                await e.containers.configuration.update("aa", Resources(), None, "stop")
            assert e.containers.inspection.get("aa").config.healthcheck is None

    asyncio.run(story())


def test_the_choice_can_be_changed(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "none")
            await probe(e, id, 1)
            assert e.status(id) is Status.RUNNING
            await e.containers.configuration.update(id, Resources(), None, "kill")
            await probe(e, id, 1)  # unhealthy already, and found so again
            assert e.status(id) is Status.EXITED

    asyncio.run(story())


def test_a_paused_container_is_not_asked(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "kill")
            await probe(e, id, 0)
            await e.clock.advance(10)
            await settle()
            (under_way,) = e.containers.inspection.get(id).exec_ids
            await e.containers.life_cycle.pause(id)
            await settle()
            assert e.runtime.containers[id].execs[under_way].signals == [signal.SIGKILL]
            await e.runtime.execs.finish(id, under_way, 137)
            await e.clock.advance(100)
            await settle()
            assert len(e.runtime.containers[id].execs) == 2
            assert (health(e, id).status, len(health(e, id).log)) == ("healthy", 1)
            await e.restart()
            await e.clock.advance(100)
            await settle()
            assert e.status(id) is Status.PAUSED
            assert len(e.runtime.containers[id].execs) == 2
            await e.containers.life_cycle.unpause(id)
            await probe(e, id, 0)
            assert len(health(e, id).log) == 2

    asyncio.run(story())


def test_a_check_that_cannot_be_made_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "none")
            e.runtime.containers.failures.append(StartFailed("no such file or directory", exit_code=127))
            await e.clock.advance(10)
            await settle()
            assert health(e, id).status == "unhealthy"
            assert health(e, id).log[-1].exit_code == 127
            with monkeypatch.context() as patch:
                patch.setattr("corten.engine.containers.health.socket.socketpair", no_descriptors)
                await e.clock.advance(10)
                await settle()
            assert health(e, id).log[-1].exit_code == -1
            assert health(e, id).log[-1].output == "the health check could not be made: Too many open files"
            await probe(e, id, 0)
            assert health(e, id).status == "healthy"

    asyncio.run(story())


def test_another_run_has_its_health_to_show_yet(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await run(e, "")
            await probe(e, id, 0)
            await e.containers.life_cycle.stop(id)
            assert health(e, id).status == "unhealthy"
            await e.containers.life_cycle.start(id)
            assert health(e, id).status == "starting"
            await probe(e, id, 0)
            await e.restart()
            assert health(e, id).status == "healthy"

    asyncio.run(story())


def test_unless_stopped_is_no_more_once_the_user_sent_a_signal(tmp_path: Path) -> None:
    """A signal that is not the one that stops it: the container may end of it later, and the user wanted that."""

    async def story() -> None:
        async with engine(tmp_path) as e:
            request = CreateRequest(
                image="busybox",
                stop_signal="SIGUSR1",
                host_config=HostConfig(restart_policy=RestartPolicy(name="unless-stopped")),
            )
            id = (await e.containers.creation.create("web", request)).id
            await e.containers.life_cycle.start(id)
            await e.containers.life_cycle.kill(id, "HUP")
            await e.runtime.finish(id, 1)
            assert e.status(id) is Status.EXITED

    asyncio.run(story())
