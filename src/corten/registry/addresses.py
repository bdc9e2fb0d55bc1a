"""Addresses at which clouds tell a machine its secrets: no registry lives there, and none may send us there."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

_METADATA = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # of nearly all, and of what answers for containers and tasks
        "100.100.100.200/32",  # Alibaba's
        "fd00:ec2::/32",  # Amazon's
        "fd20:ce::254/128",  # Google's
    )
)


def is_metadata(address: str) -> bool:
    """Whether a numeric address, as a resolver gives it, is one of them."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return any((mapped or found) in network for network in _METADATA)


def open_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket for what getaddrinfo gave. Raises OSError for a metadata address, however it was spelled: this is where
    names, numbers in other bases and redirects have all become addresses.
    """
    family, kind, protocol, _, address = info
    if is_metadata(str(address[0])):
        raise OSError(errno.EACCES, "no registry may be at an address for metadata")
    return socket.socket(family, kind, protocol)
