"""`docker stats` for many at once: a container is sampled once a second, however many look at it, and not at all when
nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from corten.clock import Clock
from corten.engine.models import StatsSample
from corten.errors import NotFound
from corten.tasks import TaskOwner

INTERVAL = 1.0
"""Seconds from one sample to the next."""

Take = Callable[[str], Awaitable[dict[str, Any]]]


class _Feed:
    """The samples of one container: the last one, and a place to wait for the next."""

    def __init__(self) -> None:
        self.followers = 0
        self.last: StatsSample | None = None
        self.next: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        self.ended = False

    def publish(self, value: dict[str, Any]) -> None:
        self.last = StatsSample(value, self.last.value if self.last is not None else None)
        done, self.next = self.next, asyncio.get_running_loop().create_future()
        done.set_result(None)

    def end(self, failure: Exception | None = None) -> None:
        self.failure, self.ended = failure, True
        self.next.set_result(None)


class Sampler:
    """`take` gives one sample of the container with an id; it raises NotFound for one that was removed."""

    def __init__(self, take: Take, clock: Clock) -> None:
        self._take, self._clock = take, clock
        self._tasks = TaskOwner("stats")
        self._feeds: dict[str, _Feed] = {}

    async def follow(self, container_id: str) -> AsyncGenerator[StatsSample, None]:
        """The sample of now, without one before it, and each later one together with the one before; until the
        container is removed.

        Who is slow misses samples, and gets the newest when it asks again. Nobody waits for anybody.
        """
        feed = self._feeds.get(container_id)
        if feed is None:
            feed = self._feeds[container_id] = _Feed()
            feed.task = self._tasks.start(f"samples of {container_id}", self._sample(container_id, feed))
        feed.followers += 1
        seen: StatsSample | None = None
        try:
            while True:
                while feed.last is seen and not feed.ended:
                    await asyncio.shield(feed.next)
                if feed.last is None or feed.last is seen:
                    break
                first, seen = seen is None, feed.last
                yield StatsSample(seen.value, None) if first else seen
        finally:
            feed.followers -= 1
            if not feed.followers:
                self._stop(container_id, feed)
        if feed.failure is not None:
            raise feed.failure

    async def close(self) -> None:
        await self._tasks.close("the daemon stops")

    async def _sample(self, container_id: str, feed: _Feed) -> None:
        failure = None
        try:
            with suppress(NotFound):
                while True:
                    feed.publish(await self._take(container_id))
                    await self._clock.sleep(INTERVAL)
        except Exception as error:  # told to all who follow
            failure = error
        finally:
            self._drop(container_id, feed)
            feed.end(failure)

    def _stop(self, container_id: str, feed: _Feed) -> None:
        if feed.task is not None:
            feed.task.cancel("nobody looks any more")
        self._drop(container_id, feed)

    def _drop(self, container_id: str, feed: _Feed) -> None:
        """Whoever comes next begins another one, and may have done so."""
        if self._feeds.get(container_id) is feed:
            del self._feeds[container_id]
