"""`docker update`: limits that change while a container runs."""

from __future__ import annotations

import copy

from corten.errors import Conflict, NotImplementedYet
from corten.specs.container import HostConfig, Resources

_LIVE = (
    "cpu_shares",
    "memory",
    "nano_cpus",
    "blkio_weight",
    "cpu_period",
    "cpu_quota",
    "cpu_realtime_period",
    "cpu_realtime_runtime",
    "cpuset_cpus",
    "cpuset_mems",
    "memory_reservation",
    "memory_swap",
    "pids_limit",
)
_FIXED = {
    "devices": "--device",
    "device_cgroup_rules": "--device-cgroup-rule",
    "cgroup_parent": "--cgroup-parent",
    "ulimits": "--ulimit",
    "device_requests": "--gpus",
    "blkio_weight_device": "--blkio-weight-device",
    "blkio_device_read_bps": "--device-read-bps",
    "blkio_device_write_bps": "--device-write-bps",
    "blkio_device_read_iops": "--device-read-iops",
    "blkio_device_write_iops": "--device-write-iops",
    "oom_kill_disable": "--oom-kill-disable",
}

Snapshot = dict[str, object]


def snapshot(host_config: HostConfig) -> Snapshot:
    """What `merge` and a new restart policy may change."""
    return {name: copy.copy(getattr(host_config, name)) for name in (*_LIVE, "restart_policy")}


def restore(host_config: HostConfig, previous: Snapshot) -> None:
    for name, value in previous.items():
        setattr(host_config, name, value)


def merge(host_config: HostConfig, asked: Resources) -> None:
    """What is said replaces what was; the rest stays. Raises Conflict in Docker's words where the two contradict."""
    for name, flag in _FIXED.items():
        if getattr(asked, name):
            raise NotImplementedYet(f"{flag} cannot be changed on an existing container")
    if asked.memory_swappiness not in (None, -1):
        raise NotImplementedYet("--memory-swappiness cannot be changed on an existing container")
    if asked.nano_cpus and host_config.cpu_period:
        raise Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
    if asked.nano_cpus and host_config.cpu_quota:
        raise Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
    if (asked.cpu_quota or asked.cpu_period) and host_config.nano_cpus:
        what = "Quota" if asked.cpu_quota else "Period"
        raise Conflict(f"Conflicting options: CPU {what} cannot be updated as NanoCPUs has already been set")
    if asked.memory and not asked.memory_swap and 0 < host_config.memory_swap < asked.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    for name in _LIVE:
        value = getattr(asked, name)
        if value is not None and value != 0 and value != "":
            setattr(host_config, name, value)
    if asked.memory and not host_config.memory_swap:
        host_config.memory_swap = asked.memory * 2
