"""Ports: from the API's "80/tcp" and its bindings to what the network publishes, and back."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from corten.errors import InvalidArgument, clip
from corten.network.types import PortMapping, Transport
from corten.specs.container import HostConfig, PortBinding

_TRANSPORTS: dict[str, Transport] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


def parse_port(text: str) -> tuple[int, Transport]:
    """ "80", "80/tcp", "53/UDP". Raises InvalidArgument in Docker's words."""
    number, separator, transport = text.partition("/")
    known = _TRANSPORTS.get(transport.lower() if separator else "tcp")
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 0 < int(number) <= 65535 or known is None:
        raise InvalidArgument(f"invalid port specification: {_quoted(text)}")
    return int(number), known


def expand_exposed(text: str) -> list[str]:
    """An exposed port or range ("8000-8002/udp") as single ports in the API's spelling."""
    numbers, _, transport = text.partition("/")
    first, separator, last = numbers.partition("-")
    low, kind = parse_port(f"{first}/{transport or 'tcp'}")
    high = parse_port(f"{last}/{transport or 'tcp'}")[0] if separator else low
    if high < low:
        raise InvalidArgument(f"invalid range format for --expose: {clip(text, 60)}, error: invalid range specified")
    return [f"{number}/{kind}" for number in range(low, high + 1)]


def mappings(host_config: HostConfig, exposed: Sequence[str]) -> tuple[PortMapping, ...]:
    """What to publish: the bindings, and with publish-all every other exposed port at a port of the host's choice."""
    result = []
    bound = host_config.port_bindings or {}
    for port, bindings in bound.items():
        number, transport = parse_port(port)
        result += [_mapping(number, transport, binding) for binding in bindings or [PortBinding()]]
    if host_config.publish_all_ports:
        names = {_name(*parse_port(port)) for port in bound}
        result += [
            PortMapping(transport=transport, container_port=number)
            for number, transport in map(parse_port, exposed)
            if _name(number, transport) not in names
        ]
    return tuple(result)


def table(exposed: Sequence[str], published: Sequence[PortMapping]) -> dict[str, list[PortBinding] | None]:
    """NetworkSettings.Ports: exposed ports, None where nothing is bound."""
    result: dict[str, list[PortBinding] | None] = {_name(*parse_port(port)): None for port in exposed}
    for mapping in published:
        row = result.get(_name(mapping.container_port, mapping.transport)) or []
        row.append(PortBinding(host_ip=mapping.host_ip or "0.0.0.0", host_port=str(mapping.host_port)))
        result[_name(mapping.container_port, mapping.transport)] = row
    return result


def _mapping(number: int, transport: Transport, binding: PortBinding) -> PortMapping:
    if binding.host_ip:
        try:
            ipaddress.ip_address(binding.host_ip)
        except ValueError:
            raise InvalidArgument(f"invalid IP address: {clip(binding.host_ip, 60)}") from None
    first, separator, last = binding.host_port.partition("-")
    low = _host_port(first, binding.host_port) if first else 0
    high = _host_port(last, binding.host_port) if separator else 0
    if separator and high < low:
        raise InvalidArgument(f"invalid port specification: {_quoted(binding.host_port)}")
    return PortMapping(
        transport=transport, container_port=number, host_ip=binding.host_ip, host_port=low, host_port_end=high
    )


def _host_port(text: str, whole: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise InvalidArgument(f"invalid port specification: {_quoted(whole)}")
    return int(text)


def _name(number: int, transport: str) -> str:
    return f"{number}/{transport}"


def _quoted(text: str) -> str:
    return f'"{clip(text, 60)}"'
