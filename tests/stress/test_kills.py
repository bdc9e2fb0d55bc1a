"""kill -9 of the daemon, the spawner and shims at random, while clients make and remove containers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from corten.client.errors import ClientError
from tests.compat.harness import Daemon
from tests.stress.census import census
from tests.stress.crowd import Crowd, at_work, client_of
from tests.stress.scale import SCALE
from tests.stress.test_rounds import kind, settled
from tests.waiting import until

SEED = int(os.environ.get("CORTEN_STRESS_SEED", "20261124"))
STEADY = 4
"""Containers that nobody touches: only the kill of their own shim may end them."""


class Victims:
    """What a kill may hit, and what it did."""

    def __init__(self, daemon: Daemon, rng: random.Random) -> None:
        self._daemon, self._rng = daemon, rng
        self.spared: set[int] = set()

    def strike(self) -> str:
        what = self._rng.choice(("cortend", "corten-spawner", "corten-shim"))
        if what == "cortend":
            self._daemon.kill()
            self._daemon.start()
            return what
        found = [pid for pid, name in self._daemon.host.processes().items() if name == what and pid not in self.spared]
        if found:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self._rng.choice(found), signal.SIGKILL)
        return what


def one_life(daemon: Daemon, number: int) -> bool:
    """Whether all of a container's life could be had, in spite of the kills."""
    try:
        with client_of(daemon) as client:
            id = client.containers.create(kind(number), name=f"k{number}")["Id"]
            client.containers.start(id)
            client.containers.remove(id, force=True, volumes=True)
    except (ClientError, OSError):
        until(lambda: daemon.curl("/_ping").out == "OK", what="the daemon's return")
        return False
    return True


@pytest.mark.slow
def test_kills_at_random(own_daemon: Daemon) -> None:
    daemon, rng = own_daemon, random.Random(SEED)
    with Crowd(daemon, 4) as crowd:
        crowd.each(lambda _, n: one_life(daemon, n), range(8))
        before = census(daemon)
        victims = Victims(daemon, rng)
        steady = [daemon.ok("run", "-d", "--name", f"steady{n}", "busybox", "sleep", "1000") for n in range(STEADY)]
        pids = [daemon.inspect(id)["State"]["Pid"] for id in steady]
        victims.spared = {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[1]) for pid in pids}
        numbers = iter(range(100, 1_000_000))
        lives: list[bool] = []

        def live(stop: threading.Event) -> None:
            while not stop.is_set():
                lives.extend(crowd.each(lambda _, n: one_life(daemon, n), [next(numbers) for _ in range(4)]))

        struck = []
        with at_work(live):
            for _ in range(SCALE.kills):
                pause = time.monotonic() + rng.uniform(0, 0.4)
                until(lambda: time.monotonic() >= pause)  # noqa: B023 - used at once
                struck.append(victims.strike())
        kills = ", ".join(f"{struck.count(name)} of {name}" for name in sorted(set(struck)))
        print(f"kills: {kills}; {sum(lives)} of {len(lives)} lives were whole")
        assert any(lives)
        assert daemon.ok("run", "--rm", "busybox", "echo", "well") == "well"
        assert [daemon.inspect(id)["State"]["Pid"] for id in steady] == pids, "they did not notice"
        assert all(daemon.ok("exec", id, "echo", "here") == "here" for id in steady)
        daemon.ok("rm", "-fv", *daemon.ok("ps", "-aq", "--no-trunc").split())
        assert settled(daemon, before, frozenset(steady)) == {}
