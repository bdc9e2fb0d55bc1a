"""How the embedded runtime starts, stops and cleans up: calls into runtime.child and the cgroup."""

from __future__ import annotations

import os

from corten.runtime import protocol
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_oom import OomWatch, oom_kills
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.join import join
from corten.runtime.child.launch import launch
from corten.runtime.shim.control import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.child.hooks import Hooks
    from corten.runtime.shim.loop import Loop
    from corten.runtime.shim.process import Process


class Embedded:
    """Implements what the shim asks of a runtime. `settings` are those of the LAUNCH message."""

    external = False

    def __init__(self, settings: dict[str, Any]) -> None:
        self._wire: bytes = settings.pop("wire")
        self._poststop: Hooks | None = settings.pop("poststop", None)
        self._cgroup = Cgroup(settings["cgroup"]) if settings["cgroup"] else None
        self._shared_pids: bool = settings["shared_pids"]
        self._scope: dict[str, Any] = settings.pop("scope", {})
        self._console = -1
        self._oom: OomWatch | None = None

    def launch(self, process: Process) -> list[str]:
        """Start the container's first process; the warnings of its launch. Raises Refusal."""
        try:
            spawned = launch(self._wire, *process.stdio.child_fds)
        except ChildFailed as failure:
            self._cgroup = None  # nothing of ours is left, and the group may be another's
            raise refusal(failure) from None
        self._wire = b""
        process.started(spawned.pid, spawned.pidfd)
        self._console = spawned.console
        return list(spawned.warnings)

    def exec(self, process: Process, init: Process, settings: dict[str, Any]) -> None:
        """Start a further process beside `init`. Raises Refusal."""
        try:
            spawned = join(settings["wire"], init.pid, *process.stdio.child_fds)
        except ChildFailed as failure:
            raise refusal(failure) from None
        process.started(spawned.pid, spawned.pidfd)
        self._console = spawned.console

    def take_console(self) -> int:
        """The console of the process that was started last, -1 without one; the caller's from now on."""
        console, self._console = self._console, -1
        return console

    def signal(self, process: Process, signo: int) -> None:
        process.signal(signo)

    def pause(self) -> None:
        self._need_cgroup().freeze()

    def resume(self) -> None:
        self._need_cgroup().thaw()

    def watch_oom(self, loop: Loop, tell: Callable[[], None]) -> None:
        """Call `tell` whenever the kernel has killed in the container for want of memory, until `ended`."""
        if self._cgroup is not None:
            self._oom = OomWatch(self._cgroup, loop, tell)

    def ended(self) -> bool:
        """The first process has ended: end what is left of the container. Whether the kernel killed for memory."""
        if self._cgroup is None:
            return False
        if self._oom is not None:
            self._oom.close()
        oom = oom_kills(self._cgroup) > 0
        if self._shared_pids:  # with a pid namespace of its own the kernel has done it
            self._cgroup.kill_all()
        return oom

    def clean_up(self) -> None:
        """Remove what the container had, then run its poststop hooks, once; their failures go to the shim's log."""
        try:
            if self._cgroup is not None:
                self._cgroup.remove()
                if self._scope:
                    _stop_scope(self._scope)
        finally:
            poststop, self._poststop = self._poststop, None
            if poststop is not None:
                _run_poststop(poststop)

    def _need_cgroup(self) -> Cgroup:
        if self._cgroup is None:
            raise Refusal(protocol.CONFLICT, "the container has no cgroup that could be frozen")
        return self._cgroup


def _stop_scope(settings: dict[str, Any]) -> None:
    from corten.runtime.child import scope

    try:
        scope.stop(settings)
    except OSError as error:
        os.write(2, f"the scope {settings['unit']} was not stopped: {error.strerror}\n".encode())


def _run_poststop(found: Hooks) -> None:
    from corten.runtime.child import hooks

    for failure in hooks.run_all(found, 0, hooks.PATIENCE):
        os.write(2, f"{failure}\n".encode())


def refusal(failure: ChildFailed) -> Refusal:
    return Refusal(protocol.START_FAILED, failure.detail, failure.step, failure.errno, failure.exit_code)
