"""One sample a second for all who look at a container."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from corten.clock import ManualClock
from corten.engine.containers.sampler import Sampler
from corten.engine.models import StatsSample
from corten.errors import NotFound, SystemFault
from corten.tasks import TaskOwner


class Stage:
    """A sampler whose samples are numbers; `failures` are raised instead, one each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.tasks = TaskOwner("test")
        self.taken: list[str] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.sampler = Sampler(self.take, self.clock)

    async def take(self, container_id: str) -> dict[str, Any]:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(container_id)
        return {"n": len(self.taken)}

    def follow(self, container_id: str = "c") -> Follower:
        return Follower(self, container_id)


class Follower:
    def __init__(self, stage: Stage, container_id: str) -> None:
        self._stage = stage
        self.samples = stage.sampler.follow(container_id)

    async def next(self) -> StatsSample:
        return await asyncio.wait_for(anext(self.samples), 5)

    async def numbers(self) -> tuple[int, int | None]:
        """The next sample's number and that of the one before it."""
        sample = await self.next()
        return sample.value["n"], sample.before["n"] if sample.before else None

    async def close(self) -> None:
        await self.samples.aclose()


def run(story: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        stage = Stage()
        await story(stage)
        await stage.sampler.close()
        await stage.tasks.close("the test is over")

    asyncio.run(main())


def test_however_many_look_there_is_one_sample_a_second() -> None:
    async def story(s: Stage) -> None:
        followers = [s.follow() for _ in range(200)]
        firsts = await asyncio.gather(*(follower.next() for follower in followers))
        assert {(sample.value["n"], sample.before is None) for sample in firsts} == {(1, True)}
        for n in (2, 3):
            waiting = [s.tasks.start("next", follower.next()) for follower in followers]
            await s.clock.advance(1)
            samples = await asyncio.gather(*waiting)
            assert len(set(samples)) == 1  # one object, which is encoded once
            assert (samples[0].value["n"], samples[0].before) == (n, {"n": n - 1})
        assert s.taken == ["c"] * 3

    run(story)


def test_who_comes_later_begins_with_the_last_sample_and_none_before_it() -> None:
    async def story(s: Stage) -> None:
        early = s.follow()
        assert await early.numbers() == (1, None)
        await s.clock.advance(1)
        late = s.follow()
        assert await late.numbers() == (2, None)
        await s.clock.advance(1)
        assert await early.numbers() == await late.numbers() == (3, 2)

    run(story)


def test_who_is_slow_misses_samples_and_holds_nobody() -> None:
    async def story(s: Stage) -> None:
        slow, quick = s.follow(), s.follow()
        assert await slow.numbers() == (1, None)
        assert await quick.numbers() == (1, None)
        for n in (2, 3, 4):
            await s.clock.advance(1)
            assert await quick.numbers() == (n, n - 1)
        assert await slow.numbers() == (4, 3)

    run(story)


def test_containers_do_not_wait_for_each_other() -> None:
    async def story(s: Stage) -> None:
        s.gate.clear()
        stuck = s.tasks.start("stuck", s.follow("stuck").next())
        await s.clock.advance(0)
        s.gate = asyncio.Event()
        s.gate.set()
        assert await s.follow("other").numbers() == (1, None)
        assert not stuck.done()
        stuck.cancel()

    run(story)


def test_no_sample_is_taken_once_the_last_has_left_and_the_next_begins_anew() -> None:
    async def story(s: Stage) -> None:
        one, two = s.follow(), s.follow()
        await one.next()
        await two.next()
        await one.close()
        await s.clock.advance(1)
        assert await two.numbers() == (2, 1)
        await two.close()
        await s.clock.advance(10)
        assert s.taken == ["c"] * 2
        three = s.follow()
        assert await three.numbers() == (3, None)
        await s.clock.advance(1)
        assert await three.numbers() == (4, 3)

    run(story)


def test_who_is_cut_off_while_it_waits_takes_nobody_along() -> None:
    async def story(s: Stage) -> None:
        cut, stays = s.follow(), s.follow()
        await cut.next()
        await stays.next()
        waiting = s.tasks.start("cut", cut.next())
        await s.clock.advance(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await s.clock.advance(1)
        assert await stays.numbers() == (2, 1)

    run(story)


@pytest.mark.parametrize("failure", [NotFound("container", "c"), SystemFault("no counters")])
def test_the_end_of_a_container_ends_all_and_a_failure_is_told_to_all(failure: Exception) -> None:
    async def story(s: Stage) -> None:
        followers = [s.follow(), s.follow()]
        for follower in followers:
            await follower.next()
        s.failures.append(failure)
        await s.clock.advance(1)
        expected = StopAsyncIteration if isinstance(failure, NotFound) else SystemFault
        for follower in followers:
            with pytest.raises(expected):
                await follower.next()
        assert await s.follow().numbers() == (2, None)

    run(story)
