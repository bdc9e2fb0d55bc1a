"""Copying a tree with everything that belongs to it: owners, modes, times, xattrs, hard links, devices, holes.

Works on directory descriptors and never follows a link, so that a tree from an image can be copied, and into a volume
that another container has already and changes meanwhile (CVE-2018-15664). Imported by the workers: keep light.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from corten.linux.openat2 import RESOLVE_NO_SYMLINKS, openat2
from corten.storage.descent import READ_DIR, Descent
from corten.storage.syscalls import FICLONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 30
_RESERVED_XATTR = "trusted.overlay."


class TreeCopier:
    """Copies the content and the attributes of the directory `source` to the directory `target`, both descriptors.

    `target` should be empty: FileExistsError for what is there already, save directories, which are merged. Hard links
    inside the tree stay links. Raises OSError.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._links: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        sources, targets = Descent(self._source), Descent(self._target)
        try:
            levels = [("", _names(self._source))]
            while levels:
                above, names = levels[-1]
                if (name := next(names, None)) is None:
                    _copy_attributes(sources.fd, targets.fd)
                    levels.pop()
                    sources.leave()
                    targets.leave()
                    continue
                status = os.lstat(name, dir_fd=sources.fd)
                path = f"{above}/{name}" if above else name
                if not stat.S_ISDIR(status.st_mode):
                    self._file(sources.fd, targets.fd, name, path, status)
                    continue
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=targets.fd)
                sources.enter(os.open(name, READ_DIR, dir_fd=sources.fd))
                targets.enter(os.open(name, READ_DIR, dir_fd=targets.fd))
                levels.append((path, _names(sources.fd)))
        finally:
            sources.close()
            targets.close()

    def _file(self, source: int, target: int, name: str, path: str, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                self._link(first, target, name)
                return
        if stat.S_ISREG(status.st_mode):
            _copy_regular(source, target, name, status)
            return
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            _set_mode(name, status, target)
        _copy_xattrs(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _link(self, first: str, target: int, name: str) -> None:
        """The directory of the first name may have become a link to one of the host's: that is refused (ELOOP)."""
        above, _, base = first.rpartition("/")
        directory = openat2(self._target, above or ".", os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_SYMLINKS)
        try:
            os.link(base, name, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(directory)


def _names(directory: int) -> Iterator[str]:
    return iter(sorted(os.listdir(directory)))


def _copy_attributes(source: int, target: int) -> None:
    """Of a directory, when all in it has been made."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    _copy_xattrs(source, target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_mode(name: str, status: os.stat_result, target: int) -> None:
    """Of the special file that was just made; another one that has taken its place meanwhile is left as it is."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
    try:
        made = os.fstat(fd)
        if (stat.S_IFMT(made.st_mode), made.st_rdev) == (stat.S_IFMT(status.st_mode), status.st_rdev):
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode))  # chmod(2) has no flag against links
    finally:
        os.close(fd)


def _copy_regular(source: int, target: int, name: str, status: os.stat_result) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        outer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_data(inner, outer, status.st_size)
            os.fchown(outer, status.st_uid, status.st_gid)
            os.fchmod(outer, stat.S_IMODE(status.st_mode))  # after chown, which takes the setuid bit away
            _copy_xattrs(inner, outer)
            os.utime(outer, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _copy_data(source: int, target: int, size: int) -> None:
    if not size:
        return
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        pass  # not a file system that shares blocks
    else:
        return
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole to the end
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        at = _copy_range(source, target, at, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, at: int, end: int) -> int:
    while at < end:
        count = min(end - at, _CHUNK)
        try:
            copied = os.copy_file_range(source, target, count, at, at)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO):
                raise
            copied = os.pwrite(target, os.pread(source, min(count, 1 << 20), at), at)
        if not copied:
            return end  # it shrank meanwhile
        at += copied
    return at


def _copy_xattrs(source: int | str, target: int | str) -> None:
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if name.startswith(_RESERVED_XATTR):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
                raise
