"""What the steps of one child share."""

from __future__ import annotations

import os
import stat

from corten.linux.openat2 import O_PATH
from corten.linux.process import close_range
from corten.runtime.child.errors import ChildFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.runtime.cgroups import Cgroup
    from corten.runtime.child.channel import Channel
    from corten.runtime.child.hooks import Hooks

    Handler = Callable[..., None]

_NULL_DEVICE = os.makedev(1, 3)


class Context:
    """State that one step leaves for a later one. Descriptors in it live until execve or the end of the process.

    `root` is the container's root; `proc` and `null` are the host's /proc and /dev/null, opened before anything of the
    container could be in their place (CVE-2025-31133, CVE-2025-52881). `directory` is the one that a device was made in
    last: most go to the same. `held` are mounts made before, by the place where they go; `place` is the directory for
    the root itself, -1 to go by its path.
    """

    __slots__ = (
        "args",
        "cgroup",
        "channel",
        "command",
        "cwd_pending",
        "directory",
        "groups",
        "held",
        "hold",
        "home",
        "keep_fds",
        "label_file",
        "mask_directory",
        "null",
        "place",
        "proc",
        "proc_device",
        "root",
        "root_path",
        "start_hooks",
        "uid_gid",
        "umask",
    )

    def __init__(self, channel: Channel, cgroup: Cgroup, root_path: str) -> None:
        self.channel, self.cgroup, self.root_path = channel, cgroup, root_path
        self.root = -1
        self.proc = os.open("/proc", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.null = os.open("/dev/null", O_PATH | os.O_CLOEXEC)
        status = os.fstat(self.null)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
            raise ChildFailed("open /dev/null", 0, "the host's /dev/null is not the null device")
        self.proc_device = -1
        self.label_file = -1
        self.mask_directory = -1
        self.directory = ("", -1)
        self.held: dict[str, list[int]] = {}
        self.place = -1
        self.uid_gid = (0, 0)
        self.groups: list[int] = []
        self.home = "/"
        self.umask = 0o022
        self.cwd_pending = ""
        self.command = ""
        self.args: list[str] = []
        self.hold = False
        self.keep_fds = 0
        self.start_hooks: Hooks | None = None

    def hold_for(self, target: str, mounted: int) -> None:
        """Keep a detached mount for the step that attaches it at `target`."""
        self.held.setdefault(target, []).append(mounted)

    def holds(self, target: str) -> bool:
        return bool(self.held.get(target))

    def take(self, target: str) -> int:
        """The mount that was held first for `target`, -1 for none."""
        held = self.held.get(target)
        return held.pop(0) if held else -1

    def let_go(self) -> None:
        """Close every descriptor but the standard streams, the `keep_fds` behind them that the caller wants the
        program to have, the channel's and `label_file`.

        Not only on execve: the kernel looks the program, its interpreter and what their links lead to up before it
        closes anything, and `/proc/self/fd/N/../bin/sh` with N our /proc is the host's (CVE-2024-21626). What stays
        open is no directory and cannot be executed.
        """
        first = 3 + self.keep_fds
        for fd in sorted({self.channel.fileno(), self.label_file} - {-1}):
            if fd > first:
                close_range(first, fd - 1)
            first = fd + 1
        close_range(first)
        self.root = self.proc = self.null = self.mask_directory = -1
        self.directory = ("", -1)
        self.held, self.place = {}, -1

    def warn(self, text: str) -> None:
        """Tell the parent of something that was left out and does not keep the container from running."""
        self.channel.warn(text)
