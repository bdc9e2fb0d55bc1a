"""The cap on all that is stored: room is made by removing dangling images, the oldest first, or work is refused.

What is used is counted when it is asked for: blobs, downloads that are not complete, layers as accounted, and what is
in containers, volumes and logs now. Without a limit nothing is counted at all.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from corten.engine.images.threads import in_thread
from corten.errors import SystemFault

STEP = "storage limit"


class Budget:
    """`limit` in bytes, 0 for none; it may change at any time. `used` blocks. `free` removes what nobody would miss
    until that many bytes are free, or there is no more of it; it gives the bytes that came free.
    """

    def __init__(self, used: Callable[[], int], free: Callable[[int], Awaitable[int]], limit: int = 0) -> None:
        self.limit = limit
        self._used, self._free = used, free
        self._promised = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def room(self, needed: int, what: str) -> AsyncIterator[None]:
        """`needed` bytes are promised to `what` within the block. Raises SystemFault (ENOSPC) where they are not."""
        async with self._turn:
            await self._admit(needed, what)
            self._promised += needed
        try:
            yield
        finally:
            self._promised -= needed

    async def check(self, what: str) -> None:
        """What was written for `what` is within the limit; raises SystemFault (ENOSPC) where it is not."""
        async with self._turn:
            if self.limit and (over := await in_thread(self._used) - self.limit) > 0:
                await self._free(over)
                if (used := await in_thread(self._used)) > self.limit:
                    raise _full(what, 0, used, self.limit)

    async def left(self, wanted: int = 0) -> int | None:
        """Bytes up to the limit, at least 0; None without one. Less than `wanted` only when no room can be made."""
        if not self.limit:
            return None
        async with self._turn:
            left = self.limit - await in_thread(self._used)
            if left < wanted and await self._free(wanted - left):
                left = self.limit - await in_thread(self._used)
        return max(left, 0)

    async def rescue(self) -> bool:
        """The disk itself is full: remove what nobody would miss. Whether that freed anything."""
        async with self._turn:
            return await self._free(1 << 62) > 0

    async def used(self) -> int:
        """Bytes that count."""
        return await in_thread(self._used)

    async def _admit(self, needed: int, what: str) -> None:
        if not self.limit:
            return
        over = await in_thread(self._used) + self._promised + needed - self.limit
        if over <= 0:
            return
        await self._free(over)
        used = await in_thread(self._used) + self._promised
        if used + needed > self.limit:
            raise _full(what, needed, used, self.limit)


def _full(what: str, needed: int, used: int, limit: int) -> SystemFault:
    need = f"needs at least {in_units(needed)}" if needed else "is larger than what is left"
    return SystemFault(
        f"{what} {need}: {in_units(used)} of the storage limit of {in_units(limit)} are used; remove images,"
        " containers or volumes, or raise storage-limit",
        step=STEP,
        errno=errno.ENOSPC,
    )


def disk_full(error: BaseException) -> bool:
    """Whether it is the host's disk that is full, and not the limit that is reached."""
    return isinstance(error, SystemFault) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.step != STEP


def in_units(size: int) -> str:
    """As people say it, with three digits: 1.5GB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"
