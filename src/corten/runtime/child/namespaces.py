"""Opening and entering namespaces that exist already."""

from __future__ import annotations

import errno
import fcntl
import os

from corten.linux import process
from corten.runtime.child.errors import ChildFailed, fail

# linux/nsfs.h
NS_GET_USERNS = 0xB701
NS_GET_NSTYPE = 0xB703

NAMES = {
    process.CLONE_NEWNS: "mount",
    process.CLONE_NEWPID: "pid",
    process.CLONE_NEWNET: "network",
    process.CLONE_NEWUTS: "uts",
    process.CLONE_NEWIPC: "ipc",
    process.CLONE_NEWCGROUP: "cgroup",
    process.CLONE_NEWUSER: "user",
    process.CLONE_NEWTIME: "time",
}
_STEP = "join namespace"


def open_namespace(kind: int, path: str) -> int:
    """A descriptor of the namespace at `path`. Raises ChildFailed, also when it is of another kind."""
    what = f"linux.namespaces: joining the {NAMES[kind]} namespace {path}"
    try:
        # What is there may be a pipe: opening must not wait.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        fail(_STEP, error, what)
    try:
        found = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:  # ENOTTY: no namespace at all
        found = 0
    if found != kind:
        os.close(fd)
        other = f"a {NAMES[found]} namespace" if found in NAMES else "no namespace"
        raise ChildFailed(_STEP, errno.EINVAL, f"{what}: it is {other}")
    return fd


def enter(kind: int, path: str, fd: int) -> None:
    """setns with a message that names the member."""
    try:
        process.setns(fd, kind)
    except OSError as error:
        fail(_STEP, error, f"linux.namespaces: joining the {NAMES[kind]} namespace {path}")


def join(kind: int, path: str) -> None:
    fd = open_namespace(kind, path)
    try:
        enter(kind, path, fd)
    finally:
        os.close(fd)


def is_owned_by(fd: int, user: int) -> bool:
    """Whether the namespace `fd` belongs to the user namespace `user`."""
    try:
        owner = fcntl.ioctl(fd, NS_GET_USERNS)
    except OSError:  # EPERM: to one that is none of ours
        return False
    try:
        return os.path.sameopenfile(owner, user)
    finally:
        os.close(owner)
