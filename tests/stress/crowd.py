"""Many clients at once: threads over our own blocking client, each with a connection of its own."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from corten.client.client import Client
from corten.client.transport import parse_endpoint
from tests.compat.harness import Daemon

T = TypeVar("T")


def client_of(daemon: Daemon) -> Client:
    return Client(parse_endpoint(daemon.url))


class Crowd:
    """`size` clients of one daemon."""

    def __init__(self, daemon: Daemon, size: int) -> None:
        self._daemon = daemon
        self._pool = ThreadPoolExecutor(size)
        self._own = threading.local()
        self._clients: list[Client] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for client in self._clients:
            client.session.close()

    def client(self) -> Client:
        """The calling thread's."""
        if not hasattr(self._own, "client"):
            self._own.client = client_of(self._daemon)
            self._clients.append(self._own.client)
        found: Client = self._own.client
        return found

    def each(self, act: Callable[[Client, Any], T], items: Iterable[Any]) -> list[T]:
        """`act` for all items, as many at a time as there are clients. Raises what the first failure raised."""
        return list(self._pool.map(lambda item: act(self.client(), item), items))


def body(*command: str, **host: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": list(command), "StopSignal": "SIGKILL", "HostConfig": host}


def life(client: Client, name: str) -> float:
    """Seconds that a container takes from create to its removal."""
    began = time.monotonic()
    id = client.containers.create(body("true"), name=name)["Id"]
    with_end = client.containers.wait(id, condition="next-exit")
    client.containers.start(id)
    with_end.read()
    client.containers.remove(id)
    return time.monotonic() - began


def listing(client: Client) -> float:
    """Seconds that a list of all containers takes."""
    began = time.monotonic()
    client.containers.list(all=True)
    return time.monotonic() - began


@dataclass(frozen=True)
class Pace:
    """What others feel: how long each `listing` and each `life` took, in seconds, taken in turn."""

    lists: list[float]
    lives: list[float]

    @property
    def listing(self) -> float:
        return statistics.median(self.lists)

    @property
    def life(self) -> float:
        return statistics.median(self.lives)

    def __str__(self) -> str:
        """In milliseconds, with the longest of each."""
        lists, lives = (
            f"{1e3 * statistics.median(all):.1f} (≤ {1e3 * max(all):.0f})" for all in (self.lists, self.lives)
        )
        return f"{lists} and {lives}"


def pace(client: Client, rounds: int = 15, seconds: float = 0) -> Pace:
    """Of at least `rounds`, and for as long as `seconds`."""
    found = Pace([], [])
    deadline = time.monotonic() + seconds
    while len(found.lists) < rounds or time.monotonic() < deadline:
        found.lists.append(listing(client))
        found.lives.append(life(client, f"pace-{len(found.lives)}"))
    return found


@contextmanager
def at_work(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """`act` runs in a thread until the block ends; it is to return soon after its event is set."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(act, stop)
        try:
            yield
        finally:
            stop.set()
        running.result()
