"""Hosts and containers made of network namespaces, and traffic between them, all inside an isolated test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from corten.linux.process import CLONE_NEWNET, setns, unshare
from corten.network.controller import BridgeController
from corten.network.types import Connected, NetworkSpec, PortMapping
from corten.testing.network import bridge_spec, endpoint_request, join, network_id
from tests.kernel.isolation import isolated, run
from tests.waiting import until

T = TypeVar("T")
HOST, OUTSIDE = "203.0.113.1", "203.0.113.2"
QUIET = 0.5  # seconds without an answer that count as dropped: less than the second after which TCP and ARP try again


class Place:
    """A network namespace; a socket that is made in it stays in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def at(cls, path: str) -> Place:
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def fresh(cls) -> Place:
        def make() -> Place:
            unshare(CLONE_NEWNET)
            return cls.at("/proc/thread-self/ns/net")

        return _in_thread(make)

    def do(self, work: Callable[[], T]) -> T:
        def entered() -> T:
            setns(self.fd, CLONE_NEWNET)
            return work()

        return _in_thread(entered)

    def ip(self, *argv: str) -> str:
        return self.do(lambda: run("ip", *argv))

    def sysctl(self, name: str, value: str) -> None:
        self.do(lambda: Path("/proc/sys", name).write_text(value))

    def tcp(self) -> socket.socket:
        return self.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def udp(self) -> socket.socket:
        return self.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def _in_thread(work: Callable[[], T]) -> T:
    """In a thread that ends with it: a thread that was in another namespace is of no further use."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def here() -> Place:
    return Place.at("/proc/thread-self/ns/net")


def tcp_peer(server: Place, port: int, client: Place, address: str, to_port: int, at: str = "0.0.0.0") -> str:
    """Connect from `client` to the address and answer from `server`; the client's address as the server sees it.

    Raises TimeoutError when nothing answers, ConnectionRefusedError when something refuses.
    """
    with server.tcp() as listener, client.tcp() as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((at, port))
        listener.listen()
        caller.settimeout(QUIET)
        caller.connect((address, to_port))
        listener.settimeout(QUIET)
        connection, peer = listener.accept()
        with connection:
            connection.sendall(b"hello")
            assert caller.recv(5) == b"hello"
        return str(peer[0])


def udp_peer(server: Place, port: int, client: Place, address: str, to_port: int) -> str:
    """As `tcp_peer`: a question and its answer, which must come from the address that was asked."""
    with server.udp() as listener, client.udp() as caller:
        listener.bind(("0.0.0.0", port))
        listener.settimeout(QUIET)
        caller.settimeout(QUIET)
        caller.connect((address, to_port))
        caller.send(b"question")
        question, peer = listener.recvfrom(100)
        listener.sendto(b"answer to " + question, peer)
        assert caller.recv(100) == b"answer to question"
        return str(peer[0])


class Lab:
    """A host with a controller and one network (10.123.0.0/24), and another host next to it at 203.0.113.2."""

    def __init__(self, controller: BridgeController) -> None:
        self.controller = controller
        self.host = here()
        self.outside = Place.fresh()
        peer = f"/proc/{os.getpid()}/fd/{self.outside.fd}"
        self.host.ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", peer)
        self.host.ip("addr", "add", f"{HOST}/24", "dev", "up0")
        self.host.ip("link", "set", "up0", "up")
        self.outside.ip("addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
        self.outside.ip("link", "set", "eth0", "up")
        for place, link in ((self.host, "up0"), (self.outside, "eth0")):
            until(lambda place=place, link=link: "state UP" in place.ip("link", "show", "dev", link))  # type: ignore[misc]

    async def container(self, name: str, *ports: PortMapping, network: str = "a") -> tuple[Place, Connected]:
        """A sandbox with an endpoint; it stays until its container is closed."""
        connected = await join(self.controller, network_id(network), endpoint_request(name, *ports))
        return Place.at(str(self.controller._mounts.path(f"{name}-id"))), connected


@contextlib.asynccontextmanager
async def lab(exec_root: Path, spec: NetworkSpec | None = None) -> AsyncIterator[Lab]:
    controller = BridgeController(exec_root, pool_size=2)
    made = Lab(controller)
    await controller.start([spec or bridge_spec()], [])
    try:
        yield made
    finally:
        await controller.close(keep=False)


def in_lab(exec_root: Path, scenario: Callable[[Lab], object], spec: NetworkSpec | None = None) -> None:
    """Run an async scenario in a lab of its own."""

    async def body() -> None:
        async with lab(exec_root, spec) as made:
            await scenario(made)  # type: ignore[misc]

    isolated(lambda: asyncio.run(body()))
