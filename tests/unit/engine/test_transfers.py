"""Copies that are under way while something else is wanted of their container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from corten.engine.containers.transfers import PACE_BYTES, PACE_S, Transfer
from corten.engine.models import Status
from corten.errors import Conflict, NotFound
from corten.tasks import TaskOwner
from tests.unit.engine.harness import Engine, engine, settle


class Client:
    """Copies until it is told to end; `come` and `starving` are what its worker would tell."""

    def __init__(self, e: Engine, tasks: TaskOwner, *, writes: bool = True) -> None:
        self.come, self.starving = 0, True
        self.inside, self.finish = asyncio.Event(), asyncio.Event()
        self.task = tasks.start("copy", self._copy(e, writes))

    async def _copy(self, e: Engine, writes: bool) -> str:
        try:
            async with Transfer(e.catalog.find("box"), writes=writes) as transfer:
                transfer.meter = lambda: (self.come, self.starving)
                self.inside.set()
                await self.finish.wait()
        except Conflict as error:
            return str(error)
        return "copied"


@contextlib.asynccontextmanager
async def story(root: Path) -> AsyncIterator[tuple[Engine, TaskOwner]]:
    tasks = TaskOwner("test")
    async with engine(root) as e:
        await e.create()
        yield e, tasks
        await tasks.close("the test is over")


def test_a_start_ends_a_copy_that_stands_still(tmp_path: Path) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            client = Client(e, tasks)
            await client.inside.wait()
            start = tasks.start("start", e.containers.life_cycle.start("box"))
            await settle()
            assert e.status("box") is Status.CREATED
            await e.clock.advance(PACE_S)
            await start
            assert e.status("box") is Status.RUNNING
            assert "is being started" in await client.task
            assert not e.catalog.find("box").transfers

    asyncio.run(tale())


@pytest.mark.parametrize("progress", ["much", "busy"])
def test_a_start_waits_for_a_copy_that_gets_on(tmp_path: Path, progress: str) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            client = Client(e, tasks)
            await client.inside.wait()
            start = tasks.start("start", e.containers.life_cycle.start("box"))
            for _ in range(5):
                await settle()
                client.come += PACE_BYTES if progress == "much" else 0
                client.starving = progress == "much"
                await e.clock.advance(PACE_S)
            assert e.status("box") is Status.CREATED
            client.finish.set()
            await start
            assert await client.task == "copied"

    asyncio.run(tale())


def test_a_trickle_is_no_progress(tmp_path: Path) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            client = Client(e, tasks)
            await client.inside.wait()
            start = tasks.start("start", e.containers.life_cycle.start("box"))
            await settle()
            client.come += 2
            await e.clock.advance(PACE_S)
            await start
            assert "stood still" in await client.task

    asyncio.run(tale())


def test_who_reads_holds_up_no_start(tmp_path: Path) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            client = Client(e, tasks, writes=False)
            await client.inside.wait()
            await e.containers.life_cycle.start("box")
            assert not client.task.done()
            await e.containers.removal.remove("box", force=True)
            assert "is being removed" in await client.task

    asyncio.run(tale())


@pytest.mark.parametrize("starting", [False, True])
def test_a_removal_waits_for_nobody(tmp_path: Path, starting: bool) -> None:
    """Not even for a start that waits for the copy: what that has started is ended again."""

    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            client = Client(e, tasks)
            await client.inside.wait()
            if starting:
                start = tasks.start("start", e.containers.life_cycle.start("box"))
                await settle()
            await e.containers.removal.remove("box", force=True)
            if starting:
                await start
            assert "is being removed" in await client.task
            with pytest.raises(NotFound):
                e.catalog.find("box")

    asyncio.run(tale())


def test_writers_to_one_layer_follow_each_other(tmp_path: Path) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            first, second = Client(e, tasks), Client(e, tasks)
            await first.inside.wait()
            await settle()
            assert not second.inside.is_set()
            await asyncio.wait_for(e.containers.configuration.rename("box", "renamed"), 5)  # no lock is held
            await e.containers.configuration.rename("renamed", "box")
            first.finish.set()
            await second.inside.wait()
            second.finish.set()
            assert [await first.task, await second.task] == ["copied", "copied"]

    asyncio.run(tale())


def test_writers_to_a_running_container_do_not(tmp_path: Path) -> None:
    async def tale() -> None:
        async with story(tmp_path) as (e, tasks):
            await e.containers.life_cycle.start("box")
            clients = [Client(e, tasks), Client(e, tasks)]
            for client in clients:
                await client.inside.wait()
                client.finish.set()
            assert [await client.task for client in clients] == ["copied", "copied"]

    asyncio.run(tale())


def test_a_failure_of_the_copy_itself_stays_its_own(tmp_path: Path) -> None:
    async def copy(e: Engine, fail: Callable[[], None]) -> None:
        async with Transfer(e.catalog.find("box"), writes=True):
            fail()

    def slow_disk() -> None:
        raise TimeoutError(110, "Connection timed out")

    async def tale() -> None:
        async with story(tmp_path) as (e, _):
            with pytest.raises(TimeoutError, match="Connection timed out"):
                await copy(e, slow_disk)
            assert not e.catalog.find("box").transfers

    asyncio.run(tale())
