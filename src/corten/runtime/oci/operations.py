"""The operations of the OCI runtime specification, and those that runc added."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec import json

from corten.errors import Conflict, InvalidArgument, NotFound, StartFailed, SystemFault
from corten.linux.process import PR_SET_CHILD_SUBREAPER, prctl
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_devices import always_allowed
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.join import join
from corten.runtime.oci import keeper
from corten.runtime.oci.state import Record, Store, load_spec, send_signal, start_of, wait_gone
from corten.runtime.plan import cgroup_path, compile_exec, compile_launch
from corten.runtime.types import LaunchRequest
from corten.specs.oci_runtime import Hook, Linux, Process, Spec

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
    wire = compile_launch(request).to_wire()
    directory = store.claim(name)
    hooks = _Hooks(spec, name, options.bundle)
    try:
        pid = keeper.create(wire, directory, options.console_socket, hooks.created if hooks.wanted else None)
        record = Record(
            id=name,
            bundle=str(options.bundle),
            pid=pid,
            pid_start=start_of(pid),
            cgroup=linux.cgroups_path,
            created_ns=time.time_ns(),
            annotations=spec.annotations,
        )
        store.save(record)
        if options.pid_file:
            write_pid(options.pid_file, pid)
    except BaseException:
        store.remove(name)
        raise
    return record


def start(store: Store, name: str) -> None:
    record = store.load(name)
    status = store.status(record)
    if status != "created":
        raise Conflict(f"cannot start a container that is {status}")
    keeper.start(store.directory(name))
    _Hooks(load_spec(Path(record.bundle)), name, Path(record.bundle)).started(record.pid)


def run(store: Store, name: str, options: CreateOptions, *, detach: bool) -> int:
    """create and start; without `detach` wait for the end and delete. The exit code, 0 when detached."""
    if not detach:
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # the container passes to us when its keeper ends
    record = create(store, name, options)
    try:
        start(store, name)
    except BaseException:
        delete(store, name, force=True)
        raise
    if detach:
        return 0
    code = _wait(record.pid)
    delete(store, name, force=True)
    return code


def kill(store: Store, name: str, signo: int, *, everyone: bool = False) -> None:
    """Raises Conflict when it is not running."""
    record = store.load(name)
    if everyone:
        for pid in Cgroup(record.cgroup).pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signo)
        return
    if not send_signal(record, signo):
        raise Conflict("container not running")


def delete(store: Store, name: str, *, force: bool = False) -> None:
    """Remove what is left. Raises Conflict for one that runs, unless forced."""
    record = store.load(name)
    status = store.status(record)
    if status != "stopped":
        if not force and status != "created":
            raise Conflict(f"cannot delete container {name} that is not stopped: {status}")
        group = Cgroup(record.cgroup)
        group.kill_all()
        if not wait_gone(record, KILL_PATIENCE):
            raise SystemFault(f"container {name} does not die", step="delete")
    Cgroup(record.cgroup).remove()
    store.remove(name)
    with suppress(NotFound, InvalidArgument):  # the bundle may be gone by now
        _Hooks(load_spec(Path(record.bundle)), name, Path(record.bundle)).stopped()


def execute(store: Store, name: str, process: Process, user: str, options: CreateOptions, *, detach: bool) -> int:
    """A further process; its exit code, 0 when detached."""
    record = store.load(name)
    status = store.status(record)
    if status not in ("running", "created"):
        raise Conflict(f"cannot exec in a container that is {status}")
    if process.terminal and not options.console_socket:
        raise InvalidArgument("cannot allocate a terminal without --console-socket")
    spec = load_spec(Path(record.bundle))
    linux = spec.linux or Linux()
    linux.cgroups_path = record.cgroup
    spec.linux = linux
    try:
        spawned = join(compile_exec(process, spec, user, ()).to_wire(), record.pid, 0, 1, 2)
    except ChildFailed as failure:
        raise StartFailed(failure.detail, step=failure.step, errno=failure.errno, exit_code=failure.exit_code) from None
    if options.console_socket:
        keeper.send_console(options.console_socket, spawned.console)
    if options.pid_file:
        write_pid(options.pid_file, spawned.pid)
    return 0 if detach else _wait(spawned.pid)


def pause(store: Store, name: str, *, frozen: bool) -> None:
    record = store.load(name)
    status = store.status(record)
    if status not in (("running", "created") if frozen else ("paused",)):
        raise Conflict(f"cannot {'pause' if frozen else 'resume'} a container that is {status}")
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


class _Hooks:
    """Runs a specification's hooks, each with the container's state on its stdin."""

    def __init__(self, spec: Spec, name: str, bundle: Path) -> None:
        self._hooks, self._name, self._bundle = spec.hooks, name, bundle
        self._annotations = spec.annotations

    @property
    def wanted(self) -> bool:
        """Whether something is to run before the root is switched."""
        return self._hooks is not None and bool(self._hooks.prestart or self._hooks.create_runtime)

    def created(self, pid: int) -> None:
        if self._hooks is not None:
            self._run((*self._hooks.prestart, *self._hooks.create_runtime), "creating", pid)

    def started(self, pid: int) -> None:
        self._run_gently(self._hooks.poststart if self._hooks is not None else (), "running", pid)

    def stopped(self) -> None:
        self._run_gently(self._hooks.poststop if self._hooks is not None else (), "stopped", 0)

    def _run_gently(self, hooks: Sequence[Hook], status: str, pid: int) -> None:
        """Hooks whose failure is only worth a warning, and does not keep the next from running."""
        for hook in hooks:
            try:
                self._run((hook,), status, pid)
            except ChildFailed as failure:
                sys.stderr.write(f"warning: {failure.detail}\n")

    def _run(self, hooks: Sequence[Hook], status: str, pid: int) -> None:
        state = {
            "ociVersion": "1.2.0",
            "id": self._name,
            "status": status,
            "pid": pid,
            "bundle": str(self._bundle),
            "annotations": self._annotations,
        }
        for hook in hooks:
            env = dict(word.partition("=")[::2] for word in hook.env)
            try:
                ran = subprocess.run(
                    hook.args or [hook.path],
                    executable=hook.path,
                    input=json.encode(state),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=env,
                    timeout=hook.timeout,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ChildFailed("hook", 0, f"error running hook {hook.path}: {error}") from None
            if ran.returncode:
                text = ran.stderr.decode(errors="replace").strip()[:500]
                raise ChildFailed("hook", 0, f"error running hook {hook.path}: exit status {ran.returncode}: {text}")


def signal_number(text: str) -> int:
    """ "TERM", "SIGTERM" or "15". Raises InvalidArgument."""
    if text.isdigit() and int(text) in range(1, signal.NSIG):
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None
