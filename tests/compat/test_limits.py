"""Limits and what happens at them, with the real docker command."""

from __future__ import annotations

import json
import time

from tests.compat.harness import Daemon
from tests.waiting import until

SLEEP = ("sleep", "100")
EAT = ("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=40")


def actions(daemon: Daemon, name: str) -> list[str]:
    """What events has told of a container."""
    window = ("--since", "1h", "--until", f"{time.time() + 0.2:.3f}")
    lines = daemon.ok("events", *window, "--filter", f"container={name}", "--format", "{{json .}}")
    return [json.loads(line)["Action"] for line in lines.splitlines()]


def test_a_kill_in_an_exec_is_told_while_the_container_goes_on(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "full", "-m", "16m", "--memory-swap", "16m", "busybox", *SLEEP)
    assert daemon.docker("exec", "full", *EAT).code == 137
    until(lambda: "oom" in actions(daemon, "full"), what="the event")
    state = daemon.inspect("full")["State"]
    assert (state["Running"], state["OOMKilled"]) == (True, True)
    daemon.ok("rm", "-f", "full")


def test_a_kill_of_the_first_process_is_told_before_its_end(daemon: Daemon) -> None:
    assert daemon.docker("run", "--name", "died", "-m", "16m", "--memory-swap", "16m", "busybox", *EAT).code == 137
    told = actions(daemon, "died")
    assert told.count("oom") == 1
    assert told.index("oom") < told.index("die")
    assert daemon.inspect("died")["State"]["OOMKilled"]
    daemon.ok("update", "-m", "256m", "--memory-swap", "256m", "died")
    assert daemon.docker("start", "-a", "died").code == 0
    assert not daemon.inspect("died")["State"]["OOMKilled"]
    daemon.ok("rm", "died")


def test_a_kill_is_known_after_the_daemon_s_restart(daemon: Daemon) -> None:
    script = f"until [ -e /go ]; do sleep 0.1; done; {EAT[2]}; sleep 100"
    daemon.ok("run", "-d", "--name", "later", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script)
    pid = daemon.inspect("later")["State"]["Pid"]
    daemon.kill()
    with open(f"/proc/{pid}/root/go", "w"):
        pass
    kills = f"/sys/fs/cgroup/memory/corten/{_id(daemon, pid)}/memory.oom_control"
    until(lambda: "oom_kill 0" not in _text(kills), what="the kill")
    daemon.start()
    state = daemon.inspect("later")["State"]
    assert (state["Running"], state["OOMKilled"]) == (True, True)
    assert "oom" in actions(daemon, "later")
    daemon.ok("rm", "-f", "later")


def _id(daemon: Daemon, pid: int) -> str:
    return _text(f"/proc/{pid}/cgroup").split("/corten/")[1].split("\n")[0]


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_what_the_kernel_refuses_is_named(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--name", "tight", "-m", "64m", "busybox", "sh", "-c",
              "dd if=/dev/zero of=/dev/shm/x bs=1M count=30; sleep 100")  # fmt: skip
    until(lambda: daemon.ok("exec", "tight", "du", "-m", "/dev/shm/x").startswith("30"), what="the file")
    done = daemon.docker("update", "-m", "10m", "--memory-swap", "10m", "tight")
    assert done.code == 1
    assert "linux.resources.memory.limit" in done.err
    assert "busy" in done.err
    assert daemon.inspect("tight")["HostConfig"]["Memory"] == 64 << 20
    daemon.ok("rm", "-f", "tight")
