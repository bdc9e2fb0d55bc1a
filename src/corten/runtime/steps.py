"""The steps of a plan: what is done between fork and execve, as data that can be printed, compared and tested.

Each class here has a handler of the same name in `runtime.child`, called with the fields in their order. Values are
plain (numbers, strings, bytes, tuples), as they travel in `marshal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Attributes = tuple[int, int, int, int, tuple[tuple[int, bool], ...]]
Data = tuple[tuple[str, str | None], ...]
Hooks = tuple[str, tuple[tuple[str, tuple[str, ...], tuple[str, ...], float], ...], bytes, bytes]
"""Of one kind, as `runtime.child.hooks` takes them: kind, (path, args, env, seconds) of each, the state but its pid."""
Mappings = tuple[tuple[int, int, int], ...]
"""(id inside, id outside, count), as in /proc/PID/uid_map."""
Idmap = tuple[()] | tuple[bool, Mappings, Mappings]
"""For a mount whose files' owners are mapped: of the whole tree, uids and gids; none are those of the container's user
namespace. () for any other."""


@dataclass(frozen=True, slots=True)
class Step:
    """Base of all steps."""

    def to_wire(self) -> tuple[Any, ...]:
        return (type(self).__name__, *(getattr(self, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class SetPropagation(Step):
    """MS_ flags for all mounts of the new namespace."""

    flags: int


@dataclass(frozen=True, slots=True)
class HoldTree(Step):
    """Take the copy of `source` that a later BindMount attaches at `target`."""

    target: str
    source: str
    recursive: bool
    idmap: Idmap = ()


@dataclass(frozen=True, slots=True)
class HoldOverlay(Step):
    """Make the overlay that a later OverlayMount attaches."""

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: Data
    attributes: Attributes
    idmap: Idmap


@dataclass(frozen=True, slots=True)
class HoldFileSystem(Step):
    """Make the file system that a later FileSystemMount attaches, and that nobody inside has the right to make."""

    kind: str
    source: str
    target: str
    options: Data
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class HoldDevices(Step):
    """Make the nodes that later MakeDevice steps attach, whose fields these are."""

    devices: tuple[tuple[str, str, int, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class IsolateRootParent(Step):
    """Make the mount private that the root's directory lies on."""


@dataclass(frozen=True, slots=True)
class OverlayMount(Step):
    """`target` "" is the root itself. `lower` from top to bottom; `upper` "" makes it read-only."""

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: Data
    attributes: Attributes
    idmap: Idmap = ()


@dataclass(frozen=True, slots=True)
class BindMount(Step):
    """A mount of the host's `source` on `target` inside the root ("": the root itself)."""

    source: str
    target: str
    recursive: bool
    attributes: Attributes
    idmap: Idmap = ()


@dataclass(frozen=True, slots=True)
class FileSystemMount(Step):
    kind: str
    source: str
    target: str
    options: Data
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class CopyUpMount(Step):
    """A tmpfs that begins as a copy of the directory that it hides."""

    source: str
    target: str
    options: Data
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class LegacyMount(Step):
    """A file system with MS_ `flags` that only mount(2) knows."""

    kind: str
    source: str
    target: str
    flags: int
    options: Data
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Remount(Step):
    """Change what is mounted on `target`: the mount by its attributes, with `options` the file system too."""

    target: str
    options: Data
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class CgroupMount(Step):
    """`private` when the container has a cgroup namespace of its own."""

    target: str
    attributes: Attributes
    private: bool


@dataclass(frozen=True, slots=True)
class MakeDevice(Step):
    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class MakeSymlink(Step):
    """What exists at `path` stays, but for a ptmx."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class OpenConsole(Step):
    """Size in characters, zeros for unknown; `bind` puts the terminal on /dev/console."""

    height: int
    width: int
    bind: bool


@dataclass(frozen=True, slots=True)
class MaskPath(Step):
    path: str


@dataclass(frozen=True, slots=True)
class ReadonlyPath(Step):
    path: str


@dataclass(frozen=True, slots=True)
class ReadonlyMount(Step):
    """Of the mount that is on `path`, not of those below it."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadonlyRoot(Step):
    pass


@dataclass(frozen=True, slots=True)
class PivotRoot(Step):
    """`propagation` are MS_ flags for the new root, 0 to leave it."""

    propagation: int


@dataclass(frozen=True, slots=True)
class MoveRoot(Step):
    """In place of PivotRoot, where the host's root is a ramdisk that cannot be pivoted away."""

    propagation: int


@dataclass(frozen=True, slots=True)
class SetHostname(Step):
    name: str


@dataclass(frozen=True, slots=True)
class SetDomainname(Step):
    name: str


@dataclass(frozen=True, slots=True)
class RaiseLoopback(Step):
    pass


@dataclass(frozen=True, slots=True)
class MoveNetDevices(Step):
    """Links of the host's that become the container's: (name there, name here)."""

    devices: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SetSysctl(Step):
    """`key` as a path below /proc/sys."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class SetOomScore(Step):
    value: int


@dataclass(frozen=True, slots=True)
class NewKeyring(Step):
    """`name` "" for one without a name."""

    name: str


@dataclass(frozen=True, slots=True)
class SetScheduler(Step):
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


@dataclass(frozen=True, slots=True)
class SetIoPriority(Step):
    ioclass: int
    priority: int


@dataclass(frozen=True, slots=True)
class SetPersonality(Step):
    persona: int


@dataclass(frozen=True, slots=True)
class SetMemoryPolicy(Step):
    """MPOL_ mode with its flags; `nodes` as numbers."""

    mode: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetAffinity(Step):
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AwaitRuntimeHooks(Step):
    """The prestart and createRuntime hooks, which the parent runs."""


@dataclass(frozen=True, slots=True)
class RunCreateContainerHooks(Step):
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class KeepStartContainerHooks(Step):
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class ResolveUser(Step):
    """`user` and `groups` by name or number in the root's own files; "" takes the numbers."""

    user: str
    groups: tuple[str, ...]
    uid: int
    gid: int
    gids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EnterDirectory(Step):
    """`make` it where it is missing, as the first process does."""

    path: str
    make: bool


@dataclass(frozen=True, slots=True)
class SwitchUser(Step):
    """Capability sets are masks of 1 << number."""

    umask: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int


@dataclass(frozen=True, slots=True)
class FindCommand(Step):
    """`path` is the PATH that args[0] is looked up in."""

    args: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class SetRlimits(Step):
    """(RLIMIT_ number, soft, hard)."""

    limits: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class LetGo(Step):
    """Close all descriptors that are not the program's. `label_file` of /proc/self/attr ("": none) is opened before."""

    label_file: str


@dataclass(frozen=True, slots=True)
class RaiseRlimits(Step):
    """Raise the ceilings that a later SetRlimits wants higher, and nothing else."""

    limits: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Execute(Step):
    """`capabilities` are effective, permitted, inheritable and ambient; `label` is a file of /proc/self/attr and what
    goes into it; `program` is the seccomp filter, empty for none."""

    env: tuple[str, ...]
    capabilities: tuple[int, int, int, int]
    no_new_privileges: bool
    label: tuple[str, str]
    program: bytes
    filter_flags: int


@dataclass(frozen=True, slots=True)
class Rehearse(Step):
    """Stands in for Execute in the spawner's rehearsal; no container has it."""
