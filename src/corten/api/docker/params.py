"""Query parameters and header values, read as Docker reads them."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import parse_qs

import msgspec

from corten.engine.models import Filters, RegistryAuth
from corten.errors import InvalidArgument, clip
from corten.specs.times import parse_moment

_FALSE = frozenset(("", "0", "no", "false", "none"))


class Query:
    """The parameters of one request; the first of several values counts, save in `all`."""

    __slots__ = ("_values",)

    def __init__(self, text: str) -> None:
        self._values = parse_qs(text, keep_blank_values=True) if text else {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """True for anything but nothing, 0, no, false and none."""
        values = self._values.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def number(self, name: str) -> int | None:
        """None where it is absent or empty. Raises InvalidArgument as Go's strconv words it."""
        text = self.text(name)
        return parse_int(text) if text else None

    def filters(self) -> Filters:
        return parse_filters(self.text("filters"))


def parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
        raise InvalidArgument(f'strconv.Atoi: parsing "{clip(text)}": invalid syntax')
    return int(text)


def parse_filters(text: str) -> Filters:
    """`{"label": ["a", "b"]}`, or the old `{"label": {"a": true, "b": true}}`."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidArgument("invalid filters") from None
    return {
        name: values if isinstance(values, list) else [value for value, wanted in values.items() if wanted]
        for name, values in raw.items()
    }


def check_filters(filters: Filters, known: frozenset[str]) -> None:
    """Raises InvalidArgument that names the first filter which is not in `known`."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{clip(name)}'")


def filter_flag(filters: Filters, name: str) -> bool | None:
    """A filter that is true or false; None where it is not asked for."""
    values = filters.get(name)
    if not values:
        return None
    if values in (["1"], ["true"]):
        return True
    if values in (["0"], ["false"]):
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{clip(' '.join(values))}]'")


def parse_time(text: str, now_ns: int) -> int:
    """A moment in nanoseconds, as `specs.times.parse_moment` reads it; empty and "0" are 0."""
    try:
        return parse_moment(text, now_ns) if text else 0
    except ValueError:
        raise InvalidArgument(f'failed to parse value "{clip(text)}" as time or duration') from None


class AuthConfig(msgspec.Struct):
    """What a client knows of one registry, as the API has it; unknown members are passed over."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""


def parse_auth(header: str | None) -> RegistryAuth | None:
    """The X-Registry-Auth header: base64 (either alphabet, padded or not) of JSON. None without credentials."""
    if not header:
        return None
    try:
        return registry_auth(msgspec.json.decode(_unwrapped(header), type=AuthConfig | None) or AuthConfig())
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise InvalidArgument("invalid X-Registry-Auth header: it is not base64 of a JSON object") from None


def parse_auths(header: str | None) -> dict[str, RegistryAuth]:
    """The X-Registry-Config header: as X-Registry-Auth, of a JSON object with a member for each registry."""
    if not header:
        return {}
    try:
        given = msgspec.json.decode(_unwrapped(header), type=dict[str, AuthConfig] | None) or {}
        found = {name: registry_auth(auth) for name, auth in given.items()}
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise InvalidArgument("invalid X-Registry-Config header: it is not base64 of a JSON object") from None
    return {name: auth for name, auth in found.items() if auth is not None}


def _unwrapped(header: str) -> bytes:
    text = header.strip().replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True) or b"{}"


def registry_auth(auth: AuthConfig) -> RegistryAuth | None:
    """None without credentials. Raises ValueError for an `auth` that is no base64."""
    if auth.auth and not auth.username:
        auth.username, _, auth.password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
    if not (auth.username or auth.identitytoken or auth.registrytoken):
        return None
    return RegistryAuth(
        username=auth.username,
        password=auth.password,
        identity_token=auth.identitytoken,
        registry_token=auth.registrytoken,
        server_address=auth.serveraddress,
    )
