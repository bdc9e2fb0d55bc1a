"""`events`: the counters of a container in runc's JSON form, and its OOM events, a line each."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import Any

from msgspec import json

from corten.errors import Conflict, InvalidArgument, clip
from corten.linux.process import pidfd_open
from corten.runtime.cgroups import Cgroup, read_flat
from corten.runtime.cgroups_oom import OomWatch
from corten.runtime.cgroups_stats import read_stats
from corten.runtime.oci.options import Options
from corten.runtime.oci.state import Record, Store
from corten.runtime.shim.loop import Loop
from corten.runtime.types import CgroupStats
from corten.specs.times import SECOND, parse_duration

_NO_LIMIT = (1 << 64) - 1  # as runc says "none"


def events(store: Store, options: Options) -> None:
    """Print until the container has ended, or the counters once. Raises NotFound, Conflict, InvalidArgument."""
    record = store.load(options.args[0])
    interval = duration(options.text("interval", "5s"))
    if store.status(record) == "stopped":
        raise Conflict(f"container {record.id} is not running")
    if options.has("stats"):
        _emit({"type": "stats", "id": record.id, "data": stats_document(Cgroup(record.cgroup))})
    else:
        _Stream(record, interval).run()


def duration(text: str) -> float:
    """Go's "5s", "1m30s", "250ms" in seconds. Raises InvalidArgument."""
    try:
        length = parse_duration(text)
    except ValueError:
        length = 0
    if length <= 0:
        raise InvalidArgument(f"invalid value {clip(text, 40)!r} for --interval: a duration such as 5s is wanted")
    return length / SECOND


class _Stream:
    def __init__(self, record: Record, interval: float) -> None:
        self._id, self._group, self._interval = record.id, Cgroup(record.cgroup), interval
        self._loop = Loop()
        try:
            self._pidfd = pidfd_open(record.pid)
        except ProcessLookupError:
            raise Conflict(f"container {record.id} is not running") from None

    def run(self) -> None:
        watch = OomWatch(self._group, self._loop, lambda: _emit({"type": "oom", "id": self._id}))
        self._loop.watch(self._pidfd, select.EPOLLIN, self._ended)
        self._loop.after(self._interval, "stats", self._tell)
        try:
            self._loop.run()
        finally:
            watch.close()
            os.close(self._pidfd)

    def _tell(self) -> None:
        try:
            _emit({"type": "stats", "id": self._id, "data": stats_document(self._group)})
        except FileNotFoundError:  # it has ended and is deleted
            self._loop.stopped = True
            return
        self._loop.after(self._interval, "stats", self._tell)

    def _ended(self, events: int) -> None:
        self._loop.stopped = True


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.encode(event) + b"\n")
    sys.stdout.buffer.flush()


def stats_document(group: Cgroup) -> dict[str, Any]:
    """The counters as runc's callers know them. Raises FileNotFoundError when there is no group."""
    stats = read_stats(group)
    return {
        "cpu": _cpu(stats),
        "cpuset": {},
        "memory": _memory(stats, group),
        "pids": _without_none({"current": stats.pids_current, "limit": stats.pids_limit}),
        "blkio": {
            "ioServiceBytesRecursive": _entries(stats.blkio_service_bytes),
            "ioServicedRecursive": _entries(stats.blkio_serviced),
        },
        "hugetlb": _hugetlb(group),
        "intel_rdt": {},
        "network_interfaces": [],
    }


def _cpu(stats: CgroupStats) -> dict[str, Any]:
    usage = {"total": stats.cpu_total_ns, "kernel": stats.cpu_system_ns, "user": stats.cpu_user_ns}
    if stats.percpu_ns:
        usage["percpu"] = stats.percpu_ns  # type: ignore[assignment]  # the one list among numbers
    throttling = {
        "periods": stats.periods,
        "throttledPeriods": stats.throttled_periods,
        "throttledTime": stats.throttled_ns,
    }
    return {"usage": usage, "throttling": throttling}


def _memory(stats: CgroupStats, group: Cgroup) -> dict[str, Any]:
    usage = {
        "limit": _NO_LIMIT if stats.memory_limit is None else stats.memory_limit,
        "usage": stats.memory_usage,
        "max": stats.memory_max_usage,
        "failcnt": stats.memory_failcnt,
    }
    cache = stats.memory_stat.get("cache", stats.memory_stat.get("file", 0))
    found: dict[str, Any] = {"cache": cache, "usage": usage, "raw": stats.memory_stat}
    directory = group.directory("memory")
    for key, name in (("swap", "memsw"), ("kernel", "kmem"), ("kernelTCP", "kmem.tcp")):
        counted = _v1_usage(f"{directory}/memory.{name}")
        if counted:
            found[key] = counted
    return found


def _v1_usage(prefix: str) -> dict[str, int]:
    names = {"limit": "limit_in_bytes", "usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
    return _without_none({key: _number(f"{prefix}.{name}") for key, name in names.items()})


def _hugetlb(group: Cgroup) -> dict[str, Any]:
    """By page size; usage and the largest usage in bytes."""
    directory = group.directory("hugetlb")
    found: dict[str, Any] = {}
    try:
        names = os.listdir(directory) if directory else []
    except OSError:
        return found
    for name in sorted(names):
        controller, _, rest = name.partition(".")
        page, _, what = rest.partition(".")
        if controller == "hugetlb" and what in ("usage_in_bytes", "current"):
            prefix = f"{directory}/hugetlb.{page}"
            failures = _number(f"{prefix}.failcnt")
            if failures is None:
                failures = read_flat(f"{prefix}.events").get("max", 0)
            usage = _number(f"{directory}/{name}") or 0
            found[page] = {"usage": usage, "max": _number(f"{prefix}.max_usage_in_bytes") or 0, "failcnt": failures}
    return found


def _entries(counted: Sequence[tuple[int, int, str, int]]) -> list[dict[str, Any]]:
    return [{"major": major, "minor": minor, "op": op, "value": value} for major, minor, op, value in counted]


def _without_none(members: dict[str, int | None]) -> dict[str, int]:
    return {key: value for key, value in members.items() if value is not None}


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
