"""One request on its way through the routes, and the answers they give."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from aiohttp import web

from corten.api.docker.params import Query
from corten.clock import Clock, SystemClock
from corten.errors import InvalidArgument, TooLarge, clip
from corten.specs import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from corten.api.docker.backends import Backends
    from corten.engine.models import StatsSample
    from corten.tasks import TaskOwner

T = TypeVar("T")

MAX_API = 56
MIN_API = 24
JSON_TYPE = "application/json"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """`max_body` bounds JSON bodies, in bytes; `server` is the Server header, by default Corten and its version."""

    max_body: int = 4 * 1024 * 1024
    server: str = ""
    os_type: str = "linux"
    experimental: bool = False
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Services:
    """What lives as long as the server. `labels` remembers the labels of image configs by their digest, `sample_lines`
    what is sent of a sample that many get.
    """

    backends: Backends
    settings: ApiSettings
    tasks: TaskOwner
    headers: dict[str, str]
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    sample_lines: WeakKeyDictionary[StatsSample, bytes] = field(default_factory=WeakKeyDictionary)


class Call:
    """A request: `api` is the minor of the version that the client speaks (1.44 is 44), `args` what the route's
    pattern caught, in order.
    """

    __slots__ = ("api", "args", "path", "query", "request", "services", "started", "taken")

    def __init__(self, services: Services, request: web.BaseRequest, path: str, query: str, api: int) -> None:
        self.services, self.request, self.path, self.api = services, request, path, api
        self.query = Query(query)
        self.args: tuple[str, ...] = ()
        self.started: web.StreamResponse | None = None
        self.taken = False

    @property
    def backends(self) -> Backends:
        return self.services.backends

    @property
    def now_ns(self) -> int:
        return self.services.settings.clock.now_ns()

    @property
    def has_body(self) -> bool:
        headers = self.request.headers
        return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers

    async def body(self) -> bytes:
        """The whole body. Raises TooLarge past the limit, and InvalidArgument when it is not declared as JSON."""
        if not self.has_body:
            return b""
        self._check_type()
        limit = self.services.settings.max_body
        parts = bytearray()
        async for chunk in self.upload():
            parts += chunk
            if len(parts) > limit:
                raise TooLarge(f"http: request body too large: more than {limit} bytes")
        return bytes(parts)

    async def upload(self) -> AsyncIterator[bytes]:
        """The body as it comes, of any size and type. A client that asks before it sends is told to go on."""
        if self.request.headers.get("Expect", "").lower() == "100-continue":
            if self.request.transport is None:
                raise ConnectionResetError("the client went away")
            self.request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for chunk in self.request.content.iter_any():
            yield chunk

    def _check_type(self) -> None:
        given = self.request.headers.get("Content-Type", "")
        kind = given.partition(";")[0].strip().lower()
        if kind == JSON_TYPE:
            return
        if kind and not re.fullmatch(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", kind, re.ASCII):
            raise InvalidArgument(f"malformed Content-Type header ({clip(given)}): mime: expected slash in media type")
        raise InvalidArgument(f"unsupported Content-Type header ({clip(given)}): must be '{JSON_TYPE}'")

    async def decode(self, kind: type[T], *, required: bool = False) -> T:
        """The JSON body as `kind`; without one the defaults, unless it is `required`."""
        body = (await self.body()).strip()
        if not body and required:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        if body == b"null":
            body = b"{}"
        return wire.decode(body, kind)

    async def finish(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even if the client goes away: a change of state is not left half made."""
        task = self.services.tasks.start(name, _outcome(work))
        result, error = await asyncio.shield(task)
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # set whenever there is no error

    def json(self, value: Any, status: int = 200) -> web.Response:
        return self.raw_json(_encode(value), status)

    def raw_json(self, body: bytes, status: int = 200) -> web.Response:
        headers = {"Content-Type": JSON_TYPE, **self.services.headers}
        return web.Response(body=body + b"\n", status=status, headers=headers)

    def empty(self, status: int = 204) -> web.Response:
        return web.Response(status=status, headers=self.services.headers)


async def _outcome(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    """A refusal is an answer for the client and no failure of the task."""
    try:
        return await work, None
    except Exception as error:
        return None, error
