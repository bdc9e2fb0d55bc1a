"""The operations of the OCI runtime specification, and those that runc added."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from corten.errors import InvalidArgument, StartFailed, SystemFault
from corten.linux.process import PR_SET_CHILD_SUBREAPER, pidfd_open, prctl
from corten.runtime import seccomp
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_devices import always_allowed
from corten.runtime.child import hooks as hooking
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.launch import launch
from corten.runtime.child.parent import Spawned
from corten.runtime.oci import keeper
from corten.runtime.oci.callers import Wishes, write_pid
from corten.runtime.oci.check import check, named
from corten.runtime.oci.foreground import adopt_size, attend, hold_signals
from corten.runtime.oci.state import Record, Store, load_spec, send_signal, start_of, wait_gone
from corten.runtime.oci.transitions import STARTING, require
from corten.runtime.plan import LaunchPlan, cgroup_path, compile_launch
from corten.runtime.plan_hooks import HookPlan, compile_hooks
from corten.runtime.steps import Hooks
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Linux, Spec

KILL_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class RunModes:
    """What `run` does beside."""

    detach: bool = False
    keep: bool = False
    no_subreaper: bool = False


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A container that nothing was started of yet: its id is taken, and its specification saved."""

    record: Record
    spec: Spec
    plan: LaunchPlan
    directory: Path
    wishes: Wishes


def create(store: Store, name: str, wishes: Wishes) -> Record:
    """Bring a container to the state created. Raises StartFailed, InvalidArgument, Conflict; then nothing is left."""
    prepared = _prepare(store, name, wishes, detached=True)
    record = prepared.record

    def creating(keeper_pid: int) -> None:
        _begin(store, record, keeper_pid)

    with _undone(store, prepared):
        sockets = (wishes.console_socket, wishes.pidfd_socket)
        pid, warnings = keeper.create(prepared.plan.to_wire(), prepared.directory, sockets, creating)
        _note(store, prepared, pid, warnings)
    return record


def _prepare(store: Store, name: str, wishes: Wishes, *, detached: bool) -> _Prepared:
    """All that can be found out without starting anything. Raises InvalidArgument, NotFound, Conflict."""
    store.directory(name)  # an id that is none is said first
    spec = load_spec(wishes.bundle)
    check(spec, wishes.bundle)
    linux = spec.linux or Linux()
    unit = _place(linux, name, systemd=store.systemd_cgroup)
    if linux.resources is not None and linux.resources.devices:
        # Callers deny everything and leave it to the runtime to allow what its own /dev has, as runc does.
        linux.resources.devices += always_allowed()
    spec.linux = linux
    assert spec.process is not None
    check_console(spec.process.terminal, wishes.console_socket, detached=detached)
    if spec.process.terminal and not detached:
        adopt_size(spec.process)
    spec.process.env += wishes.environment()
    keep_filters(store)
    request = LaunchRequest(
        name, spec, wishes.bundle, wishes.bundle / "unused", (), systemd_cgroup=store.systemd_cgroup
    )
    plan = wishes.launch_plan(compile_launch(request))
    record = Record(
        id=name,
        bundle=str(wishes.bundle),
        rootfs=plan.root,
        cgroup=cgroup_path(linux.cgroups_path),
        unit=unit,
        created_ns=time.time_ns(),
        annotations=spec.annotations,
    )
    directory = store.claim(name)
    try:
        store.save_spec(name, spec)
    except BaseException:
        store.remove(name)
        raise
    return _Prepared(record, spec, plan, directory, wishes)


def check_console(terminal: bool, console_socket: str, *, detached: bool) -> None:
    """A terminal's master goes to a socket, or is carried by us while we wait. Raises InvalidArgument."""
    if terminal and detached and not console_socket:
        raise InvalidArgument("cannot allocate a terminal without --console-socket when detached")
    if console_socket and not (terminal and detached):
        raise InvalidArgument("--console-socket is given, but the process has no terminal or is not detached")


def _begin(store: Store, record: Record, creator: int) -> None:
    record.keeper, record.keeper_start = creator, start_of(creator)
    store.save(record)


def _note(store: Store, prepared: _Prepared, pid: int, warnings: Sequence[str]) -> None:
    """What is to be known of a container that waits for its start."""
    record = prepared.record
    record.pid, record.pid_start = pid, start_of(pid)
    store.save(record)
    if prepared.wishes.pid_file:
        write_pid(prepared.wishes.pid_file, pid)
    for warning in warnings:
        store.log.warning(warning)
    store.log.debug(f"container {record.id} waits for its start, its first process is {pid}")


@contextmanager
def _undone(store: Store, prepared: _Prepared) -> Iterator[None]:
    """Take everything away again when the body fails, and name the member of the specification that was at fault."""
    try:
        yield
    except StartFailed as failure:
        # What a launch that fails has made it removes itself; else something may be running.
        launched = failure.step == keeper.STEP or prepared.record.pid != 0
        _destroy(store, prepared.record, prepared.plan.hooks.poststop, kill=launched)
        raise named(failure, prepared.spec, prepared.wishes.bundle) from None
    except BaseException:
        _destroy(store, prepared.record, prepared.plan.hooks.poststop)
        raise


def _place(linux: Linux, name: str, *, systemd: bool) -> str:
    """Where the group is to be, when nothing was said; the unit of systemd that it is, "" without."""
    if systemd:
        from corten.runtime.cgroups_units import scope_of

        linux.cgroups_path = linux.cgroups_path or f":corten:{name}"
        return scope_of(linux.cgroups_path).unit
    linux.cgroups_path = cgroup_path(linux.cgroups_path or name)
    return ""


def keep_filters(store: Store) -> None:
    """Compiling Docker's profile takes longer than all else that a container needs."""
    store.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    seccomp.use_cache(store.root / ".seccomp")


def start(store: Store, name: str) -> None:
    """Raises StartFailed; if it was a hook that failed, nothing is left of the container."""
    record = store.load(name)
    require("start", name, store.status(record))
    hooks = _hooks(store, record)
    try:
        keeper.start(store.directory(name))
        if hooks.poststart is not None:
            _run_poststart(record, hooks.poststart)
    except StartFailed as failure:
        if failure.step == hooking.STEP:
            _destroy(store, record, hooks.poststop)
        raise


def _run_poststart(record: Record, hooks: Hooks) -> None:
    """Raises StartFailed."""
    try:
        watch = pidfd_open(record.pid)
    except ProcessLookupError:  # it has ended already, and has been waited for
        watch = -1
    try:
        hooking.run(hooks, record.pid, watch=watch, grace=hooking.PATIENCE)
    except ChildFailed as failure:
        raise start_failed(failure) from None
    finally:
        if watch >= 0:
            os.close(watch)


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
        if record.unit:
            from corten.runtime import cgroups_systemd
            from corten.runtime.cgroups_units import bus_address

            cgroups_systemd.stop_scope(bus_address(), record.unit)
    if store.remove(record.id) and poststop is not None:
        for failure in hooking.run_all(poststop, 0, hooking.PATIENCE):
            store.log.warning(failure)


def run(store: Store, name: str, wishes: Wishes, modes: RunModes) -> int:
    """create and start; unless detached wait for the end and delete. The exit code, 0 when detached.

    There is no keeper: the container is our own child from the first.
    """
    prepared = _prepare(store, name, wishes, detached=modes.detach)
    record = prepared.record
    if not (modes.detach or modes.no_subreaper):
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # what it leaves behind passes to us
    with _undone(store, prepared):
        _begin(store, record, os.getpid())
        try:
            spawned = launch(prepared.plan.to_wire(), 0, 1, 2, hold=True)
        except ChildFailed as failure:
            raise start_failed(failure) from None
        try:
            if not modes.detach:
                hold_signals()
            console = _follow(store, prepared, spawned)
        except ChildFailed as failure:
            raise start_failed(failure) from None
    store.log.debug(f"container {name} runs, its first process is {record.pid}")
    if modes.detach:
        return 0
    code = attend(record.pid, console)
    if not modes.keep:
        delete(store, name, force=True)
    return code


def _follow(store: Store, prepared: _Prepared, spawned: Spawned) -> int:
    """Bring what waits for its execve to life; the console that is ours to carry, or -1. Raises ChildFailed."""
    waits = prepared.directory / STARTING
    waits.touch()
    _note(store, prepared, spawned.pid, spawned.warnings)
    console = keeper.hand_over(spawned, prepared.wishes.console_socket, prepared.wishes.pidfd_socket)
    spawned.release()
    waits.unlink()
    if prepared.plan.hooks.poststart is not None:
        hooking.run(prepared.plan.hooks.poststart, spawned.pid, watch=spawned.pidfd, grace=hooking.PATIENCE)
    return console


def start_failed(failure: ChildFailed) -> StartFailed:
    return StartFailed(
        failure.detail or failure.step, step=failure.step, errno=failure.errno, exit_code=failure.exit_code
    )


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


def pause(store: Store, name: str, *, frozen: bool) -> None:
    record = store.load(name)
    require("pause" if frozen else "resume", name, store.status(record))
    group = Cgroup(record.cgroup)
    if frozen:
        group.freeze()
    else:
        group.thaw()


def signal_number(text: str) -> int:
    """ "TERM", "SIGTERM" or "15". Raises InvalidArgument."""
    if text.isdigit() and int(text) in range(1, signal.NSIG):
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None
