"""The OCI runtime specification of a container: everything that was decided elsewhere, put in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corten.engine.hostfacts import DEFAULT_SYSCTLS, HostFacts
from corten.engine.models import Container
from corten.engine.remap import Remap, oci
from corten.engine.spec import capabilities, devices, mounts, resources, security
from corten.runtime.cgroups_devices import always_allowed
from corten.specs.container import Ulimit
from corten.specs.oci_runtime import (
    VERSION,
    Capabilities,
    ConsoleSize,
    DeviceCgroup,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Seccomp,
    Spec,
)
from corten.specs.oci_runtime import Resources as Limits

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST = "host"
"""In place of a namespace's path: no namespace of its own."""


@dataclass(frozen=True, slots=True)
class EtcFiles:
    """Paths on the host of the files that Docker writes for a container."""

    hosts: str
    hostname: str
    resolv_conf: str


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """Each is "" for one of its own, HOST for the host's, else the path of the one to join.

    `user` is the host's unless the container is remapped. `shm` is a folder on the host that becomes /dev/shm, "" for
    a file system of its own, None for no /dev/shm at all. `mqueue` is whether the host has its message queues mounted.
    """

    network: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    user: str = HOST
    shm: str | None = ""
    mqueue: bool = True


@dataclass(frozen=True, slots=True)
class SpecInputs:
    """All that the specification of one container is made of."""

    container: Container
    facts: HostFacts
    namespaces: NamespacePlan
    etc: EtcFiles
    security: security.SecurityOptions = field(default_factory=security.SecurityOptions)
    seccomp: Seccomp | None = None
    granted: tuple[devices.Granted, ...] = ()
    default_ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    remap: Remap | None = None
    staged: Mapping[str, str] = field(default_factory=dict)
    """By destination, where on the host mounts are that show a part of their source only."""
    linked: tuple[str, ...] = ()
    """Variables that tell of the containers that this one links to."""


def build(inputs: SpecInputs) -> Spec:
    container, host_config = inputs.container, inputs.container.host_config
    config = container.config
    own_uts = inputs.namespaces.uts == ""
    return Spec(
        oci_version=VERSION,
        process=process(inputs),
        root=Root(path="rootfs", readonly=host_config.readonly_rootfs),
        hostname=config.hostname if own_uts else "",
        domainname=config.domainname if own_uts else "",
        mounts=_mounts(inputs),
        annotations=dict(host_config.annotations or {}),
        linux=_linux(inputs),
    )


def process(inputs: SpecInputs) -> Process:
    """The first process. Its user is resolved by the runtime, inside the container's root."""
    container, host_config = inputs.container, inputs.container.host_config
    height, width = host_config.console_size
    score = host_config.oom_score_adj
    return Process(
        cwd=container.config.working_dir or "/",
        args=[container.path, *container.args],
        env=environment(container, tty=container.config.tty, linked=inputs.linked),
        terminal=container.config.tty,
        console_size=ConsoleSize(height=height, width=width) if container.config.tty and height and width else None,
        capabilities=capability_sets(container, inputs.facts.capabilities),
        rlimits=resources.rlimits(ulimits(container, inputs.default_ulimits)),
        no_new_privileges=bool(inputs.security.no_new_privileges),
        apparmor_profile=container.app_armor_profile,
        # Where the daemon protects itself from the OOM killer its children must not inherit that.
        oom_score_adj=score if score or inputs.facts.oom_score_adj < 0 else None,
    )


def environment(
    container: Container, *, tty: bool, linked: Sequence[str] = (), further: Sequence[str] = ()
) -> list[str]:
    """PATH, HOSTNAME and TERM as Docker sets them and those of links, overridden and followed by the container's own
    variables. `further` are those of an exec session.
    """
    base = [DEFAULT_PATH, f"HOSTNAME={container.config.hostname}"]
    if tty:
        base.append("TERM=xterm")
    return override([*base, *linked], [*(container.config.env or []), *further])


def override(base: Sequence[str], own: Sequence[str]) -> list[str]:
    """`base` with the variables of `own` in their places or behind it; an entry without "=" removes a variable."""
    merged: dict[str, str | None] = {}
    for entry in (*base, *own):
        name, separator, value = entry.partition("=")
        merged[name] = value if separator else None
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


def capability_sets(container: Container, available: Sequence[str]) -> Capabilities:
    """The same set three times. A user other than root keeps only the bounding one across execve, by the kernel."""
    host_config = container.host_config
    names = capabilities.resolve(
        host_config.cap_add, host_config.cap_drop, privileged=host_config.privileged, available=available
    )
    return Capabilities(bounding=names, effective=names, permitted=names, inheritable=[], ambient=[])


def limits(container: Container, granted: Sequence[devices.Granted] = ()) -> Limits:
    """The cgroup's limits, device rules included."""
    host_config = container.host_config
    built = resources.build(host_config)
    built.devices = [DeviceCgroup(allow=False, access="rwm"), *always_allowed()]
    for grant in granted:
        built.devices += grant.rules
    built.devices += [devices.parse_rule(rule) for rule in host_config.device_cgroup_rules or []]
    return built


def ulimits(container: Container, defaults: Mapping[str, Ulimit]) -> list[Ulimit]:
    """The container's, and the daemon's for what it says nothing of."""
    own = {limit.name: limit for limit in container.host_config.ulimits or []}
    return list({**defaults, **own}.values())


def _mounts(inputs: SpecInputs) -> list[Mount]:
    container, host_config, plan = inputs.container, inputs.container.host_config, inputs.namespaces
    base = mounts.defaults(
        privileged=host_config.privileged,
        shm_size=host_config.shm_size,
        writable_cgroups=inputs.security.writable_cgroups,
    )
    shared = []
    if plan.ipc == HOST:
        shared = [mounts.bind("/dev/shm", "/dev/shm")]
        if plan.mqueue:
            shared.insert(0, mounts.bind("/dev/mqueue", "/dev/mqueue"))
        elif inputs.remap is not None:  # who is root in a user namespace may not mount the queues of the host
            base = [mount for mount in base if mount.destination != "/dev/mqueue"]
    elif plan.shm is None:
        base = [mount for mount in base if mount.destination != "/dev/shm"]
    elif plan.shm:
        shared = [mounts.bind(plan.shm, "/dev/shm")]
        shared[0].options += ["nosuid", "noexec", "nodev"]  # as a file system of its own has them
    writable = not host_config.readonly_rootfs
    etc = [
        mounts.bind(inputs.etc.resolv_conf, "/etc/resolv.conf", writable=writable),
        mounts.bind(inputs.etc.hostname, "/etc/hostname", writable=writable),
        mounts.bind(inputs.etc.hosts, "/etc/hosts", writable=writable),
    ]
    remapped, staged = inputs.remap is not None, inputs.staged
    own = [
        mounts.user_mount(point, remapped=remapped, staged=staged.get(point.destination, ""))
        for point in container.mounts
    ]
    own += [
        Mount(destination=target, type="tmpfs", source="tmpfs", options=mounts.tmpfs_options(options))
        for target, options in (host_config.tmpfs or {}).items()
    ]
    return mounts.combine([*_replace(base, shared), *etc], own)


def _replace(base: list[Mount], by: list[Mount]) -> list[Mount]:
    taken = {mount.destination for mount in by}
    return [mount for mount in base if mount.destination not in taken] + by


def _linux(inputs: SpecInputs) -> Linux:
    container, host_config = inputs.container, inputs.container.host_config
    masked, readonly = host_config.masked_paths, host_config.readonly_paths
    return Linux(
        namespaces=_namespaces(inputs.namespaces),
        uid_mappings=oci(inputs.remap.uids) if inputs.remap else [],
        gid_mappings=oci(inputs.remap.gids) if inputs.remap else [],
        devices=[node for grant in inputs.granted for node in grant.nodes],
        cgroups_path=container.cgroup,
        resources=limits(container, inputs.granted),
        rootfs_propagation=mounts.root_propagation(container.mounts),
        seccomp=inputs.seccomp,
        sysctl=_sysctls(inputs),
        masked_paths=[] if host_config.privileged else list(security.MASKED_PATHS if masked is None else masked),
        readonly_paths=[]
        if host_config.privileged
        else list(security.READONLY_PATHS if readonly is None else readonly),
    )


def _namespaces(plan: NamespacePlan) -> list[Namespace]:
    chosen = {
        "network": plan.network,
        "pid": plan.pid,
        "ipc": plan.ipc,
        "uts": plan.uts,
        "cgroup": plan.cgroup,
        "user": plan.user,
    }
    return [Namespace(type="mount")] + [
        Namespace(type=kind, path=path) for kind, path in chosen.items() if path != HOST
    ]


def _sysctls(inputs: SpecInputs) -> dict[str, str]:
    """Docker's defaults only where the network namespace is the container's own."""
    own = dict(inputs.container.host_config.sysctls or {})
    mode = inputs.container.host_config.network_mode
    if inputs.namespaces.network == HOST or mode.startswith("container:"):
        return own
    usual = dict(DEFAULT_SYSCTLS)
    if inputs.remap is not None:
        usual["net.ipv4.ping_group_range"] = f"0 {inputs.remap.last_gid}"  # groups that do not exist are refused
    return {name: value for name, value in usual.items() if name in inputs.facts.sysctls} | own
