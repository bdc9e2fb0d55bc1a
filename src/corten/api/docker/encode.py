"""Small pieces of the API's JSON: times, durations, addresses, mounts, configurations as Go would write them."""

from __future__ import annotations

from typing import Any

import msgspec

from corten.engine.models import MountPoint
from corten.specs.container import ContainerConfig, EndpointSettings, HostConfig, PortBinding
from corten.specs.times import format_time
from corten.specs.wire import go_name

Json = dict[str, Any]

ZERO_TIME = "0001-01-01T00:00:00Z"
SECOND = 1_000_000_000

# What Go leaves out of the JSON while it has its zero value (`omitempty`).
_CONFIG_OMITS = frozenset(
    map(
        go_name,
        "exposed_ports healthcheck args_escaped network_disabled mac_address stop_signal stop_timeout shell".split(),
    )
)
_HOST_OMITS = frozenset(("Mounts", "Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Init", "KernelMemory"))
_HOST_EMPTY_LISTS = (
    "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps "
    "Devices Dns DnsOptions DnsSearch Ulimits"
).split()
# Hours below which a length of time is said in a unit, and the hours of that unit.
_UNITS = ((48, 1, "hour"), (24 * 14, 24, "day"), (24 * 60, 24 * 7, "week"), (24 * 365 * 2, 24 * 30, "month"))


def go_time(ns: int) -> str:
    """RFC 3339 with as many digits as it needs, at most nine; Go's zero time for 0."""
    return format_time(ns) if ns else ZERO_TIME


def human_duration(ns: int) -> str:
    """A length of time as Docker says it: "Less than a second", "About a minute", "3 weeks"."""
    seconds = max(0, ns) // SECOND
    if seconds < 60:
        return ("Less than a second", "1 second")[seconds] if seconds < 2 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    for limit, size, unit in _UNITS:
        if hours < limit:
            return "About an hour" if hours == 1 else f"{hours // size} {unit}s"
    return f"{seconds // 3600 // 24 // 365} years"


def container_config(config: ContainerConfig) -> Json:
    out: Json = msgspec.to_builtins(config)
    for name in ("HostConfig", "NetworkingConfig"):  # config may be the request that brought it
        out.pop(name, None)
    for name in _CONFIG_OMITS:
        # StopTimeout is a pointer in Go: 0 is something that was said.
        if not out[name] and not (name == "StopTimeout" and out[name] == 0):
            del out[name]
    if "Healthcheck" in out:
        out["Healthcheck"] = {name: value for name, value in out["Healthcheck"].items() if value}
    for name in ("Cmd", "Entrypoint"):
        out[name] = as_list(out[name])
    out["Labels"] = out["Labels"] or {}
    return out


def host_config(config: HostConfig) -> Json:
    out: Json = msgspec.to_builtins(config)
    for name in _HOST_OMITS:
        if out[name] is None or out[name] == [] or out[name] == {}:
            del out[name]
    for name in _HOST_EMPTY_LISTS:
        out[name] = out[name] or []
    for name in ("CapAdd", "CapDrop"):
        out[name] = as_list(out[name])
    out["LogConfig"]["Config"] = out["LogConfig"]["Config"] or {}
    out["PortBindings"] = out["PortBindings"] or {}
    out["NetworkMode"] = network_mode(config)
    out["RestartPolicy"]["Name"] = out["RestartPolicy"]["Name"] or "no"
    if "Mounts" in out:
        out["Mounts"] = [_requested_mount(mount) for mount in out["Mounts"]]
    return out


def network_mode(config: HostConfig) -> str:
    mode = config.network_mode
    return mode if mode and mode != "default" else "bridge"


def as_list(value: list[str] | str | None) -> list[str] | None:
    """A command that was given as one word is a list of one."""
    return [value] if isinstance(value, str) else value


def _requested_mount(mount: Json) -> Json:
    """One of HostConfig.Mounts without what was not said, at any depth."""
    out = {name: value for name, value in mount.items() if value}
    return {name: _requested_mount(value) if isinstance(value, dict) else value for name, value in out.items()}


def endpoint(settings: EndpointSettings) -> Json:
    out: Json = msgspec.to_builtins(settings)
    if out["IPAMConfig"] is not None:
        out["IPAMConfig"] = {name: value for name, value in out["IPAMConfig"].items() if value}
    return out


def mount_point(mount: MountPoint) -> Json:
    out: Json = {"Type": mount.type}
    if mount.name:
        out["Name"] = mount.name
    out |= {"Source": mount.source, "Destination": mount.destination}
    if mount.driver:
        out["Driver"] = mount.driver
    return out | {"Mode": mount.mode, "RW": mount.rw, "Propagation": mount.propagation}


def port_map(ports: dict[str, list[PortBinding] | None]) -> Json:
    """NetworkSettings.Ports: null for what is exposed and not published."""
    return {
        port: None if bindings is None else [{"HostIp": b.host_ip, "HostPort": b.host_port} for b in bindings]
        for port, bindings in ports.items()
    }


def port_summaries(ports: dict[str, list[PortBinding] | None]) -> list[Json]:
    """The flat list of `ps`, one entry for each binding."""
    out: list[Json] = []
    for port, bindings in ports.items():
        number, _, protocol = port.partition("/")
        private = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        if not bindings:
            out.append(private)
        for binding in bindings or ():
            entry: Json = {"IP": binding.host_ip} if binding.host_ip else {}
            entry["PrivatePort"] = private["PrivatePort"]
            if binding.host_port:
                entry["PublicPort"] = int(binding.host_port)
            out.append({**entry, "Type": private["Type"]})
    return out
