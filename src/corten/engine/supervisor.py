"""What follows the end of a container's first process, whoever caused it; and finding containers at a start."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

from corten.engine import modes, restarts
from corten.engine.announce import Announcer
from corten.engine.catalog import Entry
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.launch import Launcher
from corten.engine.models import Status, WaitResult
from corten.engine.release import Releaser
from corten.errors import CortenError
from corten.runtime.types import ExitStatus
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)


class Supervisor:
    """Takes exits from the runtime: state, `die`, release, restart by policy or removal, waiters, in this order.

    `on_start` and `on_end` are told of each container that began to run and of each that ended (health checks, exec
    sessions); they must not wait for the container.
    """

    def __init__(self, deps: EngineDeps, settings: EngineSettings, launcher: Launcher, releaser: Releaser) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._launcher, self._releaser = launcher, releaser
        self._announce = Announcer(deps.events)
        self._tasks = TaskOwner("supervisor")
        self._on_start: list[Callable[[Entry], None]] = []
        self._on_end: list[Callable[[Entry], None]] = []
        deps.runtime.on_exit(self.exited)
        deps.runtime.on_oom(self._out_of_memory)

    def watch(self, on_start: Callable[[Entry], None], on_end: Callable[[Entry], None]) -> None:
        self._on_start.append(on_start)
        self._on_end.append(on_end)

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
        for watcher in self._on_start:
            watcher(entry)

    async def exited(self, container_id: str, status: ExitStatus) -> None:
        """The runtime's callback."""
        entry = self._catalog.by_id(container_id)
        if entry is None:
            await self._deps.runtime.forget(container_id)
            return
        async with entry.lock:
            if entry.container.state.status in (Status.RUNNING, Status.PAUSED):
                await self.settle(entry, status)
            else:
                await self._deps.runtime.forget(container_id)

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
        if entry.no_restart or entry.manual_restart or entry.removing:
            return False
        if not restarts.wanted(container.host_config.restart_policy, state.exit_code, container.restart_count):
            return False
        uptime = self._deps.clock.monotonic() - entry.started_at
        entry.backoff_s = restarts.pause(entry.backoff_s, uptime)
        state.status = Status.RESTARTING
        await self._save(entry)
        entry.restart_task = self._tasks.start(f"restart {container.name}", self._restart_later(entry))
        return True

    async def _restart_later(self, entry: Entry) -> None:
        await self._deps.clock.sleep(entry.backoff_s)
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

    # -- start of the daemon -----------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Find running containers again, settle what ended meanwhile, and start what the policies say."""
        entries = self._catalog.entries()
        await asyncio.gather(*(self._recover_one(entry) for entry in entries))
        if wanted := [entry for entry in entries if self._starts_at_boot(entry)]:
            self._tasks.start("start by policy", self._start_all(wanted))

    async def _start_all(self, entries: Sequence[Entry]) -> None:
        """Those that join another container's namespaces come last."""

        def joins(entry: Entry) -> bool:
            host_config = entry.container.host_config
            return any(map(modes.joined, (host_config.network_mode, host_config.ipc_mode, host_config.pid_mode)))

        await asyncio.gather(*(self._start_at_boot(entry) for entry in entries if not joins(entry)))
        await asyncio.gather(*(self._start_at_boot(entry) for entry in entries if joins(entry)))

    async def _recover_one(self, entry: Entry) -> None:
        try:
            async with entry.lock:
                half_started = await self._reconcile(entry)
            if half_started:
                # Without the lock, as its exit is reported through `exited`, which forgets it.
                await self._deps.runtime.signal(entry.container.id, signal.SIGKILL)
        except CortenError as error:
            log.error("container %s was not recovered: %s", entry.container.id, error)

    async def _reconcile(self, entry: Entry) -> bool:
        """Whether a process is left that has to be ended."""
        container, state = entry.container, entry.container.state
        if state.status is Status.REMOVING:
            await self._releaser.remove(entry, volumes=False)
        elif state.status in (Status.RUNNING, Status.PAUSED):
            await self._find_again(entry)
        else:
            if state.status is Status.RESTARTING:
                state.status = Status.EXITED
            half_started = await self._half_started(entry)
            if container.host_config.auto_remove and state.started_ns:
                await self._releaser.remove(entry, volumes=True)
            return half_started
        return False

    async def _find_again(self, entry: Entry) -> None:
        container, state = entry.container, entry.container.state
        settings = self._settings
        found = await self._deps.runtime.recover(
            container.id, settings.run_dir(container.id), settings.state_dir(container.id) / "exit", container.cgroup
        )
        if found.exit is not None:
            # Restart by policy is decided with all the others, at the end.
            entry.no_restart = True
            await self.settle(entry, found.exit)
            return
        state.pid = found.pid
        if found.oom_killed and not state.oom_killed:
            state.oom_killed = True
            self._announce.container(container, "oom")
        state.status = Status.PAUSED if found.paused else Status.RUNNING
        uptime_ns = self._deps.clock.now_ns() - state.started_ns
        entry.started_at = self._deps.clock.monotonic() - max(0, uptime_ns) / 1e9
        container.exec_ids = []
        for watcher in self._on_start:
            watcher(entry)

    async def _half_started(self, entry: Entry) -> bool:
        """Whether a start was not recorded before the daemon ended: nobody was told of it, so it is undone."""
        container = entry.container
        run_dir = self._settings.run_dir(container.id)
        if not (run_dir / "shim.sock").exists():
            return False
        exit_file = self._settings.state_dir(container.id) / "exit"
        found = await self._deps.runtime.recover(container.id, run_dir, exit_file, container.cgroup)
        container.state.error = "the daemon ended while the container was being started"
        if found.exit is None:
            log.warning("container %s was half started and is ended", container.id)
            return True
        await self._deps.runtime.forget(container.id)
        return False

    def _starts_at_boot(self, entry: Entry) -> bool:
        container, state = entry.container, entry.container.state
        if entry.removing or state.status is not Status.EXITED or not state.started_ns:
            return False
        return restarts.wanted_at_boot(
            container.host_config.restart_policy,
            state.exit_code,
            container.restart_count,
            stopped_by_user=container.stopped_by_user,
        )

    async def _start_at_boot(self, entry: Entry) -> None:
        async with entry.lock:
            if entry.removing or entry.container.state.running:
                return
            try:
                await self.launch(entry)
            except CortenError as error:
                log.warning("container %s could not be started: %s", entry.container.name, error)

    async def close(self) -> None:
        """No restarts any more. Containers go on."""
        await self._tasks.close("the daemon stops")
