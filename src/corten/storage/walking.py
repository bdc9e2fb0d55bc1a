"""Going through a tree that a container has made or changes: of any depth, with one descriptor, following no link."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StaleTree(OSError):
    """A directory was moved while it was walked through."""


def walk(root: Path) -> Iterator[tuple[int, str, bool]]:
    """(descriptor of its directory, name, is a directory) of all below `root`; a directory comes after its content.

    The descriptor is the walk's, and good until the next step. Names on another device come without what is below
    them. Raises OSError; StaleTree when there is no way back.
    """
    fd = os.open(root, _DIRECTORY)
    try:
        device = os.fstat(fd).st_dev
        names = _list(fd)
        above: list[tuple[int, str, list[tuple[str, bool]]]] = []  # inode, name, names left: of each level left behind
        while names or above:
            if not names:
                inode, name, names = above.pop()
                fd = _replace(fd, os.open("..", _DIRECTORY, dir_fd=fd))
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) != (device, inode):
                    raise StaleTree(errno.ESTALE, "the tree is being changed", str(root))
                yield fd, name, True
                continue
            name, is_directory = names.pop()
            inner = _enter(fd, name, device) if is_directory else -1
            if inner < 0:
                yield fd, name, is_directory
                continue
            above.append((os.fstat(fd).st_ino, name, names))
            fd = _replace(fd, inner)
            names = _list(fd)
    finally:
        os.close(fd)


def delete_tree(root: Path) -> None:
    """Remove the directory `root` and all below. Raises OSError."""
    for fd, name, is_directory in walk(root):
        if is_directory:
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)
    root.rmdir()


def _list(fd: int) -> list[tuple[str, bool]]:
    with os.scandir(fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _enter(fd: int, name: str, device: int) -> int:
    """A descriptor of the directory; -1 when it has gone, is something else by now, or is on another device."""
    try:
        inner = os.open(name, _DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise
    if os.fstat(inner).st_dev == device:
        return inner
    os.close(inner)
    return -1


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new
