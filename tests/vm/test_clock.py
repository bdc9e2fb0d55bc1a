"""The host's clock is set forward and back, as a machine's is that wakes up or meets its time server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.compat.harness import Daemon
from tests.waiting import patience, until

YEAR = 365 * 24 * 3600


@pytest.fixture
def clock() -> Iterator[None]:
    offset = time.time() - time.monotonic()
    yield
    time.clock_settime(time.CLOCK_REALTIME, offset + time.monotonic())


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("years", [1, -1], ids=["forward", "back"])
def test_the_clock_jumps(daemon: Daemon, years: int) -> None:
    talk = "i=0; while :; do echo $i; i=$((i+1)); usleep 100000; done"
    daemon.ok("run", "-d", "--name", "talks", "busybox", "sh", "-c", talk)
    checked = ("--health-cmd", "true", "--health-interval", "1s", "--restart", "always")
    daemon.ok("run", "-d", "--name", "ends", *checked, "busybox", "sleep", "1000")
    until(lambda: daemon.inspect("ends")["State"]["Health"]["Status"] == "healthy", what="a first check")
    lines = len(daemon.ok("logs", "talks").splitlines())
    runs = len(daemon.inspect("ends")["State"]["Health"]["Log"])
    time.clock_settime(time.CLOCK_REALTIME, time.time() + years * YEAR)

    until(lambda: len(daemon.ok("logs", "talks").splitlines()) > lines, what="lines after the jump")
    assert daemon.ok("logs", "--tail", "1", "talks").isdigit()
    until(lambda: _checked_again(daemon, runs), what="a check after the jump")
    os.kill(daemon.inspect("ends")["State"]["Pid"], signal.SIGKILL)
    until(lambda: daemon.inspect("ends")["RestartCount"] == 1, what="a restart after the jump")
    assert daemon.ok("run", "--rm", "busybox", "echo", "well") == "well"
    began = time.monotonic()
    daemon.ok("stop", "-t", "1", "talks")
    assert time.monotonic() - began < patience(10)
    listed = daemon.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines()
    assert {line.split()[0] for line in listed} == {"talks", "ends"}
    daemon.stop()
    daemon.start()
    assert daemon.inspect("ends")["State"]["Running"]
    daemon.ok("rm", "-f", "talks", "ends")


def _checked_again(daemon: Daemon, runs: int) -> bool:
    log = daemon.inspect("ends")["State"]["Health"]["Log"]
    year = time.gmtime().tm_year
    return len(log) >= min(runs + 1, 5) and all(str(year) in entry["Start"] for entry in log[-1:])
