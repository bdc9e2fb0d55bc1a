"""The specification that a container becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corten.engine.deps import EngineSettings
from corten.engine.hostfacts import HostFacts
from corten.engine.models import Container, MountPoint
from corten.engine.remap import Remap
from corten.engine.spec import builder, capabilities, devices, mounts, resources, security
from corten.errors import InvalidArgument, NotImplementedYet
from corten.specs.container import ContainerConfig, DeviceMapping, HostConfig, Ulimit
from corten.specs.oci_runtime import CPU, Memory, Mount, Pids, Resources, Spec

FACTS = HostFacts(sysctls=frozenset({"net.ipv4.ip_unprivileged_port_start"}))
ETC = builder.EtcFiles("/r/hosts", "/r/hostname", "/r/resolv.conf")


def container(config: ContainerConfig | None = None, **host: Any) -> Container:
    return Container(
        id="a" * 64,
        name="web",
        created_ns=1,
        image_id="sha256:1",
        image_name="busybox",
        chain_id="chain",
        path="sh",
        args=["-c", "true"],
        config=config or ContainerConfig(hostname="aaaaaaaaaaaa", env=["A=1", "PATH=/bin"]),
        host_config=HostConfig(shm_size=64 << 20, network_mode="bridge", **host),
        cgroup="/corten/" + "a" * 64,
    )


def build(subject: Container, plan: builder.NamespacePlan | None = None, **inputs: Any) -> Spec:
    plan = plan or builder.NamespacePlan(network="/run/netns/x", cgroup=builder.HOST)
    return builder.build(builder.SpecInputs(subject, FACTS, plan, ETC, **inputs))


def test_the_default_container() -> None:
    spec = build(container())
    process, linux = spec.process, spec.linux
    assert process is not None
    assert linux is not None
    assert process.args == ["sh", "-c", "true"]
    assert process.cwd == "/"
    assert process.env == ["PATH=/bin", "HOSTNAME=aaaaaaaaaaaa", "A=1"]
    assert process.capabilities is not None
    assert process.capabilities.bounding == list(capabilities.DEFAULT)
    assert process.capabilities.ambient == []
    assert spec.hostname == "aaaaaaaaaaaa"
    assert [(n.type, n.path) for n in linux.namespaces] == [
        ("mount", ""),
        ("network", "/run/netns/x"),
        ("pid", ""),
        ("ipc", ""),
        ("uts", ""),
    ]
    assert [mount.destination for mount in spec.mounts] == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/etc/hosts",
    ]
    assert spec.mounts[6].options[-1] == f"size={64 << 20}"
    assert linux.masked_paths == list(security.MASKED_PATHS)
    assert linux.readonly_paths == list(security.READONLY_PATHS)
    assert linux.sysctl == {"net.ipv4.ip_unprivileged_port_start": "0"}
    assert linux.cgroups_path == "/corten/" + "a" * 64
    assert linux.resources is not None
    assert linux.resources.devices[0].allow is False


def test_a_privileged_one() -> None:
    granted = devices.Granted(rules=(devices.parse_rule("a *:* rwm"),))
    spec = build(container(privileged=True), granted=(granted,))
    linux = spec.linux
    assert linux is not None
    assert linux.masked_paths == []
    assert linux.readonly_paths == []
    assert linux.resources is not None
    assert linux.resources.devices[-1].allow
    assert next(mount for mount in spec.mounts if mount.destination == "/sys").options[-1] == "rw"
    assert spec.process is not None
    assert spec.process.capabilities is not None
    assert spec.process.capabilities.bounding == list(capabilities.KNOWN)


def test_with_the_hosts_namespaces() -> None:
    host = builder.NamespacePlan(builder.HOST, builder.HOST, builder.HOST, builder.HOST, builder.HOST)
    spec = build(container(), host)
    assert spec.linux is not None
    assert [namespace.type for namespace in spec.linux.namespaces] == ["mount"]
    assert spec.linux.sysctl == {}
    assert spec.hostname == ""
    assert [(m.source, m.destination) for m in spec.mounts if m.destination in ("/dev/shm", "/dev/mqueue")] == [
        ("/dev/mqueue", "/dev/mqueue"),
        ("/dev/shm", "/dev/shm"),
    ]


def test_shared_memory_and_message_queues() -> None:
    def places(plan: builder.NamespacePlan, **inputs: Any) -> list[tuple[str, str]]:
        return [(m.type, m.destination) for m in build(container(), plan, **inputs).mounts if m.destination in ipc]

    ipc = ("/dev/shm", "/dev/mqueue")
    assert places(builder.NamespacePlan()) == [("mqueue", "/dev/mqueue"), ("tmpfs", "/dev/shm")]
    assert places(builder.NamespacePlan(shm=None)) == [("mqueue", "/dev/mqueue")]
    host = builder.NamespacePlan(ipc=builder.HOST, mqueue=False)
    assert places(host) == [("mqueue", "/dev/mqueue"), ("bind", "/dev/shm")]
    ids = ((0, 100000, 65536),)
    assert places(host, remap=Remap("u", ids, ids)) == [("bind", "/dev/shm")]


def test_what_the_user_mounts_replaces_and_comes_last() -> None:
    subject = container(tmpfs={"/run": "exec,size=1m"}, readonly_rootfs=True)
    subject.mounts = [
        MountPoint(type="bind", source="/h/deep", destination="/a/b", rw=False, propagation="rslave"),
        MountPoint(type="volume", source="/v/_data", destination="/a", name="v"),
        MountPoint(type="bind", source="/h/shm", destination="/dev/shm"),
    ]
    spec = build(subject)
    own = spec.mounts[-4:]
    assert [mount.destination for mount in own] == ["/a", "/run", "/a/b", "/dev/shm"]
    assert own[2] == Mount(destination="/a/b", type="bind", source="/h/deep", options=["rbind", "rslave", "ro"])
    assert own[1].options == ["nosuid", "nodev", "exec", "size=1m"]
    assert sum(mount.destination == "/dev/shm" for mount in spec.mounts) == 1
    assert spec.root is not None
    assert spec.root.readonly
    assert next(m for m in spec.mounts if m.destination == "/etc/hosts").options == ["rbind", "rprivate", "ro"]
    assert spec.linux is not None
    assert spec.linux.rootfs_propagation == "rslave"


def test_a_users_dev_hides_what_would_be_below_it() -> None:
    combined = mounts.combine(mounts.defaults(privileged=False, shm_size=1), [mounts.bind("/dev", "/dev")])
    assert [mount.destination for mount in combined if mount.destination.startswith("/dev")] == ["/dev"]


def test_limits() -> None:
    built = resources.build(
        HostConfig(memory=64 << 20, nano_cpus=1_500_000_000, cpuset_cpus="0", pids_limit=10, cpu_shares=512)
    )
    assert built.memory == Memory(limit=64 << 20, swap=128 << 20)
    assert built.cpu == CPU(shares=512, quota=150_000, period=100_000, cpus="0")
    assert built.pids == Pids(limit=10)
    assert resources.build(HostConfig()) == Resources()


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (None, ["ALL"], []),
        (["NET_ADMIN"], ["ALL"], ["CAP_NET_ADMIN"]),
        (["ALL"], ["CAP_CHOWN"], [name for name in capabilities.KNOWN if name != "CAP_CHOWN"]),
        (["net_admin"], None, [*capabilities.DEFAULT, "CAP_NET_ADMIN"]),
        ("cap_chown", None, list(capabilities.DEFAULT)),
    ],
)
def test_capabilities(add: list[str] | str | None, drop: list[str] | None, expected: list[str]) -> None:
    assert capabilities.resolve(add, drop, privileged=False, available=capabilities.KNOWN) == expected


def test_capability_masks() -> None:
    assert capabilities.from_mask(0b101) == ("CAP_CHOWN", "CAP_DAC_READ_SEARCH")
    assert len(capabilities.from_mask((1 << 41) - 1)) == 41


def test_ulimits() -> None:
    (limit,) = resources.rlimits([Ulimit(name="nofile", soft=10, hard=-1)])
    assert (limit.type, limit.soft, limit.hard) == ("RLIMIT_NOFILE", 10, resources.INFINITY)
    with pytest.raises(InvalidArgument, match="invalid ulimit type: bogus"):
        resources.rlimits([Ulimit(name="bogus")])


def test_security_options() -> None:
    parsed = security.parse(["no-new-privileges:true", "seccomp=unconfined", "writable-cgroups=true"], FACTS)
    assert parsed == security.SecurityOptions(True, "unconfined", "", True)
    assert security.parse(None, FACTS) == security.SecurityOptions(None, "", "", None)
    assert security.parse(["no-new-privileges"], FACTS).no_new_privileges
    assert security.parse(["no-new-privileges=false"], FACTS).no_new_privileges is False
    assert security.parse(["apparmor=unconfined"], FACTS).apparmor == "unconfined"
    assert security.parse(["apparmor=mine"], HostFacts(apparmor=True)).apparmor == "mine"
    with pytest.raises(InvalidArgument, match="AppArmor is not enabled"):
        security.parse(["apparmor=mine"], FACTS)
    security.parse(["label=type:x", "label:level:s0"], FACTS)
    security.parse(["label=disable"], HostFacts(selinux=True))
    with pytest.raises(NotImplementedYet):
        security.parse(["label=type:x"], HostFacts(selinux=True))


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("label", 1),
        ("unknown", 1),
        ("seccomp", 1),
        ("unknown=x", 2),
        ("systempaths=unconfined", 2),
        ("no-new-privileges=dang", 2),
        ("no-new-privileges=", 2),
        ("writable-cgroups=dang", 2),
        ("writable-cgroups", 1),
    ],
)
def test_security_options_that_do_not_exist(option: str, number: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        security.parse([option], FACTS)
    assert caught.value.message == f'invalid --security-opt {number}: "{option}"'


def test_writable_cgroups() -> None:
    def access(said: bool | None, **host: Any) -> str:
        spec = build(container(**host), security=security.SecurityOptions(writable_cgroups=said))
        return next(mount.options[0] for mount in spec.mounts if mount.destination == "/sys/fs/cgroup")

    assert (access(None), access(True), access(False)) == ("ro", "rw", "ro")
    assert (access(None, privileged=True), access(False, privileged=True)) == ("rw", "ro")


def test_a_privileged_container_keeps_the_profile_that_was_asked_for() -> None:
    subject = container(privileged=True)
    subject.app_armor_profile = "mine"
    spec = build(subject)
    assert spec.process is not None
    assert spec.process.apparmor_profile == "mine"


def test_a_device_of_the_host() -> None:

    granted = devices.grant(
        DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/mine", cgroup_permissions="r")
    )
    (node,), (rule,) = granted.nodes, granted.rules
    assert (node.path, node.type, node.major, node.minor) == ("/dev/mine", "c", 1, 3)
    assert (rule.access, rule.allow) == ("r", True)


# -- the control group -----------------------------------------------------------------------------------------------


def settings(tmp_path: Path, driver: str) -> EngineSettings:
    return EngineSettings(tmp_path, tmp_path, cgroup_driver=driver)


@pytest.mark.parametrize(
    ("driver", "parent", "expected"),
    [
        ("cgroupfs", "", "/corten/x"),
        ("cgroupfs", "/mine/deep/", "/mine/deep/x"),
        ("cgroupfs", "mine", "/mine/x"),
        ("systemd", "", "system.slice:corten:x"),
        ("systemd", "a-b.slice", "a-b.slice:corten:x"),
    ],
)
def test_where_a_container_s_group_is(tmp_path: Path, driver: str, parent: str, expected: str) -> None:
    assert settings(tmp_path, driver).cgroup_of("x", parent) == expected


@pytest.mark.parametrize(("driver", "parent"), [("cgroupfs", "/a/../.."), ("systemd", "/a"), ("systemd", "a--b.slice")])
def test_parents_that_are_refused(tmp_path: Path, driver: str, parent: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup-parent"):
        settings(tmp_path, driver).cgroup_of("x", parent)
