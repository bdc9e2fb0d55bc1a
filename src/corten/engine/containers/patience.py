"""Waiting for something no longer than a time, by the engine's clock."""

from __future__ import annotations

import asyncio
from typing import Any

from corten.clock import Clock
from corten.tasks import TaskOwner


async def within(tasks: TaskOwner, clock: Clock, awaited: asyncio.Future[Any], seconds: float | None) -> bool:
    """Whether it was done in time; with None it has all the time there is. It is not cancelled when it was not."""
    if awaited.done():
        return True
    if seconds is None:
        await asyncio.wait([awaited])
        return True
    if seconds == 0:
        return False
    sleeper = tasks.start("patience", clock.sleep(seconds))
    try:
        await asyncio.wait([awaited, sleeper], return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeper.cancel()
    return awaited.done()
