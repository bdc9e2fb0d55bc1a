"""What one tree has that another has not, as an image's layer: for snapshots that are whole copies of their parents.

A copy keeps modes, owners, sizes and times, so whatever differs in one of them, in where it leads or in its xattrs was
changed; a file that was written to and then given its old size and time is not seen, as with Docker's own copying
driver. Neither tree may change meanwhile. Imported by the workers: keep light.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from contextlib import suppress

from corten.storage.archive import TreeWriter, add_xattrs, header
from corten.storage.descent import READ_DIR, Descent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    _Xattrs = dict[str, bytes]


def write_difference(base: str, tree: str, out: IO[bytes], stubs: frozenset[str] = frozenset()) -> int:
    """What turns the directory `base` into `tree`, with whiteouts for what is gone; how many entries it has besides its
    root. `stubs` as for `archive.write_layer`. Raises OSError. `out` is left open.
    """
    old = os.open(base, READ_DIR)
    try:
        new = os.open(tree, READ_DIR)
        try:
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 18) as tar:
                difference = _Difference(TreeWriter(tar, True, stubs))
                difference.run(old, new)
            return difference.entries
        finally:
            os.close(new)
    finally:
        os.close(old)


class _Level:
    """A directory that is in both trees, called `path`, on the way down.

    `info` is its header, which is `written` when the first thing in it is; `retimed`: its time alone says that
    something has changed.
    """

    __slots__ = ("before", "info", "names", "path", "retimed", "written")

    def __init__(self, info: tarfile.TarInfo, path: str, before: dict[str, None]) -> None:
        self.info, self.path, self.before = info, path, before
        self.names: Iterator[str] = iter(())
        self.written = self.retimed = False


class _Difference:
    """A directory is written when the first thing in it is, so that nothing stands without the ones above it."""

    def __init__(self, writer: TreeWriter) -> None:
        self._writer = writer
        self._levels: list[_Level] = []

    @property
    def entries(self) -> int:
        return max(self._writer.entries - 1, 0)

    def run(self, old: int, new: int) -> None:
        """Compare two open directories."""
        olds, news, levels = Descent(old), Descent(new), self._levels
        try:
            self._begin(old, new, "")
            while levels:
                level = levels[-1]
                if (name := next(level.names, None)) is None:
                    if level.retimed:
                        self._here()
                    levels.pop()
                    olds.leave()
                    news.leave()
                    continue
                path = _join(level.path, name)
                if self._entry(olds.fd if name in level.before else -1, news.fd, name, path):
                    olds.enter(os.open(name, READ_DIR, dir_fd=olds.fd))
                    news.enter(os.open(name, READ_DIR, dir_fd=news.fd))
                    self._begin(olds.fd, news.fd, path)
        finally:
            olds.close()
            news.close()

    def _begin(self, old: int, new: int, path: str) -> None:
        info = header(f"{path}/" if path else "./", os.fstat(new))
        add_xattrs(info, new)
        before, names = _names(old), _names(new)
        level = _Level(info, path, before)
        self._levels.append(level)
        stubs = [name for name in names if name not in before and self._is_stub(new, name, _join(path, name))]
        if _attributes(os.fstat(old)) != _attributes(os.fstat(new)) or _xattrs(old) != _xattrs(new):
            self._here()
        for name in before:
            if name not in names:
                self._here()
                self._writer.marker(_join(path, f".wh.{name}"))
        level.names = iter([name for name in names if name not in stubs])
        # The time of one that things were mounted in says no more than that.
        level.retimed = not stubs and os.fstat(old).st_mtime_ns != os.fstat(new).st_mtime_ns

    def _here(self) -> None:
        """Something is written in the directory at hand: it first, and those above it, once."""
        missing = []
        for level in reversed(self._levels):
            if level.written:
                break
            missing.append(level)
        for level in reversed(missing):
            level.written = True
            self._writer.add(level.info)

    def _entry(self, old: int, new: int, name: str, path: str) -> bool:
        """One name of the directory `new`, which `old` has too unless it is -1. Whether both have a directory there."""
        status = os.lstat(name, dir_fd=new)
        before = os.lstat(name, dir_fd=old) if old >= 0 else None
        if stat.S_ISSOCK(status.st_mode):
            if before is not None and not stat.S_ISSOCK(before.st_mode):
                self._here()
                self._writer.marker(f"{path.rpartition('/')[0]}/.wh.{name}".lstrip("/"))
        elif not stat.S_ISDIR(status.st_mode):
            if before is None or not _same(old, before, new, status, name):
                self._here()
                self._writer.file(new, name, path, status)
        elif before is not None and stat.S_ISDIR(before.st_mode):
            return True
        else:
            self._here()
            with _Opened(new, name) as inner:
                self._writer.directory(inner.fd, path)
        return False

    def _is_stub(self, directory: int, name: str, path: str) -> bool:
        """Whether it was made by the runtime to mount something on it, and nothing is in it."""
        if path not in self._writer.stubs:
            return False
        status = os.lstat(name, dir_fd=directory)
        if stat.S_ISDIR(status.st_mode):
            with _Opened(directory, name) as inner:
                return not os.listdir(inner.fd)
        return stat.S_ISREG(status.st_mode) and status.st_size == 0


class _Opened:
    """A directory of a directory, for a block."""

    def __init__(self, directory: int, name: str) -> None:
        self.fd = os.open(name, READ_DIR, dir_fd=directory)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _names(directory: int) -> dict[str, None]:
    """In the order of their bytes, as all layers are written."""
    return dict.fromkeys(os.fsdecode(raw) for raw in sorted(map(os.fsencode, os.listdir(directory))))


def _attributes(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _same(old: int, before: os.stat_result, new: int, status: os.stat_result, name: str) -> bool:
    """Whether `name`, no directory, is the same in both directories."""
    if _attributes(before) != _attributes(status) or before.st_mtime_ns != status.st_mtime_ns:
        return False
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=old) == os.readlink(name, dir_fd=new)
    if (before.st_size, before.st_rdev) != (status.st_size, status.st_rdev):
        return False
    return _xattrs(f"/proc/self/fd/{old}/{name}") == _xattrs(f"/proc/self/fd/{new}/{name}")


def _xattrs(target: int | str) -> _Xattrs:
    follow = isinstance(target, int)
    found: _Xattrs = {}
    try:
        for name in os.listxattr(target, follow_symlinks=follow):
            with suppress(OSError):
                found[name] = os.getxattr(target, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    return found
