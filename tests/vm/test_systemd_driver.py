"""systemd as the cgroup driver, and as what starts the daemon: the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.runtime import cgroups_systemd
from tests.compat.harness import Daemon, Host, busybox_tar
from tests.kernel.test_oci_cli import PROGRAM, Bundle
from tests.vm.machine import ROOT, output, residue, text
from tests.waiting import until


@pytest.fixture(scope="module")
def driven() -> Iterator[Daemon]:
    before = residue()
    host = Host()
    runtimes = ("--add-runtime", "runc=/usr/sbin/runc", "--add-runtime", "crun=/usr/bin/crun")
    daemon = Daemon(host, ["--exec-opt", "native.cgroupdriver=systemd", *runtimes])
    try:
        daemon.start()
        daemon.ok("import", "-c", 'CMD ["sh"]', str(busybox_tar(host.place / "b.tar")), "busybox:latest")
        yield daemon
    finally:
        print(daemon.log())
        daemon.close()
        host.close()
    subprocess.run(["systemctl", "stop", "cta.slice"], check=True)  # made by systemd for its scopes, which have gone
    after = residue()
    for kind, things in before.items():
        assert after[kind] == things


def shown(unit: str, *names: str) -> dict[str, str]:
    lines = output("systemctl", "show", unit, *(f"--property={name}" for name in names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


def scopes() -> list[str]:
    lines = output(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "corten-*.scope", "p-*.scope"
    ).splitlines()
    return [line.split()[0] for line in lines]


DEVICE = "mknod /tmp/kmsg c 1 11 2>/dev/null; cat /tmp/kmsg 2>&1 | head -c 100"


def test_a_container_is_a_scope_with_its_limits(driven: Daemon) -> None:
    assert json.loads(driven.ok("info", "--format", "{{json .}}"))["CgroupDriver"] == "systemd"
    flags = ("-m", "64m", "--memory-swap", "96m", "--cpus", "0.51", "--pids-limit", "30", "--cpu-shares", "512")
    id = driven.ok("run", "-d", "--cap-add", "MKNOD", *flags, "--cpuset-cpus", "0", "busybox", "sleep", "1000")
    unit = f"corten-{id}.scope"
    group = ROOT / "system.slice" / unit
    names = ("Slice", "Delegate", "MemoryMax", "MemorySwapMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec")
    assert shown(unit, *names, "AllowedCPUs", "DevicePolicy", "ControlGroup") == {
        "Slice": "system.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
        "MemorySwapMax": str(32 << 20),
        "TasksMax": "30",
        "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "510ms",
        "AllowedCPUs": "0",
        "DevicePolicy": "strict",
        "ControlGroup": f"/system.slice/{unit}",
    }
    expected = {"memory.max": str(64 << 20), "cpu.max": "51000 100000", "pids.max": "30", "cpuset.cpus": "0"}
    assert {name: text(group / name) for name in expected} == expected
    assert "not permitted" in driven.ok("exec", id, "sh", "-c", DEVICE)
    output("systemctl", "daemon-reload")
    assert {name: text(group / name) for name in expected} == expected, "systemd takes nothing back"
    assert "not permitted" in driven.ok("exec", id, "sh", "-c", DEVICE)
    driven.ok("update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "40", id)
    assert shown(unit, "MemoryMax", "TasksMax") == {"MemoryMax": str(96 << 20), "TasksMax": "40"}
    output("systemctl", "daemon-reload")
    assert (text(group / "memory.max"), text(group / "memory.swap.max")) == (str(96 << 20), "0")
    assert "not permitted" in driven.ok("exec", id, "sh", "-c", DEVICE)
    driven.ok("pause", id)
    driven.ok("unpause", id)
    driven.ok("restart", "-t", "0", id)
    assert text(group / "memory.max") == str(96 << 20)
    driven.ok("rm", "-f", id)
    assert scopes() == []
    assert not group.exists()


def test_a_scope_in_a_slice_of_slices_that_is_killed_for_memory(driven: Daemon) -> None:
    eat = ("sh", "-c", "cat /proc/self/cgroup; dd if=/dev/zero of=/dev/shm/x bs=1M count=40")
    flags = ("--cgroupns", "host", "--cgroup-parent", "cta-ctb.slice", "-m", "16m", "--memory-swap", "16m")
    done = driven.docker("run", "--name", "eats", *flags, "busybox", *eat)
    assert done.code == 137
    assert done.lines[0].startswith("0::/cta.slice/cta-ctb.slice/corten-")
    assert driven.inspect("eats")["State"]["OOMKilled"]
    assert scopes() == [], "a failed unit is not left either"
    driven.ok("rm", "eats")


def test_privileged(driven: Daemon) -> None:
    assert driven.ok("run", "--rm", "--privileged", "busybox", "sh", "-c", "head -c 0 /dev/vda && echo ok") == "ok"


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_other_runtimes_are_told_of_the_driver(driven: Daemon, runtime: str) -> None:
    flags = ("--runtime", runtime, "--cgroupns", "host", "-m", "64m")
    seen = driven.ok("run", "--rm", *flags, "busybox", "cat", "/proc/self/cgroup")
    assert seen.startswith("0::/system.slice/corten-")
    assert scopes() == []


def test_a_crash_of_the_daemon(driven: Daemon) -> None:
    id = driven.ok("run", "-d", "busybox", "sleep", "1000")
    driven.kill()
    driven.start()
    assert driven.ok("exec", id, "echo", "alive") == "alive"
    driven.ok("update", "--pids-limit", "12", id)
    assert shown(f"corten-{id}.scope", "TasksMax") == {"TasksMax": "12"}
    driven.ok("rm", "-f", id)
    assert scopes() == []


def test_the_command_line(tmp_path: Path) -> None:
    class Driven(Bundle):
        def command(self, *args: str) -> list[str]:
            return [*PROGRAM, "--systemd-cgroup", "--root", str(self.base / "state"), *args]

    bundle = Driven(tmp_path)
    bundle.edit("sh", "-c", "while :; do sleep 0.2; done")
    config = json.loads((bundle.directory / "config.json").read_text())
    limits = {"pids": {"limit": 30}, "unified": {"memory.high": str(32 << 20)}}
    bundle.edit("sh", "-c", "while :; do sleep 0.2; done",
                linux={**config["linux"], "cgroupsPath": "cta.slice:p:oci", "resources": limits})  # fmt: skip
    command = bundle.command("create", "--bundle", str(bundle.directory), "oci")
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    bundle.ok("start", "oci")
    group = ROOT / "cta.slice/p-oci.scope"
    assert (text(group / "pids.max"), text(group / "memory.high")) == ("30", str(32 << 20))
    assert shown("p-oci.scope", "MemoryHigh", "TasksMax") == {"MemoryHigh": str(32 << 20), "TasksMax": "30"}
    bundle.ok("update", "--pids-limit", "50", "oci")
    assert (text(group / "pids.max"), shown("p-oci.scope", "TasksMax")["TasksMax"]) == ("50", "50")
    bundle.ok("delete", "--force", "oci")
    assert scopes() == []


def test_systemd_without_a_bus() -> None:
    """Where no bus runs, root can still call systemd on its private socket."""
    process = subprocess.Popen(["sleep", "1000"])
    try:
        cgroups_systemd.start_scope(cgroups_systemd.PRIVATE, "p-direct.scope", [("TasksMax", "t", 7)], process.pid)
        limit = ROOT / "system.slice/p-direct.scope/pids.max"
        until(lambda: text(limit) == "7", what="the limit")
        cgroups_systemd.set_properties(cgroups_systemd.PRIVATE, "p-direct.scope", [("TasksMax", "t", 8)])
        until(lambda: text(limit) == "8", what="the new limit")
        cgroups_systemd.stop_scope(cgroups_systemd.PRIVATE, "p-direct.scope")
        until(lambda: scopes() == [], what="the end of the scope")
    finally:
        process.kill()
        process.wait()


SERVICE = """
[Service]
ExecStart={command}
WorkingDirectory={directory}
KillMode=process
Delegate=yes
TasksMax=infinity
"""


def test_the_daemon_as_a_service() -> None:
    """Its containers outlive a restart of the service, with the driver that needs no systemd."""
    host = Host()
    daemon = Daemon(host)
    unit = Path("/run/systemd/system/corten-under-test.service")
    unit.write_text(SERVICE.format(command=" ".join(host.inside(*daemon.command())), directory=os.getcwd()))

    def answers() -> bool:
        return daemon.socket.exists() and daemon.curl("/_ping").out == "OK"

    try:
        output("systemctl", "daemon-reload")
        output("systemctl", "start", unit.name)
        until(answers, what="the service")
        daemon.ok("import", "-c", 'CMD ["sh"]', str(busybox_tar(host.place / "b.tar")), "busybox:latest")
        id = daemon.ok("run", "-d", "-m", "64m", "busybox", "sleep", "1000")
        pid = daemon.inspect(id)["State"]["Pid"]
        assert text(Path(f"/proc/{pid}/cgroup")) == f"0::/corten/{id}"
        output("systemctl", "restart", unit.name)
        until(answers, what="the service again")
        assert daemon.inspect(id)["State"]["Pid"] == pid
        assert daemon.ok("exec", id, "cat", "/sys/fs/cgroup/memory.max") == str(64 << 20)
        daemon.ok("rm", "-f", id)
    finally:
        subprocess.run(["systemctl", "stop", unit.name], check=False)
        unit.unlink()
        output("systemctl", "daemon-reload")
        cleaned = host.run(sys.executable, "-m", "corten.daemon.main", "--cleanup", *daemon.roots)
        host.close()
    assert cleaned.code == 0, cleaned.err
