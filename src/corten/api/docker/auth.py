"""Routes that speak for the client to registries: login, search, and what a name stands for there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corten.api.docker.params import AuthConfig, parse_auth, registry_auth
from corten.api.docker.search_filters import search_test
from corten.engine.models import RegistryAuth
from corten.errors import InvalidArgument

if TYPE_CHECKING:
    from aiohttp import web

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router


def add_routes(router: Router) -> None:
    router.add("POST", "/auth", login)
    router.add("GET", "/distribution/{name...}/json", distribution)
    router.add("GET", "/images/search", search)


async def login(call: Call) -> web.Response:
    given = await call.decode(AuthConfig)
    try:
        auth = registry_auth(given) or RegistryAuth(server_address=given.serveraddress)
    except ValueError:
        raise InvalidArgument("invalid auth: it is not base64 of a name and a password") from None
    token = await call.backends.registries.login(auth)
    return call.json({"IdentityToken": token, "Status": "Login Succeeded"})


async def distribution(call: Call) -> web.Response:
    auth = parse_auth(call.request.headers.get("X-Registry-Auth"))
    return call.json(await call.backends.registries.distribution(call.args[0], auth))


async def search(call: Call) -> web.Response:
    if not (term := call.query.text("term")):
        raise InvalidArgument("term must be given")
    auth = parse_auth(call.request.headers.get("X-Registry-Auth"))
    limit = call.query.number("limit") or 0
    wanted = search_test(call.query.filters())
    found = await call.backends.registries.search(term, limit, auth)
    return call.json([entry for entry in found if wanted(entry)])
