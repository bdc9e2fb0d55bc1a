"""`corten manual`: manual pages, for a folder of them or for reading one at once."""

from __future__ import annotations

import os

from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options
from corten.cli.manual import SECTION, page_name, pages
from corten.cli.table import GROUPS, find


def _manual(context: Context, options: Options) -> None:
    from corten.cli.main import GLOBAL_FLAGS, load

    if options["output"]:
        if options.args:
            raise CliError("--output writes all pages: name no command with it")
        write_pages(options["output"])
        return
    name = "corten"
    if options.args:
        _, path, rest = find(options.args)
        if not path and (len(options.args) != 1 or options.args[0] not in GROUPS):
            raise CliError(f"no manual page for: {' '.join(options.args)}")
        if rest and path:
            raise CliError(f"no manual page for: {' '.join(options.args)}")
        name = page_name(path or options.args[0])
    say(dict(pages(GLOBAL_FLAGS, load))[f"{name}.{SECTION}"].rstrip("\n"))


def write_pages(folder: str) -> list[str]:
    """Write every page into `folder`, which is made; the paths. Raises CliError."""
    from corten.cli.main import GLOBAL_FLAGS, load

    written = []
    try:
        os.makedirs(folder, exist_ok=True)
        for name, text in pages(GLOBAL_FLAGS, load):
            written.append(os.path.join(folder, name))
            with open(written[-1], "w") as file:
                file.write(text)
    except OSError as error:
        raise CliError(f"cannot write manual pages: {error}") from None
    return written


MANUAL = Command(
    "manual",
    "[OPTIONS] [COMMAND]",
    _manual,
    (Flag("output", "o", "string", "Write all pages into this folder", says="folder"),),
)
