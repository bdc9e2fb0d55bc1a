"""Health checks: a probe now and then, as an exec session, and what its results make of the container."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable

from corten.engine.containers.announce import Announcer
from corten.engine.containers.catalog import Entry
from corten.engine.containers.execs import ExecService
from corten.engine.containers.patience import within
from corten.engine.deps import EngineDeps
from corten.engine.models import Container, Exec, Health, HealthResult, Status
from corten.errors import CortenError, StartFailed
from corten.runtime.types import Stream
from corten.specs.container import ExecRequest, HealthConfig
from corten.specs.times import format_duration
from corten.tasks import TaskOwner

log = logging.getLogger(__name__)

INTERVAL_NS = 30_000_000_000
TIMEOUT_NS = 30_000_000_000
START_INTERVAL_NS = 5_000_000_000
RETRIES = 3
MAX_OUTPUT = 4096
MAX_LOG = 5


def command(container: Container) -> list[str]:
    """What is run as the probe; [] for none."""
    test = (container.config.healthcheck or HealthConfig()).test or []
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD-SHELL":
        return [*(container.config.shell or ["/bin/sh", "-c"]), *test[1:]]
    return test[1:]


def judge(health: Health, config: HealthConfig, result: HealthResult, *, starting: bool) -> str:
    """Note a result. Returns the new status where it changed, else ""; failures while starting do not count."""
    before = health.status
    health.log = [*health.log, result][-MAX_LOG:]
    if result.exit_code == 0:
        health.failing_streak, health.status = 0, "healthy"
    elif not (starting and health.status == "starting"):
        health.failing_streak += 1
        if health.failing_streak >= (config.retries or RETRIES):
            health.status = "unhealthy"
    return health.status if health.status != before else ""


class HealthMonitor:
    """One task for each running container that has a health check. `started`, `ended` and `paused` never wait.

    `on_unhealthy` is given each unhealthy container that has chosen what then is to be done with it, and the choice.
    """

    def __init__(
        self, deps: EngineDeps, execs: ExecService, on_unhealthy: Callable[[Entry, str], Awaitable[None]]
    ) -> None:
        self._deps, self._execs, self._on_unhealthy = deps, execs, on_unhealthy
        self._announce = Announcer(deps.events)
        self._tasks = TaskOwner("health")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._probes: dict[str, Exec] = {}

    def started(self, entry: Entry) -> None:
        container = entry.container
        if not command(container):
            container.state.health = None
            return
        if container.state.health is None or container.state.health.status == "none":
            container.state.health = Health(status="starting")
        entry.was_healthy = container.state.health.status == "healthy"
        if container.state.status is not Status.PAUSED:
            self._begin(entry)

    def paused(self, entry: Entry, paused: bool) -> None:
        """Nothing in a paused container can answer: it is not asked, and keeps the health that it had."""
        if not paused:
            if command(entry.container):
                self._begin(entry)
            return
        self._end(entry, "the container is paused")
        if (session := self._probes.pop(entry.container.id, None)) is not None:
            self._tasks.start(f"end of probe of {entry.container.name}", self._drop(session))

    def _begin(self, entry: Entry) -> None:
        self._end(entry, "checks begin anew")
        self._running[entry.container.id] = self._tasks.start(entry.container.name, self._watch(entry))

    def _end(self, entry: Entry, reason: str) -> None:
        if (task := self._running.pop(entry.container.id, None)) is not None:
            task.cancel(reason)

    async def _drop(self, session: Exec) -> None:
        """End a probe whose result nobody waits for; frozen as it is, it ends when the container goes on."""
        try:
            await self._execs.kill(session, signal.SIGKILL)
        except CortenError as error:
            log.info("a health check's process stays: %s", error)

    def ended(self, entry: Entry) -> None:
        self._end(entry, "the container has ended")
        self._probes.pop(entry.container.id, None)
        if (health := entry.container.state.health) is not None and health.status != "none":
            # What a stopped container was is no news of the next run.
            entry.container.state.health = Health(
                status="unhealthy", failing_streak=health.failing_streak, log=health.log
            )

    async def _watch(self, entry: Entry) -> None:
        config = entry.container.config.healthcheck or HealthConfig()
        while (health := entry.container.state.health) is not None:
            age_ns = self._deps.clock.now_ns() - entry.container.state.started_ns
            starting = age_ns < config.start_period
            pause_ns = config.interval or INTERVAL_NS
            if starting and health.status == "starting":
                pause_ns = config.start_interval or START_INTERVAL_NS
            await self._deps.clock.sleep(pause_ns / 1e9)
            result = await self._probe(entry.container, config)
            age_ns = result.start_ns - entry.container.state.started_ns
            entry.was_healthy = entry.was_healthy or result.exit_code == 0
            if changed := judge(health, config, result, starting=age_ns < config.start_period):
                await self._save(entry)
                self._announce.container(entry.container, f"health_status: {changed}")
            if health.status == "unhealthy" and result.exit_code != 0:
                await self._act(entry)

    async def _save(self, entry: Entry) -> None:
        """A disk that is full must not end the checks."""
        try:
            await self._deps.catalog.save(entry, durable=False)
        except CortenError as error:
            log.error("the health of container %s was not recorded: %s", entry.container.id, error)

    async def _act(self, entry: Entry) -> None:
        """In a task that the end of the container does not take away; probing goes on after it, should it fail."""
        container = entry.container
        action = container.config.healthcheck.on_failure if container.config.healthcheck else ""
        if action in ("", "none"):
            return

        async def act() -> None:
            try:
                await self._on_unhealthy(entry, action)
            except CortenError as error:
                log.warning("container %s is unhealthy, but its %s failed: %s", container.name, action, error)

        await asyncio.wait({self._tasks.start(f"{action} of {container.name}", act())})

    async def _probe(self, container: Container, config: HealthConfig) -> HealthResult:
        """Whatever goes wrong is a result: a check that cannot be made has failed."""
        start_ns = self._deps.clock.now_ns()
        timeout_ns = config.timeout or TIMEOUT_NS
        request = ExecRequest(attach_stdout=True, attach_stderr=True)
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.setblocking(False)
                session = self._probes[container.id] = self._execs.open(container, command(container), request)
                await self._execs.begin(session, container, [Stream(theirs.detach(), raw=True)])
                return await self._follow(container.name, session, ours, start_ns, timeout_ns)
        except StartFailed as error:
            return self._result(start_ns, error.exit_code, error.message)
        except CortenError as error:
            return self._result(start_ns, -1, error.message)
        except OSError as error:
            return self._result(start_ns, -1, f"the health check could not be made: {error.strerror}")

    async def _follow(
        self, name: str, session: Exec, output: socket.socket, start_ns: int, timeout_ns: int
    ) -> HealthResult:
        said = _Output()
        reading = self._tasks.start(f"probe of {name}", said.read(output))
        ended = self._execs.ended(session)
        done = self._tasks.start(f"end of probe of {name}", _both(reading, ended))
        try:
            if not await within(self._tasks, self._deps.clock, done, timeout_ns / 1e9):
                await self._execs.kill(session, signal.SIGKILL)
                text = f"Health check exceeded timeout ({format_duration(timeout_ns)})"
                return self._result(start_ns, -1, f"{text}: {said}" if str(said) else text)
            return self._result(start_ns, ended.result(), str(said))
        finally:
            done.cancel()
            reading.cancel()  # its socket is about to be closed

    def _result(self, start_ns: int, code: int, output: str) -> HealthResult:
        return HealthResult(start_ns=start_ns, end_ns=self._deps.clock.now_ns(), exit_code=code, output=output)

    async def close(self) -> None:
        await self._tasks.close("the daemon stops")


class _Output:
    """What a check has said so far, as Docker keeps it: its start, and dots where that is not all."""

    def __init__(self) -> None:
        self._start, self._cut = bytearray(), False

    async def read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(connection, 65536):
            room = MAX_OUTPUT - len(self._start)
            self._start += data[:room]
            self._cut = self._cut or len(data) > room

    def __str__(self) -> str:
        return self._start.decode(errors="replace") + ("..." if self._cut else "")


async def _both(reading: asyncio.Task[None], ended: asyncio.Future[int]) -> None:
    await asyncio.gather(reading, ended)
