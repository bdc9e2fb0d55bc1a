"""Networks, sandboxes and endpoints as the engine sees them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Transport = Literal["tcp", "udp", "sctp"]


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One network. `id` is 64 hex digits; `bridge` the link's name (15 characters at most)."""

    id: str
    name: str
    driver: Literal["bridge", "host", "null"]
    created_ns: int
    subnet: str = ""  # "172.17.0.0/16"; "" to take the next free one of the default pools
    gateway: str = ""  # "" for the subnet's first address
    ip_range: str = ""
    bridge: str = ""
    internal: bool = False
    masquerade: bool = True
    icc: bool = True
    mtu: int = 1500
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One publication. `host_port` 0 in a request takes a free one (49153 and up, or inside `host_port_end`'s range).

    `host_ip` "" means all IPv4 addresses ("0.0.0.0" once published). An IPv6 address is refused with
    InvalidArgument: the kernel cannot translate from it, and there is no proxy yet.
    """

    transport: Transport
    container_port: int
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What a container wants on a network. `name` is the container's, for error messages."""

    container_id: str
    name: str
    ip: str = ""
    mac: str = ""
    ports: tuple[PortMapping, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on a network, as made. `ports` have their host ports filled in. Serialisable (asdict)."""

    id: str
    network_id: str
    container_id: str
    interface: str  # inside the sandbox: eth0
    host_interface: str  # veth on the host
    mac: str
    ip: str
    prefix_len: int
    gateway: str
    ports: tuple[PortMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """Which user namespace a sandbox belongs to: a fresh one with these mappings, or with a `path` the one there.

    A mapping is (first id inside, first id on the host, how many).
    """

    uids: tuple[tuple[int, int, int], ...] = ()
    gids: tuple[tuple[int, int, int], ...] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A network namespace with `lo` up, held by a bind mount at `path` (below the exec root).

    `user_path` leads to the user namespace that it belongs to, "" for the host's; it is good until the sandbox is
    closed or the daemon ends: enough to start a process in it.
    """

    id: str
    path: str
    user_path: str = ""


@dataclass(slots=True)
class Connected:
    """`held` are sockets bound to the published host ports: while they are open nobody else can take the port.

    Hand them to the shim.
    """

    endpoint: Endpoint
    held: list[socket.socket] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InterfaceStats:
    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class NetworkController(Protocol):
    """Owns links, addresses, namespaces and the nftables table.

    Safe for concurrent calls; blocking work is off the loop.
    """

    async def start(
        self, networks: Sequence[NetworkSpec], endpoints: Sequence[Endpoint], sandboxes: Sequence[str] = ()
    ) -> None:
        """Bring the host to what is recorded: bridges, addresses, the table with all published ports; fill the
        sandbox pool.

        Endpoints of containers that still run are `endpoints`; `sandboxes` names running containers that have a
        sandbox without an endpoint (network mode none). Sandboxes and links of anything else are removed.
        """

    async def close(self, *, keep: bool = True) -> None:
        """Stop; nothing may be called afterwards. A second call does nothing.

        With `keep` running containers keep their network; otherwise every link, namespace and rule of ours goes.
        """

    async def fill(self, spec: NetworkSpec) -> NetworkSpec:
        """The spec as `create_network` would fill it in, with nothing made: what `start` wants of a new network."""

    async def create_network(self, spec: NetworkSpec) -> NetworkSpec:
        """The spec with subnet, gateway and bridge filled in.

        Raises Conflict on overlap ("Pool overlaps with other one on this address space").
        """

    async def remove_network(self, network_id: str) -> None: ...

    async def open_sandbox(self, container_id: str, user: UserNamespace | None = None) -> Sandbox:
        """A fresh namespace for a container, from the warm pool. It belongs to the host's user namespace or `user`."""

    async def connect(self, sandbox: Sandbox, network_id: str, request: EndpointRequest) -> Connected:
        """Give the sandbox an interface on the network and publish its ports. Undone whole if any part fails.

        Raises Conflict for an address in use, SystemFault for a port in use, with Docker's words: `driver failed
        programming external
        connectivity on endpoint NAME (ID): Bind for 0.0.0.0:80 failed: port is already allocated` (or `failed to bind
        host port for
        0.0.0.0:80:172.17.0.2:80/tcp: address already in use` where somebody outside holds it).
        """

    async def disconnect(self, endpoint: Endpoint) -> None: ...

    async def close_sandbox(self, container_id: str) -> None:
        """Remove the namespace and every endpoint in it, rules first. Idempotent."""

    async def stats(self, container_id: str) -> list[InterfaceStats]:
        """Of each interface but loopback. Nothing for a container without a sandbox (network mode host)."""
