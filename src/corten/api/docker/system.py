"""Routes about the daemon itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from corten.api.docker import containers, encode_usage
from corten.api.docker.flow import send_progress
from corten.api.docker.params import Query, parse_auths
from corten.engine.models import Sizes
from corten.errors import InvalidArgument, NotFound, clip

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

_PING_HEADERS = {
    "Builder-Version": "1",  # the classic builder; BuildKit is not served
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Content-Type": "text/plain; charset=utf-8",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
# Object types of `system df`, and the members that tell of them before API 1.52.
_USAGE = {
    "container": ("Containers",),
    "image": ("Images", "LayersSize"),
    "volume": ("Volumes",),
    "build-cache": ("BuildCache", "BuilderSize"),
}


def add_routes(router: Router) -> None:
    router.add("GET", "/_ping", ping)
    router.add("HEAD", "/_ping", ping)
    router.add("GET", "/version", version)
    router.add("GET", "/info", info)
    router.add("GET", "/system/df", disk_usage)
    router.add("POST", "/system/check", check)
    router.add("GET", "/plugins", plugins)
    router.add("GET", "/plugins/{name...}/json", plugin)


async def ping(call: Call) -> web.Response:
    headers = {**_PING_HEADERS, **call.services.headers}
    return web.Response(body=b"" if call.request.method == "HEAD" else b"OK", headers=headers)


async def version(call: Call) -> web.Response:
    return call.json(await call.backends.system.version())


async def info(call: Call) -> web.Response:
    return call.json(await call.backends.system.info())


async def disk_usage(call: Call) -> web.Response:
    wanted = _usage_types(call.query)
    usage = await call.backends.system.disk_usage()
    if "container" in wanted:
        usage["Containers"] = _containers(call, usage["Containers"])
    if call.api >= 52:
        return call.json(encode_usage.totals(usage, wanted, verbose=call.query.flag("verbose")))
    unwanted = {member for kind, members in _USAGE.items() if kind not in wanted for member in members}
    return call.json({name: value for name, value in usage.items() if name not in unwanted})


def _containers(call: Call, usage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a list of containers with these sizes."""
    sizes = {row["Id"]: Sizes(row["SizeRw"], row["SizeRootFs"]) for row in usage}
    found = [container for container in call.backends.containers.inspection.list() if container.id in sizes]
    return containers.rows(call, found, [sizes[container.id] for container in found])


async def check(call: Call) -> web.StreamResponse:
    """Not Docker's: compare all that is stored with what it should be, and with `repair` make it whole again."""
    given = parse_auths(call.request.headers.get("X-Registry-Config"))
    auths = {_host(registry): auth for registry, auth in given.items()}
    messages = call.backends.checks.check(repair=call.query.flag("repair"), auths=auths)
    return await send_progress(call, messages)


def _host(registry: str) -> str:
    """The host of a registry as config.json calls it, some with a scheme and a path; docker.io for the Hub."""
    host = registry.partition("://")[2].partition("/")[0] or registry
    return "docker.io" if host == "index.docker.io" else host


def _usage_types(query: Query) -> list[str]:
    kinds = query.all("type") or list(_USAGE)
    for kind in kinds:
        if kind not in _USAGE:
            raise InvalidArgument(f"unknown object type: {clip(kind)}")
    return kinds


async def plugins(call: Call) -> web.Response:
    """There are none, and that is the truth."""
    call.query.filters()
    return call.json([])


async def plugin(call: Call) -> web.Response:
    """`docker inspect` asks for every kind of object by one name, and takes 404 for "look on"."""
    raise NotFound("plugin", clip(call.args[0], 200))
