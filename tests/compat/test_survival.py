"""kill -9 at the worst moment: the daemon, the spawner, a shim."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.compat.harness import Daemon
from tests.waiting import until

COUNTER = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); usleep 20000; done"


def processes(daemon: Daemon, word: str) -> list[int]:
    return [pid for pid, name in daemon.host.processes().items() if name == word]


def test_kill_9_of_the_daemon_loses_nothing(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.ok("run", "-d", "--name", "talker", "busybox", "sh", "-c", COUNTER)
    daemon.ok("run", "-d", "--name", "web", "-p", "8090:80", "busybox", "httpd", "-f", "-h", "/etc")
    daemon.ok("run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 0.5; exit 5")
    fetch = ("busybox", "wget", "-qO-", "http://127.0.0.1:8090/passwd")
    until(lambda: "root" in daemon.host.run(*fetch).out, what="the page before")
    pid = daemon.inspect("talker")["State"]["Pid"]

    daemon.kill()
    assert "root" in daemon.host.run(*fetch).out  # ports answer with no daemon at all
    brief_gone = time.monotonic() + 1.0
    until(lambda: time.monotonic() > brief_gone)
    daemon.start()

    assert daemon.inspect("talker")["State"]["Pid"] == pid
    assert daemon.inspect("brief")["State"]["ExitCode"] == 5
    assert daemon.ok("wait", "brief") == "5"
    assert "root" in daemon.host.run(*fetch).out
    assert daemon.ok("exec", "web", "echo", "still") == "still"
    assert daemon.ok("wait", "talker") == "0"
    assert daemon.ok("logs", "talker").splitlines() == [f"line {i}" for i in range(400)]


def test_a_second_daemon_on_the_same_roots_is_refused(own_daemon: Daemon) -> None:
    import sys

    second = own_daemon.host.run(sys.executable, "-m", "corten.daemon.main", "-H",
    f"unix://{own_daemon.host.place}/b.sock", *own_daemon.roots)  # fmt: skip
    assert second.code == 1
    assert "another cortend" in second.err


def test_sigterm_leaves_containers_running(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.ok("run", "-d", "--name", "stays", "busybox", "sleep", "100")
    pid = daemon.inspect("stays")["State"]["Pid"]
    daemon.stop()
    assert daemon.process is not None
    assert daemon.process.returncode == 0, daemon.log()
    assert Path(f"/proc/{pid}").exists()
    daemon.start()
    assert daemon.inspect("stays")["State"]["Pid"] == pid
    daemon.ok("stop", "-t", "0", "stays")


def test_kill_9_of_the_spawner(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.ok("run", "-d", "--name", "before", "busybox", "sleep", "100")
    (spawner,) = processes(daemon, "corten-spawner")
    os.kill(spawner, signal.SIGKILL)
    until(lambda: daemon.docker("run", "--rm", "busybox", "echo", "again").out == "again\n", seconds=2)
    assert daemon.ok("exec", "before", "echo", "alive") == "alive"


def test_kill_9_of_a_shim(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.ok("run", "-d", "--name", "orphan", "-p", "8091:80", "busybox", "sleep", "100")
    pid = daemon.inspect("orphan")["State"]["Pid"]
    (shim,) = processes(daemon, "corten-shim")
    os.kill(shim, signal.SIGKILL)
    until(lambda: daemon.inspect("orphan")["State"]["Status"] == "exited", what="the container's end")
    state = daemon.inspect("orphan")["State"]
    assert state["ExitCode"] == 137
    assert "shim" in state["Error"]
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the process's end")
    daemon.ok("run", "-d", "--name", "next", "-p", "8091:80", "busybox", "sleep", "100")
