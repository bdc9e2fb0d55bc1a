"""A control group with processes in it, on whatever the host has mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.runtime.cgroups import Cgroup, host_layout
from corten.runtime.cgroups_limits import compile_limits
from corten.runtime.cgroups_stats import read_stats
from corten.specs.oci_runtime import CPU, Memory, Pids, Resources
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
        Cgroup.create(PARENT + "/bad", [("pids", "pids.max", "nonsense")])
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
