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
    DetachCallback,
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


class FakeProcesses(dict[str, FakeProcess]):
    """What was launched, by container. `failures` are what the next launches and execs raise instead of starting."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Exception] = []
        self._next_pid = FIRST_PID

    def new_pid(self) -> int:
        self._next_pid += 1
        return self._next_pid

    def of(self, container_id: str) -> FakeProcess:
        if (process := self.get(container_id)) is None:
            raise NotFound("container", container_id)
        return process

    def running(self, container_id: str) -> FakeProcess:
        process = self.of(container_id)
        if process.exit is not None:
            raise IllegalTransition(container_id, "exited", "running")
        return process


class FakeExecs:
    """Implements `RuntimeExecs` in memory; `finish` ends a session and reports it."""

    def __init__(self, processes: FakeProcesses, clock: Clock) -> None:
        self._processes, self._clock = processes, clock
        self._on_exit: list[ExecExitCallback] = []

    def on_exit(self, callback: ExecExitCallback) -> None:
        self._on_exit.append(callback)

    async def finish(self, container_id: str, exec_id: str, code: int = 0) -> None:
        """End one exec session and report it."""
        session = self._session(container_id, exec_id)
        session.exit = ExitStatus(code, self._clock.now_ns())
        _close(session)
        for callback in list(self._on_exit):
            await callback(container_id, exec_id, session.exit)

    async def start(self, request: ExecRequest, streams: Sequence[Stream] = ()) -> int:
        session = FakeProcess(0, request, attached=list(streams))
        if self._processes.failures:
            _close(session)
            raise self._processes.failures.pop(0)
        self._processes.running(request.container_id).execs[request.exec_id] = session
        session.pid = self._processes.new_pid()
        return session.pid

    async def signal(self, container_id: str, exec_id: str, signo: int) -> None:
        self._session(container_id, exec_id).signals.append(signo)

    async def resize(self, container_id: str, exec_id: str, height: int, width: int) -> None:
        self._session(container_id, exec_id).size = (height, width)

    def _session(self, container_id: str, exec_id: str) -> FakeProcess:
        session = self._processes.of(container_id).execs.get(exec_id)
        if session is None:
            raise NotFound("exec instance", exec_id)
        return session


class FakeStdio:
    """Implements `RuntimeStdio` in memory."""

    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes
        self._on_detach: list[DetachCallback] = []

    def on_detach(self, callback: DetachCallback) -> None:
        self._on_detach.append(callback)

    def detach(self, container_id: str, exec_id: str = "") -> None:
        """Report that a client has typed its detach keys."""
        for callback in self._on_detach:
            callback(container_id, exec_id)

    async def attach(self, container_id: str, stream: Stream) -> None:
        process = self._processes.get(container_id)
        if process is None or process.exit is not None:
            os.close(stream.fd)
            raise NotFound("container", container_id)
        process.attached.append(stream)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        self._processes.running(container_id).size = (height, width)


class FakeResources:
    """Implements `RuntimeResources` in memory."""

    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes

    async def update(self, container_id: str, spec: Spec) -> None:
        self._processes.running(container_id).updates.append(spec)

    def pids(self, container_id: str) -> list[int]:
        process = self._processes.get(container_id)
        if process is None or process.exit is not None:
            return []
        return [process.pid, *(session.pid for session in process.execs.values() if session.exit is None)]

    async def stats(self, container_id: str) -> CgroupStats:
        return CgroupStats(pids_current=len(self.pids(container_id)))


class FakeRuntime:
    """Implements `Runtime` in memory.

    Tests script it: what is in `containers.failures` the next launch or exec raises, `finish` (and `execs.finish`) end
    a process and report it, `exit_on_signal` says which signals end a container by themselves (with 128 + signal).
    `containers` holds what was launched, also of a runtime before this one. Fds handed over are closed when the process
    they belong to ends, as the shim does.
    """

    def __init__(self, clock: Clock | None = None, containers: FakeProcesses | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.containers = FakeProcesses() if containers is None else containers
        self.execs = FakeExecs(self.containers, self.clock)
        self.stdio = FakeStdio(self.containers)
        self.resources = FakeResources(self.containers)
        self.launches: list[LaunchRequest] = []
        self.forgotten: list[str] = []
        self.exit_on_signal: set[int] = {9, 15}
        self.running = False
        self._on_exit: list[ExitCallback] = []
        self._on_oom: list[OomCallback] = []

    async def finish(self, container_id: str, code: int = 0, *, oom_killed: bool = False, reason: str = "") -> None:
        """End a container, its exec sessions with it, and report it as the shim would."""
        process = self.containers.of(container_id)
        if process.exit is not None:
            raise IllegalTransition(container_id, "exited", "exited")
        for exec_id, session in process.execs.items():
            if session.exit is None:
                await self.execs.finish(container_id, exec_id, 137)
        process.exit = ExitStatus(code, self.clock.now_ns(), oom_killed, reason)
        _close(process)
        for callback in list(self._on_exit):
            await callback(container_id, process.exit)

    def on_exit(self, callback: ExitCallback) -> None:
        self._on_exit.append(callback)

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
        if self.containers.failures:
            _close(process)
            raise self.containers.failures.pop(0)
        if known is not None and known.exit is None:
            _close(process)
            raise IllegalTransition(request.id, "running", "running")
        process.pid = self.containers.new_pid()
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

    async def signal(self, container_id: str, signo: int) -> None:
        process = self.containers.of(container_id)
        process.signals.append(signo)
        if process.exit is None and signo in self.exit_on_signal:
            await self.finish(container_id, 128 + signo)

    async def pause(self, container_id: str) -> None:
        process = self.containers.running(container_id)
        if process.paused:
            raise IllegalTransition(container_id, "paused", "paused")
        process.paused = True

    async def resume(self, container_id: str) -> None:
        process = self.containers.running(container_id)
        if not process.paused:
            raise IllegalTransition(container_id, "running", "running")
        process.paused = False


def _close(process: FakeProcess) -> None:
    """Close the streams that were handed over; `keep` stays the caller's, as the shim holds duplicates."""
    for stream in process.attached:
        if stream.fd >= 0:
            os.close(stream.fd)
    process.attached.clear()
