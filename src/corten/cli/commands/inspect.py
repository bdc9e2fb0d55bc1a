"""`corten inspect` and the inspect of each kind of object."""

from __future__ import annotations

import sys

from corten.cli import inspecting
from corten.cli.context import Context, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.client.errors import ApiError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Getter = Callable[[str], Any]


def _inspect(names: list[str], get: Getter, format_: str) -> None:
    """Prints what `get` finds; what it does not find is told at the end, exit code 1."""
    inspecting.write([], format_)  # A template that does not parse is refused before anything is asked.
    found, failures = [], []
    for name in names:
        try:
            found.append(get(name))
        except (ApiError, CliError) as error:
            failures.append(str(describe(error)))
    _print(found, failures, format_)


def _print(found: list[Any], failures: list[str], format_: str) -> None:
    try:
        if found or not format_:
            sys.stdout.write("[]\n" if not found else inspecting.write(found, format_))
        elif not found:
            sys.stdout.write("\n")
    except CliError as error:
        sys.stdout.write("\n")
        raise CliError(str(error).lstrip("\n"), error.code) from None
    for failure in failures:
        say_error(failure)
    if failures:
        raise Exit(1)


def _containers(context: Context, options: Options) -> None:
    size = options["size"]
    _inspect(options.args, lambda name: context.client.containers.inspect(name, size=size), options["format"])


def _images(context: Context, options: Options) -> None:
    platform = options["platform"]
    _inspect(options.args, lambda name: context.client.images.inspect(name, platform=platform), options["format"])


def _networks(context: Context, options: Options) -> None:
    verbose = options["verbose"]
    _inspect(options.args, lambda name: context.client.networks.inspect(name, verbose=verbose), options["format"])


def _volumes(context: Context, options: Options) -> None:
    _inspect(options.args, context.client.volumes.inspect, options["format"])


def _anything(context: Context, options: Options) -> None:
    client, size, kind = context.client, options["size"], options["type"]
    getters: dict[str, Getter] = {
        "container": lambda name: client.containers.inspect(name, size=size),
        "image": client.images.inspect,
        "network": client.networks.inspect,
        "volume": client.volumes.inspect,
    }
    if kind and kind not in getters:
        raise CliError(f'unknown type: "{kind}": must be one of "container", "image", "network", "volume"')
    chosen = {kind: getters[kind]} if kind else getters
    _inspect(options.args, lambda name: _first(chosen, name), options["format"])


def _first(getters: dict[str, Getter], name: str) -> Any:
    if len(getters) == 1:
        return next(iter(getters.values()))(name)
    for get in getters.values():
        try:
            return get(name)
        except NotFound:
            continue
        except ApiError as error:
            # What cannot be the name of one kind may be that of another.
            if error.status != 400:
                raise
    raise CliError(f"Error: No such object: {name}")


_FORMAT = Flag("format", "f", "string", "Format output with a Go template, or 'json'")
_SIZE = Flag("size", "s", "bool", "Display total file sizes if the type is container")

INSPECT = Command(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    _anything,
    (_FORMAT, _SIZE, Flag("type", "", "string", "Only inspect objects of the given type")),
    least=1,
)
CONTAINER_INSPECT = Command(
    "container inspect", "[OPTIONS] CONTAINER [CONTAINER...]", _containers, (_FORMAT, _SIZE), least=1
)
IMAGE_INSPECT = Command(
    "image inspect",
    "[OPTIONS] IMAGE [IMAGE...]",
    _images,
    (_FORMAT, Flag("platform", "", "string", "Platform to inspect, where the image has several")),
    least=1,
)
NETWORK_INSPECT = Command(
    "network inspect",
    "[OPTIONS] NETWORK [NETWORK...]",
    _networks,
    (_FORMAT, Flag("verbose", "v", "bool", "Verbose output for diagnostics")),
    least=1,
)
VOLUME_INSPECT = Command("volume inspect", "[OPTIONS] VOLUME [VOLUME...]", _volumes, (_FORMAT,), least=1)
