"""Whether this host can remap users at all: asked at the start, so that no container has to fail first."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from corten.engine.remap import Remap
from corten.errors import SystemFault
from corten.linux import mount, usernamespace

_WITHOUT = {
    errno.ENOSPC: "the host allows no (more) user namespaces: raise the sysctl user.max_user_namespaces",
    errno.EINVAL: "this kernel has no user namespaces",
    errno.EPERM: "the host does not allow user namespaces",
}


def check(remap: Remap, directories: Sequence[Path], *, overlay: bool) -> None:
    """Make a user namespace with these ids, and try an idmapped mount of each directory.

    Raises SystemFault that says what is missing: user namespaces, Linux 5.19 for overlayfs on idmapped layers, or a
    file system below the data root that can be idmapped.
    """
    if overlay and _kernel() < (5, 19):
        raise SystemFault(
            "--userns-remap needs Linux 5.19 with the storage driver overlayfs; use --storage-driver copy"
        )
    try:
        user_fd, network_fd = usernamespace.make_pair(remap.uids, remap.gids)
    except OSError as error:
        number = error.errno or 0
        why = _WITHOUT.get(number, os.strerror(number))
        raise SystemFault(f"--userns-remap cannot be had: {why}", step="user namespace", errno=number) from None
    os.close(network_fd)
    try:
        for directory in directories:
            _try(directory, user_fd)
    finally:
        os.close(user_fd)


def _try(directory: Path, user_fd: int) -> None:
    try:
        tree = mount.open_tree(mount.AT_FDCWD, str(directory), mount.OPEN_TREE_CLONE)
        try:
            mount.idmap(tree, user_fd)
        finally:
            os.close(tree)
    except OSError as error:
        raise SystemFault(
            f"--userns-remap cannot be had: the file system of {directory} ({_file_system(directory)}) cannot be"
            f" idmapped ({error.strerror}); put --data-root on another one, such as ext4, xfs or btrfs",
            step="idmap",
            errno=error.errno or 0,
        ) from None


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor.partition("-")[0])


def _file_system(directory: Path) -> str:
    """Its type, of the mount that the directory is on."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            if head.split()[2] == wanted:
                found = tail.split()[0]
    return found
