"""`-p` and `--expose`."""

from __future__ import annotations

from corten.cli.errors import CliError
from corten.cli.values import is_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]

_PROTOCOLS = ("tcp", "udp", "sctp")


def port_range(text: str) -> tuple[int, int]:
    """First and last port of "80" or "80-90". Raises ValueError."""
    first, dash, last = text.partition("-")
    low = _port(first)
    high = _port(last) if dash else low
    if high < low:
        raise ValueError(f"invalid port range: {text}")
    return low, high


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    value = int(text)
    if value > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return value


def publish(specs: list[str]) -> Bindings:
    """`[address:][host-port:]port[/protocol]`, ranges, and the long form published=…,target=…; by container port."""
    bindings: Bindings = {}
    for spec in specs:
        for port, binding in _long(spec) if "=" in spec else _short(spec):
            bindings.setdefault(port, []).append(binding)
    return bindings


def _short(spec: str) -> list[tuple[str, dict[str, str]]]:
    body, slash, protocol = spec.rpartition("/")
    if not slash:
        body, protocol = spec, "tcp"
    address, host, container = _split(body)
    if not container:
        raise CliError(f"no port specified: {spec}<empty>", 125)
    try:
        first, last = port_range(container)
    except ValueError:
        raise CliError(f"invalid containerPort: {container}", 125) from None
    if protocol.lower() not in _PROTOCOLS:
        raise CliError(f"invalid proto: {protocol}", 125)
    if address and not is_ip(address):
        raise CliError(f"invalid IP address: {address}", 125)
    if not host:
        return [(f"{port}/{protocol.lower()}", _binding(address, "")) for port in range(first, last + 1)]
    try:
        low, high = port_range(host)
    except ValueError:
        raise CliError(f"invalid hostPort: {host}", 125) from None
    if high - low != last - first:
        if first != last:
            raise CliError(f"invalid ranges specified for container and host Ports: {container} and {host}", 125)
        # One container port on a range: the daemon takes the first that is free.
        return [(f"{first}/{protocol.lower()}", _binding(address, host))]
    return [
        (f"{first + index}/{protocol.lower()}", _binding(address, str(low + index)))
        for index in range(last - first + 1)
    ]


def _split(body: str) -> tuple[str, str, str]:
    rest, _, container = body.rpartition(":")
    if rest.startswith("[") and "]" in rest:
        address, _, host = rest[1:].partition("]")
        return address, host.removeprefix(":"), container
    address, _, host = rest.rpartition(":")
    return address, host, container


def _binding(address: str, port: str) -> dict[str, str]:
    return {"HostIp": address, "HostPort": port}


def _long(spec: str) -> list[tuple[str, dict[str, str]]]:
    fields = {"protocol": "tcp", "published": "", "mode": "ingress"}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.lower() not in ("protocol", "published", "target", "mode"):
            raise CliError(f"invalid field: {part}", 125)
        fields[key.lower()] = value
    if "target" not in fields:
        raise CliError(f"missing mandatory field '--publish target=VALUE' in {spec}", 125)
    return _short(f"{fields['published']}:{fields['target']}/{fields['protocol']}")


def expose(specs: list[str]) -> list[str]:
    """ "9-10/udp" as ["9/udp", "10/udp"]."""
    found = []
    for spec in specs:
        if ":" in spec:
            raise CliError(f"invalid port format for --expose: {spec}", 125)
        ports, slash, protocol = spec.partition("/")
        try:
            first, last = port_range(ports)
        except ValueError as error:
            raise CliError(f"invalid range format for --expose: {ports}, error: {error}", 125) from None
        found += [f"{port}/{protocol.lower() if slash else 'tcp'}" for port in range(first, last + 1)]
    return found
