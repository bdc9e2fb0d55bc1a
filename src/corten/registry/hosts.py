"""What an administrator wrote down about one registry, as containerd and Docker lay it out below a directory:

    HOST[:PORT]/hosts.toml                  where to look for it, in which order, how each place is reached
    HOST[:PORT]/*.crt, *.cert with *.key    authorities that are trusted for it, our own certificate

Nothing is kept: the files are read when a registry is used, so that what was changed holds for the next pull.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corten.errors import InvalidArgument, clip
from corten.specs.times import SECOND, parse_duration

PULL, RESOLVE, PUSH = "pull", "resolve", "push"
ALL = frozenset((PULL, RESOLVE, PUSH))
DIRECTORIES = (Path("/etc/corten/certs.d"), Path("/etc/docker/certs.d"))
"""Where administrators put it."""

DEFAULT_DIRECTORY = "_default"
"""Its settings hold for every registry that has none of its own."""

_KEYS = frozenset("capabilities ca client skip_verify header override_path dial_timeout".split())
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe, beside the system's authorities, and how we prove who we are: PEM files by their paths.

    `client` is a certificate and its key, which may be the same file.
    """

    ca: tuple[str, ...] = ()
    client: tuple[str, str] | None = None
    skip_verify: bool = False


SYSTEM = Trust()
"""The system's authorities, and nobody asks who we are."""


@dataclass(frozen=True, slots=True)
class Place:
    """One address at which a registry is to be had. `host` is "" for the registry's own, `path` without /v2 unless
    it is to be taken `as_is`; `dial_timeout` in seconds, 0 for the usual one.
    """

    scheme: str = ""
    host: str = ""
    path: str = ""
    as_is: bool = False
    capabilities: frozenset[str] = ALL
    trust: Trust = SYSTEM
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """`places` in the order in which they are asked; `server` comes after them."""

    server: Place = Place()
    places: tuple[Place, ...] = ()


def read(directories: Sequence[Path], host: str) -> Layout:
    """What is written about `host`, its port with it. The first directory that knows it is the only one.

    Raises InvalidArgument that names the file and the key.
    """
    for directory in directories:
        for name in _names(host):
            place = directory / name
            if not place.is_dir():
                continue
            file = place / "hosts.toml"
            if file.is_file():
                return _parse(file)
            return Layout(Place(trust=_certificates(place)))
    return Layout()


def _names(host: str) -> Iterable[str]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        yield f"{name}_{port}_"  # containerd's, where a colon cannot be in a name
    yield host
    yield DEFAULT_DIRECTORY


def _certificates(directory: Path) -> Trust:
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        raise InvalidArgument(f"cannot read {directory}: {error.strerror}") from None
    for name in names:
        stem = name.rpartition(".")[0]
        if name.endswith(".cert") and f"{stem}.key" not in names:
            text = f"missing key {stem}.key for client certificate {name}"
            raise InvalidArgument(f"{directory}: {text}. CA certificates must use the extension .crt")
        if name.endswith(".key") and f"{stem}.cert" not in names:
            raise InvalidArgument(f"{directory}: missing client certificate {stem}.cert for key {name}")
    clients = [str(directory / name) for name in names if name.endswith(".cert")]
    pairs = [(path, path.removesuffix(".cert") + ".key") for path in clients]
    authorities = tuple(str(directory / name) for name in names if name.endswith(".crt"))
    return Trust(authorities, pairs[0] if pairs else None)


def _parse(file: Path) -> Layout:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{file} is not TOML: {clip(str(error))}") from None
    try:
        return _layout(content, file.parent)
    except InvalidArgument as error:
        raise InvalidArgument(f"{file}: {error}") from None


def _layout(content: dict[str, Any], base: Path) -> Layout:
    hosts = content.pop("host", {})
    server = content.pop("server", "")
    if not isinstance(hosts, dict) or not all(isinstance(entry, dict) for entry in hosts.values()):
        raise InvalidArgument('host must be tables: [host."https://mirror.example"]')
    if not isinstance(server, str):
        raise InvalidArgument("server must be a string")
    return Layout(_place(server, content, base), tuple(_place(url, entry, base) for url, entry in hosts.items()))


def _place(url: str, entry: dict[str, Any], base: Path) -> Place:
    what = f'host."{clip(url)}".' if url else ""
    if unknown := sorted(entry.keys() - _KEYS):
        raise InvalidArgument(f"unknown key {what}{clip(unknown[0])}")
    as_is = _boolean(f"{what}override_path", entry.get("override_path", False))
    scheme, host, path = _address(url, as_is=as_is) if url else ("", "", "")
    trust = Trust(
        tuple(str(base / name) for name in _strings(f"{what}ca", entry.get("ca", []))),
        _client(f"{what}client", entry.get("client", []), base),
        _boolean(f"{what}skip_verify", entry.get("skip_verify", False)),
    )
    capabilities = frozenset(_strings(f"{what}capabilities", entry.get("capabilities", sorted(ALL))))
    if wrong := sorted(capabilities - ALL):
        raise InvalidArgument(f"{what}capabilities may be pull, resolve and push, not {clip(wrong[0])}")
    headers = _headers(f"{what}header", entry.get("header", {}))
    timeout = _seconds(f"{what}dial_timeout", entry.get("dial_timeout", "0s"))
    return Place(scheme, host, path, as_is, capabilities, trust, headers, timeout)


def _address(url: str, *, as_is: bool) -> tuple[str, str, str]:
    whole = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(whole)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidArgument(f"{clip(url)!r} is no address of a registry, such as https://mirror.example:5000")
    path = parts.path.rstrip("/")
    return parts.scheme, parts.netloc, path if as_is else path.removesuffix("/v2")


def _client(key: str, value: Any, base: Path) -> tuple[str, str] | None:
    """The first of the certificates: OpenSSL presents one, whoever asks."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise InvalidArgument(f"{key} must be a path, a list of paths, or of pairs of a certificate's and its key's")
    pairs = []
    for entry in entries:
        pair = [entry, entry] if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(path, str) and path for path in pair):
            raise InvalidArgument(f"{key} must be paths, or pairs of a certificate's path and its key's")
        pairs.append((str(base / pair[0]), str(base / pair[1])))
    return pairs[0] if pairs else None


def _headers(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{key} must be a table")
    found = []
    for name, content in value.items():
        for line in _strings(f"{key}.{clip(name)}", content):
            if not _TOKEN.fullmatch(name) or not line.isprintable():
                raise InvalidArgument(f"{key}.{clip(name)} cannot be sent: it has characters that no header may have")
            found.append((name, line))
    return tuple(found)


def _strings(key: str, value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return tuple(words)
    raise InvalidArgument(f"{key} must be a string or a list of strings")


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidArgument(f"{key} must be true or false")


def _seconds(key: str, value: Any) -> float:
    if isinstance(value, str):
        with suppress(ValueError):
            if (length := parse_duration(value)) >= 0:
                return length / SECOND
    raise InvalidArgument(f"{key} must be a duration such as 5s")
