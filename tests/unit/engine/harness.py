"""An engine over the shipped fakes: a runtime without processes, a network without a kernel, a clock that is moved."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corten.clock import ManualClock
from corten.engine.containers.assembly import assemble
from corten.engine.containers.catalog import Catalog
from corten.engine.deps import EngineDeps, EngineSettings
from corten.engine.events import EventBus
from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container, Event, Hijacked, Image, LogWindow, Status
from corten.engine.volumes import VolumeService
from corten.errors import Conflict, NotFound
from corten.network.types import NetworkSpec
from corten.specs.container import CreateRequest, HostConfig
from corten.specs.oci_image import ImageConfig, RunConfig
from corten.specs.oci_runtime import Seccomp
from corten.storage.types import MountPlan, SnapshotInfo, Usage
from corten.testing.network import FakeNetworkController
from corten.testing.runtime import FakeRuntime
from corten.testing.storage import MemoryDocuments

BRIDGE = NetworkSpec("b" * 64, "bridge", "bridge", 1, subnet="172.17.0.0/16", gateway="172.17.0.1", bridge="docker0")
NETWORKS = {
    "bridge": BRIDGE,
    "host": NetworkSpec("c" * 64, "host", "host", 1),
    "none": NetworkSpec("d" * 64, "none", "null", 1),
    "second": NetworkSpec("e" * 64, "second", "bridge", 1, subnet="172.18.0.0/16", gateway="172.18.0.1", bridge="br-2"),
}


@dataclass(frozen=True, slots=True)
class FakeImage:
    id: str
    name: str
    chain_id: str
    config: ImageConfig


class FakeImages:
    def __init__(self) -> None:
        self.known = {
            "busybox": FakeImage("sha256:" + "1" * 64, "busybox", "chain", ImageConfig(config=RunConfig(cmd=["sh"])))
        }

    def add(self, name: str, run: RunConfig) -> None:
        self.known[name] = FakeImage("sha256:" + "2" * 64, name, "chain", ImageConfig(config=run))

    async def resolve(self, ref: str, platform: str) -> FakeImage:
        if ref not in self.known:
            raise NotFound("image", ref)
        return self.known[ref]

    def list(self) -> Sequence[Image]:
        return []


class FakeNetworks:
    def find(self, ref: str) -> NetworkSpec:
        for spec in NETWORKS.values():
            if ref in (spec.name, spec.id):
                return spec
        raise NotFound("network", ref, f"network {ref} not found")


class MemorySnapshots:
    """The part of a Snapshotter that the engine uses."""

    name = "overlayfs"
    rebases = False

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.root = Path("/nowhere")
        self.fail = False

    def prepare(self, key: str, parent: str = "") -> Sequence[MountPlan]:
        if self.fail:
            raise OSError(28, "No space left on device")
        if key in self.active:
            raise Conflict(f"snapshot {key} exists")
        self.active.add(key)
        return self.mounts(key)

    def view(self, key: str, parent: str) -> Sequence[MountPlan]:
        self.active.add(key)
        return self.mounts(key)

    def mounts(self, key: str) -> Sequence[MountPlan]:
        if key not in self.active:
            raise NotFound("snapshot", key)
        return (MountPlan("overlay", "overlay", (f"upperdir=/{key}",)),)

    def commit(
        self, name: str, key: str, usage: Usage | None = None, *, parent: str = "", implied: Sequence[str] = ()
    ) -> None:
        raise NotImplementedError

    def layer_dir(self, key: str) -> Path:
        place = self.root / key
        place.mkdir(parents=True, exist_ok=True)
        return place

    def info(self, key: str) -> SnapshotInfo:
        return SnapshotInfo(key, "", "active" if key in self.active else "committed", Usage(7, 1))

    def usage(self, key: str) -> Usage:
        return Usage(7 if key in self.active else 100, 1)

    def remove(self, key: str) -> None:
        if key not in self.active:
            raise NotFound("snapshot", key)
        self.active.remove(key)

    def walk(self) -> Iterator[SnapshotInfo]:
        return iter([self.info(key) for key in self.active])


class FakeSeccomp:
    def load(self, profile: str, capabilities: Sequence[str]) -> Seccomp:
        return Seccomp(default_action=f"SCMP_ACT_{profile}")


class FakeLogs:
    async def read(self, container: Container, window: LogWindow, ended: asyncio.Future[Any]) -> AsyncIterator[bytes]:
        yield f"log of {container.name}\n".encode()


@dataclass
class Engine:
    """Everything, and short ways to use it. `restart` is a new daemon over what is on record."""

    root: Path
    clock: ManualClock = field(default_factory=ManualClock)
    records: MemoryDocuments = field(default_factory=MemoryDocuments)
    volume_records: MemoryDocuments = field(default_factory=MemoryDocuments)
    snapshots: MemorySnapshots = field(default_factory=MemorySnapshots)
    images: FakeImages = field(default_factory=FakeImages)
    facts: HostFacts = field(default_factory=lambda: HostFacts(cpu_count=2, cpus="0-1", memory=8 << 30, hostname="box"))

    def __post_init__(self) -> None:
        self.snapshots.root = self.root / "layers"
        self.runtime = FakeRuntime(self.clock)
        self.controller = FakeNetworkController(self.root / "exec")
        self.past: list[Event] = []
        self._build()

    def _build(self) -> None:
        self.events = EventBus(self.clock)
        self.catalog = Catalog(self.records)
        self.volumes = VolumeService(
            self.root / "volumes", self.volume_records, self.clock, self.catalog.volume_users, self.events
        )
        self.settings = EngineSettings(
            data_root=self.root / "data",
            exec_root=self.root / "exec",
            facts=self.facts,
            resolv_conf=self.root / "resolv.conf",
            hosts=self.root / "hosts",
        )
        self.deps = EngineDeps(
            clock=self.clock,
            events=self.events,
            runtime=self.runtime,
            controller=self.controller,
            networks=FakeNetworks(),
            images=self.images,
            volumes=self.volumes,
            snapshotter=self.snapshots,
            catalog=self.catalog,
            seccomp=FakeSeccomp(),
            logs=FakeLogs(),
        )
        self.containers = assemble(self.deps, self.settings)
        self.execs = self.containers.execs

    async def start(self) -> None:
        live = self.containers.recovery.load()
        await self.controller.start(list(NETWORKS.values()), live.endpoints, live.sandboxes)
        await self.containers.recovery.recover()
        await settle()

    async def restart(self, *, keep_runtime: bool = True) -> None:
        """The daemon is killed and started again."""
        await self.containers.close()
        self.runtime = FakeRuntime(self.clock, self.runtime.containers if keep_runtime else None)
        self.controller = FakeNetworkController(self.root / "exec")
        self._build()
        await self.start()

    async def create(self, name: str = "box", *, image: str = "busybox", **host: Any) -> str:
        request = CreateRequest(image=image, host_config=HostConfig(**host))
        return (await self.containers.creation.create(name, request)).id

    async def run(self, name: str = "box", **host: Any) -> str:
        id = await self.create(name, **host)
        await self.containers.life_cycle.start(id)
        return id

    def status(self, ref: str) -> Status:
        return self.containers.inspection.get(ref).state.status

    def told(self, type: str = "container") -> list[str]:
        """Actions that were published so far."""
        return [event.action for event in self.events._kept if event.type == type]


@contextlib.asynccontextmanager
async def engine(root: Path) -> AsyncIterator[Engine]:
    for folder in ("data", "exec", "volumes"):
        (root / folder).mkdir(parents=True)
    (root / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (root / "hosts").write_text("127.0.0.1 localhost\n")
    built = Engine(root)
    await built.start()
    try:
        yield built
    finally:
        await built.containers.close()


async def settle() -> None:
    """Let everything that is ready run, worker threads included."""
    for _ in range(50):
        await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)
    for _ in range(50):
        await asyncio.sleep(0)


@contextlib.contextmanager
def client() -> Iterator[tuple[socket.socket, Hijacked]]:
    """A client's end, and what an upgrade gives of it."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(5)
        yield ours, Hijacked(theirs.detach())
