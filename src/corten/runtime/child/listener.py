"""Handing over the listener of a seccomp filter: who answers when a call of the container asks (SCMP_ACT_NOTIFY).

Imported only where there is one, before the clone.

    agent                       parent                                   child
      |                           | <-- LISTENER number, page, pidfd ----- |  the number that the listener will have
      | <-- connect ------------- | <-- EXEC ----------------------------- |
      |                           |                                        |  loads the filter
      |                           | pidfd_getfd                            |  looks at the page, again and again
      | <-- state, the listener - |                                        |
      |                           | -- writes into the page -------------> |
      |                           |                                        |  execve, which closes its own copy

From the filter on the child makes no call but execve: any other may be one that the filter forbids, or that waits for
an answer of the agent, who has no listener yet. That is why the number is told in advance and why the child looks at
memory that it shares with its parent, for less than a millisecond, and asks nobody to wake it.
"""

from __future__ import annotations

import _socket
import errno
import mmap
import os
import select
from itertools import repeat

from corten.linux import process
from corten.linux.memfd import MFD_CLOEXEC
from corten.linux.scm import send_fds
from corten.runtime import protocol
from corten.runtime.child.channel import LISTENER
from corten.runtime.child.errors import ChildFailed, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.runtime.child.channel import Channel

    Plan = tuple[str, bytes, bytes, bytes]
    """The agent's socket, and the JSON for it before, between and after the process's pid and the container's."""

STEP = "hand over seccomp listener"

_SIGKILL = 9
_PAGE = mmap.PAGESIZE
_LOOKS = 10**9  # half a minute and more: a parent that has died must not leave a process that spins
_PAUSE = 1  # milliseconds between two looks of the parent


def offer(channel: Channel) -> Callable[[int], None]:
    """The child's part: tell the number, and who we are, as with a tiny init the parent knows that one alone.

    What is returned is called with the listener, and returns when it is handed over.
    """
    fd = os.memfd_create("listener", MFD_CLOEXEC)
    os.ftruncate(fd, _PAGE)
    page = mmap.mmap(fd, _PAGE)
    copy, itself = os.dup(fd), process.pidfd_open(os.getpid())
    os.close(fd)
    number = fd  # the lowest that is free now, and nothing else is opened before the filter is loaded
    channel.send(LISTENER, number, fds=(copy, itself))
    view = memoryview(page)

    def wait(listener: int) -> None:
        if listener == number:
            for _ in repeat(None, _LOOKS):
                if view[0]:
                    return
        os._exit(1)

    return wait


def hand_over(plan: Plan, number: int, fds: list[int], container: int) -> None:
    """The parent's part; `fds` are what came with LISTENER, `container` the pid of the container's first process.

    Raises ChildFailed; then the process is killed.
    """
    page, pidfd = fds
    path = plan[0]
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        short, anchor = protocol.near(path)
        try:
            sock.connect(short)
        finally:
            os.close(anchor)
        listener = _take(pidfd, number)
        if listener < 0:
            return  # it has failed, and says why itself
        try:
            _send(sock, plan, (_pid_of(pidfd), container), listener)
        finally:
            os.close(listener)
        os.pwrite(page, b"\1", 0)
    except OSError as error:
        _kill(pidfd)
        detail = f"linux.seccomp.listenerPath: {path}: {reason(error)}"
        raise ChildFailed(STEP, error.errno or 0, detail) from None
    finally:
        sock.close()


def _kill(pidfd: int) -> None:
    try:
        process.pidfd_send_signal(pidfd, _SIGKILL)
    except ProcessLookupError:
        return


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line[4:]) for line in file if line.startswith("Pid:"))


def _take(pidfd: int, number: int) -> int:
    """The child's descriptor as soon as it is there, -1 when the child has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while True:
        try:
            return process.pidfd_getfd(pidfd, number)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ESRCH):
                raise
        if poll.poll(_PAUSE):
            return -1


def _send(sock: _socket.socket, plan: Plan, pids: tuple[int, int], listener: int) -> None:
    _, head, middle, tail = plan
    document = head + b"%d" % pids[0] + middle + b"%d" % pids[1] + tail
    sent = send_fds(sock, document, (listener,))
    sock.sendall(document[sent:])
