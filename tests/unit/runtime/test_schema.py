"""Each member of the runtime specification's schema does something, or is refused by its name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corten.errors import InvalidArgument
from corten.runtime.plan import compile_exec, compile_launch
from corten.runtime.types import LaunchRequest
from corten.specs import oci_runtime
from corten.specs.oci_runtime import decode_spec

REFERENCE = Path(__file__).resolve().parents[4] / "shared/refs/oci"

_MAPPING = [{"containerID": 0, "hostID": 1000, "size": 1}]
_WEIGHT = {"major": 8, "minor": 0, "weight": 100, "leafWeight": 100}
_RATE = {"major": 8, "minor": 0, "rate": 100}

# A container that has nearly everything; where it lacks something, the table below adds it.
BASE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "hostname": "box",
    "domainname": "domain",
    "root": {"path": "rootfs"},
    "process": {
        "terminal": True,
        "consoleSize": {"height": 10, "width": 20},
        "cwd": "/",
        "args": ["true"],
        "env": ["A=1"],
        "user": {"uid": 1, "gid": 1},
        "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}],
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
        "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 3, "period": 3},
        "execCPUAffinity": {"initial": "0", "final": "0"},
    },
    "mounts": [{"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": []}],
    "linux": {
        "cgroupsPath": "/a/b",
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "network", "ipc")],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
        "netDevices": {"eth5": {}},
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"}],
            "memory": {"limit": 1 << 30, "swap": 1 << 31},
            "cpu": {},
            "pids": {"limit": 5},
            "blockIO": {
                "weightDevice": [_WEIGHT],
                **{f"throttle{kind}Device": [_RATE] for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")},
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 3,
            "syscalls": [
                {
                    "names": ["socket"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 9,
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 1}],
                }
            ],
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
        "personality": {"domain": "LINUX"},
    },
}

# Member → another value than the one above.
OTHERS: dict[str, Any] = {
    "ociVersion": "2.0.0",
    "hostname": "other",
    "domainname": "other",
    "solaris": {},
    "windows": {},
    "vm": {},
    "zos": {},
    "freebsd": {},
    "root.path": "elsewhere",
    "root.readonly": True,
    "process.terminal": False,
    "process.consoleSize.height": 11,
    "process.consoleSize.width": 11,
    "process.cwd": "/tmp",
    "process.args": ["false"],
    "process.commandLine": "x",
    "process.env": ["A=2"],
    "process.user.uid": 2,
    "process.user.gid": 2,
    "process.user.umask": 0o77,
    "process.user.additionalGids": [7],
    "process.capabilities.bounding": ["CAP_KILL"],
    "process.capabilities.effective": ["CAP_KILL"],
    "process.capabilities.permitted": ["CAP_KILL"],
    "process.capabilities.inheritable": ["CAP_KILL"],
    "process.capabilities.ambient": ["CAP_KILL"],
    "process.rlimits[].type": "RLIMIT_NOFILE",
    "process.rlimits[].soft": 1,
    "process.rlimits[].hard": 2,
    "process.noNewPrivileges": True,
    "process.apparmorProfile": "x",
    "process.selinuxLabel": "x",
    "process.oomScoreAdj": 5,
    "process.ioPriority.class": "IOPRIO_CLASS_IDLE",
    "process.ioPriority.priority": 2,
    "process.scheduler.policy": "SCHED_ISO",
    "process.scheduler.nice": 2,
    "process.scheduler.priority": 2,
    "process.scheduler.flags": ["SCHED_FLAG_RESET_ON_FORK"],
    "process.scheduler.runtime": 2,
    "process.scheduler.deadline": 2,
    "process.scheduler.period": 4,
    "process.execCPUAffinity.initial": "1",
    "process.execCPUAffinity.final": "1",
    "mounts[].destination": "/u",
    "mounts[].type": "ramfs",
    "mounts[].source": "t",
    "mounts[].options": ["ro"],
    "mounts[].uidMappings": _MAPPING,
    "mounts[].gidMappings": _MAPPING,
    "linux.namespaces[].type": "cgroup",
    "linux.namespaces[].path": "/proc/1/ns/mnt",
    "linux.uidMappings": _MAPPING,
    "linux.gidMappings": _MAPPING,
    "linux.devices[].type": "b",
    "linux.devices[].path": "/dev/y",
    "linux.devices[].major": 2,
    "linux.devices[].minor": 2,
    "linux.devices[].fileMode": 0o600,
    "linux.devices[].uid": 1,
    "linux.devices[].gid": 1,
    "linux.netDevices{}.name": "eth6",
    "linux.cgroupsPath": "/a/c",
    "linux.rootfsPropagation": "shared",
    "linux.sysctl": {"net.core.somaxconn": "7"},
    "linux.maskedPaths": ["/x"],
    "linux.readonlyPaths": ["/x"],
    "linux.mountLabel": "x",
    "linux.intelRdt.closID": "x",
    "linux.intelRdt.schemata": ["x"],
    "linux.intelRdt.l3CacheSchema": "x",
    "linux.intelRdt.memBwSchema": "MB:x",
    "linux.intelRdt.enableMonitoring": True,
    "linux.memoryPolicy.mode": "MPOL_INTERLEAVE",
    "linux.memoryPolicy.nodes": "1",
    "linux.memoryPolicy.flags": ["MPOL_F_STATIC_NODES"],
    "linux.personality.domain": "LINUX32",
    "linux.personality.flags": ["X"],
    "linux.seccomp.defaultAction": "SCMP_ACT_LOG",
    "linux.seccomp.defaultErrnoRet": 5,
    "linux.seccomp.architectures": ["SCMP_ARCH_X86"],
    "linux.seccomp.flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "linux.seccomp.syscalls[].names": ["bind"],
    "linux.seccomp.syscalls[].action": "SCMP_ACT_LOG",
    "linux.seccomp.syscalls[].errnoRet": 7,
    "linux.seccomp.syscalls[].args[].index": 1,
    "linux.seccomp.syscalls[].args[].value": 3,
    "linux.seccomp.syscalls[].args[].valueTwo": 0,
    "linux.seccomp.syscalls[].args[].op": "SCMP_CMP_NE",
    "linux.resources.devices[].allow": False,
    "linux.resources.devices[].type": "b",
    "linux.resources.devices[].major": 2,
    "linux.resources.devices[].minor": 2,
    "linux.resources.devices[].access": "w",
    "linux.resources.memory.limit": 1 << 29,
    "linux.resources.memory.reservation": 1 << 20,
    "linux.resources.memory.swap": 1 << 32,
    "linux.resources.memory.swappiness": 5,
    "linux.resources.memory.disableOOMKiller": True,
    "linux.resources.cpu.shares": 100,
    "linux.resources.cpu.quota": 1000,
    "linux.resources.cpu.burst": 1000,
    "linux.resources.cpu.period": 10000,
    "linux.resources.cpu.cpus": "0",
    "linux.resources.cpu.mems": "0",
    "linux.resources.pids.limit": 6,
    "linux.resources.blockIO.weight": 100,
    **{
        f"linux.resources.blockIO.throttle{kind}Device[].{name}": 9
        for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
        for name in ("major", "minor", "rate")
    },
    **{f"linux.resources.blockIO.weightDevice[].{name}": 90 for name in ("major", "minor", "weight")},
    "linux.resources.hugepageLimits[].pageSize": "1GB",
    "linux.resources.hugepageLimits[].limit": 1,
    "linux.resources.unified": {"memory.high": "1"},
    "linux.resources.blockIO.leafWeight": 90,
    "linux.resources.blockIO.weightDevice[].leafWeight": 90,
    "linux.resources.memory.kernel": 1 << 20,
    "linux.resources.cpu.idle": 1,
    "linux.resources.cpu.realtimePeriod": 1000,
    "linux.resources.cpu.realtimeRuntime": 10,
    "linux.resources.memory.kernelTCP": 1,
    "linux.resources.network.classID": 1,
    "linux.resources.network.priorities": [{"name": "eth1", "priority": 2}],
    "linux.resources.rdma": {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 1}},
    "linux.timeOffsets.boottime.secs": 1,
    "linux.timeOffsets.boottime.nanosecs": 1,
    "linux.timeOffsets.monotonic.secs": 1,
    "linux.timeOffsets.monotonic.nanosecs": 1,
}

# What the plan has no part in, and why. A name stands for all below it.
ELSEWHERE = {
    "annotations": "told by `state`",
    "process.user.username": "a remark of the specification's for Windows; the numbers count",
    "hooks": "run by whoever launches",
    "linux.seccomp.listenerPath": "to be ignored without SCMP_ACT_NOTIFY; see test_plan_hooks",
    "linux.seccomp.listenerMetadata": "goes where listenerPath is",
    "linux.resources.memory.checkBeforeUpdate": "for updates",
    "linux.resources.memory.useHierarchy": "the only way that the kernel has since 5.11",
}


def members(schema: dict[str, Any], files: dict[str, Any], path: str = "", file: str = "config") -> set[str]:
    """The paths of all members that have no members of their own: "a.b", "list[].a", "map{}.a"."""
    if "$ref" in schema:
        name, _, pointer = schema["$ref"].partition("#/")
        file = {"": file, "defs.json": "defs", "defs-linux.json": "defs-linux", "config-linux.json": "linux"}.get(
            name, ""
        )
        if not file:  # another platform's
            return {path}
        target = files[file]
        for part in pointer.split("/"):
            target = target[part]
        return members(target, files, path, file)
    found: set[str] = set()
    for part in schema.get("allOf", ()):
        found |= members(part, files, path, file)
    for name, inner in schema.get("properties", {}).items():
        found |= members(inner, files, f"{path}.{name}" if path else name, file)
    items = schema.get("items", {})
    for inner, mark in ((items.get("anyOf", [items])[0], "[]"), (schema.get("additionalProperties"), "{}")):
        if isinstance(inner, dict) and inner and (below := members(inner, files, path + mark, file)) != {path + mark}:
            found |= below
    return found - {path} or {path}


def schema_members() -> set[str]:
    names = {"config": "config-schema", "linux": "config-linux", "defs": "defs", "defs-linux": "defs-linux"}
    files = {key: json.loads((REFERENCE / f"runtime-{name}.json").read_text()) for key, name in names.items()}
    return members(files["config"], files)


def covered(member: str, table: dict[str, Any]) -> bool:
    return any(member == name or member.startswith((f"{name}.", f"{name}[]", f"{name}{{}}")) for name in table)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the schemas are not here")
def test_the_tables_have_all_of_the_schema() -> None:
    found = schema_members()
    assert len(found) > 150
    assert [member for member in sorted(found) if not covered(member, OTHERS) and not covered(member, ELSEWHERE)] == []
    assert [name for name in OTHERS if not any(covered(member, {name: ""}) for member in found)] == []


def changed(member: str, value: Any) -> dict[str, Any]:
    """BASE with another value of one member, whose parents are made where they are missing."""
    document = copy.deepcopy(BASE)
    place: Any = document
    *parents, last = member.split(".")
    for name in parents:
        name, mark = name.rstrip("[]{}"), name[-2:]
        place = place.setdefault(name, {})
        if mark == "[]":
            place = place[-1]
        elif mark == "{}":
            [place] = place.values()
    place[last] = value
    return document


def compiled(document: dict[str, Any], tmp_path: Path) -> tuple[bytes, ...]:
    spec = decode_spec(json.dumps(document).encode())
    assert spec.process is not None
    launch = compile_launch(LaunchRequest("x", spec, tmp_path, tmp_path / "exit", ()))
    return launch.to_wire(), compile_exec(spec.process, spec, "", ()).to_wire()


@pytest.mark.parametrize("member", OTHERS)
def test_no_member_is_silently_dropped(member: str, tmp_path: Path) -> None:
    before = compiled(BASE, tmp_path)
    refusal = ""
    try:
        assert compiled(changed(member, OTHERS[member]), tmp_path) != before
    except InvalidArgument as error:
        refusal = str(error)
    words = [word.rstrip("[]{}") for word in member.split(".")]
    assert not refusal or any(word in refusal for word in words if word not in ("linux", "process"))


@pytest.mark.parametrize("member", [*OTHERS, "annotations", "hooks.prestart", "process.user.username"])
def test_the_structures_know_each_member(member: str) -> None:
    kind: Any = oci_runtime.Spec
    for name in member.split("."):
        if name in ("boottime", "monotonic"):
            continue  # keys of a map
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        kind = _struct_in(fields[name.rstrip("[]{}")])


def _struct_in(kind: Any) -> Any:
    """The structure in "X | None", "list[X]" and "dict[str, X]"."""
    for inner in (kind, *getattr(kind, "__args__", ())):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner
    return kind
