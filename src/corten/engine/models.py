"""The engine's records, as they are stored and as the API reads them.

Times are nanoseconds since the epoch, 0 for never.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from msgspec import Struct, field

from corten.network.types import Endpoint
from corten.specs.container import ContainerConfig, EndpointSettings, HealthConfig, HostConfig, PortBinding

__all__ = ["HealthConfig"]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class StatsSample:
    """A container's counters in the API's shape, and those of the sample before. One object for all who get it."""

    value: dict[str, Any]
    before: dict[str, Any] | None


class Status(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class HealthResult(Struct, kw_only=True):
    start_ns: int
    end_ns: int
    exit_code: int
    output: str


class Health(Struct, kw_only=True):
    """`status` is none, starting, healthy or unhealthy; `log` the last five results."""

    status: str = "none"
    failing_streak: int = 0
    log: list[HealthResult] = field(default_factory=list)


class State(Struct, kw_only=True):
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    health: Health | None = None

    @property
    def running(self) -> bool:
        """As Docker counts it: a paused container and one between restarts are running."""
        return self.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


class MountPoint(Struct, kw_only=True):
    """A mount as resolved at create: `type` bind, volume, tmpfs or image; `name` the volume's, or the image's as the
    user called it; `source` the host path.

    `subpath` is what of a volume or image is mounted, "" for all of it; found when the container is started. `image_id`
    and `chain_id` are what an image's name stood for.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    anonymous: bool = False
    options: list[str] = field(default_factory=list)
    subpath: str = ""
    image_id: str = ""
    chain_id: str = ""


class Link(Struct, kw_only=True):
    """What one container calls another, `--link name:alias`: `target` is the id of the other one, `name` its name, the
    last that it had where it was removed since.
    """

    alias: str
    target: str
    name: str


def volume_names(points: Sequence[MountPoint]) -> list[str]:
    return [point.name for point in points if point.type == "volume"]


class Container(Struct, kw_only=True):
    """One container. Changed by the container service only; everyone else reads.

    `name` has no leading slash. `path` and `args` are the resolved command. `image_id` is the digest of the image's
    config, `image_name` what the user
    called it. `ports` maps "80/tcp" to its bindings while it runs; `networks` maps a network's name to the endpoint.
    `endpoints` are what the network controller made while it runs, `requested_macs` those that the user chose, by
    network. `exec_ids` are the live exec sessions. `remapped` is the `Remap.key` that it was last started with.
    `links` are in the order in which they were asked for; `HostConfig.links` is empty, as names change.
    `unhealthy_end` is "restart" or "kill" from when a failing health check ends it until its next start.
    """

    id: str
    name: str
    created_ns: int
    image_id: str
    image_name: str
    chain_id: str
    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    platform: str = "linux"
    driver: str = "overlayfs"
    mounts: list[MountPoint] = field(default_factory=list)
    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    endpoints: list[Endpoint] = field(default_factory=list)
    requested_macs: dict[str, str] = field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = field(default_factory=dict)
    state: State = field(default_factory=State)
    restart_count: int = 0
    stopped_by_user: bool = False
    log_path: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    sandbox_id: str = ""
    sandbox_key: str = ""
    app_armor_profile: str = ""
    cgroup: str = ""
    remapped: str = ""
    exec_ids: list[str] = field(default_factory=list)
    unhealthy_end: str = ""
    links: list[Link] = field(default_factory=list)


class Exec(Struct, kw_only=True):
    """One exec session. `exit_code` is None while it runs or has not begun; `linked` are the variables of links."""

    id: str
    container_id: str
    argv: list[str]
    tty: bool = False
    open_stdin: bool = False
    open_stdout: bool = False
    open_stderr: bool = False
    user: str = ""
    env: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    working_dir: str = ""
    privileged: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None
    pid: int = 0
    running: bool = False
    exit_code: int | None = None


class Event(Struct, kw_only=True):
    """`type` container, image, network, volume or daemon; `attributes` as Docker's, labels included."""

    type: str
    action: str
    actor_id: str
    attributes: dict[str, str]
    time_ns: int
    scope: str = "local"


class Volume(Struct, kw_only=True):
    """`made_for` is the container that an anonymous volume comes and goes with; "" once it is to outlive it."""

    name: str
    created_ns: int
    mountpoint: str
    driver: str = "local"
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    scope: str = "local"
    made_for: str = ""


class Image(Struct, kw_only=True):
    """One image of one platform in the store. `id` is the config's digest ("sha256:…"), `target` the digest of what
    its names point to
    (a manifest, or the index it was chosen from); `names` are normalised references with tags, `digests` name@digest
    forms. `head` is the image with names that a nameless one of the same index belongs to, "" for one that stands
    alone; `target_size` is the target document's, in bytes, 0 where it is missing.
    """

    id: str
    target: str
    target_media_type: str
    manifest: str
    size: int
    created_ns: int
    platform: str
    chain_ids: list[str]
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    parent_id: str = ""
    last_tagged_ns: int = 0
    head: str = ""
    target_size: int = 0


# What goes between the API and the services without being stored.

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
    warnings: list[str] = dataclasses.field(default_factory=list)


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


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    identity_token: str = dataclasses.field(default="", repr=False)
    registry_token: str = dataclasses.field(default="", repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """An image with its config (the OCI image config, decoded JSON) and history, for inspect and history."""

    image: Image
    config: dict[str, Any]
    layer_sizes: list[int]


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How to make an image of a container. `ref` "" leaves it without a name; `config` None takes the container's, and
    `changes` are Dockerfile instructions that change that. With `pause` a running container is held still meanwhile.
    """

    ref: str = ""
    author: str = ""
    comment: str = ""
    changes: Sequence[str] = ()
    config: ContainerConfig | None = None
    pause: bool = True


@dataclass(frozen=True, slots=True)
class PathStat:
    """A file in a container. `name` as it was asked for, `mode` as stat(2) has it, `link_target` where a link leads."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Conduit:
    """A client's socket for the body of a request or an answer: `fd` belongs to the receiver.

    `framing` is chunked, raw (to the end of the stream), or the body's length; `prefix` what was read of it already.
    """

    fd: int
    framing: str
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """With `keep_kinds` a directory is not replaced by a file, nor a file by a directory; with `own_by_user` all that
    comes in belongs to the user that the container runs as, where it names one.
    """

    keep_kinds: bool = False
    own_by_user: bool = False


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One manifest of what an image's names point to; sizes in bytes.

    `kind` is image, attestation or unknown; `platform` the words for it, "" where the index does not say. What is not
    here (`available` false) has no `image_id`. `content` is what its blobs take, `unpacked` its layers. An attestation
    `describes` the manifest of this digest.
    """

    digest: str
    media_type: str
    size: int
    platform: str = ""
    kind: str = "image"
    available: bool = False
    image_id: str = ""
    content: int = 0
    unpacked: int = 0
    describes: str = ""


ProgressMessage = dict[str, Any]
"""One line of the JSON progress stream: status, id, progressDetail {current, total}, or error/errorDetail, or aux,
or stream.
"""
