"""Mounts that are made with the rights of the host's root, and attached later by a child that has none of them.

They are descriptors of detached mounts, which a fork inherits: whoever may change the tree of mounts that he is in may
attach them there. All this goes on in a mount namespace of the helper's own, so that what needs a place for a moment
finds one on the root's empty directory.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from corten.linux import capability, process
from corten.linux import mount as api
from corten.linux.openat2 import O_PATH, RESOLVE_BENEATH, RESOLVE_NO_XDEV, openat2
from corten.runtime.child import mounts, usernamespace
from corten.runtime.child import process as steps
from corten.runtime.child.context import Context
from corten.runtime.child.errors import ChildFailed, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.cgroups import Cgroup
    from corten.runtime.child.channel import Channel
    from corten.runtime.child.context import Handler
    from corten.runtime.child.mounts import Attributes, Options
    from corten.runtime.child.usernamespace import Mappings, UserNamespace

    Idmap = tuple[()] | tuple[bool, Mappings, Mappings]
    Node = tuple[str, str, int, int, int, int, int]

_HARMLESS = api.MOUNT_ATTR_NOSUID | api.MOUNT_ATTR_NOEXEC
_S_IFMT = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Stage(Context):
    """What the helper's steps share. `user` is the container's user namespace, None without one."""

    __slots__ = ("_others", "user")

    def __init__(self, channel: Channel, cgroup: Cgroup, root_path: str, user: UserNamespace | None) -> None:
        super().__init__(channel, cgroup, root_path)
        self.user = user
        self._others: dict[tuple[Mappings, Mappings], UserNamespace] = {}

    def namespace_of(self, idmap: Idmap) -> UserNamespace:
        """The user namespace that maps as a mount wants it: the container's, or one made for it."""
        assert idmap
        _, uids, gids = idmap
        if self.user is not None and (not uids or (uids, gids) == (self.user.uids, self.user.gids)):
            return self.user
        made = self._others.get((uids, gids))
        if made is None:
            made = self._others[uids, gids] = usernamespace.create(uids, gids)
        return made


def hold_tree(ctx: Stage, target: str, source: str, recursive: bool, idmap: Idmap) -> None:
    tree = mounts.copy_tree(source, recursive)
    if idmap:
        _idmap(tree, ctx.namespace_of(idmap), idmap[0], f'"{source}" on {target or "/"}')
    ctx.hold_for(target, tree)


def _idmap(tree: int, user: UserNamespace, recursive: bool, what: str) -> None:
    try:
        api.idmap(tree, user.fd, recursive=recursive)
    except OSError as error:
        if error.errno == errno.EINVAL:
            detail = f"idmapping the mount of {what}: its file system cannot be idmapped"
            raise ChildFailed("idmap", errno.EINVAL, detail) from None
        fail("idmap", error, f"idmapping the mount of {what}")


def hold_overlay(
    ctx: Stage,
    target: str,
    lower: tuple[str, ...],
    upper: str,
    work: str,
    options: Options,
    attributes: Attributes,
    idmap: Idmap,
) -> None:
    if not idmap:
        ctx.hold_for(target, mounts.make_overlay(ctx, lower, upper, work, options, attributes))
        return
    user = ctx.namespace_of(idmap)
    places = _Places(ctx.root_path)
    try:
        units: list[tuple[str, ...]] = [(path,) for path in lower]
        if upper:
            units.append((upper, work))
        found = _map_layers(places, units, user)
        names = tuple([found[path] for path in lower])
        _become_file_owner(user.uid(0), user.gid(0))
        made = mounts.make_overlay(ctx, names, found.get(upper, ""), found.get(work, ""), options, attributes)
    finally:
        _become_file_owner(0, 0)
        places.remove()
    ctx.hold_for(target, made)


def _become_file_owner(uid: int, gid: int) -> None:
    """Be `uid` to file systems with all capabilities in effect: overlay makes directories as who mounted it, and on an
    idmapped layer the host's root has no number at all (EOVERFLOW)."""
    _, permitted, inheritable = capability.capget()
    process.set_file_ids(uid, gid)
    capability.capset(permitted, permitted, inheritable)
    process.prctl(process.PR_SET_DUMPABLE, 0)  # was set to the sysctl fs.suid_dumpable


class _Places:
    """A tmpfs on the root's directory, with a numbered directory for each mount that needs a path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._count = 0
        tree = mounts.make_file_system("tmpfs", "tmpfs", path, (("mode", "700"),), _HARMLESS)
        api.move_mount(tree, api.AT_FDCWD, path)
        self.directory = tree

    def attach(self, tree: int) -> str:
        name = str(self._count)
        self._count += 1
        os.mkdir(name, 0o700, dir_fd=self.directory)
        api.move_mount(tree, self.directory, name)
        return f"{self.path}/{name}"

    def remove(self) -> None:
        os.close(self.directory)
        api.umount2(self.path, api.MNT_DETACH)


def _map_layers(places: _Places, units: list[tuple[str, ...]], user: UserNamespace) -> dict[str, str]:
    """Idmapped copies of directories: where each of them is now.

    One copy of what they are all below serves as many as are on one mount, so that an image of a hundred layers costs
    no more than one of a few. What is not reached through it, such as a layer with a mount of its own, is copied by
    itself. The directories of one unit stay on one mount, as overlay wants it of upper and work.
    """
    groups: dict[int, list[tuple[str, ...]]] = {}
    for unit in units:
        groups.setdefault(os.stat(unit[0]).st_dev, []).append(unit)
    found: dict[str, str] = {}
    for group in groups.values():
        together = _map_below(places, [path for unit in group for path in unit], user)
        if together is not None:
            found |= together
            continue
        for unit in group:
            alone = _map_below(places, list(unit), user)
            if alone is None:
                raise ChildFailed("idmap", errno.EXDEV, f"idmapping the root file system: {unit[0]} is on two mounts")
            found |= alone
    return found


def _map_below(places: _Places, paths: list[str], user: UserNamespace) -> dict[str, str] | None:
    """The paths in one idmapped copy of the directory above them all, None when that does not show all of them."""
    above = os.path.commonpath(paths)
    tree = mounts.copy_tree(above, False)
    try:
        names = {path: os.path.relpath(path, above) for path in paths}
        if not all(_is_same(tree, name, path) for path, name in names.items()):
            return None
        _idmap(tree, user, False, f"{above} for the root file system")
        place = places.attach(tree)
        return {path: os.path.normpath(f"{place}/{name}") for path, name in names.items()}
    finally:
        os.close(tree)


def _is_same(tree: int, name: str, path: str) -> bool:
    """Whether `name` in the copy is the directory `path`, reached without leaving the copy by a link."""
    try:
        fd = openat2(tree, name, O_PATH | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_XDEV)
    except OSError:
        return False
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    finally:
        os.close(fd)


def hold_file_system(ctx: Stage, kind: str, source: str, target: str, options: Options, attributes: Attributes) -> None:
    ctx.hold_for(target, mounts.make_file_system(kind, source, target, options, attributes[0]))


def hold_devices(ctx: Stage, nodes: tuple[Node, ...]) -> None:
    """Nodes of the container's root, on a file system of the host's: in one of its own they could not be opened."""
    assert ctx.user is not None
    places = _Places(ctx.root_path)
    try:
        for node in nodes:
            ctx.hold_for(node[0], _make_node(places.directory, node, ctx.user))
    finally:
        places.remove()


def _make_node(directory: int, node: Node, user: UserNamespace) -> int:
    path, kind, major, minor, mode, uid, gid = node
    owner = user.uid(uid), user.gid(gid)
    if -1 in owner:
        detail = f"linux.devices: {path}: its owner {uid}:{gid} is not mapped in the user namespace"
        raise ChildFailed("make device", errno.EINVAL, detail)
    name = os.path.basename(path)
    try:
        os.mknod(name, _S_IFMT[kind] | mode, os.makedev(major, minor), dir_fd=directory)
    except FileExistsError:  # another directory's of the same name: what is mounted stays without it
        os.unlink(name, dir_fd=directory)
        os.mknod(name, _S_IFMT[kind] | mode, os.makedev(major, minor), dir_fd=directory)
    except PermissionError:  # in a container ourselves: then the node of that name, if there is one
        return mounts.copy_tree(path, False)
    except OSError as error:
        fail("make device", error, f"creating device node {path}")
    os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    return api.open_tree(directory, name, api.OPEN_TREE_CLONE)


def raise_rlimits(ctx: Context, limits: tuple[tuple[int, int, int], ...]) -> None:
    """Only the host's root may raise a hard limit. All else about the limits comes later, and what fails here too."""
    for number, _, hard in limits:
        soft, ceiling = resource.getrlimit(number)
        wanted = steps.rlim(hard)
        if ceiling != -1 and (wanted == -1 or wanted > ceiling):
            try:
                resource.setrlimit(number, (soft, wanted))
            except (OSError, ValueError):
                continue


HANDLERS: dict[str, Handler] = {
    "SetPropagation": mounts.set_propagation,
    "IsolateRootParent": mounts.isolate_root_parent,
    "HoldTree": hold_tree,
    "HoldOverlay": hold_overlay,
    "HoldFileSystem": hold_file_system,
    "HoldDevices": hold_devices,
    "RaiseRlimits": raise_rlimits,
    "SetOomScore": steps.set_oom_score,
}
