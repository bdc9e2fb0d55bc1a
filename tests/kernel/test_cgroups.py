"""A control group with processes in it, on whatever the host has mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.errors import InvalidArgument
from corten.runtime.cgroups import Cgroup, GroupInUse, LimitRefused, host_layout
from corten.runtime.cgroups_limits import compile_limits
from corten.runtime.cgroups_oom import OomWatch
from corten.runtime.cgroups_stats import read_stats
from corten.runtime.shim.loop import Loop
from corten.specs.oci_runtime import (
    CPU,
    BlockIO,
    BlockIODeviceThrottle,
    BlockIODeviceWeight,
    DeviceCgroup,
    HugepageLimit,
    Memory,
    Network,
    Pids,
    Resources,
)
from tests.kernel.launching import SRC, leftovers, needs_root, remove_parents
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]

PARENT = f"/corten-test-{os.getpid()}"


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup.create(PARENT + "/g", compile_limits(Resources(pids=Pids(limit=30)), host_layout()))
    yield made
    made.kill_all()
    made.remove()
    assert not leftovers(PARENT + "/g")
    remove_parents(PARENT)


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_members(group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    assert group.pids() == []
    first, second = sleeper(), sleeper()
    group.add(first.pid)
    group.add(second.pid)
    assert sorted(group.pids()) == sorted((first.pid, second.pid))
    paths = Path(f"/proc/{first.pid}/cgroup").read_text()
    assert f":pids:{PARENT}/g" in paths or f"0::{PARENT}/g" in paths


def test_frozen_processes_stand_still(group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    group.add(process.pid)

    def ticks() -> int:
        return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11])

    group.freeze()
    before = ticks()
    subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"], check=True)
    assert ticks() == before
    group.thaw()
    until(lambda: ticks() > before, what="the process to go on")


def test_kill_all_ends_frozen_and_nested_processes(
    group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    frozen, nested = sleeper(), sleeper()
    group.add(frozen.pid)
    below = Cgroup.create(group.path + "/below")
    below.add(nested.pid)
    assert sorted(group.pids()) == sorted((frozen.pid, nested.pid))
    group.freeze()
    group.kill_all()
    assert (frozen.wait(10), nested.wait(10)) == (-9, -9)
    group.remove()
    assert not leftovers(group.path)


def test_update_and_stats(group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    group.add(process.pid)
    wanted = Resources(memory=Memory(limit=32 << 20), cpu=CPU(quota=20000, period=100000), pids=Pids(limit=7))
    group.update(compile_limits(wanted, host_layout()))
    until(lambda: read_stats(group).cpu_total_ns > 0, what="the processor's time to be counted")
    stats = read_stats(group)
    assert (stats.memory_limit, stats.pids_limit, stats.pids_current) == (32 << 20, 7, 1)
    until(lambda: read_stats(group).throttled_periods > 0, what="the processor's time to be limited")
    group.update(compile_limits(Resources(memory=Memory(limit=64 << 20)), host_layout()))
    assert read_stats(group).memory_limit == 64 << 20


def test_no_limit_is_none(group: Cgroup) -> None:
    assert read_stats(group).memory_limit is None


def test_stats_of_nothing_raise() -> None:
    with pytest.raises(FileNotFoundError):
        read_stats(Cgroup(PARENT + "/never"))


def test_a_group_that_cannot_be_made_leaves_nothing() -> None:
    with pytest.raises(OSError):
        Cgroup.create(PARENT + "/bad", [("pids", "pids.max", "nonsense", "linux.resources.pids.limit")])
    assert not leftovers(PARENT + "/bad")
    remove_parents(PARENT)


def test_removing_twice_is_no_error() -> None:
    made = Cgroup.create(PARENT + "/twice")
    made.remove()
    made.remove()
    made.kill_all()
    assert made.pids() == []
    remove_parents(PARENT)


def test_groups_made_at_once_below_a_new_parent_take_processes() -> None:
    """Of several launches that make the parent together none finds it half made (cpuset: no space left on device)."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from corten.runtime.cgroups import Cgroup\n"
        "group = Cgroup.create(sys.argv[2]); group.enter_v1()\n"
    )
    for attempt in range(5):
        parent = f"{PARENT}/{attempt}"
        names = [f"{parent}/{number}" for number in range(8)]
        running = [
            subprocess.Popen([sys.executable, "-I", "-S", "-c", code, SRC, name], stderr=subprocess.PIPE)
            for name in names
        ]
        errors = [process.communicate()[1] for process in running]
        for name in (*names, parent):
            Cgroup(name).remove()
        assert errors == [b""] * len(names)
    remove_parents(PARENT)


# -- each file that this host has ------------------------------------------------------------------------------------

V1_ONLY = pytest.mark.skipif(host_layout().version("memory") != 1, reason="the files of version 1 are looked at")


def block_device() -> tuple[int, int]:
    for name in sorted(os.listdir("/sys/block")):
        major, _, minor = Path(f"/sys/block/{name}/dev").read_text().strip().partition(":")
        return int(major), int(minor)
    pytest.skip("the host has no block device")


def value(group: Cgroup, controller: str, name: str) -> str:
    return Path(group.directory(controller), name).read_text().strip()


MIB = 1 << 20


@V1_ONLY
def test_each_limit_reaches_its_file(group: Cgroup) -> None:
    major, minor = block_device()
    device = {"major": major, "minor": minor}
    wanted = Resources(
        memory=Memory(
            limit=64 * MIB, swap=96 * MIB, reservation=32 * MIB, swappiness=7, disable_oom_killer=True, kernel_tcp=MIB
        ),
        cpu=CPU(shares=512, quota=20000, period=50000, burst=10000, cpus="0", mems="0"),
        pids=Pids(limit=9),
        block_io=BlockIO(
            weight=300,
            throttle_read_bps_device=[BlockIODeviceThrottle(**device, rate=1000)],
            throttle_write_bps_device=[BlockIODeviceThrottle(**device, rate=2000)],
            throttle_read_iops_device=[BlockIODeviceThrottle(**device, rate=30)],
            throttle_write_iops_device=[BlockIODeviceThrottle(**device, rate=40)],
        ),
    )
    group.update(compile_limits(wanted, host_layout()))
    expected = {
        ("memory", "memory.limit_in_bytes"): str(64 * MIB),
        ("memory", "memory.memsw.limit_in_bytes"): str(96 * MIB),
        ("memory", "memory.soft_limit_in_bytes"): str(32 * MIB),
        ("memory", "memory.kmem.tcp.limit_in_bytes"): str(MIB),
        ("memory", "memory.swappiness"): "7",
        ("cpu", "cpu.shares"): "512",
        ("cpu", "cpu.cfs_quota_us"): "20000",
        ("cpu", "cpu.cfs_period_us"): "50000",
        ("cpu", "cpu.cfs_burst_us"): "10000",
        ("cpuset", "cpuset.cpus"): "0",
        ("cpuset", "cpuset.mems"): "0",
        ("pids", "pids.max"): "9",
        ("blkio", "blkio.throttle.read_bps_device"): f"{major}:{minor} 1000",
        ("blkio", "blkio.throttle.write_bps_device"): f"{major}:{minor} 2000",
        ("blkio", "blkio.throttle.read_iops_device"): f"{major}:{minor} 30",
        ("blkio", "blkio.throttle.write_iops_device"): f"{major}:{minor} 40",
    }
    assert {key: value(group, *key) for key in expected} == expected
    assert "oom_kill_disable 1" in value(group, "memory", "memory.oom_control")
    weights = [value(group, "blkio", name) for name in ("blkio.weight", "blkio.bfq.weight")
               if Path(group.directory("blkio"), name).exists()]  # fmt: skip
    assert weights == ["300"]


@V1_ONLY
def test_limits_go_up_and_down_and_away(group: Cgroup) -> None:
    for limit, swap in ((64, 128), (256, 512), (16, 32)):
        memory = Memory(limit=limit * MIB, swap=swap * MIB)
        group.update(compile_limits(Resources(memory=memory), host_layout()))
        assert value(group, "memory", "memory.memsw.limit_in_bytes") == str(swap * MIB)
    group.update(compile_limits(Resources(memory=Memory(limit=-1), cpu=CPU(quota=-1)), host_layout()))
    assert read_stats(group).memory_limit is None
    assert int(value(group, "memory", "memory.memsw.limit_in_bytes")) > 1 << 60
    assert value(group, "cpu", "cpu.cfs_quota_us") == "-1"


@V1_ONLY
def test_a_quota_and_a_period_that_bound_each_other(group: Cgroup) -> None:
    for cpu in (CPU(quota=900_000, period=1_000_000), CPU(quota=5000, period=10_000), CPU(quota=100_000, burst=90_000)):
        group.update(compile_limits(Resources(cpu=cpu), host_layout()))
    assert value(group, "cpu", "cpu.cfs_burst_us") == "90000"


@V1_ONLY
def test_idle(group: Cgroup) -> None:
    group.update(compile_limits(Resources(cpu=CPU(idle=1)), host_layout()))
    assert value(group, "cpu", "cpu.idle") == "1"


@V1_ONLY
def test_a_weight_of_a_device_that_its_scheduler_does_not_know(group: Cgroup) -> None:
    major, minor = block_device()
    device = BlockIODeviceWeight(major=major, minor=minor, weight=300)
    limits = compile_limits(Resources(block_io=BlockIO(weight_device=[device])), host_layout())
    refusal = ""
    try:
        group.update(limits)
    except LimitRefused as refused:
        refusal = str(refused)
    if refusal:
        assert refusal.startswith("linux.resources.blockIO.weightDevice[0]: writing"), refusal
    else:
        assert f"{major}:{minor} 300" in value(group, "blkio", "blkio.bfq.weight_device")


@pytest.mark.skipif(host_layout().version("hugetlb") != 2, reason="huge pages are not version 2's here")
def test_huge_pages_of_version_2_on_a_hybrid_host(group: Cgroup) -> None:
    """The controller is found in the v2 mount, and handed down just because a limit asks for it."""
    sizes = [name.removeprefix("hugepages-").removesuffix("kB") for name in os.listdir("/sys/kernel/mm/hugepages")]
    size = min(map(int, sizes)) >> 10
    limit = HugepageLimit(page_size=f"{size}MB", limit=4 * MIB * size)
    assert not Path(group.unified, f"hugetlb.{size}MB.max").exists()
    group.update(compile_limits(Resources(hugepage_limits=[limit]), host_layout()))
    assert value(group, "hugetlb", f"hugetlb.{size}MB.max") == str(4 * MIB * size)
    assert value(group, "hugetlb", f"hugetlb.{size}MB.rsvd.max") == str(4 * MIB * size)
    group.update(compile_limits(Resources(unified={f"hugetlb.{size}MB.max": "max"}), host_layout()))
    assert value(group, "hugetlb", f"hugetlb.{size}MB.max") == "max"
    with pytest.raises(LimitRefused, match=r"unified\[hugetlb.99GB.max\]: the kernel has no hugetlb.99GB.max"):
        group.update(compile_limits(Resources(unified={"hugetlb.99GB.max": "1"}), host_layout()))


@pytest.mark.skipif(host_layout().version("net_cls") != 0, reason="the host has the network's controllers")
def test_a_limit_without_its_controller() -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.resources\.network\.classID .* no cgroup controller net_cls"):
        compile_limits(Resources(network=Network(class_id=5)), host_layout())


@V1_ONLY
def test_what_the_kernel_refuses_is_named(group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    for resources, text in (
        (Resources(cpu=CPU(cpus="4000")), "linux.resources.cpu.cpus: writing '4000' to cpuset.cpus: "),
        (Resources(cpu=CPU(realtime_runtime=950, realtime_period=1000)), "linux.resources.cpu.realtime"),
    ):
        with pytest.raises(LimitRefused) as caught:
            group.update(compile_limits(resources, host_layout()))
        assert str(caught.value).startswith(text)


@V1_ONLY
def test_device_rules_of_a_group(group: Cgroup) -> None:
    rules = [
        DeviceCgroup(allow=False),
        DeviceCgroup(allow=True, type="c", access="m"),
        DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),
        DeviceCgroup(allow=True, type="c", major=1, minor=5, access="rw"),
        DeviceCgroup(allow=False, type="c", major=1, minor=5, access="w"),
    ]
    made = Cgroup.create(group.path + "/rules", compile_limits(Resources(devices=rules), host_layout()))
    try:
        assert value(made, "devices", "devices.list").splitlines() == ["c *:* m", "c 1:3 rwm", "c 1:5 r"]
        made.update(compile_limits(Resources(devices=[DeviceCgroup(allow=True)], pids=Pids(limit=5)), host_layout()))
        assert len(value(made, "devices", "devices.list").splitlines()) == 3, "an update leaves the devices"
    finally:
        made.remove()


# -- groups that are there already -----------------------------------------------------------------------------------


def test_a_group_with_processes_is_not_taken(group: Cgroup, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    group.add(process.pid)
    with pytest.raises(GroupInUse, match="not empty: 1 process"):
        Cgroup.create(group.path)
    assert group.pids() == [process.pid], "it is left as it was"


def test_a_frozen_group_is_not_taken(group: Cgroup) -> None:
    group.freeze()
    with pytest.raises(GroupInUse, match="unexpectedly frozen"):
        Cgroup.create(group.path)
    group.thaw()
    Cgroup.create(group.path)


def test_what_a_crash_has_left_is_used_again(group: Cgroup) -> None:
    group.update(compile_limits(Resources(pids=Pids(limit=3)), host_layout()))
    again = Cgroup.create(group.path, compile_limits(Resources(pids=Pids(limit=8)), host_layout()))
    assert read_stats(again).pids_limit == 8


# -- out of memory ---------------------------------------------------------------------------------------------------

HUNGRY = "x = bytearray(64 << 20)"


def hungry(group: Cgroup) -> subprocess.Popen[bytes]:
    """A process that takes more memory than it may as soon as it is in the group."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"input(); {HUNGRY}"], stdin=subprocess.PIPE)
    group.add(process.pid)
    process.communicate(b"\n", 30)
    return process


@pytest.mark.skipif(not host_layout().version("memory"), reason="the host has no memory controller")
@pytest.mark.parametrize("below", ["", "/below"])
def test_kills_for_want_of_memory_are_told_at_once(group: Cgroup, below: str) -> None:
    """Of the group, and of a group below that hits its parent's limit."""
    limits = compile_limits(Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)), host_layout())
    group.update(limits)
    inner = Cgroup.create(group.path + below) if below else group
    loop, told = Loop(), []
    watch = OomWatch(group, loop, lambda: told.append(True))
    loop.after(20, "deadline", lambda: pytest.fail("nothing was told"))
    for number in (1, 2):
        assert hungry(inner).returncode == -9
        while len(told) < number:
            loop.turn()
    watch.close()
    assert len(told) == 2
    loop.close()
    if below:
        inner.remove()


def test_a_group_that_is_removed_ends_its_watch(group: Cgroup) -> None:
    made = Cgroup.create(group.path + "/short")
    loop, told = Loop(), []
    before = len(os.listdir("/proc/self/fd"))
    watch = OomWatch(made, loop, lambda: told.append(True))
    made.remove()
    loop.after(0.05, "look", lambda: setattr(loop, "stopped", True))
    loop.run()
    watch.close()
    assert (told, len(os.listdir("/proc/self/fd"))) == ([], before)
    loop.close()
