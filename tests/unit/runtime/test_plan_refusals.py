"""What a specification must not say is refused, by the name of its member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from corten.errors import InvalidArgument
from corten.linux.mount import MOUNT_ATTR_NOSUID
from corten.runtime import host_features, steps
from corten.runtime.plan import compile_exec
from corten.specs.oci_runtime import (
    Capabilities,
    ConsoleSize,
    Device,
    ExecCPUAffinity,
    IntelRdt,
    IOPriority,
    Linux,
    MemoryPolicy,
    Mount,
    Namespace,
    NetDevice,
    Personality,
    Process,
    Rlimit,
    Scheduler,
    Spec,
)
from tests.unit.runtime.test_plan import compiled, of, spec

Change = Callable[[Spec, Linux, Process], Any]


def rlimit(soft: int, hard: int) -> Rlimit:
    return Rlimit(type="RLIMIT_NOFILE", soft=soft, hard=hard)


def without(kind: str) -> Change:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.namespaces = [space for space in linux.namespaces if space.type != kind]

    return change


PROCESS: list[tuple[Change, str]] = [
    (lambda s, n, p: setattr(p, "args", [""]), "process.args"),
    (lambda s, n, p: setattr(p, "args", ["true", "a\0b"]), r"process.args\[1\] has a zero byte"),
    (lambda s, n, p: setattr(p, "command_line", "true"), "process.commandLine"),
    (lambda s, n, p: setattr(p, "cwd", "tmp"), "process.cwd"),
    (lambda s, n, p: p.env.append("NAME"), r"process.env\[1\]"),
    (lambda s, n, p: p.env.append("=value"), r"process.env\[1\]"),
    (lambda s, n, p: setattr(p, "oom_score_adj", 1001), "process.oomScoreAdj"),
    (lambda s, n, p: setattr(p.user, "umask", 0o1000), "process.user.umask"),
    (lambda s, n, p: setattr(p.user, "uid", -1), "process.user.uid"),
    (lambda s, n, p: setattr(p.user, "gid", (1 << 32) - 1), "process.user.gid"),
    (lambda s, n, p: p.user.additional_gids.append(1 << 32), "process.user.additionalGids"),
    (lambda s, n, p: setattr(p, "rlimits", [rlimit(1, 2), rlimit(1, 2)]), r"process.rlimits\[1\].*twice"),
    (lambda s, n, p: setattr(p, "rlimits", [rlimit(3, 2)]), r"process.rlimits\[0\].*soft limit"),
    (lambda s, n, p: setattr(p, "rlimits", [rlimit(-1, 2)]), r"process.rlimits\[0\]"),
    (lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="")), "process.scheduler.policy"),
    (
        lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_OTHER", flags=["SCHED_FLAG_X"])),
        "process.scheduler.flags.*SCHED_FLAG_X",
    ),
    (lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_OTHER", nice=20)), "process.scheduler.nice"),
    (lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_OTHER", priority=1)), "scheduler.priority"),
    (lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_FIFO", priority=100)), "scheduler.priority"),
    (lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_FIFO", runtime=1)), "process.scheduler.runtime"),
    (
        lambda s, n, p: setattr(p, "scheduler", Scheduler(policy="SCHED_DEADLINE", period=1 << 63)),
        "process.scheduler.*range",
    ),
    (lambda s, n, p: setattr(p, "io_priority", IOPriority(class_="RT")), "process.ioPriority.class"),
    (
        lambda s, n, p: setattr(p, "io_priority", IOPriority(class_="IOPRIO_CLASS_BE", priority=8)),
        "process.ioPriority.priority",
    ),
]


def with_terminal(made: Spec, linux: Linux, process: Process) -> None:
    process.terminal, process.console_size = True, ConsoleSize(height=70000, width=1)


REST: list[tuple[Change, str]] = [
    (with_terminal, "process.consoleSize"),
    (lambda s, n, p: setattr(s, "oci_version", "2.0.0"), "ociVersion"),
    (lambda s, n, p: setattr(s, "windows", {}), "windows"),
    (lambda s, n, p: setattr(s, "vm", {"kernel": {}}), "vm"),
    (lambda s, n, p: setattr(s, "hostname", "h" * 65), "hostname"),
    (lambda s, n, p: setattr(s, "domainname", "d" * 65), "domainname"),
    (lambda s, n, p: setattr(n, "masked_paths", ["proc/kcore"]), r"linux.maskedPaths\[0\]"),
    (lambda s, n, p: setattr(n, "readonly_paths", ["/a", "b"]), r"linux.readonlyPaths\[1\]"),
    (lambda s, n, p: setattr(n, "intel_rdt", IntelRdt()), "linux.intelRdt.*resctrl"),
    (lambda s, n, p: setattr(n, "rootfs_propagation", "odd"), "linux.rootfsPropagation"),
    (lambda s, n, p: setattr(n, "mount_label", "system_u:object_r:x"), "linux.mountLabel.*selinux"),
    (lambda s, n, p: setattr(n, "personality", Personality()), "linux.personality.domain"),
    (lambda s, n, p: setattr(n, "personality", Personality(domain="LINUX", flags=["X"])), "linux.personality.flags"),
    (lambda s, n, p: setattr(n, "memory_policy", MemoryPolicy()), "linux.memoryPolicy.mode"),
    (lambda s, n, p: setattr(n, "memory_policy", MemoryPolicy(mode="MPOL_X")), "linux.memoryPolicy.mode.*MPOL_X"),
    (
        lambda s, n, p: setattr(n, "memory_policy", MemoryPolicy(mode="MPOL_BIND", flags=["MPOL_F_X"])),
        "linux.memoryPolicy.flags.*MPOL_F_X",
    ),
    (
        lambda s, n, p: setattr(n, "memory_policy", MemoryPolicy(mode="MPOL_BIND", nodes="0-9999")),
        "linux.memoryPolicy.nodes",
    ),
    (lambda s, n, p: n.devices.append(Device(type="c", path="dev/x")), r"linux.devices\[0\].path"),
    (lambda s, n, p: n.devices.append(Device(type="x", path="/dev/x")), r"linux.devices\[0\].type"),
    (lambda s, n, p: n.devices.append(Device(type="c", path="/dev/x", file_mode=0o20666)), "fileMode"),
    (lambda s, n, p: n.devices.append(Device(type="c", path="/dev/x", major=-1)), "device number"),
    (lambda s, n, p: n.net_devices.update({"a/b": NetDevice()}), "linux.netDevices.*a/b"),
    (lambda s, n, p: n.net_devices.update({"eth%d": NetDevice()}), "linux.netDevices"),
    (lambda s, n, p: n.net_devices.update({"a": NetDevice(name="sixteencharacters")}), "linux.netDevices.*sixteen"),
    (lambda s, n, p: n.net_devices.update({"a": NetDevice(name="b"), "b": NetDevice()}), "linux.netDevices.*same"),
    (
        lambda s, n, p: (without("network")(s, n, p), n.net_devices.update({"a": NetDevice()})),
        "linux.netDevices.*namespace",
    ),
]

SYSCTLS = [
    ("network", "net.core.somaxconn", "host network namespace"),
    ("network", "net/core/somaxconn", "host network namespace"),
    ("ipc", "kernel.shmmax", "host ipc namespace"),
    ("ipc", "fs.mqueue.msg_max", "host ipc namespace"),
    ("", "kernel.hostname", "hostname"),
    ("uts", "kernel.domainname", "not in a separate"),
    ("", "vm.swappiness", "not in a separate kernel namespace"),
    ("", "kernel.core_pattern", "not in a separate kernel namespace"),
    ("", "net..x", "not a name"),
    ("", "net/../kernel/core_pattern", "not a name"),
]

MOUNTS = [
    (Mount(destination="/x", type="tmpfs", options=["bind"]), r"mounts\[1\].*no source"),
    (Mount(destination="/x", type="bind", source="/", options=["rbind", "mode=1"]), r'mounts\[1\].*option "mode"'),
    (Mount(destination="/x", type="cgroup", options=["odd"]), r'mounts\[1\].*option "odd" of a cgroup mount'),
    (Mount(destination="/x", type="ext4", source="/s", options=["tmpcopyup"]), r"mounts\[1\].*tmpcopyup"),
    (Mount(destination="/x", type="tmpfs", options=["tmpcopyup", "iversion"]), r"mounts\[1\].*iversion"),
    (Mount(destination="/x", options=["remount", "iversion"]), r"mounts\[1\].*iversion"),
    (Mount(destination="/x", options=["remount", "bind", "size=1"]), r'mounts\[1\].*option "size"'),
    (Mount(destination="/proc", type="tmpfs"), r'mounts\[1\]: "/proc" cannot be mounted'),
    (Mount(destination="/a/..", type="tmpfs"), r"mounts\[1\].*on the root"),
]


@pytest.mark.parametrize(("change", "text"), PROCESS + REST)
def test_refused(change: Change, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        compiled(change)


@pytest.mark.parametrize(("change", "text"), PROCESS)
def test_a_later_process_is_held_to_the_same(change: Change, text: str) -> None:
    made = spec()
    process = Process(cwd="/", args=["true"], env=["PATH=/bin"])
    assert made.linux is not None
    change(made, made.linux, process)
    with pytest.raises(InvalidArgument, match=text):
        compile_exec(process, made, "", ())


@pytest.mark.parametrize(("mount", "text"), MOUNTS)
def test_refused_mounts(mount: Mount, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        compiled(lambda made, linux, process: made.mounts.append(mount))


@pytest.mark.parametrize(("shared", "name", "text"), SYSCTLS)
def test_sysctls_of_the_host_are_refused(shared: str, name: str, text: str) -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        without(shared)(made, linux, process)
        linux.sysctl = {name: "1"}

    with pytest.raises(InvalidArgument, match=f"linux.sysctl.*{text}"):
        compiled(change)


def test_a_network_namespace_by_path_may_be_the_hosts() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        without("network")(made, linux, process)
        linux.namespaces.append(Namespace(type="network", path="/proc/self/ns/net"))
        linux.sysctl = {"net.core.somaxconn": "1"}

    with pytest.raises(InvalidArgument, match="host network namespace"):
        compiled(change)


def test_sysctls_of_its_own_namespaces_are_set() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.sysctl = {
            "net.ipv4.conf.eth0/100.rp_filter": "1",
            "kernel/shm_rmid_forced": "1",
            "kernel.domainname": "d",
        }

    found = [step.key for step in of(compiled(change), steps.SetSysctl)]
    assert found == ["net/ipv4/conf/eth0.100/rp_filter", "kernel/shm_rmid_forced", "kernel/domainname"]


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("process.apparmorProfile", lambda p: setattr(p, "apparmor_profile", "x")),
        ("process.selinuxLabel", lambda p: setattr(p, "selinux_label", "x")),
    ],
)
def test_labels_without_their_module_are_refused(
    monkeypatch: pytest.MonkeyPatch, member: str, change: Callable[[Process], None]
) -> None:
    monkeypatch.setattr(host_features, "apparmor", lambda: False)
    monkeypatch.setattr(host_features, "selinux", lambda: False)
    with pytest.raises(InvalidArgument, match=f"{member}.*not enabled"):
        compiled(lambda made, linux, process: change(process))


def test_a_mount_label_goes_to_fresh_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_features, "selinux", lambda: True)

    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.mount_label = "system_u:object_r:container_file_t:s0:c1,c2"
        made.mounts += [
            Mount(destination="/t", type="tmpfs", source="tmpfs"),
            Mount(destination="/c", type="tmpfs", source="tmpfs", options=["tmpcopyup"]),
        ]

    plan = compiled(change)
    proc, fresh = of(plan, steps.FileSystemMount)
    [copied] = of(plan, steps.CopyUpMount)
    label = ("context", "system_u:object_r:container_file_t:s0:c1,c2")
    assert (proc.options, fresh.options, copied.options) == ((), (label,), (label,))


def test_warnings_of_capabilities() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        process.capabilities = Capabilities(
            bounding=["CAP_ODD"],
            effective=["CAP_CHOWN", "CAP_KILL"],
            permitted=["CAP_KILL", "CAP_ODD"],
            ambient=["CAP_KILL", "CAP_STRANGE"],
        )

    found = compiled(change).warnings
    assert len(found) == 4, found
    assert "CAP_ODD" in found[0]
    assert "CAP_STRANGE" in found[1]
    assert "CAP_CHOWN was left out of the effective set" in found[2]
    assert "CAP_KILL was left out of the ambient set" in found[3]


def test_warnings_of_mounts() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts += [
            Mount(destination="rel", type="tmpfs", source="tmpfs"),
            Mount(destination="/b", type="bind", source="/", options=["rbind", "sync", "async", "iversion"]),
        ]

    plan = compiled(change)
    assert plan.warnings[0] == "mounts[1].destination rel is relative; it was taken from /"
    assert plan.warnings[1].startswith("mounts[2]: sync, iversion has no effect on a bind mount")
    assert of(plan, steps.FileSystemMount)[1].target == "/rel"


def test_what_is_said_of_a_tree_holds_for_a_fresh_mount() -> None:
    """Read-only only at the end, as nodes are made in it before."""

    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/dev", type="tmpfs", options=["rro", "nosuid", "noexec", "rexec"]))

    plan = compiled(change)
    assert of(plan, steps.FileSystemMount)[-1].attributes == (MOUNT_ATTR_NOSUID, 0, 0, 0, ())
    assert of(plan, steps.ReadonlyMount) == [steps.ReadonlyMount("/dev")]


def test_the_affinity_is_for_later_processes() -> None:
    affinity = ExecCPUAffinity(initial="0", final="0-1")

    def change(made: Spec, linux: Linux, process: Process) -> None:
        process.exec_cpu_affinity = affinity

    assert of(compiled(change), steps.SetAffinity) == []
    plan = compile_exec(Process(cwd="/", args=["true"], exec_cpu_affinity=affinity), spec(), "", ())
    assert plan.initial == (0,)
    assert steps.SetAffinity((0, 1)) in plan.steps
    for field in ("initial", "final"):
        odd = ExecCPUAffinity(**{field: "1-"})
        with pytest.raises(InvalidArgument, match=f"process.execCPUAffinity.{field}"):
            compile_exec(Process(cwd="/", args=["true"], exec_cpu_affinity=odd), spec(), "", ())


def test_devices_of_the_container_replace_the_default_ones() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        linux.devices = [
            Device(type="c", path="/dev/tty", major=5, minor=0, file_mode=0o620, gid=5),
            Device(type="p", path="/run/fifo", major=7, minor=7),
            Device(type="c", path="/dev/ptmx", major=5, minor=2),
        ]

    nodes = {step.path: step for step in of(compiled(change), steps.MakeDevice)}
    assert nodes["/dev/tty"] == steps.MakeDevice("/dev/tty", "c", 5, 0, 0o620, 0, 5)
    assert nodes["/run/fifo"] == steps.MakeDevice("/run/fifo", "p", 0, 0, 0o666, 0, 0)
    assert "/dev/ptmx" not in nodes


def test_a_dev_of_the_hosts_is_left_as_it_is() -> None:
    """A node made there would be made on the host."""

    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/dev", type="bind", source="/dev"))
        linux.devices = [
            Device(type="b", path="/dev/sda", major=8, minor=0),
            Device(type="c", path="/x", major=1, minor=3),
        ]

    assert [step.path for step in of(compiled(change), steps.MakeDevice)] == ["/x"]


def test_a_relative_source_is_the_bundles() -> None:
    def change(made: Spec, linux: Linux, process: Process) -> None:
        made.mounts.append(Mount(destination="/d", type="bind", source="data/d", options=["rbind"]))

    assert of(compiled(change), steps.BindMount)[-1].source == "/run/c/data/d"
