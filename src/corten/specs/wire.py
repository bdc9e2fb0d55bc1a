"""JSON as Go writes and reads it: keys in Go's spelling, null meaning "not said", unknown keys passed over."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from corten.errors import InvalidArgument, clip

T = TypeVar("T")

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


def drop_nulls(value: Any) -> Any:
    """`value` without object members that are null, as Go's decoder leaves a field alone that is null."""
    if isinstance(value, dict):
        return {key: drop_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [drop_nulls(member) for member in value]
    return value


def decode(body: bytes | str, kind: type[T]) -> T:
    """`body` as `kind`. Raises InvalidArgument that names the member at fault; an empty body is an empty object."""
    try:
        return msgspec.convert(drop_nulls(msgspec.json.decode(body or b"{}")), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {clip(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid JSON: {clip(str(error))}") from None


encode = msgspec.json.encode
