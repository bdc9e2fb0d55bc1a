"""Host ports: who of ours holds which, and the sockets that keep everybody else off them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address

from corten.errors import InvalidArgument, SystemFault
from corten.network.types import EndpointRequest, PortMapping, Transport

ANY = "0.0.0.0"
FALLBACK_RANGE = (49153, 65535)
Binder = Callable[[Transport, str, int], socket.socket | None]
"""Holds a host port, or raises OSError. None where this kind of port cannot be held."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks for ports, for the words of an error: the endpoint's id, and the container's name and address."""

    endpoint_id: str
    request: EndpointRequest
    ip: str

    def fault(self, reason: str, number: int = 0) -> SystemFault:
        who = f"{self.request.name} ({self.endpoint_id})"
        return SystemFault(
            f"driver failed programming external connectivity on endpoint {who}: {reason}",
            step="publish ports",
            errno=number,
        )


def host_address(text: str) -> str:
    """The IPv4 address to publish on; "" is all of them.

    The kernel cannot translate from IPv6 to IPv4, and Corten runs no proxy: an IPv6 address is refused, not ignored.
    """
    try:
        return str(IPv4Address(text)) if text else ANY
    except AddressValueError:
        pass
    if ":" in text:
        raise InvalidArgument(f"cannot publish on {text}: ports are published on IPv4 addresses only")
    raise InvalidArgument(f"invalid IP address: {text}")


def ephemeral_range() -> tuple[int, int]:
    """Where free ports are taken from, as Docker does: the kernel's local range, else 49153 to 65535."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first, last = file.read().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return FALLBACK_RANGE


def bind_host_port(transport: Transport, ip: str, port: int) -> socket.socket | None:
    """A socket that is bound and never read: the kernel answers nothing on it and refuses the port to others."""
    kind, protocol = {
        "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
    }[transport]
    try:
        held = socket.socket(socket.AF_INET, kind, protocol)
    except OSError as refusal:
        if transport == "sctp" and refusal.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None  # no SCTP in this kernel: then nobody else can take the port either
        raise
    try:
        if transport == "udp":
            # What arrives before the rule stands is thrown away instead of being kept for nobody.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        held.bind((ip, port))
    except BaseException:
        held.close()
        raise
    return held


class PortTable:
    """The host ports that endpoints hold.

    A port on all addresses and the same port on one address exclude each other, as they do for sockets.
    """

    def __init__(self, dynamic: tuple[int, int] = FALLBACK_RANGE) -> None:
        self._dynamic = dynamic
        self._holders: dict[tuple[str, int], dict[str, str]] = {}
        self._next = dynamic[0]

    def claim(self, claim: Claim, bind: Binder) -> tuple[tuple[PortMapping, ...], list[socket.socket]]:
        """All ports of a request with their host ports filled in, and the sockets that hold them; or none of them.

        Raises SystemFault in Docker's words.
        """
        made: list[PortMapping] = []
        held: list[socket.socket] = []
        try:
            for mapping in claim.request.ports:
                port, keeper = self._claim_one(claim, mapping, bind)
                made.append(port)
                if keeper is not None:
                    held.append(keeper)
        except BaseException:
            for keeper in held:
                keeper.close()
            self.release(claim.endpoint_id, tuple(made))
            raise
        return tuple(made), held

    def adopt(self, endpoint_id: str, ports: tuple[PortMapping, ...]) -> None:
        """Record what an endpoint of an earlier daemon holds."""
        for port in ports:
            self._holders.setdefault((port.transport, port.host_port), {})[port.host_ip] = endpoint_id

    def release(self, endpoint_id: str, ports: tuple[PortMapping, ...]) -> None:
        for port in ports:
            holders = self._holders.get((port.transport, port.host_port), {})
            if holders.get(port.host_ip) == endpoint_id:
                del holders[port.host_ip]
                if not holders:
                    del self._holders[port.transport, port.host_port]

    def _claim_one(self, claim: Claim, mapping: PortMapping, bind: Binder) -> tuple[PortMapping, socket.socket | None]:
        ip = host_address(mapping.host_ip)
        chosen_by_us = mapping.host_port == 0 or mapping.host_port_end > mapping.host_port
        for port in self._wanted(mapping):
            if self._taken(mapping.transport, ip, port):
                if chosen_by_us:
                    continue
                raise claim.fault(f"Bind for {ip}:{port} failed: port is already allocated")
            try:
                keeper = bind(mapping.transport, ip, port)
            except OSError as refusal:
                if chosen_by_us and refusal.errno == errno.EADDRINUSE:
                    continue
                raise claim.fault(_refusal(claim, mapping, ip, port, refusal), refusal.errno or 0) from refusal
            made = replace(mapping, host_ip=ip, host_port=port, host_port_end=port)
            self.adopt(claim.endpoint_id, (made,))
            return made, keeper
        wanted = f"{mapping.host_port}-{mapping.host_port_end}" if mapping.host_port else "0"
        raise claim.fault(f"Bind for {ip}:{wanted} failed: all ports are allocated")

    def _taken(self, transport: str, ip: str, port: int) -> bool:
        holders = self._holders.get((transport, port), {})
        return bool(holders) and (ip == ANY or ip in holders or ANY in holders)

    def _wanted(self, mapping: PortMapping) -> Iterator[int]:
        """Candidates in order; a free port is sought from where the last one was found, so it rests before reuse."""
        if mapping.host_port:
            yield from range(mapping.host_port, max(mapping.host_port, mapping.host_port_end) + 1)
            return
        first, last = self._dynamic
        start = self._next if first <= self._next <= last else first
        for port in (*range(start, last + 1), *range(first, start)):
            self._next = port + 1
            yield port


def _refusal(claim: Claim, mapping: PortMapping, ip: str, port: int, refusal: OSError) -> str:
    reason = (refusal.strerror or str(refusal)).lower()
    target = f"{claim.ip}:{mapping.container_port}/{mapping.transport}"
    return f"failed to bind host port for {ip}:{port}:{target}: {reason}"
