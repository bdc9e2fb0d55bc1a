"""Work that several callers want at the same time, done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from corten.tasks import TaskOwner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Update:
    """How far a piece of work is: Docker's word for its phase, and bytes where it counts them."""

    status: str
    current: int = 0
    total: int = 0


Report = Callable[[Update], None]


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    outcome: asyncio.Future[T]
    task: asyncio.Task[None] | None = None
    observers: list[Report] = field(default_factory=list)
    last: Update | None = None
    abandoned: bool = False

    def report(self, update: Update) -> None:
        self.last = update
        for observer in self.observers:
            observer(update)


class SharedJobs(Generic[T]):
    """At most one job per key at a time. A job is cancelled when the last of those who wait for it goes away."""

    def __init__(self, owner: TaskOwner) -> None:
        self._owner = owner
        self._jobs: dict[str, _Job[T]] = {}

    async def run(self, key: str, work: Callable[[Report], Coroutine[Any, Any, T]], observer: Report) -> T:
        """The result of the job `key`, started with `work` unless it is running. `observer` sees its updates.

        When a job fails that another caller started, `work` has its own try: it may have another source.
        """
        while True:
            job = self._jobs.get(key)
            if job is not None and job.abandoned:
                assert job.task is not None
                await asyncio.wait([job.task])
                continue
            if job is None:
                return await self._wait(key, self._start(key, work), observer)
            try:
                return await self._wait(key, job, observer)
            except Exception:
                if self._jobs.get(key) is job:
                    raise

    def _start(self, key: str, work: Callable[[Report], Coroutine[Any, Any, T]]) -> _Job[T]:
        job = _Job[T](asyncio.get_running_loop().create_future())
        self._jobs[key] = job
        job.task = self._owner.start(key, self._perform(key, job, work))
        return job

    async def _perform(self, key: str, job: _Job[T], work: Callable[[Report], Coroutine[Any, Any, T]]) -> None:
        try:
            result = await work(job.report)
            if not job.outcome.done():
                job.outcome.set_result(result)
        except Exception as error:
            if not job.outcome.done():
                job.outcome.set_exception(error)
                job.outcome.exception()  # seen: those who wait raise it
        finally:
            job.outcome.cancel()
            del self._jobs[key]

    async def _wait(self, key: str, job: _Job[T], observer: Report) -> T:
        job.observers.append(observer)
        if job.last is not None:
            observer(job.last)
        try:
            return await asyncio.shield(job.outcome)
        finally:
            job.observers.remove(observer)
            if not job.observers and job.task is not None and not job.task.done():
                job.abandoned = not job.outcome.done()
                if job.abandoned:
                    job.task.cancel()
                await asyncio.wait([job.task])


async def together(*work: Awaitable[Any]) -> None:
    """All of `work` at once; the first failure cancels the rest and is raised as it is, not in a group."""

    async def one(item: Awaitable[Any]) -> None:
        await item

    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(one(item))
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    finally:
        # One that was cancelled before its first step has not begun what it was given.
        for item in work:
            if isinstance(item, Coroutine):
                item.close()
