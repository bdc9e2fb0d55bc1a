"""Routes of containers that stream: wait, attach, logs, stats."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from aiohttp import web

from corten.api.docker import encode_container, websocket
from corten.api.docker.containers import wait_condition
from corten.api.docker.flow import begin, encode_line, send_bytes
from corten.api.docker.hijack import GivenAway, stream_type, upgrade
from corten.api.docker.params import parse_time
from corten.engine.models import AttachOptions, LogWindow
from corten.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

STATS_INTERVAL = 1.0


def add_routes(router: Router) -> None:
    router.add("POST", "/containers/{id...}/wait", wait)
    router.add("POST", "/containers/{id...}/attach", attach)
    router.add("GET", "/containers/{id...}/attach/ws", websocket.attach)
    router.add("GET", "/containers/{id...}/logs", logs)
    router.add("GET", "/containers/{id...}/stats", stats)


async def wait(call: Call) -> web.StreamResponse:
    """The headers go out once we listen, so that a client can start the container when it has them."""
    condition = wait_condition(call.query.text("condition"))
    ended = await call.backends.containers.life_cycle.wait(call.args[0], condition)
    response = await begin(call, "application/json")
    result = await ended
    body: dict[str, Any] = {"StatusCode": result.status_code}
    if result.error:
        body["Error"] = {"Message": result.error}
    await response.write(encode_line(body))
    await response.write_eof()
    return response


async def attach(call: Call) -> web.StreamResponse:
    query = call.query
    container = call.backends.containers.inspection.get(call.args[0])
    options = AttachOptions(
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        logs=query.flag("logs"),
        stream=query.flag("stream"),
        detach_keys=query.text("detachKeys"),
    )
    take = upgrade(call, container.config.tty, settle=container.state.running)
    await call.backends.containers.streams.attach(container.id, options, take)
    return GivenAway() if call.taken else call.empty(200)


async def logs(call: Call) -> web.StreamResponse:
    query = call.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    container = call.backends.containers.inspection.get(call.args[0])
    window = LogWindow(
        stdout=stdout,
        stderr=stderr,
        since_ns=parse_time(query.text("since"), call.now_ns),
        until_ns=parse_time(query.text("until"), call.now_ns),
        tail=_tail(query.text("tail")),
        timestamps=query.flag("timestamps"),
        follow=query.flag("follow"),
        details=query.flag("details"),
    )
    chunks = call.backends.containers.streams.logs(container.id, window)
    return await send_bytes(call, chunks, stream_type(call, container.config.tty), live=window.follow)


def _tail(text: str) -> int | None:
    """Everything that is not a number means all, as in Docker."""
    return int(text) if text.isascii() and text.isdigit() else None


async def stats(call: Call) -> web.StreamResponse:
    """One sample, or one a second. A single one that is not "one-shot" waits a second for one to compare with.

    What is sent to many is encoded once.
    """
    inspection, clock = call.backends.containers.inspection, call.services.settings.clock
    container_id = inspection.get(call.args[0]).id
    stream = call.query.flag("stream", default=True)
    one_shot = call.api >= 41 and call.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    if not stream:
        before, sample = None, await inspection.stats(container_id)
        if not one_shot:
            await clock.sleep(STATS_INTERVAL)
            before, sample = sample, await inspection.stats(container_id)
        return call.json(encode_container.stats(sample, before))
    response, lines = None, call.services.sample_lines
    async with aclosing(inspection.follow(container_id)) as samples:
        async for sampled in samples:
            if (line := lines.get(sampled)) is None:
                line = lines[sampled] = encode_line(encode_container.stats(sampled.value, sampled.before))
            response = response or await begin(call, "application/json")
            await response.write(line)
    if response is None:
        raise NotFound("container", call.args[0])  # removed just now
    await response.write_eof()
    return response
