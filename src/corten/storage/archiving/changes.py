"""`docker diff`: what a container's own layer says that the image does not. Imported by the workers: keep light.

Both trees are walked side by side through descriptors; no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MODIFIED, ADDED, DELETED = 0, 1, 2
_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_MAX_DEPTH = 200  # of directories that are held open


class Comparison:
    """Tells `found` (kind, path) in the order of the paths, a directory before what is in it.

    `stubs` are paths ("etc/hosts") that are nobody's change while they are empty. Raises OSError.
    """

    def __init__(self, found: Callable[[int, str], None], stubs: frozenset[str]) -> None:
        self._found, self._stubs = found, stubs
        self._above: list[str] = []  # directories that are only told of when something in them has changed

    def run(self, upper: int, lower: int) -> None:
        """The directories of the container's layer and of the image's merged tree, which stay the caller's."""
        self._directory(upper, lower, "", 0)

    def _directory(self, upper: int, lower: int, path: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "directories are too deep to be compared", path[:200])
        names = set(os.listdir(upper))
        hidden = set(os.listdir(lower)) - names if lower >= 0 and _opaque(upper) else set()
        for name in sorted(names | hidden):
            below = f"{path}/{name}"
            if name in hidden:
                self._tell(DELETED, below)
            else:
                self._one(upper, lower, name, below, depth)

    def _one(self, upper: int, lower: int, name: str, path: str, depth: int) -> None:
        try:
            new = os.lstat(name, dir_fd=upper)
        except FileNotFoundError:
            return  # a running container has removed it meanwhile
        old = _status(lower, name)
        if stat.S_ISCHR(new.st_mode) and new.st_rdev == 0:
            if old is not None:
                self._tell(DELETED, path)
            return
        if self._is_stub(upper, name, path, new):
            return
        if not stat.S_ISDIR(new.st_mode):
            self._tell(ADDED if old is None else MODIFIED, path)
            return
        merged = old is not None and stat.S_ISDIR(old.st_mode)
        kept = old is not None and _attributes(old) == _attributes(new)
        if kept:
            self._above.append(path)
        else:
            self._tell(ADDED if old is None else MODIFIED, path)
        self._enter(upper, lower if merged else -1, name, path, depth)
        if kept and self._above:
            self._above.pop()  # nothing in it has changed either

    def _enter(self, upper: int, lower: int, name: str, path: str, depth: int) -> None:
        inner = _open(upper, name)
        if inner < 0:
            return
        below = _open(lower, name) if lower >= 0 else -1
        try:
            self._directory(inner, below, path, depth + 1)
        finally:
            os.close(inner)
            if below >= 0:
                os.close(below)

    def _is_stub(self, upper: int, name: str, path: str, status: os.stat_result) -> bool:
        if path[1:] not in self._stubs:
            return False
        if stat.S_ISREG(status.st_mode):
            return status.st_size == 0
        inner = _open(upper, name)
        try:
            return inner >= 0 and not os.listdir(inner)
        finally:
            if inner >= 0:
                os.close(inner)

    def _tell(self, kind: int, path: str) -> None:
        for directory in self._above:
            self._found(MODIFIED, directory)
        self._above.clear()
        self._found(kind, path)


def _attributes(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def _status(lower: int, name: str) -> os.stat_result | None:
    if lower < 0:
        return None
    try:
        return os.lstat(name, dir_fd=lower)
    except FileNotFoundError:
        return None


def _open(directory: int, name: str) -> int:
    """A directory in another one; -1 when it is none (any more)."""
    try:
        return os.open(name, _READ_DIR, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:
        return False
