"""Containers by the hundred, round after round: nothing leaks, and the last round is as fast as the first."""

from __future__ import annotations

import time
from typing import Any

import pytest

from corten.client.client import Client
from tests.compat.harness import Daemon
from tests.stress.census import Census, census, memory
from tests.stress.crowd import Crowd, body
from tests.stress.scale import SCALE
from tests.waiting import until

SLOWER = 1.5
"""How much slower than the first a later round may be; the first has what is done once in it."""


def kind(number: int) -> dict[str, Any]:
    """Of every five containers one publishes a port, one has volumes, one an exec, one ends by itself."""
    match number % 5:
        case 0:
            return body("sleep", "1000", PortBindings={"80/tcp": [{"HostPort": "0"}]})
        case 1:
            return {**body("sleep", "1000", Tmpfs={"/scratch": "size=1m"}), "Volumes": {"/data": {}}}
        case 2:
            return body("sh", "-c", "echo done")
        case _:
            return body("sleep", "1000")


def one_life(client: Client, job: tuple[int, int]) -> str:
    lap, number = job
    name = f"r{lap}n{number}"
    id: str = client.containers.create(kind(number), name=name)["Id"]
    client.containers.start(id)
    if number % 5 == 3:
        client.execs.start(client.execs.create(id, {"Cmd": ["true"]}), {})
    client.containers.stop(id, timeout=5)
    client.containers.remove(id, volumes=True)
    return id


def settled(daemon: Daemon, before: Census, known: frozenset[str]) -> dict[str, object]:
    """What has grown, once what is still on its way out has gone."""
    grown: dict[str, object] = {}

    def none() -> bool:
        grown.clear()
        grown.update(census(daemon, known).grown(before))
        return not grown

    try:
        until(none, seconds=15)
    except AssertionError:
        return grown
    return {}


@pytest.mark.slow
def test_rounds(own_daemon: Daemon, record_property: Any) -> None:
    daemon, took, known = own_daemon, [], set[str]()
    assert daemon.process is not None
    with Crowd(daemon, SCALE.at_once) as crowd:
        known.update(crowd.each(one_life, [(-1, n) for n in range(SCALE.at_once * 2)]))  # what is made once is made
        before = census(daemon, frozenset(known))
        memories = [memory(daemon.process.pid)]
        for lap in range(SCALE.rounds):
            began = time.monotonic()
            known.update(crowd.each(one_life, [(lap, n) for n in range(SCALE.containers)]))
            took.append(time.monotonic() - began)
            memories.append(memory(daemon.process.pid))
        print(f"seconds a round: {[round(s, 2) for s in took]}; MiB: {[size >> 20 for size in memories]}")
        record_property("seconds", took)
        assert settled(daemon, before, frozenset(known)) == {}
    assert took[-1] <= took[0] * SLOWER
    assert memories[-1] - memories[0] < 24 << 20
