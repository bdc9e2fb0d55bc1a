"""The stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from corten.api.docker.encode import SECOND, Json
from corten.api.docker.flow import begin, encode_line
from corten.api.docker.params import check_filters, parse_time
from corten.engine.models import Event, Filters
from corten.errors import InvalidArgument
from corten.specs.filters import label_test

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corten.api.docker.call import Call
    from corten.api.docker.routing import Router

_TYPES = ("container", "image", "network", "volume", "daemon")
KNOWN = frozenset((*_TYPES, "type", "event", "label", "scope", "plugin", "service", "node", "secret", "config"))


def add_routes(router: Router) -> None:
    router.add("GET", "/events", events)


async def events(call: Call) -> web.StreamResponse:
    since = parse_time(call.query.text("since"), call.now_ns)
    until_text = call.query.text("until")
    until = parse_time(until_text, call.now_ns) or None
    if until is not None and since > until:
        raise InvalidArgument(f"`since` time ({since // SECOND}) cannot be after `until` time ({until // SECOND})")
    test = event_test(call.query.filters())
    stream = call.backends.events.subscribe(since, until)
    first = call.services.tasks.start("first event", _next(stream))
    try:
        # The headers tell the client that nothing will be missed: the subscription is made when the first event is
        # asked for, and that has happened when the task has had its turn.
        await asyncio.sleep(0)
        response = await begin(call, "application/json")
        event = await first
    finally:
        if not first.done():
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
    while event is not None:
        if test(event):
            await response.write(encode_line(event_json(event, call.api)))
        event = await _next(stream)
    await response.write_eof()
    return response


async def _next(stream: AsyncIterator[Event]) -> Event | None:
    return await anext(stream, None)


def event_test(filters: Filters) -> Callable[[Event], bool]:
    """Whether an event passes: one of the values of each kind of filter that is there must fit.

    An action matches with what follows its colon (`exec_create: sh`) or without.
    """
    check_filters(filters, KNOWN)
    types, actions = frozenset(filters.get("type", ())), frozenset(filters.get("event", ()))
    scopes = frozenset(filters.get("scope", ()))
    labelled = label_test(filters.get("label", []))
    subjects = {
        kind: values
        for kind in (*_TYPES, "plugin", "service", "node", "secret", "config")
        if (values := filters.get(kind))
    }

    def test(event: Event) -> bool:
        return (
            (not types or event.type in types)
            and (not actions or event.action in actions or event.action.partition(":")[0] in actions)
            and (not scopes or event.scope in scopes)
            and all(_about(event, kind, values) for kind, values in subjects.items())
            and labelled(event.attributes)
        )

    return test


def _about(event: Event, kind: str, values: list[str]) -> bool:
    """By id or name, of which the start is enough; an image in full, with the containers that were made from it."""
    name = event.attributes.get("name", "")
    if kind == "image":
        names = [name, event.actor_id] if event.type == "image" else [event.attributes.get("image", "")]
        return any(text and (text in values or _without_tag(text) in values) for text in names)
    if event.type != kind:
        return False
    return event.actor_id.startswith(tuple(values)) or name.startswith(tuple(values))


def _without_tag(name: str) -> str:
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition("@")[0].partition(":")[0]


def event_json(event: Event, api: int) -> Json:
    out: dict[str, Any] = {}
    if api < 52 and event.type in ("container", "image"):
        out = {"status": event.action, "id": event.actor_id}
        if event.type == "container" and "image" in event.attributes:
            out["from"] = event.attributes["image"]
    return out | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": event.scope,
        "time": event.time_ns // SECOND,
        "timeNano": event.time_ns,
    }
