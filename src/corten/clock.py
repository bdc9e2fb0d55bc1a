"""Time as a dependency, so that no test sleeps."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in nanoseconds since the epoch, monotonic time in seconds, and a sleep on that monotonic time."""

    def now_ns(self) -> int: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The host's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when told; sleepers wake in order of their deadlines, during `advance`."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._start_ns = start_ns
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self._start_ns + round(self._elapsed * 1e9)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed + seconds, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, letting each sleeper run at its own deadline."""
        target = self._elapsed + seconds
        await _settle()
        while due := [entry for entry in self._sleepers if entry[0] <= target]:
            first = min(due, key=lambda entry: entry[0])
            self._sleepers.remove(first)
            self._elapsed = max(self._elapsed, first[0])
            if not first[1].done():
                first[1].set_result(None)
            await _settle()
        self._elapsed = target


async def _settle() -> None:
    """Let everything that is ready run until it waits again (a bounded number of turns)."""
    for _ in range(20):
        await asyncio.sleep(0)
