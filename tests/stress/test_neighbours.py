"""Bad neighbours: one that is stuck in the kernel, one that floods, one that reads slowly, one that will not end.

Whoever else uses the daemon meanwhile must not feel them, beyond the processor that they use.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.client.errors import ClientError
from tests.compat.harness import Daemon
from tests.stress.census import memory
from tests.stress.crowd import Crowd, Pace, at_work, body, client_of, pace
from tests.stress.scale import SCALE
from tests.stress.stuckfs import StuckFileSystem
from tests.waiting import patience, until

LISTING = 0.1
"""Seconds that a list may take in company, where the processor is somebody else's."""
SLOWER = 6
"""How many times longer a life may take on a processor that is shared with a flood and whoever carries it."""
WAIT = 4.0
"""Seconds that nobody's list or life takes, whatever else the machine does: shorter than any wait of the daemon's."""
GROWTH = 24 << 20


@pytest.fixture
def crowd(own_daemon: Daemon) -> Iterator[Crowd]:
    with Crowd(own_daemon, 4) as crowd:
        pace(crowd.client(), 3)
        yield crowd


def unfelt(daemon: Daemon, crowd: Crowd, alone: Pace, *, slower: float) -> None:
    """Others live on at their pace, and the daemon's memory stays flat, for as long as the scale says."""
    assert daemon.process is not None
    before = memory(daemon.process.pid)
    company = pace(crowd.client(), 5, SCALE.seconds)
    grown = memory(daemon.process.pid) - before
    print(f"list and life, ms: alone {alone}, in company {company}; grown by {grown >> 10} KiB")
    # The medians, as whoever else uses the machine now and then is no neighbour of these.
    assert company.listing < patience(LISTING)
    assert company.life < patience(alone.life * slower)
    assert max(*company.lists, *company.lives) < patience(WAIT)
    assert grown < GROWTH


@pytest.mark.slow
def test_one_that_is_stuck_in_the_kernel(own_daemon: Daemon, crowd: Crowd, tmp_path: Path) -> None:
    client = crowd.client()
    alone = pace(client)
    with StuckFileSystem(tmp_path / "stuck") as stuck:
        id = client.containers.create(body("cat", "/stuck/file", Binds=[f"{stuck.place}:/stuck"]), name="stuck")["Id"]
        client.containers.start(id)
        assert stuck.asked.wait(patience(10))
        pid = client.containers.inspect(id)["State"]["Pid"]

        def end_it(stop: threading.Event) -> None:
            with client_of(own_daemon) as other, pytest.raises(ClientError):
                other.containers.remove(id, force=True)

        with at_work(end_it):
            until(lambda: "State:\tD" in Path(f"/proc/{pid}/status").read_text(), what="a process that can't be killed")
            unfelt(own_daemon, crowd, alone, slower=3)
            assert client.containers.inspect(id)["State"]["Running"], "it says what is"
    until(lambda: not client.containers.inspect(id)["State"]["Running"], what="its end, as the kernel let go")
    client.containers.remove(id)


@pytest.mark.slow
def test_one_that_floods_its_output_and_a_slow_reader(own_daemon: Daemon, crowd: Crowd) -> None:
    client = crowd.client()
    alone = pace(client)
    id = client.containers.create(body("yes", "a line that is written again and again"), name="flood")["Id"]
    client.containers.start(id)

    def read_slowly(stop: threading.Event) -> None:
        with client_of(own_daemon) as other:
            query = {"stdout": "1", "follow": "1"}
            answer = other.session.request("GET", f"/containers/{id}/logs", query)
            sock, _ = answer.detach()
            while not stop.wait(1):
                assert sock.recv(1)
            sock.close()

    with at_work(read_slowly):
        unfelt(own_daemon, crowd, alone, slower=SLOWER)
    client.containers.remove(id, force=True)


@pytest.mark.slow
def test_an_exec_that_ignores_sigterm(own_daemon: Daemon, crowd: Crowd) -> None:
    client = crowd.client()
    alone = pace(client)
    id = client.containers.create({**body("sleep", "1000"), "StopSignal": "SIGTERM"}, name="deaf")["Id"]
    client.containers.start(id)
    exec_id = client.execs.create(id, {"Cmd": ["sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]})
    client.execs.start(exec_id, {})

    def stop_it(stop: threading.Event) -> None:
        with client_of(own_daemon) as other:
            other.containers.stop(id, timeout=int(SCALE.seconds) + 1)

    with at_work(stop_it):
        unfelt(own_daemon, crowd, alone, slower=3)
    assert not client.containers.inspect(id)["State"]["Running"]
    assert client.execs.inspect(exec_id)["ExitCode"] == 137
    client.containers.remove(id)


@pytest.mark.slow
def test_many_who_watch(own_daemon: Daemon, crowd: Crowd) -> None:
    """Clients on events, and as many on the statistics of one container; some of them never read."""
    client = crowd.client()
    id = client.containers.create(body("sleep", "1000"), name="watched")["Id"]
    client.containers.start(id)
    alone = pace(client)
    assert own_daemon.process is not None
    descriptors = Path(f"/proc/{own_daemon.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    sockets = []
    for n in range(SCALE.watchers):
        path = "/events" if n % 2 else f"/containers/{id}/stats"
        with client_of(own_daemon) as other:
            sockets.append(other.session.request("GET", path).detach()[0])

    def read(stop: threading.Event) -> None:
        while not stop.is_set():
            for sock in sockets[: len(sockets) // 2]:
                sock.setblocking(False)
                try:
                    while sock.recv(1 << 16):
                        pass
                except BlockingIOError:
                    pass
            stop.wait(0.05)

    with at_work(read):
        unfelt(own_daemon, crowd, alone, slower=SLOWER)
    for sock in sockets:
        sock.close()
    until(lambda: len(list(descriptors.iterdir())) <= before + 2, what="their connections' ends")
    client.containers.remove(id, force=True)
