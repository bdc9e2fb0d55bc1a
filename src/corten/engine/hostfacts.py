"""What the host is and can do; read once at the start of the daemon."""

from __future__ import annotations

import glob
import itertools
import os
import platform
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corten.engine.spec import capabilities


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`cgroup_version` 1 covers the hybrid. `cpus` and `mems` are the sets that containers can be bound to."""

    cpu_count: int = 1
    memory: int = 0
    cgroup_version: int = 1
    cpus: str = "0"
    mems: str = "0"
    capabilities: tuple[str, ...] = capabilities.KNOWN
    apparmor: bool = False
    selinux: bool = False
    oom_score_adj: int = 0
    recursive_read_only: bool = True
    """Whether a bind mount can be made read-only with all that is mounted below it (mount_setattr, Linux 5.12)."""
    hostname: str = ""
    kernel: str = ""
    machine: str = ""
    os_name: str = "Linux"
    os_version: str = ""
    controllers: frozenset[str] = field(default_factory=frozenset)
    swap_limit: bool = True
    """Whether the kernel can limit swap."""
    realtime: bool = False
    """Whether groups can be given real-time CPU (CONFIG_RT_GROUP_SCHED, cgroup version 1)."""
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    """The daemon's own, by the name that the OCI specification has for them; without those that are infinite."""
    sysctls: frozenset[str] = field(default_factory=frozenset)
    """Those of Docker's default sysctls that this kernel has."""


DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def read() -> HostFacts:
    """Reads /proc and /sys; a few milliseconds, for the start of the daemon."""
    uname, release = os.uname(), _os_release()
    version = 2 if _exists("/sys/fs/cgroup/cgroup.controllers") else 1
    return HostFacts(
        cpu_count=len(os.sched_getaffinity(0)),
        memory=_memory(),
        cgroup_version=version,
        cpus=_cpuset(version, "cpus") or f"0-{(os.cpu_count() or 1) - 1}",
        mems=_cpuset(version, "mems") or "0",
        capabilities=capabilities.from_mask(int(_field("/proc/self/status", "CapPrm") or "0", 16)),
        apparmor=text_of("/sys/module/apparmor/parameters/enabled") == "Y",
        selinux=_exists("/sys/fs/selinux/enforce"),
        oom_score_adj=int(text_of("/proc/self/oom_score_adj") or "0"),
        recursive_read_only=_kernel(uname.release) >= (5, 12),
        hostname=uname.nodename,
        kernel=uname.release,
        machine=platform.machine(),
        os_name=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        controllers=_controllers(version),
        swap_limit=_swap_limit(version),
        realtime=_exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"),
        hard_limits=_hard_limits(),
        sysctls=frozenset(name for name in DEFAULT_SYSCTLS if _exists("/proc/sys/" + name.replace(".", "/"))),
    )


def _hard_limits() -> dict[str, int]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    limits = {name: resource.getrlimit(getattr(resource, name))[1] for name in names}
    return {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY}


def weighs_by_device(path: str) -> bool:
    """Whether shares of this disk's time can be given out: by its scheduler, but for that of a cgroup version 2 by
    the controller itself. A path that is no block device is for others to refuse.
    """
    try:
        number = os.stat(path).st_rdev
    except OSError:
        return True
    scheduler = text_of(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/scheduler")
    return not scheduler or "[bfq]" in scheduler or "[cfq]" in scheduler


def _kernel(release: str) -> tuple[int, int]:
    first, _, rest = release.partition(".")
    return int(first), int("".join(itertools.takewhile(str.isdigit, rest)) or 0)


def _exists(path: str) -> bool:
    return os.path.exists(path)


def text_of(path: str) -> str:
    """What a small file says, without the blanks around it; "" for one that cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    for line in text_of(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def _memory() -> int:
    return int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) * 1024


def _cpuset(version: int, what: str) -> str:
    if version == 2:
        return text_of(f"/sys/fs/cgroup/cpuset.{what}.effective")
    return text_of(f"/sys/fs/cgroup/cpuset/cpuset.{what}")


def _controllers(version: int) -> frozenset[str]:
    if version == 2:
        return frozenset(text_of("/sys/fs/cgroup/cgroup.controllers").split())
    rows = [line.split() for line in text_of("/proc/cgroups").splitlines() if not line.startswith("#")]
    return frozenset(row[0] for row in rows if row[-1] == "1" and row[1] != "0")


def _swap_limit(version: int) -> bool:
    if version == 1:
        return _exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
    # Not in the root. Where no group has the controller yet, as it is without systemd, the kernel's default counts.
    groups = [group for group in glob.glob("/sys/fs/cgroup/*/") if _exists(group + "memory.max")]
    return not groups or any(_exists(group + "memory.swap.max") for group in groups)


def _os_release() -> dict[str, str]:
    pairs = (
        line.partition("=") for line in (text_of("/etc/os-release") or text_of("/usr/lib/os-release")).splitlines()
    )
    return {key: value.strip('"') for key, _, value in pairs}
