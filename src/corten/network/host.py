"""What a controller does to the host: links, addresses, sysctls. Blocking; safe in many threads."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

from corten.linux import rtnl
from corten.linux.netlink import NETLINK_ROUTE, Message, NetlinkSocket
from corten.network.ipam import mac_of
from corten.network.ledger import BRIDGE_PREFIX, DEFAULT_BRIDGE, VETH_PREFIX
from corten.network.namespaces import Namespace
from corten.network.sockets import Sockets, but
from corten.network.types import Endpoint, NetworkSpec

log = logging.getLogger(__name__)
_LEAVING = 0x434F5254  # a link group of our own: "CORT"
_CARRIER_SECONDS = 0.2
_ACKS_THAT_FIT = 64  # in a socket's receive buffer, with room to spare
_OUR_VETH = re.compile(rf"{VETH_PREFIX}[0-9a-f]{{12}}")
_OUR_BRIDGE = re.compile(rf"{BRIDGE_PREFIX}[0-9a-f]{{12}}")


class Host:
    """The host's side of all networks. Methods raise OSError; those that remove things accept that they are gone."""

    def __init__(self) -> None:
        self._rtnl = Sockets(NETLINK_ROUTE)
        self._bridges: dict[str, int] = {}  # ifindex by link name

    def close(self) -> None:
        self._rtnl.close()

    def routes(self, *, besides: str = "") -> list[IPv4Network]:
        """Where the host routes to, the default route and those by the link `besides` left out."""
        with self._rtnl.lend() as socket:
            ignored = 0
            if besides:
                with but(errno.ENODEV):
                    ignored = rtnl.link_named(socket, besides).index
            return [IPv4Network(destination) for destination, link in rtnl.routes(socket) if link != ignored]

    # Bridges

    def ensure_bridge(self, spec: NetworkSpec) -> bool:
        """Make the bridge of a network, or bring one that is there to what the network says. True when it was made."""
        with self._rtnl.lend() as socket:
            made = False
            with but(errno.EEXIST):
                socket.batch([rtnl.add_bridge(spec.bridge, mtu=spec.mtu, mac=mac_of(spec.gateway))])
                made = True
            try:
                self._set_bridge(socket, spec)
            except BaseException:
                if made:
                    socket.batch([rtnl.delete_link(spec.bridge)])
                raise
        return made

    def _set_bridge(self, socket: NetlinkSocket, spec: NetworkSpec) -> None:
        link = rtnl.link_named(socket, spec.bridge)
        if link.kind != "bridge":
            raise OSError(errno.EEXIST, f"link {spec.bridge} exists and is no bridge")
        wanted = (spec.gateway, int(spec.subnet.partition("/")[2]))
        there = rtnl.addresses(socket, link.index)
        # A bridge that the administrator made keeps the addresses that it has.
        ours = spec.bridge == DEFAULT_BRIDGE or _OUR_BRIDGE.fullmatch(spec.bridge) is not None
        messages = [rtnl.delete_address(link.index, *other) for other in there if ours and other != wanted]
        if wanted not in there:
            messages.append(rtnl.add_address(link.index, *wanted))
        if not spec.icc and bridged_is_filtered():
            messages.append(rtnl.bridge_filters(link.index))
        socket.batch([*messages, rtnl.set_mtu(link.index, spec.mtu), rtnl.set_up(link.index)])
        self._bridges[spec.bridge] = link.index
        # Replies to 127.0.0.1 come in by this bridge; the guard chain drops everything else that is for 127.0.0.0/8.
        write_sysctl(f"net/ipv4/conf/{spec.bridge}/route_localnet", "1")

    def delete_bridge(self, name: str) -> None:
        self._bridges.pop(name, None)
        self._delete_link(name)

    def ensure_forwarding(self) -> None:
        """Turn routing on. It stays on after us, as it may be somebody else's by then."""
        if read_sysctl("net/ipv4/ip_forward") != "1":
            log.info("net.ipv4.ip_forward is set to 1: containers are reached by routing")
            write_sysctl("net/ipv4/ip_forward", "1")

    # Endpoints

    def wire(self, spec: NetworkSpec, endpoint: Endpoint, namespace: Namespace, *, default_route: bool) -> None:
        """Link, address, route, published ports. After a failure `unwire` removes what was made."""
        with self._rtnl.lend() as socket:
            try:
                socket.batch(self._pair(spec, endpoint, namespace))
            except OSError as refusal:
                if refusal.errno not in (errno.ENODEV, errno.EINVAL) or self._bridge_stands(socket, spec.bridge):
                    raise
                log.warning("bridge %s is gone; it is made again", spec.bridge)
                self._delete_link(endpoint.host_interface)
                self.ensure_bridge(spec)
                socket.batch(self._pair(spec, endpoint, namespace))
        gateway = endpoint.gateway if default_route and not spec.internal else ""
        namespace.configure(endpoint.interface, endpoint.ip, endpoint.prefix_len, gateway)
        self._await_carrier(spec, endpoint, namespace)

    def _await_carrier(self, spec: NetworkSpec, endpoint: Endpoint, namespace: Namespace) -> None:
        """Wait until packets pass: a link that is up drops what it is given until the kernel's linkwatch has seen its
        carrier, and the first lost packet would cost the container a second.

        To ask for a link makes the linkwatch look at it, since Linux 6.8; before, it does so within milliseconds. The
        port comes first, as the bridge has no carrier without one.
        """
        with self._rtnl.lend() as socket:
            probes: tuple[Callable[[], rtnl.Link], ...] = (
                lambda: rtnl.link_named(socket, endpoint.host_interface),
                lambda: rtnl.link_named(socket, spec.bridge),
                lambda: namespace.link(endpoint.interface),
            )
            deadline = time.monotonic() + _CARRIER_SECONDS
            for probe in probes:
                while (link := probe()).operstate != rtnl.IF_OPER_UP:
                    if time.monotonic() > deadline:
                        log.warning("link %s of %s has no carrier yet", link.name, endpoint.container_id[:12])
                        return
                    time.sleep(0.0005)

    def _pair(self, spec: NetworkSpec, endpoint: Endpoint, namespace: Namespace) -> list[Message]:
        name = endpoint.host_interface
        bridge = self._bridges.get(spec.bridge, 0)
        return [
            rtnl.add_veth(name, bridge, endpoint.interface, endpoint.mac, namespace.fd, mtu=spec.mtu),
            rtnl.bridge_port_up(name, isolated=_isolated(spec)),
        ]

    def _bridge_stands(self, socket: NetlinkSocket, name: str) -> bool:
        with but(errno.ENODEV):
            return self._bridges.get(name, 0) == rtnl.link_named(socket, name).index
        return False

    def unlink(self, endpoints: Sequence[Endpoint]) -> None:
        """Remove the pairs, in about the time that one takes. Their other ends go with them."""
        names = [endpoint.host_interface for endpoint in endpoints]
        if len(names) == 1:
            self._delete_link(names[0])
            return
        with self._rtnl.lend() as socket:
            for start in range(0, len(names), _ACKS_THAT_FIT):
                with but(errno.ENODEV):
                    socket.batch([rtnl.set_group(name, _LEAVING) for name in names[start : start + _ACKS_THAT_FIT]])
            with but(errno.ENODEV):
                socket.batch([rtnl.delete_group(_LEAVING)])

    def adopt(self, spec: NetworkSpec, endpoint: Endpoint) -> None:
        """Put the link of a running container back on its bridge, where that was made anew."""
        with self._rtnl.lend() as socket, but(errno.ENODEV):
            link = rtnl.link_named(socket, endpoint.host_interface)
            if link.master != self._bridges[spec.bridge]:
                socket.batch(
                    [
                        rtnl.set_master(link.index, self._bridges[spec.bridge]),
                        rtnl.bridge_port_up(link.name, isolated=_isolated(spec)),
                    ]
                )

    def remove_orphans(self, bridges: Sequence[str], veths: Sequence[str]) -> None:
        """Remove the links that have names of ours and are not among these."""
        with self._rtnl.lend() as socket:
            found = rtnl.links(socket)
        for link in found:
            if (link.kind == "veth" and _OUR_VETH.fullmatch(link.name) and link.name not in veths) or (
                link.kind == "bridge" and _OUR_BRIDGE.fullmatch(link.name) and link.name not in bridges
            ):
                log.info("link %s belongs to nothing that runs; it is removed", link.name)
                self._delete_link(link.name)

    def _delete_link(self, name: str) -> None:
        with self._rtnl.lend() as socket, but(errno.ENODEV):
            socket.batch([rtnl.delete_link(name)])


def bridged_is_filtered() -> bool:
    """Whether the kernel has br_netfilter."""
    return os.path.isdir("/proc/sys/net/bridge")


def _isolated(spec: NetworkSpec) -> bool:
    """Without icc, neighbours are parted by the forward chain where it sees them, else by isolating their ports.

    Not by both: with br_netfilter a neighbour's packet to a published port is translated inside the bridge, and an
    isolated port would not take it.
    """
    return not spec.icc and not bridged_is_filtered()


def read_sysctl(name: str) -> str:
    """Of the network namespace that the calling thread is in."""
    with open(f"/proc/sys/{name}") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    with open(f"/proc/sys/{name}", "w") as file:
        file.write(value)
