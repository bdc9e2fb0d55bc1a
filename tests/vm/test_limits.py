"""Every limit of version 2 in its file, and who decides when it is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.runtime.cgroups import Cgroup, LimitRefused, host_layout
from corten.runtime.cgroups_limits import compile_limits
from corten.specs.oci_runtime import (
    CPU,
    BlockIO,
    BlockIODeviceThrottle,
    HugepageLimit,
    Memory,
    Pids,
    Rdma,
    Resources,
)
from tests.compat.harness import Daemon
from tests.vm.machine import ROOT, started, text
from tests.waiting import until

MIB = 1 << 20


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup.create("/limits/g")
    yield made
    made.remove()
    (ROOT / "limits").rmdir()


def update(group: Cgroup, limits: Resources) -> None:
    group.update(compile_limits(limits, host_layout()))


def disk() -> tuple[int, int]:
    major, _, minor = text(Path("/sys/block/vda/dev")).partition(":")
    return int(major), int(minor)


def test_each_limit_reaches_its_file(group: Cgroup) -> None:
    major, minor = disk()
    rate = BlockIODeviceThrottle(major=major, minor=minor, rate=1 << 20)
    update(
        group,
        Resources(
            memory=Memory(limit=64 * MIB, swap=96 * MIB, reservation=32 * MIB),
            cpu=CPU(shares=512, quota=20000, period=50000, burst=10000, cpus="0", mems="0"),
            pids=Pids(limit=9),
            block_io=BlockIO(
                throttle_read_bps_device=[rate],
                throttle_write_bps_device=[rate],
                throttle_read_iops_device=[BlockIODeviceThrottle(major=major, minor=minor, rate=30)],
                throttle_write_iops_device=[BlockIODeviceThrottle(major=major, minor=minor, rate=0)],
            ),
            unified={"memory.high": str(48 * MIB), "cgroup.max.depth": "3"},
        ),
    )
    expected = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "memory.high": str(48 * MIB),
        "cpu.weight": "59",
        "cpu.max": "20000 50000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "9",
        "io.max": f"{major}:{minor} rbps=1048576 wbps=1048576 riops=30 wiops=max",
        "cgroup.max.depth": "3",
    }
    assert {name: text(Path(group.unified, name)) for name in expected} == expected
    update(group, Resources(memory=Memory(limit=-1), cpu=CPU(quota=-1), pids=Pids(limit=-1)))
    assert [text(Path(group.unified, name)) for name in ("memory.max", "memory.swap.max", "pids.max")] == ["max"] * 3
    assert text(Path(group.unified, "cpu.max")) == "max 100000"


def test_weights_of_block_devices(group: Cgroup) -> None:
    """Whichever of the files the kernel has: scaled for one, as it is for the other."""
    limits = Resources(block_io=BlockIO(weight=500))
    found = {name for name in ("io.bfq.weight", "io.weight") if Path(group.unified, name).exists()}
    if not found:
        with pytest.raises(LimitRefused, match=r"blockIO\.weight: the kernel has no io\.bfq\.weight or io\.weight"):
            update(group, limits)
        return
    update(group, limits)
    name, value = ("io.bfq.weight", "default 500") if "io.bfq.weight" in found else ("io.weight", "default 4950")
    assert text(Path(group.unified, name)) in (value, value.removeprefix("default "))


def test_idle(group: Cgroup) -> None:
    update(group, Resources(cpu=CPU(idle=1)))
    assert text(Path(group.unified, "cpu.idle")) == "1"


def test_controllers_that_few_ask_for_are_handed_down_when_one_does(group: Cgroup) -> None:
    available = text(ROOT / "cgroup.controllers").split()
    assert "hugetlb" in available
    assert "hugetlb" not in text(Path(group.unified, "cgroup.controllers")).split()
    update(group, Resources(hugepage_limits=[HugepageLimit(page_size="2MB", limit=4 * MIB)]))
    assert text(Path(group.unified, "hugetlb.2MB.max")) == str(4 * MIB)
    assert text(Path(group.unified, "hugetlb.2MB.rsvd.max")) == str(4 * MIB)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Resources(unified={"memory.nothing": "1"}), "unified[memory.nothing]: the kernel has no memory.nothing"),
        (Resources(unified={"nothing.max": "1"}), "unified[nothing.max]: the controller nothing is not available"),
        (Resources(cpu=CPU(cpus="4000")), "cpu.cpus: writing '4000' to cpuset.cpus"),
        (Resources(rdma={"none0": Rdma(hca_handles=1)}), "rdma.none0: "),
        (Resources(unified={"memory.high": "many"}), "unified[memory.high]: writing 'many' to memory.high: invalid"),
    ],
)
def test_refusals_are_named(group: Cgroup, limits: Resources, message: str) -> None:
    with pytest.raises(LimitRefused) as caught:
        update(group, limits)
    assert str(caught.value).startswith(f"linux.resources.{message}")


def test_a_check_before_an_update(daemon: Daemon) -> None:
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=30 2>/dev/null; echo full > /done; sleep 1000"
    path = started(daemon, "-m", "64m", command=("sh", "-c", script))
    daemon.ok("exec", "box", "sh", "-c", "until [ -e /done ]; do sleep 0.1; done")
    group = Cgroup("/" + str(path.relative_to(ROOT)))
    with pytest.raises(LimitRefused, match=r"memory\.limit: 16777216 is not above what is in use"):
        update(group, Resources(memory=Memory(limit=16 * MIB, swap=80 * MIB, check_before_update=True)))
    assert text(path / "memory.max") == str(64 * MIB)
    assert text(path / "memory.events").find("oom_kill 0") >= 0


def test_a_group_without_the_controller_says_so() -> None:
    """As in a container to which not all was delegated."""
    top = ROOT / "narrow"
    top.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as busy:  # in the group above ours, which then hands nothing down
        (top / "cgroup.procs").write_text(str(busy.pid))
        try:
            with pytest.raises(LimitRefused, match=r"pids\.limit: the controller pids is not available to the cgroup"):
                Cgroup.create("/narrow/g", compile_limits(Resources(pids=Pids(limit=5)), host_layout()))
            assert not (top / "g").exists()
        finally:
            busy.kill()
    until(lambda: not text(top / "cgroup.procs"), what="the end of the process")
    top.rmdir()
