"""`corten ps`."""

from __future__ import annotations

import sys

from corten.cli.flags import Command, Flag, Options
from corten.cli.records import Shape, fields_of, write
from corten.cli.units import ago, ellipsis, human_size, local_time
from corten.cli.values import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.cli.context import Context

    Row = dict[str, Any]


def ports(found: list[Row]) -> str:
    """ "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp": bindings of one address whose ports follow each other are merged."""
    found = sorted(
        found,
        key=lambda port: (port["PrivatePort"], port.get("IP") or "", port.get("PublicPort") or 0, port["Type"]),
    )
    runs: dict[str, list[int]] = {}
    shown: list[str] = []
    single: list[str] = []
    for port in found:
        address, private, public = port.get("IP") or "", port["PrivatePort"], port.get("PublicPort") or 0
        key = port["Type"]
        if address:
            if public != private:
                host = f"[{address}]" if ":" in address else address
                single.append(f"{host}:{public}->{private}/{key}")
                continue
            key = f"{address}/{key}"
        run = runs.get(key)
        if run is None:
            runs[key] = [private, private]
        elif private == run[1] + 1:
            run[1] = private
        else:
            shown.append(_run(key, *run))
            runs[key] = [private, private]
    return ", ".join([*shown, *(_run(key, *run) for key, run in runs.items()), *single])


def _run(key: str, first: int, last: int) -> str:
    address, slash, kind = key.rpartition("/")
    span = f"{first}-{last}" if last > first else str(first)
    if slash:
        host = f"[{address}]" if ":" in address else address
        span = f"{host}:{span}->{span}"
    return f"{span}/{kind}"


def names(row: Row, *, truncate: bool) -> str:
    """Without their slash; a link's own name ("/other/alias") is left out of the short form."""
    plain = [name.removeprefix("/") for name in row.get("Names") or []]
    if truncate:
        plain = [name for name in plain if "/" not in name]
    return ",".join(plain)


def image(row: Row, *, truncate: bool) -> str:
    name, identifier = row.get("Image") or "", row.get("ImageID") or ""
    if not name:
        return "<no image>"
    if truncate:
        if identifier and identifier.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
            return identifier.removeprefix("sha256:")[:12]
        name = name.partition("@")[0]
    return str(name)


def size(row: Row) -> str:
    text = human_size(row.get("SizeRw") or 0, 3)
    whole = row.get("SizeRootFs") or 0
    return f"{text} (virtual {human_size(whole, 3)})" if whole > 0 else text


def mounts(row: Row, *, truncate: bool) -> str:
    shown = [point.get("Name") or point.get("Source") or "" for point in row.get("Mounts") or []]
    return ",".join(ellipsis(name, 15) if truncate else name for name in shown)


def labels(row: Row) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((row.get("Labels") or {}).items()))


def shape(*, truncate: bool, with_size: bool = False) -> Shape:
    """The fields of `ps`, cut to fit a screen when `truncate`."""
    columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"] + ["Size"] * with_size
    return Shape(
        "formatter.ContainerContext",
        {
            "ID": lambda row: row["Id"][:12] if truncate else row["Id"],
            "Image": lambda row: image(row, truncate=truncate),
            "Command": lambda row: _quoted(ellipsis(row["Command"], 20) if truncate else row["Command"]),
            "CreatedAt": lambda row: local_time(row["Created"]),
            "RunningFor": lambda row: ago(row["Created"]),
            "Ports": lambda row: ports(row.get("Ports") or []),
            "State": lambda row: row.get("State") or "",
            "Status": lambda row: row.get("Status") or "",
            "Size": size,
            "Names": lambda row: names(row, truncate=truncate),
            "Labels": labels,
            "Label": lambda row, name: (row.get("Labels") or {}).get(name, ""),
            "Mounts": lambda row: mounts(row, truncate=truncate),
            "LocalVolumes": lambda row: str(sum(m.get("Driver") == "local" for m in row.get("Mounts") or [])),
            "Networks": lambda row: ",".join((row.get("NetworkSettings") or {}).get("Networks") or {}),
            "Platform": _platform,
        },
        _HEADERS,
        columns,
        fault="failed to execute template",
    )


def _platform(row: Row) -> Any:
    return (row.get("ImageManifestDescriptor") or {}).get("platform")


def _quoted(text: str) -> str:
    # Go's %q: almost every command is plain, so the general routine loads only when it is not.
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from corten.specs.gotemplate.literals import quote

    return quote(text)


_HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}


def run(context: Context, options: Options) -> None:
    format_ = options["format"]
    if not format_ and not options["quiet"]:
        format_ = context.config.get("psFormat") or ""
    with_size = options["size"] or not fields_of(format_).isdisjoint(("Size", "."))
    last = 1 if options["latest"] and options["last"] < 0 else options["last"]
    found = context.client.containers.list(
        all=options["all"] or last > 0, limit=max(0, last), size=with_size, filters=filters(options["filter"])
    )
    rows = shape(truncate=not options["no-trunc"], with_size=options["size"])
    if options["quiet"] and format_ in ("", "table"):
        sys.stdout.write("".join(rows.getters["ID"](row) + "\n" for row in found))
        return
    write(rows, found, format_)


FORMAT_HELP = "Format output with a Go template, or 'table', 'table TEMPLATE', 'json'"

PS = Command(
    "container ls",
    "[OPTIONS]",
    run,
    (
        Flag("all", "a", "bool", "Show all containers (default shows just running)"),
        Flag("filter", "f", "filter*", "Filter output based on conditions provided"),
        Flag("format", "", "string", FORMAT_HELP),
        Flag("last", "n", "int", "Show n last created containers, whatever their state", default=-1),
        Flag("latest", "l", "bool", "Show the latest created container, whatever its state"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only display container IDs"),
        Flag("size", "s", "bool", "Display total file sizes"),
    ),
    most=0,
)
