"""JSON as Go writes and reads it: keys in Go's spelling, null meaning "not said", unknown keys passed over."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from corten.errors import InvalidArgument, clip

T = TypeVar("T")

MAX_DEPTH = 200
"""Objects and lists in each other; Docker's own documents have a dozen."""

MAX_VALUES = 250_000
"""In one document. Eight megabytes of `[],[],…` would take half a gigabyte, and hold up everybody else for seconds."""

# Words of a Python name that Go's API spells in capitals or irregularly; all others are capitalised.
_NAMES = {
    "uts_mode": "UTSMode",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "container_id_file": "ContainerIDFile",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "network_id": "NetworkID",
    "endpoint_id": "EndpointID",
    "dns_names": "DNSNames",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "link_local_ips": "LinkLocalIPs",
    "rw": "RW",
    "device_ids": "DeviceIDs",
}


def go_name(name: str) -> str:
    """The key that Docker's API uses for a Python attribute: `cap_add` is `CapAdd`, `uts_mode` is `UTSMode`."""
    return _NAMES.get(name) or "".join(word.capitalize() for word in name.split("_"))


def drop_nulls(value: Any, depth: int = MAX_DEPTH) -> Any:
    """`value` without object members that are null, as Go's decoder leaves a field alone that is null.

    Raises InvalidArgument for more than `depth` objects and lists in each other: what comes later goes down them too.
    """
    if depth < 0:
        raise InvalidArgument("nested too deep")
    if isinstance(value, dict):
        return {key: drop_nulls(member, depth - 1) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [drop_nulls(member, depth - 1) for member in value]
    return value


def parse(data: bytes | str, what: str = "JSON") -> Any:
    """The JSON in `data`, without nulls. Raises InvalidArgument that begins with "invalid `what`"."""
    if _values(data) > MAX_VALUES:
        raise InvalidArgument(f"invalid {what}: more than {MAX_VALUES} values")
    try:
        return drop_nulls(msgspec.json.decode(data))
    except RecursionError:
        raise InvalidArgument(f"invalid {what}: nested too deep") from None
    except (msgspec.DecodeError, UnicodeError, InvalidArgument) as error:
        raise InvalidArgument(f"invalid {what}: {clip(str(error))}") from None


def _values(data: bytes | str) -> int:
    """At least as many as there are: what stands inside of strings counts too."""
    if isinstance(data, str):
        return data.count(",") + data.count("[") + data.count("{")
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def convert(value: Any, kind: type[T], what: str = "JSON") -> T:
    """What `parse` gave as `kind`. Raises InvalidArgument that names the member at fault."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid {what}: {clip(str(error))}") from None


def read(data: bytes | str, kind: type[T], what: str = "JSON") -> T:
    """`parse` and `convert`."""
    return convert(parse(data, what), kind, what)


def decode(body: bytes | str, kind: type[T]) -> T:
    """`body` as `kind`. Raises InvalidArgument that names the member at fault; an empty body is an empty object."""
    return read(body or b"{}", kind)


encode = msgspec.json.encode
