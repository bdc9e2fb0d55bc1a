"""Whether mounts can travel between a container and the host as its bind mounts ask for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from corten.engine.faults import host_fault
from corten.engine.models import MountPoint
from corten.errors import SystemFault, clip

_SHARED = ("shared", "rshared")
_SLAVE = ("slave", "rslave")


def asks(points: Iterable[MountPoint]) -> list[MountPoint]:
    """Those that depend on what their source is mounted with."""
    return [point for point in points if point.propagation in _SHARED + _SLAVE]


def check(points: Sequence[MountPoint]) -> None:
    """Raises SystemFault in Docker's words: such a mount would be made, and nothing would ever travel. Blocking."""
    with host_fault("read the host's mounts"), open("/proc/self/mountinfo", errors="surrogateescape") as file:
        mounts = parse(file.read())
    for point in points:
        _check(point, mounts)


def parse(mountinfo: str) -> dict[str, frozenset[str]]:
    """By mount point, the optional fields ("shared:1", "master:2"); of mounts on top of each other, the last one's."""
    found = {}
    for line in mountinfo.splitlines():
        words = line.split(" ")
        found[_plain(words[4])] = frozenset(words[6 : words.index("-")])
    return found


def _plain(path: str) -> str:
    """proc_pid_mountinfo(5) writes these four characters in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _check(point: MountPoint, mounts: dict[str, frozenset[str]]) -> None:
    place = os.path.realpath(point.source)
    while place not in mounts and place != "/":
        place = os.path.dirname(place)
    kinds = {word.partition(":")[0] for word in mounts.get(place, ())}
    if point.propagation in _SHARED and "shared" not in kinds:
        what = "a shared mount"
    elif point.propagation in _SLAVE and not kinds & {"shared", "master"}:
        what = "a shared or slave mount"
    else:
        return
    raise SystemFault(f"path {clip(point.source, 200)} is mounted on {clip(place, 200)} but it is not {what}")
