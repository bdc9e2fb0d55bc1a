"""Exec sessions that are listed and signalled, and those that cannot begin."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.compat.harness import Daemon
from tests.waiting import until

STUBBORN = "trap '' TERM; trap 'exit 7' USR1; echo up; while :; do sleep 0.1; done"


@pytest.fixture
def box(daemon: Daemon) -> str:
    return daemon.ok("run", "-d", "--name", "box", "busybox", "sleep", "1000")


def begin(daemon: Daemon, *command: str) -> subprocess.Popen[bytes]:
    """`docker exec` of a command that says when it is up."""
    process = subprocess.Popen(
        daemon.host.inside("docker", "-H", daemon.url, "exec", "box", *command), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def sessions(daemon: Daemon) -> list[str]:
    return [row["ID"] for row in json.loads(daemon.curl("/containers/box/exec").out)]


@pytest.mark.usefixtures("box")
def test_a_session_is_listed_and_signalled(daemon: Daemon) -> None:
    with begin(daemon, "sh", "-c", STUBBORN) as first, begin(daemon, "sh", "-c", "echo up; exec sleep 1000") as second:
        ids = sessions(daemon)
        listed = daemon.corten("exec", "--list", "box")
        assert [line.split()[0] for line in listed.out.splitlines()] == ["EXEC", *(id[:12] for id in ids)]
        assert "sleep 1000" in listed.out
        assert daemon.corten("exec", "--kill", "TERM", "box", ids[0][:12]).out == f"{ids[0]}\n"
        assert daemon.curl(f"/exec/{ids[0]}/kill?signal=USR1", "POST").code == 204
        assert first.wait(20) == 7
        assert sessions(daemon) == [ids[1]]
        assert daemon.corten("exec", "--kill", "9", "box").out == f"{ids[1]}\n"
        assert second.wait(20) == 137
    until(lambda: sessions(daemon) == [], what="no sessions")
    assert daemon.inspect("box")["State"]["Running"]
    past = ("--since", "1m", "--until", f"{time.time() + 0.2:.3f}")
    events = daemon.ok("events", *past, "--filter", "event=exec_kill", "--format", "{{json .Actor}}")
    told = [json.loads(line)["Attributes"] for line in events.splitlines()]
    assert [(row["execID"], row["signal"]) for row in told] == [(ids[0], "15"), (ids[0], "10"), (ids[1], "9")]


@pytest.mark.usefixtures("box")
def test_signals_that_cannot_be_sent(daemon: Daemon) -> None:
    with begin(daemon, "sh", "-c", "echo up; exec sleep 1000") as process:
        (id,) = sessions(daemon)
        assert daemon.curl(f"/exec/{id}/kill?signal=NONSENSE", "POST").code == 400
        assert (
            daemon.corten("exec", "--kill", "TERM", "box", "nosuch")
            .err.strip()
            .endswith("no such exec session in box: nosuch")
        )
        assert daemon.corten("exec", "--kill", "TERM", "nobody").code == 1
        daemon.ok("pause", "box")
        assert daemon.curl(f"/exec/{id}/kill", "POST").code == 409
        daemon.ok("unpause", "box")
        assert daemon.curl(f"/exec/{id}/kill", "POST").code == 204
        assert process.wait(20) == 137
    assert daemon.curl(f"/exec/{id}/kill", "POST").code == 409
    assert daemon.curl(f"/exec/{'0' * 64}/kill", "POST").code == 404
    assert daemon.corten("exec", "box").code == 1


@pytest.mark.usefixtures("box")
def test_a_working_directory_that_is_missing_is_not_made(daemon: Daemon) -> None:
    done = daemon.docker("exec", "-w", "/nosuch", "box", "true")
    assert done.code == 126
    assert 'chdir to cwd ("/nosuch") set in config.json failed: no such file or directory' in done.out + done.err
    assert daemon.docker("exec", "box", "ls", "-d", "/nosuch").code == 1


@pytest.mark.usefixtures("box")
def test_a_user_that_nobody_is(daemon: Daemon) -> None:
    done = daemon.docker("exec", "-u", "nosuch", "box", "true")
    assert (done.code, done.out + done.err) == (
        126,
        "unable to find user nosuch: no matching entries in passwd file\n",
    )
