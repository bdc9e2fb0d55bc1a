"""`corten port`, `corten top`."""

from __future__ import annotations

import sys

from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.flags import Command, Options
from corten.cli.tabwriter import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Bindings = dict[str, list[dict[str, Any]] | None]


def _port(context: Context, options: Options) -> None:
    container = context.client.containers.inspect(options.args[0])
    found: Bindings = container["NetworkSettings"].get("Ports") or {}
    if len(options.args) == 1:
        for key in sorted(found, key=_order):
            for binding in found[key] or []:
                say(f"{key} -> {_address(binding)}")
        return
    number, slash, protocol = options.args[1].partition("/")
    if not (number.isascii() and number.isdigit()):
        raise CliError(f'Error: invalid port ({number}): strconv.ParseUint: parsing "{number}": invalid syntax')
    bindings = found.get(f"{number}/{protocol.lower() if slash else 'tcp'}")
    if not bindings:
        raise CliError(f"Error: No public port '{options.args[1]}' published for {options.args[0]}")
    for binding in bindings:
        say(_address(binding))


def _order(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    return int(number), protocol


def _address(binding: dict[str, Any]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _top(context: Context, options: Options) -> None:
    found = context.client.container_io.top(options.args[0], " ".join(options.args[1:]))
    lines = ["\t".join(row) for row in [found["Titles"], *(found.get("Processes") or [])]]
    sys.stdout.write(align("\n".join(lines), least=20) + "\n")


PORT = Command("container port", "CONTAINER [PRIVATE_PORT[/PROTO]]", _port, least=1, most=2)
TOP = Command("container top", "CONTAINER [ps OPTIONS]", _top, least=1, pass_through=True)
