"""From the limits of a specification to writes into files of the control group, for version 1 and 2. Pure.

Each controller is looked for by itself, as a hybrid host has some in version 1 and some in version 2. What the
version that is there cannot do is refused by the member's name, or passed over with a warning where the field does so
too: `kernel` memory, which Linux 5.16 gave up; swappiness and the OOM killer's switch, which version 2 never had.
"""

from __future__ import annotations

import math
from itertools import chain

from corten.errors import InvalidArgument, clip
from corten.runtime.cgroups import BPF_FILE, host_layout
from corten.runtime.cgroups_devices import DeviceRules, bpf_program, check
from corten.runtime.cgroups_memory import memory_v1, memory_v2
from corten.runtime.cgroups_values import at, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from corten.runtime.cgroups import Layout, Write
    from corten.specs.oci_runtime import (
        CPU,
        BlockIO,
        BlockIODeviceThrottle,
        HugepageLimit,
        Network,
        Pids,
        Resources,
        Spec,
    )

# Files of version 2 itself that limit something; its others move, stop or kill processes.
_CORE_LIMITS = ("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure")
_DEFAULT_PERIOD = 100_000
"""Microseconds: what the kernel starts with, and what a quota without a period is meant for."""


def limits_of(spec: Spec, layout: Layout | None = None) -> tuple[Write, ...]:
    """The writes that put `linux.resources` into force on this host (or on one with `layout`). Raises InvalidArgument
    for a limit that is out of its range or that this host cannot enforce."""
    resources = spec.linux.resources if spec.linux is not None else None
    if resources is None:
        return ()
    return compile_limits(resources, layout or host_layout())


def compile_limits(resources: Resources, layout: Layout) -> tuple[Write, ...]:
    made = (
        _memory(resources, layout),
        _cpu(resources.cpu, layout),
        _cpuset(resources.cpu),
        _pids(resources.pids),
        _block_io(resources.block_io, layout),
        _hugetlb(resources.hugepage_limits, layout),
        _network(resources.network),
        _rdma(resources),
        _unified(resources, layout),
        _devices(resources, layout),
    )
    writes = tuple(chain.from_iterable(made))
    for controller, _, _, member in writes:
        if not layout.version(controller):
            raise InvalidArgument(f"{member} cannot be set: the host has no cgroup controller {controller}")
    return writes


def limit_warnings(resources: Resources | None, layout: Layout | None = None) -> Iterator[str]:
    """What of the limits has no effect on this host, in a sentence each."""
    memory = resources.memory if resources is not None else None
    if memory is None:
        return
    if memory.kernel:
        yield f"{at('memory.kernel')} has no effect: kernel memory cannot be limited apart since Linux 5.16"
    if (layout or host_layout()).version("memory") != 2:
        return
    if memory.swappiness is not None:
        yield f"{at('memory.swappiness')} has no effect: cgroup v2 has no swappiness"
    if memory.disable_oom_killer:
        yield f"{at('memory.disableOOMKiller')} has no effect: cgroup v2 cannot disable the OOM killer"
    if memory.kernel_tcp:
        yield f"{at('memory.kernelTCP')} has no effect: cgroup v2 counts TCP's buffers as the group's memory"


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


def _memory(resources: Resources, layout: Layout) -> Iterator[Write]:
    if resources.memory is not None:
        yield from (memory_v2 if layout.version("memory") == 2 else memory_v1)(resources.memory)


# -- processor -------------------------------------------------------------------------------------------------------


def _cpu(cpu: CPU | None, layout: Layout) -> Iterator[Write]:
    if cpu is None:
        return
    within("cpu.period", cpu.period, 1000, 1_000_000, unset=0)
    within("cpu.realtimePeriod", cpu.realtime_period, 0, (1 << 31) - 1)
    within("cpu.burst", cpu.burst, 0)
    within("cpu.idle", cpu.idle, 0, 1)
    within("cpu.shares", cpu.shares, 0)
    if cpu.quota is not None and cpu.quota > 0:
        within("cpu.quota", cpu.quota, 1000)
    yield from (_cpu_v2 if layout.version("cpu") == 2 else _cpu_v1)(cpu)


def _cpu_v1(cpu: CPU) -> Iterator[Write]:
    if cpu.shares:
        # The kernel cuts what is outside to its bounds, without a word.
        within("cpu.shares", cpu.shares, 2, 262144)
        yield "cpu", "cpu.shares", str(cpu.shares), at("cpu.shares")
    if cpu.period:
        yield "cpu", "cpu.cfs_period_us", str(cpu.period), at("cpu.period")
    if cpu.quota:
        yield "cpu", "cpu.cfs_quota_us", str(max(cpu.quota, -1)), at("cpu.quota")
    if cpu.burst is not None:
        yield "cpu", "cpu.cfs_burst_us", str(cpu.burst), at("cpu.burst")
    if cpu.realtime_period:
        yield "cpu", "cpu.rt_period_us", str(cpu.realtime_period), at("cpu.realtimePeriod")
    if cpu.realtime_runtime:
        yield "cpu", "cpu.rt_runtime_us", str(cpu.realtime_runtime), at("cpu.realtimeRuntime")
    if cpu.idle is not None:
        yield "cpu", "cpu.idle", str(cpu.idle), at("cpu.idle")


def _cpu_v2(cpu: CPU) -> Iterator[Write]:
    for name, value in (("cpu.realtimeRuntime", cpu.realtime_runtime), ("cpu.realtimePeriod", cpu.realtime_period)):
        if value:
            raise InvalidArgument(f"{at(name)} cannot be set: cgroup v2 has no real-time limits")
    if cpu.idle is not None:
        yield "cpu", "cpu.idle", str(cpu.idle), at("cpu.idle")
    if cpu.shares:
        yield "cpu", "cpu.weight", str(shares_to_weight(cpu.shares)), at("cpu.shares")
    if cpu.quota or cpu.period:
        quota = "max" if not cpu.quota or cpu.quota < 0 else str(cpu.quota)
        yield (
            "cpu",
            "cpu.max",
            f"{quota} {cpu.period or _DEFAULT_PERIOD}",
            at("cpu.quota" if cpu.quota else "cpu.period"),
        )
    if cpu.burst is not None:
        yield "cpu", "cpu.max.burst", str(cpu.burst), at("cpu.burst")


def _cpuset(cpu: CPU | None) -> Iterator[Write]:
    """The same files on both versions."""
    for name, text in (("cpus", cpu.cpus), ("mems", cpu.mems)) if cpu is not None else ():
        if not text:
            continue
        if not _is_list(text):
            raise InvalidArgument(f"{at('cpu.' + name)} must be a list as 0-2,5, not {clip(text, 60)}")
        yield "cpuset", f"cpuset.{name}", text, at(f"cpu.{name}")


def _is_list(text: str) -> bool:
    """Whether it is a list in the kernel's format."""
    return all(
        0 < len(ends) < 3 and all(map(_is_number, ends)) for ends in (part.split("-") for part in text.split(","))
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


# -- block devices ---------------------------------------------------------------------------------------------------


def _block_io(block: BlockIO | None, layout: Layout) -> Iterator[Write]:
    if block is None:
        return
    within("blockIO.weight", block.weight, 10, 1000, unset=0)
    within("blockIO.leafWeight", block.leaf_weight, 10, 1000, unset=0)
    for index, device in enumerate(block.weight_device):
        within(f"blockIO.weightDevice[{index}].weight", device.weight, 10, 1000, unset=0)
        within(f"blockIO.weightDevice[{index}].leafWeight", device.leaf_weight, 10, 1000, unset=0)
    # Version 1 calls the controller blkio.
    yield from _io_v2(block) if layout.version("blkio") != 1 and layout.version("io") == 2 else _blkio_v1(block)


def _throttles(block: BlockIO) -> Iterator[tuple[str, str, str, BlockIODeviceThrottle]]:
    """Version 1's word, version 2's, the member, and the limit."""
    for old, new, name, limits in (
        ("read_bps", "rbps", "throttleReadBpsDevice", block.throttle_read_bps_device),
        ("write_bps", "wbps", "throttleWriteBpsDevice", block.throttle_write_bps_device),
        ("read_iops", "riops", "throttleReadIOPSDevice", block.throttle_read_iops_device),
        ("write_iops", "wiops", "throttleWriteIOPSDevice", block.throttle_write_iops_device),
    ):
        for index, limit in enumerate(limits):
            member = f"blockIO.{name}[{index}]"
            within(f"{member}.rate", limit.rate, 0)
            yield old, new, at(member), limit


def _blkio_v1(block: BlockIO) -> Iterator[Write]:
    # The completely fair queueing scheduler had the names without "bfq", and leaf weights; it went with Linux 5.0.
    if block.weight:
        yield "blkio", "blkio.weight|blkio.bfq.weight", str(block.weight), at("blockIO.weight")
    if block.leaf_weight:
        yield "blkio", "blkio.leaf_weight", str(block.leaf_weight), at("blockIO.leafWeight")
    for index, device in enumerate(block.weight_device):
        number, member = f"{device.major}:{device.minor}", at(f"blockIO.weightDevice[{index}]")
        if device.weight:
            yield "blkio", "blkio.weight_device|blkio.bfq.weight_device", f"{number} {device.weight}", member
        if device.leaf_weight:
            yield "blkio", "blkio.leaf_weight_device", f"{number} {device.leaf_weight}", member
    for name, _, member, limit in _throttles(block):
        yield "blkio", f"blkio.throttle.{name}_device", f"{limit.major}:{limit.minor} {limit.rate}", member


def _io_v2(block: BlockIO) -> Iterator[Write]:
    if block.leaf_weight or any(device.leaf_weight for device in block.weight_device):
        raise InvalidArgument(f"{at('blockIO.leafWeight')} cannot be set: cgroup v2 has no leaf weights")
    if block.weight:
        values = (str(block.weight), str(blkio_to_io_weight(block.weight)))
        yield "io", "io.bfq.weight|io.weight", values, at("blockIO.weight")
    for index, device in enumerate(block.weight_device):
        if device.weight:
            number = f"{device.major}:{device.minor}"
            values = (f"{number} {device.weight}", f"{number} {blkio_to_io_weight(device.weight)}")
            yield "io", "io.bfq.weight|io.weight", values, at(f"blockIO.weightDevice[{index}]")
    for _, key, member, limit in _throttles(block):
        yield "io", "io.max", f"{limit.major}:{limit.minor} {key}={limit.rate or 'max'}", member


# -- the rest --------------------------------------------------------------------------------------------------------


def _pids(pids: Pids | None) -> Iterator[Write]:
    """0 is not a limit, as the field's callers say it for "none"."""
    if pids is not None and pids.limit:
        yield "pids", "pids.max", "max" if pids.limit < 0 else str(pids.limit), at("pids.limit")


def _hugetlb(limits: Sequence[HugepageLimit], layout: Layout) -> Iterator[Write]:
    """A limit on what is used, and on what is reserved where the kernel can (5.7)."""
    last = "max" if layout.version("hugetlb") == 2 else "limit_in_bytes"
    for index, limit in enumerate(limits):
        member = f"hugepageLimits[{index}]"
        if not _is_page_size(limit.page_size):
            raise InvalidArgument(f"{at(member)}.pageSize must be like 2MB, not {clip(limit.page_size, 40)}")
        within(f"{member}.limit", limit.limit, 0)
        yield "hugetlb", f"hugetlb.{limit.page_size}.{last}", str(limit.limit), at(member)
        yield "hugetlb", f"hugetlb.{limit.page_size}.rsvd.{last}?", str(limit.limit), at(member)


def _is_page_size(text: str) -> bool:
    return _is_number(text[:-2]) and text[-2:] in ("KB", "MB", "GB", "TB")


def _network(network: Network | None) -> Iterator[Write]:
    """Version 1 alone has these controllers; elsewhere nobody has, and the member is refused."""
    if network is None:
        return
    within("network.classID", network.class_id, 0, (1 << 32) - 1)
    if network.class_id:
        yield "net_cls", "net_cls.classid", str(network.class_id), at("network.classID")
    for index, entry in enumerate(network.priorities):
        member = f"network.priorities[{index}]"
        within(f"{member}.priority", entry.priority, 0, (1 << 32) - 1)
        if not entry.name or any(character.isspace() for character in entry.name):
            raise InvalidArgument(f"{at(member)}.name is not the name of an interface: {clip(entry.name, 40)}")
        yield "net_prio", "net_prio.ifpriomap", f"{entry.name} {entry.priority}", at(member)


def _rdma(resources: Resources) -> Iterator[Write]:
    for device, limit in resources.rdma.items():
        if not device.replace("_", "a").replace("-", "a").isalnum():
            raise InvalidArgument(f"{at('rdma')} has a member that is not the name of a device: {clip(device, 60)}")
        within(f"rdma.{device}.hcaHandles", limit.hca_handles, 0, (1 << 32) - 1)
        within(f"rdma.{device}.hcaObjects", limit.hca_objects, 0, (1 << 32) - 1)
        handles = f" hca_handle={limit.hca_handles}" if limit.hca_handles is not None else ""
        objects = f" hca_object={limit.hca_objects}" if limit.hca_objects is not None else ""
        yield "rdma", "rdma.max", f"{device}{handles}{objects}", at(f"rdma.{device}")


def _unified(resources: Resources, layout: Layout) -> Iterator[Write]:
    """Files of version 2, written as they are, line by line."""
    if resources.unified and not layout.unified:
        raise InvalidArgument(f"{at('unified')} cannot be used: this host has no cgroup v2")
    for name, value in resources.unified.items():
        member = at(f"unified[{clip(name, 60)}]")
        if "/" in name:
            raise InvalidArgument(f"{member} must be a file name, without slashes")
        controller, separator, rest = name.partition(".")
        if not separator or not controller or not rest or "|" in name or name[-1] in "?<":
            raise InvalidArgument(f"{member} is not the name of a limit")
        if controller == "cgroup" and name not in _CORE_LIMITS:
            raise InvalidArgument(f"{member} is not a limit: it belongs to the runtime")
        if layout.version(controller) != 2 or controller == "devices":
            raise InvalidArgument(f"{member} cannot be set: cgroup v2 has no controller {clip(controller, 40)} here")
        yield controller, name, value, member


def _devices(resources: Resources, layout: Layout) -> Iterator[Write]:
    if not resources.devices:
        return
    check(resources.devices)
    member = at("devices")
    if layout.version("devices") == 2:
        program = bpf_program(resources.devices)
        if program:
            yield "devices", BPF_FILE, program, member
        return
    rules = DeviceRules.of(resources.devices)
    if rules.is_open():
        return  # privileged: no group is needed to allow everything
    first = "devices.allow" if rules.allow_by_default else "devices.deny"
    others = "devices.deny" if rules.allow_by_default else "devices.allow"
    yield "devices", first, "a", member
    lines = [rule.line() for rule in rules.exceptions()]
    if lines:
        yield "devices", others, "\n".join(lines), member
