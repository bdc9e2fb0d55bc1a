"""What the routes need of the engine, and no more.

Names ("ref") are what users type: a name, an id, or an unambiguous start of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from corten.engine.models import Container, Event, Exec, Image, Volume
from corten.specs.container import CreateRequest, ExecRequest, Resources, RestartPolicy

Filters = dict[str, list[str]]
WaitCondition = Literal["not-running", "next-exit", "removed"]


@dataclass(frozen=True, slots=True)
class Hijacked:
    """A client's connection after the 101/200 answer: `fd` is a connected stream socket that now belongs to the
    receiver, `prefix` bytes already read.
    """

    fd: int
    prefix: bytes = b""


Upgrade = Callable[[], Awaitable[Hijacked]]
"""Sends the answer and gives the connection away.

Not called when the request is refused, so that errors stay ordinary HTTP answers.
"""


@dataclass(frozen=True, slots=True)
class Created:
    id: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WaitResult:
    status_code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class AttachOptions:
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = False
    detach_keys: str = ""  # Docker's notation, "ctrl-p,ctrl-q"; "" for the default, which is that


@dataclass(frozen=True, slots=True)
class LogWindow:
    """`tail` None for all; `since_ns`, `until_ns` 0 for no bound."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True)
class Top:
    titles: list[str]
    processes: list[list[str]]


@dataclass(frozen=True, slots=True)
class Sizes:
    rw: int
    root_fs: int


class ContainerBackend(Protocol):
    def get(self, ref: str) -> Container: ...

    def list(self) -> Sequence[Container]:
        """All, newest first. Takes no lock."""

    async def create(self, name: str, request: CreateRequest, platform: str = "") -> Created: ...

    async def start(self, ref: str) -> None:
        """NotModified when it runs already."""

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def kill(self, ref: str, signal: str = "KILL") -> None: ...

    async def pause(self, ref: str) -> None: ...

    async def unpause(self, ref: str) -> None: ...

    async def rename(self, ref: str, name: str) -> None: ...

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None: ...

    async def wait(self, ref: str, condition: WaitCondition) -> Awaitable[WaitResult]:
        """Subscribes before it returns; the awaitable gives the result.

        So the route can send its headers in between.
        """

    async def attach(self, ref: str, options: AttachOptions, upgrade: Upgrade) -> None:
        """Returns when the stream was handed over."""

    async def resize(self, ref: str, height: int, width: int) -> None: ...

    def logs(self, ref: str, window: LogWindow) -> AsyncIterator[bytes]:
        """Ready to send: framed as Docker's multiplexed stream without a terminal, raw with one.

        Raises before the first item.
        """

    async def top(self, ref: str, ps_args: str) -> Top: ...

    async def stats(self, ref: str) -> dict[str, Any]:
        """One sample in the API's shape, without the `precpu_stats` of the sample before."""

    async def sizes(self, ref: str) -> Sizes: ...

    async def update(self, ref: str, resources: Resources, restart_policy: RestartPolicy | None) -> list[str]: ...

    async def prune(self, filters: Filters) -> tuple[list[str], int]: ...


class ExecBackend(Protocol):
    async def exec_create(self, ref: str, request: ExecRequest) -> str: ...

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None, upgrade: Upgrade
    ) -> None: ...

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None: ...

    def exec_get(self, exec_id: str) -> Exec: ...


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """An image with its config (the OCI image config, decoded JSON) and history, for inspect and history."""

    image: Image
    config: dict[str, Any]
    layer_sizes: list[int]


ProgressMessage = dict[str, Any]
"""One line of the JSON progress stream: status, id, progressDetail {current, total}, or error/errorDetail, or aux,
or stream.
"""


class ImageBackend(Protocol):
    def list(self) -> Sequence[Image]: ...

    def get(self, ref: str) -> Image: ...

    async def details(self, ref: str) -> ImageDetails: ...

    def pull(self, ref: str, platform: str, auth: RegistryAuth | None) -> AsyncIterator[ProgressMessage]:
        """Errors before the first message are raised; later ones are raised too, and the route writes them as the
        stream's last line.
        """

    def push(self, ref: str, auth: RegistryAuth | None) -> AsyncIterator[ProgressMessage]: ...

    def load(
        self, archive: AsyncIterator[bytes], *, quiet: bool, platform: str = ""
    ) -> AsyncIterator[ProgressMessage]: ...

    def save(self, refs: Sequence[str], platform: str = "") -> AsyncIterator[bytes]: ...

    def import_rootfs(
        self, archive: AsyncIterator[bytes], ref: str, *, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[ProgressMessage]: ...

    async def tag(self, ref: str, target: str) -> None: ...

    async def remove(self, ref: str, *, force: bool, prune: bool) -> list[dict[str, str]]:
        """What went: {"Untagged": name} and {"Deleted": digest}, in Docker's order."""

    async def prune(self, filters: Filters) -> tuple[list[dict[str, str]], int]: ...


class NetworkBackend(Protocol):
    def list(self) -> Sequence[dict[str, Any]]:
        """In the API's shape of Network, containers included."""

    def get(self, ref: str) -> dict[str, Any]: ...


class VolumeBackend(Protocol):
    def list(self) -> Sequence[Volume]: ...

    def get(self, name: str) -> Volume: ...

    async def create(self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> Volume: ...

    async def remove(self, name: str, *, force: bool) -> None: ...

    async def prune(self, filters: Filters) -> tuple[list[str], int]: ...


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


@dataclass(frozen=True, slots=True)
class Backends:
    containers: ContainerBackend
    execs: ExecBackend
    images: ImageBackend
    networks: NetworkBackend
    volumes: VolumeBackend
    events: EventBackend
    system: SystemBackend
