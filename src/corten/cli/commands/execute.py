"""`corten exec`."""

from __future__ import annotations

from corten.cli.context import Context, say
from corten.cli.errors import CliError, Exit
from corten.cli.flags import Command, Flag, Options, check_count
from corten.cli.session import Attachment, Conversation, check_tty
from corten.cli.spec.pieces import environment
from corten.cli.tabwriter import align
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
    if options["list"] or "kill" in options.changed:
        _sessions(context, options)
        return
    check_count(RUN, options.args, "corten exec")
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


def _sessions(context: Context, options: Options) -> None:
    """Show the sessions of a container, or signal them: those that are named after it, else all."""
    client = context.client
    container, *named = options.args
    running = [row for row in client.execs.list(container) if row["Running"]]
    if "kill" not in options.changed:
        if named:
            raise CliError("--list takes a container alone")
        for line in align("\n".join(["EXEC ID\tPID\tCOMMAND", *map(_row, running)]), least=8, padding=3).splitlines():
            say(line.rstrip())
        return
    chosen = []
    for name in named or [row["ID"] for row in running]:
        found = [row["ID"] for row in running if row["ID"].startswith(name)]
        if len(found) != 1:
            raise CliError(f"no such exec session in {container}: {name}" if not found else f"{name} is ambiguous")
        chosen += found
    for id in chosen:
        client.execs.kill(id, signal=options["kill"])
        say(id)


def _row(row: dict[str, Any]) -> str:
    process = row["ProcessConfig"]
    return f"{row['ID'][:12]}\t{row['Pid']}\t{' '.join([process['entrypoint'], *process['arguments']])}"


RUN = Command("container exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", _exec, least=2)
"""Of running a command, which is more than of signalling one."""
EXEC = Command(
    "container exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    _exec,
    (
        Flag("kill", "", "string", "Send this signal to exec sessions of the container: CONTAINER [EXEC-ID...]"),
        Flag("list", "", "bool", "List the exec sessions that run in the container"),
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
    least=1,
    pass_through=True,
)
