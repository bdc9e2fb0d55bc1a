"""`corten attach`."""

from __future__ import annotations

from corten.cli.commands.run import finish
from corten.cli.context import Context
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.session import Attachment, Conversation, check_tty, kill_of, resize_of


def _attach(context: Context, options: Options) -> None:
    client = context.client
    container = client.containers.inspect(options.args[0])
    state, config, identifier = container["State"], container["Config"], container["Id"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    stdin = not options["no-stdin"] and config["OpenStdin"]
    check_tty(tty=config["Tty"], stdin=stdin)
    keys = options["detach-keys"]
    wait = client.containers.wait(identifier)
    stream = client.container_io.attach(identifier, stdin=stdin, stdout=True, stderr=True, detach_keys=keys)
    attachment = Attachment(tty=config["Tty"], stdin=stdin, proxy=options["sig-proxy"] and not config["Tty"], keys=keys)
    conversation = Conversation(attachment, kill=kill_of(client, identifier), resize=resize_of(client, identifier))
    status, detached = conversation.hold(stream, wait, lambda: None)
    if detached:
        raise CliError("read escape sequence")
    finish(status)


ATTACH = Command(
    "container attach",
    "[OPTIONS] CONTAINER",
    _attach,
    (
        Flag("detach-keys", "", "string", "Keys that detach from the container"),
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        Flag("sig-proxy", "", "bool", "Pass signals on to the process", default=True),
    ),
    least=1,
    most=1,
)
