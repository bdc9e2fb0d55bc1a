"""Where a registry is: its address, whether TLS is required of it, and which mirrors stand before it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from corten.errors import InvalidArgument, clip
from corten.registry import hosts
from corten.registry.hosts import Place, Trust
from corten.registry.proxies import Proxies, ProxySettings

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"

_HUB_NAMES = frozenset((HUB, "index.docker.io", HUB_HOST))
_HOST = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` with its port as in a URL. An `insecure` one is tried with TLS, unverified, then without."""

    host: str
    insecure: bool = False
    prefix: str = ""
    scheme: str = ""
    """"http" or "https" where the configuration says it; "" otherwise."""
    own: bool = True
    """The registry itself, which is told who the user is. A mirror is not."""
    namespace: str = ""
    """The registry that a mirror of many is asked for, as its parameter `ns`."""
    as_is: bool = False
    """`prefix` stands in the place of /v2."""
    capabilities: frozenset[str] = hosts.ALL
    trust: Trust = hosts.SYSTEM
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_timeout: float = 0.0
    """Seconds; 0 for what the settings say."""

    @property
    def schemes(self) -> tuple[str, ...]:
        if self.scheme:
            return (self.scheme,)
        return ("https", "http") if self.insecure else ("https",)

    @property
    def plain(self) -> bool:
        """Whether it may be reached, and may send us on, without TLS."""
        return "http" in self.schemes

    @property
    def unverified(self) -> bool:
        return self.insecure or self.trust.skip_verify

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others when it comes to tokens: one host may serve many registries by their paths."""
        return self.host, self.prefix

    def url(self, scheme: str, path: str) -> str:
        """`path` begins with /v2."""
        tail = path.removeprefix("/v2") if self.as_is else path
        if self.namespace:
            tail += ("&" if "?" in tail else "?") + f"ns={self.namespace}"
        return f"{scheme}://{self.host}{self.prefix}{tail}"


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`insecure` are hosts (with port) and networks in CIDR notation; `mirrors` URLs that stand before docker.io;
    `directories` hold what `hosts` reads.

    Loopback addresses and `localhost` are insecure always, as in Docker. Timeouts in seconds: for connecting, and
    for a connection on which nothing arrives.
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    connect_timeout: float = 15.0
    stall_timeout: float = 45.0
    attempts: int = 5
    upload_chunk: int = 64 << 20
    """Bytes from which on a blob is sent in pieces, each of this size, and a broken upload can go on."""
    directories: tuple[Path, ...] = ()
    proxies: Proxies = field(default_factory=lambda: Proxies(ProxySettings()))
    _networks: tuple[_Network, ...] = field(init=False, default=())
    _hosts: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        networks: list[_Network] = []
        names = set()
        for entry in self.insecure:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                names.add(_checked_host(entry))
        object.__setattr__(self, "_networks", tuple(networks))
        object.__setattr__(self, "_hosts", frozenset(names))
        for url in self.mirrors:
            _mirror_parts(url)

    def endpoints(self, domain: str, *, push: bool = False) -> tuple[Endpoint, ...]:
        """Where to look for repositories of `domain`, in order; the last one is the registry itself. What is pushed
        goes to the one place that takes it. Raises InvalidArgument for settings on disk that make no sense.
        """
        layout = hosts.read(self.directories, domain)
        own = self._own(domain, layout.server)
        mirrors = [self._configured(place, domain, own) for place in layout.places]
        if domain == HUB and not push:
            mirrors += [self._mirror(url) for url in self.mirrors]
        if not push:
            return (*mirrors, own)
        taking = [endpoint for endpoint in (*mirrors, own) if hosts.PUSH in endpoint.capabilities]
        if not taking:
            raise InvalidArgument(f"nothing may be pushed to {domain}: hosts.toml gives none of its hosts the right")
        return (taking[0],)

    def registry(self, address: str) -> Endpoint:
        """The registry that somebody logs in to: a host, or a URL of which the host counts, such as Docker Hub's
        https://index.docker.io/v1/. Raises InvalidArgument for what is neither.
        """
        try:
            parts = urlsplit(address if "://" in address else f"https://{address}")
            named = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            named = False
        if not named or not _HOST.fullmatch(parts.netloc):
            raise InvalidArgument(f"unable to parse server address: {clip(address)!r} is no registry's")
        return self.endpoints(HUB if parts.netloc in _HUB_NAMES else parts.netloc)[-1]

    def is_insecure(self, host: str) -> bool:
        return self._is_listed(host) or is_loopback(host)

    def _is_listed(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if host in self._hosts or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _own(self, domain: str, server: Place) -> Endpoint:
        if server.host:
            return _endpoint(server, server.host)
        if domain == HUB:
            return _endpoint(server, HUB_HOST)
        # A loopback address for which authorities are named is meant to be verified by them.
        insecure = self._is_listed(domain) or (is_loopback(domain) and not server.trust.ca)
        return _endpoint(server, domain, insecure=insecure)

    def _configured(self, place: Place, domain: str, registry: Endpoint) -> Endpoint:
        own = place.host in (registry.host, domain)
        return _endpoint(place, place.host, own=own, namespace="" if own else domain)

    def _mirror(self, url: str) -> Endpoint:
        scheme, host, path = _mirror_parts(url)
        trust = hosts.read(self.directories, host).server.trust
        return Endpoint(host, self.is_insecure(host) and not trust.ca, path, scheme, own=False, trust=trust)


def _endpoint(place: Place, host: str, *, insecure: bool = False, own: bool = True, namespace: str = "") -> Endpoint:
    return Endpoint(
        host,
        insecure,
        place.path,
        place.scheme,
        own,
        namespace,
        place.as_is,
        place.capabilities,
        place.trust,
        place.headers,
        place.dial_timeout,
    )


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine by its name or number."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _mirror_parts(url: str) -> tuple[str, str, str]:
    """Scheme, host and path. Raises InvalidArgument."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidArgument(f"invalid mirror: {clip(url)!r} is no URL") from None
    if "@" in parts.netloc:
        raise InvalidArgument("invalid mirror: a name or a password cannot be in its URL")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(f"invalid mirror: unsupported scheme or no host in {clip(url)!r}")
    if parts.query or parts.fragment:
        raise InvalidArgument(f"invalid mirror: {clip(url)!r} has a query or a fragment")
    return parts.scheme, parts.netloc, parts.path.rstrip("/")


def _checked_host(entry: str) -> str:
    parts = urlsplit(f"//{entry}")
    if "/" in entry or not parts.hostname or "@" in entry or "?" in entry:
        raise InvalidArgument(f"invalid insecure registry {clip(entry)!r}: neither a host nor a network")
    return entry
