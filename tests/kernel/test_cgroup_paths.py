"""Where a container's group is made, whose it may be, and what is said of limits that cannot be had."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corten.errors import StartFailed
from corten.runtime.cgroups import Cgroup
from tests.kernel.boxes import OWNER, boxes, cgroup_of, make_root, needs_root
from tests.kernel.launching import leftovers
from tests.kernel.test_oci_cli import Bundle
from tests.waiting import until

pytestmark = [pytest.mark.root, needs_root]


class Placed(Bundle):
    def place(self, *args: str, path: str, **resources: Any) -> None:
        self.edit(*args)
        config = json.loads((self.directory / "config.json").read_text())
        linux = {**config["linux"], "cgroupsPath": path}
        linux["resources"] = {**linux.get("resources", {}), **resources}
        self.edit(*args, linux=linux)

    def run(self) -> subprocess.CompletedProcess[str]:
        return self.call("run", "--bundle", str(self.directory), "oci", stdin=subprocess.DEVNULL)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Placed]:
    made = Placed(tmp_path)
    yield made
    made.call("delete", "--force", "oci")
    for path in (cgroup_of(""), f"/corten/relative-{OWNER}"):
        Cgroup(path).remove()


@pytest.fixture
def taken() -> Iterator[tuple[Cgroup, subprocess.Popen[bytes]]]:
    """A group with a process of somebody else's in it."""
    group = Cgroup.create(f"/corten-taken-{OWNER}/g")
    with subprocess.Popen(["sleep", "1000"]) as process:
        group.add(process.pid)
        yield group, process
        process.kill()
    until(lambda: not group.pids(), what="the end of the process")
    Cgroup(f"/corten-taken-{OWNER}").remove()


def test_a_relative_path_is_below_the_runtime_s_own_group(bundle: Placed) -> None:
    name = f"relative-{OWNER}/oci"
    bundle.place("sh", "-c", "while :; do sleep 0.05; done", path=name)
    null = subprocess.DEVNULL  # of ours: a pipe would be the container's, and wait for its end
    command = bundle.command("run", "--detach", "--bundle", str(bundle.directory), "oci")
    subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True, timeout=60)
    pid = json.loads(bundle.ok("state", "oci"))["pid"]
    assert f"/corten/{name}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    bundle.ok("delete", "--force", "oci")
    assert not leftovers(f"/corten/{name}")


def test_a_path_that_leads_upwards_is_refused(bundle: Placed) -> None:
    bundle.place("true", path="/corten/../../elsewhere")
    ran = bundle.run()
    assert ran.returncode == 1
    assert "linux.cgroupsPath must not lead upwards: /corten/../../elsewhere" in ran.stderr


def test_somebody_else_s_group_is_not_taken(
    bundle: Placed, taken: tuple[Cgroup, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    group, process = taken
    bundle.place("true", path=group.path)
    ran = bundle.run()
    assert ran.returncode == 1
    assert "the container's cgroup is not empty: 1 process(es) found" in ran.stderr
    assert group.pids() == [process.pid]

    async def by_the_daemon() -> None:
        async with boxes(tmp_path / "boxes") as b:
            request = b.request("c", "true")
            assert request.spec.linux is not None
            request.spec.linux.cgroups_path = group.path
            with pytest.raises(StartFailed, match="the container's cgroup is not empty"):
                await b.client.launch(request)

    make_root(tmp_path / "boxes/root")
    asyncio.run(by_the_daemon())
    assert group.pids() == [process.pid]
    assert process.poll() is None


def test_a_frozen_group_is_not_taken(bundle: Placed) -> None:
    group = Cgroup.create(cgroup_of("oci"))
    group.freeze()
    bundle.place("true", path=group.path)
    ran = bundle.run()
    group.thaw()
    assert ran.returncode == 1
    assert "the container's cgroup is unexpectedly frozen" in ran.stderr
    assert os.path.isdir(group.unified or group.directory("freezer"))
    assert bundle.run().returncode == 0, "an empty one is"


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"memory": {"limit": -5}}, "linux.resources.memory.limit is out of range: -5"),
        ({"cpu": {"period": 5}}, "linux.resources.cpu.period is out of range: 5"),
        ({"cpu": {"cpus": "4000"}}, "linux.resources.cpu.cpus: writing '4000' to cpuset.cpus: "),
        ({"unified": {"a/b": "1"}}, "linux.resources.unified[a/b] must be a file name, without slashes"),
        ({"blockIO": {"weight": 5}}, "linux.resources.blockIO.weight is out of range: 5"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "linux.resources.hugepageLimits[0]"),
        ({"rdma": {"no device": {"hcaHandles": 1}}}, "linux.resources.rdma has a member that is not the name"),
    ],
)
def test_limits_that_cannot_be_had_are_named_and_leave_nothing(
    bundle: Placed, resources: dict[str, Any], message: str, tmp_path: Path
) -> None:
    bundle.place("true", path=cgroup_of("oci"), **resources)
    log = tmp_path / "log"
    ran = bundle.call("--log", str(log), "--log-format", "json", "run", "--bundle", str(bundle.directory), "oci",
                      stdin=subprocess.DEVNULL)  # fmt: skip
    assert ran.returncode == 1
    assert message in ran.stderr
    assert message in json.loads(log.read_text().splitlines()[-1])["msg"]
    assert not leftovers(cgroup_of("oci"))
    assert bundle.ok("list", "-q") == ""
