"""`corten commit`."""

from __future__ import annotations

from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Flag, Options


def _commit(context: Context, options: Options) -> None:
    container, *name = options.args
    pause = options["pause"]
    if options["no-pause"]:
        if "pause" in options.changed:
            raise CliError("conflicting options: --no-pause and --pause cannot be used together")
        pause = False
    say(
        context.client.images.commit(
            container,
            name[0] if name else "",
            message=options["message"],
            author=options["author"],
            changes=options["change"],
            pause=pause,
        )
    )


COMMIT = Command(
    "container commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    _commit,
    (
        Flag("author", "a", "string", "Who made the image"),
        Flag("change", "c", "list*", "Apply a Dockerfile instruction to the image"),
        Flag("message", "m", "string", "Commit message"),
        Flag("no-pause", "", "bool", "Do not hold the container still meanwhile"),
        Flag("pause", "p", "bool", default=True),
    ),
    least=1,
    most=2,
)
