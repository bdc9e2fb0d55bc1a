"""`corten system check`: what is stored is compared with what it should be, and made whole again on request."""

from __future__ import annotations

import json
import sys

from corten.cli.context import Context, say
from corten.cli.credentials import config_header
from corten.cli.errors import CliError, Exit
from corten.cli.flags import Command, Flag, Options
from corten.cli.terminal import is_terminal
from corten.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Row = dict[str, Any]

_SHOWN_PATHS = 10


def _check(context: Context, options: Options) -> None:
    if options["format"] not in ("", "json"):
        raise CliError(f"invalid format: {options['format']} (json is the only one)")
    auths = config_header(context.config) if options["repair"] else ""
    messages = context.client.system.check(repair=options["repair"], auths=auths)
    left = _tell(messages, as_json=options["format"] == "json", repair=options["repair"], quiet=options["quiet"])
    if left:
        raise Exit(1)


def _tell(messages: Iterable[Row], *, as_json: bool, repair: bool, quiet: bool) -> int:
    """Print what comes; how many damaged things were not healed."""
    summary: Row = {}
    drawn = is_terminal(2) and not quiet
    for message in messages:
        told = message.get("aux") or {}
        if as_json and told:
            say(json.dumps(told))
        elif "Finding" in told:
            _clear(drawn)
            _show(told["Finding"], repair=repair)
        elif "status" in message and drawn:
            _draw(message)
        summary = told.get("Summary", summary)
    _clear(drawn)
    left = int(summary.get("Damaged", 0)) - int(summary.get("Healed", 0))
    if not as_json and not quiet:
        _conclude(summary, left, repair=repair)
    return left


def _draw(message: Row) -> None:
    detail = message.get("progressDetail") or {}
    count = f" {detail['current'] * 100 // detail['total']}%" if detail.get("total") else ""
    sys.stderr.write(f"\r\x1b[K{message['status']} {message.get('id', '')}{count}")
    sys.stderr.flush()


def _clear(drawn: bool) -> None:
    if drawn:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _show(finding: Row, *, repair: bool) -> None:
    of = f" of {', '.join(finding['Images'])}" if finding.get("Images") else ""
    name = ", ".join(finding.get("Containers") or []) if finding["Kind"] == "container" else finding["Id"]
    say(f"{finding['Kind']} {name}{of}: {finding['What']}")
    paths = finding.get("Paths") or []
    for damage in paths[:_SHOWN_PATHS]:
        say(f"  {damage['Path']} {damage['What']}")
    if (more := int(finding.get("Count") or 0) - len(paths[:_SHOWN_PATHS])) > 0:
        say(f"  and {more} more")
    if running := finding.get("Running"):
        say(f"  running on it: {', '.join(running)}")
    if finding.get("Healed"):
        say(f"  healed: {finding['Healed']}")
    elif finding.get("Reason"):
        say(f"  {'not healed' if repair else 'cannot be healed here'}: {finding['Reason']}")


def _conclude(summary: Row, left: int, *, repair: bool) -> None:
    looked = f"{summary.get('Blobs', 0)} blobs ({human_size(summary.get('BlobBytes', 0))})"
    rest = ", ".join(f"{summary.get(name, 0)} {name.lower()}" for name in ("Layers", "Images", "Containers"))
    say(f"Checked {looked}, {rest}.")
    if summary.get("Unchecked"):
        say(f"{summary['Unchecked']} layers were not compared: their blob is damaged, or no image has it any more.")
    damaged, healed = summary.get("Damaged", 0), summary.get("Healed", 0)
    if not damaged:
        say("Nothing is damaged.")
    elif repair:
        say(f"Damaged: {damaged}, healed: {healed}, left: {left}.")
    else:
        say(f"Damaged: {damaged}. `corten system check --repair` heals what can be healed.")


CHECK = Command(
    "system check",
    "[OPTIONS]",
    _check,
    (
        Flag("format", "", "string", "json prints each finding and the summary as a line of JSON"),
        Flag("quiet", "q", "bool", "Print nothing but what is damaged"),
        Flag("repair", "", "bool", "Unpack damaged layers again, and fetch damaged blobs from their registry"),
    ),
    most=0,
)
