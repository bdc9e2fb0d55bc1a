"""The runtime as cortend uses it: launches, follows and finds containers, each of which has a shim."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from corten.errors import SystemFault, Unavailable, clip
from corten.runtime import protocol, settings
from corten.runtime.cgroups_units import is_scope, scope_of
from corten.runtime.container import Handle, clear_exit, end_orphans, kill_group, read_exit, remove_leftovers
from corten.runtime.link import ShimLink, connect
from corten.runtime.plan import cgroup_path
from corten.runtime.running import ExecClient, Handles, ResourceClient, StdioClient
from corten.runtime.spawner_process import SpawnerProcess
from corten.runtime.states import Exited, Forgotten, Paused, Running, Starting, require
from corten.runtime.types import (
    ExitCallback,
    ExitStatus,
    Launched,
    LaunchRequest,
    OomCallback,
    Recovered,
    Stream,
)
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

GREETING = 5.0  # seconds that a shim has to say hello
LOST = "the container's shim was lost"


class RuntimeClient:
    """Implements `Runtime`. `exec_root` is where the spawner's messages go; run directories come with each request."""

    def __init__(self, exec_root: Path) -> None:
        self._spawner = SpawnerProcess(exec_root / "spawner.log")
        self._exec_root = exec_root
        self._tasks = TaskOwner("runtime")
        self._containers = Handles()
        self.execs = ExecClient(self._containers, self._tasks)
        self.stdio = StdioClient(self._containers)
        self.resources = ResourceClient(self._containers)
        self._on_exit: list[ExitCallback] = []
        self._on_oom: list[OomCallback] = []

    @property
    def spawner_pid(self) -> int:
        return self._spawner.pid

    def on_exit(self, callback: ExitCallback) -> None:
        self._on_exit.append(callback)

    def on_oom(self, callback: OomCallback) -> None:
        self._on_oom.append(callback)

    async def start(self) -> None:
        await asyncio.to_thread(self._exec_root.mkdir, parents=True, exist_ok=True)
        await self._spawner.start()

    async def close(self) -> None:
        for handle in self._containers.values():
            if handle.link is not None:
                handle.link.close()
        await self._tasks.close("the runtime is closed")
        await self._spawner.close()

    async def launch(
        self, request: LaunchRequest, streams: Sequence[Stream] = (), keep: Sequence[int] = ()
    ) -> Launched:
        try:
            handle = self._claim(request)
            try:
                return await self._launch(handle, request, streams, [*(stream.fd for stream in streams), *keep])
            except BaseException:
                if handle.link is not None:
                    handle.link.close()
                if not isinstance(handle.state, Exited):
                    self._containers.pop(request.id, None)
                raise
        finally:
            for stream in streams:
                os.close(stream.fd)

    def _claim(self, request: LaunchRequest) -> Handle:
        known = self._containers.get(request.id)
        if known is not None:
            # Between EXITED and `forget` the old shim may still hold the cgroup and the socket.
            require(request.id, known.state, Starting)
        spec = request.spec
        cgroup = cgroup_path(spec.linux.cgroups_path) if spec.linux is not None else ""
        external = bool(request.runtime)
        handle = Handle(request.id, request.run_dir, request.exit_file, cgroup, spec=spec, external=external)
        if request.systemd_cgroup and spec.linux is not None:
            handle.unit = scope_of(spec.linux.cgroups_path).unit
        self._containers[request.id] = handle
        return handle

    async def _launch(
        self, handle: Handle, request: LaunchRequest, streams: Sequence[Stream], fds: list[int]
    ) -> Launched:
        # The shim is forked, and files are written in a thread, while the plan is compiled here.
        link = self._link(handle, await self._spawner.fork())
        files = asyncio.get_running_loop().run_in_executor(None, _prepare, request)
        try:
            payload = settings.of_launch(request, streams)
        finally:
            await files
        launched = await self._ask(handle, link, payload, fds)
        if launched is None:
            launched = await self._ask(handle, self._link(handle, await self._spawner.fork()), payload, fds)
        if launched is None:
            raise Unavailable("the spawner died twice while it was to start a container")
        pid, started_ns, warnings = launched
        for warning in warnings:
            log.warning("container %s: %s", handle.id, warning)
        handle.move(Running(pid, started_ns))
        if handle.link is None and not handle.ending:  # it was lost between its message and now
            self._ended(handle)
        return Launched(pid, started_ns)

    async def _ask(
        self, handle: Handle, link: ShimLink, payload: dict[str, Any], fds: list[int]
    ) -> tuple[Any, ...] | None:
        """LAUNCHED's fields; None when the spawner died before it had forked: then nothing was started or taken."""
        with suppress(Unavailable):  # then it has no HELLO either
            await link.send((protocol.LAUNCH, payload), fds)
        if await link.hello is None:
            log.warning("the spawner died before it had forked for container %s", handle.id)
            return None
        launched = await link.launched
        if launched is None:
            await asyncio.to_thread(kill_group, handle.cgroup)
            await asyncio.to_thread(remove_leftovers, handle)
            raise SystemFault("the container's shim ended while it was starting it", step="launch")
        return launched

    def _link(self, handle: Handle, sock: socket.socket) -> ShimLink:
        handle.link = ShimLink(sock, lambda message: self._event(handle, message), lambda: self._ended(handle))
        return handle.link

    async def recover(self, container_id: str, run_dir: Path, exit_file: Path, cgroup: str) -> Recovered:
        unit = scope_of(cgroup).unit if is_scope(cgroup) else ""
        handle = Handle(container_id, run_dir, exit_file, cgroup_path(cgroup), unit)
        state = await self._connect(handle)
        self._containers[container_id] = handle
        if state is None:
            status = await asyncio.to_thread(read_exit, exit_file)
            if status is None:
                reason = "the container's shim was lost while the daemon was away"
                status = await asyncio.to_thread(end_orphans, handle, reason)
            handle.state = Exited(status)
            return Recovered(exit=status)
        if state["exit"] is not None:
            handle.state = Exited(ExitStatus(*state["exit"]))
            return Recovered(exit=handle.state.status)
        handle.state = (Paused if state["paused"] else Running)(state["pid"], state["started_ns"])
        handle.execs, handle.external = set(state["execs"]), state["external"]
        return Recovered(state["pid"], paused=state["paused"], oom_killed=state.get("oom_killed", False))

    async def _connect(self, handle: Handle) -> dict[str, Any] | None:
        """Find the shim; its state, None when it is gone. Raises Unavailable when it does not answer."""
        try:
            sock = connect(handle.socket_path)
        except OSError:
            return None
        link = self._link(handle, sock)
        try:
            async with asyncio.timeout(GREETING):
                state = await link.hello
        except TimeoutError:
            link.close()
            raise Unavailable(f"the shim of container {handle.id} does not answer") from None
        if state is None:
            handle.link = None
        return state

    async def forget(self, container_id: str) -> None:
        handle = self._containers.get(container_id)
        if handle is None:
            return
        require(container_id, handle.state, Forgotten)
        link, handle.link = handle.link, None
        handle.move(Forgotten())
        if link is None or link.closed or not await self._dismiss(link, handle):
            await asyncio.to_thread(remove_leftovers, handle)
        if self._containers.get(container_id) is handle:
            del self._containers[container_id]

    async def _dismiss(self, link: ShimLink, handle: Handle) -> bool:
        """Whether the shim has said that it will go; it removes the cgroup before it answers."""
        try:
            await link.request(protocol.FORGET)
        except Unavailable:
            return False
        finally:
            link.close()
        with suppress(OSError):  # it stays listening while clients have output to fetch
            os.unlink(handle.socket_path)
        return True

    async def signal(self, container_id: str, signo: int) -> None:
        handle = self._containers.of(container_id)
        if handle.link is None or isinstance(handle.state, Exited):
            return
        with suppress(Unavailable):
            await handle.link.request(protocol.SIGNAL, "", int(signo))

    async def pause(self, container_id: str) -> None:
        handle = self._containers.of(container_id)
        require(container_id, handle.state, Paused)
        await handle.live().request(protocol.PAUSE)
        if isinstance(handle.state, Running):
            handle.move(Paused(handle.state.pid, handle.state.started_ns))

    async def resume(self, container_id: str) -> None:
        handle = self._containers.of(container_id)
        require(container_id, handle.state, Running)
        await handle.live().request(protocol.RESUME)
        if isinstance(handle.state, Paused):
            handle.move(Running(handle.state.pid, handle.state.started_ns))

    def _event(self, handle: Handle, message: tuple[Any, ...]) -> None:
        """The shim tells of something that was not asked for."""
        kind, *fields = message
        if kind == protocol.EXITED:
            code, finished_ns, oom_killed = fields
            self._exited(handle, ExitStatus(code, finished_ns, oom_killed))
        elif kind == protocol.EXEC_EXITED:
            exec_id, code, finished_ns = fields
            self.execs.exited(handle, exec_id, ExitStatus(code, finished_ns))
        elif kind == protocol.OOM:
            self._tasks.start(f"memory of {handle.id}", self._report_oom(handle))
        elif kind == protocol.DETACHED:
            self.stdio.detached(handle, fields[0])
        elif kind == protocol.LOG_TROUBLE:
            log.warning("container %s: %s", handle.id, clip(fields[0]))

    def _exited(self, handle: Handle, status: ExitStatus) -> None:
        if handle.ending:
            return
        handle.ending = True
        for exec_id in list(handle.execs):  # the kernel ends them with the container, and the shim is told first
            self.execs.exited(handle, exec_id, ExitStatus(137, status.finished_ns))
        self._tasks.start(f"exit of {handle.id}", self._report(handle, status))

    async def _report(self, handle: Handle, status: ExitStatus) -> None:
        # Here and not in _exited: LAUNCHED and EXITED may come in one go, and the launch is to be over first.
        handle.move(Exited(status))
        for callback in self._on_exit:
            await callback(handle.id, status)

    async def _report_oom(self, handle: Handle) -> None:
        for callback in self._on_oom:
            await callback(handle.id)

    def _ended(self, handle: Handle) -> None:
        """The connection to a shim ended. That is so after an exit; before one, the shim is dead or has left us."""
        handle.link = None
        if isinstance(handle.state, (Running, Paused)) and not handle.ending:
            self._tasks.start(f"search for the shim of {handle.id}", self._find_again(handle))

    async def _find_again(self, handle: Handle) -> None:
        state = await self._connect(handle)
        if state is not None and state["exit"] is None:
            return
        if state is not None:
            status: ExitStatus | None = ExitStatus(*state["exit"])
        else:
            status = await asyncio.to_thread(read_exit, handle.exit_file, handle.started_ns())
        if status is None:
            log.error("container %s: its shim was lost; ending its processes", handle.id)
            status = await asyncio.to_thread(end_orphans, handle, LOST)
        self._exited(handle, status)


def _prepare(request: LaunchRequest) -> None:
    """Files that a launch needs, and none that an earlier one left. Blocks."""
    request.run_dir.mkdir(parents=True, exist_ok=True)
    if request.rootfs:
        (request.run_dir / "rootfs").mkdir(exist_ok=True)  # what the child mounts the root on, unseen by the host
    clear_exit(request.exit_file)
    with open(request.run_dir / "config.json", "wb", opener=_private) as file:  # variables often are secrets
        file.write(msgspec.json.encode(request.spec))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
