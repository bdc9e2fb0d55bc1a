"""Copies into and out of containers that are under way, and what ends them: nobody waits for one that stands still.

A copy takes no lock for as long as it lasts. Two that write to one container that does not run follow each other, as
each has the layer for itself; a start waits for a writer that gets on, and ends one that does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from corten.clock import Clock
from corten.engine.containers.catalog import Entry
from corten.engine.containers.patience import within
from corten.engine.models import Status
from corten.errors import Conflict
from corten.tasks import TaskOwner

PACE_S = 2.0
"""How long a writer is watched before it is judged."""
PACE_BYTES = 1 << 20
"""What has to come in that time from a client that is waited for."""
_END_S = 10.0


class Transfer:
    """One copy, as a context: what `end` gives as the reason comes out of it as a Conflict.

    `writes`: into the container. `meter` tells how many bytes have come so far, and whether more are waited for.
    """

    def __init__(self, entry: Entry, *, writes: bool) -> None:
        self._entry, self.writes = entry, writes
        self.meter: Callable[[], tuple[int, bool]] | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reason = ""
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> Transfer:
        if self.writes and not _runs(self._entry):
            await self._wait_for_turn()
        self._entry.transfers.add(self)
        await self._limit.__aenter__()
        return self

    async def _wait_for_turn(self) -> None:
        entry = self._entry
        while True:
            async with entry.lock:  # no start is under way
                other = next((transfer for transfer in entry.transfers if transfer.writes), None)
                if other is None:
                    entry.transfers.add(self)
                    return
            await asyncio.wait([other.over])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Conflict(self._reason) from None
        finally:
            self._entry.transfers.discard(self)
            self.over.set_result(None)

    def end(self, reason: str) -> None:
        """Whoever copies is told `reason`. `over` is done when all that was used for it has been given back."""
        if not self._reason and not self.over.done():
            self._reason = reason
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def get_on(self, tasks: TaskOwner, clock: Clock) -> bool:
        """Wait while it does. True when it is over, False when it stands still."""
        while True:
            before, _ = self._state()
            if await within(tasks, clock, self.over, PACE_S):
                return True
            come, starving = self._state()
            if starving and come < before + PACE_BYTES:
                return False

    def _state(self) -> tuple[int, bool]:
        return self.meter() if self.meter else (0, True)


def end_all(entry: Entry, reason: str) -> None:
    for transfer in entry.transfers:
        transfer.end(reason)


async def removed(entry: Entry, clock: Clock) -> None:
    """End all, and wait until they have let go of the container's files. For its removal."""
    end_all(entry, f"container {entry.container.id} is being removed")
    if entry.transfers:
        await _settled(list(entry.transfers), clock)


async def give_way(entry: Entry, clock: Clock) -> None:
    """Before a start: wait for who writes into the container and gets on, end who does not.

    The caller holds the entry's lock, so that no other writer begins. Raises Conflict for one that cannot be ended.
    """
    writing = [transfer for transfer in entry.transfers if transfer.writes]
    tasks = TaskOwner("give way")
    try:
        for transfer in writing:
            if not await transfer.get_on(tasks, clock):
                transfer.end(f"container {entry.container.id} is being started, and the copy into it stood still")
    finally:
        await tasks.close("the start goes on")
    if not await _settled(writing, clock):
        raise Conflict(f"container {entry.container.id} cannot be started: a copy into it does not end")


async def _settled(transfers: list[Transfer], clock: Clock) -> bool:
    tasks = TaskOwner("copies")
    try:
        waiting = [transfer.over for transfer in transfers if not transfer.over.done()]
        return not waiting or await within(tasks, clock, asyncio.gather(*waiting), _END_S)
    finally:
        await tasks.close("nobody waits any more")


def _runs(entry: Entry) -> bool:
    return entry.container.state.status in (Status.RUNNING, Status.PAUSED)
