"""`corten run`."""

from __future__ import annotations

import sys

from corten.cli.commands.create import create_container
from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.flags import Command, Options
from corten.cli.session import Attachment, Conversation, check_tty, kill_of, resize_of
from corten.cli.spec.body import attached, build
from corten.cli.spec.flags import RUN_FLAGS
from corten.cli.terminal import size
from corten.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.client.session import Response


def _run(context: Context, options: Options) -> None:
    if options["detach"] and options["attach"]:
        raise CliError("conflicting options: cannot specify both --attach and --detach")
    body = build(options)
    stdin, _, _ = attached(options)
    if not options["detach"]:
        check_tty(tty=options["tty"], stdin=stdin)
    found = size(1)
    if options["tty"] and found:
        body["HostConfig"]["ConsoleSize"] = list(found)
    identifier = create_container(context, options, body)
    if options["detach"]:
        _start(context, options, identifier)
        say(identifier)
        return
    _attached_run(context, options, identifier)


def _attached_run(context: Context, options: Options, identifier: str) -> None:
    stdin, stdout, stderr = attached(options)
    client = context.client
    if not (stdin or stdout or stderr):
        _start(context, options, identifier)
        return
    stream = client.container_io.attach(
        identifier, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=options["detach-keys"]
    )
    wait = client.containers.wait(identifier, condition="removed" if options["rm"] else "next-exit")
    attachment = Attachment(tty=options["tty"], stdin=stdin, proxy=options["sig-proxy"], keys=options["detach-keys"])
    conversation = Conversation(attachment, kill=kill_of(client, identifier), resize=resize_of(client, identifier))
    try:
        status, detached = conversation.hold(stream, wait, lambda: client.containers.start(identifier))
    except ApiError as error:
        _await_removal(wait, options)
        raise start_failure(error) from None
    if detached:
        return
    finish(status)


def finish(status: dict[str, Any] | None) -> None:
    """Ends with the container's exit code."""
    if status is None:
        return
    failure = (status.get("Error") or {}).get("Message")
    if failure:
        say_error(f"Error waiting for container: {failure}")
        raise Exit(125)
    code = int(status.get("StatusCode") or 0)
    if code:
        raise Exit(code & 0xFF)


def _await_removal(wait: Response, options: Options) -> None:
    """A container of --rm that did not start is removed; its name is free when we return."""
    if not options["rm"]:
        return
    import select

    poller = select.poll()
    if wait.fileno() >= 0:
        poller.register(wait.fileno(), select.POLLIN)
        poller.poll(10_000)


def _start(context: Context, options: Options, identifier: str) -> None:
    try:
        context.client.containers.start(identifier)
    except ApiError as error:
        raise start_failure(error) from None


def start_failure(error: ApiError) -> CliError:
    """127 for a command that is not there, 126 for one that cannot be run, 125 for everything else."""
    text = str(error)
    code = 125
    if any(words in text for words in ("executable file not found", "no such file or directory", "system cannot find")):
        code = 127
    elif any(words in text for words in ("permission denied", "is a directory")):
        code = 126
    sys.stdout.flush()
    return CliError(f"Error response from daemon: {text}", code)


RUN = Command("container run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", _run, RUN_FLAGS, least=1, pass_through=True)
