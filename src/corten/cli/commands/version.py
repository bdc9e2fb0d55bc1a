"""`corten version`, `corten --version`."""

from __future__ import annotations

import platform
import sys
import time

from corten import __version__
from corten.cli.context import Context, say
from corten.cli.errors import CliError
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.units import parse_rfc3339
from corten.specs.gotemplate.values import GoStruct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

API_VERSION = "1.56"  # the newest whose answers this client understands


def print_short() -> None:
    say(f"Corten version {__version__}")


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _client_info(context: Context, server: dict[str, Any] | None) -> dict[str, Any]:
    newest = (server or {}).get("ApiVersion") or API_VERSION
    return {
        "Version": __version__,
        "ApiVersion": min(API_VERSION, newest, key=_version_key),
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": _architecture(),
        "Context": context.context_name(),
    }


def _version_key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def run(context: Context, options: Options) -> None:
    failure: Exception | None = None
    server: dict[str, Any] | None = None
    try:
        server = context.client.system.version()
    except Exception as error:
        if describe(error) is None:
            raise
        failure = error
    client = _client_info(context, server)
    if options["format"]:
        _formatted(options["format"], {"Client": client, "Server": server})
    else:
        _print(client, server)
    if failure is not None:
        raise failure


class _Side(GoStruct):
    """The client's or the server's half: ApiVersion in Docker's JSON, APIVersion in its templates."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__("ApiVersion" if name == "APIVersion" else name)

    def __missing__(self, name: str) -> Any:
        if name == "APIVersion":
            return self["ApiVersion"]
        raise KeyError(name)


def _formatted(format_: str, halves: dict[str, dict[str, Any] | None]) -> None:
    from corten.specs.gotemplate import ExecError, TemplateError, parse
    from corten.specs.gotemplate.values import to_json

    data = {name: None if half is None else _Side(half) for name, half in halves.items()}
    if format_ == "json":
        say(to_json(data))
        return
    try:
        say(parse(format_).execute(data, strict=True))
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None
    except ExecError as error:
        raise CliError(str(error)) from None


def _print(client: dict[str, Any], server: dict[str, Any] | None) -> None:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api += f" (downgraded from {client['DefaultAPIVersion']})"
    lines = [
        "Client: Corten",
        f" Version:\t{client['Version']}",
        f" API version:\t{api}",
        f" Python version:\t{client['PythonVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    if server:
        lines += ["", *_server_lines(server)]
    sys.stdout.write(_align(lines))


def _server_lines(server: dict[str, Any]) -> list[str]:
    name = (server.get("Platform") or {}).get("Name") or ""
    lines = [f"Server: {name}".rstrip() if name else "Server:"]
    for component in server.get("Components") or []:
        details = component.get("Details") or {}
        lines += [f" {component['Name']}:", f"  Version:\t{component.get('Version', '')}"]
        if component["Name"] in ("Engine", "Corten"):
            lines.append(
                f"  API version:\t{details.get('ApiVersion')} (minimum version {details.get('MinAPIVersion')})"
            )
            for key, label in (
                ("PythonVersion", "Python version"),
                ("GoVersion", "Go version"),
                ("GitCommit", "Git commit"),
            ):
                if details.get(key):
                    lines.append(f"  {label}:\t{details[key]}")
            if details.get("BuildTime"):
                lines.append(f"  Built:\t{_build_time(details['BuildTime'])}")
            lines.append(f"  OS/Arch:\t{details.get('Os')}/{details.get('Arch')}")
            lines.append(f"  Experimental:\t{details.get('Experimental') or 'false'}")
        else:
            lines += [f"  {key}:\t{value}" for key, value in sorted(details.items())]
    return lines


def _build_time(text: str) -> str:
    seconds = parse_rfc3339(text)
    # As C's ctime, in which the day of the month is padded with a space.
    return time.asctime(time.gmtime(seconds)) if seconds else text


def _align(lines: list[str]) -> str:
    from corten.cli.tabwriter import align

    return align("\n".join(lines), least=20, padding=1) + "\n"


VERSION = Command(
    "version",
    "[OPTIONS]",
    run,
    (Flag("format", "f", "string", "Format output with a Go template, or 'json'"),),
    most=0,
)
