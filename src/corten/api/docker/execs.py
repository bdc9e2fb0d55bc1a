"""Routes of exec sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from corten.api.docker import encode_container
from corten.api.docker.containers import terminal_size
from corten.api.docker.hijack import GivenAway, upgrade
from corten.errors import InvalidArgument
from corten.specs.container import ExecRequest, GoStruct

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router


class ExecStart(GoStruct):
    """Body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


def add_routes(router: Router) -> None:
    router.add("POST", "/containers/{id...}/exec", create)
    router.add("POST", "/exec/{id}/start", start)
    router.add("POST", "/exec/{id}/resize", resize)
    router.add("GET", "/exec/{id}/json", inspect)
    # Corten's own, beside Docker's.
    router.add("POST", "/exec/{id}/kill", kill)
    router.add("GET", "/containers/{id...}/exec", list_)


async def create(call: Call) -> web.Response:
    request = await call.decode(ExecRequest)
    if not request.cmd:
        raise InvalidArgument("No exec command specified")
    if call.api < 42:
        request.console_size = None
    exec_id = await call.finish("exec create", call.backends.execs.exec_create(call.args[0], request))
    return call.json({"Id": exec_id}, 201)


async def start(call: Call) -> web.StreamResponse:
    request = await call.decode(ExecStart)
    session = call.backends.execs.exec_get(call.args[0])
    work = call.backends.execs.exec_start(
        session.id,
        detach=request.detach,
        tty=request.tty,
        console_size=request.console_size if call.api >= 42 else None,
        upgrade=upgrade(call, session.tty, settle=True),
    )
    await call.finish("exec start", work)
    return GivenAway() if call.taken else call.empty(200)


async def resize(call: Call) -> web.Response:
    height, width = terminal_size(call)
    await call.backends.execs.exec_resize(call.args[0], height, width)
    return call.empty(200)


async def inspect(call: Call) -> web.Response:
    return call.json(encode_container.exec_inspect(call.backends.execs.exec_get(call.args[0])))


async def kill(call: Call) -> web.Response:
    signal = call.query.text("signal") or "KILL"
    await call.finish("exec kill", call.backends.execs.exec_kill(call.args[0], signal))
    return call.empty()


async def list_(call: Call) -> web.Response:
    return call.json(
        [encode_container.exec_inspect(session) for session in call.backends.execs.exec_list(call.args[0])]
    )
