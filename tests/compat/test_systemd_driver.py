"""`--exec-opt native.cgroupdriver=systemd` with the real docker command and a fake systemd that makes real groups."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.runtime.cgroups import host_layout
from corten.testing.systemd import FakeSystemd
from tests.compat.harness import Daemon, daemon_on_host
from tests.kernel.launching import remove_parents

SLICE = f"cortencompat{os.getpid()}.slice"


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSystemd]:
    with FakeSystemd(tmp_path_factory.mktemp("systemd") / "bus", host_layout()) as made:
        yield made
    remove_parents(f"/{SLICE}")


@pytest.fixture(scope="module")
def daemon(systemd: FakeSystemd) -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={systemd.path}")
        with daemon_on_host("--exec-opt", "native.cgroupdriver=systemd") as made:
            yield made


def test_a_container_is_a_scope(daemon: Daemon, systemd: FakeSystemd) -> None:
    assert json.loads(daemon.ok("info", "--format", "{{json .}}"))["CgroupDriver"] == "systemd"
    id = daemon.ok("run", "-d", "--cgroup-parent", SLICE, "-m", "64m", "--pids-limit", "9", "busybox", "sleep", "100")
    unit = systemd.units[f"corten-{id}.scope"]
    assert (unit.properties["Slice"], unit.properties["TasksMax"]) == (SLICE, 9)
    assert unit.pids == [daemon.inspect(id)["State"]["Pid"]]
    assert f"/{SLICE}/corten-{id}.scope" in Path(f"/proc/{unit.pids[0]}/cgroup").read_text()
    assert "sleep 100" in daemon.ok("top", id)
    daemon.ok("update", "--pids-limit", "11", id)
    assert unit.properties["TasksMax"] == 11
    assert daemon.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", id).endswith("/ 64MiB")
    daemon.ok("restart", "-t", "0", id)
    assert systemd.units[f"corten-{id}.scope"] is not unit
    daemon.ok("rm", "-f", id)
    assert systemd.units == {}


def test_the_daemon_finds_its_scopes_again(daemon: Daemon, systemd: FakeSystemd) -> None:
    id = daemon.ok("run", "-d", "--cgroup-parent", SLICE, "busybox", "sleep", "100")
    daemon.kill()
    daemon.start()
    daemon.ok("update", "--pids-limit", "12", id)
    assert systemd.units[f"corten-{id}.scope"].properties["TasksMax"] == 12
    daemon.ok("rm", "-f", id)
    assert systemd.units == {}


@pytest.mark.parametrize("parent", ["/corten/x", "a--b.slice", "plain"])
def test_a_parent_that_is_no_slice(daemon: Daemon, parent: str) -> None:
    done = daemon.docker("create", "--cgroup-parent", parent, "busybox")
    assert done.code == 1
    assert 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"' in done.err
