"""A runtime without processes: containers are records that exit when a test says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corten.clock import Clock, SystemClock
from corten.errors import IllegalTransition, NotFound
from corten.runtime.types import (
    CgroupStats,
    ExecExitCallback,
    ExecRequest,
    ExitCallback,
    ExitStatus,
    Launched,
    LaunchRequest,
    OomCallback,
    Recovered,
    Stream,
)
from corten.specs.oci_runtime import Spec

FIRST_PID = 1000


@dataclass(slots=True)
class FakeProcess:
    """One fake container or exec session: what was done to it, in order."""

    pid: int
    request: LaunchRequest | ExecRequest | None = None
    exit: ExitStatus | None = None
    paused: bool = False
    signals: list[int] = field(default_factory=list)
    size: tuple[int, int] | None = None
    attached: list[Stream] = field(default_factory=list)
    keep: list[int] = field(default_factory=list)
    updates: list[Spec] = field(default_factory=list)
    execs: dict[str, FakeProcess] = field(default_factory=dict)


class FakeRuntime:
    """Implements `Runtime` in memory.

    Tests script it: `fail_next` makes the next launch or exec raise, `finish` and `finish_exec` end a process and
    report it, `exit_on_signal` says which signals end a container by themselves (with 128 + signal). `containers`
    holds what was launched. Fds handed over are closed when the process they belong to ends, as the shim does.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.containers: dict[str, FakeProcess] = {}
        self.launches: list[LaunchRequest] = []
        self.forgotten: list[str] = []
        self.exit_on_signal: set[int] = {9, 15}
        self.running = False
        self._failures: list[Exception] = []
        self._on_exit: list[ExitCallback] = []
        self._on_exec_exit: list[ExecExitCallback] = []
        self._on_oom: list[OomCallback] = []
        self._next_pid = FIRST_PID

    def fail_next(self, error: Exception) -> None:
        """The next launch or exec raises `error` instead of starting."""
        self._failures.append(error)

    async def finish(self, container_id: str, code: int = 0, *, oom_killed: bool = False, reason: str = "") -> None:
        """End a container, its exec sessions with it, and report it as the shim would."""
        process = self._get(container_id)
        if process.exit is not None:
            raise IllegalTransition(container_id, "exited", "exited")
        for exec_id, session in process.execs.items():
            if session.exit is None:
                await self.finish_exec(container_id, exec_id, 137)
        process.exit = ExitStatus(code, self.clock.now_ns(), oom_killed, reason)
        _close(process)
        for callback in list(self._on_exit):
            await callback(container_id, process.exit)

    async def finish_exec(self, container_id: str, exec_id: str, code: int = 0) -> None:
        """End one exec session and report it."""
        session = self._session(container_id, exec_id)
        session.exit = ExitStatus(code, self.clock.now_ns())
        _close(session)
        for callback in list(self._on_exec_exit):
            await callback(container_id, exec_id, session.exit)

    def on_exit(self, callback: ExitCallback) -> None:
        self._on_exit.append(callback)

    def on_exec_exit(self, callback: ExecExitCallback) -> None:
        self._on_exec_exit.append(callback)

    def on_oom(self, callback: OomCallback) -> None:
        self._on_oom.append(callback)

    async def kill_for_memory(self, container_id: str) -> None:
        """Report that the kernel has killed a process in a container, which goes on."""
        for callback in list(self._on_oom):
            await callback(container_id)

    async def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.running = False

    async def launch(
        self, request: LaunchRequest, streams: Sequence[Stream] = (), keep: Sequence[int] = ()
    ) -> Launched:
        known = self.containers.get(request.id)
        process = FakeProcess(0, request, attached=list(streams), keep=list(keep))
        if self._failures:
            _close(process)
            raise self._failures.pop(0)
        if known is not None and known.exit is None:
            _close(process)
            raise IllegalTransition(request.id, "running", "running")
        process.pid = self._pid()
        self.launches.append(request)
        self.containers[request.id] = process
        return Launched(process.pid, self.clock.now_ns())

    async def recover(self, container_id: str, run_dir: Path, exit_file: Path, cgroup: str) -> Recovered:
        process = self.containers.get(container_id)
        if process is None:
            return Recovered(exit=ExitStatus(137, self.clock.now_ns(), reason="the shim is gone"))
        return Recovered(0 if process.exit else process.pid, process.exit, process.paused)

    async def forget(self, container_id: str) -> None:
        process = self.containers.get(container_id)
        if process is not None and process.exit is None:
            raise IllegalTransition(container_id, "running", "forgotten")
        self.forgotten.append(container_id)

    async def attach(self, container_id: str, stream: Stream) -> None:
        process = self.containers.get(container_id)
        if process is None or process.exit is not None:
            os.close(stream.fd)
            raise NotFound("container", container_id)
        process.attached.append(stream)

    async def signal(self, container_id: str, signo: int) -> None:
        process = self._get(container_id)
        process.signals.append(signo)
        if process.exit is None and signo in self.exit_on_signal:
            await self.finish(container_id, 128 + signo)

    async def pause(self, container_id: str) -> None:
        process = self._running(container_id)
        if process.paused:
            raise IllegalTransition(container_id, "paused", "paused")
        process.paused = True

    async def resume(self, container_id: str) -> None:
        process = self._running(container_id)
        if not process.paused:
            raise IllegalTransition(container_id, "running", "running")
        process.paused = False

    async def resize(self, container_id: str, height: int, width: int) -> None:
        self._running(container_id).size = (height, width)

    async def exec(self, request: ExecRequest, streams: Sequence[Stream] = ()) -> int:
        session = FakeProcess(0, request, attached=list(streams))
        if self._failures:
            _close(session)
            raise self._failures.pop(0)
        self._running(request.container_id).execs[request.exec_id] = session
        session.pid = self._pid()
        return session.pid

    async def exec_signal(self, container_id: str, exec_id: str, signo: int) -> None:
        self._session(container_id, exec_id).signals.append(signo)

    async def exec_resize(self, container_id: str, exec_id: str, height: int, width: int) -> None:
        self._session(container_id, exec_id).size = (height, width)

    async def update(self, container_id: str, spec: Spec) -> None:
        self._running(container_id).updates.append(spec)

    def pids(self, container_id: str) -> list[int]:
        process = self.containers.get(container_id)
        if process is None or process.exit is not None:
            return []
        return [process.pid, *(session.pid for session in process.execs.values() if session.exit is None)]

    async def stats(self, container_id: str) -> CgroupStats:
        return CgroupStats(pids_current=len(self.pids(container_id)))

    def _pid(self) -> int:
        self._next_pid += 1
        return self._next_pid

    def _get(self, container_id: str) -> FakeProcess:
        if (process := self.containers.get(container_id)) is None:
            raise NotFound("container", container_id)
        return process

    def _running(self, container_id: str) -> FakeProcess:
        process = self._get(container_id)
        if process.exit is not None:
            raise IllegalTransition(container_id, "exited", "running")
        return process

    def _session(self, container_id: str, exec_id: str) -> FakeProcess:
        session = self._get(container_id).execs.get(exec_id)
        if session is None:
            raise NotFound("exec instance", exec_id)
        return session


def _close(process: FakeProcess) -> None:
    """Close the streams that were handed over; `keep` stays the caller's, as the shim holds duplicates."""
    for stream in process.attached:
        if stream.fd >= 0:
            os.close(stream.fd)
    process.attached.clear()
