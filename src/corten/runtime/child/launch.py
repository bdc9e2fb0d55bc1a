"""Starting a container: control group, namespaces, and a child that executes a plan."""

from __future__ import annotations

import errno
import marshal
import os

from corten.linux import process
from corten.runtime.cgroups import Cgroup, GroupInUse, LimitRefused, refuse_used
from corten.runtime.child import channel as messages
from corten.runtime.child import console, init, mounts, namespaces
from corten.runtime.child import process as steps
from corten.runtime.child.context import Context
from corten.runtime.child.errors import ChildFailed, fail, reason
from corten.runtime.child.parent import Spawned, discard, follow, run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from corten.runtime.child.hooks import Hooks
    from corten.runtime.child.stage import Arrival

HANDLERS = {**mounts.HANDLERS, **console.HANDLERS, **steps.HANDLERS}


def launch(
    wire: bytes,
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    hold: bool = False,
) -> Spawned:
    """Start the container of `wire` (LaunchPlan.to_wire) and return when its program has been executed.

    The caller has a single thread, is a child subreaper, and from here on non-dumpable, so that processes of the
    container can neither trace nor look into the child before it executes their program. The three descriptors become
    the standard streams (-1: /dev/null); a plan with a terminal passes them over and returns the pty's master.

    With `hold` the call returns before execve, for OCI's create; `Spawned.release` goes on, and the poststart hooks
    are the caller's.

    Raises ChildFailed; then nothing is left: no process, no control group.
    """
    plan: dict[str, Any] = marshal.loads(wire)
    if not plan["cgroup"]:
        raise ChildFailed("create cgroup", errno.EINVAL, "a container needs a control group of its own")
    if plan["hooks"]:
        import corten.runtime.child.hooks  # the child has it then too, who cannot import it
    if any(step[0] not in HANDLERS for step in plan["steps"]):
        from corten.runtime.child import rare

        HANDLERS.update(rare.HANDLERS)
    if plan["listener"]:
        import corten.runtime.child.listener  # noqa: F401  # as above
    cgroup = _make_cgroup(plan)
    try:
        ours, theirs = messages.pair()
        try:
            clone = _clone_in_stages if plan["prepare"] else _clone
            pid, pidfd = clone(plan, cgroup, ours, theirs, (stdin, stdout, stderr), hold)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        spawned = Spawned(pid, pidfd, ours if hold else None)
        spawned.warnings.extend(plan["warnings"])
        if plan["scope"]:
            _put_into_scope(plan, spawned, ours)
        if hold:
            spawned.hold(plan)
        follow(ours, spawned, plan, hold)
        if plan["hooks"] and not hold:
            _run_poststart(plan["hooks"]["started"], spawned)
        return spawned
    except BaseException:
        if plan["hooks"]:
            cgroup.kill_all()  # what they have left behind, where no pid namespace has ended with the child
        _remove_gently(cgroup)
        if plan["scope"]:
            _stop_gently(plan["scope"])
        raise


def _make_cgroup(plan: dict[str, Any], *, adopt: bool = False) -> Cgroup:
    """Where systemd makes the group it is made around the child: until then it must just not be somebody else's."""
    try:
        if plan["scope"] and not adopt:
            cgroup = Cgroup(plan["cgroup"])
            refuse_used(cgroup)
            return cgroup
        return Cgroup.create(plan["cgroup"], plan["writes"], adopt=adopt)
    except (GroupInUse, LimitRefused) as error:
        raise ChildFailed("create cgroup", error.errno or 0, error.strerror or str(error)) from None
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        raise ChildFailed("create cgroup", error.errno or 0, f"creating the cgroup:{name} {reason(error)}") from None


def _put_into_scope(plan: dict[str, Any], spawned: Spawned, channel: messages.Channel) -> None:
    """Have systemd make the group with the child in it, add to it, and let the child go on. Raises ChildFailed."""
    from corten.runtime.child import scope

    try:
        try:
            scope.start(plan["scope"], spawned.pid)
        except OSError as error:
            raise ChildFailed("create cgroup", 0, f"creating the scope: {error.strerror or error}") from None
        cgroup = _make_cgroup(plan, adopt=True)
        if plan["user"] is not None:
            from corten.runtime.child import stage

            stage.delegate_scope(plan, cgroup, spawned.pid)
        channel.send(messages.GO)
    except BaseException as error:
        discard(spawned)
        channel.close()
        if isinstance(error, BrokenPipeError):
            raise ChildFailed("create cgroup", 0, "the container's first process is gone") from None
        raise


def _stop_gently(settings: dict[str, Any]) -> None:
    from corten.runtime.child import scope

    try:
        scope.stop(settings)
    except OSError:
        return


def _clone(
    plan: dict[str, Any],
    cgroup: Cgroup,
    ours: messages.Channel,
    theirs: messages.Channel,
    stdio: tuple[int, int, int],
    hold: bool,
) -> tuple[int, int]:
    """The pid and pidfd of the child. A pid namespace that exists already is entered only for the clone itself: of the
    caller it changes where children are born, and that is changed back."""
    process.prctl(process.PR_SET_DUMPABLE, 0)
    own = entered = -1
    unified = cgroup.open_unified()
    try:
        if plan["pid_namespace"]:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            entered = namespaces.open_namespace(process.CLONE_NEWPID, plan["pid_namespace"])
            process.setns(entered, process.CLONE_NEWPID)
        try:
            pid, pidfd = process.clone3(plan["flags"], cgroup_fd=unified)
        except OSError as error:
            fail("clone", error, "creating the container's process")
        if pid == 0:
            ours.close()
            _child(plan, cgroup, theirs, stdio, hold)
        return pid, pidfd
    finally:
        if entered >= 0:
            process.setns(own, process.CLONE_NEWPID)
        for fd in (own, entered, unified):
            if fd >= 0:
                os.close(fd)


def _clone_in_stages(
    plan: dict[str, Any],
    cgroup: Cgroup,
    ours: messages.Channel,
    theirs: messages.Channel,
    stdio: tuple[int, int, int],
    hold: bool,
) -> tuple[int, int]:
    from corten.runtime.child import stage

    def child(arrival: stage.Arrival) -> NoReturn:
        ours.close()
        _child(plan, cgroup, theirs, stdio, hold, arrival)

    process.prctl(process.PR_SET_DUMPABLE, 0)
    plan["warnings"] = list(plan["warnings"])
    return stage.clone(plan, cgroup, stdio, child)


def _child(
    plan: dict[str, Any],
    cgroup: Cgroup,
    channel: messages.Channel,
    stdio: tuple[int, int, int],
    hold: bool,
    arrival: Arrival | None = None,
) -> NoReturn:
    current = ["join namespaces"]

    def enter() -> None:
        if arrival is not None:
            arrival.find_place()
        if plan["scope"]:
            channel.await_go()
        cgroup.enter_v1()
        if arrival is not None:
            arrival.enter_cgroup_namespace()
        else:
            for kind, path in plan["joins"]:
                namespaces.join(kind, path)
        if plan["unshare_cgroup"]:
            # Only now: the namespace's root is the group that its creator is in.
            process.unshare(process.CLONE_NEWCGROUP)
        if plan["user"] is not None:
            from corten.runtime.child.usernamespace import become_root

            become_root()
        if plan["init"]:
            # As early as it can be, since every page touched before is init's own for the container's whole life.
            init.split(*plan["steps"][-1][-2:])  # Execute's seccomp program and flags

    def body() -> None:
        ctx = Context(channel, cgroup, plan["root"])
        ctx.hold, ctx.keep_fds = hold, plan["keep_fds"]
        if arrival is not None:
            arrival.hand_over(ctx)
        for name, *values in plan["steps"]:
            current[0] = name
            HANDLERS[name](ctx, *values)

    run_child(channel, stdio, (enter, body), lambda: current[0])
    os._exit(1)


def _run_poststart(found: Hooks | None, spawned: Spawned) -> None:
    """A failure ends the container."""
    from corten.runtime.child import hooks

    if found is None:
        return
    try:
        hooks.run(found, spawned.pid, watch=spawned.pidfd, grace=hooks.PATIENCE)
    except ChildFailed:
        discard(spawned)
        raise


def _remove_gently(cgroup: Cgroup) -> None:
    """Without an error of its own: what went wrong before is what the caller has to know."""
    try:
        cgroup.remove()
    except OSError:
        return
