"""Work that several callers share."""

from __future__ import annotations

import asyncio

import pytest

from corten.engine.images.jobs import Report, SharedJobs, Update, together
from corten.tasks import TaskOwner
from tests.waiting import until_async


def test_one_job_serves_all_and_late_comers_see_where_it_is() -> None:
    async def script() -> None:
        jobs, gate, runs = SharedJobs[str](TaskOwner("t")), asyncio.Event(), []

        async def work(report: Report) -> str:
            runs.append(1)
            report(Update("half", 1, 2))
            await gate.wait()
            return "done"

        first: list[Update] = []
        second: list[Update] = []

        async def join() -> str:
            await until_async(lambda: first)
            asyncio.get_running_loop().call_soon(gate.set)
            return await jobs.run("k", work, second.append)

        assert set(await asyncio.gather(jobs.run("k", work, first.append), join())) == {"done"}
        assert (len(runs), first, second) == (1, [Update("half", 1, 2)], [Update("half", 1, 2)])
        assert await jobs.run("k", work, first.append) == "done"
        assert len(runs) == 2

    asyncio.run(script())


def test_who_joined_a_job_that_fails_tries_with_its_own_means() -> None:
    async def script() -> None:
        jobs, gate = SharedJobs[str](TaskOwner("t")), asyncio.Event()

        async def bad(report: Report) -> str:
            await gate.wait()
            raise ValueError("the first caller's registry is down")

        async def good(report: Report) -> str:
            return "mine"

        async def join() -> str:
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(gate.set)
            return await jobs.run("k", good, lambda update: None)

        failed, served = await asyncio.gather(jobs.run("k", bad, lambda update: None), join(), return_exceptions=True)
        assert isinstance(failed, ValueError)
        assert served == "mine"

    asyncio.run(script())


def test_a_job_ends_with_the_last_who_waits_for_it_and_the_next_begins_after_that() -> None:
    async def script() -> None:
        jobs, owner = SharedJobs[str](TaskOwner("t")), TaskOwner("callers")
        log: list[str] = []

        async def slow(report: Report) -> str:
            log.append("begun")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                log.append("cleaned up")
            return ""

        async def quick(report: Report) -> str:
            log.append("next")
            return "next"

        callers = [owner.start(str(n), jobs.run("k", slow, lambda update: None)) for n in range(2)]
        await until_async(lambda: log)
        callers[0].cancel()
        await asyncio.wait([callers[0]])
        assert log == ["begun"]
        callers[1].cancel()
        await asyncio.sleep(0)
        assert await jobs.run("k", quick, lambda update: None) == "next"
        assert log == ["begun", "cleaned up", "next"]

    asyncio.run(script())


def test_the_first_failure_cancels_the_rest_and_is_raised_plainly() -> None:
    async def script() -> None:
        ended: list[str] = []

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        async def fails() -> None:
            raise ValueError("x")

        async def nested() -> None:
            await together(fails(), waits())

        with pytest.raises(ValueError, match="x"):
            await together(waits(), nested())
        assert ended == ["cancelled", "cancelled"]

    asyncio.run(script())
