"""The entry point of `corten`: global flags, then the command's module is imported and its function run."""

from __future__ import annotations

import sys

from corten.cli.context import PROGRAM, Context, say_error
from corten.cli.errors import ArgumentError, CliError, Exit, UsageError
from corten.cli.flags import Command, Flag, Options, check_count, parse
from corten.cli.table import COMMANDS, GROUPS, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GLOBAL_FLAGS = (
    Flag("config", "", "string", "Folder of the client's configuration (default ~/.docker)"),
    Flag("context", "c", "string", "Name of the context that says where the daemon is"),
    Flag("debug", "D", "bool", "Show a traceback when something goes wrong"),
    Flag("host", "H", "list*", "Address of the daemon (default unix:///run/corten/corten.sock)", says="list"),
    Flag(
        "log-level",
        "l",
        "string",
        'Least level of messages ("debug", "info", "warn", "error", "fatal")',
        default="info",
    ),
    Flag("tls", "", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "", "string", "Trust only certificates signed by this CA (default ~/.docker/ca.pem)"),
    Flag("tlscert", "", "string", "TLS certificate (default ~/.docker/cert.pem)"),
    Flag("tlskey", "", "string", "TLS key (default ~/.docker/key.pem)"),
    Flag("tlsverify", "", "bool", "Use TLS and verify the daemon"),
    Flag("version", "v", "bool", "Print version information and quit"),
)
_LEVELS = ("debug", "info", "warn", "error", "fatal", "panic", "trace")

# What stops these on our side has an exit code from 125, since others are the container's, and is said with a prefix.
_CONTAINER_CODES = frozenset(("run", "create", "container run", "container create"))


def main(argv: list[str] | None = None) -> NoReturn:
    """Runs the command in `argv` (default: the process's) and exits with its code."""
    code = run(sys.argv[1:] if argv is None else argv)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    # Nothing is left to be done: no threads, no temporary files. Tearing the interpreter down costs 3 ms.
    import os

    os._exit(code)


def run(argv: list[str]) -> int:
    """The exit code of the command in `argv`; what it has to say is on stdout and stderr."""
    called = ""
    try:
        globals_ = parse(GLOBAL_FLAGS, argv, pass_through=True)
        if globals_["log-level"] not in _LEVELS:
            raise CliError(f"unable to parse logging level: {globals_['log-level']}")
        if globals_["version"]:
            from corten.cli.commands.version import print_short

            print_short()
            return 0
        called, path, rest = find(globals_.args)
        if not path:
            return _no_command(globals_)
        return _run_command(Context(globals_), load(path), called, rest)
    except UsageError as error:
        say_error(f"{error}\n\nUsage:  {PROGRAM} [OPTIONS] COMMAND\n\nRun '{PROGRAM} --help' for more information")
        return error.code
    except CliError as error:
        _complain(error, called)
        return error.code
    except Exit as error:
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 1


def load(path: str) -> Command:
    """The command filed under `path` of the table."""
    module, attribute, _ = COMMANDS[path]
    __import__(module)  # importlib would be one more import
    command: Command = getattr(sys.modules[module], attribute)
    return command


def _run_command(context: Context, command: Command, called: str, argv: list[str]) -> int:
    try:
        options = parse(command.flags, argv, pass_through=command.pass_through)
        if options["help"]:
            from corten.cli.help import print_command

            print_command(command, called)
            return 0
        check_count(command, options.args, f"{PROGRAM} {called}")
    except (UsageError, ArgumentError) as error:
        _complain_usage(error, command, called)
        return error.code
    try:
        command.run(context, options)
    except CliError:
        raise
    except Exit as error:
        return error.code
    except Exception as error:
        return _complain_client(context, error, called)
    finally:
        context.close()
    return 0


def _complain(error: CliError, called: str) -> None:
    own = called in _CONTAINER_CODES and error.code >= 125
    prefix = f"{PROGRAM}: " if error.prefix or own else ""
    hint = f"\n\nRun '{PROGRAM} {called} --help' for more information" if error.hint or own else ""
    if str(error):
        say_error(f"{prefix}{error}{hint}")


def _complain_usage(error: CliError, command: Command, called: str) -> None:
    usage = f"Usage:  {PROGRAM} {called} {command.usage}".rstrip()
    if isinstance(error, ArgumentError):
        verb = "See" if command.most is None else "Run"
        say_error(f"{PROGRAM}: {error}\n\n{usage}\n\n{verb} '{PROGRAM} {called} --help' for more information")
    else:
        say_error(f"{error}\n\n{usage}\n\nRun '{PROGRAM} {called} --help' for more information")


def _complain_client(context: Context, error: Exception, called: str) -> int:
    """Errors of the client, said as the command says its own. Raises what is a bug."""
    from corten.cli.failure import describe
    from corten.client.errors import CannotConnect

    if context.globals["debug"]:
        import traceback

        traceback.print_exc()
    message = describe(error)
    if message is None:
        raise error
    code = 125 if called in ("run", "container run") else 1
    _complain(CliError(message, code, prefix=isinstance(error, CannotConnect)), called)
    return code


def _no_command(globals_: Options) -> int:
    from corten.cli.help import print_group, print_top

    words = globals_.args
    if not words or words == ["help"]:
        print_top(GLOBAL_FLAGS)
        return 0
    if words[0] == "help":
        _, path, _ = find(words[1:])
        if path:
            return run([*words[1:], "--help"])
        words = words[1:]
    if words[0] in GROUPS:
        if len(words) == 1 or words[1] in ("--help", "-h"):
            print_group(words[0])
            return 0
        called = f"{PROGRAM} {words[0]}"
        say_error(
            f"{PROGRAM}: unknown command: {called} {words[1]}\n\nUsage:  {called}\n\n"
            f"Run '{called} --help' for more information"
        )
        return 1
    say_error(f"{PROGRAM}: unknown command: {PROGRAM} {words[0]}\n\nRun '{PROGRAM} --help' for more information")
    return 1


def _silence_stdout() -> None:
    """A reader that has gone must not cause a second complaint when the buffer is flushed."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
