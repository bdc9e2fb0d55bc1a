"""User namespaces for a container and for idmapped mounts.

A user namespace begins with the process that makes it, and only somebody outside may map ids that are not the maker's
own. Here that process is a short-lived resident, which ends as soon as its namespace is held by a descriptor.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from corten.linux import process
from corten.runtime.child import mounts
from corten.runtime.child.errors import ChildFailed, fail
from corten.runtime.child.namespaces import open_namespace
from corten.runtime.child.parent import reap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Mappings = tuple[tuple[int, int, int], ...]

_STEP = "user namespace"
_REASONS = {
    errno.ENOSPC: "the host allows no (more) user namespaces (sysctl user.max_user_namespaces)",
    errno.EINVAL: "this kernel has no user namespaces",
    errno.EPERM: "the host does not allow user namespaces",
}


class UserNamespace:
    """One that is held open: `fd`, and how its ids look from the host."""

    __slots__ = ("fd", "gids", "uids")

    def __init__(self, fd: int, uids: Mappings, gids: Mappings) -> None:
        self.fd, self.uids, self.gids = fd, uids, gids

    def uid(self, uid: int) -> int:
        """The host's number of a uid inside, -1 for one that is not mapped."""
        return _outside(self.uids, uid)

    def gid(self, gid: int) -> int:
        return _outside(self.gids, gid)


def _outside(mappings: Mappings, number: int) -> int:
    for inside, outside, count in mappings:
        if inside <= number < inside + count:
            return outside + number - inside
    return -1


def create(uids: Mappings, gids: Mappings) -> UserNamespace:
    """A fresh one. Raises ChildFailed."""

    def occupy() -> None:
        # The limits of its maker bound the sums over all processes of the namespace: they should be the host's.
        for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_SIGPENDING):
            ceiling = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (ceiling, ceiling))
        mounts.enter_namespace_root()  # nobody in a chroot may make a user namespace
        process.unshare(process.CLONE_NEWUSER)

    def use(place: str) -> int:
        # As root of the host we may leave setgroups(2) allowed inside: only others must deny it first.
        for name, mappings in (("uid_map", uids), ("gid_map", gids)):
            _write(f"{place}/{name}", "".join(f"{first} {start} {count}\n" for first, start, count in mappings))
        return os.open(f"{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    fd: int = _with_resident(occupy, use, _creation_failed)
    return UserNamespace(fd, uids, gids)


def join(path: str, uids: Mappings, gids: Mappings) -> UserNamespace:
    """The one at `path`, whose mappings must be the given ones if there are any. Raises ChildFailed."""
    fd = open_namespace(process.CLONE_NEWUSER, path)
    if os.path.sameopenfile(fd, own := os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)):
        raise ChildFailed(_STEP, errno.EINVAL, f"linux.namespaces: the user namespace {path} is the runtime's own")
    os.close(own)

    def use(place: str) -> tuple[Mappings, Mappings]:
        return read_mappings(f"{place}/uid_map"), read_mappings(f"{place}/gid_map")

    def failed(error: OSError) -> None:
        fail(_STEP, error, f"linux.namespaces: joining the user namespace {path}")

    found = _with_resident(lambda: process.setns(fd, process.CLONE_NEWUSER), use, failed)
    for name, wanted, real in (("uid", uids, found[0]), ("gid", gids, found[1])):
        if wanted and sorted(wanted) != sorted(real):
            detail = f"linux.{name}Mappings: they are not those of the user namespace {path}"
            raise ChildFailed(_STEP, errno.EINVAL, detail)
    return UserNamespace(fd, *found)


def read_mappings(path: str) -> Mappings:
    """A uid_map or gid_map, the outside as the reader's namespace has it."""
    with open(path, "rb") as file:
        lines = [line.split() for line in file.read().splitlines()]
    return tuple([(int(first), int(start), int(count)) for first, start, count in lines])


def become_root() -> None:
    """In a user namespace just entered: be its root, and no longer the host's, to whom files of the host belong."""
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        fail(_STEP, error, "becoming root of the user namespace")
    process.prctl(process.PR_SET_DUMPABLE, 0)  # a change of user sets this to the sysctl fs.suid_dumpable


def own_pipes(fds: tuple[int, ...], uid: int, gid: int) -> None:
    """Give the standard streams to the container's root, so that it may open them by name and give them on."""
    for fd in fds:
        if fd >= 0 and stat.S_IFMT(os.fstat(fd).st_mode) in (stat.S_IFIFO, stat.S_IFSOCK):
            os.fchown(fd, uid, gid)


def _with_resident(occupy: Callable[[], None], use: Callable[[str], Any], failed: Callable[[OSError], None]) -> Any:
    """Fork a process that enters a namespace by `occupy`, and call `use` with its directory in /proc meanwhile."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    waiting, leave = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(leave)
            try:
                occupy()
                os.write(theirs, b"0")
                os.read(waiting, 1)
            except OSError as error:
                os.write(theirs, b"%d" % (error.errno or errno.EIO))
        finally:
            os._exit(0)
    os.close(theirs)
    os.close(waiting)
    try:
        code = int(os.read(ours, 16) or errno.ECHILD)
        if code:
            raise OSError(code, os.strerror(code))
        return use(f"/proc/{pid}")
    except OSError as error:
        failed(error)
    finally:
        os.close(ours)
        os.close(leave)
        reap(pid)


def _creation_failed(error: OSError) -> None:
    if error.errno in _REASONS and error.filename is None:
        text = f"linux.namespaces: creating the user namespace: {_REASONS[error.errno or 0]}"
        raise ChildFailed(_STEP, error.errno or 0, text) from None
    fail(_STEP, error, f"linux.uidMappings: mapping the ids of the user namespace: {error.filename or ''}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = os.path.basename(path)
        raise
    finally:
        os.close(fd)
