"""`corten start`."""

from __future__ import annotations

from corten.cli.commands.run import finish
from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.session import Attachment, Conversation, check_tty, kill_of, resize_of
from corten.client.errors import ApiError


def _start(context: Context, options: Options) -> None:
    if options["attach"] or options["interactive"]:
        if len(options.args) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        _start_attached(context, options, options.args[0])
        return
    failed = []
    for name in options.args:
        try:
            context.client.containers.start(name)
            say(name)
        except ApiError as error:
            say_error(str(describe(error)))
            failed.append(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")


def _start_attached(context: Context, options: Options, name: str) -> None:
    client = context.client
    container = client.containers.inspect(name)
    identifier, config = container["Id"], container["Config"]
    stdin = options["interactive"] and config["OpenStdin"]
    check_tty(tty=config["Tty"], stdin=stdin)
    keys = options["detach-keys"]
    stream = client.container_io.attach(identifier, stdin=stdin, stdout=True, stderr=True, detach_keys=keys)
    removed = container["HostConfig"].get("AutoRemove")
    wait = client.containers.wait(identifier, condition="removed" if removed else "next-exit")
    attachment = Attachment(tty=config["Tty"], stdin=stdin, proxy=options["sig-proxy"], keys=keys)
    conversation = Conversation(attachment, kill=kill_of(client, identifier), resize=resize_of(client, identifier))
    try:
        status, detached = conversation.hold(stream, wait, lambda: client.containers.start(identifier))
    except ApiError as error:
        say_error(str(describe(error)))
        raise Exit(1) from None
    if not detached:
        finish(status)


START = Command(
    "container start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    _start,
    (
        Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        Flag("detach-keys", "", "string", "Keys that detach from the container"),
        Flag("interactive", "i", "bool", "Attach the container's STDIN"),
        Flag("sig-proxy", "", "bool", default=True),
    ),
    least=1,
)
