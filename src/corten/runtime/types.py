"""What the engine asks of a runtime, and what it is told.

The embedded runtime and its test fake implement `Runtime`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from corten.logs.types import LogFacts
from corten.specs.oci_runtime import Process, Spec


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One mount, as mount(8) would be told it: `options` are its comma-separated words.

    With the word `idmap` (or `ridmap`, for all mounts of the tree) a bind mount, or every layer of an overlay, upper
    and lower, is mapped by the container's own user namespace: what belongs to uid 0 on disk belongs to root in the
    container, and what root makes belongs to uid 0 on disk. Needs `linux.namespaces` with a user namespace.

    The daemon makes that namespace before, together with the network namespace that it owns: it comes with a `path`
    (/proc/PID/fd/N, good until the start is over), and with `linux.uidMappings` and `gidMappings` that say the same.
    """

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where the shim writes what the container says.

    `path` is the live file of what the driver keeps, or of the cache of one that keeps nothing. The options are among
    the `facts`.
    """

    driver: str
    path: Path | None = None
    facts: LogFacts = field(default_factory=LogFacts)


@dataclass(frozen=True, slots=True)
class Stream:
    """An attached client: a connected stream socket that the shim takes over, and what flows on it.

    `fd` is owned by whoever holds the Stream; passing it to a Runtime hands it over (the caller's copy is closed, on
    failure too). `prefix` are bytes of stdin that were read before the hand-over. Without a terminal output is framed
    as
    Docker's multiplexed stream; with one (or with `raw`) it is raw. `detach_keys` are raw bytes, empty for none. When
    the client
    closes its writing half stdin ends; the stream itself is closed by the shim when the process has ended and all
    output is delivered, or when the detach keys arrive.
    """

    fd: int
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    raw: bool = False
    detach_keys: bytes = b""
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class Stdio:
    """`open_stdin` False gives /dev/null. `stdin_once` closes stdin when the first attached client's stdin ends."""

    terminal: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    console_size: tuple[int, int] | None = None  # (height, width) in characters


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """All that starts one container.

    `run_dir` (below the exec root, tmpfs, exists already) receives `config.json`, `shim.sock` and the shim's pid;
    `exit_file` (below the data root) receives the exit status, durable before anyone is told. `rootfs` are mounted in
    the container's own mount namespace, in order, on an empty directory that becomes the root; nothing of it is visible
    on the host. `user` is "name|uid[:group|gid]" as Docker takes it and `groups` further groups by name or number: the
    child resolves them against the root's own /etc/passwd and /etc/group and sets HOME where the environment has none
    ("" leaves the spec's numbers). `init` puts Corten's own tiny init as pid 1. `runtime` is "" for the embedded one,
    else the path of an OCI runtime's program. With `systemd_cgroup` the specification's cgroupsPath is
    "slice:prefix:name", and systemd makes the group.
    """

    id: str
    spec: Spec
    run_dir: Path
    exit_file: Path
    rootfs: tuple[MountSpec, ...]
    stdio: Stdio = Stdio()
    log: LogSpec = LogSpec("none")
    init: bool = False
    user: str = ""
    groups: tuple[str, ...] = ()
    runtime: str = ""
    runtime_args: tuple[str, ...] = ()
    systemd_cgroup: bool = False


@dataclass(frozen=True, slots=True)
class Launched:
    pid: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. `code` is 128+signal for a killed one. `reason` is set when the shim itself was lost."""

    code: int
    finished_ns: int
    oom_killed: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExecRequest:
    container_id: str
    exec_id: str
    process: Process
    stdio: Stdio
    user: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `Runtime.recover` found: still running with `pid`, or ended with `exit` (never both None)."""

    pid: int = 0
    exit: ExitStatus | None = None
    paused: bool = False
    oom_killed: bool = False


ExitCallback = Callable[[str, ExitStatus], Awaitable[None]]
ExecExitCallback = Callable[[str, str, ExitStatus], Awaitable[None]]
OomCallback = Callable[[str], Awaitable[None]]
DetachCallback = Callable[[str, str], None]


@dataclass(slots=True)
class CgroupStats:
    """Counters of one container's cgroup, v1 or v2, in the units named. Absent ones stay zero (limit: None = none)."""

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    percpu_ns: list[int] = field(default_factory=list)
    throttled_periods: int = 0
    periods: int = 0
    throttled_ns: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    memory_limit: int | None = None
    memory_failcnt: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int | None = None
    blkio_service_bytes: list[tuple[int, int, str, int]] = field(default_factory=list)  # major, minor, op, bytes
    blkio_serviced: list[tuple[int, int, str, int]] = field(default_factory=list)


class RuntimeExecs(Protocol):
    """Further processes in running containers. A session is named by its container's id and its own."""

    def on_exit(self, callback: ExecExitCallback) -> None:
        """The exit of each session that was started or recovered is reported exactly once."""

    async def start(self, request: ExecRequest, streams: Sequence[Stream] = ()) -> int:
        """Start a further process in a running container; its pid on the host.

        Raises StartFailed (exit_code 126, 127 or 128).
        """

    async def signal(self, container_id: str, exec_id: str, signo: int) -> None: ...

    async def resize(self, container_id: str, exec_id: str, height: int, width: int) -> None: ...


class RuntimeStdio(Protocol):
    """What flows in and out of a container's first process, and who leaves it."""

    async def attach(self, container_id: str, stream: Stream) -> None: ...

    async def resize(self, container_id: str, height: int, width: int) -> None: ...

    def on_detach(self, callback: DetachCallback) -> None:
        """`callback` gets the ids of a container and of an exec session in it ("" for its first process) from which a
        client has detached by its keys, while the daemon is there. It does not wait.
        """


class RuntimeResources(Protocol):
    """A container's control group: what is in it, what it has used, what it may use."""

    def pids(self, container_id: str) -> list[int]:
        """Host pids of all processes in it."""

    async def stats(self, container_id: str) -> CgroupStats: ...

    async def update(self, container_id: str, spec: Spec) -> None:
        """Apply the spec's `linux.resources` to the running container."""


class Runtime(Protocol):
    """Runs containers. Every method may be called for different containers at once; none waits for another container.

    Ids are the container's. After `launch` returns the first process has been exec'ed. The exit of each container that
    was launched or recovered is reported exactly once through the callback given to `on_exit`, after its status is on
    disk and its output is in the log; exec sessions likewise through `execs.on_exit`. A shim that vanishes is reported
    as an exit with code 137 and a reason, after every process of the container's cgroup was killed.
    """

    @property
    def execs(self) -> RuntimeExecs: ...

    @property
    def stdio(self) -> RuntimeStdio: ...

    @property
    def resources(self) -> RuntimeResources: ...

    def on_exit(self, callback: ExitCallback) -> None: ...

    def on_oom(self, callback: OomCallback) -> None:
        """`callback` gets the id of a container in which the kernel has just killed for want of memory.

        Once for all kills that are found together, and before the exit of the container that they may bring. What
        happens while no daemon is there shows in `Recovered.oom_killed` or `ExitStatus.oom_killed`.
        """

    async def start(self) -> None:
        """Start the spawner. It is started again, within a second, whenever it dies."""

    async def close(self) -> None:
        """Let go of all shims (the containers go on) and end the spawner."""

    async def launch(
        self, request: LaunchRequest, streams: Sequence[Stream] = (), keep: Sequence[int] = ()
    ) -> Launched:
        """Start a container. The fds in `keep` are duplicated into the shim and held until its end is about to be told.

        Raises StartFailed with the step and errno; then nothing is left: no process, cgroup, mount or socket.
        """

    async def recover(self, container_id: str, run_dir: Path, exit_file: Path, cgroup: str) -> Recovered:
        """Find a container again after a daemon restart."""

    async def forget(self, container_id: str) -> None:
        """The engine has taken note of the exit: remove what the runtime keeps of it (sockets, cgroup)."""

    async def signal(self, container_id: str, signo: int) -> None:
        """Signal the first process. A container that has ended is no error."""

    async def pause(self, container_id: str) -> None: ...

    async def resume(self, container_id: str) -> None: ...
