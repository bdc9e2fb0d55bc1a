"""Containers without processes: records, and a program that echoes in capitals to whoever attaches.

`MemoryContainers` holds them and is what tests look into and meddle with; the rest are the faces that the API sees.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import Any

from corten.api.docker.backends import ContainerBackends
from corten.clock import Clock
from corten.engine.containers.sampler import Sampler
from corten.engine.models import (
    AttachOptions,
    Container,
    Created,
    Event,
    Filters,
    Hijacked,
    LogWindow,
    Sizes,
    StatsSample,
    Status,
    Top,
    Upgrade,
    WaitCondition,
    WaitResult,
)
from corten.errors import Conflict, InvalidArgument, NotFound, NotModified
from corten.specs.container import CreateRequest, EndpointSettings, HealthConfig, Resources, RestartPolicy
from corten.tasks import TaskOwner
from corten.testing.engine_stores import MemoryImages

Strings = list[str]


def frame(stream: int, data: bytes) -> bytes:
    """`data` as one message of Docker's multiplexed stream."""
    return struct.pack(">BxxxL", stream, len(data)) + data


async def echo(connection: Hijacked, *, tty: bool, greeting: bytes = b"", reads: bool = True) -> None:
    """Say `greeting`, read until the client has closed its side, answer in capitals, close."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=connection.fd) as sock:
        sock.setblocking(False)
        if greeting:
            await loop.sock_sendall(sock, greeting if tty else frame(1, greeting))
        heard = bytearray(connection.prefix)
        while reads and (data := await loop.sock_recv(sock, 65536)):
            heard += data
        for part in _pieces(bytes(heard).upper()):
            await loop.sock_sendall(sock, part if tty else frame(1, part))


def _pieces(data: bytes, size: int = 32768) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


class MemoryEvents:
    """Keeps every event; subscribers see what was kept and what comes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._kept: list[Event] = []
        self._subscribers: set[asyncio.Queue[Event]] = set()

    def emit(self, kind: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        time_ns = self.clock.now_ns()
        event = Event(type=kind, action=action, actor_id=actor_id, attributes=attributes, time_ns=time_ns)
        self._kept.append(event)
        for queue in self._subscribers:
            queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        return len(self._subscribers)

    async def subscribe(self, since_ns: int, until_ns: int | None) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            for event in [event for event in self._kept if since_ns and event.time_ns >= since_ns]:
                if until_ns is None or event.time_ns <= until_ns:
                    yield event
            while until_ns is None or self.clock.now_ns() < until_ns:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)


class MemoryContainers:
    """The records, by id. `log_lines` are what a container said, `terminal_sizes` are heights and widths."""

    def __init__(self, events: MemoryEvents, clock: Clock) -> None:
        self._events, self.clock = events, clock
        self._all: dict[str, Container] = {}
        self._ended: dict[str, list[tuple[WaitCondition, asyncio.Future[WaitResult]]]] = {}
        self.terminal_sizes: dict[str, tuple[int, int]] = {}
        self.log_lines: dict[str, Strings] = {}

    def get(self, ref: str) -> Container:
        for container in self._all.values():
            if ref.removeprefix("/") in (container.id, container.name):
                return container
        starts = [container for container in self._all.values() if container.id.startswith(ref)]
        if len(starts) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {ref}")
        if not starts:
            raise NotFound("container", ref)
        return starts[0]

    def newest_first(self) -> list[Container]:
        return sorted(self._all.values(), key=lambda container: container.created_ns, reverse=True)

    def add(self, container: Container) -> None:
        self._all[container.id] = container
        self.emit("create", container)

    def emit(self, action: str, container: Container) -> None:
        attributes = {"name": container.name, "image": container.image_name, **(container.config.labels or {})}
        self._events.emit("container", action, container.id, attributes)

    def exit(self, ref: str, code: int) -> None:
        """The container's program ends by itself."""
        container = self.get(ref)
        container.state.status, container.state.exit_code, container.state.pid = Status.EXITED, code, 0
        container.state.finished_ns = self.clock.now_ns()
        container.ports = {}
        self.emit("die", container)
        self._wake(container, ("not-running", "next-exit"))
        if container.host_config.auto_remove:
            self.forget(container)

    def _wake(self, container: Container, conditions: tuple[WaitCondition, ...]) -> None:
        waiting = self._ended.get(container.id, [])
        self._ended[container.id] = [entry for entry in waiting if entry[0] not in conditions]
        for condition, future in waiting:
            if condition in conditions and not future.done():
                future.set_result(WaitResult(container.state.exit_code))

    def forget(self, container: Container) -> None:
        del self._all[container.id]
        self.emit("destroy", container)
        self._wake(container, ("removed",))

    def subscribe(self, container: Container, condition: WaitCondition) -> asyncio.Future[WaitResult]:
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not container.state.running:
            future.set_result(WaitResult(container.state.exit_code))
        else:
            self._ended.setdefault(container.id, []).append((condition, future))
        return future

    def waiting(self, ref: str) -> int:
        """How many clients wait, gone ones left out."""
        return sum(not future.done() for _, future in self._ended.get(self.get(ref).id, []))


class MemoryCreation:
    def __init__(self, containers: MemoryContainers, images: MemoryImages) -> None:
        self._containers, self._images = containers, images

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> Created:
        image = self._images.get(request.image)
        others = self._containers.newest_first()
        name = name or f"container{len(others)}"
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if taken := next((c for c in others if c.name == name), None):
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{taken.id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        command = [request.cmd] if isinstance(request.cmd, str) else request.cmd or ["/bin/sh"]
        container = Container(
            id=hashlib.sha256(f"{name}{len(others)}".encode()).hexdigest(),
            name=name,
            created_ns=self._containers.clock.now_ns(),
            image_id=image.id,
            image_name=request.image,
            chain_id=image.chain_ids[-1] if image.chain_ids else "",
            path=command[0],
            args=command[1:],
            config=request,
            host_config=request.host_config,
            networks={"bridge": EndpointSettings(network_id="b" * 64)},
        )
        self._containers.add(container)
        return Created(container.id)


class MemoryLifeCycle:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers

    async def start(self, ref: str) -> None:
        container = self._containers.get(ref)
        if container.state.status is Status.RUNNING:
            raise NotModified("container is running")
        container.state.status, container.state.pid = Status.RUNNING, 4242
        container.state.started_ns, container.state.finished_ns = self._containers.clock.now_ns(), 0
        settings = container.networks["bridge"]
        settings.ip_address, settings.ip_prefix_len, settings.gateway = "172.17.0.2", 16, "172.17.0.1"
        bindings = container.host_config.port_bindings or {}
        container.ports = {port: bindings.get(port) for port in container.config.exposed_ports or ()}
        self._containers.emit("start", container)

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        if not self._containers.get(ref).state.running:
            raise NotModified("container is stopped")
        self._containers.exit(ref, 143)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        if self._containers.get(ref).state.running:
            self._containers.exit(ref, 143)
        await self.start(ref)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        container = self._containers.get(ref)
        if not container.state.running:
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        self._containers.exit(ref, 137)

    async def pause(self, ref: str) -> None:
        self._move(ref, Status.RUNNING, Status.PAUSED)

    async def unpause(self, ref: str) -> None:
        self._move(ref, Status.PAUSED, Status.RUNNING)

    def _move(self, ref: str, source: Status, target: Status) -> None:
        container = self._containers.get(ref)
        if container.state.status is not source:
            raise Conflict(f"Container {container.id} is not {source.value}")
        container.state.status = target

    async def wait(self, ref: str, condition: WaitCondition) -> Awaitable[WaitResult]:
        return self._containers.subscribe(self._containers.get(ref), condition)


class MemoryRemoval:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        container = self._containers.get(ref)
        if container.state.running:
            if not force:
                raise Conflict(
                    f"cannot remove container {container.name!r}: container is running: "
                    "stop the container before removing or force remove"
                )
            self._containers.exit(ref, 137)
        self._containers.forget(container)

    async def prune(self, filters: Filters) -> tuple[Strings, int]:
        gone = [container for container in self._containers.newest_first() if not container.state.running]
        for container in gone:
            self._containers.forget(container)
        return [container.id for container in gone], 10 * len(gone)


class MemoryInspection:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers
        self._sampler = Sampler(self.stats, containers.clock)

    def get(self, ref: str) -> Container:
        return self._containers.get(ref)

    def link_names(self) -> Mapping[str, Sequence[str]]:
        out: dict[str, list[str]] = {}
        for container in self._containers.newest_first():
            for link in container.links:
                out.setdefault(link.target, []).append(f"/{container.name}/{link.alias}")
        return out

    def list(self) -> Sequence[Container]:
        return self._containers.newest_first()

    async def top(self, ref: str, ps_args: str) -> Top:
        if not self._containers.get(ref).state.running:
            raise Conflict(f"container {ref} is not running")
        return Top(["PID", "CMD"], [["1", "sh"]])

    async def stats(self, ref: str) -> dict[str, Any]:
        container = self._containers.get(ref)
        now = self._containers.clock.now_ns()
        return {
            "id": container.id,
            "name": "/" + container.name,
            "read": f"2024-01-01T00:00:{now // 10**9 % 60:02d}Z",
            "cpu_stats": {"cpu_usage": {"total_usage": now}, "online_cpus": 2},
            "memory_stats": {"usage": 1024, "limit": 4096},
        }

    def follow(self, ref: str) -> AsyncGenerator[StatsSample, None]:
        return self._sampler.follow(self.get(ref).id)

    async def sizes(self, ref: str) -> Sizes:
        self._containers.get(ref)
        return Sizes(rw=10, root_fs=1010)


class MemoryStreams:
    def __init__(self, containers: MemoryContainers, tasks: TaskOwner) -> None:
        self._containers, self._tasks = containers, tasks

    async def attach(self, ref: str, options: AttachOptions, upgrade: Upgrade) -> None:
        container = self._containers.get(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        self._tasks.start("attach", echo(await upgrade(), tty=container.config.tty))

    async def resize(self, ref: str, height: int, width: int) -> None:
        self._containers.terminal_sizes[self._containers.get(ref).id] = height, width

    async def logs(self, ref: str, window: LogWindow) -> AsyncIterator[bytes]:
        container = self._containers.get(ref)
        lines = self._containers.log_lines.get(container.id, [])
        for line in lines if window.tail is None else lines[len(lines) - window.tail :]:
            yield line.encode() if container.config.tty else frame(1, line.encode())
        if window.follow and container.state.running:
            await self._containers.subscribe(container, "not-running")


class MemoryConfiguration:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers

    async def rename(self, ref: str, name: str) -> None:
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        self._containers.get(ref).name = name

    async def update(
        self, ref: str, resources: Resources, restart_policy: RestartPolicy | None, on_failure: str = ""
    ) -> Strings:
        container = self._containers.get(ref)
        if on_failure:
            container.config.healthcheck = HealthConfig(on_failure=on_failure)
        container.host_config.memory = resources.memory
        if restart_policy is not None:
            container.host_config.restart_policy = restart_policy
        return []


def faces(containers: MemoryContainers, images: MemoryImages, tasks: TaskOwner) -> ContainerBackends:
    return ContainerBackends(
        creation=MemoryCreation(containers, images),
        life_cycle=MemoryLifeCycle(containers),
        removal=MemoryRemoval(containers),
        inspection=MemoryInspection(containers),
        streams=MemoryStreams(containers, tasks),
        configuration=MemoryConfiguration(containers),
    )
