"""A specification becomes the right steps in the right order."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corten.errors import InvalidArgument
from corten.linux import mount as api
from corten.linux import process as kernel
from corten.runtime import steps
from corten.runtime.child import held, join, launch, rare
from corten.runtime.plan import LaunchPlan, cgroup_path, compile_exec, compile_launch
from corten.runtime.plan_mounts import split_lower
from corten.runtime.plan_process import capability_masks, cpu_list, environment
from corten.runtime.types import LaunchRequest, MountSpec
from corten.specs.oci_runtime import (
    VERSION,
    Capabilities,
    Device,
    Hook,
    Hooks,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Scheduler,
    Spec,
)


def spec() -> Spec:
    return Spec(
        oci_version=VERSION,
        process=Process(cwd="/", args=["true"], env=["PATH=/bin:/usr/bin"]),
        root=Root(path="rootfs"),
        mounts=[Mount(destination="/proc", type="proc", source="proc")],
        linux=Linux(
            namespaces=[Namespace(type=kind) for kind in ("mount", "pid", "uts", "ipc", "cgroup")]
            + [Namespace(type="network", path="/run/netns/x")],
            cgroups_path="/corten/c",
        ),
    )


def compiled(change: Callable[[Spec, Linux, Process], None] | None = None, **request: Any) -> LaunchPlan:
    made = spec()
    assert made.linux is not None
    assert made.process is not None
    if change is not None:
        change(made, made.linux, made.process)
    rootfs = (MountSpec("overlay", "overlay", options=("lowerdir=/b:/a", "upperdir=/u", "workdir=/w")),)
    return compile_launch(LaunchRequest("c", made, Path("/run/c"), Path("/exit"), **({"rootfs": rootfs} | request)))


def of(plan: LaunchPlan, kind: type[steps.Step]) -> list[Any]:
    return [step for step in plan.steps if isinstance(step, kind)]


def test_namespaces_are_made_joined_and_the_cgroups_one_last() -> None:
    plan = compiled()
    assert plan.flags == kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
    assert plan.joins == ((kernel.CLONE_NEWNET, "/run/netns/x"),)
    assert plan.unshare_cgroup
    assert plan.pid_namespace == ""


def test_a_pid_namespace_by_path_is_entered_for_the_clone() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces[1].path = "/proc/7/ns/pid"

    plan = compiled(change)
    assert plan.pid_namespace == "/proc/7/ns/pid"
    assert not plan.flags & kernel.CLONE_NEWPID
    assert [kind for kind, _ in plan.joins] == [kernel.CLONE_NEWNET]


def test_order_of_the_steps() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.masked_paths, linux.readonly_paths = ["/proc/kcore"], ["/proc/sys"]
        linux.sysctl = {"net.core.somaxconn": "9"}
        made.hostname = "box"
        assert made.root is not None
        made.root.readonly = True
        process.terminal = True

    names = [type(step).__name__ for step in compiled(change).steps]
    order = [
        "SetPropagation", "OverlayMount", "FileSystemMount", "MakeDevice", "MakeSymlink", "OpenConsole", "ReadonlyPath",
        "MaskPath", "ReadonlyRoot", "SetHostname", "SetSysctl", "PivotRoot", "ResolveUser", "NewKeyring",
        "EnterDirectory", "SwitchUser", "LetGo", "FindCommand", "SetRlimits", "Execute",
    ]  # fmt: skip
    assert list(dict.fromkeys(names)) == order
    assert names[-1] == "Execute"


def test_every_step_has_its_handler() -> None:
    kinds = {kind.__name__ for kind in steps.Step.__subclasses__()} - {"Rehearse"}  # which the spawner brings itself
    assert kinds == set(launch.HANDLERS) | set(held.HANDLERS) | set(rare.HANDLERS)
    assert set(join.HANDLERS) < kinds


def test_wire_is_plain_and_whole() -> None:
    plan = compiled(user="web", groups=("x",), init=True)
    wire = marshal.loads(plan.to_wire())
    assert wire["id"] == "c"
    assert wire["root"] == "/run/c/rootfs"
    assert wire["init"] is True
    assert wire["steps"][0] == ("SetPropagation", api.MS_SLAVE | api.MS_REC)
    assert ("ResolveUser", "web", ("x",), 0, 0, ()) in wire["steps"]


def test_overlay_layers_are_taken_apart() -> None:
    [overlay] = of(compiled(), steps.OverlayMount)
    assert (overlay.target, overlay.lower, overlay.upper, overlay.work) == ("", ("/b", "/a"), "/u", "/w")
    assert split_lower(r"/a\:b:/c\\d:/e") == ("/a:b", r"/c\d", "/e")


def test_a_bundle_without_mounts_is_bound_on_itself() -> None:
    first = of(compiled(rootfs=()), steps.BindMount)[0]
    assert (first.source, first.target, first.recursive) == ("/run/c/rootfs", "", True)


def test_shared_propagation_isolates_the_root() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.rootfs_propagation = "shared"

    plan = compiled(change)
    assert isinstance(plan.steps[0], steps.IsolateRootParent)
    assert of(plan, steps.PivotRoot) == [steps.PivotRoot(api.MS_SHARED)]


def test_bind_on_dev_keeps_the_hosts_nodes() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/dev", type="bind", source="/dev", options=["rbind"]))

    plan = compiled(change)
    assert of(plan, steps.MakeDevice) == []
    assert of(plan, steps.MakeSymlink) == []


def test_devices_beside_the_default_ones() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.devices = [
            Device(type="c", path="/dev/null", major=1, minor=3),
            Device(type="b", path="/dev/sda", major=8, minor=0, file_mode=0o660, gid=6),
        ]

    nodes = of(compiled(change), steps.MakeDevice)
    assert len(nodes) == 7
    assert nodes[-1] == steps.MakeDevice("/dev/sda", "b", 8, 0, 0o660, 0, 6)


def test_exec_has_no_mounts() -> None:
    process = Process(cwd="/w", args=["sh"], env=["PATH=/bin"], terminal=True)
    plan = compile_exec(process, spec(), "web", ())
    names = [type(step).__name__ for step in plan.steps]
    assert names == [
        "OpenConsole", "ResolveUser", "NewKeyring", "EnterDirectory", "SwitchUser", "LetGo", "FindCommand",
        "SetRlimits",
        "Execute",
    ]  # fmt: skip
    assert plan.cgroup == "/corten/c"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s, linux, p: linux.namespaces.append(Namespace(type="odd")), "type odd"),
        (lambda s, linux, p: linux.namespaces.append(Namespace(type="pid")), "twice"),
        (lambda s, linux, p: linux.namespaces.pop(0), "mount namespace"),
        (lambda s, linux, p: linux.uid_mappings.append(IDMapping(container_id=0, host_id=1, size=1)), "uidMappings"),
        (lambda s, linux, p: setattr(s, "hooks", Hooks(start_container=[Hook(path="x")])), r"startContainer\[0\].path"),
        (lambda s, linux, p: setattr(linux, "rootfs_propagation", "odd"), "odd"),
        (lambda s, linux, p: setattr(p, "args", []), "no command"),
        (lambda s, linux, p: setattr(p, "cwd", "relative"), "absolute"),
        (lambda s, linux, p: setattr(p, "rlimits", [Rlimit(type="RLIMIT_X", soft=1, hard=1)]), "RLIMIT_X"),
        (lambda s, linux, p: setattr(p, "scheduler", Scheduler(policy="SCHED_X")), "SCHED_X"),
        (lambda s, linux, p: linux.sysctl.update({"../../etc/passwd": "x"}), "not a name"),
        (lambda s, linux, p: setattr(linux, "cgroups_path", "/./"), "must not be the root"),
        (lambda s, linux, p: s.mounts.append(Mount(destination="/", type="tmpfs")), "on the root"),
        (lambda s, linux, p: s.mounts.append(Mount(destination="/x", source="y")), "no type"),
        (
            lambda s, linux, p: s.mounts.append(Mount(destination="/x", type="bind", source="/", options=["size=1"])),
            'option "size"',
        ),
        (lambda s, linux, p: setattr(s, "process", None), "no process"),
    ],
)
def test_what_cannot_be_done_is_refused(change: Callable[[Spec, Linux, Process], None], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        compiled(change)


def test_hostname_without_a_namespace_is_refused() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.hostname = "box"
        linux.namespaces = [space for space in linux.namespaces if space.type != "uts"]

    with pytest.raises(InvalidArgument, match="UTS"):
        compiled(change)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/docker/abc", "/docker/abc"),
        ("default/abc/", "/corten/default/abc"),
        ("", ""),
        ("/a//./b", "/a/b"),
        ("a-b.slice:libpod:abc", "/a.slice/a-b.slice/libpod-abc.scope"),
        ("machine.slice:libpod:abc", "/machine.slice/libpod-abc.scope"),
        (":docker:abc", "/system.slice/docker-abc.scope"),
    ],
)
def test_cgroup_paths(given: str, expected: str) -> None:
    assert cgroup_path(given) == expected


@pytest.mark.parametrize("path", ["..", "/..", "/corten/../../x", "a/../..", "/a/.."])
def test_cgroup_paths_that_lead_upwards(path: str) -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.cgroupsPath must not lead upwards"):
        cgroup_path(path)


def test_small_parsers() -> None:
    assert environment(["A=1", "B", "A=2", "C=x=y", "=z"]) == {"A": "2", "C": "x=y"}
    assert cpu_list("x", "0-2, 7") == (0, 1, 2, 7)
    with pytest.raises(InvalidArgument):
        cpu_list("x", "2-1")
    sets = Capabilities(bounding=["CAP_CHOWN", "CAP_KILL", "CAP_UNHEARD_OF"], effective=["CAP_KILL"])
    assert capability_masks(sets) == (0b100001, 0b100000, 0, 0, 0)
    assert capability_masks(None) == (0, 0, 0, 0, 0)


def test_an_unknown_capability_is_a_warning() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        process.capabilities = Capabilities(bounding=["CAP_UNHEARD_OF"])

    assert "CAP_UNHEARD_OF" in compiled(change).warnings[0]
