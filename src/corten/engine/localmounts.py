"""What volumes with options (`type`, `o`, `device`) mount at their directory while containers that use them run.

The host's own table of mounts says what is mounted, so that a daemon that was killed is taken over from.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from corten.errors import InvalidArgument, SystemFault, clip
from corten.linux.mount import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    mount,
    umount2,
)

KNOWN = ("type", "o", "device")
_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}

# linux/mount.h; what is not among these is for the file system. mount(8) has the words.
_FLAGS = {
    "ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "sync": 16, "mand": 64,
    "dirsync": 128, "noatime": 1 << 10, "nodiratime": 1 << 11, "bind": MS_BIND, "rbind": MS_BIND | MS_REC,
    "relatime": 1 << 21, "strictatime": 1 << 24,
}  # fmt: skip
_CLEAR = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "nomand": "mand",
    "atime": "noatime", "diratime": "nodiratime", "norelatime": "relatime", "nostrictatime": "strictatime",
}  # fmt: skip
_PROPAGATIONS = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE | MS_REC, "shared": MS_SHARED, "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE, "rslave": MS_SLAVE | MS_REC,
}  # fmt: skip


def check(name: str, options: dict[str, str]) -> None:
    """Raises InvalidArgument in Docker's words."""
    for key in options:
        if key not in KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{clip(key)}"')
    for key, needed in _REQUIRED.items():
        for other in needed if options.get(key) else ():
            if not options.get(other):
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')


def parse(words: str) -> tuple[int, int, str]:
    """The option `o` as (flags of mount(2), propagation, what the file system is told)."""
    flags, propagation, data = 0, 0, []
    for word in filter(None, words.split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word in _CLEAR:
            flags &= ~_FLAGS[_CLEAR[word]]
        elif word in _PROPAGATIONS:
            propagation = _PROPAGATIONS[word]
        elif word != "defaults":
            data.append(word)
    return flags, propagation, ",".join(data)


def is_mounted(place: Path) -> bool:
    """By the host's table, as a bind mount is on the same device as the directory that it is on."""
    wanted = str(place.resolve()).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == wanted for line in file)


def attach(place: Path, options: dict[str, str]) -> None:
    """Mount what the options say, unless something is mounted there. Raises SystemFault in Docker's words. Blocking."""
    if is_mounted(place):
        return
    kind, device = options.get("type", ""), options.get("device", "")
    flags, propagation, data = parse(options.get("o", ""))
    try:
        if kind in ("nfs", "nfs4", "cifs"):
            data = _resolved(data)
        mount(device, str(place), kind, flags, data)
    except OSError as error:
        raise SystemFault(_words(place, device, flags, data, error), errno=error.errno or 0) from error
    try:
        if propagation:
            mount("", str(place), "", propagation)
        if flags & MS_BIND and flags & ~(MS_BIND | MS_REC):  # the kernel takes no other flag with the first call
            mount("", str(place), "", flags & ~MS_REC | MS_REMOUNT)
    except OSError as error:
        umount2(str(place), MNT_DETACH)
        raise SystemFault(_words(place, device, flags, data, error), errno=error.errno or 0) from error


def detach(place: Path) -> None:
    """Unmount all that is mounted there. Raises SystemFault where something stays, which nobody may delete."""
    with suppress(OSError):
        while True:
            umount2(str(place), MNT_DETACH)
    if is_mounted(place):
        raise SystemFault(f"cannot unmount {place}")


def _resolved(data: str) -> str:
    """The kernel takes addresses only."""
    words = data.split(",")
    for number, word in enumerate(words):
        if word.startswith("addr="):
            address = socket.getaddrinfo(word.removeprefix("addr="), None)[0][4][0]
            words[number] = f"addr={address}"
    return ",".join(words)


def _words(place: Path, device: str, flags: int, data: str, error: OSError) -> str:
    shown = ",".join(
        "password=********" if word.startswith(("password=", "pass=")) else word for word in data.split(",")
    )
    told = (f", flags: {flags:#x}" if flags else "") + (f", data: {clip(shown, 200)}" if data else "")
    reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    return (
        f"error while mounting volume '{place}': failed to mount local volume: "
        f"mount {clip(device, 200)}:{place}{told}: {reason}"
    )
