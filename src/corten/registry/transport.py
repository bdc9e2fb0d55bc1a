"""HTTP to registries: one session for all of them, made when it is first needed.

A request is sent to an Endpoint; the transport chooses the scheme, proves who we are, follows redirects without
taking the Authorization to another host, and waits out what is temporary. What is not a success is raised as
`faults.Refused`, what is no answer at all as Unavailable with the words of Go's HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from corten import __version__
from corten.clock import Clock
from corten.errors import CortenError, SystemFault, Unauthorized, Unavailable, clip
from corten.registry.addresses import open_socket
from corten.registry.auth import Credentials, RegistryAuth, TokenRequest, parse_challenges, refused_token
from corten.registry.endpoints import Endpoint, RegistrySettings
from corten.registry.faults import Refused, read_refusal
from corten.registry.trust import TlsContexts

if TYPE_CHECKING:
    import aiohttp

USER_AGENT = f"corten/{__version__}"
MAX_ERROR_BODY = 64 << 10
MAX_TOKEN_BODY = 1 << 20
MAX_REDIRECTS = 10
MAX_PATIENCE = 30.0
"""Seconds; a registry that asks us to come back later than that is reported instead of waited for."""

_KNOWN_AUTHS = 64
_RETRIED = (408, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_TLS = "WRONG_VERSION_NUMBER"
"""How OpenSSL calls an answer that is text."""

Body = Callable[[], AsyncIterator[bytes]]
Waiting = Callable[[int], None]
"""Told the whole seconds that are left before the next attempt, once a second."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a registry. `path` starts at its root, or is a whole URL that the registry itself gave.

    `body` is asked for a new iterator at each attempt. `missing` is the error code that a 404 without a body means.
    `waiting` hears of the pauses between attempts.
    """

    method: str
    path: str
    scope: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | None = None
    missing: str = ""
    attempts: int = 0
    waiting: Waiting | None = None
    auth: RegistryAuth | None = None
    """Used instead of what is known already: a login must not succeed by a token of yesterday."""


_Auth = tuple[RegistryAuth, asyncio.Lock]


class NoAnswer(Unavailable):
    """The registry could not be reached or broke off; another attempt may do better."""


class BrokenOff(NoAnswer):
    """The registry had begun to answer. Attempts that got no answer at all were made already; this is a new case."""


class Transport:
    """See the module. Made once; `close` ends the connections. Safe for many tasks."""

    def __init__(self, settings: RegistrySettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._contexts = TlsContexts()
        self._schemes: dict[str, str] = {}
        self._auths: OrderedDict[tuple[tuple[str, str], Credentials], _Auth] = OrderedDict()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def url_of(self, endpoint: Endpoint) -> str:
        """Its base, with the scheme by which it was last reached."""
        return endpoint.url(self._schemes.get(endpoint.host, endpoint.schemes[0]), "/v2/")

    @asynccontextmanager
    async def send(
        self, endpoint: Endpoint, credentials: Credentials, request: Request
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The successful answer, its body not yet read. Temporary trouble is waited out, with growing pauses.

        Raises Refused, Unauthorized or Unavailable.
        """
        response = await self._persist(endpoint, credentials, request)
        try:
            yield response
        except (TimeoutError, OSError, _client_error()) as error:
            # Where it broke, which after a redirect is another host than the registry.
            raise BrokenOff(str(self._no_answer(error, request.method, str(response.url)))) from error
        finally:
            # A body that was not read to its end would stand in the way of the connection's next user.
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """A body that is a document. Raises SystemFault when it is longer than `limit`, TimeoutError when it comes
        so slowly that nobody would wait for it.
        """
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(4 * self.settings.stall_timeout):
            async for part in response.content.iter_any():
                size += len(part)
                if size > limit:
                    raise SystemFault(f"the registry's answer is longer than {limit} bytes", step="registry")
                parts.append(part)
        return b"".join(parts)

    async def _persist(self, endpoint: Endpoint, credentials: Credentials, request: Request) -> aiohttp.ClientResponse:
        attempts = request.attempts or self.settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                response = await self._authorized(endpoint, credentials, request)
            except NoAnswer as error:
                if attempt == attempts or _is_final(error.__cause__):
                    raise
                await self.pause(attempt, waiting=request.waiting)
                continue
            if response.status < 300:
                return response
            wait = self._retry_after(response)
            refused = await self._refusal(response, request)
            if response.status not in _RETRIED or attempt == attempts or (wait or 0) > MAX_PATIENCE:
                raise refused
            await self.pause(attempt, wait, request.waiting)
        raise AssertionError("the last attempt returns or raises")

    async def pause(self, attempt: int, asked: float | None = None, waiting: Waiting | None = None) -> None:
        """Before attempt `attempt` + 1: what the registry asked for, else half a second, one, two, four…"""
        left = min(0.5 * 2 ** (attempt - 1), 8.0) if asked is None else asked
        while waiting is not None and left > 0:
            waiting(math.ceil(left))
            await self._clock.sleep(min(left, 1.0))
            left -= 1.0
        if left > 0:
            await self._clock.sleep(left)

    async def _authorized(
        self, endpoint: Endpoint, credentials: Credentials, request: Request
    ) -> aiohttp.ClientResponse:
        auth, lock = (request.auth, asyncio.Lock()) if request.auth else self._auth(endpoint, credentials)
        for _ in range(3):
            used = auth.header(request.scope, self._clock.monotonic())
            response = await self._connected(endpoint, request, used)
            # Who we are is for the registry itself, never for whom it sent us on to.
            if response.status != 401 or not _at_home(str(response.url), endpoint):
                return response
            challenges = parse_challenges(response.headers.getall("Www-Authenticate", []))
            if any(c.params.get("error") == "insufficient_scope" for c in challenges) and used:
                return response
            response.close()
            async with lock:
                if auth.header(request.scope, self._clock.monotonic()) != used:
                    continue  # another request got the token meanwhile
                plain = response.url.scheme == "http"
                wanted = auth.challenged(challenges, request.scope, used, plain_realm=plain)
                if wanted is not None:
                    auth.granted(wanted, await self._fetch_token(endpoint, wanted), self._clock.monotonic())
        raise Unauthorized("unauthorized: authentication required")

    def _auth(self, endpoint: Endpoint, credentials: Credentials) -> _Auth:
        key = (endpoint.key, credentials)
        if key not in self._auths:
            self._auths[key] = (RegistryAuth(credentials), asyncio.Lock())
        self._auths.move_to_end(key)
        while len(self._auths) > _KNOWN_AUTHS:
            self._auths.popitem(last=False)
        return self._auths[key]

    async def _connected(self, endpoint: Endpoint, request: Request, used: str) -> aiohttp.ClientResponse:
        if not request.path.startswith("/"):
            url = _upgraded(target_of("", request.path), endpoint, self._schemes.get(endpoint.host, ""))
            _check_scheme(url, endpoint)
            return await self._redirected(endpoint, request, url, used)
        known = self._schemes.get(endpoint.host)
        schemes = (known,) if known in endpoint.schemes else endpoint.schemes
        failure: NoAnswer | None = None
        for scheme in schemes:
            try:
                response = await self._redirected(endpoint, request, endpoint.url(scheme, request.path), used)
            except NoAnswer as error:
                failure = error
                continue
            self._schemes[endpoint.host] = scheme
            return response
        # What worked before may have changed its mind about TLS: ask both ways again at the next attempt.
        self._schemes.pop(endpoint.host, None)
        assert failure is not None
        raise failure

    async def _redirected(self, endpoint: Endpoint, request: Request, url: str, used: str) -> aiohttp.ClientResponse:
        # What goes to a registry with TLS does not go to it without, whatever it may say.
        private = urlsplit(url).scheme == "https" or self._schemes.get(endpoint.host) == "https"
        for _ in range(MAX_REDIRECTS):
            headers = dict(request.headers)
            if _at_home(url, endpoint) and (not private or url.startswith("https:")):
                headers.update(endpoint.headers)
                if used:
                    headers["Authorization"] = used
            response = await self._raw(request.method, url, headers, request.body, endpoint)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            url = target_of(url, location)
            _check_scheme(url, endpoint)
        raise SystemFault(f"stopped after {MAX_REDIRECTS} redirects", step="registry")

    async def _raw(
        self, method: str, url: str, headers: dict[str, str], body: Body | None, endpoint: Endpoint
    ) -> aiohttp.ClientResponse:
        import aiohttp
        import yarl

        settings = self.settings
        trust = endpoint.trust
        if trust.client and not _at_home(url, endpoint):
            trust = replace(trust, client=None)
        verify = await self._contexts.of(trust, verify=not endpoint.unverified) if url.startswith("https:") else True
        proxy = settings.proxies.of(url)
        # Each header may come a byte at a time. What we have to send takes the time that it takes.
        patience = 2 * settings.stall_timeout + settings.connect_timeout if body is None else None
        try:
            async with asyncio.timeout(patience):
                return await self._opened().request(
                    method,
                    yarl.URL(url, encoded=True),
                    headers=headers,
                    data=body() if body is not None else None,
                    ssl=verify,
                    proxy=proxy,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        sock_connect=endpoint.dial_timeout or settings.connect_timeout,
                        sock_read=settings.stall_timeout,
                    ),
                )
        except (aiohttp.InvalidURL, UnicodeError) as error:
            text = f"the registry gave an address that is none: {clip(str(error))}"
            raise SystemFault(text, step="registry") from None
        except (TimeoutError, OSError, _client_error()) as error:
            parts = urlsplit(url)
            # A registry that cannot be reached is known by its base address, whatever it was that was asked of it.
            base = f"{parts.scheme}://{endpoint.host}{endpoint.prefix}/v2/"
            reached = not isinstance(error, _unreachable()) or not url.startswith(base)
            raise self._no_answer(error, method, url if reached else f"{parts.scheme}://{parts.netloc}/v2/") from error

    async def _fetch_token(self, endpoint: Endpoint, wanted: TokenRequest) -> bytes:
        for attempt in range(1, self.settings.attempts + 1):
            response = await self._ask_token(endpoint, wanted)
            async with self._reading(response):
                data = await self.read(response, MAX_TOKEN_BODY)
            if response.status < 300:
                return data
            wait = self._retry_after(response)
            if response.status not in _RETRIED or attempt == self.settings.attempts or (wait or 0) > MAX_PATIENCE:
                raise refused_token(wanted, response.status, data)
            await self.pause(attempt, wait)
        raise AssertionError("the last attempt returns or raises")

    async def _ask_token(self, endpoint: Endpoint, wanted: TokenRequest) -> aiohttp.ClientResponse:
        """The token server's answer. What it sends us on to is told no secret, unless it is the same server."""
        url, secrets = wanted.url, wanted.headers
        for _ in range(MAX_REDIRECTS):
            response = await self._raw(wanted.method, url, secrets, wanted.body, endpoint)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            target = target_of(url, location)
            _check_scheme(target, endpoint)
            if _origin(target) != _origin(url):
                if wanted.form:
                    raise Unauthorized(f"the token server sends us on to another one: {clip(target.split('?')[0])}")
                secrets = {}
            url = target
        raise Unauthorized(f"the token server sends us on for ever: {clip(wanted.place)}")

    @asynccontextmanager
    async def _reading(self, response: aiohttp.ClientResponse) -> AsyncIterator[None]:
        try:
            yield
        except (TimeoutError, OSError, _client_error()) as error:
            raise self._no_answer(error, response.method, str(response.url)) from error
        finally:
            response.release()

    async def _refusal(self, response: aiohttp.ClientResponse, request: Request) -> Refused:
        challenges = parse_challenges(response.headers.getall("Www-Authenticate", []))
        body = b""
        with contextlib.suppress(CortenError):
            async with self._reading(response):
                body = await self.read(response, MAX_ERROR_BODY)
        return read_refusal(response.status, body, challenges, request.missing)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=64, limit_per_host=16, ttl_dns_cache=60, socket_factory=open_socket
                ),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                # Blobs are what their digest says, whatever Content-Encoding a proxy puts on them.
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=1 << 20,
            )
        return self._session

    def _no_answer(self, error: BaseException, method: str, url: str) -> NoAnswer:
        parts = urlsplit(url)
        # Not the query: storage services have signatures in it.
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        words = _words(error, f"{parts.scheme}://{parts.netloc}", self.settings)
        return NoAnswer(f'{method.capitalize()} "{clip(place)}": {words}')

    def _retry_after(self, response: aiohttp.ClientResponse) -> float | None:
        """The seconds that a Retry-After header asks for, a number or a date; None without one that can be read."""
        value = response.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            when = parsedate_to_datetime(value)
            seconds = when.timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        return max(0.0, seconds - self._clock.now_ns() / 1e9)


def _upgraded(url: str, endpoint: Endpoint, known: str) -> str:
    """`url`, with TLS where the registry needs it: one behind a proxy may not know that it is reached by https, and
    what it calls its own address must not carry our Authorization in the clear.
    """
    private = not endpoint.plain or (known == "https" and _at_home(url, endpoint))
    return "https://" + url.removeprefix("http://") if private and url.startswith("http://") else url


def _at_home(url: str, endpoint: Endpoint) -> bool:
    """Whether `url` is at the registry's own address, with or without TLS."""
    scheme, _, rest = url.partition("://")
    netloc = rest.partition("/")[0]
    return netloc == endpoint.host or _origin(url) == _origin(f"{scheme}://{endpoint.host}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    import yarl

    try:
        parsed = yarl.URL(url)
        return parsed.scheme, parsed.host, parsed.port
    except ValueError:
        return "", None, None


def target_of(url: str, location: str) -> str:
    """Where `location` leads from `url`, its scheme in lower case. Raises SystemFault for what is no address."""
    try:
        target = urljoin(url, location)
        scheme, separator, rest = target.partition(":")
        urlsplit(target)
    except ValueError:
        raise SystemFault(f"the registry redirects to what is no address: {clip(location)}", step="registry") from None
    return scheme.lower() + separator + rest


def _check_scheme(url: str, endpoint: Endpoint) -> None:
    """Raises SystemFault for where nobody should go."""
    parts = urlsplit(url)
    scheme = parts.scheme
    # A name and password in it would be sent there: somebody else's, in our name.
    unsafe = scheme not in ("http", "https") or (scheme == "http" and not endpoint.plain)
    if unsafe or "@" in parts.netloc or not parts.hostname:
        raise SystemFault(f"the registry redirects to an unsafe address: {clip(url)}", step="registry")


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


def _unreachable() -> tuple[type[Exception], ...]:
    import aiohttp

    return aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError


def _words(error: BaseException, origin: str, settings: RegistrySettings) -> str:
    """A failed exchange as Go's net package puts it, which users search for."""
    import aiohttp

    host = urlsplit(origin).hostname or origin
    cause = getattr(error, "os_error", None) or error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return clip(error.message, 120) or f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"proxyconnect tcp: dial tcp {error.host}:{error.port}: connect: {_strerror(cause)}"
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        return f"remote error: tls: {cause.reason.partition('ALERT_')[2].lower().replace('_', ' ')}"
    if isinstance(cause, ssl.SSLError) and cause.reason == _NO_TLS:
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: x509: {clip(str(error.certificate_error))}"
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"dial tcp {urlsplit(origin).netloc}: i/o timeout"
    if isinstance(error, TimeoutError):
        return f"net/http: timeout awaiting response: nothing arrived for {settings.stall_timeout:g} seconds"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(cause, OSError) and cause.errno:
        return f"dial tcp {urlsplit(origin).netloc}: connect: {os.strerror(cause.errno).lower()}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"net/http: HTTP/1.x transport connection broken: malformed HTTP response: {clip(error.message, 120)}"
    if isinstance(cause, OSError) and cause.errno:
        return f"read tcp {urlsplit(origin).netloc}: {os.strerror(cause.errno).lower()}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {urlsplit(origin).netloc}: {clip(str(cause)) or 'the connection was closed'}"
    return clip(str(error)) or type(error).__name__


def _strerror(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else clip(str(error))


def _is_final(error: BaseException | None) -> bool:
    """Nobody listens there, nobody knows the name, or one side does not trust the other: a user who mistyped should
    not wait for five attempts.
    """
    import aiohttp

    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status < 500
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return True
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, ssl.SSLError):
        return cause.reason == _NO_TLS or "ALERT" in (cause.reason or "")
    return isinstance(cause, socket.gaierror) or (
        isinstance(cause, OSError) and cause.errno in (errno.ECONNREFUSED, errno.ENETUNREACH)
    )
