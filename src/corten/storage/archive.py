"""Trees as tar streams: a layer with its whiteouts, or any tree as it is.

The same tree gives the same bytes each time: entries are sorted, owners are numbers, times have their nanoseconds.
Links are never followed, so a tree from an image can be read. Imported by the workers: keep light.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile

from corten.storage.descent import READ_DIR, Descent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_OPAQUE = "trusted.overlay.opaque"
_RESERVED = "trusted.overlay."
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write_layer(layer: str, out: IO[bytes], stubs: frozenset[str] = frozenset()) -> int:
    """The files of one overlay layer as an image's layer: whiteouts and opaque directories in their `.wh.` form; how
    many entries it has besides its root.

    Raises OSError. `out` is written from where it stands and left open. `stubs` are paths ("etc/hosts") that are left
    out while they are empty: something was mounted there.
    """
    return _write(layer, out, whiteouts=True, stubs=stubs)


def write_tree(root: str, out: IO[bytes]) -> None:
    """Everything below the directory `root`, which itself is the entry "./". Raises OSError."""
    _write(root, out, whiteouts=False)


def _write(root: str, out: IO[bytes], *, whiteouts: bool, stubs: frozenset[str] = frozenset()) -> int:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18) as tar:
            writer = TreeWriter(tar, whiteouts, stubs)
            writer.directory(fd, "")
        return writer.entries - 1
    finally:
        os.close(fd)


class TreeWriter:
    """Writes what it is shown as entries of `tar`, and counts them."""

    def __init__(self, tar: tarfile.TarFile, whiteouts: bool, stubs: frozenset[str]) -> None:
        self._tar, self._whiteouts, self.stubs = tar, whiteouts, stubs
        self.entries = 0
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, fd: int, path: str) -> None:
        """The open directory `fd`, called `path`, and what is in it."""
        way = Descent(fd)
        try:
            levels = [(path, self._begin(fd, path))]
            while levels:
                above, names = levels[-1]
                if (name := next(names, None)) is None:
                    levels.pop()
                    way.leave()
                    continue
                below = f"{above}/{name}" if above else name
                inner = self._entry(way.fd, name, below)
                if inner >= 0:
                    way.enter(inner)
                    levels.append((below, self._begin(inner, below)))
        finally:
            way.close()

    def _begin(self, fd: int, path: str) -> Iterator[str]:
        """Write a directory itself; the names in it, in the order of their bytes."""
        info = header(path + "/" if path else "./", os.fstat(fd))
        opaque = add_xattrs(info, fd)
        self.add(info)
        if opaque and self._whiteouts:
            self.marker(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq")
        return map(os.fsdecode, sorted(map(os.fsencode, os.listdir(fd))))

    def _entry(self, fd: int, name: str, path: str) -> int:
        """One name of the directory `fd`: written, unless it is a directory that is to be: that, opened, else -1."""
        status = os.lstat(name, dir_fd=fd)
        if path in self.stubs and stat.S_ISREG(status.st_mode) and status.st_size == 0:
            return -1
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, READ_DIR, dir_fd=fd)
            if path not in self.stubs or os.listdir(inner):
                return inner
            os.close(inner)
        elif self._whiteouts and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            above, _, base = path.rpartition("/")
            self.marker(f"{above}/.wh.{base}" if above else f".wh.{base}")
        elif not stat.S_ISSOCK(status.st_mode):  # which tar cannot hold, and nobody could use
            self.file(fd, name, path, status)
        return -1

    def marker(self, path: str) -> None:
        """An empty file that stands for something else by its name."""
        self.add(tarfile.TarInfo(path))

    def add(self, info: tarfile.TarInfo, file: IO[bytes] | None = None) -> None:
        self.entries += 1
        self._tar.addfile(info, file)

    def file(self, directory: int, name: str, path: str, status: os.stat_result) -> None:
        """Anything but a directory: `name` in the open `directory`; a second name of a file is a link to its first."""
        info = header(path, status)
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
                self.add(info)
                return
        if stat.S_ISREG(status.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            with open(fd, "rb", buffering=1 << 18) as file:
                add_xattrs(info, fd)
                self.add(info, file)
            return
        if stat.S_ISLNK(status.st_mode):
            info.linkname = os.readlink(name, dir_fd=directory)
        add_xattrs(info, f"/proc/self/fd/{directory}/{name}")
        self.add(info)


def header(path: str, status: os.stat_result) -> tarfile.TarInfo:
    """An entry for what lstat says of `path`, without its xattrs and where a link leads."""
    info = tarfile.TarInfo(path)
    info.type = _TYPES[stat.S_IFMT(status.st_mode)]
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    info.mtime = max(seconds, 0)
    if nanoseconds or seconds < 0:
        whole, fraction = divmod(abs(status.st_mtime_ns), 1_000_000_000)
        info.pax_headers = {"mtime": f"{'-' if seconds < 0 else ''}{whole}.{fraction:09d}".rstrip("0").rstrip(".")}
    if info.type == tarfile.REGTYPE:
        info.size = status.st_size
    elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info


def add_xattrs(info: tarfile.TarInfo, target: int | str) -> bool:
    """Put the xattrs of `target` into the header. Whether it is an opaque directory of overlayfs."""
    follow = isinstance(target, int)
    try:
        names = sorted(os.listxattr(target, follow_symlinks=follow))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise
    headers = dict(info.pax_headers)
    for name in names:
        if not name.startswith(_RESERVED):
            value = os.getxattr(target, name, follow_symlinks=follow)
            headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    return _OPAQUE in names and os.getxattr(target, _OPAQUE, follow_symlinks=follow) == b"y"
