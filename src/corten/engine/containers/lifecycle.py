"""A container's life once it is made: start, stop, restart, kill, pause, and waiting for its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable

from corten.clock import Clock
from corten.engine.containers import signals
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.containers.patience import within
from corten.engine.containers.supervisor import Supervisor
from corten.engine.deps import EngineSettings
from corten.engine.models import Status, WaitCondition, WaitResult
from corten.errors import Conflict, NotFound, NotModified
from corten.runtime.types import Runtime
from corten.tasks import TaskOwner

KILL_PATIENCE_S = 10.0
"""How long SIGKILL may take before the caller is told that something holds the container's processes."""


class LifeCycle:
    """Implements `api.docker.backends.ContainerLifeCycle`.

    Takes each container's lock for as long as its record is changed, never while waiting for its end.
    """

    def __init__(
        self,
        catalog: Catalog,
        supervisor: Supervisor,
        runtime: Runtime,
        clock: Clock,
        announce: Announcer,
        settings: EngineSettings,
    ) -> None:
        self._catalog, self._supervisor, self._runtime, self._clock = catalog, supervisor, runtime, clock
        self._announce, self._settings = announce, settings
        self._tasks = TaskOwner("life cycle")

    async def start(self, ref: str) -> None:
        """Raises NotModified when it runs, Conflict when it cannot be started, StartFailed when that fails."""
        await self._start(self._catalog.find(ref))

    async def _start(self, entry: Entry) -> None:
        async with entry.lock:
            state = entry.container.state
            if state.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if state.status is Status.RUNNING:
                raise NotModified(f"container {entry.container.id} is already running")
            if entry.removing or state.status in (Status.REMOVING, Status.DEAD):
                raise Conflict(f"container is marked for removal and cannot be started: {entry.container.id}")
            self._supervisor.cancel_restart(entry)
            entry.container.restart_count = 0
            entry.backoff_s = 0.0
            await self._supervisor.launch(entry)

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """The container's signal, or `signal`, and SIGKILL after `timeout` seconds (negative: never; None: its own).

        Raises NotModified when it does not run, Conflict when it does not end of SIGKILL either.
        """
        await self._stop_and_tell(self._catalog.find(ref), timeout, signal)

    async def _stop_and_tell(self, entry: Entry, timeout: int | None, signal_name: str) -> None:
        await self._stop(entry, timeout, signal_name)
        self._announce.container(entry.container, "stop")

    async def _stop(self, entry: Entry, timeout: int | None, signal_name: str) -> None:
        signals.parse(signal_name or signals.DEFAULT_STOP)
        async with entry.lock:
            if not entry.container.state.running:
                raise NotModified(f"container {entry.container.id} is already stopped")
            entry.container.stopped_by_user = not entry.manual_restart or entry.container.stopped_by_user
            if self._supervisor.cancel_restart(entry):
                await self._catalog.save(entry, durable=False)
                entry.settle(("not-running",), WaitResult(entry.container.state.exit_code))
                return
            entry.no_restart = True
            ended = entry.subscribe("not-running")
        await self._terminate(entry, ended, timeout, signal_name)

    async def _terminate(
        self, entry: Entry, ended: asyncio.Future[WaitResult], timeout: int | None = None, signal_name: str = ""
    ) -> None:
        config = entry.container.config
        if timeout is None:
            timeout = self._settings.stop_timeout_s if config.stop_timeout is None else config.stop_timeout
        await self._send(entry, signals.parse(signal_name or config.stop_signal or signals.DEFAULT_STOP))
        if await within(self._tasks, self._clock, ended, None if timeout < 0 else float(timeout)):
            return
        await self._send(entry, signal.SIGKILL)
        await self._await_kill(entry, ended)

    async def end_unhealthy(self, entry: Entry, action: str) -> None:
        """What `--health-on-failure` says: "stop" as if the user had, "kill" as if it had crashed, "restart" softly.

        Nothing where somebody else is about to end it. Raises Conflict when it does not end.
        """
        if entry.no_restart or entry.manual_restart or entry.removing:
            return
        if action == "stop":
            self._announce.container(entry.container, f"health_on_failure: {action}")
            await self._stop_and_tell(entry, None, "")
            return
        async with entry.lock:
            if entry.container.state.status is not Status.RUNNING:
                return
            entry.container.unhealthy_end = action
            await self._catalog.save(entry, durable=False)
            ended = entry.subscribe("not-running")
        self._announce.container(entry.container, f"health_on_failure: {action}")
        if action == "restart":
            await self._terminate(entry, ended)
        else:
            await self._send(entry, signal.SIGKILL)
            await self._await_kill(entry, ended)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop it, if it runs, and start it: one end and one start for its waiters, and no work for its policy."""
        entry = self._catalog.find(ref)
        if signal:
            signals.parse(signal)
        entry.manual_restart = True
        try:
            with contextlib.suppress(NotModified):
                await self._stop_and_tell(entry, timeout, signal)
            await self._start(entry)
        finally:
            entry.manual_restart = False
        self._announce.container(entry.container, "restart")

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal to the first process; of SIGKILL the end is awaited. Raises Conflict when it does not run."""
        await self._kill(self._catalog.find(ref), signal)

    async def _kill(self, entry: Entry, signal_name: str) -> None:
        signo = signals.parse(signal_name or "KILL")
        container = entry.container
        async with entry.lock:
            if self._supervisor.cancel_restart(entry):
                container.stopped_by_user = True
                await self._catalog.save(entry, durable=False)
                return
            if not container.state.running:
                raise Conflict(f"cannot kill container: {container.name}: container {container.id} is not running")
            container.stopped_by_user = True
            stop_signal = container.config.stop_signal
            if signo == signal.SIGKILL or not stop_signal or signo == signals.parse(stop_signal):
                entry.no_restart = True
            ended = entry.subscribe("not-running")
        await self._send(entry, signo)
        if signo == signal.SIGKILL:
            await self._await_kill(entry, ended)

    async def pause(self, ref: str) -> None:
        entry = self._catalog.find(ref)
        container = entry.container
        async with entry.lock:
            if container.state.status is Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if container.state.status is Status.RESTARTING:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if container.state.status is not Status.RUNNING:
                raise Conflict(f"Container {container.id} is not running")
            self._supervisor.paused(entry, True)  # first, as what is asked of a container that freezes gets no answer
            try:
                await self._runtime.pause(container.id)
            except BaseException:
                self._supervisor.paused(entry, False)
                raise
            container.state.status = Status.PAUSED
            await self._catalog.save(entry, durable=False)
        self._announce.container(container, "pause")

    async def unpause(self, ref: str) -> None:
        entry = self._catalog.find(ref)
        container = entry.container
        async with entry.lock:
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            await self._runtime.resume(container.id)
            container.state.status = Status.RUNNING
            self._supervisor.paused(entry, False)
            await self._catalog.save(entry, durable=False)
        self._announce.container(container, "unpause")

    async def wait(self, ref: str, condition: WaitCondition) -> Awaitable[WaitResult]:
        """Subscribes before it returns; the awaitable gives the result."""
        return self._catalog.find(ref).subscribe(condition)

    async def _send(self, entry: Entry, signo: int) -> None:
        """A paused container would not notice its end: it is let go on."""
        container = entry.container
        # Told first, as its `die` may come before the call returns.
        self._announce.container(container, "kill", signal=str(int(signo)))
        await self._runtime.signal(container.id, signo)
        if entry.no_restart:
            await self._let_go_on(entry)

    async def _let_go_on(self, entry: Entry) -> None:
        container = entry.container
        async with entry.lock:
            if container.state.status is not Status.PAUSED:
                return
            # On cgroup version 2 a frozen process does die of SIGKILL: it may have ended already.
            with contextlib.suppress(Conflict, NotFound):
                await self._runtime.resume(container.id)
                container.state.status = Status.RUNNING
                self._supervisor.paused(entry, False)
                await self._catalog.save(entry, durable=False)
                self._announce.container(container, "unpause")

    async def _await_kill(self, entry: Entry, ended: asyncio.Future[WaitResult]) -> None:
        if not await within(self._tasks, self._clock, ended, KILL_PATIENCE_S):
            raise Conflict(
                f"cannot kill container: {entry.container.name}: tried to kill container, "
                "but did not receive an exit event"
            )

    async def close(self) -> None:
        await self._tasks.close("the daemon stops")
