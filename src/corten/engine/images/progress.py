"""Docker's progress stream: what a long image operation tells its client while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from corten.clock import Clock
from corten.engine.images.jobs import Report, Update
from corten.engine.models import ProgressMessage
from corten.errors import Unavailable
from corten.tasks import TaskOwner

INTERVAL = 0.1
"""Seconds between two counts of the same layer: what an eye can follow, and little enough for a client to draw."""


class ProgressStream:
    """Messages from an operation, which runs as a task, to the one who reads them.

    The reader who goes away cancels the operation; one who is slow does not hold it up. Counts come at most every
    INTERVAL for each id, and those that the reader has not come to yet give way to later ones, so that what waits for
    a reader who has fallen asleep does not grow; a change of status comes always.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: asyncio.Queue[ProgressMessage | None] = asyncio.Queue()
        self._seen: dict[str, tuple[str, float]] = {}
        self._waiting: dict[str, ProgressMessage] = {}

    def say(self, message: ProgressMessage) -> None:
        self._queue.put_nowait(message)

    def status(self, text: str, id: str = "") -> None:
        self.say({"status": text, "id": id} if id else {"status": text})

    def layer(self, id: str, update: Update) -> None:
        """One layer's progress, throttled."""
        now = self._clock.monotonic()
        status, when = self._seen.get(id, ("", 0.0))
        if status == update.status and now - when < INTERVAL:
            return
        self._seen[id] = (update.status, now)
        detail = {"current": update.current, "total": update.total} if update.total else {}
        waiting = self._waiting.get(id)
        if waiting is not None and waiting["status"] == update.status:
            waiting["progressDetail"] = detail
            return
        message: ProgressMessage = {"status": update.status, "progressDetail": detail, "id": id}
        self._waiting[id] = message
        self.say(message)

    def observer(self, id: str) -> Report:
        return lambda update: self.layer(id, update)

    async def run(
        self, owner: TaskOwner, name: str, work: Coroutine[Any, Any, None]
    ) -> AsyncGenerator[ProgressMessage, None]:
        """Start `work` and pass on what it says; its failure is raised after its last message."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def perform() -> None:
            try:
                await work
            except Exception as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(None)
            finally:
                self._queue.put_nowait(None)

        task = owner.start(name, perform())
        try:
            while (message := await self._queue.get()) is not None:
                if self._waiting.get(id := message.get("id", "")) is message:
                    del self._waiting[id]
                yield message
            if not outcome.done():
                raise Unavailable(f"{name} was broken off: the daemon is shutting down")
            await outcome
        finally:
            if not task.done():
                task.cancel("the client went away")
                await asyncio.wait([task])
            if outcome.done() and not outcome.cancelled():
                outcome.exception()
