"""What cortend does to containers that run: further processes, streams, limits and counters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from corten.errors import NotFound, SystemFault
from corten.runtime import protocol, settings
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_stats import read_stats
from corten.runtime.cgroups_update import update_limits
from corten.runtime.container import Handle
from corten.runtime.types import CgroupStats, DetachCallback, ExecExitCallback, ExecRequest, ExitStatus, Stream
from corten.specs.oci_runtime import Spec
from corten.tasks import TaskOwner


class Handles(dict[str, Handle]):
    """All containers that are not forgotten, by id."""

    def of(self, container_id: str) -> Handle:
        """Raises NotFound."""
        handle = self.get(container_id)
        if handle is None:
            raise NotFound("container", container_id)
        return handle


class ExecClient:
    """Implements `RuntimeExecs`. `exited` is told of ends by whoever listens to the shims."""

    def __init__(self, handles: Handles, tasks: TaskOwner) -> None:
        self._handles, self._tasks = handles, tasks
        self._on_exit: list[ExecExitCallback] = []

    def on_exit(self, callback: ExecExitCallback) -> None:
        self._on_exit.append(callback)

    async def start(self, request: ExecRequest, streams: Sequence[Stream] = ()) -> int:
        try:
            handle = self._handles.of(request.container_id)
            link = handle.live()
            payload = settings.of_exec(request, await handle.load_spec(), handle.run_dir, handle.external, streams)
            handle.execs.add(request.exec_id)
            try:
                pid: int = await link.request(
                    protocol.EXEC, request.exec_id, payload, fds=[stream.fd for stream in streams]
                )
            except BaseException:
                handle.execs.discard(request.exec_id)
                raise
            return pid
        finally:
            for stream in streams:
                os.close(stream.fd)

    async def signal(self, container_id: str, exec_id: str, signo: int) -> None:
        await self._handles.of(container_id).live().request(protocol.SIGNAL, exec_id, int(signo))

    async def resize(self, container_id: str, exec_id: str, height: int, width: int) -> None:
        await self._handles.of(container_id).live().request(protocol.RESIZE, exec_id, height, width)

    def exited(self, handle: Handle, exec_id: str, status: ExitStatus) -> None:
        if exec_id in handle.execs:
            handle.execs.discard(exec_id)
            self._tasks.start(f"exit of exec {exec_id}", self._report(handle, exec_id, status))

    async def _report(self, handle: Handle, exec_id: str, status: ExitStatus) -> None:
        for callback in self._on_exit:
            await callback(handle.id, exec_id, status)


class StdioClient:
    """Implements `RuntimeStdio`. `detached` is told of detaching clients by whoever listens to the shims."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles
        self._on_detach: list[DetachCallback] = []

    def on_detach(self, callback: DetachCallback) -> None:
        self._on_detach.append(callback)

    def detached(self, handle: Handle, exec_id: str) -> None:
        for callback in self._on_detach:
            callback(handle.id, exec_id)

    async def attach(self, container_id: str, stream: Stream) -> None:
        try:
            link = self._handles.of(container_id).live()
            await link.request(protocol.ATTACH, "", settings.of_stream(stream), fds=[stream.fd])
        finally:
            os.close(stream.fd)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        await self._handles.of(container_id).live().request(protocol.RESIZE, "", height, width)


class ResourceClient:
    """Implements `RuntimeResources`."""

    def __init__(self, handles: Handles) -> None:
        self._handles = handles

    async def update(self, container_id: str, spec: Spec) -> None:
        handle = self._handles.of(container_id)
        handle.live()
        resources = spec.linux.resources if spec.linux is not None else None
        if resources is None:
            return
        try:
            await asyncio.to_thread(update_limits, handle.cgroup, handle.unit, resources)
        except OSError as error:
            raise SystemFault(str(error), step="update cgroup", errno=error.errno or 0) from None

    def pids(self, container_id: str) -> list[int]:
        return Cgroup(self._handles.of(container_id).cgroup).pids()

    async def stats(self, container_id: str) -> CgroupStats:
        cgroup = self._handles.of(container_id).cgroup
        return await asyncio.to_thread(read_stats, Cgroup(cgroup))
