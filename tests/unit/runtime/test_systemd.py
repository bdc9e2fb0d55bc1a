"""systemd as the cgroup driver: names, properties, and the calls over D-Bus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.errors import InvalidArgument
from corten.runtime import cgroups_systemd
from corten.runtime.cgroups import Hierarchy, Layout
from corten.runtime.cgroups_systemd import SystemdError
from corten.runtime.cgroups_units import (
    INFINITY,
    Scope,
    bits,
    device_properties,
    expand_slice,
    resource_properties,
    scope_of,
    start_properties,
)
from corten.specs.oci_runtime import CPU, BlockIO, DeviceCgroup, Memory, Pids, Resources
from corten.testing.systemd import FakeSystemd

V1 = Layout("", tuple(Hierarchy((name,), f"/cg/{name}") for name in ("cpu", "memory", "blkio")))
V2 = Layout("/cg", ())


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("system.slice:corten:ab12", Scope("corten-ab12.scope", "system.slice", "/system.slice/corten-ab12.scope")),
        (":docker:x", Scope("docker-x.scope", "system.slice", "/system.slice/docker-x.scope")),
        ("a-b-c.slice::x", Scope("x.scope", "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/x.scope")),
        ("-.slice:p:x", Scope("p-x.scope", "-.slice", "/p-x.scope")),
    ],
)
def test_scopes(path: str, scope: Scope) -> None:
    assert scope_of(path) == scope


@pytest.mark.parametrize(
    "path", ["", "/corten/x", "a:b", "a.slice:b:", "a.slice:b:c:d", "a.slice:b:c+d", "a.slice:b:/c"]
)
def test_paths_that_are_no_scopes(path: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.cgroupsPath"):
        scope_of(path)


@pytest.mark.parametrize("name", ["", "a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "../a.slice", "a b.slice"])
def test_names_that_are_no_slices(name: str) -> None:
    with pytest.raises(InvalidArgument, match="not the name of a slice"):
        expand_slice(name)


LIMITS = Resources(
    memory=Memory(limit=100, swap=300, reservation=50),
    cpu=CPU(shares=1024, quota=150_500, period=100_000, cpus="0-1,9", mems="0"),
    pids=Pids(limit=-1),
    block_io=BlockIO(weight=500),
)


def test_limits_of_version_2() -> None:
    assert resource_properties(LIMITS, V2) == [
        ("MemoryMax", "t", 100),
        ("MemoryLow", "t", 50),
        ("MemorySwapMax", "t", 200),
        ("CPUWeight", "t", 100),
        ("CPUQuotaPeriodUSec", "t", 100_000),
        ("CPUQuotaPerSecUSec", "t", 1_510_000),
        ("AllowedCPUs", "ay", b"\x03\x02"),
        ("AllowedMemoryNodes", "ay", b"\x01"),
        ("TasksMax", "t", INFINITY),
        ("IOWeight", "t", 4950),
    ]


def test_limits_of_version_1() -> None:
    names = [(name, value) for name, _, value in resource_properties(LIMITS, V1)]
    assert names[:2] == [("MemoryLimit", 100), ("CPUShares", 1024)]
    assert names[-1] == ("BlockIOWeight", 500)
    assert resource_properties(None, V1) == []


def test_limits_of_version_2_by_their_files() -> None:
    unified = {
        "memory.high": "max",
        "cpu.max": "50000 100000",
        "pids.max": "7",
        "cpuset.cpus": "1",
        "hugetlb.2MB.max": "4",
    }
    assert resource_properties(Resources(unified=unified), V2) == [
        ("MemoryHigh", "t", INFINITY),
        ("CPUQuotaPeriodUSec", "t", 100_000),
        ("CPUQuotaPerSecUSec", "t", 500_000),
        ("TasksMax", "t", 7),
        ("AllowedCPUs", "ay", b"\x02"),
    ]


def test_no_quota() -> None:
    assert resource_properties(Resources(cpu=CPU(quota=-1)), V2) == [("CPUQuotaPerSecUSec", "t", INFINITY)]
    assert resource_properties(Resources(cpu=CPU(quota=5000)), V2) == [("CPUQuotaPerSecUSec", "t", 50_000)]


@pytest.mark.parametrize("text", ["", "a", "2-1", "1-", "99999"])
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        bits(text)


def test_devices_are_allowed_at_least() -> None:
    rules = [
        DeviceCgroup(allow=True, type="c", major=9, minor=9),
        DeviceCgroup(allow=False),
        DeviceCgroup(allow=True, type="c", access="m"),
        DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),
        DeviceCgroup(allow=True, type="c", major=136, minor=-1),
        DeviceCgroup(allow=False, type="c", major=1, minor=3, access="w"),
        DeviceCgroup(allow=True, type="b", major=8, minor=0, access="r"),
    ]
    allowed = [("char-*", "m"), ("/dev/char/1:3", "rwm"), ("char-136", "rwm"), ("/dev/block/8:0", "r")]
    assert device_properties(rules) == [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", allowed)]
    everything = [*rules, DeviceCgroup(allow=True, type="a")]
    assert device_properties(everything) == [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]


# -- calls -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path / "bus") as made:
        yield made


def properties() -> list[Any]:
    resources = Resources(memory=Memory(limit=100), cpu=CPU(cpus="0"), devices=[DeviceCgroup(allow=False)])
    return start_properties(scope_of("a.slice:p:x"), "about it", resources)


@pytest.mark.parametrize("early", [False, True])
def test_a_scope_s_life(systemd: FakeSystemd, early: bool) -> None:
    systemd.early = early
    address = str(systemd.path)
    cgroups_systemd.start_scope(address, "p-x.scope", properties(), 4711)
    unit = systemd.units["p-x.scope"]
    assert unit.pids == [4711]
    assert unit.properties["Slice"] == "a.slice"
    assert unit.properties["Delegate"] is True
    assert unit.properties["DefaultDependencies"] is False
    assert unit.properties["MemoryMax" if "MemoryMax" in unit.properties else "MemoryLimit"] == 100
    assert bytes(unit.properties["AllowedCPUs"]) == b"\x01"
    assert unit.properties["DevicePolicy"] == "strict"
    cgroups_systemd.set_properties(address, "p-x.scope", [("TasksMax", "t", 5)])
    assert unit.properties["TasksMax"] == 5
    cgroups_systemd.stop_scope(address, "p-x.scope")
    assert systemd.units == {}
    cgroups_systemd.stop_scope(address, "p-x.scope")  # it is gone: no error


def test_a_busy_systemd_reads_no_call_together_with_the_greeting(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for more before it answers, as systemd 252 does on its private socket."""
    monkeypatch.setattr(cgroups_systemd, "PRIVATE", str(systemd.path))
    monkeypatch.setattr(cgroups_systemd, "PATIENCE", 10.0)
    systemd.busy = 0.1
    cgroups_systemd.stop_scope(str(systemd.path), "x.scope")
    assert systemd.calls == ["StopUnit", "ResetFailedUnit"]


def test_a_systemd_that_reads_nothing_is_given_up(systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups_systemd, "PATIENCE", 0.2)
    systemd.busy = 2.0
    with pytest.raises(SystemdError, match="does not read within"):
        cgroups_systemd.stop_scope(str(systemd.path), "x.scope")


def test_a_failed_unit_is_cleared_away(systemd: FakeSystemd) -> None:
    address = str(systemd.path)
    cgroups_systemd.start_scope(address, "x.scope", [], 1)
    with pytest.raises(SystemdError, match="already loaded"):
        cgroups_systemd.start_scope(address, "x.scope", [], 2)
    systemd.units["x.scope"].failed = True
    cgroups_systemd.start_scope(address, "x.scope", [], 3)
    assert systemd.units["x.scope"].pids == [3]


def test_a_job_that_fails_says_so(systemd: FakeSystemd) -> None:
    systemd.result = "timeout"
    with pytest.raises(SystemdError, match=r"StartTransientUnit of x\.scope by systemd: timeout"):
        cgroups_systemd.start_scope(str(systemd.path), "x.scope", [], 1)


def test_without_a_bus_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(SystemdError, match="systemd cannot be reached at"):
        cgroups_systemd.stop_scope(str(tmp_path / "no"), "x.scope")


def test_an_unknown_unit_cannot_be_changed(systemd: FakeSystemd) -> None:
    with pytest.raises(SystemdError, match="not loaded"):
        cgroups_systemd.set_properties(str(systemd.path), "x.scope", [])
