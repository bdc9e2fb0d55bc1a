"""Trees as tar streams, as `docker cp` and `docker export` give them: pax, times in seconds, owners as numbers.

Names are sorted, so that the same tree gives the same bytes. Links are never followed, a directory is entered through
its parent's descriptor: what a container swaps meanwhile is at most missing. Imported by the workers: keep light.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.storage.tarstream import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from corten.storage.archiving.conduit import Outlet

_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe that has taken the file's place does not hold us.
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
_OPEN_LEVELS = 200
_WORTH_A_MAP = 1 << 20  # bytes of holes
_MAX_SEGMENTS = 4096
_FOREIGN = ("trusted.", "security.selinux")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)


class TreeWriter:
    """Writes entries to `out`. Without `cross`, what is mounted below the tree is left out: its places are empty."""

    def __init__(self, out: Outlet, *, cross: bool = True) -> None:
        self._out, self._cross = out, cross
        self._links: dict[tuple[int, int], bytes] = {}

    def close(self) -> None:
        self._out.write(bytes(2 * BLOCK))
        self._out.close()

    def tree(self, top: int, name: bytes, *, itself: bool = True) -> None:
        """The open directory `top` (which stays the caller's) as `name`, and all below; `name` "" for bare names."""
        prefix = name if name.endswith(b"/") or not name else name + b"/"
        if itself:
            self._directory(top, prefix)
        status = os.fstat(top)
        levels = [_Level(os.dup(top), status, prefix)]
        try:
            while levels:
                self._step(levels)
        finally:
            for level in levels:
                level.close()

    def _step(self, levels: list[_Level]) -> None:
        level = levels[-1]
        name = next(level.names, None)
        if name is None:
            levels.pop()
            if levels and levels[-1].fd < 0:
                levels[-1].reopen(level.fd)
            level.close()
            return
        try:
            status = os.lstat(name, dir_fd=level.fd)
            inner = os.open(name, _READ_DIR, dir_fd=level.fd) if stat.S_ISDIR(status.st_mode) else -1
        except OSError as error:
            if error.errno in _GONE:
                return  # the container has removed it, or put something else in its place
            raise
        path = level.prefix + name
        if inner < 0:
            self.leaf(level.fd, name, path, status, level.device)
            return
        status = os.fstat(inner)
        self._directory(inner, path + b"/")
        if not self._cross and status.st_dev != level.device:
            os.close(inner)
            return
        levels.append(_Level(inner, status, path + b"/"))
        if len(levels) > _OPEN_LEVELS:
            levels[-_OPEN_LEVELS].close()

    def leaf(self, directory: int, name: bytes, path: bytes, status: os.stat_result, device: int) -> None:
        """Anything but a directory. Sockets are left out: tar cannot hold them, and nobody could use them."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        if kind == REGULAR:
            self._regular(directory, name, path, device)
            return
        if (first := self._first(status, path)) is not None:
            self._out.write(entry(HARD_LINK, path, status, link=first))
            return
        try:
            link = os.readlink(name, dir_fd=directory) if kind == SYMLINK else b""
        except OSError as error:
            if error.errno in (*_GONE, errno.EINVAL):
                return
            raise
        self._out.write(entry(kind, path, status, link=link))

    def _directory(self, fd: int, path: bytes) -> None:
        self._out.write(entry(DIRECTORY, path, os.fstat(fd), records=_xattrs(fd)))

    def _regular(self, directory: int, name: bytes, path: bytes, device: int) -> None:
        try:
            fd = os.open(name, _READ_FILE, dir_fd=directory)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            if (first := self._first(status, path)) is not None:
                self._out.write(entry(HARD_LINK, path, status, link=first))
            else:
                self._content(fd, path, status)
        finally:
            os.close(fd)

    def _content(self, fd: int, path: bytes, status: os.stat_result) -> None:
        records, size = _xattrs(fd), status.st_size
        if size - status.st_blocks * 512 >= _WORTH_A_MAP and (segments := _segments(fd, size)) is not None:
            self._sparse(fd, path, status, records, segments)
            return
        self._out.write(entry(REGULAR, path, status, size=size, records=records))
        if size:
            self._out.file(fd, 0, size)
            self._pad(size)

    def _sparse(
        self, fd: int, path: bytes, status: os.stat_result, records: dict[bytes, bytes], segments: list[tuple[int, int]]
    ) -> None:
        """GNU's pax format 1.0: a map in decimal lines before the data."""
        numbers = [len(segments), *(number for segment in segments for number in segment)]
        sparse_map = b"".join(b"%d\n" % number for number in numbers)
        sparse_map += bytes(-len(sparse_map) % BLOCK)
        records |= {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": path,
            b"GNU.sparse.realsize": b"%d" % status.st_size,
        }
        above, _, base = path.rpartition(b"/")
        stand_in = (above + b"/" if above else b"") + b"GNUSparseFile.0/" + base
        size = len(sparse_map) + sum(length for _, length in segments)
        self._out.write(entry(REGULAR, stand_in, status, size=size, records=records))
        self._out.write(sparse_map)
        for offset, length in segments:
            if length:
                self._out.file(fd, offset, length)
        self._pad(size)

    def _pad(self, size: int) -> None:
        if size % BLOCK:
            self._out.write(bytes(-size % BLOCK))

    def _first(self, status: os.stat_result, path: bytes) -> bytes | None:
        """The name that a hard link was written under before; None for the first."""
        if status.st_nlink < 2:
            return None
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        return None if first == path else first


class _Level:
    """A directory on the way down; `fd` -1 while it is closed, as no process may have any number of them open."""

    __slots__ = ("_inode", "device", "fd", "names", "prefix")

    def __init__(self, fd: int, status: os.stat_result, prefix: bytes) -> None:
        self.fd, self.prefix, self.device, self._inode = fd, prefix, status.st_dev, status.st_ino
        self.names: Iterator[bytes] = iter(sorted(os.fsencode(name) for name in os.listdir(fd)))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def reopen(self, child: int) -> None:
        fd = os.open("..", _READ_DIR, dir_fd=child)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (self.device, self._inode):
            os.close(fd)
            raise OSError(errno.ESTALE, "the tree is being changed")
        self.fd = fd


def entry(
    kind: bytes,
    path: bytes,
    status: os.stat_result,
    *,
    size: int = 0,
    link: bytes = b"",
    records: dict[bytes, bytes] | None = None,
) -> bytes:
    """The blocks before an entry's data; `records` are further pax records."""
    further = dict(records or {})
    if len(path) > 100:
        further[b"path"] = path
    if len(link) > 100:
        further[b"linkpath"] = link
    header = _header(kind, path[:100], status, size, link[:100])
    if not further:
        return header
    body = b"".join(_record(key, value) for key, value in sorted(further.items()))
    name = b"PaxHeaders.0/" + path.rstrip(b"/").rpartition(b"/")[2][:80]
    return _header(b"x", name, None, len(body), b"") + body + bytes(-len(body) % BLOCK) + header


def _header(kind: bytes, name: bytes, status: os.stat_result | None, size: int, link: bytes) -> bytes:
    mode, uid, gid, mtime, device = 0o644, 0, 0, 0, b"".ljust(16, b"\0")
    if status is not None:
        mode, uid, gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
        mtime = status.st_mtime_ns // 1_000_000_000
        if kind in (CHAR, BLOCK_DEVICE):
            device = _number(os.major(status.st_rdev), 8) + _number(os.minor(status.st_rdev), 8)
    before = b"%s%07o\0%s%s%s%s" % (
        name.ljust(100, b"\0"),
        mode,
        _number(uid, 8),
        _number(gid, 8),
        _number(size, 12),
        _number(mtime, 12),
    )
    after = b"%s%sustar\x0000%s%s" % (kind, link.ljust(100, b"\0"), bytes(64), device)
    total = sum(before) + sum(after) + 8 * 32
    return b"%s%06o\0 %s%s" % (before, total, after, bytes(BLOCK - 156 - len(after)))


def _number(value: int, width: int) -> bytes:
    """Octal, or base 256 for what that cannot hold."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    encoded = bytearray(value.to_bytes(width, "big", signed=True))
    encoded[0] = encoded[0] | 0x80
    return bytes(encoded)


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record, which says its own length: digits, blank, key, =, value, newline."""
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    if len(str(total)) > len(str(length)):
        total = length + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    found: dict[bytes, bytes] = {}
    for name in names:
        if name.startswith(_FOREIGN):
            continue  # of this host
        try:
            found[b"SCHILY.xattr." + os.fsencode(name)] = os.getxattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return found


def _segments(fd: int, size: int) -> list[tuple[int, int]] | None:
    """(offset, length) of what a file really holds; None when that is in too many pieces."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return None
            break  # a hole to the end
        if start >= size:
            break
        found.append((start, at - start))
        if len(found) > _MAX_SEGMENTS:
            return None
    if not found or sum(found[-1]) < size:
        found.append((size, 0))  # readers take the last segment's end for the file's
    return found
