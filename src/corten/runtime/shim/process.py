"""A process that the shim started: the container's first one, or an exec session."""

from __future__ import annotations

import os
import select
import time

from corten.linux.process import pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.shim.stdio import Stdio


class Process:
    """`exit_code` is None while it runs; `target` is "" for the first process, else the exec's id."""

    __slots__ = ("exit_code", "finished_ns", "pid", "pidfd", "reported", "started_ns", "stdio", "target")

    def __init__(self, target: str, stdio: Stdio) -> None:
        self.target, self.stdio = target, stdio
        self.pid, self.pidfd = 0, -1
        self.started_ns, self.finished_ns = 0, 0
        self.exit_code: int | None = None
        self.reported = False

    def started(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd
        self.started_ns = time.time_ns()

    def ended(self, status: int) -> None:
        """`status` as waitpid gives it. The pid is free for others from now on."""
        code = os.waitstatus_to_exitcode(status)
        self.exit_code = 128 - code if code < 0 else code
        self.finished_ns = time.time_ns()
        os.close(self.pidfd)
        self.pidfd = -1

    def alive(self) -> bool:
        """Whether it runs; False for a zombie too, which nobody has told us of yet."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def signal(self, signo: int) -> None:
        """A process that has ended is no error."""
        if self.pidfd < 0:
            return
        try:
            pidfd_send_signal(self.pidfd, signo)
        except ProcessLookupError:  # a zombie that is not reaped yet
            return
