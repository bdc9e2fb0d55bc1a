"""`corten container|image|volume prune`."""

from __future__ import annotations

import sys

from corten.cli.context import Context, say
from corten.cli.errors import CliError, Exit
from corten.cli.flags import Command, Flag, Options
from corten.cli.units import human_size
from corten.cli.values import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def confirm(options: Options, warning: str) -> None:
    """Asks unless --force. Raises Exit when the user does not want it."""
    if options["force"]:
        return
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() != "y":
        raise Exit(0)


def _report(title: str, deleted: list[str], reclaimed: int) -> None:
    if deleted:
        say(f"{title}:")
        for line in deleted:
            say(line)
        say("")
    say(f"Total reclaimed space: {human_size(reclaimed)}")


def _containers(context: Context, options: Options) -> None:
    confirm(options, "This will remove all stopped containers.")
    done = context.client.container_io.prune(filters(options["filter"]))
    _report("Deleted Containers", done.get("ContainersDeleted") or [], done["SpaceReclaimed"])


def _images(context: Context, options: Options) -> None:
    warning = "This will remove all dangling images."
    if options["all"]:
        warning = "This will remove all images without at least one container associated to them."
    confirm(options, warning)
    given = filters(options["filter"])
    given["dangling"] = ["0" if options["all"] else "1"]
    done = context.client.images.prune(given)
    lines = [_step(step) for step in done.get("ImagesDeleted") or []]
    _report("Deleted Images", lines, done["SpaceReclaimed"])


def _step(step: dict[str, Any]) -> str:
    return f"untagged: {step['Untagged']}" if step.get("Untagged") else f"deleted: {step.get('Deleted')}"


def _volumes(context: Context, options: Options) -> None:
    given = filters(options["filter"])
    kind = "anonymous local"
    if options["all"]:
        if "all" in given:
            raise CliError("conflicting options: cannot specify both --all and --filter all=1")
        given["all"] = ["true"]
        kind = "local"
    confirm(options, f"This will remove {kind} volumes not used by at least one container.")
    done = context.client.volumes.prune(given)
    _report("Deleted Volumes", done.get("VolumesDeleted") or [], done["SpaceReclaimed"])


_FILTER = Flag("filter", "", "filter*", 'Provide filter values (e.g. "until=<timestamp>")')
_FORCE = Flag("force", "f", "bool", "Do not prompt for confirmation")

CONTAINER_PRUNE = Command("container prune", "[OPTIONS]", _containers, (_FILTER, _FORCE), most=0)
IMAGE_PRUNE = Command(
    "image prune",
    "[OPTIONS]",
    _images,
    (Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"), _FILTER, _FORCE),
    most=0,
)
VOLUME_PRUNE = Command(
    "volume prune",
    "[OPTIONS]",
    _volumes,
    (Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"), _FILTER, _FORCE),
    most=0,
)
