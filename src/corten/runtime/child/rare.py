"""Steps that few containers have: imported by the launcher when a plan has one."""

from __future__ import annotations

import errno
import os
import stat

from corten.linux import mount as api
from corten.linux.imports import seal_imports
from corten.linux.openat2 import open_in_root
from corten.runtime.child import channel, copyup
from corten.runtime.child.errors import fail
from corten.runtime.child.mounts import enter_namespace_root, finish, make_file_system, move, open_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.child.context import Context, Handler
    from corten.runtime.child.mounts import Attributes, Options


def copy_up_mount(ctx: Context, source: str, target: str, options: Options, attributes: Attributes) -> None:
    """A tmpfs with what the root has at its place; owner and mode of the directory too, where no option says else."""
    place, existed = open_target(ctx, target, directory=True)
    try:
        status = os.fstat(place)
        taken = (
            ("mode", f"{stat.S_IMODE(status.st_mode):04o}"),
            ("uid", str(status.st_uid)),
            ("gid", str(status.st_gid)),
        )
        mounted = make_file_system("tmpfs", source, target, (*taken, *options), attributes[0])
        if existed:
            _copy(place, mounted, target)
        finish(mounted, attributes, target)
        move(mounted, place, target)
        os.close(mounted)
    finally:
        os.close(place)


def _copy(place: int, mounted: int, target: str) -> None:
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    try:
        copyup.copy_contents(opened, mounted)
    except OSError as error:
        fail("copy up", error, f'copying what is at "{target}" into the tmpfs there')
    finally:
        os.close(opened)


def legacy_mount(
    ctx: Context, kind: str, source: str, target: str, flags: int, options: Options, attributes: Attributes
) -> None:
    """By mount(2), on top of the root's directory and taken off again: what is left is a mount like any other."""
    words = ",".join(key if value is None else f"{key}={value}" for key, value in options)
    try:
        api.mount(source or kind, ctx.root_path, kind, flags, words)
        mounted = api.open_tree(api.AT_FDCWD, ctx.root_path, api.OPEN_TREE_CLONE)
        api.umount2(ctx.root_path, api.MNT_DETACH)
    except OSError as error:
        fail(f"mount {kind}", error, f'error mounting "{source or kind}" to rootfs at "{target}"')
    if attributes[0]:
        api.mount_setattr(mounted, "", attr_set=attributes[0])
    finish(mounted, attributes, target)
    place, _ = open_target(ctx, target, directory=True)
    try:
        move(mounted, place, target)
    finally:
        os.close(place)
    os.close(mounted)


def remount(ctx: Context, target: str, options: Options, attributes: Attributes) -> None:
    messages = ""
    try:
        place = open_in_root(ctx.root, target)
        if attributes[0] or attributes[1] or not options:  # refused where nothing is mounted
            api.mount_setattr(place, "", attr_set=attributes[0], attr_clr=attributes[1])
        finish(place, attributes, target)
        if options:
            fs = api.fspick(place)
            try:
                for key, value in options:
                    api.fsconfig_set(fs, key, value)
                api.fsconfig_reconfigure(fs)
            except OSError:
                messages = api.fs_messages(fs)
                raise
            finally:
                os.close(fs)
        os.close(place)
    except OSError as error:
        fail("remount", error, f'error remounting "{target}"' + (f": {messages}" if messages else ""))


def move_net_devices(ctx: Context, devices: tuple[tuple[str, str], ...]) -> None:
    """The parent does it, as it still is where the links are."""
    ctx.channel.send(channel.NET_DEVICES, devices)
    ctx.channel.await_go()


def move_root(ctx: Context, propagation: int) -> None:
    """Put the root over the host's and enter it by chroot.

    The host's mounts stay in the namespace, below ours; its proc and sysfs, which show and change more than others, are
    taken away, as a way out of the chroot would lead to them.
    """
    seal_imports()
    enter_namespace_root()
    for place in _host_views(ctx):
        try:
            api.umount2(place, api.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOENT):
                raise
    os.fchdir(ctx.root)
    api.mount(".", "/", "", api.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    if propagation:
        api.mount("", "/", "", propagation)


def _host_views(ctx: Context) -> list[str]:
    """Where proc and sysfs are mounted outside the container's root, the last first."""
    found = []
    fd = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=ctx.proc)
    with open(fd, "rb") as file:
        for line in file.read().splitlines():
            before, _, after = line.partition(b" - ")
            place = os.fsdecode(before.split(b" ")[4].replace(b"\\040", b" ").replace(b"\\134", b"\\"))
            inside = place == ctx.root_path or place.startswith(ctx.root_path + "/")
            if after.split(b" ")[0] in (b"proc", b"sysfs") and not inside:
                found.append(place)
    return found[::-1]


HANDLERS: dict[str, Handler] = {
    "MoveRoot": move_root,
    "CopyUpMount": copy_up_mount,
    "LegacyMount": legacy_mount,
    "Remount": remount,
    "MoveNetDevices": move_net_devices,
}
