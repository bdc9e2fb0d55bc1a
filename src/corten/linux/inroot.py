"""Paths inside the container's root, opened and made without ever leaving it."""

from __future__ import annotations

import errno
import os
import stat

from corten.linux.openat2 import O_PATH, open_in_root

_MAX_LINKS = 40
_NOFOLLOW = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def ensure(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> tuple[int, bool]:
    """An O_PATH descriptor of `path` inside the root, and whether it was there before.

    Missing directories are made, and a missing last component as a directory or an empty file. Symbolic links are
    followed as a process chrooted to the root would, dangling ones too: what they name is made. The caller owns the
    descriptor.
    """
    try:
        return open_in_root(root_fd, path), True
    except FileNotFoundError:
        made = _make_last(root_fd, path, directory, mode)
        return _walk(root_fd, path, directory, mode) if made < 0 else made, False


def ensure_parent(root_fd: int, path: str) -> tuple[int, str]:
    """The directory that `path` is in, made where missing, and the last component. The caller owns the descriptor."""
    parent, name = os.path.split(os.path.normpath("/" + path))
    fd, _ = ensure(root_fd, parent, directory=True)
    return fd, name


def read_file(root_fd: int, path: str, limit: int) -> bytes:
    """A regular file inside the root, at most `limit` bytes; empty when there is none.

    The image chooses what is at `path`: anything but a regular file is refused, and opening it does not block.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return b""
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        chunks, left = [], limit
        while left > 0 and (chunk := os.read(fd, min(left, 1 << 16))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def _make_last(root_fd: int, path: str, directory: bool, mode: int) -> int:
    """The usual case of `_walk` in a third of its system calls: all but the last component are there. Else -1."""
    above, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        return -1
    try:
        parent = open_in_root(root_fd, above or "/")
    except FileNotFoundError:
        return -1
    try:
        _make(parent, name, directory, mode)
        fd = os.open(name, _NOFOLLOW, dir_fd=parent)
    except (FileExistsError, FileNotFoundError):  # a dangling link, or somebody else makes and removes it
        return -1
    finally:
        os.close(parent)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        return -1
    return fd


def _walk(root_fd: int, path: str, directory: bool, mode: int) -> int:
    """One component after the other with O_NOFOLLOW; links are read and walked by hand, ".." stops at the root."""
    chain = [os.dup(root_fd)]
    parts, links = path.split("/"), 0
    try:
        while parts:
            name = parts.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                if len(chain) > 1:
                    os.close(chain.pop())
                continue
            last = not any(part not in ("", ".") for part in parts)
            fd = _open_or_make(chain[-1], name, directory or not last, mode if last else 0o755)
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                chain.append(fd)
                continue
            links += 1
            try:
                target = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                while len(chain) > 1:
                    os.close(chain.pop())
            parts = target.split("/") + parts
        return chain.pop()
    finally:
        for fd in chain:
            os.close(fd)


def _open_or_make(parent: int, name: str, directory: bool, mode: int) -> int:
    while True:
        try:
            return os.open(name, _NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            pass
        try:
            _make(parent, name, directory, mode)
        except FileExistsError:
            continue  # made by somebody else meanwhile, perhaps as a link: look again


def _make(parent: int, name: str, directory: bool, mode: int) -> None:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent))
