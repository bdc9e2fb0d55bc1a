"""What the routes need of the engine, and no more.

Names ("ref") are what users type: a name, an id, or an unambiguous start of one. The values that go to and fro are
declared in `engine.models`, below both sides, as the services may not import the API.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from corten.engine.models import (
    AttachOptions,
    CommitOptions,
    Conduit,
    Container,
    Created,
    Event,
    Exec,
    ExtractOptions,
    Filters,
    Hijacked,
    Image,
    ImageDetails,
    ImageManifest,
    LogWindow,
    PathStat,
    ProgressMessage,
    RegistryAuth,
    Sizes,
    StatsSample,
    Top,
    Upgrade,
    Volume,
    WaitCondition,
    WaitResult,
)
from corten.specs.container import CreateRequest, ExecRequest, Resources, RestartPolicy

__all__ = [
    "ArchiveBackend",
    "AttachOptions",
    "Backends",
    "CheckBackend",
    "CommitBackend",
    "CommitOptions",
    "ContainerBackends",
    "ContainerConfiguration",
    "ContainerCreation",
    "ContainerInspection",
    "ContainerLifeCycle",
    "ContainerRemoval",
    "ContainerStreams",
    "Created",
    "EventBackend",
    "ExecBackend",
    "FileBackend",
    "Filters",
    "Hijacked",
    "ImageBackend",
    "ImageDetails",
    "ImageManifest",
    "LogWindow",
    "NetworkBackend",
    "ProgressMessage",
    "RegistryAuth",
    "Sizes",
    "SystemBackend",
    "Top",
    "Upgrade",
    "VolumeBackend",
    "WaitCondition",
    "WaitResult",
]

# Named here because `list` is a method of the classes below.
Strings = list[str]
ImageChanges = list[dict[str, str]]


class ContainerCreation(Protocol):
    async def create(self, name: str, request: CreateRequest, platform: str = "") -> Created: ...


class ContainerLifeCycle(Protocol):
    async def start(self, ref: str) -> None:
        """NotModified when it runs already."""

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def kill(self, ref: str, signal: str = "KILL") -> None: ...

    async def pause(self, ref: str) -> None: ...

    async def unpause(self, ref: str) -> None: ...

    async def wait(self, ref: str, condition: WaitCondition) -> Awaitable[WaitResult]:
        """Subscribes before it returns; the awaitable gives the result.

        So the route can send its headers in between.
        """


class ContainerRemoval(Protocol):
    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None: ...

    async def prune(self, filters: Filters) -> tuple[Strings, int]:
        """Ids of what was removed, and the bytes that it took."""


class ContainerInspection(Protocol):
    def get(self, ref: str) -> Container: ...

    def list(self) -> Sequence[Container]:
        """All, newest first. Takes no lock."""

    def link_names(self) -> Mapping[str, Sequence[str]]:
        """By id of a container, what others that link to it call it: "/web/db"."""

    async def top(self, ref: str, ps_args: str) -> Top: ...

    async def stats(self, ref: str) -> dict[str, Any]:
        """One sample in the API's shape, without the `precpu_stats` of the sample before."""

    def follow(self, ref: str) -> AsyncGenerator[StatsSample, None]:
        """Samples of now and of each second from now on, the first without one before it, until the container goes.
        However many follow one container, it is sampled once, and all get the same object. Raises NotFound at once.
        """

    async def sizes(self, ref: str) -> Sizes: ...


class ContainerStreams(Protocol):
    async def attach(self, ref: str, options: AttachOptions, upgrade: Upgrade) -> None:
        """Returns when the stream was handed over."""

    async def resize(self, ref: str, height: int, width: int) -> None: ...

    def logs(self, ref: str, window: LogWindow) -> AsyncIterator[bytes]:
        """Ready to send: framed as Docker's multiplexed stream without a terminal, raw with one.

        Raises before the first item.
        """


class ContainerConfiguration(Protocol):
    async def rename(self, ref: str, name: str) -> None: ...

    async def update(
        self, ref: str, resources: Resources, restart_policy: RestartPolicy | None, on_failure: str = ""
    ) -> Strings:
        """Warnings."""


class ExecBackend(Protocol):
    async def exec_create(self, ref: str, request: ExecRequest) -> str: ...

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None, upgrade: Upgrade
    ) -> None: ...

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None: ...

    async def exec_kill(self, exec_id: str, signal: str) -> None: ...

    def exec_list(self, ref: str) -> Sequence[Exec]: ...

    def exec_get(self, exec_id: str) -> Exec: ...


class ImageBackend(Protocol):
    def list(self) -> Sequence[Image]: ...

    def get(self, ref: str) -> Image: ...

    async def details(self, ref: str, platform: str = "") -> ImageDetails:
        """Of the image that serves `platform` ("os/arch/variant") best, among those that `ref` names."""

    async def manifests(self, ref: str) -> Sequence[ImageManifest]:
        """What the image's names point to, manifest by manifest, what is not here included."""

    def pull(
        self, ref: str, platform: str, auth: RegistryAuth | None, *, all_tags: bool = False
    ) -> AsyncIterator[ProgressMessage]:
        """With `all_tags`, a `ref` without tag and digest means every tag of its repository, not `latest`.

        Errors before the first message are raised; later ones are raised too, and the route writes them as the
        stream's last line.
        """

    def push(self, ref: str, auth: RegistryAuth | None, platform: str = "") -> AsyncIterator[ProgressMessage]:
        """A `ref` without a tag means all tags of its repository; `platform` chooses from an index."""

    async def tag(self, ref: str, target: str) -> None: ...

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[str] = ()) -> ImageChanges:
        """What went: {"Untagged": name} and {"Deleted": digest}, in Docker's order. With `platforms` the images of
        these alone go, of all that `ref` names.
        """

    async def prune(self, filters: Filters) -> tuple[ImageChanges, int]: ...


class ArchiveBackend(Protocol):
    def load(
        self, archive: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[str] = ()
    ) -> AsyncIterator[ProgressMessage]: ...

    def save(self, refs: Sequence[str], platforms: Sequence[str] = ()) -> AsyncIterator[bytes]: ...

    def import_rootfs(
        self, source: AsyncIterator[bytes] | str, ref: str, *, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[ProgressMessage]:
        """`source` is the archive, or the URL to fetch it from."""


class CommitBackend(Protocol):
    async def commit(self, ref: str, options: CommitOptions) -> str:
        """An image of what container `ref` is now; its id."""


class FileBackend(Protocol):
    """Files of containers. `begin` sends the head of the answer, or says that the body may come, and gives the
    client's connection away; it is not called when the request is refused.
    """

    async def stat(self, ref: str, path: str) -> PathStat:
        """Raises NotFound for a path that is not there."""

    async def read(self, ref: str, path: str, begin: Callable[[PathStat | None], Awaitable[Conduit]]) -> None:
        """A tar of what is at `path`, its name in front."""

    async def write(
        self, ref: str, path: str, options: ExtractOptions, begin: Callable[[], Awaitable[Conduit]]
    ) -> None:
        """Unpack a tar into the directory `path`. Raises NotFound, Forbidden where that is read-only."""

    async def export(self, ref: str, begin: Callable[[PathStat | None], Awaitable[Conduit]]) -> None:
        """A tar of the root without what is mounted in it."""

    async def changes(self, ref: str) -> Sequence[tuple[int, str]]:
        """(kind, path) of what differs from the image: kind 0 changed, 1 added, 2 deleted."""


class NetworkBackend(Protocol):
    def list(self) -> Sequence[dict[str, Any]]:
        """In the API's shape of Network, containers included."""

    def get(self, ref: str) -> dict[str, Any]: ...


class VolumeBackend(Protocol):
    def list(self) -> Sequence[Volume]: ...

    def get(self, name: str) -> Volume: ...

    async def create(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> Volume: ...

    async def remove(self, name: str, *, force: bool) -> None: ...

    async def prune(self, filters: Filters) -> tuple[Strings, int]: ...


class EventBackend(Protocol):
    def subscribe(self, since_ns: int, until_ns: int | None) -> AsyncIterator[Event]:
        """Kept events since `since_ns` (0: none), then live ones until `until_ns` (None: for ever).

        Subscribed when the first item is asked for.
        """


class SystemBackend(Protocol):
    async def info(self) -> dict[str, Any]:
        """The body of GET /info."""

    async def version(self) -> dict[str, Any]: ...

    async def disk_usage(self) -> dict[str, Any]: ...


class RegistryBackend(Protocol):
    async def login(self, auth: RegistryAuth) -> str:
        """The identity token to be kept instead of the password, "" for none. Raises Unauthorized."""

    async def distribution(self, ref: str, auth: RegistryAuth | None) -> dict[str, Any]:
        """What `ref` stands for at its registry: `Descriptor` and `Platforms`."""

    async def search(self, term: str, limit: int, auth: RegistryAuth | None) -> Sequence[dict[str, Any]]:
        """Repositories that an index finds for `term`; `limit` 0 for as many as it likes."""


class CheckBackend(Protocol):
    def check(self, *, repair: bool, auths: Mapping[str, RegistryAuth]) -> AsyncIterator[ProgressMessage]:
        """Progress, `{"aux": {"Finding": …}}` for what is damaged, and `{"aux": {"Summary": …}}` at last. `auths` are
        credentials by registry host. Raises Conflict while another check runs.
        """


@dataclass(frozen=True, slots=True)
class ContainerBackends:
    creation: ContainerCreation
    life_cycle: ContainerLifeCycle
    removal: ContainerRemoval
    inspection: ContainerInspection
    streams: ContainerStreams
    configuration: ContainerConfiguration


@dataclass(frozen=True, slots=True)
class Backends:
    containers: ContainerBackends
    execs: ExecBackend
    images: ImageBackend
    archives: ArchiveBackend
    networks: NetworkBackend
    volumes: VolumeBackend
    events: EventBackend
    system: SystemBackend
    registries: RegistryBackend
    commits: CommitBackend
    files: FileBackend
    checks: CheckBackend
