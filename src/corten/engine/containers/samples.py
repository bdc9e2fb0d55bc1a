"""`docker stats`: one sample in the API's shape, with the keys of both cgroup versions. Pure, but for /proc/stat."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container
from corten.network.types import InterfaceStats
from corten.runtime.types import CgroupStats
from corten.specs.times import format_time

NEVER = "0001-01-01T00:00:00Z"
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def sample(
    container: Container,
    counters: CgroupStats,
    interfaces: Sequence[InterfaceStats],
    now_ns: int,
    facts: HostFacts,
) -> dict[str, Any]:
    """`precpu_stats` is the caller's to fill in from the sample before."""
    answer = {
        **_head(container, format_time(now_ns)),
        "pids_stats": _pids(counters),
        "blkio_stats": _blkio(counters),
        "cpu_stats": _cpu(counters, facts),
        "memory_stats": _memory(counters, facts),
    }
    if interfaces:
        answer["networks"] = {interface.name: _interface(interface) for interface in interfaces}
    return answer


def empty(container: Container) -> dict[str, Any]:
    """Of a container that does not run."""
    cpu = {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    return {
        **_head(container, NEVER),
        "pids_stats": {},
        "blkio_stats": _blkio(None),
        "cpu_stats": cpu,
        "memory_stats": {},
    }


def _head(container: Container, read: str) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": f"/{container.name}",
        "read": read,
        "preread": NEVER,
        "num_procs": 0,
        "storage_stats": {},
    }


def _pids(counters: CgroupStats) -> dict[str, int]:
    pids = {"current": counters.pids_current}
    if counters.pids_limit is not None:
        pids["limit"] = counters.pids_limit
    return pids


def _cpu(counters: CgroupStats, facts: HostFacts) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_usage": counters.cpu_total_ns,
        "usage_in_kernelmode": counters.cpu_system_ns,
        "usage_in_usermode": counters.cpu_user_ns,
    }
    if counters.percpu_ns:
        usage["percpu_usage"] = counters.percpu_ns
    return {
        "cpu_usage": usage,
        "system_cpu_usage": system_cpu_ns(),
        "online_cpus": facts.cpu_count,
        "throttling_data": {
            "periods": counters.periods,
            "throttled_periods": counters.throttled_periods,
            "throttled_time": counters.throttled_ns,
        },
    }


def _memory(counters: CgroupStats, facts: HostFacts) -> dict[str, Any]:
    limit = counters.memory_limit
    memory: dict[str, Any] = {
        "usage": counters.memory_usage,
        "limit": facts.memory if limit is None else min(limit, facts.memory or limit),
        "stats": counters.memory_stat,
    }
    if facts.cgroup_version == 1:
        memory["max_usage"] = counters.memory_max_usage
        if counters.memory_failcnt:
            memory["failcnt"] = counters.memory_failcnt
    return memory


def _blkio(counters: CgroupStats | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        f"io_{name}_recursive": None
        for name in "service_bytes serviced queue service_time wait_time merged time".split()
    }
    answer["sectors_recursive"] = None
    if counters is not None:
        answer["io_service_bytes_recursive"] = _rows(counters.blkio_service_bytes) or None
        answer["io_serviced_recursive"] = _rows(counters.blkio_serviced) or None
    return answer


def _rows(rows: Sequence[tuple[int, int, str, int]]) -> list[dict[str, Any]]:
    return [{"major": major, "minor": minor, "op": op, "value": value} for major, minor, op, value in rows]


def _interface(stats: InterfaceStats) -> dict[str, int]:
    fields = "rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped"
    return {name: getattr(stats, name) for name in fields.split()}


def system_cpu_ns() -> int:
    """What all CPUs have spent since boot: the first seven columns of /proc/stat, as Docker counts."""
    first = Path("/proc/stat").read_text().partition("\n")[0].split()
    return sum(int(ticks) for ticks in first[1:8]) * _TICK_NS
