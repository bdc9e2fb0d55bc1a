"""The nftables table: maps of published ports, and the rules that the networks need. Pure: gives messages as data.

    guard        raw        nothing that is for 127.0.0.0/8 or claims to be from it comes in from a bridge
    prerouting   nat        published ports, for packets from other hosts and from containers
    output       nat        published ports, for the host's own connections, 127.0.0.1 included
    postrouting  nat        masquerade: out of a network, back into it, and from 127.0.0.1
    forward      filter     between a bridge and the world; published ports come in, nothing else does

Ports published on one address are in `bound`, ports published on all in `wildcard`; a lookup costs the same however
many there are. The rules of other programs are never touched, and may still drop what is accepted here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corten.linux import nftables as nft
from corten.linux.netlink import Message
from corten.network.ports import ANY
from corten.network.types import Endpoint, NetworkSpec

Element = tuple[bytes, bytes]
BRIDGES, BOUND, WILDCARD = "bridges", "bound", "wildcard"
GUARD, PREROUTING, OUTPUT, POSTROUTING, FORWARD = "guard", "prerouting", "output", "postrouting", "forward"
_CHAINS = (
    (GUARD, "filter", nft.NF_INET_PRE_ROUTING, nft.NF_IP_PRI_RAW),
    (PREROUTING, "nat", nft.NF_INET_PRE_ROUTING, nft.NF_IP_PRI_NAT_DST),
    (OUTPUT, "nat", nft.NF_INET_LOCAL_OUT, nft.NF_IP_PRI_NAT_DST),
    (POSTROUTING, "nat", nft.NF_INET_POST_ROUTING, nft.NF_IP_PRI_NAT_SRC),
    (FORWARD, "filter", nft.NF_INET_FORWARD, nft.NF_IP_PRI_FILTER),
)
_TARGET = (nft.concat_type(nft.TYPE_IPV4_ADDR, nft.TYPE_INET_SERVICE), 8)
_BOUND_KEY = (nft.concat_type(nft.TYPE_IPV4_ADDR, nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE), 12)
_WILDCARD_KEY = (nft.concat_type(nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE), 8)
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_DROP, _ACCEPT, _RETURN = nft.verdict(nft.NF_DROP), nft.verdict(nft.NF_ACCEPT), nft.verdict(nft.NFT_RETURN)
_LOOPBACK = ("127.0.0.0", 8)


@dataclass(frozen=True, slots=True)
class Elements:
    """What is in the maps for some endpoints."""

    bound: frozenset[Element] = frozenset()
    wildcard: frozenset[Element] = frozenset()

    def __sub__(self, other: Elements) -> Elements:
        return Elements(self.bound - other.bound, self.wildcard - other.wildcard)

    def __bool__(self) -> bool:
        return bool(self.bound or self.wildcard)

    def each(self) -> list[Elements]:
        """One for each element."""
        return [Elements(bound=frozenset({item})) for item in self.bound] + [
            Elements(wildcard=frozenset({item})) for item in self.wildcard
        ]


def published(endpoints: Iterable[Endpoint]) -> Elements:
    bound, wildcard = set(), set()
    for endpoint in endpoints:
        address = socket.inet_aton(endpoint.ip)
        for mapping in endpoint.ports:
            target = nft.key(address, nft.port(mapping.container_port))
            here = (bytes((PROTOCOLS[mapping.transport],)), nft.port(mapping.host_port))
            if mapping.host_ip == ANY:
                wildcard.add((nft.key(*here), target))
            else:
                bound.add((nft.key(socket.inet_aton(mapping.host_ip), *here), target))
    return Elements(frozenset(bound), frozenset(wildcard))


class Rules:
    """Renders the table of one controller."""

    def __init__(self, table: str = "corten") -> None:
        self.table = nft.Table(table)

    def whole(self, networks: Sequence[NetworkSpec], elements: Elements) -> list[Message]:
        """The table from nothing, in place of what stands: in one transaction, so that no packet sees it half made."""
        table = self.table
        return [
            table.add(),
            table.delete(),
            table.add(),
            table.set(BRIDGES, nft.TYPE_IFNAME, 16, 1),
            table.map(BOUND, _BOUND_KEY, _TARGET, 2),
            table.map(WILDCARD, _WILDCARD_KEY, _TARGET, 3),
            *(table.base_chain(*chain) for chain in _CHAINS),
            *self._static(),
            *table.add_elements(BRIDGES, [(nft.ifname(spec.bridge), b"") for spec in networks]),
            *self._of_networks(networks),
            *self.add(elements),
        ]

    def networks_changed(
        self, networks: Sequence[NetworkSpec], *, added: Sequence[str] = (), removed: Sequence[str] = ()
    ) -> list[Message]:
        """The chains that speak of networks, made anew; `added` and `removed` are bridges. Ports stay as they are."""
        table = self.table
        return [
            *table.add_elements(BRIDGES, [(nft.ifname(name), b"") for name in added]),
            *table.delete_elements(BRIDGES, [(nft.ifname(name), b"") for name in removed]),
            table.flush_chain(POSTROUTING),
            table.flush_chain(FORWARD),
            *self._of_networks(networks),
        ]

    def add(self, elements: Elements) -> list[Message]:
        return [
            *self.table.add_elements(BOUND, elements.bound),
            *self.table.add_elements(WILDCARD, elements.wildcard),
        ]

    def delete(self, elements: Elements) -> list[Message]:
        return [
            *self.table.delete_elements(BOUND, elements.bound),
            *self.table.delete_elements(WILDCARD, elements.wildcard),
        ]

    def gone(self) -> list[Message]:
        return [self.table.add(), self.table.delete()]

    def _static(self) -> list[Message]:
        rule, protocol = self.table.rule, nft.meta(nft.NFT_META_L4PROTO, 0)
        local = nft.fib_daddr_type() + nft.compare(struct.pack("=I", nft.RTN_LOCAL))
        bound = nft.ip_daddr(0) + nft.meta(nft.NFT_META_L4PROTO, 1) + nft.th_dport(2) + nft.map_lookup(BOUND)
        wildcard = local + protocol + nft.th_dport(1) + nft.map_lookup(WILDCARD)
        to_container = nft.dnat(0, 1)
        return [
            # route_localnet, which replies to 127.0.0.1 need, would let a container reach the host's loopback.
            rule(GUARD, nft.iif_in(BRIDGES), nft.is_ipv4(), nft.to_net(*_LOOPBACK), _DROP),
            rule(GUARD, nft.iif_in(BRIDGES), nft.is_ipv4(), nft.from_net(*_LOOPBACK), _DROP),
            # A neighbour's packet for 127.0.0.1 would be translated before the kernel can refuse it as a martian.
            rule(PREROUTING, nft.is_ipv4(), nft.to_net(*_LOOPBACK), _RETURN),
            *(rule(chain, nft.is_ipv4(), bound, to_container) for chain in (PREROUTING, OUTPUT)),
            *(rule(chain, nft.is_ipv4(), wildcard, to_container) for chain in (PREROUTING, OUTPUT)),
        ]

    def _of_networks(self, networks: Sequence[NetworkSpec]) -> list[Message]:
        return [*self._postrouting(networks), *self._forward(networks)]

    def _postrouting(self, networks: Sequence[NetworkSpec]) -> list[Message]:
        rule, masquerade = self.table.rule, nft.masquerade()
        translated = nft.ct_any(nft.NFT_CT_STATUS, nft.IPS_DST_NAT)
        # The container cannot answer 127.0.0.1; it answers its gateway instead.
        made = [rule(POSTROUTING, nft.is_ipv4(), nft.from_net(*_LOOPBACK), nft.oif_in(BRIDGES), masquerade)]
        for spec in networks:
            address, _, length = spec.subnet.partition("/")
            inside = nft.is_ipv4() + nft.from_net(address, int(length))
            # A neighbour on the same bridge would answer past the host, from an address that nobody asked.
            hairpin = nft.oif(spec.bridge) + translated
            made.append(rule(POSTROUTING, inside, hairpin, masquerade, comment=f"{spec.name}: hairpin"))
            if spec.masquerade and not spec.internal:
                outside = nft.meta(nft.NFT_META_OIFNAME) + nft.in_set(BRIDGES, inverted=True)
                made.append(rule(POSTROUTING, inside, outside, masquerade, comment=f"{spec.name}: out"))
        return made

    def _forward(self, networks: Sequence[NetworkSpec]) -> list[Message]:
        rule = self.table.rule
        answers = nft.ct_any(nft.NFT_CT_STATE, nft.CT_STATE_ESTABLISHED | nft.CT_STATE_RELATED)
        translated = nft.ct_any(nft.NFT_CT_STATUS, nft.IPS_DST_NAT)
        made = [
            rule(FORWARD, answers, _ACCEPT),
            *(
                rule(
                    FORWARD,
                    nft.iif(spec.bridge),
                    nft.oif(spec.bridge, equal=False),
                    _DROP,
                    comment=f"{spec.name}: internal",
                )
                for spec in networks
                if spec.internal
            ),
            rule(FORWARD, nft.oif_in(BRIDGES), translated, _ACCEPT, comment="published"),
        ]
        for spec in networks:
            neighbours = _ACCEPT if spec.icc else _DROP
            made.append(
                rule(FORWARD, nft.iif(spec.bridge), nft.oif(spec.bridge), neighbours, comment=f"{spec.name}: icc")
            )
        # Other networks, and other hosts that have a route to the subnet.
        made.append(rule(FORWARD, nft.oif_in(BRIDGES), _DROP, comment="not published"))
        return made
