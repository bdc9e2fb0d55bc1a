"""What `corten-runtime spec` and `corten-runtime features` print."""

from __future__ import annotations

import os
from typing import Any

from corten import __version__
from corten.linux import mempolicy
from corten.linux.capability import NAMES
from corten.runtime import mount_options, seccomp_rules
from corten.runtime.cgroups import host_layout
from corten.runtime.plan_namespaces import NAMESPACES
from corten.specs.oci_runtime import (
    VERSION,
    Capabilities,
    DeviceCgroup,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Resources,
    Rlimit,
    Root,
    Spec,
)

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_spec() -> Spec:
    """A specification to begin with: a shell on a terminal in a read-only root."""
    return Spec(
        oci_version=VERSION,
        process=Process(
            cwd="/",
            args=["sh"],
            env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            terminal=True,
            no_new_privileges=True,
            rlimits=[Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=1024)],
            capabilities=Capabilities(bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES),
        ),
        root=Root(path="rootfs", readonly=True),
        hostname="corten",
        mounts=_mounts(),
        linux=Linux(
            namespaces=[Namespace(type=kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            resources=Resources(devices=[DeviceCgroup(allow=False, access="rwm")]),
            masked_paths=[
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
            ],
            readonly_paths=["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        ),
    )


def _mounts() -> list[Mount]:
    plain = ["nosuid", "noexec", "nodev"]
    return [
        Mount(destination="/proc", type="proc", source="proc"),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount(destination="/dev/shm", type="tmpfs", source="shm", options=[*plain, "mode=1777", "size=65536k"]),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=plain),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=[*plain, "ro"]),
        Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=[*plain, "relatime", "ro"]),
    ]


def rootless_spec() -> Spec:
    """The same for a user who is not root: a user namespace with that user as its root, and what needs more left out.

    The network is the host's, sysfs a bind mount, as mounting one needs a network namespace of one's own.
    """
    spec = default_spec()
    assert spec.linux is not None
    kinds = [space.type for space in spec.linux.namespaces if space.type != "network"]
    spec.linux.namespaces = [Namespace(type=kind) for kind in (*kinds, "user")]
    spec.linux.uid_mappings = [IDMapping(container_id=0, host_id=os.geteuid(), size=1)]
    spec.linux.gid_mappings = [IDMapping(container_id=0, host_id=os.getegid(), size=1)]
    spec.linux.resources = None
    for mount in spec.mounts:
        mount.options = [word for word in mount.options if not word.startswith(("uid=", "gid="))]
        if mount.destination == "/sys":
            mount.type, mount.source = "none", "/sys"
            mount.options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
    return spec


def features() -> dict[str, Any]:
    """What this runtime knows, as the specification's features.md has it."""
    layout = host_layout()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted(mount_options.WORDS),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NAMES),
            "cgroup": {"v1": bool(layout.v1), "v2": bool(layout.unified), "systemd": True, "systemdUser": False},
            "seccomp": {
                "enabled": True,
                "actions": list(seccomp_rules.ACTIONS),
                "operators": list(seccomp_rules.OPERATORS),
                "archs": list(seccomp_rules.ARCHITECTURES),
                "knownFlags": list(seccomp_rules.FLAGS),
                "supportedFlags": seccomp_rules.supported_flags(),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {"modes": sorted(mempolicy.MODES), "flags": sorted(mempolicy.FLAGS)},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.corten.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],  # no annotation changes what is done
    }
