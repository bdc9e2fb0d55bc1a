"""Routes of networks that read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from corten.api.docker.container_filters import text_test
from corten.api.docker.encode import Json
from corten.api.docker.params import check_filters, filter_flag
from corten.engine.models import Filters
from corten.errors import InvalidArgument, NotFound, clip
from corten.specs.filters import label_test

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

KNOWN = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_BUILTIN = ("bridge", "host", "none")
_TYPES = ("builtin", "custom")
_SCOPES = ("local", "global", "swarm")


def add_routes(router: Router) -> None:
    router.add("GET", "/networks", list_networks)
    router.add("GET", "/networks/{id}", inspect)


async def list_networks(call: Call) -> web.Response:
    test = network_test(call.query.filters())
    found = [network for network in call.backends.networks.list() if test(network)]
    if call.api >= 28:  # who is on a network is told by its inspection
        found = [{**network, "Containers": {}} for network in found]
    return call.json(found)


async def inspect(call: Call) -> web.Response:
    call.query.flag("verbose")
    network = call.backends.networks.get(call.args[0])
    scope = call.query.text("scope")
    if scope and network.get("Scope") != scope:
        raise NotFound("network", call.args[0], f"network {clip(call.args[0])} not found")
    return call.json(network)


def network_test(filters: Filters) -> Callable[[Json], bool]:
    """Whether a network passes. Raises InvalidArgument for an unknown filter or value."""
    check_filters(filters, KNOWN)
    for name, allowed in (("type", _TYPES), ("scope", _SCOPES)):
        for value in filters.get(name, ()):
            if value not in allowed:
                raise InvalidArgument(
                    f"invalid filter '{name}'={clip(value)}"
                    if name == "scope"
                    else f"invalid filter: 'type'='{clip(value)}'"
                )
    dangling = filter_flag(filters, "dangling")
    by_name, by_id = text_test(filters.get("name", [])), text_test(filters.get("id", []))
    labelled = label_test(filters.get("label", []))

    def test(network: Json) -> bool:
        kind = "builtin" if network["Name"] in _BUILTIN else "custom"
        unused = not network.get("Containers") and kind == "custom"
        return (
            ("name" not in filters or by_name(network["Name"]))
            and ("id" not in filters or by_id(network["Id"]))
            and ("driver" not in filters or network["Driver"] in filters["driver"])
            and ("scope" not in filters or network["Scope"] in filters["scope"])
            and ("type" not in filters or kind in filters["type"])
            and (dangling is None or unused == dangling)
            and labelled(network.get("Labels") or {})
        )

    return test
