"""Namespaces of a specification: which are made and joined, what may be mapped, and who does what."""

from __future__ import annotations

import marshal
from collections.abc import Callable

import pytest

from corten.errors import InvalidArgument
from corten.linux import process as kernel
from corten.runtime import steps
from corten.runtime.plan import LaunchPlan, compile_exec
from corten.runtime.plan_namespaces import NAMESPACES, mappings_of
from corten.runtime.types import MountSpec
from corten.specs.oci_runtime import (
    Device,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Spec,
    TimeOffset,
)
from tests.unit.runtime.test_plan import compiled, of, spec

Change = Callable[[Spec, Linux, Process], None]


def mapping(container: int, host: int, size: int) -> IDMapping:
    return IDMapping(container_id=container, host_id=host, size=size)


def remap(linux: Linux, path: str = "") -> None:
    linux.namespaces.append(Namespace(type="user", path=path))
    linux.uid_mappings = [mapping(0, 100000, 65536)]
    linux.gid_mappings = [mapping(0, 200000, 65536)]


def remapped(change: Change | None = None, path: str = "", options: tuple[str, ...] = ("idmap",)) -> LaunchPlan:
    def both(made: Spec, linux: Linux, process: Process) -> None:
        remap(linux, path)
        if change is not None:
            change(made, linux, process)

    layers = MountSpec("overlay", "overlay", options=("lowerdir=/b:/a", "upperdir=/u", "workdir=/w", *options))
    return compiled(both, rootfs=(layers,))


def prepared(plan: LaunchPlan, kind: type[steps.Step]) -> list[steps.Step]:
    return [step for step in plan.prepare if isinstance(step, kind)]


def test_an_ordinary_plan_has_one_stage() -> None:
    plan = compiled()
    assert (plan.prepare, plan.user, plan.time_offsets, plan.cgroup_owner) == ((), None, "", -1)


def test_a_user_namespace_is_no_flag_of_the_clone() -> None:
    plan = remapped()
    assert plan.user == ("", ((0, 100000, 65536),), ((0, 200000, 65536),))
    assert not plan.flags & kernel.CLONE_NEWUSER
    assert marshal.loads(plan.to_wire())["prepare"][0][0] == "SetPropagation"


def test_all_eight_kinds_are_made() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces = [Namespace(type=kind) for kind in NAMESPACES if kind != "user"]
        remap(linux)

    plan = compiled(change)
    made = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
    assert plan.flags == made | kernel.CLONE_NEWTIME
    assert plan.unshare_cgroup
    assert plan.user is not None


def test_all_eight_kinds_are_joined() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces = [Namespace(type=kind, path=f"/proc/7/ns/{kind}") for kind in NAMESPACES]

    plan = compiled(change)
    assert plan.flags == 0
    assert not plan.unshare_cgroup
    assert plan.pid_namespace == "/proc/7/ns/pid"
    assert plan.user == ("/proc/7/ns/user", (), ())
    assert {kind for kind, _ in plan.joins} == set(NAMESPACES.values()) - {kernel.CLONE_NEWPID, kernel.CLONE_NEWUSER}
    assert plan.prepare


def test_what_the_hosts_root_does_for_a_remapped_container() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts += [
            Mount(destination="/data", type="bind", source="/srv/data", options=["rbind", "ro"]),
            Mount(destination="/sys", type="sysfs", source="sysfs"),
            Mount(destination="/disk", type="ext4", source="/dev/vdb"),
        ]
        linux.devices = [Device(type="c", path="/dev/fuse", major=10, minor=229, uid=5, gid=6)]
        process.oom_score_adj = -5
        process.rlimits = [Rlimit(type="RLIMIT_NOFILE", soft=10, hard=20)]

    plan = remapped(change)
    assert prepared(plan, steps.HoldOverlay) == [
        steps.HoldOverlay("", ("/b", "/a"), "/u", "/w", (), (0, 0, 0, 0, ()), (False, (), ()))
    ]
    assert prepared(plan, steps.HoldTree) == [steps.HoldTree("/data", "/srv/data", True)]
    # The network namespace is joined by path: root inside may not mount its /sys. Its /proc he may.
    kinds = [step.kind for step in prepared(plan, steps.HoldFileSystem) if isinstance(step, steps.HoldFileSystem)]
    assert kinds == ["sysfs", "ext4"]
    [devices] = [step for step in plan.prepare if isinstance(step, steps.HoldDevices)]
    assert devices.devices[-1] == ("/dev/fuse", "c", 10, 229, 0o666, 5, 6)
    assert devices.devices[0][0] == "/dev/null"
    assert prepared(plan, steps.SetOomScore) == [steps.SetOomScore(-5)]
    assert prepared(plan, steps.RaiseRlimits) == [steps.RaiseRlimits(((7, 10, 20),))]
    # All but the score and the propagation is also a step of the child's, which attaches what is held.
    assert of(plan, steps.SetOomScore) == of(plan, steps.SetPropagation) == []
    assert len(of(plan, steps.BindMount)) == len(of(plan, steps.OverlayMount)) == 1
    assert len(of(plan, steps.MakeDevice)) == 7
    assert len(of(plan, steps.SetRlimits)) == 1


def test_sources_are_taken_once_with_shared_propagation() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.rootfs_propagation = "shared"
        made.mounts.append(Mount(destination="/data", type="bind", source="/srv/data", options=["rbind"]))

    plan = remapped(change)
    names = [type(step).__name__ for step in plan.prepare]
    assert names[:3] == ["HoldTree", "IsolateRootParent", "HoldOverlay"]
    assert names.count("HoldTree") == 1


def test_a_mount_with_mappings_of_its_own_needs_no_user_namespace() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(
            Mount(
                destination="/data",
                type="bind",
                source="/srv/data",
                options=["rbind", "ridmap"],
                uid_mappings=[mapping(0, 5, 1)],
                gid_mappings=[mapping(0, 6, 1)],
            )
        )

    plan = compiled(change)
    assert prepared(plan, steps.HoldTree) == [
        steps.HoldTree("/data", "/srv/data", True, (True, ((0, 5, 1),), ((0, 6, 1),)))
    ]
    assert plan.user is None
    assert of(plan, steps.MakeDevice)
    assert prepared(plan, steps.HoldDevices) == []


def test_offsets_of_the_clocks() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces.append(Namespace(type="time"))
        linux.time_offsets = {"monotonic": TimeOffset(secs=-3, nanosecs=7), "boottime": TimeOffset(secs=10)}

    plan = compiled(change)
    assert plan.time_offsets == "monotonic -3 7\nboottime 10 0\n"
    assert plan.flags & kernel.CLONE_NEWTIME
    assert [type(step) for step in plan.prepare] == [steps.SetPropagation]


@pytest.mark.parametrize(
    ("options", "owner"), [(["ro"], -1), ([], 7)], ids=["a read-only cgroup stays the host's", "a writable one"]
)
def test_who_gets_the_cgroup(options: list[str], owner: int) -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/sys/fs/cgroup", type="cgroup", options=options))
        process.user.uid = 7

    assert remapped(change).cgroup_owner == owner
    assert compiled(change).cgroup_owner == -1


def test_exec_enters_what_the_container_has() -> None:
    made = spec()
    assert made.linux is not None
    process = Process(cwd="/", args=["true"], oom_score_adj=3)
    assert (compile_exec(process, made, "", ()).namespaces, compile_exec(process, made, "", ()).prepare) == (0, ())
    made.linux.namespaces.append(Namespace(type="time"))
    remap(made.linux)
    plan = compile_exec(process, made, "", ())
    assert plan.namespaces == kernel.CLONE_NEWUSER | kernel.CLONE_NEWTIME
    assert plan.prepare == (steps.SetOomScore(3), steps.RaiseRlimits(()))
    assert not any(isinstance(step, steps.SetOomScore) for step in plan.steps)
    process.user.gid = 65536
    with pytest.raises(InvalidArgument, match=r"process\.user\.gid: 65536 is not mapped"):
        compile_exec(process, made, "", ())


@pytest.mark.parametrize(
    ("mappings", "text"),
    [
        ([(0, 100, 0)], r"linux.uidMappings\[0\]: the size is 0"),
        (
            [(0, 100, 10), (9, 200, 10)],
            r"uidMappings\[1\]: container ids overlap those of linux.uidMappings\[0\]",
        ),
        ([(0, 100, 10), (20, 109, 10)], r"linux.uidMappings\[1\]: host ids overlap"),
        ([(0, 4294967290, 6)], "4294967290 and the 5 ids after it are not all ids"),
        ([(4294967295, 0, 1)], "are not all ids"),
        ([(-1, 0, 1)], "are not all ids"),
        ([(n, n, 1) for n in range(341)], "341 mappings, and the kernel takes 340"),
    ],
)
def test_mappings_that_the_kernel_would_refuse(mappings: list[tuple[int, int, int]], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        mappings_of("linux.uidMappings", [mapping(*one) for one in mappings])


def test_mappings_up_to_the_last_id() -> None:
    wanted = ((0, 4294967290, 5), (5, 7, 1))
    assert mappings_of("x", [mapping(*one) for one in wanted]) == wanted


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, linux, p: setattr(linux, "uid_mappings", []), "linux.uidMappings: a user namespace needs"),
        (lambda s, linux, p: setattr(linux, "gid_mappings", []), "linux.gidMappings: a user namespace needs"),
        (lambda s, linux, p: setattr(linux, "gid_mappings", [mapping(1, 1, 1)]), "linux.gidMappings: .* gid 0"),
        (lambda s, linux, p: linux.namespaces.pop(), "need a user namespace in linux.namespaces"),
        (lambda s, linux, p: setattr(linux.namespaces[-1], "path", "ns"), "linux.namespaces: the path ns is not abs"),
        (lambda s, linux, p: setattr(p.user, "uid", 65536), "process.user.uid: 65536 is not mapped"),
        (lambda s, linux, p: setattr(p.user, "additional_gids", [1, 70000]), "additionalGids: 70000 is not mapped"),
        (lambda s, linux, p: setattr(linux, "time_offsets", {"boottime": TimeOffset()}), "a new time namespace"),
        (
            lambda s, linux, p: s.mounts.append(Mount(destination="/x", type="tmpfs", options=["idmap"])),
            r"mounts\[1\]: /x: a fresh tmpfs cannot be idmapped",
        ),
        (
            lambda s, linux, p: s.mounts.append(
                Mount(destination="/x", type="bind", source="/", uid_mappings=[mapping(0, 0, 1)])
            ),
            r"mounts\[1\]: /x: uidMappings and gidMappings come together",
        ),
        (
            lambda s, linux, p: s.mounts.append(
                Mount(
                    destination="/x",
                    type="bind",
                    source="/",
                    uid_mappings=[mapping(0, 0, 0)],
                    gid_mappings=[mapping(0, 0, 1)],
                )
            ),
            r"mounts\[1\]: /x.uidMappings\[0\]: the size is 0",
        ),
    ],
)
def test_what_a_user_namespace_cannot_do(change: Change, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        remapped(change)


def test_idmap_without_anything_to_map_by() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/data", type="bind", source="/srv", options=["idmap"]))

    with pytest.raises(InvalidArgument, match=r"mounts\[1\]: /data: the option idmap needs mappings, or a user"):
        compiled(change)
    with pytest.raises(InvalidArgument, match="the root file system: the option ridmap needs mappings"):
        compiled(rootfs=(MountSpec("bind", "/root", options=("rbind", "ridmap")),))


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        ({"realtime": TimeOffset()}, "the clock realtime is unknown"),
        ({"boottime": TimeOffset(nanosecs=10**9)}, "linux.timeOffsets.boottime.nanosecs: 1000000000 is no part"),
        ({"monotonic": TimeOffset(secs=1 << 63)}, "linux.timeOffsets.monotonic.secs: .* out of range"),
    ],
)
def test_offsets_that_no_clock_has(offset: dict[str, TimeOffset], text: str) -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces.append(Namespace(type="time"))
        linux.time_offsets = offset

    with pytest.raises(InvalidArgument, match=text):
        compiled(change)
