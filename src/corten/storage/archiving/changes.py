"""`docker diff`: what a container's own layer says that the image does not, or where both are whole trees, how they
differ. Imported by the workers: keep light.

Both trees are walked side by side through descriptors, to any depth; no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.storage.descent import READ_DIR, Descent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODIFIED, ADDED, DELETED = 0, 1, 2
_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"


class Comparison:
    """Tells `found` (kind, path) in the order of the paths, a directory before what is in it.

    `stubs` are paths ("etc/hosts") that are nobody's change while they are empty. With `whole` the container's tree
    holds all that is in it, and not only what it changed. Raises OSError.
    """

    def __init__(self, found: Callable[[int, str], None], stubs: frozenset[str], *, whole: bool = False) -> None:
        self._found, self._stubs, self._whole = found, stubs, whole
        self._above: list[str] = []  # directories that are only told of when something in them has changed

    def run(self, upper: int, lower: int) -> None:
        """The directories of the container's layer and of the image's merged tree (-1 for none), which stay the
        caller's.
        """
        news, olds = Descent(upper), Descent(lower) if lower >= 0 else None
        try:
            levels = [_Level(upper, lower, "", whole=self._whole, kept=False)]
            while levels:
                level = levels[-1]
                if (name := next(level.names, None)) is not None:
                    old = olds.fd if level.merged and olds is not None else -1
                    if (below := self._one(news.fd, old, name, level)) is not None:
                        levels.append(self._enter(news, olds, *below))
                    continue
                levels.pop()
                news.leave()
                if level.merged and olds is not None:
                    olds.leave()
                if level.kept and self._above:
                    self._above.pop()  # nothing in it has changed either
        finally:
            news.close()
            if olds is not None:
                olds.close()

    def _enter(self, news: Descent, olds: Descent | None, inner: int, lower: int, path: str, kept: bool) -> _Level:
        news.enter(inner)
        if olds is not None and lower >= 0:
            olds.enter(lower)
        if kept:
            self._above.append(path)
        return _Level(inner, lower, path, whole=self._whole, kept=kept)

    def _one(self, upper: int, lower: int, name: str, level: _Level) -> tuple[int, int, str, bool] | None:
        """What is to be entered: the directory, the image's (-1 for none), the path, whether it itself is unchanged."""
        path = f"{level.path}/{name}"
        if name in level.hidden:
            self._tell(DELETED, path)
            return None
        try:
            new = os.lstat(name, dir_fd=upper)
        except FileNotFoundError:
            return None  # a running container has removed it meanwhile
        old = _status(lower, name)
        if not self._whole and stat.S_ISCHR(new.st_mode) and new.st_rdev == 0:
            if old is not None:
                self._tell(DELETED, path)
            return None
        if self._is_stub(upper, name, path, new):
            return None
        if not stat.S_ISDIR(new.st_mode):
            if not (self._whole and old is not None and _same(upper, new, lower, old, name)):
                self._tell(ADDED if old is None else MODIFIED, path)
            return None
        kept = old is not None and self._keeps(upper, name, path, new, lower, old)
        if not kept:
            self._tell(ADDED if old is None else MODIFIED, path)
        inner = _open(upper, name)
        if inner < 0:
            return None
        merged = old is not None and stat.S_ISDIR(old.st_mode)
        return inner, _open(lower, name) if merged else -1, path, kept

    def _keeps(self, upper: int, name: str, path: str, new: os.stat_result, lower: int, old: os.stat_result) -> bool:
        """Whether the directory itself is as it was. The time of one in which things were mounted tells nothing."""
        if _attributes(old) != _attributes(new):
            return False
        if old.st_mtime_ns == new.st_mtime_ns:
            return True
        here = [stub.rpartition("/")[2] for stub in self._stubs if f"/{stub}".rpartition("/")[0] == path]
        return any(_status(upper, f"{name}/{stub}") and not _status(lower, f"{name}/{stub}") for stub in here)

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


class _Level:
    """A directory that is being compared. `merged`: the image has it too. `kept`: it itself is unchanged."""

    __slots__ = ("hidden", "kept", "merged", "names", "path")

    def __init__(self, upper: int, lower: int, path: str, *, whole: bool, kept: bool) -> None:
        names = set(os.listdir(upper))
        self.path, self.kept, self.merged = path, kept, lower >= 0
        self.hidden = set(os.listdir(lower)) - names if lower >= 0 and (whole or _opaque(upper)) else set()
        self.names: Iterator[str] = iter(sorted(names | self.hidden))


def _attributes(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mode, status.st_uid, status.st_gid


def _same(upper: int, new: os.stat_result, lower: int, old: os.stat_result, name: str) -> bool:
    """Whether `name`, no directory, was not touched. A copy keeps all of this."""
    if _attributes(old) != _attributes(new) or old.st_mtime_ns != new.st_mtime_ns:
        return False
    if (old.st_size, old.st_rdev) != (new.st_size, new.st_rdev):
        return False
    return not stat.S_ISREG(new.st_mode) or _capability(upper, name) == _capability(lower, name)


def _capability(directory: int, name: str) -> bytes:
    try:
        return os.getxattr(f"/proc/self/fd/{directory}/{name}", _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _status(lower: int, name: str) -> os.stat_result | None:
    if lower < 0:
        return None
    try:
        return os.lstat(name, dir_fd=lower)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open(directory: int, name: str) -> int:
    """A directory in another one; -1 when it is none (any more)."""
    try:
        return os.open(name, READ_DIR, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


def _opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, _OPAQUE) == b"y"
    except OSError:
        return False
