"""Devices, sysctls and links of a specification, as steps."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping

from corten.errors import InvalidArgument, clip
from corten.runtime import steps
from corten.specs.oci_runtime import Device, Linux, NetDevice

# The nodes and links that every container has in /dev (OCI runtime specification, default devices).
_DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
_DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)
_NOT_NODES = frozenset((*(path for path, _ in _DEFAULT_LINKS), "/dev/console"))

_IPC_SYSCTLS = frozenset(
    "kernel." + name for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_SWAP = str.maketrans("./", "/.")


def devices(linux: Linux, *, own_dev: bool) -> Iterator[steps.Step]:
    """The default nodes and links, and those asked for. A /dev that is somebody else's is left as it is."""
    asked = {step.path: step for step in map(_device, range(len(linux.devices)), linux.devices)}
    if not own_dev:
        yield from (step for path, step in asked.items() if not path.startswith("/dev/"))
        return
    for path, major, minor in _DEFAULT_DEVICES:
        default = steps.MakeDevice(path, "c", major, minor, 0o666, 0, 0)
        yield asked.pop(path, default)
    for path, target in _DEFAULT_LINKS:
        yield steps.MakeSymlink(path, target)
    yield from (step for path, step in asked.items() if path not in _NOT_NODES)


def _device(index: int, device: Device) -> steps.MakeDevice:
    name = f"linux.devices[{index}]"
    path = posixpath.normpath(device.path)
    if not path.startswith("/") or path.strip("/") == "":
        raise InvalidArgument(f"{name}.path {clip(device.path)} is not an absolute path of a device")
    if device.type not in ("c", "u", "b", "p"):
        raise InvalidArgument(f"{name}.type: device type {clip(device.type, 20)} of {clip(path)} is unknown")
    mode = 0o666 if device.file_mode is None else device.file_mode
    if mode & ~0o7777:
        raise InvalidArgument(f"{name}.fileMode {mode:#o} has more than permission bits")
    major, minor = (0, 0) if device.type == "p" else (device.major, device.minor)
    if not 0 <= major < 1 << 12 or not 0 <= minor < 1 << 20:
        raise InvalidArgument(f"{name}: {major}:{minor} is no device number")
    return steps.MakeDevice(path, device.type, major, minor, mode, device.uid or 0, device.gid or 0)


def sysctls(linux: Linux, spaces: Mapping[str, str]) -> Iterator[steps.SetSysctl]:
    """Those of the container's own namespaces only: any other would change the host."""
    for key, value in linux.sysctl.items():
        # As sysctl(8) has it: whichever of "." and "/" comes first separates; the other one stands for it in a name.
        slashes = "/" in key.partition(".")[0]
        path = key if slashes else key.translate(_SWAP)
        if not path or path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
            raise InvalidArgument(f"linux.sysctl: {clip(key)} is not a name")
        _check_namespace(path.translate(_SWAP), spaces)
        yield steps.SetSysctl(path, value)


def _check_namespace(name: str, spaces: Mapping[str, str]) -> None:
    """`name` with dots. A namespace without a path is new; one that is not named at all is the host's."""
    if name.startswith("net."):
        if spaces.get("network", "host") and _is_ours(spaces.get("network", ""), "net"):
            raise InvalidArgument(f'linux.sysctl: "{clip(name)}" is not allowed in the host network namespace')
    elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        if spaces.get("ipc", "host") and _is_ours(spaces.get("ipc", ""), "ipc"):
            raise InvalidArgument(f'linux.sysctl: "{clip(name)}" is not allowed in the host ipc namespace')
    elif name == "kernel.hostname":
        raise InvalidArgument('linux.sysctl: "kernel.hostname" is not allowed, it is the field hostname')
    elif name == "kernel.domainname" and "uts" in spaces:
        if spaces["uts"] and _is_ours(spaces["uts"], "uts"):
            raise InvalidArgument('linux.sysctl: "kernel.domainname" is not allowed in the host UTS namespace')
    elif not (name.startswith("user.") and "user" in spaces):
        raise InvalidArgument(f'linux.sysctl: "{clip(name)}" is not in a separate kernel namespace')


def _is_ours(path: str, kind: str) -> bool:
    """Whether a path, "" for none, leads to the namespace that we are in; one that is not there is reported later."""
    if not path:
        return True
    try:
        return os.path.samestat(os.stat(path), os.stat(f"/proc/self/ns/{kind}"))
    except OSError:
        return False


def net_devices(wanted: Mapping[str, NetDevice], spaces: Mapping[str, str]) -> Iterator[steps.MoveNetDevices]:
    if not wanted:
        return
    if "network" not in spaces:
        raise InvalidArgument("linux.netDevices: the container has no network namespace of its own")
    pairs = tuple((name, device.name or name) for name, device in wanted.items())
    for name, inside in pairs:
        if not _is_link_name(name) or "%" in name:
            raise InvalidArgument(f'linux.netDevices: "{clip(name, 40)}" is not the name of a link')
        if not _is_link_name(inside) or "%" in inside.replace("%d", "", 1):
            raise InvalidArgument(f'linux.netDevices: "{clip(inside, 40)}", for {name}, is not the name of a link')
    names = [inside for _, inside in pairs if "%d" not in inside]
    if len(set(names)) < len(names):
        raise InvalidArgument("linux.netDevices: two links would have the same name in the container")
    yield steps.MoveNetDevices(pairs)


def _is_link_name(name: str) -> bool:
    """By the kernel's own rule (dev_valid_name); IFNAMSIZ is 16 with the final zero."""
    bad = any(character in "/:" or character.isspace() for character in name)
    return bool(name) and len(name.encode()) < 16 and name not in (".", "..") and not bad
