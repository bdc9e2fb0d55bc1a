"""Limits and device rules, as what is written into the kernel's files."""

from __future__ import annotations

import itertools
import struct

import pytest

from corten.errors import InvalidArgument
from corten.runtime.cgroups import BPF_FILE, Cgroup, Hierarchy, Layout, parse_layout
from corten.runtime.cgroups_devices import BPF_DEVCG_ACC, BPF_DEVCG_DEV, DeviceRules, bpf_program
from corten.runtime.cgroups_limits import blkio_to_io_weight, compile_limits, shares_to_weight, swap_only
from corten.specs.oci_runtime import (
    CPU,
    BlockIO,
    BlockIODeviceThrottle,
    DeviceCgroup,
    HugepageLimit,
    Memory,
    Pids,
    Resources,
)

V1 = Layout("", tuple(Hierarchy((name,), f"/cg/{name}") for name in ("cpu", "memory", "devices", "freezer")))
V2 = Layout("/cg", ())


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (1, 1), (2, 1), (1024, 100), (512, 59), (262144, 10000), (1 << 30, 10000)]
)
def test_shares(shares: int, weight: int) -> None:
    assert shares_to_weight(shares) == weight


def test_weights() -> None:
    assert [blkio_to_io_weight(weight) for weight in (10, 500, 1000)] == [1, 4950, 10000]


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [(100, 300, 200), (100, 100, 0), (100, -1, -1), (None, -1, -1), (100, None, None), (None, 0, None), (100, 0, None)],
)
def test_swap(limit: int | None, swap: int | None, expected: int | None) -> None:
    assert swap_only(Memory(limit=limit, swap=swap)) == expected


def test_swap_below_memory_is_refused() -> None:
    for limit, swap in ((100, 50), (None, 50)):
        with pytest.raises(InvalidArgument):
            swap_only(Memory(limit=limit, swap=swap))


def resources() -> Resources:
    return Resources(
        memory=Memory(limit=100, swap=300, reservation=50),
        cpu=CPU(shares=1024, quota=5, period=10, cpus="0-1"),
        pids=Pids(limit=-1),
        block_io=BlockIO(throttle_read_bps_device=[BlockIODeviceThrottle(major=8, minor=0, rate=9)]),
        hugepage_limits=[HugepageLimit(page_size="2MB", limit=4)],
    )


def test_version_1() -> None:
    assert compile_limits(resources(), V1) == (
        ("memory", "memory.limit_in_bytes", "100"),
        ("memory", "memory.memsw.limit_in_bytes?", "300"),
        ("memory", "memory.soft_limit_in_bytes?", "50"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "10"),
        ("cpu", "cpu.cfs_quota_us", "5"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("pids", "pids.max", "max"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 9"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4"),
    )


def test_version_2() -> None:
    assert compile_limits(resources(), V2) == (
        ("memory", "memory.max", "100"),
        ("memory", "memory.swap.max?", "200"),
        ("memory", "memory.low", "50"),
        ("cpu", "cpu.weight", "100"),
        ("cpu", "cpu.max", "5 10"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("pids", "pids.max", "max"),
        ("io", "io.max", "8:0 rbps=9"),
        ("hugetlb", "hugetlb.2MB.max", "4"),
    )


def test_unified_only_where_there_is_version_2() -> None:
    asked = Resources(unified={"memory.high": "7"})
    assert compile_limits(asked, V2) == (("memory", "memory.high", "7"),)
    with pytest.raises(InvalidArgument):
        compile_limits(asked, V1)
    for name in ("cgroup.procs", "../x", "noname"):
        with pytest.raises(InvalidArgument):
            compile_limits(Resources(unified={name: "1"}), V2)


# -- device rules ----------------------------------------------------------------------------------------------------

DEFAULT = [
    DeviceCgroup(allow=False, access="rwm"),
    DeviceCgroup(allow=True, type="c", access="m"),
    DeviceCgroup(allow=True, type="b", access="m"),
    DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),
    DeviceCgroup(allow=True, type="c", major=136, access="rwm"),
    DeviceCgroup(allow=True, type="c", major=5, minor=1, access="rw"),
]
OPEN_BUT = [
    DeviceCgroup(allow=True, type="a", access="rwm"),
    DeviceCgroup(allow=False, type="b", major=8, minor=0, access="w"),
    DeviceCgroup(allow=False, type="c", major=10, access="rwm"),
]


def test_device_rules_of_version_1() -> None:
    written = compile_limits(Resources(devices=DEFAULT), V1)
    assert written == (
        ("devices", "devices.deny", "a"),
        ("devices", "devices.allow", "c *:* m\nb *:* m\nc 1:3 rwm\nc 136:* rwm\nc 5:1 rw"),
    )
    assert compile_limits(Resources(devices=OPEN_BUT), V1)[0] == ("devices", "devices.allow", "a")


def test_all_allowed_needs_no_rule() -> None:
    everything = [DeviceCgroup(allow=False), DeviceCgroup(allow=True, type="a", access="rwm")]
    assert compile_limits(Resources(devices=everything), V1) == ()
    assert compile_limits(Resources(devices=everything), V2) == ()


def test_a_rule_can_be_taken_back() -> None:
    rules = DeviceRules.of([*DEFAULT, DeviceCgroup(allow=False, type="c", major=5, minor=1, access="w")])
    assert "c 5:1 r" in [rule.line() for rule in rules.exceptions()]


@pytest.mark.parametrize(
    "rule",
    [
        DeviceCgroup(allow=True, type="x"),
        DeviceCgroup(allow=True, type="c", access="q"),
        DeviceCgroup(allow=True, type="a", major=1),
    ],
)
def test_bad_device_rules(rule: DeviceCgroup) -> None:
    with pytest.raises(InvalidArgument):
        DeviceRules.of([rule])


def interpret(program: bytes, kind: str, access: str, major: int, minor: int) -> int:
    """Run the program as the kernel would: only the instructions that it may contain."""
    wanted = sum(BPF_DEVCG_ACC[letter] for letter in access)
    context = {0: wanted << 16 | BPF_DEVCG_DEV[kind], 4: major, 8: minor}
    registers = [0] * 11
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    at = 0
    while True:
        opcode, both, offset, constant = code[at]
        target, source = both & 15, both >> 4
        at += 1
        match opcode:
            case 0x61:
                registers[target] = context[offset]
            case 0x54:
                registers[target] &= constant
            case 0x74:
                registers[target] >>= constant
            case 0xBC:
                registers[target] = registers[source]
            case 0xB4:
                registers[target] = constant
            case 0x56:
                at += offset if registers[target] != constant else 0
            case 0x16:
                at += offset if registers[target] == constant else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


def expected(rules: DeviceRules, kind: str, access: str, major: int, minor: int) -> int:
    """The kernel's version 1 rule: any one exception decides."""
    matching = [
        rule.access
        for rule in rules.exceptions()
        if rule.kind == kind and rule.major in (None, major) and rule.minor in (None, minor)
    ]
    if rules.allow_by_default:
        return int(not any(set(access) & covered for covered in matching))
    return int(any(set(access) <= covered for covered in matching))


@pytest.mark.parametrize("given", [DEFAULT, OPEN_BUT, [DeviceCgroup(allow=False)]])
def test_the_bpf_program_judges_as_version_1_does(given: list[DeviceCgroup]) -> None:
    rules = DeviceRules.of(given)
    program = bpf_program(rules)
    accesses = ["".join(letters) for size in (1, 2, 3) for letters in itertools.combinations("rwm", size)]
    numbers = [(1, 3), (1, 5), (5, 1), (8, 0), (8, 1), (10, 200), (136, 7), (300000, 70000)]
    for kind, access, (major, minor) in itertools.product("bc", accesses, numbers):
        case = (kind, access, major, minor)
        assert interpret(program, *case) == expected(rules, *case), case


def test_version_2_attaches_a_program() -> None:
    [(controller, name, value)] = compile_limits(Resources(devices=DEFAULT), V2)
    assert (controller, name) == ("devices", BPF_FILE)
    assert isinstance(value, bytes)


# -- what the host has -----------------------------------------------------------------------------------------------


def test_layout_of_a_hybrid_host() -> None:
    layout = parse_layout(
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "34 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "35 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n"
        "36 31 0:3 / /proc rw - proc proc rw\n"
    )
    assert layout.unified == "/sys/fs/cgroup/unified"
    assert not layout.pure_v2
    assert [hierarchy.controllers for hierarchy in layout.v1] == [("cpu", "cpuacct"), ("name=systemd",)]
    group = Cgroup("corten/x/", layout)
    assert group.directory("cpuacct") == "/sys/fs/cgroup/cpu,cpuacct/corten/x"
    assert group.directory("memory") == ""


def test_layout_of_version_2() -> None:
    layout = parse_layout("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n")
    assert layout.pure_v2
    assert Cgroup("/x", layout).directory("memory") == "/sys/fs/cgroup/x"


def test_the_root_is_never_a_containers_group() -> None:
    for path in ("", "/", "//"):
        with pytest.raises(ValueError, match="root"):
            Cgroup(path, V2)
