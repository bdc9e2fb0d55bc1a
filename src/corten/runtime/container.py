"""What cortend holds of one container that runs, or has ended and is not forgotten yet."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from corten.errors import NotFound, SystemFault
from corten.runtime.cgroups import Cgroup
from corten.runtime.cgroups_units import bus_address
from corten.runtime.link import ShimLink
from corten.runtime.shim.records import reserve_exit, write_exit
from corten.runtime.states import Paused, Running, Starting, State, advance
from corten.runtime.types import ExitStatus
from corten.specs.oci_runtime import Spec, decode_spec

log = logging.getLogger(__name__)
LOST_CODE = 137
KILL_PATIENCE = 5.0  # seconds until killed processes have gone


@dataclass(slots=True)
class Handle:
    """One container. `link` is None when it has no shim (any more)."""

    id: str
    run_dir: Path
    exit_file: Path
    cgroup: str
    unit: str = ""  # the scope of systemd that the cgroup is
    state: State = field(default_factory=Starting)
    link: ShimLink | None = None
    execs: set[str] = field(default_factory=set)
    spec: Spec | None = None
    external: bool = False
    ending: bool = False  # its exit is known and about to be reported

    @property
    def socket_path(self) -> str:
        return str(self.run_dir / "shim.sock")

    def move(self, target: State) -> None:
        """Raises IllegalTransition."""
        self.state = advance(self.id, self.state, target)

    def live(self) -> ShimLink:
        """The connection to the shim of a running container. Raises NotFound."""
        if self.link is None or not isinstance(self.state, (Running, Paused)):
            raise NotFound("container", self.id, f"container {self.id} is not running")
        return self.link

    def started_ns(self) -> int:
        return self.state.started_ns if isinstance(self.state, (Running, Paused)) else 0

    async def load_spec(self) -> Spec:
        """The specification that it was launched with; after a restart of the daemon from its run directory."""
        if self.spec is None:
            try:
                self.spec = decode_spec(await asyncio.to_thread((self.run_dir / "config.json").read_bytes))
            except OSError as error:
                raise SystemFault(f"the container's specification is gone: {error}", step="read config.json") from None
        return self.spec


def read_exit(exit_file: Path, started_ns: int = 0) -> ExitStatus | None:
    """What the shim recorded; None when there is nothing, or (with `started_ns`) when it is of another run."""
    try:
        record = json.loads(exit_file.read_bytes())
    except (OSError, ValueError):
        return None
    if started_ns and record["started_ns"] not in (0, started_ns):
        return None
    return ExitStatus(record["code"], record["finished_ns"], record["oom_killed"])


def clear_exit(exit_file: Path) -> None:
    """Before a launch: what an earlier run has left must not be taken for the new one's end; room for that is taken."""
    exit_file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        exit_file.unlink()
    reserve_exit(str(exit_file))


def end_orphans(handle: Handle, reason: str) -> ExitStatus:
    """A container whose shim is gone: kill what it left, record an exit, remove its cgroup. Blocks."""
    if handle.cgroup:
        kill_group(handle.cgroup)
    status = ExitStatus(LOST_CODE, time.time_ns(), reason=reason)
    try:
        write_exit(str(handle.exit_file), status.code, status.finished_ns, handle.started_ns(), False)
    except OSError as error:  # whoever waits is told all the same
        log.error("container %s: its exit could not be recorded: %s", handle.id, error)
    remove_leftovers(handle)
    return status


def kill_group(path: str) -> None:
    """Kill every process of a cgroup and wait for their end, within bounds. Blocks."""
    group = Cgroup(path)
    deadline = time.monotonic() + KILL_PATIENCE
    with suppress(OSError):
        group.thaw()  # where the freezer is version 1's, a frozen process does not die
    while group.pids() and time.monotonic() < deadline:
        group.kill_all()
        time.sleep(0.002)


def remove_leftovers(handle: Handle) -> None:
    """What a shim removes itself when it lives: the cgroup, its socket. Blocks."""
    if handle.cgroup:
        with suppress(OSError):
            Cgroup(handle.cgroup).remove()
    if handle.unit:
        from corten.runtime import cgroups_systemd

        with suppress(OSError):
            cgroups_systemd.stop_scope(bus_address(), handle.unit)
    with suppress(OSError):
        os.unlink(handle.run_dir / "shim.sock")
