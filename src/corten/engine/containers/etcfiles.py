"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as Docker writes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
FALLBACK_DNS = ("8.8.8.8", "8.8.4.4")
HOST_GATEWAY = "host-gateway"


def hosts(
    addresses: Sequence[str],
    hostname: str,
    domainname: str,
    extra: Sequence[str],
    host_gateway: str,
    linked: Sequence[str] = (),
) -> str:
    """The usual entries, those of `--add-host`, those of links (whole lines), and the container's own name at each of
    its addresses.
    """
    lines = [_LOCAL]
    for entry in extra:
        name, _, address = entry.partition(":")
        plain = host_gateway if address == HOST_GATEWAY else address.removeprefix("[").removesuffix("]")
        lines.append(f"{plain}\t{name}\n")
    lines += linked
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}\n" for address in addresses]
    return "".join(lines)


def host_hosts(own: str, extra: Sequence[str], host_gateway: str) -> str:
    """With the host's network: the host's own file, and the entries of `--add-host`."""
    added = []
    for entry in extra:
        name, _, address = entry.partition(":")
        added.append(f"{host_gateway if address == HOST_GATEWAY else address}\t{name}\n")
    return own + ("" if not own or own.endswith("\n") else "\n") + "".join(added)


@dataclass(frozen=True, slots=True)
class Resolver:
    """`--dns`, `--dns-search` and `--dns-option`; empty for what the host has. A search of "." is none at all."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolver:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]  # the last line wins, as resolv.conf(5) has it
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), tuple(search), tuple(options))


def resolv_conf(host: str, own: Resolver, *, host_network: bool = False) -> str:
    """The host's file with what the user said in place of it.

    In a network namespace of its own a container cannot reach a name server on the host's loopback: those are left
    out, and public ones take their place where none is left, as Docker does.
    """
    if host_network and own == Resolver():
        return host
    theirs = parse_resolv_conf(host)
    servers = own.servers or theirs.servers
    if not own.servers and not host_network:
        servers = tuple(server for server in servers if not _loopback(server)) or FALLBACK_DNS
    search = tuple(name for name in own.search or theirs.search if name != ".")
    options = own.options or theirs.options
    lines = [f"nameserver {server}\n" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}\n")
    if options:
        lines.append(f"options {' '.join(options)}\n")
    return "".join(lines)


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True  # nothing that the container could use either
