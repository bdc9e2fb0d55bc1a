"""Flags of `docker run` and ways to watch a container that the main job does not need, with the real docker command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.compat.harness import Daemon, Outcome
from tests.waiting import until

SLEEP = ("sleep", "100")


def cgroup_file(daemon: Daemon, name: str, controller: str, v1: str, v2: str) -> str:
    pid = daemon.inspect(name)["State"]["Pid"]
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    for controllers, path in groups.items():
        if controller in controllers.split(","):
            return (Path("/sys/fs/cgroup") / controllers / path.lstrip("/") / v1).read_text().strip()
    return (Path("/sys/fs/cgroup" + groups[""]) / v2).read_text().strip()


def test_env_file_and_labels(daemon: Daemon) -> None:
    file = daemon.host.place / "env"
    file.write_text("# comment\nA=one two\nB=\n\nHOST_HAS\n")
    environment = {"HOST_HAS": "it", "PATH": os.environ["PATH"]}
    command = ["docker", "-H", daemon.url, "run", "--rm", "--env-file", str(file), "-e", "C=3", "busybox", "env"]
    seen = daemon.host.run(*command, env=environment).out.splitlines()
    assert {"A=one two", "B=", "HOST_HAS=it", "C=3"} <= set(seen)
    daemon.ok("create", "--name", "labelled", "-l", "a=1", "--label", "b", "busybox")
    assert daemon.inspect("labelled")["Config"]["Labels"] == {"a": "1", "b": ""}


def test_cpu_shares_and_cpuset(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "cpu", "--cpu-shares", "512", "--cpuset-cpus", "0", "busybox", *SLEEP)
    shares = cgroup_file(daemon, "cpu", "cpu", "cpu.shares", "cpu.weight")
    assert shares in ("512", "59")
    assert cgroup_file(daemon, "cpu", "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert daemon.ok("exec", "cpu", "nproc") == "1"


def test_publish_all_exposed_ports(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "pp", "-P", "--expose", "80", "--expose", "90/udp", "busybox",
    "httpd", "-f", "-h", "/etc")  # fmt: skip
    ports = daemon.inspect("pp")["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "90/udp"}
    host_port = ports["80/tcp"][0]["HostPort"]
    assert "root" in until(
        lambda: daemon.host.run("busybox", "wget", "-qO-", f"http://127.0.0.1:{host_port}/passwd").out, what="the page"
    )


def test_port_ranges(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "range", "-p", "8310-8312:80-82", "busybox", *SLEEP)
    ports = daemon.inspect("range")["NetworkSettings"]["Ports"]
    assert [ports[f"{port}/tcp"][0]["HostPort"] for port in (80, 81, 82)] == ["8310", "8311", "8312"]
    daemon.ok("run", "-d", "--name", "pick", "-p", "8310-8313:80", "busybox", *SLEEP)
    assert daemon.ok("port", "pick", "80").split()[0] == "0.0.0.0:8313"


ANSWER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 53))
while True:
    sock.sendto(b"answer", sock.recvfrom(100)[1])
"""
ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(0.5)
sock.sendto(b"ask", (sys.argv[1], int(sys.argv[2])))
print(sock.recv(100).decode())
"""


def test_udp_and_a_host_address(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "uu", "-p", "127.0.0.1:8320:53/udp", "-p", "127.0.0.1:8321:80", "busybox",
    "httpd", "-f", "-h", "/etc")  # fmt: skip
    pid = daemon.inspect("uu")["State"]["Pid"]
    # busybox has no UDP server: this one is the host's Python, in the container's network.
    server = subprocess.Popen(["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", ANSWER])
    try:
        ask = (sys.executable, "-c", ASK, "127.0.0.1", "8320")
        assert until(lambda: "answer" in daemon.host.run(*ask).out, what="the UDP answer")
    finally:
        server.kill()
        server.wait()
    assert "root" in until(
        lambda: daemon.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:8321/passwd").out, what="the page"
    )
    gateway = daemon.inspect("uu")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    assert "refused" in daemon.host.run("busybox", "wget", "-qO-", f"http://{gateway}:8321/passwd").err


def test_a_published_port_answers_other_containers_and_on_the_host_address(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "served", "-p", "8330:80", "busybox", "httpd", "-f", "-h", "/etc")
    gateway = daemon.inspect("served")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    fetch = ("wget", "-qO-", f"http://{gateway}:8330/passwd")
    assert "root" in until(lambda: daemon.host.run("busybox", *fetch).out, what="the page")
    assert "root" in daemon.ok("run", "--rm", "busybox", *fetch)


def volumes(daemon: Daemon) -> set[str]:
    return set(daemon.ok("volume", "ls", "-q").split())


def test_anonymous_volumes_go_with_rm(daemon: Daemon) -> None:
    before = volumes(daemon)
    daemon.ok("run", "--rm", "-v", "/data", "busybox", "touch", "/data/f")
    assert volumes(daemon) == before
    daemon.ok("run", "--name", "left", "-v", "/data", "busybox", "touch", "/data/f")
    (made,) = volumes(daemon) - before
    daemon.ok("rm", "left")
    assert made in volumes(daemon)
    daemon.ok("volume", "rm", made)


def test_a_new_volume_is_filled_from_the_image(daemon: Daemon) -> None:
    daemon.ok("run", "--rm", "-v", "filled:/home", "busybox", "true")
    assert daemon.ok("run", "--rm", "-v", "filled:/x", "busybox", "ls", "/x") == "app"
    assert daemon.ok("run", "--rm", "-v", "bare:/home:nocopy", "busybox", "ls", "/home") == ""
    daemon.ok("volume", "rm", "filled", "bare")


def test_tmpfs_options(daemon: Daemon) -> None:
    line = daemon.ok("run", "--rm", "--tmpfs", "/t:size=1m,mode=1770,exec", "busybox", "grep", " /t ", "/proc/mounts")
    assert "size=1024k" in line
    assert "mode=1770" in line
    assert "noexec" not in line
    assert "nosuid" in line


@contextmanager
def on_a_terminal(daemon: Daemon, *args: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """`docker` with a terminal as its input and output: our side of the terminal and the process."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        daemon.host.inside("docker", "-H", daemon.url, *args),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(fd: int, word: bytes) -> bytes:
    seen = b""
    while word not in seen:
        seen += os.read(fd, 1024)
    return seen


def test_detach_keys_and_attach_again(daemon: Daemon) -> None:
    with on_a_terminal(daemon, "run", "-it", "--name", "tt", "busybox", "sh") as (terminal, process):
        read_until(terminal, b"# ")
        os.write(terminal, b"\x10\x11")
        assert process.wait(20) == 0
    assert daemon.inspect("tt")["State"]["Running"] is True
    with on_a_terminal(daemon, "attach", "--detach-keys", "ctrl-x,x", "tt") as (terminal, process):
        os.write(terminal, b"echo $((40+2))\n")
        read_until(terminal, b"42")
        os.write(terminal, b"\x18x")
        process.wait(20)
    assert daemon.inspect("tt")["State"]["Running"] is True
    with on_a_terminal(daemon, "attach", "tt") as (terminal, process):
        os.write(terminal, b"exit 3\n")
        assert process.wait(20) == 3


def test_resize(daemon: Daemon) -> None:
    daemon.ok("run", "-dit", "--name", "rs", "busybox", "sh")
    assert daemon.curl("/containers/rs/resize?h=33&w=101", "POST").code == 200
    assert "33 101" in until(lambda: [daemon.ok("exec", "rs", "sh", "-c", "stty size </proc/1/fd/0")], what="the size")
    assert daemon.curl("/containers/rs/resize?h=x&w=101", "POST").code == 400


def test_attach_to_a_running_container(daemon: Daemon) -> None:
    daemon.ok("run", "-di", "--name", "at", "busybox", "sh", "-c", "read x; echo got $x; exit 8")
    done = daemon.docker("attach", "at", input="word\n")
    assert done.out == "got word\n"
    assert done.code == 8


def test_signals_pass_through_the_client(daemon: Daemon) -> None:
    trap = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    command = daemon.host.inside("docker", "-H", daemon.url, "run", "--rm", "busybox", "sh", "-c", trap)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"caught\n"
        assert process.wait(20) == 9


def waiter(daemon: Daemon, name: str, condition: str) -> tuple[threading.Thread, list[Outcome]]:
    """A request that waits in a thread of its own, and where its answer will be."""
    answers: list[Outcome] = []
    path = f"/containers/{name}/wait?condition={condition}"
    thread = threading.Thread(target=lambda: answers.append(daemon.curl(path, "POST")))
    thread.start()
    return thread, answers


def answered(waiting: tuple[threading.Thread, list[Outcome]]) -> Any:
    thread, answers = waiting
    thread.join(20)
    assert answers[0].code == 200
    return json.loads(answers[0].out)["StatusCode"]


def test_wait_for_every_condition(daemon: Daemon) -> None:
    daemon.ok("create", "--name", "ww", "busybox", "sh", "-c", "exit 4")
    assert answered(waiter(daemon, "ww", "not-running")) == 0
    following, removed = waiter(daemon, "ww", "next-exit"), waiter(daemon, "ww", "removed")
    # The two requests have no visible effect to wait for; a `_ping` after each is answered behind them.
    until(lambda: daemon.answers())
    assert daemon.docker("start", "-a", "ww").code == 4
    assert answered(waiter(daemon, "ww", "not-running")) == 4
    assert answered(following) == 4
    assert not removed[1]
    daemon.ok("rm", "ww")
    assert answered(removed) == 4
    assert daemon.curl("/containers/ww/wait?condition=never", "POST").code in (400, 404)


def test_logs_since_until_and_follow_with_tail(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "lg", "busybox", "sh", "-c", "echo a; echo b; sleep 1.2; echo c; echo d")
    until(lambda: daemon.ok("logs", "lg").split()[-2:] == ["c", "d"], what="all lines")
    stamps = [line.split()[0] for line in daemon.ok("logs", "-t", "lg").splitlines()]
    assert stamps == sorted(stamps)
    assert daemon.ok("logs", "--since", stamps[2], "lg").split() == ["c", "d"]
    assert daemon.ok("logs", "--until", stamps[1], "lg").split() == ["a", "b"]
    assert daemon.ok("logs", "--since", stamps[1], "--until", stamps[2], "lg").split()[-1] in ("c", "d")
    assert daemon.ok("logs", "--since", "10m", "--tail", "3", "lg").split() == ["b", "c", "d"]
    assert daemon.ok("logs", "--tail", "0", "lg") == ""
    daemon.ok("run", "-d", "--name", "lf", "busybox", "sh", "-c", "echo 1; echo 2; sleep 0.5; echo 3")
    assert daemon.ok("logs", "-f", "--tail", "1", "lf").split()[-1] == "3"
    assert daemon.docker("logs", "--since", "nonsense", "lg").code == 1


def test_log_rotation_by_option(daemon: Daemon) -> None:
    daemon.ok("run", "--name", "rot", "--log-opt", "max-size=2k", "--log-opt", "max-file=2", "busybox",
    "sh", "-c", "for i in $(seq 100); do echo line number $i; done")  # fmt: skip
    lines = daemon.ok("logs", "rot").splitlines()
    assert lines[-1] == "line number 100"
    assert 10 < len(lines) < 100


def test_restart_always_survives_many_ends(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "ra", "--restart", "always", "busybox", "sleep", "0.1")
    until(lambda: daemon.inspect("ra")["RestartCount"] >= 2, what="two restarts")
    daemon.ok("stop", "ra")
    assert daemon.inspect("ra")["State"]["Status"] == "exited"
    refused = daemon.docker("create", "--rm", "--restart", "always", "busybox")
    assert refused.code != 0
    assert "conflicting options" in refused.err.lower()


def test_rm_stop_and_kill_as_docker(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "rk", "--stop-signal", "INT", "busybox", "sh", "-c",
    "trap 'exit 11' INT; trap 'echo usr >&2' USR1; while :; do sleep 0.05; done")  # fmt: skip
    refused = daemon.docker("rm", "rk")
    assert refused.code == 1
    assert "container is running: stop the container before removing or force remove" in refused.err
    daemon.ok("kill", "-s", "USR1", "rk")
    until(lambda: "usr" in daemon.docker("logs", "rk").err, what="the signal")
    daemon.ok("stop", "rk")
    assert daemon.inspect("rk")["State"]["ExitCode"] == 11
    assert "is not running" in daemon.docker("kill", "rk").err
    assert daemon.docker("exec", "rk", "true").code == 1


@pytest.mark.parametrize("status", ["created", "running", "paused", "exited"])
def test_ps_by_status(daemon: Daemon, status: str) -> None:
    daemon.ok("create", "--name", "s-created", "busybox", *SLEEP)
    daemon.ok("run", "-d", "--name", "s-running", "busybox", *SLEEP)
    daemon.ok("run", "-d", "--name", "s-paused", "busybox", *SLEEP)
    daemon.ok("pause", "s-paused")
    daemon.ok("run", "--name", "s-exited", "busybox", "true")
    assert daemon.ok("ps", "-a", "--filter", f"status={status}", "--format", "{{.Names}}").split() == [f"s-{status}"]


def test_the_time_of_day_is_in_events(daemon: Daemon) -> None:
    start = time.time()
    daemon.ok("run", "--rm", "-v", "/data", "--name", "ev", "busybox", "true")
    lines = daemon.ok("events", "--since", str(start), "--until", str(time.time() + 0.2), "--format", "{{json .}}")
    told = [json.loads(line) for line in lines.splitlines()]
    kinds = {(event["Type"], event["Action"]) for event in told}
    assert {
        ("volume", "create"),
        ("network", "connect"),
        ("container", "attach"),
        ("container", "start"),
        ("container", "die"),
        ("network", "disconnect"),
        ("volume", "destroy"),
        ("container", "destroy"),
    } <= kinds
    assert all(start - 1 <= event["time"] <= time.time() + 1 for event in told)


def test_roots_groups_are_the_images(daemon: Daemon) -> None:
    """Without a user, too: `docker run alpine id` shows a dozen."""
    group = daemon.host.place / "group"
    group.write_text("root:x:0:\nwheel:x:10:root\n")
    expected = "uid=0(root) gid=0(root) groups=0(root),10(wheel)"
    daemon.ok("run", "-d", "--name", "groups", "-v", f"{group}:/etc/group", "busybox", "sh", "-c", "id; sleep 100")
    assert until(lambda: daemon.ok("logs", "groups"), what="output") == expected
    assert daemon.ok("exec", "groups", "id") == expected
    assert daemon.ok("exec", "-u", "app", "groups", "id", "-G") == "1000"


def test_security_options_over_the_daemon(daemon: Daemon) -> None:
    def status(*flags: str) -> dict[str, str]:
        text = daemon.ok("run", "--rm", *flags, "busybox", "cat", "/proc/self/status")
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    assert (status()["NoNewPrivs"], status()["Seccomp"]) == ("0", "2")
    assert status("--security-opt", "no-new-privileges")["NoNewPrivs"] == "1"
    assert status("--security-opt", "no-new-privileges=false")["NoNewPrivs"] == "0"
    assert status("--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert status("--privileged")["Seccomp"] == "0"
    assert status("--privileged", "--security-opt", "seccomp=builtin")["Seccomp"] == "2"
    assert status("--security-opt", "label=disable", "--security-opt", "label=type:x_t")["Seccomp"] == "2"
    covered = ("busybox", "grep", "-c", " /proc/[a-z]", "/proc/self/mounts")
    assert int(daemon.docker("run", "--rm", *covered).out) > 3
    assert daemon.docker("run", "--rm", "--security-opt", "systempaths=unconfined", *covered).out.strip() == "0"
    listed = "grep ' /sys/fs/cgroup' /proc/self/mounts | grep -c ' ro,'"
    assert daemon.docker("run", "--rm", "busybox", "sh", "-c", listed).out.strip() != "0"
    writable = daemon.docker("run", "--rm", "--security-opt", "writable-cgroups=true", "busybox", "sh", "-c", listed)
    assert writable.out.strip() == "0"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("apparmor=mine", "AppArmor is not enabled on this host"),
        ("no-new-privileges=perhaps", 'invalid --security-opt 2: "no-new-privileges=perhaps"'),
        ("writable-cgroups=perhaps", 'invalid --security-opt 2: "writable-cgroups=perhaps"'),
        ("unknown=x", 'invalid --security-opt 2: "unknown=x"'),
    ],
)
def test_security_options_that_are_refused(daemon: Daemon, option: str, words: str) -> None:
    done = daemon.docker("run", "--rm", "--security-opt", option, "busybox", "true")
    assert done.code == 125
    assert words in done.err
