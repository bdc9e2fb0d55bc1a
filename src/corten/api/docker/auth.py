"""The route of `docker login`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corten.api.docker.params import AuthConfig, registry_auth
from corten.engine.models import RegistryAuth
from corten.errors import InvalidArgument

if TYPE_CHECKING:
    from aiohttp import web

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router


def add_routes(router: Router) -> None:
    router.add("POST", "/auth", login)


async def login(call: Call) -> web.Response:
    given = await call.decode(AuthConfig)
    try:
        auth = registry_auth(given) or RegistryAuth(server_address=given.serveraddress)
    except ValueError:
        raise InvalidArgument("invalid auth: it is not base64 of a name and a password") from None
    token = await call.backends.registries.login(auth)
    return call.json({"IdentityToken": token, "Status": "Login Succeeded"})
