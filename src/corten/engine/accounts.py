"""What trees take on disk, in accounts: so that many, and large ones, can be told of at once.

Who asks waits `PATIENCE` for what may have changed to be counted again. Small trees are counted within that, so that
they are exact; of a large one the last count is told while it is counted beside that, and `keep` sees to it that none
is older than `MAX_AGE`, or than a hundred times what counting it takes. Only a tree that was never counted is waited
for: `keep` counts all of them when the daemon starts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from corten.clock import Clock
from corten.errors import CortenError
from corten.tasks import TaskOwner

T = TypeVar("T")

PATIENCE = 0.015
"""Seconds that an answer waits for trees that are known."""

CHEAP = 0.004
"""Seconds; what was counted in less is counted at each question."""

MIN_AGE, MAX_AGE = 2.0, 60.0
"""Seconds for which the count of a large tree is good enough, at least, and for which it is, at most."""

_SHARE, _LEAST_SHARE = 20, 100
"""A large tree is counted, of its counting's time, one part in so many when it is asked for; and when nobody asks."""

_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Tree:
    """`count` gives its bytes; it blocks, and raises CortenError or OSError for a tree that is gone. While `state` is
    the same, and not None, nothing changes in it.
    """

    key: str
    state: Hashable
    count: Callable[[], int]


@dataclass(frozen=True, slots=True)
class _Count:
    """`size` -1 for a tree that could not be counted; `cost` in seconds, `at` when it was begun."""

    size: int
    state: Hashable
    at: float
    cost: float


class Accounts:
    """See the module. Threads that count are given up when the process ends."""

    def __init__(self, clock: Clock, tasks: TaskOwner, patience: float = PATIENCE) -> None:
        self._clock, self._tasks, self._patience = clock, tasks, patience
        self._counts: dict[str, _Count] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._small: asyncio.Task[None] | None = None

    async def sizes(self, trees: Sequence[Tree]) -> dict[str, int]:
        """Bytes of each tree by its key; what is gone is left out. `trees` are all that there are: others are
        forgotten.
        """
        self._forget_others(trees)
        stale = [tree for tree in trees if self._stale(tree, MIN_AGE, _SHARE)]
        waiting = self._start(stale)
        if waiting:
            await asyncio.wait(waiting, timeout=self._patience)
        new = [self._under_way[tree.key] for tree in trees if tree.key not in self._counts]
        if new:
            await asyncio.wait(new)
        return {key: count.size for key, count in self._counts.items() if count.size >= 0}

    async def keep(self, trees: Callable[[], Sequence[Tree]]) -> None:
        """Never returns: counts what is new at once, and large trees again before they are too old."""
        while True:
            self._start([tree for tree in trees() if self._stale(tree, MAX_AGE, _LEAST_SHARE, large=True)])
            await self._clock.sleep(MAX_AGE / 2)

    def forget(self, key: str) -> None:
        """Something has changed in a tree in spite of its state."""
        self._counts.pop(key, None)

    def _forget_others(self, trees: Sequence[Tree]) -> None:
        known = {tree.key for tree in trees}
        for key in self._counts.keys() - known:
            del self._counts[key]

    def _stale(self, tree: Tree, age: float, share: int, *, large: bool = False) -> bool:
        """Whether it is to be counted; `large` leaves out what is counted at each question anyway."""
        count = self._counts.get(tree.key)
        if count is None:
            return True
        if count.cost < CHEAP:
            return not large
        if count.state != tree.state:
            return True
        return tree.state is None and self._clock.monotonic() - count.at >= max(age, share * count.cost)

    def _start(self, stale: Sequence[Tree]) -> list[asyncio.Task[None]]:
        """Counting goes on, or begins: of small trees in one go, of each other one by itself."""
        small = [tree for tree in stale if tree.key in self._counts and self._counts[tree.key].cost < CHEAP]
        if small and (self._small is None or self._small.done()):
            small.sort(key=lambda tree: self._counts[tree.key].at)
            self._small = self._tasks.start("count small trees", self._count_small(small))
        started = [self._small] if small and self._small is not None else []
        kept = {tree.key for tree in small}
        for tree in stale:
            if tree.key in kept:
                continue
            if tree.key not in self._under_way:
                self._under_way[tree.key] = self._tasks.start(f"count {tree.key}", self._count_large(tree))
            started.append(self._under_way[tree.key])
        return started

    async def _count_small(self, trees: Sequence[Tree]) -> None:
        """As many as there is time for, those that were counted longest ago first."""
        now, until = self._clock.monotonic(), time.monotonic() + self._patience

        def work() -> dict[str, _Count]:
            found = {}
            for tree in trees:
                if time.monotonic() > until:
                    break
                found[tree.key] = _counted(tree, now)
            return found

        for key, count in (await _in_thread(work)).items():
            if key in self._counts:  # not removed meanwhile
                self._counts[key] = count

    async def _count_large(self, tree: Tree) -> None:
        try:
            async with self._slots:
                now = self._clock.monotonic()
                self._counts[tree.key] = await _in_thread(lambda: _counted(tree, now))
        finally:
            del self._under_way[tree.key]


def _counted(tree: Tree, at: float) -> _Count:
    begin, size = time.monotonic(), -1
    with suppress(CortenError, OSError):
        size = tree.count()
    return _Count(size, tree.state, at, time.monotonic() - begin)


async def _in_thread(work: Callable[[], T]) -> T:
    """In a thread that nothing waits for: not the end of the daemon, and no other work for its place in a pool."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type] # there is one where there is no error

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # handed to who waits
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="count", daemon=True).start()
    return await done
