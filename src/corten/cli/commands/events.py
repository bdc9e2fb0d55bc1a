"""`corten events`."""

from __future__ import annotations

import sys

from corten.cli.context import Context
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.harmless import harmless
from corten.cli.times import local_stamp, unix_time
from corten.cli.values import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Event = dict[str, Any]


def line(event: Event) -> str:
    """The time, what happened to what, and the attributes in order of their names."""
    actor = event.get("Actor") or {}
    text = f"{local_stamp(event['timeNano'])} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    pairs = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    return f"{text} ({pairs})" if pairs else text


def _printer(format_: str) -> Callable[[Event], str]:
    if not format_:
        return line
    from corten.specs.gotemplate import ExecError, TemplateError, parse
    from corten.specs.gotemplate.values import GoStruct, to_json

    if format_ == "json":
        return to_json
    try:
        template = parse(format_)
    except TemplateError as error:
        raise CliError(f"Error parsing format: {error}", 64) from None

    def formatted(event: Event) -> str:
        message = GoStruct({_FIELDS.get(key, key): value for key, value in event.items()})
        message.type_name = "*events.Message"
        for name in ("Status", "ID", "From", "Scope"):
            message.setdefault(name, "")
        message.raw = event
        message["Actor"] = GoStruct(event.get("Actor") or {})
        try:
            return template.execute(message)
        except ExecError as error:
            raise CliError(f"Error parsing format: {error}", 64) from None

    return formatted


_FIELDS = {"status": "Status", "id": "ID", "from": "From", "scope": "Scope", "time": "Time", "timeNano": "TimeNano"}


def _events(context: Context, options: Options) -> None:
    printer = _printer(options["format"])
    # The daemon counts relative times too, but by its own clock.
    since, until = unix_time(options["since"], "since"), unix_time(options["until"], "until")
    for event in context.client.system.events(since=since, until=until, filters=filters(options["filter"])):
        sys.stdout.write(harmless(printer(event)) + "\n")
        sys.stdout.flush()


EVENTS = Command(
    "system events",
    "[OPTIONS]",
    _events,
    (
        Flag("filter", "f", "filter*", "Filter output based on conditions provided"),
        Flag("format", "", "string", "Format output with a Go template, or 'json'"),
        Flag("since", "", "string", "Show events since a time, the past ones first"),
        Flag("until", "", "string", "End at a time"),
    ),
    most=0,
)
