"""The Docker Engine API as an HTTP server: version, route, answer or error."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from aiohttp import web

import corten
from corten.api.docker import (
    archive,
    auth,
    commit,
    containers,
    events,
    execs,
    images,
    networks,
    streams,
    system,
    unsupported,
    volumes,
)
from corten.api.docker.call import MAX_API, MIN_API, ApiSettings, Call, Services
from corten.api.docker.errors import PageNotFound, http_message, http_status
from corten.api.docker.routing import Router
from corten.api.docker.server import Connection, DockerServer
from corten.errors import CortenError, InvalidArgument
from corten.tasks import TaskOwner

if TYPE_CHECKING:
    from corten.api.docker.backends import Backends

__all__ = ["ApiSettings", "create_server"]

log = logging.getLogger(__name__)
_VERSION = re.compile(r"/v(\d{1,6})\.(\d{1,6})(?=/)", re.ASCII)


def create_server(backends: Backends, *, settings: ApiSettings | None = None) -> DockerServer:
    """A server for `aiohttp.web.ServerRunner`; made inside the loop that will run it."""
    settings = settings or ApiSettings()
    tasks = TaskOwner("api")
    return DockerServer(_Dispatcher(backends, settings, tasks).handle, tasks)


def make_router() -> Router:
    router = Router()
    for part in (
        system,
        auth,
        events,
        containers,
        streams,
        execs,
        images,
        commit,
        archive,
        networks,
        volumes,
        unsupported,
    ):
        part.add_routes(router)
    return router


def _common_headers(settings: ApiSettings) -> dict[str, str]:
    return {
        "Api-Version": f"1.{MAX_API}",
        "Docker-Experimental": "true" if settings.experimental else "false",
        "Ostype": settings.os_type,
        "Server": settings.server or f"Corten/{corten.__version__} ({settings.os_type})",
    }


def negotiate(path: str) -> tuple[str, int]:
    """`path` without its version, and the version's minor. Raises InvalidArgument for one that is not served."""
    match = _VERSION.match(path)
    if match is None:
        return path, MAX_API
    major, minor = int(match.group(1)), int(match.group(2))
    if (major, minor) < (1, MIN_API):
        raise InvalidArgument(
            f"client version {major}.{minor} is too old. Minimum supported API version is 1.{MIN_API}, "
            "please upgrade your client to a newer version"
        )
    if (major, minor) > (1, MAX_API):
        raise InvalidArgument(
            f"client version {major}.{minor} is too new. Maximum supported API version is 1.{MAX_API}"
        )
    return path[match.end() :], minor


class _Dispatcher:
    def __init__(self, backends: Backends, settings: ApiSettings, tasks: TaskOwner) -> None:
        self._services = Services(backends, settings, tasks, _common_headers(settings))
        self._router = make_router()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if not path.startswith("/"):  # a proxy's absolute form
            path = urlsplit(path).path or "/"
        call = Call(self._services, request, unquote(path) if "%" in path else path, query, MAX_API)
        try:
            response = await self._route(call)
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            raise  # the client is gone, and aiohttp knows what to do
        except Exception as error:
            response = self._failed(call, error)
        protocol = request.protocol
        if isinstance(protocol, Connection):
            protocol.streams = False
            if protocol.holding and not call.taken and not protocol.release():
                response.force_close()
        return response

    async def _route(self, call: Call) -> web.StreamResponse:
        call.path, call.api = negotiate(call.path)
        found = self._router.find(call.request.method, call.path)
        if found is None:
            raise PageNotFound
        handler, call.args = found
        return await handler(call)

    def _failed(self, call: Call, error: Exception) -> web.StreamResponse:
        if not isinstance(error, CortenError):
            log.error("%s %s failed", call.request.method, call.path, exc_info=error)
        if call.started is not None:
            # Part of the answer is out: an early end of the connection is all that can still be said.
            log.warning("%s %s ended early: %s", call.request.method, call.path, error)
            if call.request.transport is not None:
                call.request.transport.close()
            return call.started
        status = http_status(error)
        if status == 304:
            return call.empty(304)
        response = call.json({"message": http_message(error)}, status)
        if not call.request.content.is_eof():
            response.force_close()  # the rest of a body that nobody wants is not read to its end
        return response
