"""Limits, as what is written into the kernel's files on each version, and what the host has mounted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corten.errors import InvalidArgument
from corten.runtime.cgroups import Cgroup, Hierarchy, Layout, LimitRefused, Write, parse_layout
from corten.runtime.cgroups_limits import blkio_to_io_weight, compile_limits, limit_warnings, shares_to_weight
from corten.runtime.cgroups_memory import swap_only
from corten.runtime.cgroups_oom import oom_kills
from corten.specs.oci_runtime import (
    CPU,
    BlockIO,
    BlockIODeviceThrottle,
    BlockIODeviceWeight,
    DeviceCgroup,
    HugepageLimit,
    Memory,
    Network,
    NetworkInterfacePriority,
    Pids,
    Rdma,
    Resources,
)

NAMES = ("cpu", "cpuset", "memory", "devices", "freezer", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma")
V1 = Layout("", tuple(Hierarchy((name,), f"/cg/{name}") for name in NAMES))
V2 = Layout("/cg", ())
HYBRID = Layout("/cg/unified", tuple(Hierarchy((name,), f"/cg/{name}") for name in ("cpu", "memory")), ["hugetlb"])


def written(resources: Resources, layout: Layout) -> list[tuple[str, Any]]:
    """Files and values."""
    return [(name, value) for _, name, value, _ in compile_limits(resources, layout)]


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (1, 1), (2, 1), (1024, 100), (512, 59), (262144, 10000), (1 << 30, 10000)]
)
def test_shares(shares: int, weight: int) -> None:
    assert shares_to_weight(shares) == weight


def test_weights() -> None:
    assert [blkio_to_io_weight(weight) for weight in (10, 500, 1000)] == [1, 4950, 10000]


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [(100, 300, 200), (100, 100, 0), (100, -1, -1), (None, -1, -1), (100, None, None), (None, 0, None), (100, 0, None),
     (-1, None, -1), (-1, 300, 300), (None, None, None)],
)  # fmt: skip
def test_swap(limit: int | None, swap: int | None, expected: int | None) -> None:
    assert swap_only(Memory(limit=limit, swap=swap)) == expected


@dataclass
class Case:
    """A limit and what becomes of it; a string is the member that is refused."""

    limits: Resources
    v1: list[tuple[str, Any]] | str
    v2: list[tuple[str, Any]] | str


MIB = 1 << 20
DISK = {"major": 8, "minor": 0}
THROTTLE = [BlockIODeviceThrottle(**DISK, rate=9)]
CASES = {
    "memory": Case(
        Resources(memory=Memory(limit=100, swap=300, reservation=50)),
        [
            ("memory.limit_in_bytes", "100"),
            ("memory.memsw.limit_in_bytes", "300"),
            ("memory.soft_limit_in_bytes", "50"),
        ],
        [("memory.swap.max", "200"), ("memory.max", "100"), ("memory.low", "50")],
    ),
    "memory without limit": Case(
        Resources(memory=Memory(limit=-1)),
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes?", "-1")],
        [("memory.swap.max?", "max"), ("memory.max", "max")],
    ),
    "no swap": Case(
        Resources(memory=Memory(limit=100, swap=100)),
        [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes?", "100")],
        [("memory.swap.max?", "0"), ("memory.max", "100")],
    ),
    "memory that is in use already": Case(
        Resources(memory=Memory(limit=100, swap=300, check_before_update=True)),
        [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "300")],
        [("memory.current<", "300"), ("memory.current<", "100"), ("memory.swap.max", "200"), ("memory.max", "100")],
    ),
    "swap alone": Case(
        Resources(memory=Memory(swap=300)), [("memory.memsw.limit_in_bytes", "300")], "memory.swap"
    ),
    "swap below memory": Case(Resources(memory=Memory(limit=100, swap=50)), "memory.swap", "memory.swap"),
    "swappiness": Case(Resources(memory=Memory(swappiness=60)), [("memory.swappiness", "60")], []),
    "swappiness that is none": Case(Resources(memory=Memory(swappiness=(1 << 64) - 1)), [], []),
    "no OOM killer": Case(Resources(memory=Memory(disable_oom_killer=True)), [("memory.oom_control", "1")], []),
    "kernel memory": Case(Resources(memory=Memory(kernel=MIB)), [], []),
    "TCP's memory": Case(
        Resources(memory=Memory(kernel_tcp=MIB)), [("memory.kmem.tcp.limit_in_bytes", str(MIB))], []
    ),
    "shares": Case(Resources(cpu=CPU(shares=1024)), [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    "quota": Case(
        Resources(cpu=CPU(quota=5000, period=10000, burst=100)),
        [("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "5000"), ("cpu.cfs_burst_us", "100")],
        [("cpu.max", "5000 10000"), ("cpu.max.burst", "100")],
    ),
    "quota alone": Case(
        Resources(cpu=CPU(quota=5000)), [("cpu.cfs_quota_us", "5000")], [("cpu.max", "5000 100000")]
    ),
    "no quota": Case(Resources(cpu=CPU(quota=-1)), [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    "real time": Case(
        Resources(cpu=CPU(realtime_runtime=950, realtime_period=1000)),
        [("cpu.rt_period_us", "1000"), ("cpu.rt_runtime_us", "950")],
        "cpu.realtimeRuntime",
    ),
    "idle": Case(Resources(cpu=CPU(idle=1)), [("cpu.idle", "1")], [("cpu.idle", "1")]),
    "sets": Case(
        Resources(cpu=CPU(cpus="0-1,3", mems="0")),
        [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
    ),
    "pids": Case(Resources(pids=Pids(limit=7)), [("pids.max", "7")], [("pids.max", "7")]),
    "unlimited pids": Case(Resources(pids=Pids(limit=-1)), [("pids.max", "max")], [("pids.max", "max")]),
    "pids not limited": Case(Resources(pids=Pids(limit=0)), [], []),
    "weight": Case(
        Resources(block_io=BlockIO(weight=500)),
        [("blkio.weight|blkio.bfq.weight", "500")],
        [("io.bfq.weight|io.weight", ("500", "4950"))],
    ),
    "leaf weight": Case(
        Resources(block_io=BlockIO(leaf_weight=500)), [("blkio.leaf_weight", "500")], "blockIO.leafWeight"
    ),
    "weights of devices": Case(
        Resources(block_io=BlockIO(weight_device=[BlockIODeviceWeight(**DISK, weight=10)])),
        [("blkio.weight_device|blkio.bfq.weight_device", "8:0 10")],
        [("io.bfq.weight|io.weight", ("8:0 10", "8:0 1"))],
    ),
    "throttles": Case(
        Resources(
            block_io=BlockIO(
                throttle_read_bps_device=THROTTLE,
                throttle_write_bps_device=THROTTLE,
                throttle_read_iops_device=THROTTLE,
                throttle_write_iops_device=[BlockIODeviceThrottle(**DISK, rate=0)],
            )
        ),
        [
            ("blkio.throttle.read_bps_device", "8:0 9"),
            ("blkio.throttle.write_bps_device", "8:0 9"),
            ("blkio.throttle.read_iops_device", "8:0 9"),
            ("blkio.throttle.write_iops_device", "8:0 0"),
        ],
        [("io.max", "8:0 rbps=9"), ("io.max", "8:0 wbps=9"), ("io.max", "8:0 riops=9"), ("io.max", "8:0 wiops=max")],
    ),
    "huge pages": Case(
        Resources(hugepage_limits=[HugepageLimit(page_size="2MB", limit=4)]),
        [("hugetlb.2MB.limit_in_bytes", "4"), ("hugetlb.2MB.rsvd.limit_in_bytes?", "4")],
        [("hugetlb.2MB.max", "4"), ("hugetlb.2MB.rsvd.max?", "4")],
    ),
    "network": Case(
        Resources(network=Network(class_id=0x10001, priorities=[NetworkInterfacePriority(name="eth0", priority=3)])),
        [("net_cls.classid", "65537"), ("net_prio.ifpriomap", "eth0 3")],
        "network.classID",
    ),
    "rdma": Case(
        Resources(rdma={"mlx5_0": Rdma(hca_handles=3, hca_objects=10000)}),
        [("rdma.max", "mlx5_0 hca_handle=3 hca_object=10000")],
        [("rdma.max", "mlx5_0 hca_handle=3 hca_object=10000")],
    ),
    "unified": Case(
        Resources(unified={"memory.high": "7", "cgroup.max.depth": "2"}),
        "unified",
        [("memory.high", "7"), ("cgroup.max.depth", "2")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("name", CASES)
def test_limits(name: str, layout: Layout) -> None:
    case = CASES[name]
    wanted = case.v1 if layout is V1 else case.v2
    if isinstance(wanted, str):
        # Nobody has the network's controllers on version 2; that is found out by the kernel's list there.
        if name == "network":
            layout = Layout("/cg", (Hierarchy(("cpu",), "/cg/cpu"),))
        with pytest.raises(InvalidArgument, match=f"^linux.resources.{wanted}"):
            compile_limits(case.limits, layout)
    else:
        assert written(case.limits, layout) == wanted


OUT_OF_RANGE = [
    ("memory.limit", Resources(memory=Memory(limit=-2))),
    ("memory.reservation", Resources(memory=Memory(reservation=1 << 63))),
    ("memory.swap", Resources(memory=Memory(limit=5, swap=-7))),
    ("memory.swappiness", Resources(memory=Memory(swappiness=101))),
    ("cpu.shares", Resources(cpu=CPU(shares=1))),
    ("cpu.shares", Resources(cpu=CPU(shares=262145))),
    ("cpu.quota", Resources(cpu=CPU(quota=999))),
    ("cpu.period", Resources(cpu=CPU(period=999))),
    ("cpu.period", Resources(cpu=CPU(period=1_000_001))),
    ("cpu.burst", Resources(cpu=CPU(burst=-1))),
    ("cpu.idle", Resources(cpu=CPU(idle=2))),
    ("cpu.cpus", Resources(cpu=CPU(cpus="1-"))),
    ("cpu.mems", Resources(cpu=CPU(mems="0\n1"))),
    ("blockIO.weight", Resources(block_io=BlockIO(weight=9))),
    ("blockIO.weightDevice", Resources(block_io=BlockIO(weight_device=[BlockIODeviceWeight(**DISK, weight=1001)]))),
    ("blockIO.throttleReadBpsDevice", Resources(
        block_io=BlockIO(throttle_read_bps_device=[BlockIODeviceThrottle(**DISK, rate=-1)]))),
    ("hugepageLimits", Resources(hugepage_limits=[HugepageLimit(page_size="../2MB", limit=4)])),
    ("network.classID", Resources(network=Network(class_id=1 << 32))),
    ("network.priorities", Resources(network=Network(priorities=[NetworkInterfacePriority(name="a b", priority=1)]))),
    ("rdma", Resources(rdma={"a b": Rdma(hca_handles=1)})),
    ("rdma.mlx5_0.hcaHandles", Resources(rdma={"mlx5_0": Rdma(hca_handles=-1)})),
    ("devices", Resources(devices=[DeviceCgroup(allow=True, type="c", major=1 << 31)])),
]  # fmt: skip


@pytest.mark.parametrize(("member", "limits"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused_by_the_member_s_name(member: str, limits: Resources) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_limits(limits, V1)
    assert str(caught.value).startswith(f"linux.resources.{member}")


@pytest.mark.parametrize(
    "name", ["cgroup.procs", "cgroup.freeze", "../x", "memory/high", "noname", ".max", "memory.", "pids.max?", "a|b.c"]
)
def test_unified_takes_only_names_of_limits(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.resources\.unified"):
        compile_limits(Resources(unified={name: "1"}), V2)


def test_what_has_no_effect_is_told() -> None:
    memory = Memory(kernel=5, swappiness=60, disable_oom_killer=True, kernel_tcp=4)
    told = [
        text.split()[0].removeprefix("linux.resources.memory.") for text in limit_warnings(Resources(memory=memory), V2)
    ]
    assert told == ["kernel", "swappiness", "disableOOMKiller", "kernelTCP"]
    assert len(list(limit_warnings(Resources(memory=memory), V1))) == 1
    assert list(limit_warnings(Resources(), V2)) == list(limit_warnings(None, V2)) == []


# -- a hybrid of both ------------------------------------------------------------------------------------------------


def test_each_controller_is_looked_for_where_it_is() -> None:
    asked = Resources(memory=Memory(limit=5), hugepage_limits=[HugepageLimit(page_size="2MB", limit=4)])
    assert written(asked, HYBRID) == [
        ("memory.limit_in_bytes", "5"),
        ("hugetlb.2MB.max", "4"),
        ("hugetlb.2MB.rsvd.max?", "4"),
    ]
    group = Cgroup("/x", HYBRID)
    assert group.directory("hugetlb") == "/cg/unified/x"
    assert group.directory("memory") == "/cg/memory/x"
    assert group.directory("pids") == ""


def test_a_controller_that_is_nowhere_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.resources\.pids\.limit .* no cgroup controller pids$"):
        compile_limits(Resources(pids=Pids(limit=5)), HYBRID)


def test_unified_limits_of_a_hybrid() -> None:
    assert written(Resources(unified={"hugetlb.2MB.max": "8"}), HYBRID) == [("hugetlb.2MB.max", "8")]
    with pytest.raises(InvalidArgument, match=r"unified\[memory.high\] cannot be set"):
        compile_limits(Resources(unified={"memory.high": "8"}), HYBRID)


def test_devices_of_a_hybrid_without_the_old_controller_are_judged_by_a_program() -> None:
    [(controller, name, value, _)] = compile_limits(Resources(devices=[DeviceCgroup(allow=False)]), HYBRID)
    assert (controller, name) == ("devices", "devices.bpf")
    assert isinstance(value, bytes)


# -- writing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def flat(tmp_path: Path) -> Cgroup:
    """A group of version 2 made of plain files: memory is there, and io with a weight of one kind."""
    (tmp_path / "x").mkdir()
    for name, text in (
        ("cgroup.controllers", "memory io\n"),
        ("cgroup.subtree_control", "memory io cpu cpuset pids\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / "x" / name).write_text(text)
    for name in ("memory.max", "io.weight"):
        (tmp_path / "x" / name).touch()
    (tmp_path / "x/memory.current").write_text("500\n")
    return Cgroup("/x", Layout(str(tmp_path), ()))


def test_the_first_file_that_exists_gets_its_value(flat: Cgroup) -> None:
    flat.update([("io", "io.bfq.weight|io.weight", ("500", "4950"), "m"), ("memory", "memory.swap.max?", "0", "m")])
    assert Path(flat.unified, "io.weight").read_text() == "4950"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (("pids", "pids.max", "5", "linux.resources.pids.limit"), "the controller pids is not available"),
        (("memory", "memory.new", "5", "linux.resources.unified[memory.new]"), "the kernel has no memory.new"),
        (("memory", "memory.current<", "500", "linux.resources.memory.limit"), "500 is not above what is in use, 500"),
    ],
)
def test_a_limit_that_cannot_be_had_says_why(flat: Cgroup, limit: Write, message: str) -> None:
    with pytest.raises(LimitRefused) as caught:
        flat.update([limit])
    assert str(caught.value).startswith(f"{limit[3]}: {message}")


def test_the_check_of_what_is_in_use_lets_more_pass(flat: Cgroup) -> None:
    flat.update([("memory", "memory.current<", "501", "m"), ("memory", "memory.max", "501", "m")])
    assert Path(flat.unified, "memory.max").read_text() == "501"


def test_kills_are_counted_in_the_whole_tree(tmp_path: Path) -> None:
    (tmp_path / "x/below").mkdir(parents=True)
    for place, count in (("x", 1), ("x/below", 2)):
        (tmp_path / place / "memory.events").write_text(f"oom 9\noom_kill {count}\n")
        (tmp_path / place / "memory.oom_control").write_text(f"under_oom 0\noom_kill {count}\n")
    assert oom_kills(Cgroup("/x", Layout("", (Hierarchy(("memory",), str(tmp_path)),)))) == 3
    assert oom_kills(Cgroup("/x", Layout(str(tmp_path), ()))) == 1, "version 2 has summed it up already"
    assert oom_kills(Cgroup("/x", Layout(str(tmp_path), (), local_events=True))) == 3
    assert oom_kills(Cgroup("/x", Layout("", (Hierarchy(("cpu",), "/nowhere"),)))) == 0


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
    assert layout.version("cpuacct") == 1
    assert layout.version("memory") == 0
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
