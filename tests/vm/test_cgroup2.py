"""What containers get on a host with pure cgroup v2, and an older kernel."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Host, busybox_tar
from tests.vm.machine import ROOT, group_of, output, residue, started, text
from tests.waiting import until


def test_the_host_is_pure_version_2(daemon: Daemon) -> None:
    assert "cgroup.controllers" in os.listdir(ROOT)
    info = json.loads(daemon.ok("info", "--format", "{{json .}}"))
    assert (info["CgroupVersion"], info["MemoryLimit"], info["CpuCfsQuota"]) == ("2", True, True)
    assert (info["CPUShares"], info["CPUSet"], info["PidsLimit"]) == (True, True, True)
    assert "name=cgroupns" in info["SecurityOptions"]
    assert info["Warnings"] in (None, [])


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_run(daemon: Daemon, network: str) -> None:
    links = daemon.ok("run", "--rm", "--network", network, "busybox", "ls", "/sys/class/net").split()
    assert "lo" in links
    assert ("eth0" in links) == (network == "bridge")
    assert daemon.ok("ps", "-aq") == ""


def test_the_bridge_leads_to_the_host(daemon: Daemon) -> None:
    daemon.ok(
        "run", "--rm", "busybox", "sh", "-c", "ping -c1 -w5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')"
    )


def test_a_published_port(daemon: Daemon) -> None:
    script = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"
    started(daemon, "-p", "127.0.0.1:18080:80", command=("sh", "-c", script))

    def fetch() -> bytes:
        try:
            with urllib.request.urlopen("http://127.0.0.1:18080/", timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            return b""

    assert until(fetch, what="an answer through the port") == b"hello\n"


def test_a_private_cgroup_namespace(daemon: Daemon) -> None:
    show = "cat /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x || echo refused"
    lines = daemon.docker("run", "--rm", "busybox", "sh", "-c", show).lines
    assert lines[0] == "0::/"
    assert "memory.max" in lines
    assert lines[-1] == "refused"
    host = daemon.ok("run", "--rm", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup")
    assert host.startswith("0::/")
    assert len(host) > 60


def test_limits(daemon: Daemon) -> None:
    group = started(
        daemon, "-m", "64m", "--memory-reservation", "32m", "--cpus", "1.5", "--cpu-shares", "2048",
        "--cpuset-cpus", "1", "--pids-limit", "50", "--blkio-weight", "500",
        "--device-read-bps", "/dev/vda:1mb", "--device-write-iops", "/dev/vda:100",
    )  # fmt: skip
    assert text(group / "memory.max") == str(64 << 20)
    assert text(group / "memory.low") == str(32 << 20)
    assert text(group / "cpu.max") == "150000 100000"
    assert text(group / "cpu.weight") == "174"
    assert text(group / "cpuset.cpus") == "1"
    assert text(group / "cpuset.cpus.effective") == "1"
    assert text(group / "pids.max") == "50"
    assert "rbps=1048576 wbps=max riops=max wiops=100" in text(group / "io.max")
    swap = group / "memory.swap.max"
    assert not swap.exists() or text(swap) == str(64 << 20)


def test_no_limits(daemon: Daemon) -> None:
    group = started(daemon)
    assert text(group / "memory.max") == "max"
    assert text(group / "cpu.weight") == "100"
    assert text(group / "cpu.max") == "max 100000"


def test_update(daemon: Daemon) -> None:
    group = started(daemon, "-m", "64m")
    daemon.ok("update", "-m", "128m", "--memory-swap", "256m", "--cpus", "0.5", "--pids-limit", "7", "box")
    assert text(group / "memory.max") == str(128 << 20)
    assert text(group / "cpu.max") == "50000 100000"
    assert text(group / "pids.max") == "7"
    daemon.ok("update", "--cpu-shares", "512", "--cpuset-cpus", "0", "box")
    assert text(group / "cpu.weight") == "59"
    assert text(group / "cpuset.cpus") == "0"
    assert text(group / "memory.max") == str(128 << 20)
    assert daemon.ok("exec", "box", "dd", "if=/dev/null", "of=/dev/null") == ""  # the device rules are still in force


def test_the_limit_of_processes_bites(daemon: Daemon) -> None:
    done = daemon.docker(
        "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7; do sleep 1 & done"
    )
    assert "can't fork" in done.err


def disk_number() -> str:
    number = os.stat("/dev/vda").st_rdev
    return f"{os.major(number)} {os.minor(number)}"


def test_devices(daemon: Daemon) -> None:
    script = f"""
        echo x > /dev/null && head -c 3 /dev/zero | wc -c
        mknod /tmp/d b {disk_number()} && echo made; head -c1 /tmp/d > /dev/null || echo denied
        mknod /tmp/z c 1 5 && head -c1 /tmp/z | wc -c"""
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", script)
    assert done.lines == ["3", "made", "denied", "1"], done.err
    assert "Operation not permitted" in done.err


def test_a_device_of_the_host(daemon: Daemon) -> None:
    script = "head -c1 /dev/vda | wc -c; : 1<>/dev/vda && echo written"
    done = daemon.docker("run", "--rm", "--device", "/dev/vda:/dev/vda:r", "busybox", "sh", "-c", script)
    assert done.lines == ["1"]
    assert "Operation not permitted" in done.err
    rule = f"b {disk_number().replace(' ', ':')} rm"
    script = f"mknod /tmp/d b {disk_number()}; head -c1 /tmp/d | wc -c"
    assert daemon.ok("run", "--rm", "--device-cgroup-rule", rule, "busybox", "sh", "-c", script) == "1"


def test_privileged(daemon: Daemon) -> None:
    script = """
        head -c1 /dev/vda | wc -c
        mkdir /sys/fs/cgroup/sub && echo made; rmdir /sys/fs/cgroup/sub
        mkdir -p /mnt; mount -t tmpfs t /mnt && echo mounted"""
    done = daemon.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script)
    assert done.lines == ["1", "made", "mounted"], done.err


def test_out_of_memory(daemon: Daemon) -> None:
    done = daemon.docker(
        "run", "--name", "box", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero", timeout=200
    )
    assert done.code == 137
    state = daemon.inspect("box")["State"]
    assert (state["OOMKilled"], state["ExitCode"], state["Status"]) == (True, 137, "exited")
    events = daemon.ok("events", "--since", "5m", "--until", "0s", "--filter", "event=oom", "--format", "{{.Action}}")
    assert events == "oom"


def test_pause(daemon: Daemon) -> None:
    group = started(daemon)
    daemon.ok("pause", "box")
    assert "frozen 1" in text(group / "cgroup.events")
    assert daemon.inspect("box")["State"]["Status"] == "paused"
    assert daemon.docker("exec", "box", "true").code != 0
    daemon.ok("unpause", "box")
    assert daemon.ok("exec", "box", "echo", "back") == "back"
    daemon.ok("pause", "box")
    daemon.ok("rm", "-f", "box")
    assert not group.exists()


def test_stats_top_exec_and_logs(daemon: Daemon) -> None:
    group = started(
        daemon, "-m", "64m", command=("sh", "-c", "echo line; head -c 5000000 /dev/zero > /f; sync; sleep 1000")
    )
    until(lambda: daemon.ok("logs", "box") == "line", what="the log")
    stats = json.loads(daemon.ok("stats", "--no-stream", "--format", "{{json .}}", "box"))
    assert stats["MemUsage"].endswith("/ 64MiB")
    assert not stats["MemUsage"].startswith("0B")
    assert int(stats["PIDs"]) == len(text(group / "cgroup.procs").split())
    raw = json.loads(daemon.curl("/containers/box/stats?stream=false&one-shot=true").out)
    assert raw["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert raw["cpu_stats"]["online_cpus"] == 2
    assert raw["memory_stats"]["limit"] == 64 << 20
    assert "inactive_file" in raw["memory_stats"]["stats"]
    assert "failcnt" not in raw["memory_stats"]
    assert "percpu_usage" not in raw["cpu_stats"]["cpu_usage"]
    assert raw["blkio_stats"]["io_service_bytes_recursive"]
    assert "sleep 1000" in daemon.ok("top", "box")
    daemon.ok("exec", "-d", "box", "sleep", "77")
    until(lambda: "sleep 77" in daemon.ok("top", "box"), what="the process of the exec")
    assert daemon.docker("exec", "box", "sh", "-c", "cat /proc/self/cgroup; exit 3").out == "0::/\n"


def test_stop_and_kill(daemon: Daemon) -> None:
    started(daemon, "--init")
    daemon.ok("stop", "box")
    assert daemon.inspect("box")["State"]["ExitCode"] == 143
    daemon.ok("start", "box")
    group = group_of(daemon, "box")
    daemon.ok("exec", "-d", "box", "sh", "-c", "setsid sleep 1000 & setsid sleep 1000")
    daemon.ok("kill", "box")
    assert daemon.ok("wait", "box") == "137"
    until(lambda: not group.exists(), what="the end of the group")


def test_the_host_pid_namespace_leaves_nothing(daemon: Daemon) -> None:
    """Here only the control group knows who belongs to the container."""
    daemon.ok("run", "--rm", "--pid", "host", "busybox", "sh", "-c", "setsid sleep 4321 & true")
    assert "sleep 4321" not in [line.strip() for line in output("ps", "-eo", "args").splitlines()]


def test_a_crash_of_the_daemon(daemon: Daemon) -> None:
    group = started(daemon, "-m", "64m")
    daemon.ok("pause", "box")
    pid = daemon.inspect("box")["State"]["Pid"]
    daemon.kill()
    daemon.start()
    state = daemon.inspect("box")["State"]
    assert (state["Status"], state["Pid"]) == ("paused", pid)
    daemon.ok("unpause", "box")
    assert daemon.ok("exec", "box", "echo", "alive") == "alive"
    daemon.ok("update", "-m", "96m", "--memory-swap", "-1", "box")
    assert text(group / "memory.max") == str(96 << 20)
    daemon.ok("stop", "-t", "0", "box")
    assert daemon.inspect("box")["State"]["ExitCode"] == 137
    assert not group.exists()


def test_volumes(daemon: Daemon) -> None:
    daemon.ok("run", "--rm", "-v", "v1:/v", "-v", f"{daemon.host.place}:/ro:ro", "--tmpfs", "/t", "busybox", "sh", "-c",
              "echo x > /v/f && echo y > /t/f && ! touch /ro/f 2>/dev/null")  # fmt: skip
    assert daemon.ok("run", "--rm", "-v", "v1:/v", "busybox", "cat", "/v/f") == "x"
    daemon.ok("volume", "rm", "v1")


def image_of_layers(path: Path, number: int) -> Path:
    """An archive for `docker load`: busybox, and `number` layers with a file each in /data."""
    busybox = path.with_suffix(".busybox")
    busybox_tar(busybox)
    layers = [busybox.read_bytes()]
    for index in range(number):
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(f"data/{index}"))
        layers.append(layer.getvalue())
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    names = [f"{index}.tar" for index in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["many:latest"], "Layers": names}]
    files = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for name, data in (files | dict(zip(names, layers, strict=True))).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_an_image_of_many_layers(daemon: Daemon) -> None:
    """Before Linux 6.7 the names of all of them go through one page."""
    daemon.ok("load", "-i", str(image_of_layers(daemon.host.place / "many.tar", 120)))
    assert daemon.ok("run", "--rm", "many", "sh", "-c", "touch /data/new; ls /data | wc -l") == "121"
    assert daemon.ok("run", "--rm", "-v", "v2:/data", "many", "sh", "-c", "ls /data | wc -l") == "120"
    daemon.ok("volume", "rm", "v2")
    daemon.ok("rmi", "many")


def test_stop_of_a_paused_container_that_ignores_the_signal(daemon: Daemon) -> None:
    started(daemon)
    daemon.ok("pause", "box")
    daemon.ok("stop", "-t", "1", "box")
    state = daemon.inspect("box")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)


def test_readonly_and_user(daemon: Daemon) -> None:
    assert daemon.docker("run", "--rm", "--read-only", "busybox", "touch", "/x").code == 1
    assert daemon.ok("run", "--rm", "-u", "app", "busybox", "id", "-u") == "1000"


def test_a_cgroup_parent(daemon: Daemon) -> None:
    group = started(daemon, "--cgroup-parent", "/mine/deep")
    assert group.parent == ROOT / "mine/deep"
    assert text(group / "memory.max") == "max"
    daemon.ok("rm", "-f", "box")
    assert not group.exists()
    for path in (ROOT / "mine/deep", ROOT / "mine"):
        if path.exists():
            path.rmdir()


def test_cleanup_leaves_nothing() -> None:
    """A crash with containers running, and then only `cortend --cleanup`."""
    before = residue()
    host = Host()  # a network of its own: another daemon may be there
    daemon = Daemon(host)
    try:
        daemon.start()
        daemon.ok("import", str(busybox_tar(host.place / "b.tar")), "busybox:latest")
        daemon.ok("run", "-d", "-p", "18081:80", "busybox", "sleep", "1000")
        daemon.ok("run", "-d", "--network", "none", "--name", "pp", "busybox", "sleep", "1000")
        daemon.ok("pause", "pp")
        daemon.kill()
    finally:
        daemon.close()
        host.close()
    after = residue()
    # The parent of all containers' groups goes when it is empty, also when the other daemon had made it.
    before["groups"] = [path for path in before["groups"] if path != str(ROOT / "corten")]
    for kind, things in before.items():
        assert after[kind] == things


class Nested(Host):
    """A host that is itself a container: the daemon sits in the root of its own cgroup namespace, from where the
    kernel hands no controllers down while there are processes. What is started later comes as an exec would: into the
    group of the first process."""

    HOLDER = """
        for name in $(cat /sys/fs/cgroup/cgroup.controllers); do
            echo +$name > /sys/fs/cgroup/cgroup.subtree_control
        done
        mkdir /sys/fs/cgroup/nest && echo $$ > /sys/fs/cgroup/nest/cgroup.procs
        inside='umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo && exec sleep 100000'
        exec unshare --cgroup --mount sh -ec "$inside"
    """
    ENTER = """
        echo $$ > "/sys/fs/cgroup$(sed s/0::// /proc/$1/cgroup)/cgroup.procs"
        exec nsenter --target "$1" --cgroup --mount env -- "${@:2}"
    """

    def __init__(self) -> None:
        super().__init__()
        self.holder = subprocess.Popen(["sh", "-ec", self.HOLDER], stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        assert self.holder.stdout.read(1) == b"\n"

    def inside(self, *command: str) -> list[str]:
        return super().inside("bash", "-ec", self.ENTER, "-", str(self.holder.pid), *command)

    def close(self) -> None:
        super().close()
        self.holder.kill()
        self.holder.communicate()
        until(lambda: not text(ROOT / "nest/init/cgroup.procs"), what="the end of the daemon's helpers")
        assert sorted(path.name for path in (ROOT / "nest").iterdir() if path.is_dir()) == ["init"]
        for group in ("nest/init", "nest"):
            (ROOT / group).rmdir()


def test_a_daemon_in_the_root_of_its_cgroup_namespace() -> None:
    before = residue()
    host = Nested()
    daemon = Daemon(host)
    try:
        daemon.start()
        daemon.ok("import", str(busybox_tar(host.place / "b.tar")), "busybox:latest")
        assert daemon.ok("run", "--rm", "busybox", "cat", "/proc/self/cgroup") == "0::/"
        limit = daemon.ok("run", "--rm", "-m", "64m", "busybox", "cat", "/sys/fs/cgroup/memory.max")
        assert limit == str(64 << 20)
    finally:
        print(daemon.log())
        daemon.close()
        host.close()
    after = residue()
    for kind, things in before.items():
        assert after[kind] == things
