"""`--network` with what belongs to an endpoint: aliases, addresses, links."""

from __future__ import annotations

import re

from corten.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.cli.flags import Options

    Json = dict[str, Any]

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}")


def networking(options: Options) -> tuple[str, dict[str, Json]]:
    """The network mode, and the endpoints by network that the daemon is told of at create."""
    specs = options["network"] or options["net"] or ["default"]
    if options["mac-address"] and not _MAC.fullmatch(options["mac-address"]):
        raise CliError(f"{options['mac-address']} is not a valid mac address", 125)
    endpoints: dict[str, Json] = {}
    mode = ""
    for index, spec in enumerate(specs):
        name, endpoint = _parse(spec)
        if index == 0:
            mode = name
            endpoint = _merge(endpoint, options)
        if name in endpoints:
            raise CliError(f'network "{name}" is specified multiple times', 125)
        if _is_private(name):
            endpoints[name] = endpoint
    if len(specs) == 1 and not endpoints.get(mode):
        endpoints.pop(mode, None)
    return mode, endpoints


def _is_private(name: str) -> bool:
    return name not in ("host", "none") and not name.startswith("container:")


def _merge(endpoint: Json, options: Options) -> Json:
    """Flags that Docker had before --network could carry them; given twice is an error."""
    ipam = {
        key: value
        for key, value in (
            ("IPv4Address", options["ip"]),
            ("IPv6Address", options["ip6"]),
            ("LinkLocalIPs", options["link-local-ip"]),
        )
        if value
    }
    flags: Json = {"Aliases": options["network-alias"] + options["net-alias"], "MacAddress": options["mac-address"]}
    if options["link"] and _is_user_defined(options):
        flags["Links"] = options["link"]
    if ipam:
        flags["IPAMConfig"] = ipam
    for key, value in flags.items():
        if not value:
            continue
        if endpoint.get(key):
            raise CliError(f"conflicting options: cannot specify both --{_FLAGS[key]} and per-network {key}", 125)
        endpoint[key] = value
    return endpoint


_FLAGS = {"Aliases": "network-alias", "MacAddress": "mac-address", "Links": "link", "IPAMConfig": "ip"}


def _is_user_defined(options: Options) -> bool:
    name = (options["network"] or options["net"] or ["default"])[0]
    return name not in ("default", "bridge", "host", "none") and not name.startswith("container:")


def _parse(spec: str) -> tuple[str, Json]:
    """NAME, or name=NAME,alias=…,ip=…,ip6=…,link-local-ip=…,mac-address=…,driver-opt=K=V,gw-priority=N."""
    if "=" not in spec:
        return spec, {}
    name = ""
    endpoint: Json = {}
    ipam: Json = {}
    for field in spec.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise CliError(f"invalid key/value pair format in driver options: {field}", 125)
        if key == "name":
            name = value
        elif key == "alias":
            endpoint.setdefault("Aliases", []).append(value)
        elif key == "ip":
            ipam["IPv4Address"] = value
        elif key == "ip6":
            ipam["IPv6Address"] = value
        elif key == "link-local-ip":
            ipam.setdefault("LinkLocalIPs", []).append(value)
        elif key == "mac-address":
            endpoint["MacAddress"] = value
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            endpoint.setdefault("DriverOpts", {})[option] = setting
        elif key == "gw-priority":
            endpoint["GwPriority"] = int(value) if value.lstrip("-").isdigit() else _bad_priority(value)
        else:
            raise CliError(f"invalid field key {key}", 125)
    if ipam:
        endpoint["IPAMConfig"] = ipam
    return name, endpoint


def _bad_priority(value: str) -> int:
    raise CliError(f"invalid gw-priority: {value}", 125)
