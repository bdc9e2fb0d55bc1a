"""Starting a further process in a running container (exec)."""

from __future__ import annotations

import errno
import marshal
import os

from corten.linux import process
from corten.linux.imports import seal_imports
from corten.linux.openat2 import O_PATH
from corten.runtime.cgroups import Cgroup
from corten.runtime.child import channel as messages
from corten.runtime.child import console
from corten.runtime.child import process as steps
from corten.runtime.child.context import Context
from corten.runtime.child.errors import ChildFailed, fail
from corten.runtime.child.parent import Spawned, follow, run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HANDLERS = {**console.HANDLERS, **steps.HANDLERS}
_NAMESPACES = (
    process.CLONE_NEWNS | process.CLONE_NEWUTS | process.CLONE_NEWIPC | process.CLONE_NEWNET | process.CLONE_NEWCGROUP
)


def join(wire: bytes, init_pid: int, stdin: int, stdout: int, stderr: int) -> Spawned:
    """Start the process of `wire` (ExecPlan.to_wire) beside `init_pid`; return when its program has been executed.

    There is no intermediate process: the caller enters the container's pid namespace for the clone alone, so that the
    new process is its own child, its pid is the one on the host, and the caller waits for it. The child then enters
    the other namespaces by itself. The caller has a single thread and has not yet reaped `init_pid`, so that the
    number cannot belong to another process.

    Streams, terminal and errors are as in `launch.launch`.
    """
    plan: dict[str, Any] = marshal.loads(wire)
    if not plan["cgroup"]:
        raise ChildFailed("join cgroup", errno.EINVAL, "the container has no control group to join")
    if plan["listener"]:
        import corten.runtime.child.listener  # noqa: F401  # the child has it then too, who cannot import it
    plan["container"] = init_pid
    try:
        target = process.pidfd_open(init_pid)
    except OSError as error:
        fail("open container", error, "the container's first process")
    try:
        ours, theirs = messages.pair()
        try:
            pid, pidfd = _clone(plan, init_pid, target, ours, theirs, (stdin, stdout, stderr))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
    finally:
        os.close(target)
    spawned = Spawned(pid, pidfd)
    spawned.warnings.extend(plan["warnings"])
    follow(ours, spawned, plan, False)
    return spawned


def _clone(
    plan: dict[str, Any],
    init_pid: int,
    target: int,
    ours: messages.Channel,
    theirs: messages.Channel,
    stdio: tuple[int, int, int],
) -> tuple[int, int]:
    process.prctl(process.PR_SET_DUMPABLE, 0)
    cgroup = Cgroup(plan["cgroup"])
    cpus = _begin_on(plan["initial"]) if plan["initial"] else None
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    unified = cgroup.open_unified()
    try:
        process.setns(target, process.CLONE_NEWPID)
        try:
            try:
                pid, pidfd = process.clone3(0, cgroup_fd=unified)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                # The container has made groups of its own below: processes live in the leaves only.
                os.close(unified)
                unified = _open_group_of(init_pid, cgroup)
                pid, pidfd = process.clone3(0, cgroup_fd=unified)
            if pid == 0:
                ours.close()
                _child(plan, cgroup, init_pid, target, theirs, stdio)
        finally:
            process.setns(own, process.CLONE_NEWPID)
    except OSError as error:
        fail("clone", error, "creating a process in the container")
    finally:
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        os.close(own)
        if unified >= 0:
            os.close(unified)
    return pid, pidfd


def _begin_on(cpus: tuple[int, ...]) -> set[int]:
    """Run on these, and have the child born there; where the caller ran before."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        fail("set CPU affinity", error, "process.execCPUAffinity.initial")
    return before


def _open_group_of(pid: int, cgroup: Cgroup) -> int:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                path = cgroup.layout.unified + line[3:].rstrip("\n")
                return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    raise OSError(errno.ENOENT, "the process has no v2 control group")


def _child(
    plan: dict[str, Any],
    cgroup: Cgroup,
    init_pid: int,
    target: int,
    channel: messages.Channel,
    stdio: tuple[int, int, int],
) -> None:
    current = ["join namespaces"]

    def body() -> None:
        ctx = Context(channel, cgroup, "/")
        remapped = plan["namespaces"] & process.CLONE_NEWUSER
        if remapped:
            from corten.runtime.child import stage, usernamespace

            stage.prepare_exec(plan, ctx, init_pid)
        ctx.keep_fds = plan["keep_fds"]
        seal_imports()
        try:
            process.setns(target, _NAMESPACES | plan["namespaces"])
        except OSError as error:
            fail("join namespaces", error, "entering the container's namespaces")
        if remapped:
            usernamespace.become_root()
        ctx.root = os.open("/", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for name, *values in plan["steps"]:
            current[0] = name
            HANDLERS[name](ctx, *values)

    def enter() -> None:
        cgroup.enter_v1()
        for path in plan["enter"]:
            with open(path, "wb", buffering=0) as file:
                file.write(b"0")

    run_child(channel, stdio, (enter, body), lambda: current[0])


__all__ = ["ChildFailed", "Spawned", "join"]
