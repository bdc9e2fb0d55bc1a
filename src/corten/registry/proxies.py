"""Which proxy a request goes through: the rules of HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go's programs read them.

The daemon's configuration comes before the environment, name by name; of the environment's names, that in capitals
before that in small letters. Python's own reading of these variables is another one: it knows no CIDR in NO_PROXY.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from corten.errors import InvalidArgument, clip

_PORTS = {"http": 80, "https": 443}
_MASK = "xxxxx:xxxxx"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Proxies as URLs, "" for none; `no_proxy` lists with commas what is reached directly. See `Proxies`."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""

    def over(self, environment: Mapping[str, str]) -> ProxySettings:
        """These settings, and those of `environment` for what they do not say."""

        def found(name: str) -> str:
            return environment.get(name) or environment.get(name.lower()) or ""

        return ProxySettings(
            self.http or found("HTTP_PROXY"), self.https or found("HTTPS_PROXY"), self.no_proxy or found("NO_PROXY")
        )


class Proxies:
    """`settings`, checked and ready for use. Raises InvalidArgument for what is no proxy."""

    def __init__(self, settings: ProxySettings) -> None:
        self._by_scheme = {"http": _checked(settings.http), "https": _checked(settings.https)}
        self._direct = _Direct(settings.no_proxy)

    def of(self, url: str) -> str | None:
        """The URL of the proxy for `url`, None for none. This machine itself is never behind one."""
        parts = urlsplit(url)
        proxy = self._by_scheme.get(parts.scheme)
        host = (parts.hostname or "").rstrip(".")
        if not proxy or not host:
            return None
        try:
            port = parts.port or _PORTS[parts.scheme]
        except ValueError:  # no port at all: the request says so in better words
            return None
        return None if self._direct.has(host, port) else proxy


class _Direct:
    """What NO_PROXY lists: `*`, addresses, networks, domains with all below them, `.domain` for only what is below."""

    def __init__(self, text: str) -> None:
        self._all = False
        self._networks: list[tuple[_Network, int]] = []
        self._names: list[tuple[str, int]] = []
        for word in text.split(","):
            self._add(word.strip().lower())

    def _add(self, word: str) -> None:
        if word == "*":
            self._all = True
        elif "/" in word:
            self._add_network(word, 0)
        elif word:
            host, port = _host_and_port(word)
            if not self._add_network(host, port) and host:
                self._names.append((host.removeprefix("*"), port))

    def _add_network(self, text: str, port: int) -> bool:
        try:
            self._networks.append((ipaddress.ip_network(text, strict=False), port))
        except ValueError:
            return False
        return True

    def has(self, host: str, port: int) -> bool:
        """Port 0 in the list stands for every port."""
        if self._all or host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return any(only in (0, port) and _below(host, name) for name, only in self._names)
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or any(only in (0, port) and address in net for net, only in self._networks)


def _below(host: str, name: str) -> bool:
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith("." + name)


def _host_and_port(word: str) -> tuple[str, int]:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        host, colon, port = word.rpartition(":")
        if colon and port.isdigit():
            return host.strip("[]"), int(port)
    return word.strip("[]"), 0


def _checked(url: str) -> str:
    """`url` with its scheme, which may be left out. Raises InvalidArgument, without showing a password."""
    if not url:
        return ""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgument(f"invalid proxy {clip(masked(url))!r}: it must be a URL such as http://proxy:3128")
    if parts.scheme not in _PORTS:
        raise InvalidArgument(f"invalid proxy {clip(masked(url))!r}: it must begin with http:// or https://")
    return whole


def masked(url: str) -> str:
    """`url` for people to see: name and password are blotted out, as Docker does it."""
    scheme, separator, rest = url.rpartition("://") if "://" in url else ("", "", url)
    authority, slash, tail = rest.partition("/")
    if "@" in rest and "@" not in authority:  # a slash in the password
        authority, slash, tail = rest, "", ""
    _, at, host = authority.rpartition("@")
    return f"{scheme}{separator}{_MASK}@{host}{slash}{tail}" if at else url
