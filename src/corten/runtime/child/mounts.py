"""Building the container's tree of mounts, all of it through descriptors and before pivot_root."""

from __future__ import annotations

import errno
import os
import stat

from corten.linux import mount as api
from corten.linux.imports import seal_imports
from corten.linux.inroot import ensure, ensure_parent
from corten.linux.openat2 import O_PATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root, openat2
from corten.linux.process import CLONE_NEWNS, setns
from corten.runtime.child.errors import NOT_FOUND, ChildFailed, fail, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.child.context import Context, Handler

    Attributes = tuple[int, int, int, int, tuple[tuple[int, bool], ...]]
    """MOUNT_ATTR_ bits to set and to clear on the mount, the same for all mounts below it, and the propagations as
    (MS_ flag, recursive) in their order."""
    Options = tuple[tuple[str, str | None], ...]
    Idmap = tuple[object, ...]
    """See `steps`; what is idmapped has been made and is held when a handler of this module gets it."""

_S_IFMT = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
# In the words that Docker's clients match on.
_MISMATCH = (
    'error mounting "{}" to rootfs at "{}": not a directory: Are you trying to mount a directory onto a file (or '
    "vice-versa)? Check if the specified host path exists and is the expected type"
)
# What may be mounted over inside /proc: files that lxcfs and the like provide. Anything else could hide from us, or
# from the container's owner, what the kernel says (CVE-2019-16884).
_PROC_FILES = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
        "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
    )
)  # fmt: skip


def set_propagation(ctx: Context, flags: int) -> None:
    """Of all mounts of the new namespace, which so far are peers of the host's."""
    here = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    enter_namespace_root()
    api.mount("", "/", "", flags)
    os.fchdir(here)
    os.chroot(".")
    os.close(here)


def enter_namespace_root() -> None:
    """Make the namespace's root ours. It is that already, unless the daemon was started in a chroot: then pivot_root
    from the chroot would leave the host's root above the container's, where `exec` enters the namespace and where a
    process with CAP_SYS_CHROOT gets out.
    """
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(fd, CLONE_NEWNS)
    os.close(fd)


def isolate_root_parent(ctx: Context) -> None:
    """Make the mount that the root lies on private: pivot_root refuses a shared one, and ours would show there."""
    best = "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = line.split(" ")[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            inside = ctx.root_path == point or ctx.root_path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best = point
    api.mount("", best, "", api.MS_PRIVATE)


def overlay_mount(
    ctx: Context,
    target: str,
    lower: tuple[str, ...],
    upper: str,
    work: str,
    options: Options,
    attributes: Attributes,
    idmap: Idmap,
) -> None:
    mounted = ctx.take(target)
    if mounted < 0:
        mounted = make_overlay(ctx, lower, upper, work, options, attributes)
    finish(mounted, attributes, target)
    _attach(ctx, mounted, target)


def make_overlay(
    ctx: Context, lower: tuple[str, ...], upper: str, work: str, options: Options, attributes: Attributes
) -> int:
    """A detached overlay, of which the attributes of the mount alone are set."""
    settings = (*((("upperdir", upper), ("workdir", work)) if upper else ()), *options)
    try:
        if api.overlay_takes_single_layers():
            return _overlay_by_layer(ctx, lower, settings, attributes[0])
        return _overlay_by_page(ctx, lower, settings, attributes[0])
    except OSError as error:
        fail("mount overlay", error, "mounting the root file system")


def _overlay_by_layer(ctx: Context, lower: tuple[str, ...], options: Options, attributes: int) -> int:
    """One layer per call of fsconfig, so that many fit; but a path of more than 255 bytes does not."""
    fs = api.fsopen("overlay")
    try:
        api.fsconfig_set(fs, "source", "overlay")
        for directory in lower:
            api.fsconfig_set(fs, "lowerdir+", directory)
        for key, value in options:
            api.fsconfig_set(fs, key, value)
        api.fsconfig_create(fs)
        return api.fsmount(fs, attributes)
    except OSError as error:
        messages = api.fs_messages(fs)
        try:
            return _overlay_by_page(ctx, lower, options, attributes)
        except OSError:
            fail("mount overlay", error, f"mounting the root file system{': ' + messages if messages else ''}")
    finally:
        os.close(fs)


def _overlay_by_page(ctx: Context, lower: tuple[str, ...], options: Options, attributes: int) -> int:
    """mount(2), whose options fit in one page; the mount, made at the root's directory and taken off again.

    Layers are named relative to what their paths have in common, so that as many as images can have fit.
    """
    before = os.open(".", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in lower])
        os.chdir(common)
        names = [os.path.relpath(path, common) for path in lower]
        escaped = ":".join(name.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for name in names)
        words = [f"{key}={value.replace(',', chr(92) + ',')}" if value is not None else key for key, value in options]
        api.mount("overlay", ctx.root_path, "overlay", 0, ",".join([f"lowerdir={escaped}", *words]))
    finally:
        os.fchdir(before)
        os.close(before)
    tree = api.open_tree(api.AT_FDCWD, ctx.root_path, api.OPEN_TREE_CLONE)
    api.umount2(ctx.root_path, api.MNT_DETACH)
    if attributes:
        api.mount_setattr(tree, "", attr_set=attributes)
    return tree


def hold_tree(ctx: Context, target: str, source: str, recursive: bool, idmap: Idmap) -> None:
    """Take the copy for a bind mount before the propagation of the mount that it comes from changes."""
    ctx.hold_for(target, copy_tree(source, recursive))


def copy_tree(source: str, recursive: bool) -> int:
    try:
        return api.open_tree(api.AT_FDCWD, source, api.OPEN_TREE_CLONE | (api.AT_RECURSIVE if recursive else 0))
    except OSError as error:
        fail("bind mount", error, f'error mounting "{source}" to the rootfs: open {source}')


def bind_mount(
    ctx: Context, source: str, target: str, recursive: bool, attributes: Attributes, idmap: Idmap = ()
) -> None:
    tree = ctx.take(target)
    if tree < 0:
        tree = copy_tree(source, recursive)
    if attributes[0] or attributes[1]:
        try:
            api.mount_setattr(tree, "", attr_set=attributes[0], attr_clr=attributes[1])
        except OSError as error:
            fail("mount", error, f'error mounting "{source}" to rootfs at "{target}": setting the options of the mount')
    if target == "/proc" and api.file_system_type(tree) != api.PROC_SUPER_MAGIC:
        raise ChildFailed("mount", errno.EPERM, '"/proc" cannot be mounted because it is not of type proc')
    finish(tree, attributes, target)
    _attach(ctx, tree, target, source=source, directory=_is_directory(tree))


def file_system_mount(
    ctx: Context, kind: str, source: str, target: str, options: Options, attributes: Attributes
) -> None:
    """A fresh file system. Its directory is made first, since a tmpfs takes over the mode of the one it hides."""
    place, existed = open_target(ctx, target, directory=True, plain=kind in ("proc", "sysfs"))
    try:
        if kind == "tmpfs" and existed:
            options = (("mode", f"{stat.S_IMODE(os.fstat(place).st_mode):04o}"), *options)
        mounted = ctx.take(target)
        if mounted < 0:
            mounted = make_file_system(kind, source, target, options, attributes[0])
        if kind == "proc":
            ctx.proc_device = os.fstat(mounted).st_dev
        finish(mounted, attributes, target)
        move(mounted, place, target)
    finally:
        os.close(place)
    os.close(mounted)


def make_file_system(kind: str, source: str, target: str, options: Options, attributes: int) -> int:
    """A detached mount of a fresh file system; `target` is for the error."""
    what, key = f'error mounting "{source or kind}" to rootfs at "{target}"', ""
    try:
        fs = api.fsopen(kind)
    except OSError as error:
        fail(f"mount {kind}", error, f'{what}: file system type "{kind}"')
    try:
        if source:
            api.fsconfig_set(fs, "source", source)
        for key, value in options:  # the error names the one at fault
            api.fsconfig_set(fs, key, value)
        key = ""
        api.fsconfig_create(fs)
        return api.fsmount(fs, attributes)
    except OSError as error:
        messages = api.fs_messages(fs)
        what += f', option "{key}"' if key else ""
        fail(f"mount {kind}", error, f"{what}: {messages}" if messages else what)
    finally:
        os.close(fs)


def cgroup_mount(ctx: Context, target: str, attributes: Attributes, private: bool) -> None:
    """The container's own groups at /sys/fs/cgroup: the v2 directory, or a tmpfs with one directory per hierarchy.

    They are bind mounts of the container's directories: with a cgroup namespace just what a fresh mount would show,
    and without one nothing of the other groups is to be seen. A pure v2 host without a namespace gets the whole tree,
    as nothing else fits what /proc/self/cgroup says then.
    """
    layout = ctx.cgroup.layout
    if layout.pure_v2:
        source = ctx.cgroup.unified if private else layout.unified
        tree = api.open_tree(api.AT_FDCWD, source, api.OPEN_TREE_CLONE)
        api.mount_setattr(tree, "", attr_set=attributes[0], attr_clr=attributes[1])
        finish(tree, attributes, target)
        _attach(ctx, tree, target)
        return
    # The tmpfs is made read-only last, when the directories for the hierarchies are in it.
    writable = attributes[0] & ~api.MOUNT_ATTR_RDONLY
    file_system_mount(ctx, "tmpfs", "cgroup", target, (("mode", "755"),), (writable, 0, 0, 0, ()))
    place = open_in_root(ctx.root, target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hierarchy, directory in ctx.cgroup.v1_directories():
            _mount_hierarchy(
                place, [name.removeprefix("name=") for name in hierarchy.controllers], directory, attributes
            )
        if attributes[0] & api.MOUNT_ATTR_RDONLY:
            api.mount_setattr(place, "", attr_set=api.MOUNT_ATTR_RDONLY)
        finish(place, attributes, target)
    finally:
        os.close(place)


def _mount_hierarchy(place: int, names: list[str], source: str, attributes: Attributes) -> None:
    """The group's directory as "cpu,cpuacct" in the fresh tmpfs, with a link for each of several controllers."""
    joined = ",".join(names)
    os.mkdir(joined, 0o755, dir_fd=place)
    tree = api.open_tree(api.AT_FDCWD, source, api.OPEN_TREE_CLONE)
    api.mount_setattr(tree, "", attr_set=attributes[0])
    api.move_mount(tree, place, joined)
    os.close(tree)
    for name in names if len(names) > 1 else ():
        os.symlink(joined, name, dir_fd=place)


def make_device(ctx: Context, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
    """A device node, or a bind mount of the host's where mknod is not allowed, or of one that is held."""
    if ctx.holds(path):
        bind_mount(ctx, path, path, False, (0, 0, 0, 0, ()))
        return
    parent, name = _directory_of(ctx, path)
    try:
        os.mknod(name, _S_IFMT[kind] | mode, os.makedev(major, minor), dir_fd=parent)
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        found = (status.st_mode, status.st_rdev, status.st_uid, status.st_gid)
        if found != (_S_IFMT[kind] | mode, os.makedev(major, minor), uid, gid):
            _replace_device(parent, name, kind, major, minor, mode)
    except OSError as error:
        if error.errno != errno.EPERM or not os.path.exists(path):
            fail("make device", error, f"linux.devices: creating device node {path}")
        bind_mount(ctx, path, path, False, (0, 0, 0, 0, ()))
        return
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)


def _directory_of(ctx: Context, path: str) -> tuple[int, str]:
    """The directory that `path` is in, made where missing, and the last component. The context owns the descriptor.

    Nothing is mounted between the first device and the last, and the container does not run yet: what was opened for
    one is right for the next.
    """
    parent, name = os.path.split(path)
    known, fd = ctx.directory
    if fd < 0 or known != parent:
        if fd >= 0:
            os.close(fd)
        fd, name = ensure_parent(ctx.root, path)
        ctx.directory = (parent, fd)
    return fd, name


def _replace_device(parent: int, name: str, kind: str, major: int, minor: int, mode: int) -> None:
    """An image's file is where a device of the specification goes."""
    os.unlink(name, dir_fd=parent)
    os.mknod(name, _S_IFMT[kind] | mode, os.makedev(major, minor), dir_fd=parent)


def make_symlink(ctx: Context, path: str, target: str) -> None:
    parent, name = _directory_of(ctx, path)
    try:
        os.symlink(target, name, dir_fd=parent)
    except FileExistsError:
        if name == "ptmx":  # must be the container's own, whatever was there
            os.unlink(name, dir_fd=parent)
            os.symlink(target, name, dir_fd=parent)


def mask_path(ctx: Context, path: str) -> None:
    """Hide `path`: a file behind the null device, a directory behind an empty read-only tmpfs. Absent: nothing."""
    if (place := _open_if_there(ctx, path)) < 0:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            cover = api.open_tree(ctx.null, "", api.OPEN_TREE_CLONE | api.AT_EMPTY_PATH)
        elif ctx.mask_directory < 0:
            cover = ctx.mask_directory = _empty_directory()
        else:
            cover = api.open_tree(ctx.mask_directory, "", api.OPEN_TREE_CLONE | api.AT_EMPTY_PATH)
        move(cover, place, path)
        if cover != ctx.mask_directory:
            os.close(cover)
    finally:
        os.close(place)


def _open_if_there(ctx: Context, path: str) -> int:
    """The place of a path to be covered, -1 when nobody in the container can get at it either."""
    try:
        return open_in_root(ctx.root, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _empty_directory() -> int:
    fs = api.fsopen("tmpfs")
    try:
        for key, value in (("source", "tmpfs"), ("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "755")):
            api.fsconfig_set(fs, key, value)
        api.fsconfig_create(fs)
        return api.fsmount(fs, api.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs)


def readonly_path(ctx: Context, path: str) -> None:
    if (place := _open_if_there(ctx, path)) < 0:
        return
    try:
        tree = api.open_tree(place, "", api.OPEN_TREE_CLONE | api.AT_EMPTY_PATH | api.AT_RECURSIVE)
        api.mount_setattr(tree, "", attr_set=api.MOUNT_ATTR_RDONLY, recursive=True)
        move(tree, place, path)
        os.close(tree)
    finally:
        os.close(place)


def readonly_mount(ctx: Context, path: str) -> None:
    place = open_in_root(ctx.root, path)
    try:
        api.mount_setattr(place, "", attr_set=api.MOUNT_ATTR_RDONLY)
    finally:
        os.close(place)


def readonly_root(ctx: Context) -> None:
    api.mount_setattr(ctx.root, "", attr_set=api.MOUNT_ATTR_RDONLY)


def pivot_root(ctx: Context, propagation: int) -> None:
    """Make the root the root. The old one is put on top of the new at the same place and taken off: no directory."""
    seal_imports()
    enter_namespace_root()
    old = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(ctx.root)
    api.pivot_root(".", ".")
    # "." is still the new root for mount(2), which does not look at what is on top: go to the old one.
    os.fchdir(old)
    os.close(old)
    # Not to be propagated to the host: the detaching of its mounts.
    api.mount("", ".", "", api.MS_SLAVE | api.MS_REC)
    api.umount2(".", api.MNT_DETACH)
    os.chdir("/")
    if propagation:
        api.mount("", "/", "", propagation)


def finish(mounted: int, attributes: Attributes, target: str) -> None:
    """The parts of the options that a mount has only after it is made."""
    _, _, recursive_set, recursive_clear, propagation = attributes
    try:
        if recursive_set or recursive_clear:
            api.mount_setattr(mounted, "", attr_set=recursive_set, attr_clr=recursive_clear, recursive=True)
        for flag, recursive in propagation:
            api.mount_setattr(mounted, "", propagation=flag, recursive=recursive)
    except OSError as error:
        fail("mount", error, f'error mounting to rootfs at "{target}": setting the options of the mount')


def _attach(ctx: Context, mounted: int, target: str, *, source: str = "", directory: bool = True) -> None:
    """Attach the mount and close it; one without a target becomes the root and stays open."""
    if not target:
        try:
            if ctx.place < 0:
                api.move_mount(mounted, api.AT_FDCWD, ctx.root_path)
            else:
                api.move_mount(mounted, ctx.place)
        except OSError as error:
            fail("mount root", error, f"mounting the root file system at {ctx.root_path}")
        ctx.root = mounted
        return
    place, _ = open_target(ctx, target, directory=directory)
    try:
        move(mounted, place, target, source)
    finally:
        os.close(place)
    os.close(mounted)


def move(mounted: int, place: int, target: str, source: str = "") -> None:
    try:
        api.move_mount(mounted, place)
    except OSError as error:
        if error.errno == errno.EINVAL and _is_directory(mounted) != _is_directory(place):
            raise ChildFailed("mount", errno.ENOTDIR, _MISMATCH.format(source, target), NOT_FOUND) from None
        what = f'"{source}" to' if source else "to"
        fail("mount", error, f'error mounting {what} rootfs at "{target}"')


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def open_target(ctx: Context, target: str, *, directory: bool, plain: bool = False) -> tuple[int, bool]:
    """The place of a mount, made where it is missing; `plain` refuses symbolic links on the way."""
    try:
        if plain:
            try:
                return openat2(ctx.root, target, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS), True
            except FileNotFoundError:
                pass
        place, existed = ensure(ctx.root, target, directory=directory, mode=0o755)
    except OSError as error:
        raise ChildFailed(
            "mount", error.errno or 0, f'error mounting to rootfs at "{target}": {reason(error)}'
        ) from None
    if os.fstat(place).st_dev == ctx.proc_device and os.path.normpath(target) not in _PROC_FILES:
        os.close(place)
        raise ChildFailed("mount", errno.EPERM, f'"{target}" cannot be mounted because it is inside /proc')
    return place, existed


HANDLERS: dict[str, Handler] = {
    "SetPropagation": set_propagation,
    "HoldTree": hold_tree,
    "IsolateRootParent": isolate_root_parent,
    "OverlayMount": overlay_mount,
    "BindMount": bind_mount,
    "FileSystemMount": file_system_mount,
    "CgroupMount": cgroup_mount,
    "MakeDevice": make_device,
    "MakeSymlink": make_symlink,
    "MaskPath": mask_path,
    "ReadonlyPath": readonly_path,
    "ReadonlyMount": readonly_mount,
    "ReadonlyRoot": readonly_root,
    "PivotRoot": pivot_root,
}
