"""The container's files as the whole world of a process: what comes after `enter` cannot name anything else.

A running container's mounts are copied from its mount namespace, a stopped one's layers and volumes are put together
here, in a mount namespace of this process alone, whose root the tree then becomes: the host's files are not in it at
all, so that no path, link or race can lead to them (CVE-2018-15664). Nothing in it can be executed or mapped as a
program, and no module is looked for in it (CVE-2019-14271); devices cannot be opened; the kernel's own file systems
(/proc, /sys) are left out; when nothing is to be written, everything is read-only.
Once per process, which must have one thread and no use for anything else afterwards.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.linux import capability
from corten.linux.imports import seal_imports
from corten.linux.inroot import ensure
from corten.linux.mount import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    idmap,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    pivot_root,
    umount2,
)
from corten.linux.openat2 import open_in_root
from corten.linux.process import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_SET_NO_NEW_PRIVS,
    prctl,
    setns,
    unshare,
)
from corten.linux.usernamespace import fork_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UMOUNT_NOFOLLOW = 8  # linux/fs.h
_HARMLESS = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
_DATA = frozenset(  # of the file systems without a block device, those that hold somebody's data
    "overlay tmpfs ramfs nfs nfs4 cifs smb3 9p virtiofs fuse fuse.fuseblk ceph glusterfs zfs btrfs bcachefs ecryptfs "
    "devtmpfs hugetlbfs ubifs lustre gpfs afs".split()
)
_KEPT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
)
_ROUNDS = 256


class Gone(Exception):
    """The container's first process has ended."""


def enter(view: dict[str, Any], *, writable: bool) -> int:
    """Make the tree that `view` describes the root of this process; its descriptor.

    `view` is `{"pid", "id", "remapped"}` for a running container, else `{"layers", "upper", "work", "options"}` with
    `layers` topmost first, or `{"bind": path}`; and `mounts`, each `{"source", "subpath", "destination", "readonly",
    "owners"}` with the `layers` and `options` of an image; and `readonly`, of the root. `inside` are the uid and gid
    mappings of its user namespace, if it will have one: as that will show them, files of mounts with `owners` are shown
    here, where their file system can do it. With `bare` what is mounted in the root is left out. Raises OSError, and
    Gone.
    """
    own = _own_namespace()
    user = -1
    if "pid" in view:
        tree, user = _of_running(view)
        mounts: list[tuple[int, str]] = []
    else:
        tree = _of_layers(view, writable=writable)
        mounts = _copy_mounts(view)
    setns(own, CLONE_NEWNS)
    os.close(own)
    seal_imports()
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    data = _data_file_systems(proc)
    mount_setattr(tree, "", attr_set=_HARMLESS, propagation=MS_PRIVATE, recursive=True)
    move_mount(tree, AT_FDCWD, "/")
    os.fchdir(tree)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")
    os.close(tree)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for fd, destination in mounts:
        _attach(root, fd, destination)
    _drop_kernel_file_systems(proc, data)
    os.close(proc)
    if not writable:
        mount_setattr(AT_FDCWD, "/", attr_set=MOUNT_ATTR_RDONLY, recursive=True)
    elif view.get("readonly"):
        mount_setattr(AT_FDCWD, "/", attr_set=MOUNT_ATTR_RDONLY)
    _drop_privileges(user)
    os.umask(0)
    return root


def own_namespace() -> None:
    """A mount namespace of this process alone, out of which nothing propagates."""
    os.close(_own_namespace())


def _own_namespace() -> int:
    unshare(CLONE_NEWNS)
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(own, CLONE_NEWNS)  # to the namespace's root, should the daemon live in a chroot
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.fchdir(here)
    os.chroot(".")
    os.close(here)
    return own


def _of_running(view: dict[str, Any]) -> tuple[int, int]:
    """A copy of the container's mounts, not attached anywhere, and its user namespace if that is its own, else -1."""
    try:
        process = os.open(f"/proc/{view['pid']}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespace = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        user = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process) if view["remapped"] else -1
        groups = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        with open(groups, encoding="utf-8", errors="replace") as file:
            belongs = view["id"] in file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    if not belongs:
        raise Gone  # its number is somebody else's by now
    os.close(process)
    setns(namespace, CLONE_NEWNS)
    os.close(namespace)
    flags = OPEN_TREE_CLONE if view.get("bare") else OPEN_TREE_CLONE | AT_RECURSIVE
    return open_tree(AT_FDCWD, "/", flags), user


def _of_layers(view: dict[str, Any], *, writable: bool) -> int:
    if "bind" in view:
        return open_tree(AT_FDCWD, view["bind"], OPEN_TREE_CLONE)
    place = os.path.dirname(view["upper"])
    if writable:
        return mount_overlay(view["layers"][1:], place, view["upper"], view["work"], view["options"])
    # Its own files are a layer below: a container that is started meanwhile keeps them for itself alone. What is made
    # on top, places for mounts, is forgotten.
    scratch = view["work"]
    mount("tmpfs", scratch, "tmpfs", 0, "mode=700")
    upper, work = f"{scratch}/upper", f"{scratch}/work"
    os.mkdir(upper)
    os.mkdir(work)
    _copy_attributes(view["upper"], upper)
    tree = mount_overlay(view["layers"], place, upper, work, view["options"])
    umount2(scratch, MNT_DETACH)
    return tree


def _copy_attributes(source: str, target: str) -> None:
    """The root of a tree has those of its topmost layer."""
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def mount_overlay(layers: list[str], place: str, upper: str, work: str, options: list[str]) -> int:
    """A detached overlay of `layers`, topmost first, with the directory `place` as a step on the way."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    common = os.path.commonpath([os.path.dirname(layer) for layer in layers])
    os.chdir(common)  # short names, so that many layers fit in the page that mount(2) takes
    words = ["lowerdir=" + ":".join(_escaped(os.path.relpath(layer, common), ":,\\") for layer in layers)]
    if upper:
        words += [f"upperdir={_escaped(upper, chr(44) + chr(92))}", f"workdir={_escaped(work, chr(44) + chr(92))}"]
    mount("overlay", place, "overlay", 0 if upper else 1, ",".join([*words, *options]))
    os.fchdir(here)
    os.close(here)
    tree = open_tree(AT_FDCWD, place, OPEN_TREE_CLONE)
    umount2(place, MNT_DETACH)
    return tree


def _escaped(path: str, special: str) -> str:
    return "".join("\\" + letter if letter in special else letter for letter in path)


def _copy_mounts(view: dict[str, Any]) -> list[tuple[int, str]]:
    users = -1
    if view.get("inside") and any(place["owners"] for place in view["mounts"]):
        # An idmapped mount shows what is inside on disk as what is outside: here it is the other way round.
        users = fork_user_namespace(*[[(host, own, size) for own, host, size in ids] for ids in view["inside"]])
    found = []
    for place in view["mounts"]:
        fd, destination = _copy_mount(place)
        if users >= 0 and place["owners"]:
            _shift(fd, users)
        found.append((fd, destination))
    if users >= 0:
        os.close(users)
    return found


def _shift(fd: int, users: int) -> None:
    try:
        idmap(fd, users, recursive=True)
    except OSError as error:
        # Not every file system can, nor once more: then the host's owners are shown.
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise


def _copy_mount(place: dict[str, Any]) -> tuple[int, str]:
    if "layers" in place:
        fd = _image(place)
    elif place["subpath"]:
        whole = os.open(place["source"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        part = open_in_root(whole, place["subpath"])
        fd = open_tree(part, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
        os.close(whole)
        os.close(part)
    else:
        fd = open_tree(AT_FDCWD, place["source"], OPEN_TREE_CLONE | AT_RECURSIVE)
    mount_setattr(fd, "", attr_set=_HARMLESS, propagation=MS_PRIVATE, recursive=True)
    if place["readonly"]:
        mount_setattr(fd, "", attr_set=MOUNT_ATTR_RDONLY)
    return fd, place["destination"]


def _image(place: dict[str, Any]) -> int:
    """Mounted on its own directory for a moment: in a detached mount the kernel resolves no `..` after a link."""
    layers, at = place["layers"], place["source"]
    if len(layers) == 1:
        tree = open_tree(AT_FDCWD, layers[0], OPEN_TREE_CLONE)
    else:
        tree = mount_overlay(layers, at, "", "", place["options"])
    if not place["subpath"]:
        return tree
    move_mount(tree, AT_FDCWD, at)
    whole = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    part = open_in_root(whole, place["subpath"])
    fd = open_tree(part, "", AT_EMPTY_PATH | OPEN_TREE_CLONE)
    umount2(at, MNT_DETACH)
    os.close(tree)
    os.close(whole)
    os.close(part)
    return fd


def _attach(root: int, fd: int, destination: str) -> None:
    target, _ = ensure(root, destination, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    move_mount(fd, target)
    os.close(target)
    os.close(fd)


def _data_file_systems(proc: int) -> frozenset[str]:
    fd = os.open("filesystems", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with open(fd, encoding="utf-8") as file:
        return _DATA | {line.strip() for line in file if not line.startswith("nodev")}


def _drop_kernel_file_systems(proc: int, data: frozenset[str]) -> None:
    """Unmount what is no store of data. Raises OSError when something keeps it in its place."""
    for _ in range(_ROUNDS):
        found = _foreign(proc, data)
        if not found:
            return
        for place in found:
            try:
                umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW)
            except OSError as error:
                # Gone with the one above it, or the container has moved the directory meanwhile: looked at once more.
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
    raise OSError(errno.EBUSY, "a file system of the kernel cannot be taken out of the container's tree")


def _foreign(proc: int, data: frozenset[str]) -> list[str]:
    fd = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        place, kind = before.split(" ")[4], after.split(" ")[0]
        if kind not in data and not kind.startswith("fuse."):
            for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                place = place.replace(code, letter)
            found.append(place)
    return found


def _drop_privileges(user: int) -> None:
    """All but those that concern files. In a container's user namespace ids are those that it sees."""
    if user >= 0:
        setns(user, CLONE_NEWUSER)
        os.close(user)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    keep = sum(1 << capability.NUMBERS[name] for name in _KEPT)
    effective, permitted, _ = capability.capget()
    capability.capset(effective & keep, permitted & keep, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
