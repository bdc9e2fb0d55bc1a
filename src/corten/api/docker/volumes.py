"""Routes of volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from corten.api.docker.container_filters import text_test
from corten.api.docker.encode import SECOND, Json, go_time
from corten.api.docker.params import check_filters, filter_flag
from corten.engine.models import Volume
from corten.specs.container import GoStruct
from corten.specs.filters import label_test

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

KNOWN = frozenset(("dangling", "driver", "label", "name"))


class VolumeRequest(GoStruct):
    """Body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def add_routes(router: Router) -> None:
    router.add("GET", "/volumes", list_volumes)
    router.add("POST", "/volumes/create", create)
    router.add("POST", "/volumes/prune", prune)
    router.add("GET", "/volumes/{name}", inspect)
    router.add("DELETE", "/volumes/{name}", remove)


def volume_json(volume: Volume) -> Json:
    return {
        "CreatedAt": go_time(volume.created_ns // SECOND * SECOND),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": volume.scope,
    }


async def list_volumes(call: Call) -> web.Response:
    filters = call.query.filters()
    check_filters(filters, KNOWN)
    dangling = filter_flag(filters, "dangling")
    named, labelled = text_test(filters.get("name", [])), label_test(filters.get("label", []))
    used = _used(call) if dangling is not None else frozenset()
    found = [
        volume_json(volume)
        for volume in call.backends.volumes.list()
        if ("name" not in filters or named(volume.name))
        and ("driver" not in filters or volume.driver in filters["driver"])
        and (dangling is None or (volume.name not in used) == dangling)
        and labelled(volume.labels)
    ]
    return call.json({"Volumes": found, "Warnings": None})


def _used(call: Call) -> frozenset[str]:
    return frozenset(
        mount.name for container in call.backends.containers.inspection.list() for mount in container.mounts
    )


async def create(call: Call) -> web.Response:
    request = await call.decode(VolumeRequest)
    work = call.backends.volumes.create(
        request.name, request.driver or "local", request.driver_opts or {}, request.labels or {}
    )
    return call.json(volume_json(await call.finish("volume create", work)), 201)


async def inspect(call: Call) -> web.Response:
    return call.json(volume_json(call.backends.volumes.get(call.args[0])))


async def remove(call: Call) -> web.Response:
    work = call.backends.volumes.remove(call.args[0], force=call.query.flag("force"))
    await call.finish("volume remove", work)
    return call.empty()


async def prune(call: Call) -> web.Response:
    filters = call.query.filters()
    if call.api < 42:
        # Until 1.42 a prune took every unused volume; since then the named ones only when asked.
        filters["all"] = ["true"]
    removed, space = await call.finish("volume prune", call.backends.volumes.prune(filters))
    return call.json({"VolumesDeleted": removed or None, "SpaceReclaimed": space})
