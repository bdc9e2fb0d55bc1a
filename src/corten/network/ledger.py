"""What a network controller knows: networks, endpoints, who holds which address and port. Pure; knows no kernel."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from corten.errors import Conflict, InvalidArgument, NotFound
from corten.network.ipam import DEFAULT_POOLS, PoolRange, Subnet, choose_subnet, mac_of, parse_mac, parse_subnet
from corten.network.ports import Binder, Claim, PortTable
from corten.network.types import Endpoint, EndpointRequest, NetworkSpec

MAX_LINK_NAME = 15  # IFNAMSIZ - 1
DEFAULT_BRIDGE = "corten0"
BRIDGE_PREFIX, VETH_PREFIX = "cb-", "cv"


@dataclass(slots=True)
class NetworkEntry:
    spec: NetworkSpec
    subnet: Subnet | None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)


class Ledger:
    """The book of a controller. No method blocks or fails half-way; call it from one thread."""

    def __init__(self, *, pools: Sequence[tuple[str, int]] = DEFAULT_POOLS, dynamic_ports: tuple[int, int]) -> None:
        self._pools = tuple(PoolRange(*pool) for pool in pools)
        self._networks: dict[str, NetworkEntry] = {}
        self.ports = PortTable(dynamic_ports)

    def specs(self) -> list[NetworkSpec]:
        return [entry.spec for entry in self._networks.values()]

    def spec(self, network_id: str) -> NetworkSpec:
        return self._entry(network_id).spec

    def endpoints(self) -> list[Endpoint]:
        return [endpoint for entry in self._networks.values() for endpoint in entry.endpoints.values()]

    def of_container(self, container_id: str) -> list[Endpoint]:
        return [endpoint for endpoint in self.endpoints() if endpoint.container_id == container_id]

    def fill(self, spec: NetworkSpec, routes: Iterable[IPv4Network] = ()) -> tuple[NetworkSpec, Subnet | None]:
        """Fill in what a spec leaves open, and give its addresses; records nothing.

        `routes` are the subnets that the host reaches otherwise: a chosen subnet avoids them, one that is asked for may
        be among them. Raises Conflict for a subnet that another network of ours overlaps, or an id or link in use.
        """
        if spec.id in self._networks:
            raise Conflict(f"network with id {spec.id} already exists")
        if spec.driver != "bridge":
            return spec, None
        ours = [entry.subnet.network for entry in self._networks.values() if entry.subnet is not None]
        if spec.subnet:
            wanted = parse_subnet(spec.subnet)
            if any(wanted.overlaps(other) for other in ours):
                raise Conflict("Pool overlaps with other one on this address space")
        else:
            wanted = choose_subnet(self._pools, [*ours, *routes])
        subnet = Subnet(str(wanted), spec.gateway, spec.ip_range)
        bridge = self._link_name(spec)
        return replace(spec, subnet=str(wanted), gateway=str(subnet.gateway), bridge=bridge), subnet

    def _link_name(self, spec: NetworkSpec) -> str:
        bridge = spec.bridge or BRIDGE_PREFIX + spec.id[: MAX_LINK_NAME - len(BRIDGE_PREFIX)]
        if len(bridge) > MAX_LINK_NAME or "/" in bridge or any(char.isspace() for char in bridge):
            raise InvalidArgument(f"invalid bridge name {bridge}: at most {MAX_LINK_NAME} characters")
        if any(entry.spec.bridge == bridge for entry in self._networks.values()):
            raise Conflict(f"bridge name {bridge} is already in use")
        return bridge

    def add_network(self, spec: NetworkSpec, routes: Iterable[IPv4Network] = ()) -> NetworkSpec:
        """`fill` a spec and record the network."""
        filled, subnet = self.fill(spec, routes)
        self._networks[spec.id] = NetworkEntry(filled, subnet)
        return filled

    def remove_network(self, network_id: str) -> NetworkSpec:
        """Raises NotFound; Conflict while there are endpoints."""
        entry = self._entry(network_id)
        if entry.endpoints:
            raise Conflict(f"error while removing network: network {entry.spec.name} has active endpoints")
        return self._networks.pop(network_id).spec

    def adopt(self, endpoint: Endpoint) -> None:
        """Record an endpoint of an earlier daemon with its address and ports.

        Raises NotFound, InvalidArgument or Conflict where it does not fit the networks that there are.
        """
        entry = self._entry(endpoint.network_id)
        if entry.subnet is None:
            raise InvalidArgument(f"network {entry.spec.name} takes no endpoints")
        entry.subnet.take(endpoint.ip)
        self.ports.adopt(endpoint.id, endpoint.ports)
        entry.endpoints[endpoint.id] = endpoint

    def reserve(self, network_id: str, request: EndpointRequest, bind: Binder) -> tuple[Endpoint, list[socket.socket]]:
        """Address, names and ports for a container on a bridge network; all of it or nothing.

        Raises NotFound, Conflict for an address in use or a second endpoint on the same network, and what
        `PortTable.claim` raises.
        """
        entry = self._entry(network_id)
        if entry.subnet is None:
            raise InvalidArgument(f"network {entry.spec.name} takes no endpoints")
        if any(endpoint.container_id == request.container_id for endpoint in entry.endpoints.values()):
            raise Conflict(f"endpoint with name {request.name} already exists in network {entry.spec.name}")
        index = len(self.of_container(request.container_id))
        wanted_mac = parse_mac(request.mac) if request.mac else ""
        ip = entry.subnet.take(request.ip)
        endpoint_id = secrets.token_hex(32)
        try:
            # Nothing is published from an internal network: it has no way out.
            wanted = replace(request, ports=()) if entry.spec.internal else request
            ports, held = self.ports.claim(Claim(endpoint_id, wanted, ip), bind)
        except BaseException:
            entry.subnet.release(ip)
            raise
        endpoint = Endpoint(
            id=endpoint_id,
            network_id=network_id,
            container_id=request.container_id,
            interface=f"eth{index}",
            host_interface=VETH_PREFIX + endpoint_id[:12],
            mac=wanted_mac or mac_of(ip),
            ip=ip,
            prefix_len=entry.subnet.prefix_len,
            gateway=entry.spec.gateway,
            ports=ports,
        )
        entry.endpoints[endpoint_id] = endpoint
        return endpoint, held

    def leave(self, endpoint: Endpoint) -> bool:
        """The endpoint is no longer its network's; False when it was not (any more).

        Its ports and its address stay lent until `release_ports` and `release_address`: rules and link outlive it.
        """
        entry = self._networks.get(endpoint.network_id)
        return entry is not None and entry.endpoints.pop(endpoint.id, None) is not None

    def release_ports(self, endpoint: Endpoint) -> None:
        self.ports.release(endpoint.id, endpoint.ports)

    def release_address(self, endpoint: Endpoint) -> None:
        """To be called once after `leave`."""
        entry = self._networks.get(endpoint.network_id)
        if entry is not None and entry.subnet is not None:
            entry.subnet.release(endpoint.ip)

    def _entry(self, network_id: str) -> NetworkEntry:
        if (entry := self._networks.get(network_id)) is None:
            raise NotFound("network", network_id, f"network {network_id} not found")
        return entry
