"""What follows the end of a container's first process, whoever caused it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from corten.clock import Clock
from corten.engine.containers import restarts
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Catalog, Entry
from corten.engine.containers.launch import Launcher
from corten.engine.containers.release import Releaser
from corten.engine.models import Status, WaitResult
from corten.errors import CortenError
from corten.runtime.types import ExitStatus, Runtime
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)


class Supervisor:
    """Takes exits from the runtime: state, `die`, release, restart by policy or removal, waiters, in this order.

    `on_start` and `on_end` are told of each container that began to run and of each that ended (health checks, exec
    sessions), `on_pause` of each that was paused (True) or goes on; they must not wait for the container.
    """

    def __init__(
        self,
        catalog: Catalog,
        launcher: Launcher,
        releaser: Releaser,
        runtime: Runtime,
        clock: Clock,
        announce: Announcer,
    ) -> None:
        self._catalog, self._launcher, self._releaser = catalog, launcher, releaser
        self._runtime, self._clock, self._announce = runtime, clock, announce
        self._tasks = TaskOwner("supervisor")
        self._on_start: list[Callable[[Entry], None]] = []
        self._on_end: list[Callable[[Entry], None]] = []
        self._on_pause: list[Callable[[Entry, bool], None]] = []
        runtime.on_exit(self.exited)
        runtime.on_oom(self._out_of_memory)

    def watch(
        self,
        on_start: Callable[[Entry], None] | None = None,
        on_end: Callable[[Entry], None] | None = None,
        on_pause: Callable[[Entry, bool], None] | None = None,
    ) -> None:
        self._on_start.extend(filter(None, [on_start]))
        self._on_end.extend(filter(None, [on_end]))
        self._on_pause.extend(filter(None, [on_pause]))

    async def launch(self, entry: Entry) -> None:
        """Start, and clean up after a failed one as after an exit. The caller holds the lock."""
        try:
            await self._launcher.start(entry)
        except CortenError:
            state = entry.container.state
            if entry.container.host_config.auto_remove and not entry.manual_restart:
                await self._releaser.remove(entry, volumes=True, durable=False)
            entry.settle(("not-running", "next-exit"), WaitResult(state.exit_code))
            raise
        self.runs(entry)

    def runs(self, entry: Entry) -> None:
        """A container has begun to run, or was found running: the watchers are told."""
        for watcher in self._on_start:
            watcher(entry)

    def paused(self, entry: Entry, paused: bool) -> None:
        """A container was paused, or goes on: the watchers are told."""
        for watcher in self._on_pause:
            watcher(entry, paused)

    async def exited(self, container_id: str, status: ExitStatus) -> None:
        """The runtime's callback."""
        entry = self._catalog.by_id(container_id)
        if entry is None:
            await self._runtime.forget(container_id)
            return
        async with entry.lock:
            if entry.container.state.status in (Status.RUNNING, Status.PAUSED):
                await self.settle(entry, status)
            else:
                await self._runtime.forget(container_id)

    async def _out_of_memory(self, container_id: str) -> None:
        """The runtime's callback. Takes no lock: a start that is under way holds it until the program runs."""
        if (entry := self._catalog.by_id(container_id)) is not None:
            entry.container.state.oom_killed = True
            self._announce.container(entry.container, "oom")

    async def settle(self, entry: Entry, status: ExitStatus) -> None:
        """All that follows an exit. The caller holds the lock."""
        for watcher in self._on_end:
            watcher(entry)
        self._note_exit(entry, status)
        await self._releaser.stopped(entry)
        state = entry.container.state
        if not await self._restart_by_policy(entry):
            await self._save(entry)
            if entry.container.host_config.auto_remove and not entry.manual_restart:
                await self._releaser.remove(entry, volumes=True, durable=False)
        entry.settle(("not-running", "next-exit"), WaitResult(state.exit_code))

    async def _save(self, entry: Entry) -> None:
        """On a full disk what follows an exit goes on; after a restart of the daemon, the shim's record tells of it."""
        try:
            await self._catalog.save(entry, durable=False)
        except CortenError as error:
            log.error("the exit of container %s was not recorded: %s", entry.container.id, error)

    def _note_exit(self, entry: Entry, status: ExitStatus) -> None:
        container, state = entry.container, entry.container.state
        state.status, state.pid = Status.EXITED, 0
        state.exit_code, state.finished_ns = status.code, status.finished_ns
        if status.oom_killed and not state.oom_killed:  # nobody was there to be told when it happened
            self._announce.container(container, "oom")
        state.oom_killed, state.error = state.oom_killed or status.oom_killed, status.reason
        container.exec_ids = []
        seconds = max(0, status.finished_ns - state.started_ns) // 1_000_000_000
        self._announce.container(container, "die", exitCode=str(status.code), execDuration=str(seconds))

    # -- restarts ----------------------------------------------------------------------------------------------------

    async def _restart_by_policy(self, entry: Entry) -> bool:
        container, state = entry.container, entry.container.state
        if entry.no_restart or entry.manual_restart or entry.removing or not restarts.follows(container):
            return False
        uptime = self._clock.monotonic() - entry.started_at
        # Long enough to be found unhealthy is no calm: what never works is not to be restarted at full speed for ever.
        calm = not container.unhealthy_end or entry.was_healthy
        entry.backoff_s = restarts.pause(entry.backoff_s, uptime if calm else 0.0)
        state.status = Status.RESTARTING
        await self._save(entry)
        entry.restart_task = self._tasks.start(f"restart {container.name}", self._restart_later(entry))
        return True

    async def _restart_later(self, entry: Entry) -> None:
        await self._clock.sleep(entry.backoff_s)
        async with entry.lock:
            if entry.container.state.status is not Status.RESTARTING:
                return
            entry.restart_task = None
            entry.container.restart_count += 1
            try:
                await self.launch(entry)
            except CortenError as error:
                log.warning("container %s could not be restarted: %s", entry.container.name, error)

    def cancel_restart(self, entry: Entry) -> bool:
        """Whether one was pending; the container then has exited. The caller holds the lock."""
        if entry.container.state.status is not Status.RESTARTING:
            return False
        if entry.restart_task is not None:
            entry.restart_task.cancel("somebody asked for something else")
            entry.restart_task = None
        entry.container.state.status = Status.EXITED
        return True

    async def close(self) -> None:
        """No restarts any more. Containers go on."""
        await self._tasks.close("the daemon stops")
