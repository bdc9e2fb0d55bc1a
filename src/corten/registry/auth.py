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
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

import msgspec

from corten.errors import CortenError, InvalidArgument, Unauthorized, Unavailable, clip
from corten.specs import wire

CLIENT_ID = "corten"
EXPIRY_MARGIN = 10.0
"""Seconds before its end at which a token is no longer used: a request takes time to arrive."""

MAX_TOKEN = 64 << 10
"""Characters; it goes into a header of each request."""

DEFAULT_LIFETIME = 60.0
"""Seconds that a token lives when its server does not say, by the distribution specification."""

MAX_CHALLENGES = 16
_KEPT_TOKENS = 256
_PARAM = re.compile(r'\s*([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user logged in with: a name and a password, or a token to get tokens with, or a ready token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class RejectedPassword(Unauthorized):
    """The registry itself, without a token server, does not know this name with this password."""


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

    @property
    def method(self) -> str:
        return "POST" if self.form else "GET"

    @property
    def place(self) -> str:
        """The URL for people to see."""
        return self.url.partition("?")[0]

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Authorization": self.authorization} if self.authorization else {}
        if self.form:
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Content-Length": str(len(self.form.encode())),
            }
        return headers

    @property
    def body(self) -> Callable[[], AsyncIterator[bytes]] | None:
        async def once() -> AsyncIterator[bytes]:
            yield self.form.encode()

        return once if self.form else None


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None
    refresh_token: str | None = None


class _TokenRefusal(msgspec.Struct):
    """As Docker Hub says no."""

    details: str = ""


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
            if len(found) == MAX_CHALLENGES:
                return found
    return found


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class RegistryAuth:
    """The state of one registry and one set of credentials; see the module. Times are monotonic seconds."""

    def __init__(self, credentials: Credentials, *, offline: bool = False) -> None:
        """`offline` asks the token server for an identity token, to be kept instead of the password."""
        self._credentials = credentials
        self._offline = offline
        self.identity_token = credentials.identity_token
        """The newest: a server may give another one with each answer."""
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

    def challenged(
        self, challenges: list[Challenge], scope: str, used: str, *, plain_realm: bool = False
    ) -> TokenRequest | None:
        """The registry answered 401 to `used`. What to ask the token server, or None: `header` is new already.

        `plain_realm` allows a token server without TLS: for registries that were asked without it themselves.
        Raises Unauthorized when nothing that we have could open the door.
        """
        if used.startswith("Bearer"):
            self._tokens.pop(scope, None)
        if self._credentials.registry_token:
            raise Unauthorized("unauthorized: the registry refused the token that was given")
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.params.get("realm"):
                _check_realm(challenge.params["realm"], plain=plain_realm)
                return self._token_request(challenge, scope)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if not self._credentials.username:
                raise Unauthorized("no basic auth credentials")
            if used.startswith("Basic"):
                raise RejectedPassword("unauthorized: incorrect username or password")
            self._basic = basic(self._credentials.username, self._credentials.password)
            return None
        raise Unauthorized("unauthorized: authentication required")

    def _token_request(self, challenge: Challenge, scope: str) -> TokenRequest:
        realm = challenge.params["realm"]
        # What we asked for is in `scope`; what the registry wants may be more (a mount needs two repositories).
        wanted = sorted({*scope.split(), *challenge.params.get("scope", "").split()})
        service = challenge.params.get("service", "")
        credentials = self._credentials
        if self.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.identity_token,
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(wanted),
            }
            return TokenRequest(realm, scope, form=urlencode(form))
        query = [("service", service)] if service else []
        query += [("scope", part) for part in wanted]
        if self._offline:
            query += [("offline_token", "true"), ("client_id", CLIENT_ID)]
        authorization = ""
        if credentials.username:
            query.insert(0, ("account", credentials.username))
            authorization = basic(credentials.username, credentials.password)
        url = realm + ("&" if "?" in realm else "?") + urlencode(query) if query else realm
        return TokenRequest(url, scope, authorization)

    def granted(self, request: TokenRequest, body: bytes, now: float) -> None:
        """The token server said yes with `body`. Raises Unauthorized for an answer without a usable token."""
        try:
            answer = wire.read(body, _TokenAnswer)
        except InvalidArgument:
            raise Unauthorized("the token server's answer cannot be read") from None
        token = answer.token or answer.access_token or ""
        if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise Unauthorized("authorization server did not include a token in the response")
        if answer.refresh_token and (self._offline or self.identity_token):
            self.identity_token = answer.refresh_token
        lifetime = answer.expires_in if answer.expires_in and answer.expires_in > 0 else DEFAULT_LIFETIME
        # A token too short-lived for the margin must still serve the request that it was fetched for.
        usable = max(lifetime - EXPIRY_MARGIN, lifetime / 2)
        self._tokens = {scope: kept for scope, kept in self._tokens.items() if kept.expires > now}
        if len(self._tokens) >= _KEPT_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[request.scope] = _Token(f"Bearer {token}", now + usable)


def _check_realm(realm: str, *, plain: bool) -> None:
    """Raises Unauthorized for a token server that may not be told who we are."""
    try:
        parts = urlsplit(realm)
        named = bool(parts.hostname) and "@" not in parts.netloc and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named or not realm.isascii() or not realm.isprintable() or " " in realm or "#" in realm:
        raise Unauthorized(f"the registry names a token server that is none: {clip(realm)}")
    if parts.scheme != "https" and not (parts.scheme == "http" and plain):
        raise Unauthorized(f"the registry names an unsafe token server: {clip(realm)}")


def refused_token(request: TokenRequest, status: int, body: bytes) -> CortenError:
    """What it means that the token server answered `status`, which is no success."""
    place = f'{request.method.capitalize()} "{clip(request.place)}"'
    if status not in (400, 401, 403):
        return Unavailable(f"failed to fetch a token: {place}: unexpected status {status}")
    text = "incorrect username or password" if request.authorization or request.form else "authentication required"
    with contextlib.suppress(InvalidArgument):
        text = wire.read(body, _TokenRefusal).details or text
    return Unauthorized(f"{place}: unauthorized: {clip(text)}")
