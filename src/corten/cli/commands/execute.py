"""`corten exec`."""

from __future__ import annotations

from corten.cli.context import Context
from corten.cli.errors import CliError, Exit
from corten.cli.flags import Command, Flag, Options
from corten.cli.session import Attachment, Conversation, check_tty
from corten.cli.spec.pieces import environment
from corten.cli.terminal import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _body(options: Options) -> dict[str, Any]:
    attached = not options["detach"]
    body: dict[str, Any] = {
        "User": options["user"],
        "Privileged": options["privileged"],
        "Tty": options["tty"],
        "AttachStdin": attached and options["interactive"],
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": options["detach-keys"],
        "Env": environment(options["env-file"], options["env"]),
        "WorkingDir": options["workdir"],
        "Cmd": options.args[1:],
    }
    found = size(1)
    if options["tty"] and attached and found:
        body["ConsoleSize"] = list(found)
    return {key: value for key, value in body.items() if value not in ("", [], False)}


def _exec(context: Context, options: Options) -> None:
    client, tty = context.client, options["tty"]
    stdin = options["interactive"] and not options["detach"]
    if not options["detach"]:
        check_tty(tty=tty, stdin=stdin)
    body = _body(options)
    identifier = client.execs.create(options.args[0], body)
    start = {"Tty": tty, **({"ConsoleSize": body["ConsoleSize"]} if "ConsoleSize" in body else {})}
    if options["detach"]:
        client.execs.start(identifier, start)
        return
    stream = client.execs.start_attached(identifier, start)
    attachment = Attachment(tty=tty, stdin=stdin, proxy=False, keys=options["detach-keys"])
    conversation = Conversation(
        attachment,
        kill=None,
        resize=lambda rows, columns: client.execs.resize(identifier, height=rows, width=columns),
    )
    _, detached = conversation.hold(stream, None, lambda: None)
    if detached:
        raise CliError("read escape sequence")
    code = client.execs.inspect(identifier).get("ExitCode")
    if code:
        raise Exit(int(code) & 0xFF)


EXEC = Command(
    "container exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    _exec,
    (
        Flag("detach", "d", "bool", "Run the command in the background"),
        Flag("detach-keys", "", "string", "Keys that detach from the command"),
        Flag("env", "e", "env*", "Set environment variables", says="list"),
        Flag("env-file", "", "list*", "Read environment variables from a file"),
        Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
        Flag("privileged", "", "bool", "Give extended privileges to the command"),
        Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
        Flag("user", "u", "string", "User name or UID (format: <name|uid>[:<group|gid>])"),
        Flag("workdir", "w", "string", "Working directory inside the container"),
    ),
    least=2,
    pass_through=True,
)
