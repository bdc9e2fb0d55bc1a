"""A network controller without a kernel, and the contract that every controller keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from corten.errors import Conflict, InvalidArgument, NotFound, SystemFault
from corten.network.ledger import Ledger
from corten.network.types import (
    Connected,
    Endpoint,
    EndpointRequest,
    InterfaceStats,
    NetworkController,
    NetworkSpec,
    PortMapping,
    Sandbox,
    UserNamespace,
)


class FakeNetworkController:
    """Addresses and ports are handed out by the same ledger as the real one; no link, rule or socket is made.

    `foreign_ports` are host ports that somebody else holds: binding one fails as the kernel's refusal does.
    """

    def __init__(self, exec_root: Path = Path("/run/corten"), *, foreign_ports: frozenset[int] = frozenset()) -> None:
        self._exec_root = exec_root
        self._foreign = foreign_ports
        self._ledger = Ledger(dynamic_ports=(49153, 65535))
        self.sandboxes: dict[str, Sandbox] = {}

    async def start(
        self, networks: Sequence[NetworkSpec], endpoints: Sequence[Endpoint], sandboxes: Sequence[str] = ()
    ) -> None:
        for spec in networks:
            self._ledger.add_network(spec)
        for endpoint in endpoints:
            self._ledger.adopt(endpoint)
        for container_id in {*sandboxes, *(endpoint.container_id for endpoint in endpoints)}:
            self._sandbox(container_id)

    async def close(self, *, keep: bool = True) -> None:
        if not keep:
            for endpoint in self._ledger.endpoints():
                await self.disconnect(endpoint)
            self.sandboxes.clear()

    async def fill(self, spec: NetworkSpec) -> NetworkSpec:
        return self._ledger.fill(spec)[0]

    async def create_network(self, spec: NetworkSpec) -> NetworkSpec:
        return self._ledger.add_network(spec)

    async def remove_network(self, network_id: str) -> None:
        self._ledger.remove_network(network_id)

    async def open_sandbox(self, container_id: str, user: UserNamespace | None = None) -> Sandbox:
        sandbox = self._sandbox(container_id)
        if user is not None and not sandbox.user_path:
            path = user.path or str(self._exec_root / "userns" / container_id)
            sandbox = self.sandboxes[container_id] = replace(sandbox, user_path=path)
        return sandbox

    async def connect(self, sandbox: Sandbox, network_id: str, request: EndpointRequest) -> Connected:
        if request.container_id not in self.sandboxes:
            raise NotFound("sandbox", request.container_id)
        endpoint, _ = self._ledger.reserve(network_id, request, self._bind)
        return Connected(endpoint)

    async def disconnect(self, endpoint: Endpoint) -> None:
        if self._ledger.leave(endpoint):
            self._ledger.release_ports(endpoint)
            self._ledger.release_address(endpoint)

    async def close_sandbox(self, container_id: str) -> None:
        for endpoint in self._ledger.of_container(container_id):
            await self.disconnect(endpoint)
        self.sandboxes.pop(container_id, None)

    async def stats(self, container_id: str) -> list[InterfaceStats]:
        return [
            InterfaceStats(endpoint.interface, 0, 0, 0, 0, 0, 0, 0, 0)
            for endpoint in self._ledger.of_container(container_id)
        ]

    def _sandbox(self, container_id: str) -> Sandbox:
        path = str(self._exec_root / "netns" / container_id)
        return self.sandboxes.setdefault(container_id, Sandbox(container_id, path))

    def _bind(self, transport: str, ip: str, port: int) -> None:
        if port in self._foreign:
            raise OSError(98, "Address already in use")


def network_id(digit: str) -> str:
    return digit * 64


def bridge_spec(digit: str = "a", *, name: str = "web", subnet: str = "10.123.0.0/24") -> NetworkSpec:
    """A bridge network for tests; `digit` makes its id."""
    return NetworkSpec(network_id(digit), name, "bridge", 1, subnet=subnet)


def endpoint_request(name: str, *ports: PortMapping, ip: str = "") -> EndpointRequest:
    """A request of container `name` whose id is made of its name."""
    return EndpointRequest(container_id=f"{name}-id", name=name, ip=ip, ports=ports)


class ControllerFactory(Protocol):
    """Makes a controller that is not started. `foreign_ports` are held by somebody else from then on."""

    def __call__(self, *, foreign_ports: frozenset[int] = frozenset()) -> NetworkController: ...


async def join(controller: NetworkController, network: str, request: EndpointRequest) -> Connected:
    return await controller.connect(await controller.open_sandbox(request.container_id), network, request)


class NetworkControllerContract:
    """What holds for every NetworkController. Subclasses give a fixture `factory` (a ControllerFactory)."""

    def run(self, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a test's scenario; to be overridden where it needs a place of its own."""
        asyncio.run(scenario())

    @asynccontextmanager
    async def started(self, factory: ControllerFactory, *foreign: int) -> AsyncIterator[NetworkController]:
        controller = factory(foreign_ports=frozenset(foreign))
        await controller.start([], [])
        try:
            await controller.create_network(bridge_spec())
            yield controller
        finally:
            await controller.close(keep=False)

    def test_a_network_without_subnet_gets_one_that_no_other_has(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                first = await controller.create_network(bridge_spec("b", name="one", subnet=""))
                second = await controller.create_network(bridge_spec("c", name="two", subnet=""))
                assert first.subnet
                assert second.subnet not in ("", first.subnet)
                assert first.gateway == first.subnet.split("/")[0].removesuffix("0") + "1"
                assert first.bridge != second.bridge

        self.run(run)

    def test_a_spec_is_filled_in_without_making_anything(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                wanted = bridge_spec("b", name="one", subnet="")
                filled = await controller.fill(wanted)
                assert filled.gateway
                assert await controller.create_network(wanted) == filled

        self.run(run)

    def test_overlapping_subnets_are_refused(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
                    await controller.create_network(bridge_spec("b", subnet="10.123.0.128/25"))

        self.run(run)

    def test_addresses_are_lent_in_order_and_come_back(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                first = await join(controller, network_id("a"), endpoint_request("first"))
                second = await join(controller, network_id("a"), endpoint_request("second"))
                assert (first.endpoint.ip, second.endpoint.ip) == ("10.123.0.2", "10.123.0.3")
                assert first.endpoint.mac == "02:42:0a:7b:00:02"
                assert (first.endpoint.gateway, first.endpoint.prefix_len) == ("10.123.0.1", 24)
                await controller.close_sandbox("first-id")
                again = await join(controller, network_id("a"), endpoint_request("again", ip="10.123.0.2"))
                assert again.endpoint.ip == "10.123.0.2"

        self.run(run)

    def test_an_address_in_use_is_a_conflict(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                await join(controller, network_id("a"), endpoint_request("first", ip="10.123.0.9"))
                for taken in ("10.123.0.9", "10.123.0.1", "10.123.0.255"):
                    with pytest.raises(Conflict, match="Address already in use"):
                        await join(controller, network_id("a"), endpoint_request("second", ip=taken))
                with pytest.raises(InvalidArgument, match="does not belong to any of this network's subnets"):
                    await join(controller, network_id("a"), endpoint_request("second", ip="10.9.9.9"))

        self.run(run)

    def test_a_port_of_another_endpoint_is_refused_and_free_again_after_it(self, factory: ControllerFactory) -> None:
        port = PortMapping("tcp", 80, "127.0.0.1", 18080)

        async def run() -> None:
            async with self.started(factory) as controller:
                first = await join(controller, network_id("a"), endpoint_request("first", port))
                words = (
                    r"connectivity on endpoint second \([0-9a-f]{64}\): Bind for 0.0.0.0:18080 failed: port is already"
                )
                with pytest.raises(SystemFault, match=words):
                    await join(
                        controller, network_id("a"), endpoint_request("second", PortMapping("tcp", 80, "", 18080))
                    )
                other = await join(
                    controller, network_id("a"), endpoint_request("second", PortMapping("udp", 80, "", 18080))
                )
                assert other.endpoint.ip == "10.123.0.3"
                for held in first.held:
                    held.close()
                await controller.close_sandbox("first-id")
                third = await join(controller, network_id("a"), endpoint_request("third", port))
                assert third.endpoint.ports[0].host_port == 18080
                for held in (*other.held, *third.held):
                    held.close()

        self.run(run)

    def test_a_port_of_somebody_else_is_refused_whole(self, factory: ControllerFactory) -> None:
        ports = (PortMapping("tcp", 81, "", 18081), PortMapping("tcp", 80, "", 18080))

        async def run() -> None:
            async with self.started(factory, 18080) as controller:
                words = "failed to bind host port for 0.0.0.0:18080:10.123.0.2:80/tcp: address already in use"
                with pytest.raises(SystemFault, match=words):
                    await join(controller, network_id("a"), endpoint_request("first", *ports))
                after = await join(controller, network_id("a"), endpoint_request("first", ports[0]))
                assert after.endpoint.ip in ("10.123.0.2", "10.123.0.3")
                for held in after.held:
                    held.close()

        self.run(run)

    def test_ranges_skip_what_is_taken(self, factory: ControllerFactory) -> None:
        wanted = PortMapping("tcp", 80, "", 18080, 18082)

        async def run() -> None:
            async with self.started(factory, 18080) as controller:
                first = await join(controller, network_id("a"), endpoint_request("first", wanted))
                second = await join(controller, network_id("a"), endpoint_request("second", wanted))
                found = [item.endpoint.ports[0].host_port for item in (first, second)]
                assert found == [18081, 18082]
                with pytest.raises(SystemFault, match=r"Bind for 0\.0\.0\.0:18080-18082 failed: all ports"):
                    await join(controller, network_id("a"), endpoint_request("third", wanted))
                free = await join(controller, network_id("a"), endpoint_request("third", PortMapping("tcp", 80)))
                assert free.endpoint.ports[0].host_port > 1024
                assert free.endpoint.ports[0].host_ip == "0.0.0.0"
                for held in (*first.held, *second.held, *free.held):
                    held.close()

        self.run(run)

    def test_publishing_on_ipv6_is_refused_not_ignored(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                with pytest.raises(InvalidArgument, match="IPv4 addresses only"):
                    await join(controller, network_id("a"), endpoint_request("first", PortMapping("tcp", 80, "::1", 1)))

        self.run(run)

    def test_release_may_be_repeated(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                made = await join(controller, network_id("a"), endpoint_request("first"))
                await controller.disconnect(made.endpoint)
                await controller.disconnect(made.endpoint)
                await controller.close_sandbox("first-id")
                await controller.close_sandbox("first-id")
                await controller.close_sandbox("never-seen")
                await controller.remove_network(network_id("a"))
                with pytest.raises(NotFound):
                    await controller.remove_network(network_id("a"))

        self.run(run)

    def test_a_network_with_endpoints_stays(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                await join(controller, network_id("a"), endpoint_request("first"))
                with pytest.raises(Conflict, match="has active endpoints"):
                    await controller.remove_network(network_id("a"))

        self.run(run)

    def test_a_sandbox_is_opened_once(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                assert await controller.open_sandbox("first-id") == await controller.open_sandbox("first-id")
                assert await controller.open_sandbox("first-id") != await controller.open_sandbox("second-id")

        self.run(run)

    def test_stats_name_the_interfaces(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            async with self.started(factory) as controller:
                await join(controller, network_id("a"), endpoint_request("first"))
                assert [item.name for item in await controller.stats("first-id")] == ["eth0"]
                assert await controller.stats("never-seen") == []

        self.run(run)

    def test_what_was_recorded_is_known_after_a_restart(self, factory: ControllerFactory) -> None:
        async def run() -> None:
            port = PortMapping("tcp", 80, "", 18080)
            async with self.started(factory) as controller:
                made = await join(controller, network_id("a"), endpoint_request("first", port))
                await controller.close(keep=True)
                after = factory()
                try:
                    await after.start([bridge_spec()], [made.endpoint])
                    second = await join(after, network_id("a"), endpoint_request("second"))
                    assert second.endpoint.ip == "10.123.0.3"
                    with pytest.raises(SystemFault, match="port is already allocated"):
                        await join(after, network_id("a"), endpoint_request("third", port))
                    await after.close_sandbox("first-id")
                finally:
                    for held in made.held:
                        held.close()
                    await after.close(keep=False)

        self.run(run)
