"""Stop, kill, restart, pause, rename, remove, update: what users do to a container after it was started."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

from corten.engine import names, signals, updates, validate
from corten.engine.announce import Announcer
from corten.engine.catalog import Entry
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.models import Container, Status, WaitResult
from corten.engine.release import Releaser
from corten.engine.spec import builder
from corten.engine.supervisor import Supervisor
from corten.errors import Conflict, InvalidArgument, NotFound, NotImplementedYet, NotModified
from corten.specs.container import Resources, RestartPolicy
from corten.specs.oci_runtime import VERSION, Linux, Spec
from corten.tasks import TaskOwner

KILL_PATIENCE_S = 10.0
"""How long SIGKILL may take before the caller is told that something holds the container's processes."""


class Controller:
    """Takes each container's lock for as long as its record is changed, never while waiting for its end."""

    def __init__(
        self,
        deps: EngineDeps,
        settings: EngineSettings,
        supervisor: Supervisor,
        releaser: Releaser,
    ) -> None:
        self._deps, self._settings, self._catalog = deps, settings, deps.catalog
        self._supervisor, self._releaser = supervisor, releaser
        self._announce = Announcer(deps.events)
        self._tasks = TaskOwner("control")

    async def start(self, entry: Entry) -> None:
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

    async def stop(self, entry: Entry, timeout: int | None, signal_name: str) -> None:
        """Raises NotModified when it does not run."""
        await self._stop(entry, timeout, signal_name)
        self._announce.container(entry.container, "stop")

    async def _stop(self, entry: Entry, timeout: int | None, signal_name: str) -> None:
        config = entry.container.config
        signo = signals.parse(signal_name or config.stop_signal or signals.DEFAULT_STOP)
        if timeout is None:
            timeout = self._settings.stop_timeout_s if config.stop_timeout is None else config.stop_timeout
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
        await self._send(entry, signo)
        if await self._within(ended, None if timeout < 0 else float(timeout)):
            return
        await self._send(entry, signal.SIGKILL)
        await self._await_kill(entry, ended)

    async def restart(self, entry: Entry, timeout: int | None, signal_name: str) -> None:
        if signal_name:
            signals.parse(signal_name)
        entry.manual_restart = True
        try:
            with contextlib.suppress(NotModified):
                await self.stop(entry, timeout, signal_name)
            await self.start(entry)
        finally:
            entry.manual_restart = False
        self._announce.container(entry.container, "restart")

    async def kill(self, entry: Entry, signal_name: str) -> None:
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

    async def _send(self, entry: Entry, signo: int) -> None:
        """A paused container would not notice its end: it is let go on."""
        container = entry.container
        # Told first, as its `die` may come before the call returns.
        self._announce.container(container, "kill", signal=str(int(signo)))
        await self._deps.runtime.signal(container.id, signo)
        if entry.no_restart:
            await self._let_go_on(entry)

    async def _let_go_on(self, entry: Entry) -> None:
        container = entry.container
        async with entry.lock:
            if container.state.status is not Status.PAUSED:
                return
            # On cgroup version 2 a frozen process does die of SIGKILL: it may have ended already.
            with contextlib.suppress(Conflict, NotFound):
                await self._deps.runtime.resume(container.id)
                container.state.status = Status.RUNNING
                await self._catalog.save(entry, durable=False)
                self._announce.container(container, "unpause")

    async def _await_kill(self, entry: Entry, ended: asyncio.Future[WaitResult]) -> None:
        if not await self._within(ended, KILL_PATIENCE_S):
            raise Conflict(
                f"cannot kill container: {entry.container.name}: tried to kill container, "
                "but did not receive an exit event"
            )

    async def _within(self, future: asyncio.Future[WaitResult], seconds: float | None) -> bool:
        """Whether it was done in time, by the engine's clock."""
        if future.done():
            return True
        if seconds is None:
            await future
            return True
        if seconds == 0:
            return False
        sleeper = self._tasks.start("patience", self._deps.clock.sleep(seconds))
        try:
            both: set[asyncio.Future[Any]] = {future, sleeper}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
        return future.done()

    async def pause(self, entry: Entry) -> None:
        container = entry.container
        async with entry.lock:
            if container.state.status is Status.PAUSED:
                raise Conflict(f"Container {container.id} is already paused")
            if container.state.status is Status.RESTARTING:
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if container.state.status is not Status.RUNNING:
                raise Conflict(f"Container {container.id} is not running")
            await self._deps.runtime.pause(container.id)
            container.state.status = Status.PAUSED
            await self._catalog.save(entry, durable=False)
        self._announce.container(container, "pause")

    async def unpause(self, entry: Entry) -> None:
        container = entry.container
        async with entry.lock:
            if container.state.status is not Status.PAUSED:
                raise Conflict(f"Container {container.id} is not paused")
            await self._deps.runtime.resume(container.id)
            container.state.status = Status.RUNNING
            await self._catalog.save(entry, durable=False)
        self._announce.container(container, "unpause")

    async def resize(self, entry: Entry, height: int, width: int) -> None:
        container = entry.container
        if container.state.status not in (Status.RUNNING, Status.PAUSED):
            raise Conflict(f"container {container.id} is not running")
        await self._deps.runtime.resize(container.id, height, width)
        self._announce.container(container, "resize", height=str(height), width=str(width))

    async def rename(self, entry: Entry, name: str) -> None:
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        name = names.check(name)
        container = entry.container
        async with entry.lock:
            old = container.name
            if name == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            self._catalog.claim(name, container.id)
            container.name = name
            try:
                await self._catalog.save(entry)
            except BaseException:
                container.name = old
                self._catalog.release(name)
                raise
            self._catalog.release(old)
        self._announce.container(container, "rename", oldName=f"/{old}")

    async def remove(self, entry: Entry, *, force: bool, volumes: bool, link: bool) -> None:
        if link:
            raise NotImplementedYet("--link is not supported yet: there is no link to remove")
        container = entry.container
        if entry.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        if container.state.running:
            self._refuse_running(container, force=force)
            await self._end(entry)
        async with entry.lock:
            if self._catalog.by_id(container.id) is not entry:
                return  # --rm was faster
            if container.state.running:
                self._refuse_running(container, force=False)
            await self._releaser.remove(entry, volumes=volumes)

    def _refuse_running(self, container: Container, *, force: bool) -> None:
        if force:
            return
        status = container.state.status
        advice = "and must be unpaused first"
        if status is not Status.PAUSED:
            advice = ": stop the container before removing or force remove"
        separator = " " if status is Status.PAUSED else ""
        raise Conflict(f'cannot remove container "/{container.name}": container is {status}{separator}{advice}')

    async def _end(self, entry: Entry) -> None:
        """Kill for a forced removal; that it ended meanwhile, or is gone, is as good."""
        try:
            await self.kill(entry, "KILL")
        except (Conflict, NotFound):
            if entry.container.state.running:
                raise

    async def update(self, entry: Entry, resources: Resources, policy: RestartPolicy | None) -> list[str]:
        container = entry.container
        async with entry.lock:
            if entry.removing:
                raise Conflict(f"container is marked for removal and cannot be updated: {container.id}")
            previous = updates.snapshot(container.host_config)
            try:
                warnings = self._apply(container, resources, policy)
                if container.state.status in (Status.RUNNING, Status.PAUSED):
                    spec = Spec(oci_version=VERSION, linux=Linux(resources=builder.limits(container)))
                    await self._deps.runtime.update(container.id, spec)
            except BaseException:
                updates.restore(container.host_config, previous)
                raise
            await self._catalog.save(entry)
        self._announce.container(container, "update")
        return warnings

    def _apply(self, container: Container, resources: Resources, policy: RestartPolicy | None) -> list[str]:
        if policy is not None and policy.name:
            validate.check_restart_policy(policy, auto_remove=container.host_config.auto_remove)
            container.host_config.restart_policy = policy
        updates.merge(container.host_config, resources)
        return validate.check_limits(container.host_config, self._settings.facts)

    async def close(self) -> None:
        await self._tasks.close("the daemon stops")
