"""`corten completion`: the script for a shell; and `corten __complete`, which the scripts call."""

from __future__ import annotations

from corten.cli.completion import SCRIPTS, complete
from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Options, parse


def _completion(context: Context, options: Options) -> None:
    shell = options.args[0]
    if shell not in SCRIPTS:
        raise CliError(f"no completion for {shell}: there are {', '.join(SCRIPTS)}")
    say(SCRIPTS[shell].rstrip("\n"))


def _complete(context: Context, options: Options) -> None:
    from corten.cli.failure import describe
    from corten.cli.main import GLOBAL_FLAGS, load

    try:
        # Asked is the daemon that the line itself names.
        named = Context(parse(GLOBAL_FLAGS, options.args[:-1], pass_through=True))
        lines = complete(options.args, GLOBAL_FLAGS, load, lambda: named.client)
        named.close()
    except CliError:
        return
    except Exception as error:  # whatever the daemon's answer is, a half-typed line is no place to say it
        if describe(error) is None:
            raise
        return
    for line in lines:
        say(line)


COMPLETION = Command("completion", "SHELL", _completion, least=1, most=1)
COMPLETE = Command("__complete", "-- WORD...", _complete)
