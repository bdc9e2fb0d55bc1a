"""The daemon's end of the layer workers: started when there is work, ended when there has been none for a while."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from corten.errors import InvalidArgument, SystemFault, Unavailable
from corten.storage.snapshots import count_usage
from corten.storage.types import Applied, GrowingBlob, LayerLimits, MountPlan, Snapshotter, Usage, Verified
from corten.tasks import TaskOwner

_LINE_LIMIT = 64 << 20  # an answer names every implied directory


class WorkerPool:
    """Processes that run `module.main` and answer one request at a time (see `storage.apply`).

    At most `limit` calls run at once, further ones wait; beside them at most twice as many streams. A process that had
    nothing to do for `idle_seconds` is ended.
    """

    def __init__(self, module: str, *, limit: int, idle_seconds: float = 5.0) -> None:
        self._module, self._idle_seconds = module, idle_seconds
        self._slots = asyncio.Semaphore(limit)
        self._streams = asyncio.Semaphore(2 * limit)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._timers: dict[asyncio.subprocess.Process, asyncio.TimerHandle] = {}
        self._tasks = TaskOwner(f"workers {module}")
        self._closed = False

    async def call(self, request: dict[str, Any], note: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """The answer to `request`; `note` gets the messages before it. Cancelling kills the process.

        Raises what the worker raised, SystemFault when it died.
        """
        async with self._slots:
            process = await self._take()
            try:
                answer = await self._exchange(process, request, note)
            except BaseException:
                await self._kill(process)
                raise
            self._put_back(process)
        if "error" in answer:
            raise _raised(answer)
        return answer

    async def stream(
        self, request: dict[str, Any], more: AsyncIterator[dict[str, Any]], note: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any] | None:
        """Like `call` with `more` to say after the request; None when as many as may run do.

        These do not take the place of calls: they wait for their data most of the time, and calls not for them.
        """
        if self._streams.locked():
            return None
        async with self._streams:
            process = await self._take()
            feeding = self._tasks.start("feed", self._feed(process, more))
            try:
                answer = await self._exchange(process, request, note)
                if "error" in answer:
                    raise _raised(answer)
            except BaseException:
                # Also after an answer: it may have stopped in the middle of what it was told.
                await self._kill(process)
                raise
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
            self._put_back(process)
        return answer

    async def _feed(self, process: asyncio.subprocess.Process, more: AsyncIterator[dict[str, Any]]) -> None:
        assert process.stdin is not None
        with suppress(ConnectionError):
            async for message in more:
                process.stdin.write(json.dumps(message).encode() + b"\n")
                await process.stdin.drain()

    @property
    def pids(self) -> list[int]:
        """Of the processes that exist now."""
        return [process.pid for process in self._all]

    async def close(self) -> None:
        """Kill all, working or not, and wait for them. Calls under way raise SystemFault, later ones Unavailable."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for process in list(self._all):
            await self._kill(process)
        await self._tasks.close("workers closed")

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle and not self._closed:
            process = self._idle.pop()
            self._timers.pop(process).cancel()
            if process.returncode is None:
                return process
            self._all.discard(process)
        if self._closed:
            raise Unavailable("the daemon is shutting down")
        program = f"from {self._module} import main; main()"
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            raise SystemFault(f"cannot start a layer worker: {error}", step="start", errno=error.errno or 0) from error
        self._all.add(process)
        return process

    async def _exchange(
        self, process: asyncio.subprocess.Process, request: dict[str, Any], note: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):  # it died: the read below says so
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        while line := await process.stdout.readline():
            message: dict[str, Any] = json.loads(line)
            if "error" in message or "done" in message:
                return message
            note(message)
        code = await process.wait()
        raise SystemFault(f"the layer worker ended unexpectedly (status {code})", step="layer worker")

    def _put_back(self, process: asyncio.subprocess.Process) -> None:
        if self._closed:
            process.kill()
            return
        self._idle.append(process)
        self._timers[process] = asyncio.get_running_loop().call_later(self._idle_seconds, self._retire, process)

    def _retire(self, process: asyncio.subprocess.Process) -> None:
        self._timers.pop(process, None)
        if process in self._idle:
            self._idle.remove(process)
            self._tasks.start("retire", self._kill(process))

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        self._all.discard(process)


class WorkerApplier:
    """See `storage.types.LayerApplier`. `delete_whiteouts` for snapshotters whose layers hold the whole tree."""

    def __init__(
        self,
        *,
        delete_whiteouts: bool = False,
        limit: int = 0,
        idle_seconds: float = 5.0,
        limits: LayerLimits | None = None,
    ) -> None:
        self._delete, self.limits = delete_whiteouts, limits or LayerLimits()
        self._pool = WorkerPool(
            "corten.storage.apply", limit=limit or min(max(os.cpu_count() or 1, 2), 4), idle_seconds=idle_seconds
        )

    async def apply(
        self, blob: Path, media_type: str, target: Path, progress: Callable[[int], None] | None = None
    ) -> Applied:
        _check(media_type)
        request = self._request(blob, target)
        return await self._applied(await self._pool.call(request, _told(progress)), target)

    async def apply_growing(
        self,
        blob: GrowingBlob,
        final: Path,
        media_type: str,
        target: Path,
        progress: Callable[[int], None] | None = None,
    ) -> Applied | None:
        """See `storage.types.StreamingApplier`."""
        _check(media_type)
        request = self._request(blob.path, target) | {"final": os.fspath(final)}
        answer = await self._pool.stream(request, _growth(blob), _told(progress))
        return None if answer is None else await self._applied(answer, target)

    def _request(self, blob: Path, target: Path) -> dict[str, Any]:
        return {
            "blob": os.fspath(blob),
            "target": os.fspath(target),
            "delete": self._delete,
            "bounds": dataclasses.astuple(self.limits),
        }

    async def _applied(self, answer: dict[str, Any], target: Path) -> Applied:
        usage = Usage(answer["size"], answer["inodes"])
        if answer["recount"]:
            usage = await asyncio.to_thread(count_usage, target)
        return Applied(answer["diff_id"], usage, tuple(answer["implied"]))

    async def close(self) -> None:
        await self._pool.close()


class WorkerVerifier:
    """See `storage.types.LayerVerifier`; `delete_whiteouts` as for the applier."""

    def __init__(self, *, delete_whiteouts: bool = False, limit: int = 2, idle_seconds: float = 5.0) -> None:
        self._delete = delete_whiteouts
        self._pool = WorkerPool("corten.storage.verify", limit=limit, idle_seconds=idle_seconds)

    async def verify(
        self, blobs: Sequence[Path], target: Path, lower: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> Verified:
        request = {
            "blobs": [os.fspath(blob) for blob in blobs],
            "target": os.fspath(target),
            "lower": [os.fspath(directory) for directory in lower],
            "delete": self._delete,
        }
        answer = await self._pool.call(request, _told(progress))
        damage = tuple((path, what) for path, what in answer["damage"])
        return Verified(tuple(answer["diff_ids"]), damage, answer["count"])

    async def close(self) -> None:
        await self._pool.close()


class CopyUp:
    """Fills an empty volume with what the image of a snapshot has at a path; see `storage.copyup`."""

    def __init__(self, snapshotter: Snapshotter, *, limit: int = 2, idle_seconds: float = 5.0) -> None:
        self._snapshotter = snapshotter
        self._pool = WorkerPool("corten.storage.copyup", limit=limit, idle_seconds=idle_seconds)

    async def __call__(self, snapshot: str, path: str, volume: Path) -> None:
        """Copy `path` of the tree that `snapshot` (a key) shows into the directory `volume`.

        Nothing happens when the tree has no directory there or the volume is not empty. Raises SystemFault.
        """
        layers = layers_of(self._snapshotter.mounts(snapshot))
        request = {"layers": layers, "path": path, "target": os.fspath(volume)}
        await self._pool.call(request, lambda _: None)

    async def close(self) -> None:
        await self._pool.close()


def _check(media_type: str) -> None:
    if "encrypted" in media_type:
        raise InvalidArgument(f"layers of type {media_type} are not supported")


def _told(progress: Callable[[int], None] | None) -> Callable[[dict[str, Any]], None]:
    def note(message: dict[str, Any]) -> None:
        if progress is not None:
            progress(int(message["read"]))

    return note


async def _growth(blob: GrowingBlob) -> AsyncIterator[dict[str, Any]]:
    """What a worker that reads along is told: how far it may read."""
    have, whole = 0, False
    while not whole:
        have, whole = await blob.beyond(have)
        yield {"have": have, "whole": whole}


def layers_of(mounts: Sequence[MountPlan]) -> list[str]:
    """The directories that make up the tree of a mount plan, topmost first; all of them to be read only."""
    (plan,) = mounts
    if plan.type == "bind":
        return [plan.source]
    options = dict(option.split("=", 1) for option in plan.options if "=" in option)
    upper = [options["upperdir"]] if "upperdir" in options else []
    return upper + options["lowerdir"].split(":")


def _raised(answer: dict[str, Any]) -> Exception:
    if answer["error"] == "invalid":
        return InvalidArgument(answer["message"])
    return SystemFault(answer["message"], step=answer["step"], errno=answer["errno"])
