"""The counters of a control group, of version 1 or 2, in one form."""

from __future__ import annotations

import os

from corten.runtime.cgroups import Cgroup, read_flat
from corten.runtime.types import CgroupStats

# What version 1 says for "no limit": the largest multiple of the page size in 63 bits.
_NO_LIMIT = 1 << 62
_NS_PER_US = 1000
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_stats(cgroup: Cgroup) -> CgroupStats:
    """All counters; those whose file is absent stay zero. Raises FileNotFoundError when there is no group at all."""
    if not any(os.path.isdir(path) for path in _directories(cgroup)):
        raise FileNotFoundError(2, "the container has no control group", cgroup.path)
    stats = CgroupStats()
    if cgroup.layout.pure_v2:
        _version2(cgroup.unified, stats)
    else:
        _version1(cgroup, stats)
    return stats


def _directories(cgroup: Cgroup) -> list[str]:
    return [path for path in (cgroup.directory("memory"), cgroup.directory("cpuacct"), cgroup.unified) if path]


def _version1(cgroup: Cgroup, stats: CgroupStats) -> None:
    accounting = cgroup.directory("cpuacct")
    stats.cpu_total_ns = _number(accounting + "/cpuacct.usage") or 0
    stats.percpu_ns = [int(word) for word in _text(accounting + "/cpuacct.usage_percpu").split()]
    ticks = read_flat(accounting + "/cpuacct.stat")
    stats.cpu_user_ns = ticks.get("user", 0) * _NS_PER_TICK
    stats.cpu_system_ns = ticks.get("system", 0) * _NS_PER_TICK
    throttled = read_flat(cgroup.directory("cpu") + "/cpu.stat")
    stats.periods, stats.throttled_periods = throttled.get("nr_periods", 0), throttled.get("nr_throttled", 0)
    stats.throttled_ns = throttled.get("throttled_time", 0)
    memory = cgroup.directory("memory")
    stats.memory_usage = _number(memory + "/memory.usage_in_bytes") or 0
    stats.memory_max_usage = _number(memory + "/memory.max_usage_in_bytes") or 0
    stats.memory_failcnt = _number(memory + "/memory.failcnt") or 0
    limit = _number(memory + "/memory.limit_in_bytes")
    stats.memory_limit = None if limit is None or limit >= _NO_LIMIT else limit
    stats.memory_stat = read_flat(memory + "/memory.stat")
    pids = cgroup.directory("pids")
    stats.pids_current = _number(pids + "/pids.current") or 0
    stats.pids_limit = _number(pids + "/pids.max")
    blkio = cgroup.directory("blkio")
    for target, name in ((stats.blkio_service_bytes, "io_service_bytes"), (stats.blkio_serviced, "io_serviced")):
        target.extend(_blkio(blkio, f"blkio.bfq.{name}_recursive") or _blkio(blkio, f"blkio.throttle.{name}_recursive"))


def _blkio(directory: str, name: str) -> list[tuple[int, int, str, int]]:
    """Lines of "major:minor operation value"; a closing "Total value" is left out."""
    found = []
    for line in _text(f"{directory}/{name}").splitlines():
        fields = line.split()
        if len(fields) == 3:
            major, _, minor = fields[0].partition(":")
            found.append((int(major), int(minor), fields[1], int(fields[2])))
    return found


def _version2(directory: str, stats: CgroupStats) -> None:
    cpu = read_flat(directory + "/cpu.stat")
    stats.cpu_total_ns = cpu.get("usage_usec", 0) * _NS_PER_US
    stats.cpu_user_ns = cpu.get("user_usec", 0) * _NS_PER_US
    stats.cpu_system_ns = cpu.get("system_usec", 0) * _NS_PER_US
    stats.periods, stats.throttled_periods = cpu.get("nr_periods", 0), cpu.get("nr_throttled", 0)
    stats.throttled_ns = cpu.get("throttled_usec", 0) * _NS_PER_US
    stats.memory_usage = _number(directory + "/memory.current") or 0
    stats.memory_max_usage = _number(directory + "/memory.peak") or 0
    stats.memory_limit = _number(directory + "/memory.max")
    stats.memory_failcnt = read_flat(directory + "/memory.events").get("max", 0)
    stats.memory_stat = read_flat(directory + "/memory.stat")
    stats.pids_current = _number(directory + "/pids.current") or 0
    stats.pids_limit = _number(directory + "/pids.max")
    for line in _text(directory + "/io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        numbers = (int(major), int(minor))
        for key, operation, target in (
            ("rbytes", "read", stats.blkio_service_bytes),
            ("wbytes", "write", stats.blkio_service_bytes),
            ("rios", "read", stats.blkio_serviced),
            ("wios", "write", stats.blkio_serviced),
        ):
            if key in values:
                target.append((*numbers, operation, int(values[key])))


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    """None for an absent file and for "max"."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None
