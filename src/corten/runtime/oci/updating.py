"""`update`: limits from flags or a file, put into force on a container that exists."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from corten.errors import Conflict, InvalidArgument, NotFound, SystemFault, clip
from corten.runtime.cgroups_update import update_limits
from corten.runtime.oci.options import Options
from corten.runtime.oci.state import Store
from corten.specs.oci_runtime import CPU, BlockIO, Memory, Pids, Resources, decode_resources

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_CPU_NUMBERS = {
    "cpu-period": "period",
    "cpu-quota": "quota",
    "cpu-burst": "burst",
    "cpu-share": "shares",
    "cpu-rt-period": "realtime_period",
    "cpu-rt-runtime": "realtime_runtime",
    "cpu-idle": "idle",
}
_CPU_LISTS = {"cpuset-cpus": "cpus", "cpuset-mems": "mems"}
_MEMORY = {
    "memory": "limit",
    "memory-reservation": "reservation",
    "memory-swap": "swap",
    "kernel-memory-tcp": "kernel_tcp",
}


def update(store: Store, options: Options) -> None:
    """Raises NotFound, InvalidArgument, Conflict for a container that has ended, SystemFault if the kernel refuses."""
    record = store.load(options.args[0])
    if store.status(record) == "stopped":
        raise Conflict(f"cannot update container {record.id} that is stopped")
    source = options.text("resources")
    resources = _from_file(source) if source else from_flags(options)
    try:
        update_limits(record.cgroup, record.unit, resources)
    except OSError as error:
        raise SystemFault(f"updating container {record.id}: {error}", step="update", errno=error.errno or 0) from None


def _from_file(source: str) -> Resources:
    try:
        body = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise NotFound("file", source, f"--resources {source}: {error.strerror}") from None
    return decode_resources(body)


def from_flags(options: Options) -> Resources:
    """Raises InvalidArgument; a flag that is not given leaves its limit as it is."""
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if options.given(name):
            raise InvalidArgument(f"--{name}: Intel RDT is not supported")
    resources = Resources()
    cpu = _taken(options, _CPU_NUMBERS, options.number) | _taken(options, _CPU_LISTS, options.text)
    if cpu:
        resources.cpu = CPU(**cpu)  # type: ignore[arg-type]  # the tables above say which takes what
    memory = _taken(options, _MEMORY, lambda name: size(name, options.text(name)))
    if memory:
        resources.memory = Memory(**memory)  # type: ignore[arg-type]  # the same
    if options.given("pids-limit"):
        resources.pids = Pids(limit=options.number("pids-limit"))
    if options.given("blkio-weight"):
        resources.block_io = BlockIO(weight=options.number("blkio-weight"))
    return resources


def _taken(options: Options, names: dict[str, str], value: Callable[[str], object]) -> dict[str, object]:
    return {member: value(flag) for flag, member in names.items() if options.given(flag)}


def size(name: str, text: str) -> int:
    """ "512M", "1.5g", "-1" and plain bytes. Raises InvalidArgument with the flag's name."""
    if text == "-1":
        return -1
    lowered = text.strip().lower()
    number = lowered.rstrip("ib").rstrip("kmgtp") if lowered[-1:].isalpha() else lowered
    unit = lowered[len(number) :].rstrip("ib")
    try:
        value = float(number)
        if unit not in _UNITS or not 0 <= value < 1 << 63:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"invalid value {clip(text, 40)!r} for --{name}: not a number of bytes") from None
    return int(value * _UNITS[unit])
