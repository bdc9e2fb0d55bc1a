"""`corten export`, `corten diff`."""

from __future__ import annotations

from corten.cli.commands.archive import refuse_terminal, write_out
from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options

_KINDS = {0: "C", 1: "A", 2: "D"}


def _export(context: Context, options: Options) -> None:
    refuse_terminal(options["output"])
    try:
        write_out(options["output"], context.client.container_io.export(options.args[0]))
    except CliError as error:
        raise CliError(f"failed to export container: {error}") from None


def _diff(context: Context, options: Options) -> None:
    for change in context.client.container_io.changes(options.args[0]):
        say(f"{_KINDS.get(change['Kind'], '?')} {change['Path']}")


EXPORT = Command(
    "container export",
    "[OPTIONS] CONTAINER",
    _export,
    (Flag("output", "o", "string", "Write to a file, instead of STDOUT"),),
    least=1,
    most=1,
)
DIFF = Command("container diff", "CONTAINER", _diff, least=1, most=1)
