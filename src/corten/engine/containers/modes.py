"""Namespace modes: host, private, shareable, container:NAME; and which flags contradict them."""

from __future__ import annotations

from corten.errors import InvalidArgument, clip
from corten.specs.container import ContainerConfig, HostConfig

CONTAINER = "container:"
_UNDEFINED = "can't be used with links. This would result in undefined behavior"
HOST_AND_LINKS = f"conflicting options: host type networking {_UNDEFINED}"


def joined(mode: str) -> str:
    """The container that a mode names, "" where it names none."""
    return mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else ""


def check(config: ContainerConfig, host_config: HostConfig) -> None:
    """Raises InvalidArgument in Docker's words for an unknown mode or a contradiction."""
    _known("IPC", host_config.ipc_mode, ("", "none", "private", "shareable", "host"))
    _known("PID", host_config.pid_mode, ("", "host"))
    _known("UTS", host_config.uts_mode, ("", "host"), joinable=False)
    _known("cgroup namespace", host_config.cgroupns_mode, ("", "private", "host"), joinable=False)
    if host_config.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host_config.network_mode == "host":
        _check_host_network(config, host_config)
    elif host_config.network_mode.startswith(CONTAINER):
        _check_joined_network(config, host_config)


def _known(what: str, mode: str, names: tuple[str, ...], *, joinable: bool = True) -> None:
    if mode in names or (joinable and joined(mode)):
        return
    raise InvalidArgument(f"invalid {what} mode: {clip(mode, 80)}")


def _check_host_network(config: ContainerConfig, host_config: HostConfig) -> None:
    if host_config.links:
        raise InvalidArgument(HOST_AND_LINKS)
    if config.mac_address:
        raise InvalidArgument("conflicting options: mac-address and the network mode")


def _check_joined_network(config: ContainerConfig, host_config: HostConfig) -> None:
    if not joined(host_config.network_mode):
        raise InvalidArgument("invalid container format container:<name|id>")
    contradictions = (
        (config.hostname, "hostname and the network mode"),
        (host_config.links, f"container type network {_UNDEFINED}"),
        (config.mac_address, "mac-address and the network mode"),
        (host_config.dns, "dns and the network mode"),
        (host_config.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host_config.port_bindings or host_config.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    )
    for said, what in contradictions:
        if said:
            raise InvalidArgument(f"conflicting options: {what}")
