"""Routes of containers: life cycle, listing, inspection. Their streams are in `streams`."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from aiohttp import web

from corten.api.docker import encode_container
from corten.api.docker.container_filters import container_test, shows_stopped
from corten.api.docker.params import parse_int
from corten.engine.models import Container, Sizes, WaitCondition
from corten.errors import InvalidArgument, NotFound, clip
from corten.specs import reference
from corten.specs.container import CreateRequest, HealthConfig, Resources, RestartPolicy

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

_CONDITIONS = get_args(WaitCondition)


class UpdateRequest(Resources):
    """Body of `POST /containers/{id}/update`."""

    restart_policy: RestartPolicy | None = None
    healthcheck: HealthConfig | None = None


def add_routes(router: Router) -> None:
    router.add("GET", "/containers/json", list_containers)
    router.add("POST", "/containers/create", create)
    router.add("POST", "/containers/prune", prune)
    router.add("GET", "/containers/{id...}/json", inspect)
    router.add("GET", "/containers/{id...}/top", top)
    for name, handler in (
        ("start", start),
        ("stop", stop),
        ("restart", restart),
        ("kill", kill),
        ("pause", pause),
        ("unpause", unpause),
        ("rename", rename),
        ("update", update),
        ("resize", resize),
    ):
        router.add("POST", f"/containers/{{id...}}/{name}", handler)
    router.add("DELETE", "/containers/{id...}", remove)


async def list_containers(call: Call) -> web.Response:
    filters = call.query.filters()
    limit = call.query.number("limit") or 0
    test = container_test(filters, call.backends)
    everything = call.query.flag("all") or shows_stopped(filters) or limit > 0
    found = [c for c in call.backends.containers.inspection.list() if (everything or c.state.running) and test(c)]
    if limit > 0:
        found = found[:limit]
    sizes = await asyncio.gather(*(_sizes(call, c) for c in found)) if call.query.flag("size") else [None] * len(found)
    return call.json(rows(call, found, sizes))


def rows(call: Call, found: Sequence[Container], sizes: Sequence[Sizes | None]) -> list[dict[str, Any]]:
    """Entries of a list of containers."""
    now, names, linked = call.now_ns, _image_names(call), call.backends.containers.inspection.link_names()
    out = []
    for container, size in zip(found, sizes, strict=True):
        entry = encode_container.summary(container, now, call.api, size)
        entry["Image"] = _shown_image(container, names)
        if container.id in linked:
            entry["Names"] = sorted([*entry["Names"], *linked[container.id]])
        out.append(entry)
    return out


def _image_names(call: Call) -> dict[str, str]:
    """Which image each name means now."""
    return {name: image.id for image in call.backends.images.list() for name in (*image.names, *image.digests)}


def _shown_image(container: Container, names: dict[str, str]) -> str:
    """The image as the user called it, or its id once that name is gone or means another image."""
    called = container.image_name
    if container.image_id.removeprefix("sha256:").startswith(called.removeprefix("sha256:")):
        return called
    return called if names.get(_canonical(called)) == container.image_id else container.image_id


@functools.lru_cache(maxsize=4096)
def _canonical(name: str) -> str:
    try:
        return reference.parse(name).canonical
    except InvalidArgument:
        return ""


async def _sizes(call: Call, container: Container) -> Sizes | None:
    """None for one that was removed meanwhile."""
    try:
        return await call.backends.containers.inspection.sizes(container.id)
    except NotFound:
        return None


async def create(call: Call) -> web.Response:
    request = await call.decode(CreateRequest, required=True)
    name = call.query.text("name").removeprefix("/")
    made = await call.finish(
        "create", call.backends.containers.creation.create(name, request, call.query.text("platform"))
    )
    return call.json({"Id": made.id, "Warnings": made.warnings}, 201)


async def inspect(call: Call) -> web.Response:
    container = call.backends.containers.inspection.get(call.args[0])
    sizes = await call.backends.containers.inspection.sizes(container.id) if call.query.flag("size") else None
    return call.json(encode_container.inspect(container, call.api, sizes))


async def top(call: Call) -> web.Response:
    answer = await call.backends.containers.inspection.top(call.args[0], call.query.text("ps_args") or "-ef")
    return call.json({"Titles": answer.titles, "Processes": answer.processes})


async def start(call: Call) -> web.Response:
    if int(call.request.headers.get("Content-Length", "0")) > 7:  # "null", "{}" and the like are let through
        raise InvalidArgument(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.finish("start", call.backends.containers.life_cycle.start(call.args[0]))
    return call.empty()


def _timeout(call: Call) -> int | None:
    text = call.query.text("t")
    return parse_int(text) if text else None


async def stop(call: Call) -> web.Response:
    timeout, signal = _timeout(call), call.query.text("signal")
    await call.finish("stop", call.backends.containers.life_cycle.stop(call.args[0], timeout, signal))
    return call.empty()


async def restart(call: Call) -> web.Response:
    timeout, signal = _timeout(call), call.query.text("signal")
    await call.finish("restart", call.backends.containers.life_cycle.restart(call.args[0], timeout, signal))
    return call.empty()


async def kill(call: Call) -> web.Response:
    signal = call.query.text("signal") or "KILL"
    await call.finish("kill", call.backends.containers.life_cycle.kill(call.args[0], signal))
    return call.empty()


async def pause(call: Call) -> web.Response:
    await call.finish("pause", call.backends.containers.life_cycle.pause(call.args[0]))
    return call.empty()


async def unpause(call: Call) -> web.Response:
    await call.finish("unpause", call.backends.containers.life_cycle.unpause(call.args[0]))
    return call.empty()


async def rename(call: Call) -> web.Response:
    name = call.query.text("name").removeprefix("/")
    await call.finish("rename", call.backends.containers.configuration.rename(call.args[0], name))
    return call.empty()


async def update(call: Call) -> web.Response:
    request = await call.decode(UpdateRequest)
    health = request.healthcheck or HealthConfig()
    if health != HealthConfig(on_failure=health.on_failure):
        raise InvalidArgument("of Healthcheck, only OnFailure can be changed on an existing container")
    configuration = call.backends.containers.configuration
    warnings = await call.finish(
        "update", configuration.update(call.args[0], request, request.restart_policy, health.on_failure)
    )
    return call.json({"Warnings": warnings})


async def resize(call: Call) -> web.Response:
    height, width = terminal_size(call)
    await call.backends.containers.streams.resize(call.args[0], height, width)
    return call.empty(200)


def terminal_size(call: Call) -> tuple[int, int]:
    """The parameters h and w."""
    return _dimension(call, "h", "height"), _dimension(call, "w", "width")


def _dimension(call: Call, name: str, word: str) -> int:
    text = call.query.text(name)
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
        raise InvalidArgument(f'invalid resize {word} "{clip(text)}": invalid syntax')
    if int(text) > 0xFFFF:  # what the kernel's struct winsize holds
        raise InvalidArgument(f'invalid resize {word} "{clip(text)}": value out of range')
    return int(text)


async def remove(call: Call) -> web.Response:
    query = call.query
    work = call.backends.containers.removal.remove(
        call.args[0], force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    await call.finish("remove", work)
    return call.empty()


async def prune(call: Call) -> web.Response:
    removed, space = await call.finish("prune", call.backends.containers.removal.prune(call.query.filters()))
    return call.json({"ContainersDeleted": removed or None, "SpaceReclaimed": space})


def wait_condition(text: str) -> WaitCondition:
    """Raises InvalidArgument for a condition that is none of the three."""
    condition = text or "not-running"
    if condition not in _CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{clip(condition)}"')
    return cast("WaitCondition", condition)
