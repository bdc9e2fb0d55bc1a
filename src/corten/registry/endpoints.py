"""Where a registry is: its address, whether TLS is required of it, and which mirrors stand before it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from corten.errors import InvalidArgument, clip

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` with its port as in a URL. An `insecure` one is tried with TLS, unverified, then without."""

    host: str
    insecure: bool = False
    prefix: str = ""
    scheme: str = ""
    """"http" or "https" where the configuration says it; "" otherwise."""

    @property
    def schemes(self) -> tuple[str, ...]:
        if self.scheme:
            return (self.scheme,)
        return ("https", "http") if self.insecure else ("https",)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`insecure` are hosts (with port) and networks in CIDR notation; `mirrors` URLs that stand before docker.io.

    Loopback addresses and `localhost` are insecure always, as in Docker. Timeouts in seconds: for connecting, and
    for a connection on which nothing arrives.
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    connect_timeout: float = 15.0
    stall_timeout: float = 45.0
    attempts: int = 5
    mirror_endpoints: tuple[Endpoint, ...] = field(init=False, default=())
    _networks: tuple[_Network, ...] = field(init=False, default=())
    _hosts: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        networks: list[_Network] = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
        hosts = {"localhost"}
        for entry in self.insecure:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                hosts.add(_checked_host(entry))
        object.__setattr__(self, "_networks", tuple(networks))
        object.__setattr__(self, "_hosts", frozenset(hosts))
        object.__setattr__(self, "mirror_endpoints", tuple(self._mirror(url) for url in self.mirrors))

    def endpoints(self, domain: str, *, push: bool = False) -> tuple[Endpoint, ...]:
        """Where to look for repositories of `domain`, in order. Nothing is pushed to a mirror."""
        if domain != HUB:
            return (Endpoint(domain, self.is_insecure(domain)),)
        hub = Endpoint(HUB_HOST)
        return (hub,) if push else (*self.mirror_endpoints, hub)

    def is_insecure(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if host in self._hosts or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _mirror(self, url: str) -> Endpoint:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidArgument(f"invalid mirror: unsupported scheme or no host in {clip(url)!r}")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidArgument(f"invalid mirror: {clip(url)!r} has a user, a query or a fragment")
        return Endpoint(parts.netloc, self.is_insecure(parts.netloc), parts.path.rstrip("/"), parts.scheme)


def _checked_host(entry: str) -> str:
    parts = urlsplit(f"//{entry}")
    if "/" in entry or not parts.hostname or "@" in entry or "?" in entry:
        raise InvalidArgument(f"invalid insecure registry {clip(entry)!r}: neither a host nor a network")
    return entry
