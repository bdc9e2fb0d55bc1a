"""Blocking work beside the event loop, never left running behind its caller's back."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from corten.tasks import TaskOwner


class Closeable(Protocol):
    def close(self) -> None: ...


P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=Closeable)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function` in a worker thread. A cancelled caller waits for its end: what it works on may be closed next."""
    return await _to_its_end(partial(function, *args, **kwargs), lambda result: None)


async def opened_in_thread(function: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> C:
    """Like `in_thread` for what its caller has to close: a cancelled caller never hears of it, so it is closed here."""
    return await _to_its_end(partial(function, *args, **kwargs), lambda opened: opened.close())


async def _to_its_end(work: Callable[[], T], unheard: Callable[[T], None]) -> T:
    """`unheard` is called with a result that its caller, cancelled meanwhile, does not hear of."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settled(future)
        if not future.cancelled() and future.exception() is None:
            unheard(future.result())
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
    """An asynchronous stream of bytes, read as a file by a worker thread: what `run` gives the thread to do."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._left = b""
        self._ended = False
        self._closed = False
        self._pulling: asyncio.Task[bytes | None] | None = None  # only the event loop's thread looks at it

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function`, which reads this body, in a worker thread. When the caller is cancelled, reading fails at once,
        and the end of `function` is waited for.
        """
        future = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._closed = True
            if self._pulling is not None:
                self._pulling.cancel()
            await settled(future)
            raise

    def read(self, size: int = -1) -> bytes:
        """At least one byte unless at the end; all that is left with a negative `size`. Raises GivenUp."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        while not self._left and not self._ended:
            self._left = self._next()
        part, self._left = self._left[:size], self._left[size:]
        return part

    def _next(self) -> bytes:
        pending = asyncio.run_coroutine_threadsafe(self._pull(), self._loop)
        try:
            part = pending.result()
        except concurrent.futures.CancelledError:
            raise GivenUp("the request was given up") from None
        if part is None:
            self._ended = True
        return part or b""

    async def _pull(self) -> bytes | None:
        if self._closed:
            raise asyncio.CancelledError
        self._pulling = asyncio.current_task()
        try:
            return await anext(self._source, None)
        finally:
            self._pulling = None


class GivenUp(Exception):
    """Raised in the worker thread only: nobody waits for what it does any more."""
