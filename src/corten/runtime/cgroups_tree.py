"""Directories of control groups: made with what they need to take processes, walked, and removed."""

from __future__ import annotations

import errno
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATIENCE = 10.0  # seconds until a group that does not empty or freeze is an error

# What each container gets on version 2, as far as the group above has it to give.
_ALWAYS_V2 = ("cpu", "cpuset", "io", "memory", "pids")


def write(path: str, *values: bytes) -> None:
    """Each value by a write of its own."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            os.write(fd, value)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def write_unless_gone(path: str, value: bytes) -> None:
    """Write a pid into a group; a process that has ended meanwhile is no error."""
    try:
        write(path, value)
    except ProcessLookupError:
        return


def make_v1(mountpoint: str, path: str, cpuset: bool) -> bool:
    """Whether the group is new. One with the cpuset controller gets cpus and nodes, as it takes no process without."""
    directory = mountpoint + path
    try:
        new = _mkdir(directory)
    except FileNotFoundError:
        _make_parents_v1(mountpoint, path, cpuset)
        new = _mkdir(directory)
    if cpuset and not (_cpuset(directory, "cpus") and _cpuset(directory, "mems")):
        _fill_cpuset(mountpoint, path)
    return new


def _make_parents_v1(mountpoint: str, path: str, cpuset: bool) -> None:
    directory = mountpoint
    for name in path.strip("/").split("/")[:-1]:
        directory = f"{directory}/{name}"
        if _mkdir(directory) and cpuset:
            # Groups below are then born with their parent's cpus and nodes; empty ones would take no process.
            write(directory + "/cgroup.clone_children", b"1")


def _fill_cpuset(mountpoint: str, path: str) -> None:
    """Give every group on the way its parent's cpus and nodes where it has none.

    All of them, from the top: a parent that somebody else is making at this moment may still be without.
    """
    above = mountpoint
    for part in path.strip("/").split("/"):
        directory = f"{above}/{part}"
        for name in ("cpus", "mems"):
            if not _cpuset(directory, name):
                write(f"{directory}/cpuset.{name}", _cpuset(above, name))
        above = directory


def _cpuset(directory: str, name: str) -> bytes:
    with open(f"{directory}/cpuset.{name}", "rb", buffering=0) as file:
        return file.read().strip()


def make_v2(root: str, path: str, controllers: Iterable[str]) -> bool:
    """Whether the group is new. `controllers` are handed down to it from the root, as far as they are there."""
    wanted = tuple(controllers)
    if not wanted:
        try:
            return _mkdir(root + path)
        except FileNotFoundError:  # as it is before the first container
            pass
    directory, new = root, False
    for name in path.strip("/").split("/"):
        if wanted:
            _enable_controllers(directory, wanted)
        directory = f"{directory}/{name}"
        new = _mkdir(directory)
    return new


def controllers_v2(wanted: Iterable[str], *, pure: bool) -> tuple[str, ...]:
    """What to hand down to a container's group: the usual ones where version 2 has them, and what a limit asks for."""
    return tuple(dict.fromkeys((*(_ALWAYS_V2 if pure else ()), *wanted)))


def _enable_controllers(directory: str, wanted: tuple[str, ...]) -> None:
    enabled = words(directory + "/cgroup.subtree_control")
    if all(name in enabled for name in wanted):
        return
    available = words(directory + "/cgroup.controllers")
    missing = [b"+" + name.encode() for name in wanted if name in available and name not in enabled]
    control = directory + "/cgroup.subtree_control"
    if not missing:
        return
    try:
        # All at once: the cpu controller alone may be enabled above processes, which makes groups below unusable.
        write(control, b" ".join(missing))
    except OSError as error:
        if error.errno == errno.EBUSY:
            if os.path.ismount(directory) and _move_down(directory):
                write(control, b" ".join(missing))
            return  # the group has processes of its own; a limit that needs the controllers will say so
        for word in missing:
            try:
                write(control, word)
            except OSError as refused:
                if refused.errno not in (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP):
                    raise


def _move_down(directory: str) -> bool:
    """Move a group's processes into a group below it; whether all could be.

    The real root may have processes and controllers for groups below; the root of a cgroup namespace, which is what we
    find when we run in a container, may not. To put its processes one level down is the custom there.
    """
    _mkdir(directory + "/init")
    members = words(directory + "/cgroup.procs")
    for pid in members:
        if pid != "0":  # a process that our pid namespace does not show; 0 would be the writer
            write_unless_gone(directory + "/init/cgroup.procs", pid.encode())
    return "0" not in members


def words(path: str) -> list[str]:
    with open(path, "rb") as file:
        return file.read().decode().split()


def _mkdir(path: str) -> bool:
    """Whether the directory is new."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def tree(top: str) -> Iterator[str]:
    """`top` and the directories below it, parents first."""
    pending = [top]
    while pending:
        directory = pending.pop()
        yield directory
        try:
            with os.scandir(directory) as entries:
                pending.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            continue


def remove_tree(top: str) -> None:
    """Remove a group and those below. The kernel says EBUSY for a moment after the last process ended: OSError when it
    still does after seconds. An absent one is no error."""
    try:
        os.rmdir(top)  # nearly always there is nothing below
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    deadline, pause = time.monotonic() + PATIENCE, 0.001
    while True:
        try:
            for directory in reversed(list(tree(top))):
                os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
