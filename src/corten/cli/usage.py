"""A sample of the stats endpoint as the numbers that Docker shows."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Sample = dict[str, Any]


class Usage:
    """Percent of one CPU, bytes, and counts."""

    __slots__ = (
        "cpu_percent",
        "id",
        "memory",
        "memory_limit",
        "memory_percent",
        "name",
        "pids",
        "read",
        "received",
        "sent",
        "written",
    )

    def __init__(self, sample: Sample) -> None:
        self.id: str = sample.get("id") or ""
        self.name: str = sample.get("name") or ""
        self.cpu_percent = self.memory_percent = 0.0
        self.memory, self.memory_limit = memory(sample.get("memory_stats") or {})
        self.received, self.sent = network(sample.get("networks") or {})
        self.read, self.written = block(sample.get("blkio_stats") or {})
        self.pids = int((sample.get("pids_stats") or {}).get("current") or 0)
        if self.memory_limit:
            self.memory_percent = self.memory / self.memory_limit * 100.0


def measure(sample: Sample, previous: Sample | None = None) -> Usage:
    """The CPU's share is of the time since the sample before, which the daemon sends along or `previous` is."""
    usage = Usage(sample)
    before = sample.get("precpu_stats") or {}
    if not before.get("system_cpu_usage") and previous:
        before = previous.get("cpu_stats") or {}
    usage.cpu_percent = cpu_percent(sample.get("cpu_stats") or {}, before)
    return usage


def cpu_percent(now: Sample, before: Sample) -> float:
    """Of one CPU: two busy ones are 200."""
    total = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get("total_usage", 0)
    system = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ())
    return total / system * cpus * 100.0 if system > 0 and total > 0 else 0.0


def memory(stats: Sample) -> tuple[int, int]:
    """Use without the page cache that could be dropped at once, and the limit."""
    usage, details = int(stats.get("usage") or 0), stats.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):  # cgroup v1, then v2
        inactive = details.get(key)
        if inactive is not None and inactive < usage:
            return usage - int(inactive), int(stats.get("limit") or 0)
    return usage, int(stats.get("limit") or 0)


def network(interfaces: dict[str, Sample]) -> tuple[int, int]:
    received = sum(int(counters.get("rx_bytes") or 0) for counters in interfaces.values())
    return received, sum(int(counters.get("tx_bytes") or 0) for counters in interfaces.values())


def block(stats: Sample) -> tuple[int, int]:
    """Bytes read and written."""
    read = written = 0
    for entry in stats.get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op") or "")[:1].lower()
        if operation == "r":
            read += int(entry["value"])
        elif operation == "w":
            written += int(entry["value"])
    return read, written
