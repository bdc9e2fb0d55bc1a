"""Exec sessions and health checks."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from corten.engine.containers.execs import KEPT_S
from corten.engine.models import Hijacked
from corten.errors import Conflict, InvalidArgument, NotFound, StartFailed
from corten.specs.container import CreateRequest, ExecRequest, HealthConfig
from tests.unit.engine.harness import Engine, client, engine, settle


async def no_upgrade() -> Hijacked:
    raise AssertionError("the connection was given away")


async def begin(e: Engine, exec_id: str, *, detach: bool = True) -> None:
    await e.execs.exec_start(exec_id, detach=detach, tty=False, console_size=None, upgrade=no_upgrade)


def test_a_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web", cap_drop=["ALL"])
            request = ExecRequest(cmd=["ls", "-l"], attach_stdout=True, env=["A=1"], user="nobody", working_dir="/tmp")
            exec_id = await e.execs.exec_create("web", request)
            assert e.containers.inspection.get(id).exec_ids == [exec_id]
            with client() as (ours, hijacked):

                async def upgrade() -> Hijacked:
                    return hijacked

                await e.execs.exec_start(exec_id, detach=False, tty=False, console_size=None, upgrade=upgrade)
                session = e.execs.exec_get(exec_id)
                assert (session.running, session.exit_code, session.pid > 0) == (True, None, True)
                with pytest.raises(Conflict, match="is already running"):
                    await begin(e, exec_id)
                await e.runtime.execs.finish(id, exec_id, 3)
                assert ours.recv(1) == b""
            assert (session.running, session.exit_code) == (False, 3)
            assert e.containers.inspection.get(id).exec_ids == []
            with pytest.raises(Conflict, match="has already run"):
                await begin(e, exec_id)
            made = e.runtime.containers[id].execs[exec_id].request
            assert made is not None
            process = made.process  # type: ignore[union-attr]
            assert (process.cwd, process.args, made.user) == ("/tmp", ["ls", "-l"], "nobody")
            assert process.env[-1] == "A=1"
            assert process.capabilities is not None
            assert process.capabilities.effective == []
            assert e.told()[-3:] == ["exec_create: ls -l", "exec_start: ls -l", "exec_die"]

    asyncio.run(story())


def test_clients_that_detach_are_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            e.runtime.stdio.detach(id)
            e.runtime.stdio.detach(id, "f00")
            e.runtime.stdio.detach("removed meanwhile")
            plain, session = list(e.events._kept)[-2:]
            assert (plain.action, plain.attributes) == ("detach", {"image": "busybox", "name": "web"})
            assert (session.action, session.attributes) == ("exec_detach", {**plain.attributes, "execID": "f00"})

    asyncio.run(story())


def test_a_program_that_is_not_there_is_told_on_the_stream(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            await e.run("web")
            exec_id = await e.execs.exec_create("web", ExecRequest(cmd=["nosuch"], attach_stdout=True))
            e.runtime.containers.failures.append(StartFailed("ENOENT", exit_code=127))
            with client() as (ours, hijacked):

                async def upgrade() -> Hijacked:
                    return hijacked

                await e.execs.exec_start(exec_id, detach=False, tty=False, console_size=None, upgrade=upgrade)
                stream, length = struct.unpack(">BxxxL", ours.recv(8))
                text = ours.recv(length).decode()
                assert stream == 1
                assert text.startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
                assert 'exec: "nosuch": executable file not found in $PATH' in text
                assert text.endswith("\r\n")
                assert ours.recv(1) == b""
            assert e.execs.exec_get(exec_id).exit_code == 127

    asyncio.run(story())


def test_refusals(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.create("web")
            with pytest.raises(Conflict, match=f"container {id} is not running"):
                await e.execs.exec_create("web", ExecRequest(cmd=["ls"]))
            await e.containers.life_cycle.start("web")
            with pytest.raises(InvalidArgument, match="No exec command specified"):
                await e.execs.exec_create("web", ExecRequest())
            exec_id = await e.execs.exec_create("web", ExecRequest(cmd=["ls"]))
            await e.containers.life_cycle.pause("web")
            with pytest.raises(Conflict, match="is paused, unpause the container before exec"):
                await begin(e, exec_id)
            with pytest.raises(NotFound, match="No such exec instance: nope"):
                e.execs.exec_get("nope")

    asyncio.run(story())


def test_sessions_end_with_their_container_and_are_forgotten_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            id = await e.run("web")
            exec_id = await e.execs.exec_create("web", ExecRequest(cmd=["sleep", "1"]))
            await begin(e, exec_id)
            await e.runtime.finish(id)
            assert e.execs.exec_get(exec_id).exit_code == 137
            await e.clock.advance(KEPT_S + 1)
            await e.containers.life_cycle.start(id)
            await e.execs.exec_create("web", ExecRequest(cmd=["ls"]))
            with pytest.raises(NotFound):
                e.execs.exec_get(exec_id)

    asyncio.run(story())


async def probe(e: Engine, id: str, code: int) -> None:
    """Let the next probe begin and end."""
    await e.clock.advance(10)
    await settle()
    (exec_id,) = e.containers.inspection.get(id).exec_ids
    await e.runtime.execs.finish(id, exec_id, code)
    await settle()


def test_health_goes_through_its_states(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            check = HealthConfig(test=["CMD", "ok"], interval=10_000_000_000, retries=2)
            id = (await e.containers.creation.create("web", CreateRequest(image="busybox", healthcheck=check))).id
            await e.containers.life_cycle.start(id)

            def status() -> str:
                health = e.containers.inspection.get(id).state.health
                assert health is not None
                return health.status

            assert status() == "starting"
            await probe(e, id, 0)
            assert status() == "healthy"
            await probe(e, id, 1)
            assert status() == "healthy"
            await probe(e, id, 1)
            assert status() == "unhealthy"
            assert [action for action in e.told() if action.startswith("health")] == [
                "health_status: healthy",
                "health_status: unhealthy",
            ]
            await e.clock.advance(10)
            await settle()
            await e.clock.advance(31)
            await settle()
            health = e.containers.inspection.get(id).state.health
            assert health is not None
            assert health.log[-1].exit_code == -1
            assert health.log[-1].output == "Health check exceeded timeout (30s)"
            await e.containers.life_cycle.stop(id)

    asyncio.run(story())


def test_no_health_without_a_check(tmp_path: Path) -> None:
    async def story() -> None:
        async with engine(tmp_path) as e:
            check = HealthConfig(test=["NONE"])
            id = (await e.containers.creation.create("web", CreateRequest(image="busybox", healthcheck=check))).id
            await e.containers.life_cycle.start(id)
            assert e.containers.inspection.get(id).state.health is None

    asyncio.run(story())
