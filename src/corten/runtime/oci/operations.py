"""The operations of the OCI runtime specification, and those that runc added."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corten.errors import InvalidArgument, NotFound, StartFailed, SystemFault
from corten.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_devices import always_allowed
from corten.runtime.child import hooks as hooking
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.join import join
from corten.runtime.oci import keeper
from corten.runtime.oci.state import Record, Store, load_spec, send_signal, start_of, wait_gone
from corten.runtime.oci.transitions import require
from corten.runtime.plan import cgroup_path, compile_exec, compile_launch
from corten.runtime.plan_hooks import HookPlan, compile_hooks
from corten.runtime.steps import Hooks
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Linux, Process

KILL_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """`console_socket` and `pid_file` are "" when not wanted."""

    bundle: Path
    console_socket: str = ""
    pid_file: str = ""


def create(store: Store, name: str, options: CreateOptions) -> Record:
    """Bring a container to the state created. Raises StartFailed, InvalidArgument, Conflict; then nothing is left."""
    spec = load_spec(options.bundle)
    linux = spec.linux or Linux()
    linux.cgroups_path = cgroup_path(linux.cgroups_path or f"/corten/{name}")
    if linux.resources is not None and linux.resources.devices:
        # Callers deny everything and leave it to the runtime to allow what its own /dev has, as runc does.
        linux.resources.devices += always_allowed()
    spec.linux = linux
    terminal = spec.process is not None and spec.process.terminal
    if terminal and not options.console_socket:
        raise InvalidArgument("cannot allocate a terminal without --console-socket")
    if options.console_socket and not terminal:
        raise InvalidArgument("--console-socket is given, but the process has no terminal")
    request = LaunchRequest(name, spec, options.bundle, options.bundle / "unused", ())
    plan = compile_launch(request)
    directory = store.claim(name)
    record = Record(
        id=name,
        bundle=str(options.bundle),
        cgroup=linux.cgroups_path,
        created_ns=time.time_ns(),
        annotations=spec.annotations,
    )

    def creating(keeper_pid: int) -> None:
        record.keeper, record.keeper_start = keeper_pid, start_of(keeper_pid)
        store.save(record)

    try:
        store.save_spec(name, spec)
        record.pid, warnings = keeper.create(plan.to_wire(), directory, options.console_socket, creating)
        record.pid_start = start_of(record.pid)
        store.save(record)
        if options.pid_file:
            write_pid(options.pid_file, record.pid)
    except BaseException as error:
        # What a launch that fails has made it removes itself; else something may be running.
        launched = not isinstance(error, StartFailed) or error.step == keeper.STEP
        _destroy(store, record, plan.hooks.poststop, kill=launched)
        raise
    for warning in warnings:
        store.log.warning(warning)
    return record


def start(store: Store, name: str) -> None:
    """Raises StartFailed; if it was a hook that failed, nothing is left of the container."""
    record = store.load(name)
    require("start", name, store.status(record))
    hooks = _hooks(store, record)
    try:
        keeper.start(store.directory(name))
        if hooks.poststart is not None:
            try:
                hooking.run(hooks.poststart, record.pid)
            except ChildFailed as failure:
                raise StartFailed(failure.detail, step=failure.step) from None
    except StartFailed as failure:
        if failure.step == hooking.STEP:
            _destroy(store, record, hooks.poststop)
        raise


def _hooks(store: Store, record: Record) -> HookPlan:
    return compile_hooks(store.spec(record.id), record.id, record.bundle)


def _destroy(store: Store, record: Record, poststop: Hooks | None, *, kill: bool = True) -> None:
    """End what runs, remove what there is, and if it was us who did run the poststop hooks."""
    if kill:
        group = Cgroup(record.cgroup)
        group.kill_all()
        if not wait_gone(record, KILL_PATIENCE):
            raise SystemFault(f"container {record.id} does not die", step="delete")
        group.remove()
    if store.remove(record.id) and poststop is not None:
        for failure in hooking.run_all(poststop, 0, hooking.POSTSTOP_PATIENCE):
            store.log.warning(failure)


def run(store: Store, name: str, options: CreateOptions, *, detach: bool) -> int:
    """create and start; without `detach` wait for the end and delete. The exit code, 0 when detached."""
    if not detach:
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # the container passes to us when its keeper ends
    record = create(store, name, options)
    try:
        start(store, name)
    except BaseException:
        with suppress(NotFound):  # a hook's failure has taken it away already
            delete(store, name, force=True)
        raise
    if detach:
        return 0
    code = _wait(record.pid)
    delete(store, name, force=True)
    return code


def kill(store: Store, name: str, signo: int, *, everyone: bool = False) -> None:
    """Raises IllegalTransition when it is not running."""
    record = store.load(name)
    require("kill", name, store.status(record))
    if everyone:
        for pid in Cgroup(record.cgroup).pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signo)
        return
    if not send_signal(record, signo):
        require("kill", name, "stopped")  # it has just ended


def delete(store: Store, name: str, *, force: bool = False) -> None:
    """Remove what is left. Raises Conflict for one that runs, unless forced."""
    record = store.load(name)
    if not force:
        require("delete", name, store.status(record))
    _destroy(store, record, _hooks(store, record).poststop)


def execute(store: Store, name: str, process: Process, user: str, options: CreateOptions, *, detach: bool) -> int:
    """A further process; its exit code, 0 when detached."""
    record = store.load(name)
    require("exec in", name, store.status(record))
    if process.terminal and not options.console_socket:
        raise InvalidArgument("cannot allocate a terminal without --console-socket")
    try:
        spawned = join(compile_exec(process, store.spec(name), user, ()).to_wire(), record.pid, 0, 1, 2)
    except ChildFailed as failure:
        raise StartFailed(failure.detail, step=failure.step, errno=failure.errno, exit_code=failure.exit_code) from None
    if options.console_socket:
        keeper.send_console(options.console_socket, spawned.console)
    if options.pid_file:
        write_pid(options.pid_file, spawned.pid)
    return 0 if detach else _wait(spawned.pid)


def pause(store: Store, name: str, *, frozen: bool) -> None:
    record = store.load(name)
    require("pause" if frozen else "resume", name, store.status(record))
    group = Cgroup(record.cgroup)
    if frozen:
        group.freeze()
    else:
        group.thaw()


def write_pid(path: str, pid: int) -> None:
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    temporary.write_text(str(pid))
    temporary.rename(path)


def _wait(pid: int) -> int:
    """The exit code of `pid`, which is our child or passes to us when the child that made it ends."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def signal_number(text: str) -> int:
    """ "TERM", "SIGTERM" or "15". Raises InvalidArgument."""
    if text.isdigit() and int(text) in range(1, signal.NSIG):
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None
