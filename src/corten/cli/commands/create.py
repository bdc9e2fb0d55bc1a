"""`corten create`, and the creation that `run` begins with."""

from __future__ import annotations

import os
import sys

from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError
from corten.cli.flags import Command, Options
from corten.cli.foreign import refuse_trust, refuse_windows
from corten.cli.spec.body import build
from corten.cli.spec.flags import CREATE_FLAGS
from corten.client.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def create_container(context: Context, options: Options, body: dict[str, Any]) -> str:
    """The id of a new container; its image pulled first where --pull says so or it is not here."""
    refuse_windows(options)
    refuse_trust(options, 125)
    cidfile = options["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise CliError(f"container ID file found, make sure the other container isn't running or delete {cidfile}", 125)
    known = None
    if options["use-api-socket"]:
        from corten.cli import apisocket

        known = apisocket.add(context, body, code=_stopped(options))
    if options["pull"] == "always":
        _pull(context, options)
    created = _create(context, options, body)
    for warning in created.get("Warnings") or []:
        say_error(f"WARNING: {warning}")
    identifier = str(created["Id"])
    if cidfile:
        try:
            with open(cidfile, "x", encoding="ascii") as file:
                file.write(identifier)
        except OSError as error:
            raise CliError(f"failed to create the container ID file: {error.strerror}", 125) from None
    if known:
        apisocket.fill(context, identifier, known, code=_stopped(options))
    return identifier


def _stopped(options: Options) -> int:
    """The exit code of what stops here: `run` leaves the low ones to the container."""
    return 125 if "detach" in options.values else 1


def _create(context: Context, options: Options, body: dict[str, Any]) -> dict[str, Any]:
    containers = context.client.containers
    try:
        return containers.create(body, name=options["name"], platform=options["platform"])
    except NotFound as error:
        if options["pull"] != "missing" or "no such image" not in str(error).lower():
            raise
    if not options["quiet"]:
        from corten.cli.commands.pull import familiar

        say_error(f"Unable to find image '{familiar(options.args[0])}' locally")
    _pull(context, options)
    return containers.create(body, name=options["name"], platform=options["platform"])


def _pull(context: Context, options: Options) -> None:
    from corten.cli.commands.pull import pull_image

    pull_image(context, options.args[0], sys.stderr, platform=options["platform"], quiet=options["quiet"])


def _run(context: Context, options: Options) -> None:
    say(create_container(context, options, build(options)))


CREATE = Command(
    "container create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", _run, CREATE_FLAGS, least=1, pass_through=True
)
