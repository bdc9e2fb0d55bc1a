"""Reading logs for clients: off the event loop, and following what is still being written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from corten.errors import InvalidArgument
from corten.linux import inotify
from corten.logs.cursor import Cursor
from corten.logs.types import LogSource, LogWindow

RECHECK = 2.0  # seconds after which a follower looks again, whatever it was told; inotify may be out of instances


async def read(source: LogSource, window: LogWindow, ended: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    """What the log holds of `window`, ready to send, oldest first: framed without a terminal, raw with one.

    With `window.follow` it goes on until `ended` is done (after which nothing more is written) and all is read.
    Raises InvalidArgument for a driver whose logs cannot be read.
    """
    if source.driver not in ("json-file", "local") or source.path is None:
        raise InvalidArgument("configured logging driver does not support reading")
    cursor = await asyncio.to_thread(Cursor, source, window)
    watcher = _Watcher(str(source.path.parent), ended) if window.follow else None
    try:
        while True:
            over = ended.done()  # before the step: what was written until then is found by it
            chunk = await asyncio.to_thread(cursor.step)
            if chunk:
                yield chunk
            if cursor.done or (chunk is None and (watcher is None or over)):
                return
            if chunk is None and watcher is not None:
                await watcher.changed()
    finally:
        cursor.close()
        if watcher is not None:
            watcher.close()


class _Watcher:
    """Wakes when a file in a directory changes, or when `ended` is done."""

    def __init__(self, directory: str, ended: asyncio.Future[Any]) -> None:
        self._event = asyncio.Event()
        self._ended = ended
        self._fd = -1
        mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_ONLYDIR
        try:
            self._fd = inotify.open_watch(directory, mask)
        except OSError:  # too many are open on this host: RECHECK has to do
            pass
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._happened)
        ended.add_done_callback(self._over)

    async def changed(self) -> None:
        """Until something has happened since the last call."""
        try:
            async with asyncio.timeout(RECHECK):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()

    def close(self) -> None:
        self._ended.remove_done_callback(self._over)
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)

    def _happened(self) -> None:
        inotify.drain(self._fd)
        self._event.set()

    def _over(self, ended: asyncio.Future[Any]) -> None:
        self._event.set()
