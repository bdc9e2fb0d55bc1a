"""What the container services are made of: settings, and the parts below them as narrow Protocols."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from corten.clock import Clock
from corten.engine.containers.catalog import Catalog
from corten.engine.events import EventBus
from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container, Image, LogWindow, Volume
from corten.engine.remap import Remap
from corten.engine.spec import security
from corten.engine.spec.security import SecurityOptions
from corten.errors import InvalidArgument, clip
from corten.network.types import NetworkController, NetworkSpec
from corten.registry.proxies import ProxySettings
from corten.runtime.cgroups_units import DEFAULT_SLICE, expand_slice
from corten.runtime.plan import CGROUP_PARENT
from corten.runtime.types import Runtime
from corten.specs.container import HostConfig, Ulimit
from corten.specs.oci_image import ImageConfig
from corten.specs.oci_runtime import Seccomp
from corten.storage.types import Snapshotter

EMBEDDED = "corten"
"""The name of the embedded runtime."""

DEFAULT_CGROUP_PARENT = CGROUP_PARENT
SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """An OCI runtime's program and its global arguments; path "" for the embedded one."""

    path: str = ""
    args: tuple[str, ...] = ()


@dataclass(slots=True)
class EngineSettings:
    """`data_root` and `exec_root` exist; `containers/<id>` is made below both.

    `default_runtime`, `runtimes`, `labels`, `debug`, `storage_limit` and the registries are replaced when the daemon
    reloads; nothing else is.
    """

    data_root: Path
    exec_root: Path
    facts: HostFacts = field(default_factory=HostFacts)
    cgroup_driver: str = "cgroupfs"
    default_runtime: str = EMBEDDED
    runtimes: Mapping[str, RuntimeChoice] = field(default_factory=lambda: {EMBEDDED: RuntimeChoice()})
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    shm_size: int = 64 << 20
    init: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    default_ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    seccomp_profile: str = "builtin"
    seccomp_name: str = "builtin"
    """The profile as `docker info` shows it: "builtin", "unconfined", or the path of its file."""
    apparmor_profile: str = ""
    """Of containers that name none; "" where the host has none."""
    no_new_privileges: bool = False
    resolv_conf: Path = Path("/etc/resolv.conf")
    hosts: Path = Path("/etc/hosts")
    stop_timeout_s: int = 10
    labels: tuple[str, ...] = ()
    debug: bool = False
    warnings: tuple[str, ...] = ()
    """What `docker info` is to say about faults of the start."""
    remap: Remap | None = None
    storage_limit: int = 0
    """Bytes that all that is stored may take; 0 for no limit."""
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    proxies: ProxySettings = field(default_factory=ProxySettings)
    """Of registries, for `docker info`."""

    def security(self, host_config: HostConfig) -> SecurityOptions:
        """A container's options, with the daemon's own setting where it says nothing."""
        options = security.parse(host_config.security_opt, self.facts)
        if options.no_new_privileges is None:
            options = replace(options, no_new_privileges=self.no_new_privileges)
        return options

    def cgroup_of(self, container_id: str, parent: str) -> str:
        """Where a container's group is to be below `parent` ("" for the default), in the words of the runtime
        specification: a path, or systemd's "slice:prefix:name". Raises InvalidArgument for a parent that is no slice.
        """
        if self.cgroup_driver != SYSTEMD:
            if ".." in parent.split("/"):
                raise InvalidArgument(f"cgroup-parent must not lead upwards: {clip(parent)}")
            return f"/{(parent or DEFAULT_CGROUP_PARENT).strip('/')}/{container_id}"
        slice_name = parent or DEFAULT_SLICE
        try:
            expand_slice(slice_name)
        except InvalidArgument:
            raise InvalidArgument(
                'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
            ) from None
        return f"{slice_name}:corten:{container_id}"

    def run_dir(self, container_id: str) -> Path:
        return self.exec_root / "containers" / container_id

    def state_dir(self, container_id: str) -> Path:
        return self.data_root / "containers" / container_id


class ResolvedImage(Protocol):
    """An image of one platform, unpacked. `name` is what the user called it."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def chain_id(self) -> str: ...

    @property
    def config(self) -> ImageConfig: ...


class Images(Protocol):
    async def resolve(self, ref: str, platform: str) -> ResolvedImage:
        """Raises NotFound ("No such image: x")."""

    def list(self) -> Sequence[Image]: ...


class Networks(Protocol):
    def find(self, ref: str) -> NetworkSpec:
        """By name, id or the start of an id. Raises NotFound ("network x not found")."""


class Volumes(Protocol):
    async def create(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str], made_for: str = ""
    ) -> Volume:
        """The volume of this name, made when it is not there; an anonymous one for "", made for a container."""

    async def remove(self, name: str, *, force: bool) -> None: ...

    async def outlive(self, names: Sequence[str]) -> None:
        """These stay when the container that they were made for has gone."""

    async def acquire(self, names: Sequence[str], holder: str) -> None:
        """Mount what their options say, until `release`."""

    async def release(self, holder: str) -> None: ...

    async def settle(self) -> None:
        """Unmount what nobody holds, and remove what was made for containers that are not there."""

    def list(self) -> Sequence[Volume]: ...

    async def usage(self, name: str) -> int:
        """Bytes on disk."""

    def count(self, name: str) -> int:
        """The same, blocking; OSError for a volume that has gone."""


class SeccompProfiles(Protocol):
    """`profile` is "builtin" or the JSON of a profile in Docker's form; the answer fits these capabilities."""

    def load(self, profile: str, capabilities: Sequence[str]) -> Seccomp: ...


class Logs(Protocol):
    """Reads what a container said. `ended` is done when no more will be written."""

    def read(self, container: Container, window: LogWindow, ended: asyncio.Future[Any]) -> AsyncIterator[bytes]: ...


class CopyUp(Protocol):
    """Fills an empty volume with what the image has at its destination."""

    async def __call__(self, snapshot: str, path: str, volume: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineDeps:
    clock: Clock
    events: EventBus
    runtime: Runtime
    controller: NetworkController
    networks: Networks
    images: Images
    volumes: Volumes
    snapshotter: Snapshotter
    catalog: Catalog
    seccomp: SeccompProfiles
    logs: Logs
    copy_up: CopyUp | None = None
