"""Copying a directory of the container's into a file system that nobody else can reach yet.

Names are only ever looked up in the directory that is being copied, so that no link leads anywhere.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.linux.openat2 import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

_DEEPEST = 200  # directories in each other: two descriptors and some frames of the stack for each
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NO_ATTRIBUTE = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)


def copy_contents(source: int, target: int) -> None:
    """All that is in the directory `source`, with owners, modes, times, extended attributes and hard links.

    What is mounted below it is left out; its directory is made. Both descriptors stay open. Raises OSError.
    """
    _directory(source, target, "", (target, {}))
    _attributes(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", follow=True)


def _directory(source: int, target: int, path: str, links: tuple[int, dict[tuple[int, int], str]]) -> None:
    """`path` is the directory's below the top; `links` are the top and the first names of files with several."""
    top, known = links
    if path.count("/") >= _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, "directories nested too deeply", path)
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        below = f"{path}/{name}" if path else name
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            if (first := known.get(identity)) is not None:
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
            known[identity] = below
        _entry(source, target, name, status, below, links)


def _entry(
    source: int,
    target: int,
    name: str,
    status: os.stat_result,
    below: str,
    links: tuple[int, dict[tuple[int, int], str]],
) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        os.mkdir(name, 0o700, dir_fd=target)
        _subdirectory(source, target, name, below, links)
    elif stat.S_ISREG(mode):
        _file(source, target, name)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    # Only now: a change of owner takes setuid bits and file capabilities away.
    if not stat.S_ISLNK(mode):
        os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
    _attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}", follow=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _subdirectory(
    source: int, target: int, name: str, below: str, links: tuple[int, dict[tuple[int, int], str]]
) -> None:
    try:
        inner = openat2(source, name, _READ | os.O_DIRECTORY, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return
    try:
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            _directory(inner, made, below, links)
        finally:
            os.close(made)
    finally:
        os.close(inner)


def _file(source: int, target: int, name: str) -> None:
    """Holes stay holes, as the copy lies in memory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, 0o600, dir_fd=target)
    try:
        try:
            read = openat2(source, name, _READ, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return  # something is mounted on the file
        try:
            _data(read, made, os.fstat(read).st_size)
        finally:
            os.close(read)
    finally:
        os.close(made)


def _data(read: int, write: int, size: int) -> None:
    os.ftruncate(write, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(read, position, os.SEEK_DATA)
            end = os.lseek(read, position, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole to the end
        os.lseek(write, position, os.SEEK_SET)
        while position < end:
            count = os.sendfile(write, read, position, min(end - position, 1 << 30))
            if not count:
                return  # somebody has cut the file short meanwhile
            position += count


def _attributes(source: str, target: str, *, follow: bool) -> None:
    """A tmpfs may not take all kinds; a file without its attributes is better than no container."""
    for name in os.listxattr(source, follow_symlinks=follow):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (*_NO_ATTRIBUTE, errno.ENODATA):
                raise
