"""What a shim is told that drives another runtime: layers and volumes are idmapped by the shim, and by nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corten.runtime import settings
from corten.runtime.types import LaunchRequest, LogSpec, MountSpec
from corten.specs.oci_runtime import IDMapping, Linux, Mount, Namespace, Process, Root, Spec

RUN = Path("/run/c")
IDS = ((0, 100000, 65536),)


def told(options: list[str], *, remapped: bool) -> dict[str, Any]:
    mapping = [IDMapping(container_id=0, host_id=100000, size=65536)] if remapped else []
    user = [Namespace(type="user", path="/proc/9/fd/7")] if remapped else []
    spec = Spec(
        oci_version="1.3.0",
        process=Process(cwd="/", args=["true"]),
        root=Root(path="rootfs"),
        mounts=[
            Mount(destination="/proc", type="proc", source="proc"),
            Mount(destination="/v", type="bind", source="/volumes/v", options=options),
            Mount(destination="/b", type="bind", source="/srv", options=["rbind"]),
        ],
        linux=Linux(
            namespaces=[Namespace(type="mount"), *user],
            uid_mappings=mapping,
            gid_mappings=mapping,
            cgroups_path="/corten/c",
        ),
    )
    layers = ("lowerdir=/l/1:/l/2", "upperdir=/u", "workdir=/w", *(["idmap"] if remapped else []))
    request = LaunchRequest(
        id="c",
        spec=spec,
        run_dir=RUN,
        exit_file=Path("/exit"),
        rootfs=(MountSpec("overlay", "overlay", options=layers),),
        log=LogSpec("none"),
        runtime="/usr/bin/runc",
    )
    return settings.of_launch(request, [])


def test_another_runtime_is_told_that_systemd_makes_the_group() -> None:
    spec = Spec(
        oci_version="1.3.0",
        process=Process(cwd="/", args=["true"]),
        root=Root(path="rootfs"),
        linux=Linux(namespaces=[Namespace(type="mount")], cgroups_path="a.slice:corten:c"),
    )
    layer = MountSpec("bind", "/r", options=("rbind",))
    request = LaunchRequest("c", spec, RUN, Path("/exit"), (layer,), runtime="/usr/bin/runc", systemd_cgroup=True)
    told = settings.of_launch(request, [])
    assert told["runtime_args"] == ("--systemd-cgroup",)
    assert told["cgroup"] == "/a.slice/corten-c.scope"
    assert document(told)["linux"]["cgroupsPath"] == "a.slice:corten:c"


def document(launch: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(launch["config"][0] + b"}")
    return parsed


def test_a_remapped_container() -> None:
    launch = told(["rbind", "rprivate", "idmap"], remapped=True)
    assert launch["root_users"] == ("/proc/9/fd/7", IDS, IDS)
    assert [step[0] for step in launch["root_steps"]] == ["SetPropagation", "HoldOverlay", "OverlayMount"]
    assert launch["root_volumes"] == [("HoldTree", "/run/c/idmapped/1", "/volumes/v", True, (False, (), ()))]
    config = document(launch)
    assert config["mounts"][1] == {
        "destination": "/v",
        "type": "bind",
        "source": "/run/c/idmapped/1",
        "options": ["rbind", "rprivate"],
    }
    assert config["mounts"][2]["source"] == "/srv"
    assert {"type": "user", "path": "/proc/9/fd/7"} in config["linux"]["namespaces"]
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 65536}]


def test_any_other_container() -> None:
    launch = told(["rbind", "rprivate"], remapped=False)
    assert launch["root_users"] is None
    assert launch["root_volumes"] == []
    assert [step[0] for step in launch["root_steps"]] == ["SetPropagation", "OverlayMount"]
    assert document(launch)["mounts"][1]["source"] == "/volumes/v"
