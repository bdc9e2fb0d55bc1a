"""The only caller of `asyncio.create_task`: a task has a name, an owner, and a reason to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class TaskOwner:
    """A set of background tasks that end with their owner.

    A task that fails is logged at once with its name; it does not take its siblings with it. `close` cancels what is
    left and waits for it; a task started after `close` is refused.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        if self._closed:
            work.close()
            raise RuntimeError(f"{self.name} is closed; {name} was not started")
        task = asyncio.create_task(work, name=f"{self.name}/{name}")  # noqa: TID251 - this is the one place
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("task %s failed: %s", task.get_name(), failure, exc_info=failure)

    async def close(self, reason: str) -> None:
        """Cancel what is running, with `reason`, and wait until it has ended."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel(reason)
        if tasks:
            await asyncio.wait(tasks)
