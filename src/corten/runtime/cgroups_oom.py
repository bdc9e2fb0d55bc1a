"""Whether the kernel has killed for want of memory in a control group, and being told when it does.

Runs in the shim: no costly imports.
"""

from __future__ import annotations

import os
import select

from corten.runtime.cgroups import read_flat
from corten.runtime.cgroups_tree import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.runtime.cgroups import Cgroup
    from corten.runtime.shim.loop import Loop

_TIMER = "oom"
_FIRST_LOOK = 0.005  # seconds from version 1's word to the first look for the kill that it precedes
_LAST_LOOK = 2.0


def oom_kills(group: Cgroup) -> int:
    """How many processes the kernel has killed in the group and below it for want of memory."""
    directory = group.directory("memory")
    if not directory:
        return 0
    if group.layout.version("memory") == 2:
        name, whole = "memory.events", not group.layout.local_events
    else:
        name, whole = "memory.oom_control", False
    try:
        # A kill is counted in the victim's own group, and in those above it only by version 2 as it is usually mounted.
        below = not whole and os.stat(directory).st_nlink > 2
    except OSError:
        return 0
    return sum(read_flat(f"{path}/{name}").get("oom_kill", 0) for path in (tree(directory) if below else (directory,)))


class OomWatch:
    """Calls `tell` as soon as the kernel has killed, once for all kills that are found together.

    Where the OOM killer is switched off (version 1) it tells that processes are stopped for want of memory.
    """

    __slots__ = ("_fd", "_group", "_loop", "_pause", "_seen", "_tell", "_version")

    def __init__(self, group: Cgroup, loop: Loop, tell: Callable[[], None]) -> None:
        """A group without the memory controller has nothing to tell."""
        self._group, self._loop, self._tell = group, loop, tell
        self._version = group.layout.version("memory")
        self._seen, self._pause, self._fd = 0, 0.0, -1
        try:
            if self._version == 2:
                self._fd = os.open(group.directory("memory") + "/memory.events", os.O_RDONLY | os.O_CLOEXEC)
                os.read(self._fd, 4096)  # only what changes after a look is told
                loop.watch(self._fd, select.EPOLLPRI, self._changed)
            elif self._version == 1:
                self._fd = _eventfd_v1(group.directory("memory"))
                loop.watch(self._fd, select.EPOLLIN, self._warned)
        except OSError:  # no such file in this kernel, or not handed down to this group
            return
        self.look()  # what has happened before

    def look(self) -> bool:
        """Tell of kills that were not told of yet; whether there were any."""
        kills = oom_kills(self._group)
        if kills <= self._seen:
            return False
        self._seen = kills
        self._tell()
        return True

    def close(self) -> None:
        """Look for the last time."""
        self.look()
        self._leave()

    def _leave(self) -> None:
        self._loop.cancel(_TIMER)
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _changed(self, events: int) -> None:
        """Version 2: some counter of memory.events has changed."""
        try:
            os.pread(self._fd, 4096, 0)
        except OSError:  # the group is gone
            self._leave()
            return
        self.look()

    def _warned(self, events: int) -> None:
        """Version 1 says so before it kills, and once more when the group is removed."""
        os.eventfd_read(self._fd)
        if not os.path.exists(self._group.directory("memory")):
            self._leave()
            return
        if read_flat(self._group.directory("memory") + "/memory.oom_control").get("oom_kill_disable"):
            self._tell()
            return
        self._pause = _FIRST_LOOK
        self._look_again()

    def _look_again(self) -> None:
        if not self.look() and self._pause < _LAST_LOOK:
            self._loop.after(self._pause, _TIMER, self._look_again)
            self._pause *= 2


def _eventfd_v1(directory: str) -> int:
    """An event descriptor that the kernel counts up when the group is out of memory."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            listener = os.open(directory + "/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(listener, b"%d %d" % (event, control))
            finally:
                os.close(listener)
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        raise
    return event
