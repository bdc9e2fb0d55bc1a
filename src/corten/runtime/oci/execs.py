"""`exec`: a further process in a container, out of a file or of the container's own process and the flags."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from msgspec import structs

from corten.errors import InvalidArgument, NotFound, clip
from corten.runtime.cgroups import Cgroup
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.join import join
from corten.runtime.child.parent import Spawned
from corten.runtime.oci import callers
from corten.runtime.oci.callers import Wishes
from corten.runtime.oci.check import check_process
from corten.runtime.oci.foreground import adopt_size, attend, hold_signals
from corten.runtime.oci.operations import check_console, keep_filters, start_failed
from corten.runtime.oci.options import Options
from corten.runtime.oci.state import Record, Store
from corten.runtime.oci.transitions import require
from corten.runtime.plan import compile_exec
from corten.specs.oci_runtime import Capabilities, Process, decode_process


def execute(store: Store, options: Options) -> int:
    """The exit code of the process, 0 when detached. Raises StartFailed, InvalidArgument, NotFound, Conflict."""
    record = store.load(options.args[0])
    wishes, detach = Wishes.of(options), options.has("detach")
    status = store.status(record)
    if not (status == "paused" and options.has("ignore-paused")):
        require("exec in", record.id, status)
    spec = store.spec(record.id)
    process = _process(spec.process, options)
    check_process(process)
    check_console(process.terminal, wishes.console_socket, detached=detach)
    if process.terminal and not detach:
        adopt_size(process)
    process.env += wishes.environment()
    keep_filters(store)
    plan = compile_exec(process, spec, options.text("user"), (), (record.id, record.bundle))
    plan = wishes.exec_plan(plan, groups_below(record, options.many("cgroup")))
    if not detach:
        hold_signals()
    try:
        spawned = join(plan.to_wire(), record.pid, 0, 1, 2)
    except ChildFailed as failure:
        raise start_failed(failure) from None
    for warning in spawned.warnings:
        store.log.warning(warning)
    console = _hand_over(spawned, wishes)
    return 0 if detach else attend(spawned.pid, console)


def _hand_over(spawned: Spawned, wishes: Wishes) -> int:
    """The console that is ours to carry, or -1. What cannot be told of is not to run."""
    try:
        if wishes.pidfd_socket:
            callers.send_pidfd(wishes.pidfd_socket, spawned.pidfd, b"setns")
        if wishes.pid_file:
            callers.write_pid(wishes.pid_file, spawned.pid)
        if wishes.console_socket:
            callers.send_console(wishes.console_socket, spawned.console)
            return -1
    except OSError:
        os.kill(spawned.pid, 9)
        os.waitpid(spawned.pid, 0)
        raise
    return spawned.console


def _process(own: Process | None, options: Options) -> Process:
    """Out of --process, or of the container's own process with what the flags change."""
    source = options.text("process")
    if source:
        try:
            return decode_process(Path(source).read_bytes())
        except OSError as error:
            raise NotFound("file", source, f"--process {source}: {error.strerror}") from None
    args = options.args[1:]
    if own is None or not args:
        raise InvalidArgument("exec needs a command, or --process with a file")
    process = structs.replace(
        own,
        args=args,
        cwd=options.text("cwd") or own.cwd,
        env=[*own.env, *options.many("env")],
        terminal=options.has("tty"),
        console_size=None,
        selinux_label=options.text("process-label") or own.selinux_label,
        apparmor_profile=options.text("apparmor") or own.apparmor_profile,
        capabilities=_with(own.capabilities, options.many("cap")),
        user=structs.replace(own.user, additional_gids=[*own.user.additional_gids, *_groups(options)]),
    )
    if options.given("no-new-privs"):
        process.no_new_privileges = options.has("no-new-privs")
    return process


def _groups(options: Options) -> list[int]:
    found = []
    for word in options.many("additional-gids"):
        if not word.isdigit():
            raise InvalidArgument(f"--additional-gids: {clip(word, 40)!r} is not a number")
        found.append(int(word))
    return found


def _with(own: Capabilities | None, more: list[str]) -> Capabilities | None:
    """A further capability is in all sets but the inheritable."""
    if not more:
        return own
    base = own or Capabilities()
    names = [name if name.startswith("CAP_") else f"CAP_{name}" for name in (word.upper() for word in more)]
    changed = {kind: [*(getattr(base, kind) or ()), *names] for kind in ("bounding", "effective", "permitted")}
    # An ambient capability is inheritable too: the kernel wants that, and runc adds it.
    changed |= {kind: [*(getattr(base, kind) or ()), *names] for kind in ("ambient", "inheritable")}
    return structs.replace(base, **changed)


def groups_below(record: Record, wanted: list[str]) -> list[str]:
    """The files through which a process enters the groups of "[CONTROLLER,...:]PATH". Raises InvalidArgument."""
    found: dict[str, str] = {}
    for word in wanted:
        names, separator, path = word.rpartition(":")
        controllers = names.split(",") if separator else []
        below = posixpath.normpath("/" + path).lstrip("/")
        group = Cgroup(record.cgroup)
        places = [
            (hierarchy.mountpoint, f"{directory}/{below}", "tasks")
            for hierarchy, directory in group.v1_directories()
            if not controllers or not set(controllers).isdisjoint(hierarchy.controllers)
        ]
        # Beside version 1 the group in version 2 is ours alone: whoever made one below need not know of it.
        unified = f"{group.unified}/{below}" if group.unified else ""
        if unified and controllers in ([], [""]) and (group.layout.pure_v2 or os.path.isdir(unified)):
            places.append((group.layout.unified, unified, "cgroup.procs"))
        known = {name for hierarchy, _ in group.v1_directories() for name in hierarchy.controllers} | {""}
        if unknown := set(controllers) - known:
            raise InvalidArgument(f"--cgroup {clip(word)}: the container is in no group of {sorted(unknown)[0]!r}")
        for mountpoint, directory, file in places:
            if not os.path.isdir(directory):
                raise InvalidArgument(f"--cgroup {clip(word)}: {directory}: no such file or directory")
            found[mountpoint] = f"{directory}/{file}"
    return list(found.values())
