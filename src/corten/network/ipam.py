"""Addresses: which subnet a network gets, and which address a container gets in it. Pure; knows no kernel."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NamedTuple

from corten.errors import Conflict, InvalidArgument, clip


class PoolRange(NamedTuple):
    """A range that networks without a subnet of their own are cut from, each `/size`."""

    base: str
    size: int


DEFAULT_POOLS = (
    *(PoolRange(f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    PoolRange("192.168.0.0/16", 20),
)
"""Docker's, so that a firewall written for Docker fits."""


def parse_subnet(text: str) -> IPv4Network:
    """Raises InvalidArgument for anything but an IPv4 network in CIDR notation with host bits zero."""
    try:
        return IPv4Network(text)
    except ValueError as wrong:
        raise InvalidArgument(f"invalid subnet {text}: {wrong}") from None


def parse_address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError as wrong:
        raise InvalidArgument(f"invalid IPv4 address: {text}") from wrong


def mac_of(ip: str) -> str:
    """The hardware address that Docker derives from an address: 02:42 and its four bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + IPv4Address(ip).packed)


def parse_mac(text: str) -> str:
    """An address for an interface in the usual spelling. Raises InvalidArgument for none, and for a group's."""
    digits = text.replace("-", ":").lower()
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", digits) or int(digits[:2], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {clip(text, 40)}")
    return digits


def candidates(pools: Sequence[PoolRange]) -> Iterator[IPv4Network]:
    for pool in pools:
        yield from parse_subnet(pool.base).subnets(new_prefix=pool.size)


def choose_subnet(pools: Sequence[PoolRange], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet of the pools that overlaps nothing in `taken`. Raises Conflict when there is none left."""
    used = [network for network in taken if network.prefixlen]
    for subnet in candidates(pools):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Conflict("all predefined address pools have been fully subnetted")


class Subnet:
    """The addresses of one network, each lent once; the lowest free one first, as Docker does.

    The network and broadcast addresses and the gateway are never lent. With `ip_range` addresses are chosen inside it,
    while one that is asked for by name may lie anywhere in the subnet.
    """

    def __init__(self, subnet: str, gateway: str = "", ip_range: str = "") -> None:
        self.network = parse_subnet(subnet)
        if self.network.prefixlen > 30:
            raise InvalidArgument(f"invalid subnet {subnet}: too small for a gateway and a container")
        inner = parse_subnet(ip_range) if ip_range else self.network
        if not inner.subnet_of(self.network):
            raise InvalidArgument(f"no matching subnet for range {ip_range}")
        self.gateway = parse_address(gateway) if gateway else IPv4Address(int(self.network.network_address) + 1)
        if self.gateway not in self.network:
            raise InvalidArgument(f"no matching subnet for gateway {gateway}")
        edges = {int(self.network.network_address), int(self.network.broadcast_address)}
        self._reserved = edges | {int(self.gateway)}
        self._next, self._last = int(inner.network_address), int(inner.broadcast_address)
        self._first = self._next
        self._freed: list[int] = []
        self._lent: set[int] = set()

    @property
    def prefix_len(self) -> int:
        return self.network.prefixlen

    def __contains__(self, ip: str) -> bool:
        return int(IPv4Address(ip)) in self._lent

    def __len__(self) -> int:
        return len(self._lent)

    def take(self, requested: str = "") -> str:
        """An address, the `requested` one if given.

        Raises Conflict when it is in use or none is left, InvalidArgument when it lies outside the subnet.
        """
        value = self._check(requested) if requested else self._lowest()
        self._lent.add(value)
        return str(IPv4Address(value))

    def release(self, ip: str) -> None:
        """Take an address back. One that was not lent is ignored, so that a release may be repeated."""
        value = int(IPv4Address(ip))
        if value in self._lent:
            self._lent.remove(value)
            if self._first <= value < self._next:
                heapq.heappush(self._freed, value)

    def _check(self, requested: str) -> int:
        address = parse_address(requested)
        if address not in self.network:
            raise InvalidArgument(f"invalid address {requested}: It does not belong to any of this network's subnets")
        if int(address) in self._reserved or int(address) in self._lent:
            raise Conflict("Address already in use")
        return int(address)

    def _lowest(self) -> int:
        # An address that was asked for by name may sit in the heap as freed, or ahead of the cursor: both are skipped.
        while self._freed:
            if (value := heapq.heappop(self._freed)) not in self._lent:
                return value
        while self._next <= self._last:
            value, self._next = self._next, self._next + 1
            if value not in self._lent and value not in self._reserved:
                return value
        raise Conflict(f"no available IPv4 addresses on this network's address pools: {self.network}")
