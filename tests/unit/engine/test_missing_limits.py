"""Limits that the host has not: taken out, and told."""

from __future__ import annotations

from typing import Any

import pytest

from corten.engine.containers.missing_limits import discard
from corten.engine.hostfacts import HostFacts
from corten.errors import InvalidArgument
from corten.specs.container import Resources, ThrottleDevice, WeightDevice

ASKED: dict[str, Any] = {
    "memory": 64 << 20,
    "memory_reservation": 32 << 20,
    "memory_swappiness": 10,
    "oom_kill_disable": True,
    "pids_limit": 5,
    "cpu_shares": 512,
    "cpu_quota": 5000,
    "cpuset_cpus": "0",
    "blkio_weight": 300,
    "blkio_weight_device": [WeightDevice("/dev/x", 10)],
    "blkio_device_read_bps": [ThrottleDevice("/dev/x", 10)],
    "blkio_device_write_bps": [ThrottleDevice("/dev/x", 10)],
    "blkio_device_read_iops": [ThrottleDevice("/dev/x", 10)],
    "blkio_device_write_iops": [ThrottleDevice("/dev/x", 10)],
}
V1 = frozenset(("memory", "pids", "cpu", "cpuset", "blkio"))
V2 = frozenset(("memory", "pids", "cpu", "cpuset", "io"))


def test_nothing_is_taken_where_all_is_there() -> None:
    limits = Resources(**ASKED)
    assert discard(limits, HostFacts(controllers=V1)) == []
    assert limits == Resources(**ASKED)


def test_version_2_has_no_swappiness_and_no_switch_for_the_oom_killer() -> None:
    limits = Resources(**ASKED)
    warnings = discard(limits, HostFacts(cgroup_version=2, controllers=V2))
    assert [text.rpartition(". ")[2] for text in warnings] == [
        "Memory swappiness discarded.",
        "OomKillDisable discarded.",
    ]
    assert limits == Resources(**{**ASKED, "memory_swappiness": None, "oom_kill_disable": None})


def test_what_the_docker_command_sends_with_every_container_is_no_wish() -> None:
    limits = Resources(memory_swappiness=-1, oom_kill_disable=False, pids_limit=0, blkio_device_read_bps=[])
    assert discard(limits, HostFacts(cgroup_version=2, controllers=frozenset(("freezer",)))) == []


@pytest.mark.parametrize("version", [1, 2])
def test_without_controllers_each_limit_is_taken_out_and_told(version: int) -> None:
    limits = Resources(**ASKED)
    warnings = discard(limits, HostFacts(cgroup_version=version, controllers=frozenset(("freezer",))))
    assert limits == Resources()
    assert len(warnings) == len(ASKED)
    assert "Your kernel does not support IOPS Block write limit or the cgroup is not mounted." in warnings[-1]


def test_memory_without_a_limit_on_swap() -> None:
    limits = Resources(memory=64 << 20)
    [warning] = discard(limits, HostFacts(controllers=V1, swap_limit=False))
    assert warning.endswith("Memory limited without swap.")
    assert limits.memory_swap == -1


def test_cpus_are_relied_on() -> None:
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set"):
        discard(Resources(nano_cpus=10**9), HostFacts(controllers=frozenset(("memory",))))


def test_facts_that_know_nothing_take_nothing() -> None:
    limits = Resources(**ASKED)
    assert discard(limits, HostFacts()) == []
