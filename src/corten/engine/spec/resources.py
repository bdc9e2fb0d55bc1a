"""Limits: from the API's units to those of the OCI specification."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence

from corten.errors import InvalidArgument, SystemFault, clip
from corten.specs.container import Resources, ThrottleDevice, Ulimit, WeightDevice
from corten.specs.oci_runtime import CPU, BlockIO, BlockIODeviceThrottle, BlockIODeviceWeight, Memory, Pids, Rlimit
from corten.specs.oci_runtime import Resources as Limits

CPU_PERIOD = 100_000
"""Microseconds: the period that `--cpus` is a share of."""

INFINITY = 2**64 - 1

_RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def build(resources: Resources) -> Limits:
    """All limits but those on devices."""
    return Limits(memory=_memory(resources), cpu=_cpu(resources), pids=_pids(resources), block_io=_block_io(resources))


def rlimits(ulimits: Sequence[Ulimit] | None) -> list[Rlimit]:
    """`--ulimit`; -1 is infinity. Raises InvalidArgument in Docker's words."""
    result = []
    for limit in ulimits or []:
        if limit.name not in _RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {clip(limit.name, 40)}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
        soft, hard = (INFINITY if value == -1 else value for value in (limit.soft, limit.hard))
        result.append(Rlimit(type=f"RLIMIT_{limit.name.upper()}", soft=soft, hard=hard))
    return result


def effective_swap(resources: Resources) -> int:
    """Memory and swap together: twice the memory where a limit was set and nothing was said of swap."""
    if resources.memory > 0 and resources.memory_swap == 0:
        return resources.memory * 2
    return resources.memory_swap


def _memory(resources: Resources) -> Memory | None:
    swappiness = resources.memory_swappiness
    memory = Memory(
        limit=resources.memory or None,
        reservation=resources.memory_reservation or None,
        swap=effective_swap(resources) or None,
        swappiness=None if swappiness is None or swappiness == -1 else swappiness,
        disable_oom_killer=resources.oom_kill_disable or None,
    )
    return memory if memory != Memory() else None


def _cpu(resources: Resources) -> CPU | None:
    period, quota = resources.cpu_period, resources.cpu_quota
    if resources.nano_cpus > 0:
        period, quota = CPU_PERIOD, resources.nano_cpus * CPU_PERIOD // 1_000_000_000
    cpu = CPU(
        shares=resources.cpu_shares or None,
        quota=quota or None,
        period=period or None,
        realtime_runtime=resources.cpu_realtime_runtime or None,
        realtime_period=resources.cpu_realtime_period or None,
        cpus=resources.cpuset_cpus,
        mems=resources.cpuset_mems,
    )
    return cpu if cpu != CPU() else None


def _pids(resources: Resources) -> Pids | None:
    limit = resources.pids_limit
    if limit is None:
        return None
    return Pids(limit=limit if limit > 0 else -1)


def _block_io(resources: Resources) -> BlockIO | None:
    block_io = BlockIO(
        weight=resources.blkio_weight or None,
        weight_device=[_weight(device) for device in resources.blkio_weight_device or []],
        throttle_read_bps_device=_throttles(resources.blkio_device_read_bps),
        throttle_write_bps_device=_throttles(resources.blkio_device_write_bps),
        throttle_read_iops_device=_throttles(resources.blkio_device_read_iops),
        throttle_write_iops_device=_throttles(resources.blkio_device_write_iops),
    )
    return block_io if block_io != BlockIO() else None


def _weight(device: WeightDevice) -> BlockIODeviceWeight:
    major, minor = _numbers(device.path)
    return BlockIODeviceWeight(major=major, minor=minor, weight=device.weight)


def _throttles(devices: Sequence[ThrottleDevice] | None) -> list[BlockIODeviceThrottle]:
    result = []
    for device in devices or []:
        major, minor = _numbers(device.path)
        result.append(BlockIODeviceThrottle(major=major, minor=minor, rate=device.rate))
    return result


def _numbers(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        said = f"stat {clip(path, 200)}: {(error.strerror or '').lower()}"
        raise SystemFault(said, step="devices", errno=error.errno or 0) from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgument(f"{clip(path, 200)} is not a block device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def parse_cpu_list(text: str) -> set[int]:
    """The kernel's list format: "0-2,5". Raises InvalidArgument."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        if (match := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)) is None:
            raise InvalidArgument(f"invalid format: {clip(text, 80)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InvalidArgument(f"invalid format: {clip(text, 80)}")
        numbers.update(range(first, last + 1))
    return numbers
