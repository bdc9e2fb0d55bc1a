"""What a path names inside a container, as Docker's archive calls understand paths. Imported by the workers."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from corten.linux.inroot import read_file
from corten.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_in_root, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_MAX_LINKS = 255
_MAX_ACCOUNTS = 1 << 20


class Place:
    """`path` resolved: `directory` is open, `base` what it is called there ("." for the directory itself), `shown` the
    name that the archive gives it. A link at the end is followed only where something, if only a slash, comes after it.
    """

    def __init__(self, root: int, path: str) -> None:
        self._root = root
        self.clean = clean(path)
        self.shown = self.clean.rpartition("/")[2] or "/"
        if path.endswith("/.") or path == ".":
            self.shown = "."
        if path.endswith(("/", "/.")) or self.clean == "/":
            self.directory, self.base = open_in_root(root, self.clean, _DIRECTORY), "."
        else:
            above, _, self.base = self.clean.rpartition("/")
            self.directory = open_in_root(root, above or "/", _DIRECTORY)
        # Held: what is opened later is what was looked at, whatever the container puts in its place.
        self._held = os.open(self.base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        self.status = os.fstat(self._held)

    def describe(self) -> dict[str, Any]:
        """As `engine.models.PathStat` has it."""
        link = real_path(self._root, self.clean) if stat.S_ISLNK(self.status.st_mode) else ""
        return {
            "name": self.shown,
            "size": self.status.st_size,
            "mode": self.status.st_mode,
            "mtime_ns": self.status.st_mtime_ns,
            "link_target": link,
        }

    def open_directory(self) -> int:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._held)


def clean(path: str) -> str:
    """Absolute, without empty parts, `.` and `..`, as the user wrote it: links are not looked at."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def real_path(root: int, path: str) -> str:
    """Where `path` leads with all links followed, whether something is there or not. Raises OSError (ELOOP)."""
    done: list[str] = []
    left = deque(path.split("/"))
    links = 0
    while left:
        part = left.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        link = _link(root, "/".join([*done, part]))
        if link is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if link.startswith("/"):
            done = []
        left.extendleft(reversed(link.split("/")))
    return "/" + "/".join(done)


def _link(root: int, path: str) -> str | None:
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
    try:
        fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def owner(root: int, user: str) -> tuple[int, int] | None:
    """uid and gid of "name|uid[:group|gid]" by the container's own account files; None for a name not in them."""
    name, colon, group = user.partition(":")
    entry = _account(root, "/etc/passwd", name, 2)
    if entry is None and not name.isdecimal():
        return None
    uid = int(entry[2]) if entry else int(name)
    gid = int(entry[3]) if entry else 0
    if colon and group:
        found = _account(root, "/etc/group", group, 2)
        if found is None and not group.isdecimal():
            return None
        gid = int(found[2]) if found else int(group)
    return uid, gid


def _account(root: int, path: str, name: str, number: int) -> list[str] | None:
    for line in read_file(root, path, _MAX_ACCOUNTS).decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        numbers = fields[2:4] if path == "/etc/passwd" else fields[2:3]
        if len(fields) > 3 and all(text.isdecimal() for text in numbers) and name in (fields[0], fields[number]):
            return fields
    return None
