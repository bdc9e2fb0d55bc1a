"""A start in two stages: user and time namespaces, mount namespaces by path, idmapped mounts.

     launcher                       helper                              child
       | -- fork -------------------> |                                   |
       |                              | opens what it is given by path    |
       |                              | holds mounts, enters namespaces,  |
       |                              | the user namespace last           |
       |                              | -- clone3(CLONE_PARENT) --------> |
       | <--- CLONED pid + its pidfd  | _exit                             | goes on as in an ordinary start
       | <--------------------------------- messages of the child ------- |

The helper has the rights of the host's root and is in none of the container's namespaces but those that exist already;
the child is born without those rights. Neither is dumpable, and the memory of both belongs to the host's user namespace
until execve: no capability inside lets anybody trace them, or look through their /proc/PID/root at more than his own.
"""

from __future__ import annotations

import errno
import os

from corten.linux import mount as api
from corten.linux import process
from corten.linux.imports import seal_imports
from corten.runtime.child import channel as messages
from corten.runtime.child import held, namespaces, usernamespace
from corten.runtime.child.errors import ChildFailed, fail
from corten.runtime.child.parent import reap, run_reporting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from corten.runtime.cgroups import Cgroup
    from corten.runtime.child.context import Context

_DELEGATE = "/sys/kernel/cgroup/delegate"


class Arrival:
    """What the helper leaves to the child: mounts that are held, and a cgroup namespace to be joined late."""

    __slots__ = ("_held", "_place", "cgroup_namespace")

    def __init__(self, mounts: dict[str, list[int]], cgroup_namespace: tuple[str, int]) -> None:
        self._held, self.cgroup_namespace = mounts, cgroup_namespace
        self._place = -1

    def find_place(self) -> None:
        """The root's directory in this mount namespace: the working directory, which the clone has moved along.

        Opened without a look at its path, whose directories the container's root may not be able to pass.
        """
        self._place = api.open_tree(api.AT_FDCWD, "", api.AT_EMPTY_PATH)

    def enter_cgroup_namespace(self) -> None:
        path, fd = self.cgroup_namespace
        if fd >= 0:
            namespaces.enter(process.CLONE_NEWCGROUP, path, fd)

    def hand_over(self, ctx: Context) -> None:
        ctx.held, ctx.place = self._held, self._place


def clone(
    plan: dict[str, Any], cgroup: Cgroup, stdio: tuple[int, int, int], child: Callable[[Arrival], NoReturn]
) -> tuple[int, int]:
    """The pid and pidfd of a child of the caller that runs `child`; warnings are put to the plan's.

    Raises ChildFailed.
    """
    ours, theirs = messages.pair()
    try:
        helper = os.fork()
        if helper == 0:
            ours.close()
            _help(plan, cgroup, stdio, child, theirs)
        theirs.close()
        try:
            return _await_clone(ours, plan["warnings"])
        finally:
            reap(helper)
    finally:
        ours.close()
        theirs.close()


def _await_clone(channel: messages.Channel, warnings: list[str]) -> tuple[int, int]:
    while True:
        message, fds = channel.receive()
        if message is None:
            raise ChildFailed("start", 0, "the helper of the container's start was killed")
        kind, *values = message
        if kind == messages.CLONED:
            return values[0], fds[0]
        if kind == messages.FAILED:
            raise ChildFailed(*values)
        warnings.append(values[0])


def _help(
    plan: dict[str, Any],
    cgroup: Cgroup,
    stdio: tuple[int, int, int],
    child: Callable[[Arrival], NoReturn],
    channel: messages.Channel,
) -> NoReturn:
    current = ["join namespaces"]

    def body() -> None:
        os.umask(0)
        seal_imports()  # a mount namespace that is entered may be somebody else's
        stage, late = _prepare(plan, cgroup, stdio, channel, current)
        current[0] = "clone"
        unified = cgroup.open_unified()
        _enter_user(plan, stage)
        try:
            pid, pidfd = process.clone3(
                plan["flags"] & ~process.CLONE_NEWTIME | process.CLONE_PARENT, cgroup_fd=unified
            )
        except OSError as error:
            fail("clone", error, "creating the container's process")
        if pid == 0:
            channel.close()
            child(Arrival(stage.held, late))
        channel.send(messages.CLONED, pid, fds=(pidfd,))
        os._exit(0)

    run_reporting(channel, body, lambda: current[0])
    os._exit(1)


def _prepare(
    plan: dict[str, Any], cgroup: Cgroup, stdio: tuple[int, int, int], channel: messages.Channel, current: list[str]
) -> tuple[held.Stage, tuple[str, int]]:
    """All that needs the rights of the host's root. Every path is opened before any namespace is entered."""
    joins = list(plan["joins"])
    if plan["pid_namespace"]:
        joins.append((process.CLONE_NEWPID, plan["pid_namespace"]))
    opened = [(kind, path, namespaces.open_namespace(kind, path)) for kind, path in joins]
    user = _open_user(plan)
    late = _enter_joined(opened, user)
    stage = held.Stage(channel, cgroup, plan["root"], user)
    if user is not None:
        usernamespace.own_pipes(stdio, user.uid(0), user.gid(0))
        if not plan["scope"]:
            delegate(cgroup, user.uid(plan["cgroup_owner"]))
    for name, *values in plan["prepare"]:
        current[0] = name
        held.HANDLERS[name](stage, *values)
    return stage, late


def _open_user(plan: dict[str, Any]) -> usernamespace.UserNamespace | None:
    if plan["user"] is None:
        return None
    path, uids, gids = plan["user"]
    return usernamespace.join(path, uids, gids) if path else usernamespace.create(uids, gids)


def _enter_joined(opened: list[tuple[int, str, int]], user: usernamespace.UserNamespace | None) -> tuple[str, int]:
    """Enter what exists, while we have the right to enter anything; a mount namespace of our own otherwise.

    A cgroup namespace is left to the child, who enters its groups first: with `nsdelegate` nobody moves into a group
    that his namespace does not show. Only one that is not the container's own must be entered now.
    """
    late = ("", -1)
    if not any(kind == process.CLONE_NEWNS for kind, _, _ in opened):
        process.unshare(process.CLONE_NEWNS)
    for kind, path, fd in opened:
        if kind == process.CLONE_NEWCGROUP and (user is None or namespaces.is_owned_by(fd, user.fd)):
            late = (path, fd)
        else:
            namespaces.enter(kind, path, fd)
    return late


def _enter_user(plan: dict[str, Any], stage: held.Stage) -> None:
    """The last steps of the helper, after which it has no rights on the host."""
    try:
        os.chdir(plan["root"])
    except OSError as error:
        fail("mount root", error, f"the root's directory {plan['root']}")
    if stage.user is not None:
        try:
            process.setns(stage.user.fd, process.CLONE_NEWUSER)
        except OSError as error:
            fail("join namespaces", error, "linux.namespaces: entering the user namespace")
    if plan["flags"] & process.CLONE_NEWTIME:
        _make_time_namespace(stage, plan["time_offsets"])


def _make_time_namespace(stage: held.Stage, offsets: str) -> None:
    """For the child alone: until somebody is in it the clocks can be set."""
    try:
        process.unshare(process.CLONE_NEWTIME)
    except OSError as error:
        fail("time namespace", error, "linux.namespaces: creating the time namespace")
    if not offsets:
        return
    try:
        fd = os.open("self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC, dir_fd=stage.proc)
        try:
            os.write(fd, offsets.encode())
        finally:
            os.close(fd)
    except OSError as error:
        fail("time namespace", error, f"linux.timeOffsets: setting {', '.join(offsets.splitlines())}")


def delegate_scope(plan: dict[str, Any], cgroup: Cgroup, pid: int) -> None:
    """In the parent, where systemd has made the group only around the child `pid`."""
    place = f"/proc/{pid}"
    user = usernamespace.UserNamespace(
        -1, usernamespace.read_mappings(f"{place}/uid_map"), usernamespace.read_mappings(f"{place}/gid_map")
    )
    delegate(cgroup, user.uid(plan["cgroup_owner"]))


def delegate(cgroup: Cgroup, owner: int) -> None:
    """On version 2, where that is safe, let the container manage the groups below its own."""
    if owner < 0 or not cgroup.layout.pure_v2:
        return
    try:
        with open(_DELEGATE, encoding="ascii") as file:
            names = file.read().split()
    except FileNotFoundError:  # before Linux 4.15
        names = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
    os.chown(cgroup.unified, owner, -1)
    for name in names:
        try:
            os.chown(f"{cgroup.unified}/{name}", owner, -1)
        except FileNotFoundError:  # of a controller that is not there
            continue


def prepare_exec(plan: dict[str, Any], ctx: Context, init_pid: int) -> None:
    """For a further process of a container with a user namespace, before it enters the container's."""
    place = f"/proc/{init_pid}"
    user = usernamespace.UserNamespace(
        -1, usernamespace.read_mappings(f"{place}/uid_map"), usernamespace.read_mappings(f"{place}/gid_map")
    )
    owner = user.uid(0), user.gid(0)
    if -1 in owner:
        raise ChildFailed("join namespaces", errno.EINVAL, "nothing is mapped to the container's root")
    usernamespace.own_pipes((0, 1, 2), *owner)
    for name, *values in plan["prepare"]:
        held.HANDLERS[name](ctx, *values)
