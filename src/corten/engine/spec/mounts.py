"""What is mounted in a container: the usual file systems, its etc files, and what the user asked for."""

from __future__ import annotations

from collections.abc import Sequence

from corten.engine.models import MountPoint
from corten.specs.oci_runtime import Mount

PROPAGATIONS = frozenset("private rprivate shared rshared slave rslave".split())
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")

# An option of a tmpfs mount that undoes another one.
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "atime": "noatime"}
_OPPOSITES |= {negative: positive for positive, negative in _OPPOSITES.items()}


def defaults(*, privileged: bool, shm_size: int, writable_cgroups: bool | None = None) -> list[Mount]:
    """/proc, /dev and the rest. A privileged container may write to /sys, and to its cgroups unless told otherwise."""
    access = "rw" if privileged else "ro"
    cgroups = access if writable_cgroups is None else "rw" if writable_cgroups else "ro"
    return [
        Mount(destination="/proc", type="proc", source="proc", options=["nosuid", "noexec", "nodev"]),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", access]),
        Mount(
            destination="/sys/fs/cgroup",
            type="cgroup",
            source="cgroup",
            options=[cgroups, "nosuid", "noexec", "nodev"],
        ),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=["nosuid", "noexec", "nodev"]),
        Mount(
            destination="/dev/shm",
            type="tmpfs",
            source="shm",
            options=["nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"],
        ),
    ]


def bind(source: str, destination: str, *, writable: bool = True, propagation: str = "rprivate") -> Mount:
    options = ["rbind", propagation or "rprivate"]
    return Mount(destination=destination, type="bind", source=source, options=options if writable else [*options, "ro"])


def user_mount(point: MountPoint, *, remapped: bool = False, staged: str = "") -> Mount:
    """One of the record's mounts, as the runtime takes it; `staged` is where it is found if not at its source.

    Ids of a volume are those inside, whoever mounts it: for a remapped container its mount shifts them. Folders of the
    host keep their owners.
    """
    if point.type == "tmpfs":
        return Mount(destination=point.destination, type="tmpfs", source="tmpfs", options=list(point.options))
    mount = bind(staged or point.source, point.destination, writable=point.rw, propagation=point.propagation)
    if "nonrecursive" in point.options:
        mount.options[0] = "bind"
    if "rro" in point.options:
        mount.options.append("rro")
    if remapped and point.type == "volume":
        mount.options.append("idmap")
    return mount


def tmpfs_options(text: str) -> list[str]:
    """`--tmpfs`'s options over Docker's own: `exec` undoes the `noexec` that is there by default."""
    options = list(TMPFS_DEFAULTS)
    for option in filter(None, text.split(",")):
        if (opposite := _OPPOSITES.get(option)) in options:
            options.remove(opposite)
        if option not in options:
            options.append(option)
    return options


def combine(base: Sequence[Mount], own: Sequence[Mount]) -> list[Mount]:
    """`base` without what `own` replaces, then `own`, parents before what is mounted below them.

    A user's mount of /dev replaces all of /dev/…, as those would be mounted on what the user gave.
    """
    taken = {mount.destination for mount in own}
    kept = [
        m for m in base if m.destination not in taken and not ("/dev" in taken and m.destination.startswith("/dev/"))
    ]
    return kept + sorted(own, key=lambda mount: mount.destination.rstrip("/").count("/"))


def root_propagation(points: Sequence[MountPoint]) -> str:
    """What the root must be so that the mounts in it can be: shared, rslave, or "" for private."""
    wanted = {point.propagation for point in points}
    if wanted & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wanted & {"slave", "rslave"} else ""
