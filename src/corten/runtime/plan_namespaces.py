"""The namespaces of a specification, and the ids and clocks in them."""

from __future__ import annotations

from corten.errors import InvalidArgument, clip
from corten.linux import process as kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.runtime.steps import Idmap, Mappings
    from corten.specs.oci_runtime import IDMapping, Linux, User

    UserNamespace = tuple[str, Mappings, Mappings]
    """The path of one to join, "" to make one; uids and gids, which a path may do without."""

NAMESPACES = {
    "mount": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "network": kernel.CLONE_NEWNET,
    "uts": kernel.CLONE_NEWUTS,
    "ipc": kernel.CLONE_NEWIPC,
    "cgroup": kernel.CLONE_NEWCGROUP,
    "user": kernel.CLONE_NEWUSER,
    "time": kernel.CLONE_NEWTIME,
}

_CLOCKS = ("monotonic", "boottime")
_NO_ID = (1 << 32) - 1  # (uid_t) -1
_MAX_EXTENTS = 340  # UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h


def spaces_of(linux: Linux) -> dict[str, str]:
    """Type to path, "" for a new one. Raises InvalidArgument."""
    spaces: dict[str, str] = {}
    for space in linux.namespaces:
        if space.type not in NAMESPACES:
            raise InvalidArgument(f"linux.namespaces: the type {clip(space.type, 40)} is unknown")
        if space.type in spaces:
            raise InvalidArgument(f"linux.namespaces: the namespace {space.type} is given twice")
        if space.path and not space.path.startswith("/"):
            raise InvalidArgument(f"linux.namespaces: the path {clip(space.path)} is not absolute")
        spaces[space.type] = space.path
    if "mount" not in spaces:
        raise InvalidArgument("linux.namespaces: a container needs a mount namespace")
    return spaces


def flags_of(spaces: dict[str, str]) -> int:
    """The CLONE_NEW flags for the new namespaces that the child is born in.

    Not the cgroup's, whose root is the group that its maker is in, and not the user's, which owns the others.
    """
    flags = 0
    for kind, path in spaces.items():
        flags |= 0 if path or kind in ("cgroup", "user") else NAMESPACES[kind]
    return flags


def joins_of(spaces: dict[str, str]) -> tuple[tuple[int, str], ...]:
    """(CLONE_NEW flag, path) of those that exist already. The pid namespace is for children alone."""
    return tuple((NAMESPACES[kind], path) for kind, path in spaces.items() if path and kind not in ("pid", "user"))


def user_of(linux: Linux, spaces: dict[str, str]) -> UserNamespace | None:
    """The user namespace. Raises InvalidArgument for mappings that the kernel would not take."""
    uids = mappings_of("linux.uidMappings", linux.uid_mappings)
    gids = mappings_of("linux.gidMappings", linux.gid_mappings)
    if "user" not in spaces:
        if uids or gids:
            raise InvalidArgument("linux.uidMappings and gidMappings need a user namespace in linux.namespaces")
        return None
    if not spaces["user"] or uids or gids:
        for name, mappings in (("uid", uids), ("gid", gids)):
            if not mappings:
                raise InvalidArgument(f"linux.{name}Mappings: a user namespace needs at least one mapping")
            if not any(first == 0 for first, _, _ in mappings):
                raise InvalidArgument(f"linux.{name}Mappings: nothing is mapped to the container's {name} 0")
    return spaces["user"], uids, gids


def check_user(user: User, mappings: UserNamespace | None) -> None:
    """Raises InvalidArgument for an id that nobody in the user namespace can have."""
    if mappings is None:
        return
    _, uids, gids = mappings
    for name, extents, ids in (
        ("uid", uids, (user.uid,)),
        ("gid", gids, (user.gid,)),
        ("additionalGids", gids, user.additional_gids),
    ):
        for number in ids:
            if extents and not any(first <= number < first + count for first, _, count in extents):
                raise InvalidArgument(f"process.user.{name}: {number} is not mapped in the user namespace")


def mappings_of(name: str, mappings: Sequence[IDMapping]) -> Mappings:
    """`name` is the member's, for messages. Raises InvalidArgument."""
    if len(mappings) > _MAX_EXTENTS:
        raise InvalidArgument(f"{name}: {len(mappings)} mappings, and the kernel takes {_MAX_EXTENTS}")
    found: list[tuple[int, int, int]] = []
    for index, mapping in enumerate(mappings):
        here = f"{name}[{index}]"
        inside, outside, size = mapping.container_id, mapping.host_id, mapping.size
        if size <= 0:
            raise InvalidArgument(f"{here}: the size is {size}")
        for start in (inside, outside):
            if start < 0 or start + size > _NO_ID:
                raise InvalidArgument(f"{here}: {start} and the {size - 1} ids after it are not all ids")
        for other, (first, second, count) in enumerate(found):
            if inside < first + count and first < inside + size:
                raise InvalidArgument(f"{here}: container ids overlap those of {name}[{other}]")
            if outside < second + count and second < outside + size:
                raise InvalidArgument(f"{here}: host ids overlap those of {name}[{other}]")
        found.append((inside, outside, size))
    return tuple(found)


def idmap_of(
    name: str, word: str, uid_mappings: Sequence[IDMapping], gid_mappings: Sequence[IDMapping], *, remapped: bool
) -> Idmap:
    """How the mount `name` is idmapped. `word` is idmap, ridmap or ""; `remapped` whether the container has a user
    namespace. Raises InvalidArgument."""
    uids = mappings_of(f"{name}.uidMappings", uid_mappings)
    gids = mappings_of(f"{name}.gidMappings", gid_mappings)
    if not word and not uids and not gids:
        return ()
    if bool(uids) != bool(gids):
        raise InvalidArgument(f"{name}: uidMappings and gidMappings come together")
    if not uids and not remapped:
        raise InvalidArgument(f"{name}: the option {word} needs mappings, or a user namespace of the container's")
    return word == "ridmap", uids, gids


def offsets_of(linux: Linux, spaces: dict[str, str]) -> str:
    """What goes into /proc/self/timens_offsets. Raises InvalidArgument."""
    if linux.time_offsets and spaces.get("time", "host"):
        raise InvalidArgument("linux.timeOffsets need a new time namespace in linux.namespaces")
    lines = []
    for clock, offset in linux.time_offsets.items():
        if clock not in _CLOCKS:
            raise InvalidArgument(f"linux.timeOffsets: the clock {clip(clock, 40)} is unknown")
        if not 0 <= offset.nanosecs < 10**9:
            raise InvalidArgument(f"linux.timeOffsets.{clock}.nanosecs: {offset.nanosecs} is no part of a second")
        if not -(1 << 63) <= offset.secs < 1 << 63:
            raise InvalidArgument(f"linux.timeOffsets.{clock}.secs: {offset.secs} is out of range")
        lines.append(f"{clock} {offset.secs} {offset.nanosecs}\n")
    return "".join(lines)
