"""Devices that a container gets: looked up on the host, at start, as their numbers may change between starts."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corten.errors import InvalidArgument, SystemFault, clip
from corten.specs.container import DeviceMapping
from corten.specs.oci_runtime import Device, DeviceCgroup

# Parts of /dev that the container has its own of.
_OWN = {
    "pts",
    "shm",
    "mqueue",
    "fd",
    "console",
    "ptmx",
    "core",
    "stdin",
    "stdout",
    "stderr",
    "log",
    ".lxc",
    ".lxd-mounts",
}

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


@dataclass(frozen=True, slots=True)
class Granted:
    """Nodes to make, and the cgroup rules that allow them."""

    nodes: tuple[Device, ...] = ()
    rules: tuple[DeviceCgroup, ...] = ()


def parse_rule(text: str) -> DeviceCgroup:
    """One `--device-cgroup-rule`. Raises InvalidArgument."""
    if (match := _RULE.fullmatch(text)) is None:
        raise InvalidArgument(f'invalid device cgroup rule format: "{clip(text, 80)}"')
    kind, major, minor, access = match.groups()
    return DeviceCgroup(
        allow=True,
        type=kind,
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=access,
    )


def check_mapping(mapping: DeviceMapping) -> None:
    """Raises InvalidArgument for permissions that are no letters of rwm."""
    if not re.fullmatch(r"[rwm]{0,3}", mapping.cgroup_permissions):
        raise InvalidArgument(f"invalid device mode: {clip(mapping.cgroup_permissions, 40)}")


def grant(mapping: DeviceMapping) -> Granted:
    """A device, or all devices below a directory. Raises SystemFault in Docker's words when there is none."""
    source = Path(mapping.path_on_host)
    target = Path(mapping.path_in_container or mapping.path_on_host)
    access = mapping.cgroup_permissions or "rwm"
    try:
        if source.is_dir():
            found = [(path, target / path.relative_to(source)) for path in _walk(source)]
        else:
            found = [(source, target)]
        nodes = [node for path, inside in found if (node := _node(path, inside)) is not None]
    except OSError as error:
        raise SystemFault(
            f'error gathering device information while adding custom device "{clip(str(source), 200)}": '
            f"{(error.strerror or str(error)).lower()}",
            step="devices",
            errno=error.errno or 0,
        ) from None
    if not nodes:
        raise SystemFault(
            f'error gathering device information while adding custom device "{clip(str(source), 200)}": '
            "not a device node",
            step="devices",
        )
    return Granted(tuple(nodes), tuple(_rule(node, access) for node in nodes))


def all_of_host() -> Granted:
    """What a privileged container gets: every node of the host's /dev, and leave to use any."""
    nodes = []
    for path in _walk(Path("/dev")):
        try:
            if (node := _node(path, path)) is not None:
                nodes.append(node)
        except OSError:
            continue  # it went away meanwhile
    return Granted(tuple(nodes), (DeviceCgroup(allow=True, access="rwm"),))


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in _OWN or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path))
            else:
                yield Path(entry.path)


def _node(source: Path, target: Path) -> Device | None:
    status = source.stat()
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return Device(
        type="c" if stat.S_ISCHR(status.st_mode) else "b",
        path=str(target),
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        file_mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _rule(node: Device, access: str) -> DeviceCgroup:
    return DeviceCgroup(allow=True, type=node.type, major=node.major, minor=node.minor, access=access)
