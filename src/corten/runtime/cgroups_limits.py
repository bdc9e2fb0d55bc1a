"""From the limits of a specification to writes into files of the control group, for version 1 and 2. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from corten.errors import InvalidArgument, clip
from corten.runtime.cgroups import BPF_FILE, Layout, Write, host_layout
from corten.runtime.cgroups_devices import DeviceRules, bpf_program
from corten.specs.oci_runtime import CPU, BlockIO, BlockIODeviceThrottle, Memory, Resources, Spec


def limits_of(spec: Spec, layout: Layout | None = None) -> tuple[Write, ...]:
    """The writes that put `linux.resources` into force on this host (or on one with `layout`). Raises InvalidArgument
    for a limit that this host cannot enforce."""
    resources = spec.linux.resources if spec.linux is not None else None
    if resources is None:
        return ()
    return compile_limits(resources, layout or host_layout())


def compile_limits(resources: Resources, layout: Layout) -> tuple[Write, ...]:
    if layout.pure_v2:
        return (*_version2(resources), *_devices_v2(resources))
    if resources.unified:
        raise InvalidArgument("unified resources need cgroup v2, which this host does not use")
    return (*_version1(resources), *_devices_v1(resources))


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2..262144, default 1024) as cpu.weight (1..10000, default 100), keeping the ends and the default.

    A parabola through the three points on logarithmic scales; the straight line that came first made 39 of 1024.
    """
    if shares <= 0:
        return 0
    shares = min(max(shares, 2), 262144)
    power = math.log2(shares)
    return min(10000, math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34)))


def blkio_to_io_weight(weight: int) -> int:
    """blkio.weight (10..1000) as io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_only(memory: Memory) -> int | None:
    """Version 2 limits swap alone, the specification memory and swap together; None when nothing is said."""
    if memory.swap is None:
        return None
    if memory.swap < 0:
        return -1
    if memory.limit is None or memory.limit < 0:
        if memory.swap == 0:
            return None
        raise InvalidArgument("a limit of memory and swap needs a memory limit")
    if memory.swap == 0:
        return None
    if memory.swap < memory.limit:
        raise InvalidArgument("the limit of memory and swap must not be below the memory limit")
    return memory.swap - memory.limit


# -- version 1 -------------------------------------------------------------------------------------------------------


def _version1(resources: Resources) -> Iterator[Write]:
    if resources.memory is not None:
        yield from _memory_v1(resources.memory)
    if resources.cpu is not None:
        yield from _cpu_v1(resources.cpu)
    if resources.pids is not None and resources.pids.limit != 0:
        yield "pids", "pids.max", _maximum(resources.pids.limit)
    if resources.block_io is not None:
        yield from _blkio_v1(resources.block_io)
    for huge in resources.hugepage_limits:
        yield "hugetlb", f"hugetlb.{huge.page_size}.limit_in_bytes", str(huge.limit)
    if resources.network is not None:
        if resources.network.class_id is not None:
            yield "net_cls", "net_cls.classid", str(resources.network.class_id)
        for entry in resources.network.priorities:
            yield "net_prio", "net_prio.ifpriomap", f"{entry.name} {entry.priority}"
    yield from _rdma(resources)


def _memory_v1(memory: Memory) -> Iterator[Write]:
    if memory.limit:
        yield "memory", "memory.limit_in_bytes", str(memory.limit)
    if memory.swap:
        # Absent when the kernel does not account swap: "?" makes the write one that may find no file.
        yield "memory", "memory.memsw.limit_in_bytes?", str(memory.swap)
    if memory.reservation:
        yield "memory", "memory.soft_limit_in_bytes?", str(memory.reservation)
    if memory.kernel_tcp:
        yield "memory", "memory.kmem.tcp.limit_in_bytes?", str(memory.kernel_tcp)
    if memory.swappiness is not None and 0 <= memory.swappiness <= 200:
        yield "memory", "memory.swappiness?", str(memory.swappiness)
    if memory.disable_oom_killer:
        yield "memory", "memory.oom_control?", "1"


def _cpu_v1(cpu: CPU) -> Iterator[Write]:
    if cpu.shares:
        yield "cpu", "cpu.shares", str(cpu.shares)
    if cpu.period:
        yield "cpu", "cpu.cfs_period_us", str(cpu.period)
    if cpu.quota:
        yield "cpu", "cpu.cfs_quota_us", str(cpu.quota)
    if cpu.burst is not None:
        yield "cpu", "cpu.cfs_burst_us", str(cpu.burst)
    if cpu.realtime_period:
        yield "cpu", "cpu.rt_period_us", str(cpu.realtime_period)
    if cpu.realtime_runtime:
        yield "cpu", "cpu.rt_runtime_us", str(cpu.realtime_runtime)
    if cpu.idle is not None:
        yield "cpu", "cpu.idle", str(cpu.idle)
    if cpu.cpus:
        yield "cpuset", "cpuset.cpus", cpu.cpus
    if cpu.mems:
        yield "cpuset", "cpuset.mems", cpu.mems


def _blkio_v1(block: BlockIO) -> Iterator[Write]:
    if block.weight:
        yield "blkio", "blkio.weight|blkio.bfq.weight", str(block.weight)
    for device in block.weight_device:
        if device.weight is not None:
            line = f"{device.major}:{device.minor} {device.weight}"
            yield "blkio", "blkio.weight_device|blkio.bfq.weight_device", line
    for name, limits in (
        ("read_bps", block.throttle_read_bps_device),
        ("write_bps", block.throttle_write_bps_device),
        ("read_iops", block.throttle_read_iops_device),
        ("write_iops", block.throttle_write_iops_device),
    ):
        for limit in limits:
            yield "blkio", f"blkio.throttle.{name}_device", f"{limit.major}:{limit.minor} {limit.rate}"


def _devices_v1(resources: Resources) -> Iterator[Write]:
    rules = DeviceRules.of(resources.devices)
    if rules.is_open():
        return  # privileged: no group is needed to allow everything
    first = "devices.allow" if rules.allow_by_default else "devices.deny"
    others = "devices.deny" if rules.allow_by_default else "devices.allow"
    yield "devices", first, "a"
    lines = [rule.line() for rule in rules.exceptions()]
    if lines:
        yield "devices", others, "\n".join(lines)


# -- version 2 -------------------------------------------------------------------------------------------------------


def _version2(resources: Resources) -> Iterator[Write]:
    if resources.memory is not None:
        yield from _memory_v2(resources.memory)
    if resources.cpu is not None:
        yield from _cpu_v2(resources.cpu)
    if resources.pids is not None and resources.pids.limit != 0:
        yield "pids", "pids.max", _maximum(resources.pids.limit)
    if resources.block_io is not None:
        yield from _io_v2(resources.block_io)
    for huge in resources.hugepage_limits:
        yield "hugetlb", f"hugetlb.{huge.page_size}.max", str(huge.limit)
    yield from _rdma(resources)
    for name, value in resources.unified.items():
        if "/" in name or "." not in name or name.startswith("cgroup."):
            raise InvalidArgument(f"unified resource {clip(name, 60)} is not the name of a limit")
        yield name.partition(".")[0], name, value


def _memory_v2(memory: Memory) -> Iterator[Write]:
    swap = swap_only(memory)
    if memory.limit:
        yield "memory", "memory.max", _maximum(memory.limit)
    if swap is not None:
        yield "memory", "memory.swap.max?", _maximum(swap)
    if memory.reservation:
        yield "memory", "memory.low", _maximum(memory.reservation)


def _cpu_v2(cpu: CPU) -> Iterator[Write]:
    if cpu.shares:
        yield "cpu", "cpu.weight", str(shares_to_weight(cpu.shares))
    if cpu.quota or cpu.period:
        quota = "max" if not cpu.quota or cpu.quota < 0 else str(cpu.quota)
        yield "cpu", "cpu.max", f"{quota} {cpu.period}" if cpu.period else quota
    if cpu.burst is not None:
        yield "cpu", "cpu.max.burst", str(cpu.burst)
    if cpu.idle is not None:
        yield "cpu", "cpu.idle", str(cpu.idle)
    if cpu.cpus:
        yield "cpuset", "cpuset.cpus", cpu.cpus
    if cpu.mems:
        yield "cpuset", "cpuset.mems", cpu.mems


def _io_v2(block: BlockIO) -> Iterator[Write]:
    if block.weight:
        yield "io", "io.bfq.weight?", str(block.weight)
        yield "io", "io.weight?", str(blkio_to_io_weight(block.weight))
    for device in block.weight_device:
        if device.weight is not None:
            yield "io", "io.bfq.weight?", f"{device.major}:{device.minor} {device.weight}"
    by_key: tuple[tuple[str, Sequence[BlockIODeviceThrottle]], ...] = (
        ("rbps", block.throttle_read_bps_device),
        ("wbps", block.throttle_write_bps_device),
        ("riops", block.throttle_read_iops_device),
        ("wiops", block.throttle_write_iops_device),
    )
    for key, limits in by_key:
        for limit in limits:
            yield "io", "io.max", f"{limit.major}:{limit.minor} {key}={limit.rate or 'max'}"


def _devices_v2(resources: Resources) -> Iterator[Write]:
    rules = DeviceRules.of(resources.devices)
    if not rules.is_open():
        yield "devices", BPF_FILE, bpf_program(rules)


def _rdma(resources: Resources) -> Iterator[Write]:
    for device, limit in resources.rdma.items():
        handles = f" hca_handle={limit.hca_handles}" if limit.hca_handles is not None else ""
        objects = f" hca_object={limit.hca_objects}" if limit.hca_objects is not None else ""
        yield "rdma", "rdma.max", f"{device}{handles}{objects}"


def _maximum(value: int) -> str:
    return "max" if value < 0 else str(value)
