"""Who a registry lets in, without any IO: challenges in, headers and token requests out.

    registry                      RegistryAuth                     token server
       401 Www-Authenticate  ──►  challenged() ── TokenRequest ──►
                                  granted()    ◄── token ─────────
       ◄── Authorization ───────  header()

One RegistryAuth serves one registry with one set of credentials. Tokens are kept per scope until shortly before they
expire; a token that the registry refuses although it should be good is forgotten, and asked for once more.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import msgspec

from corten.errors import Unauthorized, clip

EXPIRY_MARGIN = 10.0
"""Seconds before its end at which a token is no longer used: a request takes time to arrive."""

DEFAULT_LIFETIME = 60.0
"""Seconds that a token lives when its server does not say, by the distribution specification."""

_PARAM = re.compile(r'\s*([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user logged in with: a name and a password, or a token to get tokens with, or a ready token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that the registry offers; `scheme` in lower case."""

    scheme: str
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to send to the token server: GET without `form`, POST with it (urlencoded)."""

    url: str
    scope: str
    authorization: str = field(default="", repr=False)
    form: str = field(default="", repr=False)


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    expires: float


def parse_challenges(values: list[str]) -> list[Challenge]:
    """The challenges in the Www-Authenticate headers; what cannot be read is passed over."""
    found: list[Challenge] = []
    for value in values:
        at = 0
        while match := _SCHEME.match(value, at):
            at = match.end()
            params: dict[str, str] = {}
            while param := _PARAM.match(value, at):
                quoted = param[2]
                params[param[1].lower()] = param[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                at = param.end()
            found.append(Challenge(match[1].lower(), params))
    return found


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class RegistryAuth:
    """The state of one registry and one set of credentials; see the module. Times are monotonic seconds."""

    def __init__(self, credentials: Credentials, *, plain_realm: bool = False) -> None:
        """`plain_realm` allows a token server without TLS: for registries that are insecure themselves."""
        self._credentials = credentials
        self._plain_realm = plain_realm
        self._tokens: dict[str, _Token] = {}
        self._basic = ""

    def header(self, scope: str, now: float) -> str:
        """The Authorization to send for `scope` (one or more, separated by blanks); "" for none yet."""
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        token = self._tokens.get(scope)
        if token is not None and token.expires > now:
            return token.header
        return self._basic

    def challenged(self, challenges: list[Challenge], scope: str, used: str) -> TokenRequest | None:
        """The registry answered 401 to `used`. What to ask the token server, or None: `header` is new already.

        Raises Unauthorized when nothing that we have could open the door.
        """
        if used.startswith("Bearer"):
            self._tokens.pop(scope, None)
        if self._credentials.registry_token:
            raise Unauthorized("unauthorized: the registry refused the token that was given")
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.params.get("realm"):
                return self._token_request(challenge, scope)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if not self._credentials.username:
                raise Unauthorized("no basic auth credentials")
            if used.startswith("Basic"):
                raise Unauthorized("unauthorized: incorrect username or password")
            self._basic = basic(self._credentials.username, self._credentials.password)
            return None
        raise Unauthorized("unauthorized: authentication required")

    def _token_request(self, challenge: Challenge, scope: str) -> TokenRequest:
        realm = challenge.params["realm"]
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and self._plain_realm):
            raise Unauthorized(f"the registry names an unsafe token server: {clip(realm)}")
        # What we asked for is in `scope`; what the registry wants may be more (a mount needs two repositories).
        wanted = sorted({*scope.split(), *challenge.params.get("scope", "").split()})
        service = challenge.params.get("service", "")
        credentials = self._credentials
        if credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "service": service,
                "client_id": "corten",
                "scope": " ".join(wanted),
            }
            return TokenRequest(realm, scope, form=urlencode(form))
        query = [("service", service)] if service else []
        query += [("scope", part) for part in wanted]
        authorization = ""
        if credentials.username:
            query.insert(0, ("account", credentials.username))
            authorization = basic(credentials.username, credentials.password)
        url = realm + ("&" if parts.query else "?") + urlencode(query) if query else realm
        return TokenRequest(url, scope, authorization)

    def granted(self, request: TokenRequest, body: bytes, now: float) -> None:
        """The token server said yes with `body`. Raises Unauthorized for an answer without a usable token."""
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Unauthorized("the token server's answer cannot be read") from None
        token = answer.token or answer.access_token or ""
        if not token or not token.isascii() or not token.isprintable():
            raise Unauthorized("authorization server did not include a token in the response")
        lifetime = answer.expires_in if answer.expires_in and answer.expires_in > 0 else DEFAULT_LIFETIME
        # A token too short-lived for the margin must still serve the request that it was fetched for.
        usable = max(lifetime - EXPIRY_MARGIN, lifetime / 2)
        self._tokens[request.scope] = _Token(f"Bearer {token}", now + usable)
