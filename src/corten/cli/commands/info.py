"""`corten info`."""

from __future__ import annotations

from corten import __version__
from corten.cli.context import Context, say, say_error
from corten.cli.errors import CliError, Exit
from corten.cli.failure import describe
from corten.cli.flags import Command, Flag, Options
from corten.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Info = dict[str, Any]


def _info(context: Context, options: Options) -> None:
    failure: Exception | None = None
    info: Info = {}
    try:
        info = context.client.system.info()
    except Exception as error:
        if describe(error) is None:
            raise
        failure = error
    client = {"Version": __version__, "Context": context.context_name(), "Debug": context.globals["debug"]}
    if options["format"]:
        if failure is not None:
            info = {"ServerErrors": [str(describe(failure))]}
        say(_formatted(options["format"], {**info, "ClientInfo": client}))
    else:
        _print(client, info, failure)
    if failure is not None:
        raise Exit(1)


def _formatted(format_: str, data: Info) -> str:
    from corten.specs.gotemplate import ExecError, TemplateError, parse
    from corten.specs.gotemplate.values import GoStruct, to_json

    if format_ == "json":
        return to_json(data)
    struct = GoStruct(data)
    struct.type_name, struct.raw = "system.dockerInfo", data
    try:
        return parse(format_).execute(struct)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", 64) from None
    except ExecError as error:
        raise CliError(f"\n{error}") from None


def _print(client: Info, info: Info, failure: Exception | None) -> None:
    say("Client: Corten")
    say(f" Version:    {client['Version']}\n Context:    {client['Context']}\n Debug Mode: {_bool(client['Debug'])}\n")
    say("Server:")
    if failure is not None:
        say_error(f"ERROR: {describe(failure)}\nerrors pretty printing info")
        return
    for line in server_lines(info):
        say(line)
    say("")
    for warning in info.get("Warnings") or []:
        say_error(warning)


def _bool(value: Any) -> str:
    return "true" if value else "false"


def server_lines(info: Info) -> list[str]:
    """The daemon's part, in the order and the words of Docker's."""
    lines = [f" Containers: {info.get('Containers', 0)}"]
    for label in ("Running", "Paused", "Stopped"):
        lines.append(f"  {label}: {info.get('Containers' + label, 0)}")
    lines.append(f" Images: {info.get('Images', 0)}")
    lines += _lines(info, (("ServerVersion", "Server Version"), ("Driver", "Storage Driver")))
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or []]
    lines += _lines(info, (("LoggingDriver", "Logging Driver"), ("CgroupDriver", "Cgroup Driver")))
    lines += _lines(info, (("CgroupVersion", "Cgroup Version"),))
    lines.append(" Plugins:")
    plugins = info.get("Plugins") or {}
    lines += [
        f"  {kind}: {' '.join(plugins[kind])}"
        for kind in ("Volume", "Network", "Authorization", "Log")
        if plugins.get(kind)
    ]
    swarm = info.get("Swarm") or {}
    lines.append(f" Swarm: {swarm.get('LocalNodeState') or 'inactive'}")
    if info.get("Runtimes"):
        lines.append(f" Runtimes: {' '.join(sorted(info['Runtimes']))}")
    lines += _lines(info, (("DefaultRuntime", "Default Runtime"), ("InitBinary", "Init Binary")))
    for key, label in (("ContainerdCommit", "containerd"), ("RuncCommit", "runc"), ("InitCommit", "init")):
        commit = info.get(key)
        if commit and (commit.get("ID") or key == "InitCommit"):
            lines.append(f" {label} version: {commit.get('ID') or ''}")
    lines += _security(info.get("SecurityOptions") or [])
    lines += _lines(info, _HOST)
    lines.append(f" CPUs: {info.get('NCPU', 0)}")
    lines.append(f" Total Memory: {binary_size(info.get('MemTotal') or 0)}")
    lines += _lines(info, (("Name", "Name"), ("ID", "ID"), ("DockerRootDir", "Docker Root Dir")))
    lines.append(f" Debug Mode: {_bool(info.get('Debug'))}")
    if info.get("Debug"):
        lines += [f"  {label}: {info.get(key)}" for key, label in _DEBUG]
    lines += _lines(info, (("HttpProxy", "HTTP Proxy"), ("HttpsProxy", "HTTPS Proxy"), ("NoProxy", "No Proxy")))
    if info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in info["Labels"])]
    lines.append(f" Experimental: {_bool(info.get('ExperimentalBuild'))}")
    lines += _registries(info.get("RegistryConfig") or {})
    lines.append(f" Live Restore Enabled: {_bool(info.get('LiveRestoreEnabled'))}")
    if info.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in info["DefaultAddressPools"]]
    return lines


_HOST = (
    ("KernelVersion", "Kernel Version"),
    ("OperatingSystem", "Operating System"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
)
_DEBUG = (
    ("NFd", "File Descriptors"),
    ("NGoroutines", "Goroutines"),
    ("SystemTime", "System Time"),
    ("NEventsListener", "EventsListeners"),
)


def _lines(info: Info, labels: tuple[tuple[str, str], ...]) -> list[str]:
    return [f" {label}: {info[key]}" for key, label in labels if info.get(key)]


def _security(options: list[str]) -> list[str]:
    """ "name=seccomp,profile=default" as a line for the name and one for each of the rest."""
    lines = [" Security Options:"] if options else []
    for option in options:
        fields = dict(part.partition("=")[::2] for part in option.split(","))
        lines.append(f"  {fields.pop('name', option)}")
        lines += [f"   {key.capitalize()}: {value}" for key, value in fields.items()]
    return lines


def _registries(config: Info) -> list[str]:
    insecure = [name for name, index in (config.get("IndexConfigs") or {}).items() if not index.get("Secure")]
    insecure += config.get("InsecureRegistryCIDRs") or []
    lines = [" Insecure Registries:", *(f"  {name}" for name in insecure)] if insecure else []
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in config["Mirrors"])]
    return lines


INFO = Command(
    "system info",
    "[OPTIONS]",
    _info,
    (Flag("format", "f", "string", "Format output with a Go template, or 'json'"),),
    most=0,
)
