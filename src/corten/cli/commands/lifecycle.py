"""Commands that do one thing to each of the containers named: stop, kill, rm, pause and their like."""

from __future__ import annotations

from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.client.errors import ApiError, CannotConnect, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def for_each(names: list[str], action: Callable[[str], str | None]) -> None:
    """Does `action` to each name and prints what it returns, the name for None, nothing for "".

    Failures are told at the end, and make the exit code 1.
    """
    failures = []
    for name in names:
        try:
            text = action(name)
        except CannotConnect:
            raise
        except Exception as error:
            message = describe(error)
            if message is None:
                raise
            failures.append(message)
        else:
            if text != "":
                say(name if text is None else text)
    for message in failures:
        say_error(message)
    if failures:
        raise Exit(1)


def _timeout(options: Options) -> int | None:
    """`--time` is the older spelling of `--timeout`."""
    if "timeout" in options.changed and "time" in options.changed:
        raise CliError("conflicting options: cannot specify both --timeout and --time")
    value: int | None = options.optional("timeout")
    older: int | None = options.optional("time")
    return older if value is None else value


def _stop(context: Context, options: Options) -> None:
    timeout, signal, stop = _timeout(options), options["signal"], context.client.containers.stop
    for_each(options.args, lambda name: stop(name, timeout=timeout, signal=signal))


def _restart(context: Context, options: Options) -> None:
    timeout, signal, restart = _timeout(options), options["signal"], context.client.containers.restart
    for_each(options.args, lambda name: restart(name, timeout=timeout, signal=signal))


def _kill(context: Context, options: Options) -> None:
    kill = context.client.containers.kill
    for_each(options.args, lambda name: kill(name, signal=options["signal"]))


def _pause(context: Context, options: Options) -> None:
    for_each(options.args, context.client.containers.pause)


def _unpause(context: Context, options: Options) -> None:
    for_each(options.args, context.client.containers.unpause)


def _wait(context: Context, options: Options) -> None:
    for_each(options.args, lambda name: str(context.client.containers.wait(name).json()["StatusCode"]))


def _remove(context: Context, options: Options) -> None:
    def remove(name: str) -> str:
        stripped = name.strip("/")
        if not stripped:
            raise CliError("Container name cannot be empty")
        try:
            context.client.containers.remove(
                stripped, force=options["force"], volumes=options["volumes"], link=options["link"]
            )
        except NotFound as error:
            if not options["force"]:
                raise
            # `rm -f` of what is not there says so, and is no failure.
            say_error(f"Error response from daemon: {error}")
            return ""
        return name

    for_each(options.args, remove)


def _rename(context: Context, options: Options) -> None:
    old, new = (name.strip() for name in options.args)
    if not old or not new:
        raise CliError("Error: Neither old nor new names may be empty")
    try:
        context.client.containers.rename(old, new)
    except ApiError as error:
        raise CliError(f"{describe(error)}\nError: failed to rename container named {old}") from None


_STOP_FLAGS = (
    Flag("signal", "s", "string", "Signal to send to the container"),
    Flag("timeout", "t", "int", "Seconds to wait before killing the container"),
    Flag("time", "", "int"),
)
_NAMES = "CONTAINER [CONTAINER...]"

STOP = Command("container stop", f"[OPTIONS] {_NAMES}", _stop, _STOP_FLAGS, least=1)
RESTART = Command("container restart", f"[OPTIONS] {_NAMES}", _restart, _STOP_FLAGS, least=1)
KILL = Command(
    "container kill",
    f"[OPTIONS] {_NAMES}",
    _kill,
    (Flag("signal", "s", "string", "Signal to send to the container"),),
    least=1,
)
PAUSE = Command("container pause", _NAMES, _pause, least=1)
UNPAUSE = Command("container unpause", _NAMES, _unpause, least=1)
WAIT = Command("container wait", _NAMES, _wait, least=1)
RENAME = Command("container rename", "CONTAINER NEW_NAME", _rename, least=2, most=2)
RM = Command(
    "container rm",
    f"[OPTIONS] {_NAMES}",
    _remove,
    (
        Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        Flag("link", "l", "bool", "Remove the specified link"),
        Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
    ),
    least=1,
)
