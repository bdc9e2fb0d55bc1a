"""CPU and memory as Docker computes them from a sample."""

from __future__ import annotations

from typing import Any

import pytest

from corten.cli.usage import measure


def cpu(total: int, system: int, cpus: int = 2) -> dict[str, Any]:
    return {"cpu_usage": {"total_usage": total}, "system_cpu_usage": system, "online_cpus": cpus}


def test_one_of_two_cpus_busy() -> None:
    assert measure({"cpu_stats": cpu(200, 400), "precpu_stats": cpu(100, 200)}).cpu_percent == 100.0


def test_the_first_sample_of_a_stream_has_nothing_to_compare() -> None:
    first = {"cpu_stats": cpu(200, 400), "precpu_stats": {}}
    second = {"cpu_stats": cpu(250, 600), "precpu_stats": {}}
    assert measure(second, first).cpu_percent == 50.0
    assert measure({"cpu_stats": cpu(200, 400), "precpu_stats": cpu(200, 400)}).cpu_percent == 0.0


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        ({"total_inactive_file": 30}, 70),
        ({"inactive_file": 40}, 60),
        ({"total_inactive_file": 300, "inactive_file": 300}, 100),
        ({}, 100),
    ],
)
def test_the_page_cache_does_not_count(stats: dict[str, int], used: int) -> None:
    usage = measure({"memory_stats": {"usage": 100, "limit": 200, "stats": stats}})
    assert (usage.memory, usage.memory_limit, usage.memory_percent) == (used, 200, used / 2)


def test_what_went_in_and_out() -> None:
    operations = [{"op": "Read", "value": 1}, {"op": "write", "value": 2}, {"op": "read", "value": 4}]
    usage = measure(
        {
            "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
            "blkio_stats": {"io_service_bytes_recursive": operations},
            "pids_stats": {"current": 3},
        }
    )
    assert (usage.received, usage.sent, usage.read, usage.written, usage.pids) == (11, 22, 5, 2, 3)


def test_a_container_that_does_not_run_has_no_counters() -> None:
    usage = measure({"memory_stats": {}, "blkio_stats": {"io_service_bytes_recursive": None}, "pids_stats": {}})
    assert (usage.memory, usage.read, usage.pids, usage.cpu_percent) == (0, 0, 0, 0.0)
