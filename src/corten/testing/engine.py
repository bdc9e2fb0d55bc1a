"""An engine without processes, disks or networks, for tests of what stands in front of one: the API, the clients.

Containers are records. One that is attached to or executed in is a program that reads its input to the end and then
writes it back in capitals, framed as Docker frames it where there is no terminal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from corten.api.docker.backends import Backends
from corten.clock import Clock, SystemClock
from corten.engine.models import (
    Exec,
    RegistryAuth,
    Upgrade,
)
from corten.errors import Conflict, NotFound, Unauthorized
from corten.specs.container import ExecRequest
from corten.tasks import TaskOwner
from corten.testing.engine_containers import MemoryContainers, MemoryEvents, echo, faces
from corten.testing.engine_files import MemoryFiles
from corten.testing.engine_stores import (
    MemoryArchives,
    MemoryChecks,
    MemoryCommits,
    MemoryImages,
    MemoryNetworks,
    MemorySystem,
    MemoryVolumes,
)

Strings = list[str]


class MemoryExecs:
    """Exec sessions in the containers of `MemoryContainers`."""

    def __init__(self, containers: MemoryContainers, tasks: TaskOwner) -> None:
        self._containers, self._tasks = containers, tasks
        self._all: dict[str, Exec] = {}

    async def exec_create(self, ref: str, request: ExecRequest) -> str:
        container = self._containers.get(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        exec_id = hashlib.sha256(f"{container.id}{len(self._all)}".encode()).hexdigest()
        self._all[exec_id] = Exec(
            id=exec_id,
            container_id=container.id,
            argv=[request.cmd] if isinstance(request.cmd, str) else request.cmd or [],
            tty=request.tty,
            open_stdin=request.attach_stdin,
            open_stdout=request.attach_stdout,
            open_stderr=request.attach_stderr,
            user=request.user,
        )
        return exec_id

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None, upgrade: Upgrade
    ) -> None:
        session = self.exec_get(exec_id)
        if session.exit_code is not None:
            raise Conflict(f"exec command {exec_id} has already run")
        session.exit_code = 0
        if not detach:
            greeting = " ".join(session.argv) + "\n"
            connection = await upgrade()
            work = echo(connection, tty=session.tty, greeting=greeting.encode(), reads=session.open_stdin)
            self._tasks.start("exec", work)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        self.exec_get(exec_id)

    async def exec_kill(self, exec_id: str, signal: str) -> None:
        if not self.exec_get(exec_id).running:
            raise Conflict(f"exec command {exec_id} is not running")

    def exec_list(self, ref: str) -> list[Exec]:
        container = self._containers.get(ref)
        return [session for session in self._all.values() if session.container_id == container.id]

    def exec_get(self, exec_id: str) -> Exec:
        if exec_id not in self._all:
            raise NotFound("exec instance", exec_id)
        return self._all[exec_id]


class MemoryRegistries:
    """Knows one user; of registry.example, which gives an identity token, and of every other registry."""

    async def login(self, auth: RegistryAuth) -> str:
        if (auth.username, auth.password) != ("me", "right"):
            raise Unauthorized("login attempt to https://registry.example/v2/ failed with status: 401 Unauthorized")
        return "identity-of-me" if auth.server_address == "registry.example" else ""

    async def distribution(self, ref: str, auth: RegistryAuth | None) -> dict[str, Any]:
        if ref != "busybox":
            raise NotFound("manifest", ref, f"manifest for {ref} not found: manifest unknown: manifest unknown")
        descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:00", "size": 1}
        return {"Descriptor": descriptor, "Platforms": [{"architecture": "amd64", "os": "linux"}]}

    async def search(self, term: str, limit: int, auth: RegistryAuth | None) -> Sequence[dict[str, Any]]:
        return [{"name": term, "description": "", "star_count": limit, "is_official": True, "is_automated": False}]


class MemoryEngine:
    """The whole, to be given to the API as `backends`. Made inside a running loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.tasks = TaskOwner("memory engine")
        self.events = MemoryEvents(clock)
        self.images = MemoryImages()
        self.archives = MemoryArchives(self.images)
        self.checks = MemoryChecks()
        self.volumes = MemoryVolumes(clock)
        self.networks = MemoryNetworks()
        self.containers = MemoryContainers(self.events, clock)
        self.execs = MemoryExecs(self.containers, self.tasks)
        self.commits = MemoryCommits(self.containers, self.images)
        self.files = MemoryFiles(self.containers)

    @property
    def backends(self) -> Backends:
        return Backends(
            containers=faces(self.containers, self.images, self.tasks),
            execs=self.execs,
            images=self.images,
            archives=self.archives,
            networks=self.networks,
            volumes=self.volumes,
            events=self.events,
            system=MemorySystem(),
            registries=MemoryRegistries(),
            commits=self.commits,
            files=self.files,
            checks=self.checks,
        )

    async def close(self) -> None:
        await self.tasks.close("the test is over")
