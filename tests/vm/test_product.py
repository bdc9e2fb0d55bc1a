"""The main job, as on a user's machine: the daemon a service of systemd, everything else by the docker command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.harness import Daemon, Host, busybox_tar
from tests.vm.machine import group_of, text
from tests.waiting import until

PROGRAM = Path(sys.executable).parent / "cortend"
"""pip puts it there; the machine has the tree alone."""
DROP_IN = Path("/etc/systemd/system/cortend.service.d/test.conf")


class Service(Daemon):
    """`cortend.service`, with roots and a network namespace for this test."""

    def start(self) -> None:
        """As `corten system install` does it; the first request starts the daemon."""
        PROGRAM.write_text(f'#!/bin/sh\nexec {sys.executable} -m corten.daemon.main "$@"\n')
        PROGRAM.chmod(0o755)
        done = self.corten("system", "install", "--no-start", "--socket", str(self.socket), "--", *self.roots)
        assert done.code == 0, done.err
        DROP_IN.parent.mkdir()
        command = shlex.join(self.host.inside(str(PROGRAM), "-H", "fd://", *self.roots))
        DROP_IN.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
        systemctl("daemon-reload")
        systemctl("start", "cortend.socket")
        assert not self.runs()
        until(self.answers, what="the daemon's first answer")
        assert self.runs()

    def runs(self) -> bool:
        return subprocess.run(["systemctl", "is-active", "-q", "cortend.service"], check=False).returncode == 0

    def answers(self) -> bool:
        return self.socket.exists() and self.curl("/_ping").out == "OK"

    def log(self) -> str:
        done = subprocess.run(["journalctl", "-u", "cortend", "-n", "100"], capture_output=True, text=True, check=True)
        return done.stdout

    def stop(self) -> None:
        DROP_IN.unlink()
        DROP_IN.parent.rmdir()
        done = self.corten("system", "install", "--remove")
        assert done.code == 0, done.err
        assert not self.runs()
        PROGRAM.unlink()


def systemctl(*args: str) -> str:
    done = subprocess.run(["systemctl", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def service() -> Iterator[Service]:
    host = Host()
    made = Service(host)
    try:
        made.start()
        yield made
    finally:
        print(made.log())
        made.close()
        host.close()


def test_the_main_job(service: Service) -> None:
    service.ok("import", str(busybox_tar(service.host.place / "b.tar")), "busybox:latest")
    web = "mkdir /www; echo hello >/www/index.html; echo serving; exec httpd -f -h /www"
    service.ok("run", "-d", "--name", "web", "-p", "8080:80", "-m", "64m", "busybox", "sh", "-c", web)
    fetch = ("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")

    def page() -> str:
        return service.host.run(*fetch).out

    assert until(page, what="the page") == "hello\n"
    group = group_of(service, "web")
    assert text(group / "memory.max") == str(64 << 20)
    assert service.ok("logs", "web") == "serving"
    assert service.ok("exec", "web", "cat", "/www/index.html") == "hello"
    assert "0.0.0.0:8080->80/tcp" in service.ok("ps")
    stats = json.loads(service.ok("stats", "--no-stream", "--format", "{{json .}}", "web"))
    assert stats["MemUsage"].endswith("/ 64MiB")

    systemctl("restart", "cortend.service")
    until(service.answers, what="the daemon's first answer after the restart")
    assert service.inspect("web")["State"]["Status"] == "running"
    assert page() == "hello\n"
    assert service.ok("exec", "web", "echo", "alive") == "alive"

    service.ok("stop", "-t", "1", "web")
    assert service.inspect("web")["State"]["ExitCode"] in (0, 137, 143)
    service.ok("rm", "web")
    assert service.ok("ps", "-aq") == ""
    assert not group.exists()
