"""A container's control group as a scope of systemd: its name, its place, and its limits as properties. Pure.

Where systemd manages the control groups, groups below its slices are made by it alone. It is told of the limits too,
as it would take back what it does not know of; what it has no property for is written into the group's files behind it,
which `Delegate` allows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from corten.errors import InvalidArgument, clip
from corten.runtime.cgroups import Layout, host_layout
from corten.runtime.cgroups_devices import check
from corten.runtime.cgroups_limits import blkio_to_io_weight, shares_to_weight
from corten.runtime.cgroups_memory import swap_only
from corten.specs.oci_runtime import CPU, BlockIO, DeviceCgroup, Memory, Resources

Property = tuple[str, str, Any]
"""Name, D-Bus signature, value."""

DEFAULT_SLICE = "system.slice"
INFINITY = (1 << 64) - 1
_SECOND = 1_000_000  # microseconds
_STEP = 10_000
"""systemd keeps a quota in whole percents of a processor: microseconds a second."""
_UNIT_CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\@")
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Scope:
    """`unit` is "PREFIX-NAME.scope", `path` its control group."""

    unit: str
    slice: str
    path: str


def is_scope(cgroups_path: str) -> bool:
    """Whether it has the form of "SLICE:PREFIX:NAME"."""
    return cgroups_path.count(":") == 2 and "/" not in cgroups_path


def scope_of(cgroups_path: str) -> Scope:
    """Out of "SLICE:PREFIX:NAME", of which the first two may be empty. Raises InvalidArgument."""
    parts = cgroups_path.split(":")
    if len(parts) != 3 or not parts[2]:
        raise InvalidArgument(
            'linux.cgroupsPath: expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups,'
            f' got "{clip(cgroups_path)}" instead'
        )
    parent, prefix, name = parts
    parent = parent or DEFAULT_SLICE
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not frozenset(unit) <= _UNIT_CHARACTERS or len(unit) > _LONGEST:
        raise InvalidArgument(f"linux.cgroupsPath: {clip(unit)} cannot be the name of a unit of systemd")
    return Scope(unit, parent, f"{expand_slice(parent)}/{unit}")


def expand_slice(name: str) -> str:
    """The path of a slice, as systemd nests them by their names: "a-b.slice" is in "a.slice"; "" for the root's."""
    stem = name.removesuffix(".slice")
    valid = name.endswith(".slice") and stem and frozenset(stem) <= _UNIT_CHARACTERS and len(name) <= _LONGEST
    if not valid or (stem != "-" and not all(stem.split("-"))):
        raise InvalidArgument(f"{clip(name, 80)} is not the name of a slice of systemd")
    if stem == "-":
        return ""
    words = stem.split("-")
    return "".join(f"/{'-'.join(words[: index + 1])}.slice" for index in range(len(words)))


def bus_address() -> str:
    """The path of the bus's socket where the environment says so; "" for the usual ones."""
    first = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").partition(";")[0]
    return first.removeprefix("unix:path=").partition(",")[0] if first.startswith("unix:path=") else ""


def start_properties(scope: Scope, description: str, resources: Resources | None) -> list[Property]:
    """All that a new scope is made with, but for its process."""
    return [
        ("Description", "s", description),
        ("Slice", "s", scope.slice),
        ("Delegate", "b", True),
        ("DefaultDependencies", "b", False),
        ("CollectMode", "s", "inactive-or-failed"),
        ("CPUAccounting", "b", True),
        ("MemoryAccounting", "b", True),
        ("TasksAccounting", "b", True),
        ("IOAccounting", "b", True),
        *resource_properties(resources),
        *(device_properties(resources.devices) if resources is not None and resources.devices else ()),
    ]


def resource_properties(resources: Resources | None, layout: Layout | None = None) -> list[Property]:
    """The limits that systemd has properties for, devices apart: what `update` can change."""
    if resources is None:
        return []
    layout = layout or host_layout()
    found: list[Property] = []
    if resources.memory is not None:
        found += _memory(resources.memory, layout.version("memory"))
    if resources.cpu is not None:
        found += _cpu(resources.cpu, layout.version("cpu"))
    if resources.pids is not None and resources.pids.limit:
        found.append(("TasksMax", "t", _limit(resources.pids.limit)))
    if resources.block_io is not None:
        found += _block_io(resources.block_io, layout.version("blkio"))
    found += _unified(resources.unified)
    return found


def _limit(value: int) -> int:
    return INFINITY if value < 0 else value


def _memory(memory: Memory, version: int) -> list[Property]:
    found: list[Property] = []
    if version == 1:
        return [("MemoryLimit", "t", _limit(memory.limit))] if memory.limit else []
    if memory.limit:
        found.append(("MemoryMax", "t", _limit(memory.limit)))
    if memory.reservation:
        found.append(("MemoryLow", "t", _limit(memory.reservation)))
    if (swap := swap_only(memory)) is not None:
        found.append(("MemorySwapMax", "t", _limit(swap)))
    return found


def _cpu(cpu: CPU, version: int) -> list[Property]:
    found: list[Property] = []
    if cpu.shares:
        weight = ("CPUShares", cpu.shares) if version == 1 else ("CPUWeight", shares_to_weight(cpu.shares))
        found.append((weight[0], "t", weight[1]))
    if cpu.quota or cpu.period:
        found += _quota(cpu.quota or -1, cpu.period or 0)
    for name, text in (("AllowedCPUs", cpu.cpus), ("AllowedMemoryNodes", cpu.mems)):
        if text:
            found.append((name, "ay", bits(text)))
    return found


def _quota(quota: int, period: int) -> list[Property]:
    found: list[Property] = [("CPUQuotaPeriodUSec", "t", period)] if period else []
    if quota < 0:
        return [*found, ("CPUQuotaPerSecUSec", "t", INFINITY)]
    # Rounded up, so that what we write behind it is not above what systemd allows.
    share = -(-quota * _SECOND // (period or 100_000))
    return [*found, ("CPUQuotaPerSecUSec", "t", -(-share // _STEP) * _STEP)]


def bits(numbers: str) -> bytes:
    """A list as "0-2,9" as a bitmap, the lowest first. Raises InvalidArgument."""
    found = 0
    for part in numbers.split(","):
        first, separator, last = part.partition("-")
        if not first.isdigit() or (separator and not last.isdigit()):
            raise InvalidArgument(f"invalid list of numbers: {clip(numbers, 80)}")
        low, high = int(first), int(last or first)
        if not low <= high < 1 << 16:
            raise InvalidArgument(f"invalid list of numbers: {clip(numbers, 80)}")
        found |= (1 << high + 1) - (1 << low)
    return found.to_bytes((found.bit_length() + 7) // 8 or 1, "little")


def _block_io(block: BlockIO, version: int) -> list[Property]:
    if not block.weight:
        return []
    if version == 1:
        return [("BlockIOWeight", "t", block.weight)]
    return [("IOWeight", "t", blkio_to_io_weight(block.weight))]


_UNIFIED = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "cpuset.cpus": "AllowedCPUs",
    "cpuset.mems": "AllowedMemoryNodes",
}


def _unified(unified: dict[str, str]) -> list[Property]:
    found: list[Property] = []
    for name, value in unified.items():
        words = value.split()
        if name == "cpu.max" and words:
            found += _quota(int(words[0]) if words[0].isdigit() else -1, int(words[1]) if len(words) > 1 else 0)
        elif name.startswith("cpuset.") and name in _UNIFIED and value.strip():
            found.append((_UNIFIED[name], "ay", bits(value.strip())))
        elif name in _UNIFIED and (value.strip() == "max" or value.strip().isdigit()):
            found.append((_UNIFIED[name], "t", INFINITY if value.strip() == "max" else int(value)))
    return found


def device_properties(rules: list[DeviceCgroup]) -> list[Property]:
    """At least what the rules allow: systemd knows no refusals. Ours, behind it, are exact."""
    check(rules)
    last = list(rules)
    everything = False
    for index, rule in enumerate(rules):
        if rule.type in ("", "a"):
            everything, last = rule.allow, list(rules[index + 1 :])
    if everything:
        return [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]
    allowed = dict.fromkeys((_device(rule), rule.access or "rwm") for rule in last if rule.allow)
    return [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", list(allowed))]


def _device(rule: DeviceCgroup) -> str:
    kind = "char" if rule.type == "c" else "block"
    if rule.major is None or rule.major < 0:
        return f"{kind}-*"
    if rule.minor is None or rule.minor < 0:
        return f"{kind}-{rule.major}"
    return f"/dev/{kind}/{rule.major}:{rule.minor}"
