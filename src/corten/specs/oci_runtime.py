"""`config.json` of the OCI runtime specification, version 1.3: the Linux part, as structures.

An attribute is the schema's key in snake case (`oci_key` gives the key back). What has its default is left out when
encoding; unknown keys are passed over when decoding, as the specification demands. None of a numeric limit means "not
said"; the kernel's own value stays.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from corten.errors import InvalidArgument, clip

VERSION = "1.3.0"

_T = TypeVar("_T")

# Words whose spelling in the schema is not simply capitalised.
_KEYS = {
    "block_io": "blockIO",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
    "disable_oom_killer": "disableOOMKiller",
    "kernel_tcp": "kernelTCP",
    "class_id": "classID",
    "clos_id": "closID",
    "container_id": "containerID",
    "host_id": "hostID",
    "exec_cpu_affinity": "execCPUAffinity",
}


def oci_key(name: str) -> str:
    """The schema's key of an attribute: `no_new_privileges` is `noNewPrivileges`, `block_io` is `blockIO`."""
    if (known := _KEYS.get(name)) is not None:
        return known
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class OciStruct(Struct, kw_only=True, omit_defaults=True, rename=oci_key):
    """Base of the structures of the OCI runtime specification."""


class IDMapping(OciStruct):
    container_id: int
    host_id: int
    size: int


class Root(OciStruct):
    path: str
    readonly: bool = False


class Mount(OciStruct):
    """One mount; `options` are mount(8)'s words, in order."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = field(default_factory=list)
    uid_mappings: list[IDMapping] = field(default_factory=list)
    gid_mappings: list[IDMapping] = field(default_factory=list)


class ConsoleSize(OciStruct):
    """In characters."""

    height: int
    width: int


class User(OciStruct):
    # A factory's value is never left out: several runtimes want uid and gid present even when zero.
    uid: int = field(default_factory=int)
    gid: int = field(default_factory=int)
    umask: int | None = None
    additional_gids: list[int] = field(default_factory=list)
    username: str = ""


class Capabilities(OciStruct):
    """Names as `CAP_CHOWN`; a set that is not given is empty."""

    bounding: list[str] | None = None
    effective: list[str] | None = None
    inheritable: list[str] | None = None
    permitted: list[str] | None = None
    ambient: list[str] | None = None


class Rlimit(OciStruct):
    """`type` as `RLIMIT_NOFILE`. 2**64-1 is infinity."""

    type: str
    hard: int
    soft: int


class IOPriority(OciStruct):
    class_: str = field(name="class")
    priority: int = 0


class Scheduler(OciStruct):
    """`policy` as `SCHED_OTHER`, `flags` as `SCHED_FLAG_RESET_ON_FORK`; times in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: list[str] = field(default_factory=list)
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class ExecCPUAffinity(OciStruct):
    initial: str = ""
    final: str = ""


class Process(OciStruct):
    """The program: `args[0]` is looked up in the PATH of `env`; `cwd` is absolute."""

    cwd: str
    args: list[str] = field(default_factory=list)
    command_line: str = ""
    env: list[str] = field(default_factory=list)
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = field(default_factory=User)
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = field(default_factory=list)
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    selinux_label: str = ""
    io_priority: IOPriority | None = None
    scheduler: Scheduler | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None


class Hook(OciStruct):
    """`timeout` in seconds."""

    path: str
    args: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    timeout: int | None = None


class Hooks(OciStruct):
    prestart: list[Hook] = field(default_factory=list)
    create_runtime: list[Hook] = field(default_factory=list)
    create_container: list[Hook] = field(default_factory=list)
    start_container: list[Hook] = field(default_factory=list)
    poststart: list[Hook] = field(default_factory=list)
    poststop: list[Hook] = field(default_factory=list)


class Namespace(OciStruct):
    """`type` is mount, pid, network, uts, ipc, user, cgroup or time; with a `path` the namespace there is joined."""

    type: str
    path: str = ""


class Device(OciStruct):
    """A device node to make: `type` c, u, b or p; `file_mode` permission bits."""

    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceCgroup(OciStruct):
    """A device rule: `type` a, c or b; None for major or minor is any; `access` letters of rwm, empty for all."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(OciStruct):
    """Bytes; -1 is without limit. `swap` is memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(OciStruct):
    """`quota`, `burst`, `period` and the real-time pair in microseconds; `shares` in the old 2..262144 scale."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(OciStruct):
    """-1 is without limit."""

    limit: int


class BlockIODeviceWeight(OciStruct):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class BlockIODeviceThrottle(OciStruct):
    """`rate` in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIO(OciStruct):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: list[BlockIODeviceWeight] = field(default_factory=list)
    throttle_read_bps_device: list[BlockIODeviceThrottle] = field(default_factory=list)
    throttle_write_bps_device: list[BlockIODeviceThrottle] = field(default_factory=list)
    throttle_read_iops_device: list[BlockIODeviceThrottle] = field(default_factory=list)
    throttle_write_iops_device: list[BlockIODeviceThrottle] = field(default_factory=list)


class HugepageLimit(OciStruct):
    page_size: str
    limit: int


class NetworkInterfacePriority(OciStruct):
    name: str
    priority: int


class Network(OciStruct):
    class_id: int | None = None
    priorities: list[NetworkInterfacePriority] = field(default_factory=list)


class Rdma(OciStruct):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(OciStruct):
    """Limits of the container's cgroup. `unified` are file names and values of cgroup v2, written as they are."""

    devices: list[DeviceCgroup] = field(default_factory=list)
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: list[HugepageLimit] = field(default_factory=list)
    network: Network | None = None
    rdma: dict[str, Rdma] = field(default_factory=dict)
    unified: dict[str, str] = field(default_factory=dict)


class SyscallArg(OciStruct):
    """`op` as `SCMP_CMP_EQ`. For `SCMP_CMP_MASKED_EQ` `value` is the mask and `value_two` what is left after it."""

    index: int
    value: int
    op: str
    value_two: int = 0


class Syscall(OciStruct):
    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SyscallArg] = field(default_factory=list)


class Seccomp(OciStruct):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[Syscall] = field(default_factory=list)


class IntelRdt(OciStruct):
    clos_id: str = ""
    schemata: list[str] = field(default_factory=list)
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False


class MemoryPolicy(OciStruct):
    mode: str = ""
    nodes: str = ""
    flags: list[str] = field(default_factory=list)


class Personality(OciStruct):
    """`domain` is LINUX or LINUX32."""

    domain: str = ""
    flags: list[str] = field(default_factory=list)


class TimeOffset(OciStruct):
    secs: int = 0
    nanosecs: int = 0


class NetDevice(OciStruct):
    name: str = ""


class Linux(OciStruct):
    namespaces: list[Namespace] = field(default_factory=list)
    uid_mappings: list[IDMapping] = field(default_factory=list)
    gid_mappings: list[IDMapping] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    net_devices: dict[str, NetDevice] = field(default_factory=dict)
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = field(default_factory=dict)
    masked_paths: list[str] = field(default_factory=list)
    readonly_paths: list[str] = field(default_factory=list)
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = field(default_factory=dict)


class Spec(OciStruct):
    """All of `config.json`; the parts for other platforms are taken as they come."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] = field(default_factory=list)
    hooks: Hooks | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    linux: Linux | None = None
    solaris: dict[str, Any] | None = None
    windows: dict[str, Any] | None = None
    vm: dict[str, Any] | None = None
    zos: dict[str, Any] | None = None
    freebsd: dict[str, Any] | None = None


_spec_decoder = msgspec.json.Decoder(Spec)
_process_decoder = msgspec.json.Decoder(Process)
_resources_decoder = msgspec.json.Decoder(Resources)
encode = msgspec.json.encode


def decode_spec(body: bytes) -> Spec:
    """`config.json` as a Spec. Raises InvalidArgument that names the member at fault."""
    return _decode(_spec_decoder, body)


def decode_process(body: bytes) -> Process:
    """`process.json` of `exec --process` as a Process. Raises InvalidArgument that names the member at fault."""
    return _decode(_process_decoder, body)


def decode_resources(body: bytes) -> Resources:
    """What `update` reads, as Resources. Raises InvalidArgument that names the member at fault."""
    return _decode(_resources_decoder, body)


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid runtime configuration: {clip(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid runtime configuration: not JSON: {clip(str(error))}") from None
