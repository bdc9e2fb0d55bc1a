"""What happened, as `docker events` tells it: a window of past events, and live ones to whoever listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from corten.clock import Clock
from corten.engine.models import Event

KEPT = 1024
"""Past events that a listener can ask for; Docker keeps 256."""

QUEUE = 4096
"""Events that a listener may be behind; one that is further behind is cut off, as it would see a gap otherwise."""


class EventBus:
    """Publishes events in order. `publish` never waits: a listener that does not keep up is ended, not waited for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._last_ns = 0

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, type: str, action: str, actor_id: str, attributes: dict[str, str], scope: str = "local") -> Event:
        """Record an event at the present time. No two events have the same time, so that `since` can resume."""
        self._last_ns = max(self._last_ns + 1, self._clock.now_ns())
        event = Event(
            type=type, action=action, actor_id=actor_id, attributes=attributes, time_ns=self._last_ns, scope=scope
        )
        self._kept.append(event)
        for queue in list(self._listeners):
            self._offer(queue, event)
        return event

    def _offer(self, queue: asyncio.Queue[Event | None], event: Event) -> None:
        if queue.qsize() >= QUEUE:
            self._listeners.discard(queue)
            queue.put_nowait(None)
        else:
            queue.put_nowait(event)

    async def subscribe(self, since_ns: int, until_ns: int | None) -> AsyncIterator[Event]:
        """Kept events from `since_ns` on (0: none), then live ones until `until_ns` (None: until closed)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = [event for event in self._kept if since_ns and event.time_ns >= since_ns]
        self._listeners.add(queue)
        try:
            for event in past:
                if until_ns is None or event.time_ns <= until_ns:
                    yield event
            while (live := await self._next(queue, until_ns)) is not None:
                yield live
        finally:
            self._listeners.discard(queue)

    async def _next(self, queue: asyncio.Queue[Event | None], until_ns: int | None) -> Event | None:
        if until_ns is None:
            return await queue.get()
        left = (until_ns - self._clock.now_ns()) / 1e9
        if left <= 0:
            return None
        try:
            async with asyncio.timeout(left):
                event = await queue.get()
        except TimeoutError:
            return None
        return event if event is not None and event.time_ns <= until_ns else None

    def close(self) -> None:
        """End every subscription."""
        for queue in self._listeners:
            queue.put_nowait(None)
