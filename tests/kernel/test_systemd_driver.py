"""Containers whose control groups systemd makes: the fake one, which makes real groups. tests/vm has the real one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corten.errors import StartFailed, SystemFault
from corten.runtime.cgroups import host_layout
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import CPU, VERSION, Linux, Memory, Pids, Resources, Spec
from corten.testing.systemd import FakeSystemd
from tests.kernel.boxes import Boxes, boxes, make_root, needs_root
from tests.kernel.launching import remove_parents
from tests.kernel.test_oci_cli import PROGRAM, Bundle
from tests.waiting import until, until_async

pytestmark = [pytest.mark.root, needs_root]

SLICE = f"cortentest{os.getpid()}.slice"
SCOPE = f"/{SLICE}/p-oci.scope"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSystemd]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    with FakeSystemd(tmp_path / "bus", host_layout()) as made:
        yield made
    remove_parents(f"/{SLICE}")  # refused if there were still a scope below


class SystemdBundle(Bundle):
    def command(self, *args: str) -> list[str]:
        return [*PROGRAM, "--systemd-cgroup", "--root", str(self.base / "state"), *args]

    def prepare(self, *args: str, path: str = f"{SLICE}:p:oci") -> None:
        resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 9}, "devices": [{"allow": False}]}
        self.edit(*args)
        config = self.config()
        self.edit(*args, linux={**config["linux"], "cgroupsPath": path, "resources": resources})

    def config(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = json.loads((self.directory / "config.json").read_text())
        return found


@pytest.fixture
def bundle(tmp_path: Path, systemd: FakeSystemd) -> Iterator[SystemdBundle]:
    made = SystemdBundle(tmp_path)
    yield made
    made.call("delete", "--force", "oci")


def groups_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


def test_a_container_of_the_command_line(bundle: SystemdBundle, systemd: FakeSystemd, tmp_path: Path) -> None:
    bundle.prepare("sh", "-c", "while :; do sleep 0.05; done")
    command = bundle.command("create", "--bundle", str(bundle.directory), "--pid-file", str(tmp_path / "pid"), "oci")
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    unit = systemd.units["p-oci.scope"]
    assert unit.pids == [pid]
    assert unit.properties["Description"] == "corten container oci"
    assert unit.properties["TasksMax"] == 9
    assert unit.properties["DevicePolicy"] == "strict"
    mine = groups_of(pid)
    for name in ("", "memory", "pids", "cpuset", "name=systemd"):
        if name in mine:
            assert mine[name] == SCOPE, name
    bundle.ok("start", "oci")
    inside = bundle.ok("exec", "oci", "cat", "/proc/self/cgroup").splitlines()
    assert {line.split(":")[2] for line in inside} == {"/"}, (
        "the namespace's root is the scope, for further processes too"
    )
    assert str(pid) in bundle.ok("ps", "oci").split()
    bundle.ok("kill", "oci", "KILL")
    until(lambda: bundle.state() == "stopped", what="the end")
    bundle.ok("delete", "oci")
    assert systemd.units == {}
    assert systemd.calls[-2:] == ["StopUnit", "ResetFailedUnit"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/corten/x", 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/corten/x"'),
        ("a--b.slice:p:x", "a--b.slice is not the name of a slice"),
    ],
)
def test_a_path_that_is_no_scope(bundle: SystemdBundle, systemd: FakeSystemd, path: str, message: str) -> None:
    bundle.prepare("true", path=path)
    ran = bundle.call("run", "--bundle", str(bundle.directory), "oci")
    assert ran.returncode == 1
    assert message in ran.stderr
    assert systemd.calls == []


def test_without_a_path_the_scope_is_in_the_system_s_slice(bundle: SystemdBundle, systemd: FakeSystemd) -> None:
    systemd.result = "canceled"
    bundle.prepare("true", path="")
    ran = bundle.call("run", "--bundle", str(bundle.directory), "oci")
    assert ran.returncode == 1
    assert "creating the scope: StartTransientUnit of corten-oci.scope by systemd: canceled" in ran.stderr
    assert systemd.units == {}
    assert bundle.ok("list", "-q") == ""


def request(b: Boxes, name: str, *args: str) -> LaunchRequest:
    made = b.request(name, *args)
    assert made.spec.linux is not None
    made.spec.linux.cgroups_path = f"{SLICE}:p:{name}"
    made.spec.linux.resources = Resources(memory=Memory(limit=64 << 20), cpu=CPU(quota=50_000, period=100_000))
    return replace(made, systemd_cgroup=True)


def run_boxes(tmp_path: Path, work) -> None:  # type: ignore[no-untyped-def]  # a coroutine function over Boxes
    async def main() -> None:
        async with boxes(tmp_path) as made:
            await work(made)

    make_root(tmp_path / "root")
    asyncio.run(main())


def test_a_container_of_a_shim(tmp_path: Path, systemd: FakeSystemd) -> None:
    async def work(b: Boxes) -> None:
        launched = await b.client.launch(request(b, "c", "sh", "-c", "echo up; while :; do sleep 0.05; done"))
        await b.logged_until("c", "up")
        unit = systemd.units["p-c.scope"]
        assert unit.properties["CPUQuotaPerSecUSec"] == 500_000
        assert f"/{SLICE}/p-c.scope" in groups_of(launched.pid).values()
        limits = Resources(memory=Memory(limit=96 << 20), pids=Pids(limit=7))
        await b.client.resources.update("c", Spec(oci_version=VERSION, linux=Linux(resources=limits)))
        assert unit.properties["TasksMax"] == 7
        stats = await b.client.resources.stats("c")
        assert (stats.memory_limit, stats.pids_limit) == (96 << 20, 7)
        await b.client.pause("c")
        await b.client.resume("c")
        assert await b.exec("c", "e", "true")
        assert (await b.exec_exit_of("e")).code == 0
        await b.client.signal("c", signal.SIGKILL)
        await b.exit_of("c")
        await b.client.forget("c")
        assert systemd.units == {}
        await b.client.launch(request(b, "c", "true"))  # at once again, under the same name
        b.exits.pop("c")
        assert (await b.exit_of("c")).code == 0
        await b.client.forget("c")
        assert (tmp_path / "run/c/shim.log").read_text() == ""

    run_boxes(tmp_path, work)


def test_a_lost_shim_s_scope_is_stopped(tmp_path: Path, systemd: FakeSystemd) -> None:
    async def work(b: Boxes) -> None:
        launched = await b.client.launch(request(b, "c", "sleep", "1000"))
        shim = int(Path(f"/proc/{launched.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(shim, signal.SIGKILL)
        assert (await b.exit_of("c")).reason
        await until_async(lambda: systemd.units == {}, what="the scope's end")

    run_boxes(tmp_path, work)


def test_what_systemd_refuses_is_told_and_nothing_is_left(tmp_path: Path, systemd: FakeSystemd) -> None:
    async def work(b: Boxes) -> None:
        systemd.result = "failed"
        with pytest.raises(
            StartFailed, match=r"creating the scope: StartTransientUnit of p-c\.scope by systemd: failed"
        ):
            await b.client.launch(request(b, "c", "true"))
        systemd.result = "done"
        systemd.units.clear()
        await b.client.launch(request(b, "c", "sleep", "1000"))
        del systemd.units["p-c.scope"]
        with pytest.raises(SystemFault, match=r"Unit p-c\.scope not loaded"):
            await b.client.resources.update(
                "c", Spec(oci_version=VERSION, linux=Linux(resources=Resources(pids=Pids(limit=7))))
            )
        await b.client.signal("c", signal.SIGKILL)

    run_boxes(tmp_path, work)
