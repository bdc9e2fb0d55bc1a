"""The start of the daemon: containers that run are found again, the rest is settled, what the policies say started."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from corten.engine.containers import imagemounts, modes, restarts
from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.containers.release import Releaser
from corten.engine.containers.staging import Staging
from corten.engine.containers.supervisor import Supervisor
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.models import Status, volume_names
from corten.errors import CortenError
from corten.network.types import Endpoint
from corten.storage.types import SnapshotInfo
from corten.storage.walking import delete_tree
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """What of the network belongs to containers that were running when the daemon stopped."""

    endpoints: list[Endpoint]
    sandboxes: list[str]


class Recovery:
    """At the start of the daemon: `load`, then the networks, then `recover`."""

    def __init__(self, deps: EngineDeps, settings: EngineSettings, supervisor: Supervisor, releaser: Releaser) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._supervisor, self._releaser = supervisor, releaser
        self._announce = Announcer(deps.events)
        self._tasks = TaskOwner("recovery")
        self._staging = Staging(settings.exec_root / "mounts", deps.snapshotter)

    def load(self) -> LiveNetwork:
        """Read the records. Nothing is started or stopped yet."""
        running = [
            entry.container
            for entry in self._catalog.load()
            if entry.container.state.status in (Status.RUNNING, Status.PAUSED)
        ]
        return LiveNetwork(
            [endpoint for container in running for endpoint in container.endpoints],
            [container.id for container in running if container.sandbox_id],
        )

    async def recover(self) -> None:
        """Find running containers again, settle what ended meanwhile, remove what was left half made, and start what
        the policies say.
        """
        await asyncio.to_thread(self._staging.clear)
        snapshots = {info.key: info for info in await asyncio.to_thread(lambda: list(self._deps.snapshotter.walk()))}
        for entry in self._catalog.entries():
            if entry.container.id not in snapshots and not entry.container.state.started_ns:
                log.warning("container %s was left half made and is removed", entry.container.id)
                await self._catalog.drop(entry)
        entries = self._catalog.entries()
        await asyncio.gather(*(self._recover_one(entry) for entry in entries))
        await self._deps.volumes.settle()
        if wanted := [entry for entry in entries if self._starts_at_boot(entry)]:
            self._tasks.start("start by policy", self._start_all(wanted))
        await asyncio.to_thread(self._drop_orphans, list(snapshots.values()))

    async def _recover_one(self, entry: Entry) -> None:
        try:
            async with entry.lock:
                half_started = await self._reconcile(entry)
            if half_started:
                # Without the lock, as its exit is reported through the supervisor's `exited`, which forgets it.
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
            await self._supervisor.settle(entry, found.exit)
            return
        state.pid = found.pid
        if found.oom_killed and not state.oom_killed:
            state.oom_killed = True
            self._announce.container(container, "oom")
        state.status = Status.PAUSED if found.paused else Status.RUNNING
        uptime_ns = self._deps.clock.now_ns() - state.started_ns
        entry.started_at = self._deps.clock.monotonic() - max(0, uptime_ns) / 1e9
        container.exec_ids = []
        try:
            await self._deps.volumes.acquire(volume_names(container.mounts), container.id)
        except CortenError as error:
            log.error("a volume of container %s is not there any more: %s", container.id, error)
        self._supervisor.runs(entry)

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

    # -- starting by policy --------------------------------------------------------------------------------------------

    def _starts_at_boot(self, entry: Entry) -> bool:
        container, state = entry.container, entry.container.state
        if entry.removing or state.status is not Status.EXITED or not state.started_ns:
            return False
        unhealthy = container.unhealthy_end == "restart" and not container.stopped_by_user
        policy = container.host_config.restart_policy
        if unhealthy and restarts.wanted_when_unhealthy(policy, container.restart_count):
            return True
        return restarts.wanted_at_boot(
            container.host_config.restart_policy,
            state.exit_code,
            container.restart_count,
            stopped_by_user=container.stopped_by_user,
        )

    async def _start_all(self, entries: Sequence[Entry]) -> None:
        """Each after those whose namespaces it joins and those that it links to."""
        waiting = {entry.container.id: entry for entry in entries}
        while waiting:
            ready = [entry for entry in waiting.values() if _needs(entry).isdisjoint(waiting)]
            for entry in ready:
                del waiting[entry.container.id]
            if not ready:  # they wait for each other: let them fail with their own words
                ready, waiting = list(waiting.values()), {}
            await asyncio.gather(*(self._start_at_boot(entry) for entry in ready))

    async def _start_at_boot(self, entry: Entry) -> None:
        async with entry.lock:
            if entry.removing or entry.container.state.running:
                return
            try:
                await self._supervisor.launch(entry)
            except CortenError as error:
                log.warning("container %s could not be started: %s", entry.container.name, error)

    # -- what nobody knows ---------------------------------------------------------------------------------------------

    def _drop_orphans(self, snapshots: Sequence[SnapshotInfo]) -> None:
        """What a crash amid a create or a remove has left without a record."""
        for key in (info.key for info in snapshots if info.kind != "committed"):
            if not self._orphan(imagemounts.owner_of(key)):
                continue
            log.warning("the snapshot %s has no container and is removed", key)
            try:
                self._deps.snapshotter.remove(key)
            except CortenError as error:
                log.warning("the snapshot %s stays: %s", key, error)
        for parent in {self._settings.state_dir("x").parent, self._settings.run_dir("x").parent}:
            for directory in parent.iterdir() if parent.is_dir() else ():
                if self._orphan(directory.name):
                    log.warning("%s has no container and is removed", directory)
                    with suppress(OSError):
                        delete_tree(directory)

    def _orphan(self, name: str) -> bool:
        return re.fullmatch(r"[0-9a-f]{64}", name) is not None and self._catalog.by_id(name) is None

    async def close(self) -> None:
        """No starts by policy any more. Containers go on."""
        await self._tasks.close("the daemon stops")


def _needs(entry: Entry) -> set[str]:
    """Ids of the containers that have to run before this one starts."""
    container, host_config = entry.container, entry.container.host_config
    needed = set(map(modes.joined, (host_config.network_mode, host_config.ipc_mode, host_config.pid_mode)))
    return needed | {link.target for link in container.links}
