"""Containers and exec sessions as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corten.api.docker.encode import (
    SECOND,
    ZERO_TIME,
    Json,
    container_config,
    endpoint,
    go_time,
    host_config,
    human_duration,
    mount_point,
    network_mode,
    port_map,
    port_summaries,
)
from corten.engine.models import Container, Exec, Health, State, Status

if TYPE_CHECKING:
    from corten.engine.models import Sizes

_OLD_LOOK = 52
"""The first API version without what belongs to the default bridge alone in NetworkSettings."""
_NO_BRIDGE: Json = {
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def status_text(state: State, now_ns: int) -> str:
    """The STATUS column of `ps`."""
    since_start = human_duration(now_ns - state.started_ns)
    if state.status is Status.PAUSED:
        return f"Up {since_start} (Paused)"
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {human_duration(now_ns - state.finished_ns)} ago"
    if state.status is Status.RUNNING:
        health = state.health.status if state.health else "none"
        if health in ("none", ""):
            return f"Up {since_start}"
        return f"Up {since_start} ({'health: starting' if health == 'starting' else health})"
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if state.status is Status.CREATED or not state.finished_ns:
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_ns)} ago"


def command_line(container: Container) -> str:
    args = (f"'{arg}'" if " " in arg else arg for arg in container.args)
    return " ".join((container.path, *args))


def summary(container: Container, now_ns: int, api: int, sizes: Sizes | None = None) -> Json:
    """One entry of `GET /containers/json`."""
    state = container.state
    out: Json = {
        "Id": container.id,
        "Names": ["/" + container.name],
        "Image": container.image_name,
        "ImageID": container.image_id,
        "Command": command_line(container),
        "Created": container.created_ns // SECOND,
        "Ports": port_summaries(container.ports),
        "Labels": container.config.labels or {},
        "State": state.status.value,
        "Status": status_text(state, now_ns),
        "HostConfig": {"NetworkMode": network_mode(container.host_config)},
        # The endpoint's own structure is encoded as it is: in a list of a thousand, each conversion counts.
        "NetworkSettings": {"Networks": container.networks},
        "Mounts": [mount_point(mount) for mount in container.mounts],
    }
    if container.host_config.annotations and api >= 46:
        out["HostConfig"]["Annotations"] = container.host_config.annotations
    if api >= 52:
        health = state.health or Health()
        out["Health"] = {"Status": health.status or "none", "FailingStreak": health.failing_streak}
    if sizes is not None:
        out |= {"SizeRw": sizes.rw, "SizeRootFs": sizes.root_fs}
    return out


def state_json(state: State) -> Json:
    status = state.status
    out: Json = {
        "Status": status.value,
        "Running": state.running,
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": go_time(state.started_ns),
        "FinishedAt": go_time(state.finished_ns),
    }
    if state.health is not None and state.health.status != "none":
        out["Health"] = _health(state.health)
    return out


def _health(health: Health) -> Json:
    results = [
        {
            "Start": go_time(result.start_ns),
            "End": go_time(result.end_ns),
            "ExitCode": result.exit_code,
            "Output": result.output,
        }
        for result in health.log
    ]
    return {"Status": health.status, "FailingStreak": health.failing_streak, "Log": results}


def network_settings(container: Container, api: int) -> Json:
    networks = {name: endpoint(settings) for name, settings in container.networks.items()}
    out: Json = {
        "SandboxID": container.sandbox_id,
        "SandboxKey": container.sandbox_key,
        "Ports": port_map(container.ports),
        "Networks": networks,
    }
    if api >= _OLD_LOOK:
        return out
    bridge = networks.get("bridge", _NO_BRIDGE)
    legacy: Json = {
        "Bridge": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
    }
    return legacy | out | {key: bridge[key] for key in _NO_BRIDGE}


def inspect(container: Container, api: int, sizes: Sizes | None = None) -> Json:
    """`GET /containers/{id}/json`."""
    out: Json = {
        "Id": container.id,
        "Created": go_time(container.created_ns),
        "Path": container.path,
        "Args": container.args,
        "State": state_json(container.state),
        "Image": container.image_id,
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        # Of json-file alone, as in Docker: no other driver's files are for others to read.
        "LogPath": container.log_path if container.host_config.log_config.type == "json-file" else "",
        "Name": "/" + container.name,
        "RestartCount": container.restart_count,
        "Driver": container.driver,
        "Platform": container.platform.partition("/")[0] or "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": container.app_armor_profile,
        "ExecIDs": container.exec_ids or None,
        "HostConfig": _host_config(container),
        "Mounts": [mount_point(mount) for mount in container.mounts],
        "Config": _config(container, api),
        "NetworkSettings": network_settings(container, api),
    }
    if api >= _OLD_LOOK:
        out["Storage"] = {"RootFS": {"Snapshot": {"Name": container.driver}}}
    else:
        out["GraphDriver"] = {"Name": container.driver, "Data": {}}
    if sizes is not None:
        out |= {"SizeRw": sizes.rw, "SizeRootFs": sizes.root_fs}
    return out


def _host_config(container: Container) -> Json:
    """Links by the names that the containers have now."""
    out = host_config(container.host_config)
    if container.links:
        out["Links"] = [f"/{link.name}:/{container.name}/{link.alias}" for link in container.links]
    return out


def _config(container: Container, api: int) -> Json:
    """Before 1.44 the MAC address was the container's, not the endpoint's."""
    out = container_config(container.config)
    if api < 44 and "MacAddress" not in out:
        endpoint_here = container.networks.get(network_mode(container.host_config))
        if endpoint_here is not None and endpoint_here.mac_address:
            out["MacAddress"] = endpoint_here.mac_address
    return out


def exec_inspect(session: Exec) -> Json:
    """`GET /exec/{id}/json`."""
    process: Json = {
        "tty": session.tty,
        "entrypoint": session.argv[0] if session.argv else "",
        "arguments": session.argv[1:],
        "privileged": session.privileged,
    }
    if session.user:
        process["user"] = session.user
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": process,
        "OpenStdin": session.open_stdin,
        "OpenStderr": session.open_stderr,
        "OpenStdout": session.open_stdout,
        "CanRemove": False,
        "ContainerID": session.container_id,
        "DetachKeys": session.detach_keys,
        "Pid": session.pid,
    }


def stats(sample: dict[str, Any], before: dict[str, Any] | None) -> Json:
    """A sample with the one before it, from which clients compute rates."""
    return {
        **sample,
        "preread": before["read"] if before else ZERO_TIME,
        "precpu_stats": before["cpu_stats"] if before else _NO_CPU,
    }


_NO_CPU: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
