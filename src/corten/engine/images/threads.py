"""Blocking work beside the event loop, never left running behind its caller's back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

from corten.tasks import TaskOwner

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function` in a worker thread. A cancelled caller waits for its end: what it works on may be closed next."""
    future = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settled(future)
        raise


async def settled(future: asyncio.Future[Any] | None) -> None:
    """Wait for the end of `future`, whatever it is and however often the caller is cancelled meanwhile."""
    while future is not None and not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if future is not None and not future.cancelled():
        future.exception()  # seen, so that nothing is logged about it


async def to_the_end(tasks: TaskOwner, name: str, work: Coroutine[Any, Any, T]) -> T:
    """`work` is not torn in two when the caller is cancelled: it ends first, then the caller does."""
    task = tasks.start(name, work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await settled(task)
        raise


class ThreadBody:
    """An asynchronous stream of bytes, read as a file by a worker thread.

    Made on the event loop; `read` is called by one thread. `close` on the loop lets a waiting `read` fail at once.
    """

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._left = b""
        self._ended = False
        self._closed = False
        self.received = 0

    def read(self, size: int = -1) -> bytes:
        """At least one byte unless at the end; all that is left with a negative `size`."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        while not self._left and not self._ended:
            self._left = self._next()
        part, self._left = self._left[:size], self._left[size:]
        return part

    def readinto(self, target: bytearray | memoryview) -> int:
        part = self.read(len(target))
        target[: len(part)] = part
        return len(part)

    def _next(self) -> bytes:
        if self._closed:
            raise OSError("the request was given up")
        part = asyncio.run_coroutine_threadsafe(self._pull(), self._loop).result()
        if part is None:
            self._ended = True
            return b""
        self.received += len(part)
        return part

    async def _pull(self) -> bytes | None:
        return None if self._closed else await anext(self._source, None)

    def close(self) -> None:
        self._closed = True
