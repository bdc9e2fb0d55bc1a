"""A tiny init as pid 1 of a container (`docker run --init`): forwards signals, reaps orphans, ends as its child does.

It is this forked interpreter itself, which has dropped to the container's user and capabilities and closed every
descriptor. It stays non-dumpable, so that no process of the container can trace it or read its memory, and its
/proc/PID/exe is the spawner's, a sealed copy. It takes no input but signals.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from corten.linux import capability, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn

    from corten.runtime.child.context import Context
else:
    import _signal  # signal would cost the import of enum

# The child gets no copy of those that tell init itself something, or that the kernel raises for its own faults.
_NOT_FORWARDED = frozenset((
    _signal.SIGCHLD, _signal.SIGFPE, _signal.SIGILL, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGABRT, _signal.SIGTRAP,
    _signal.SIGSYS, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGKILL, _signal.SIGSTOP,
))  # fmt: skip


def become(child: int, ctx: Context, capabilities: tuple[int, int, int, int]) -> NoReturn:
    """Be init until `child` has ended."""
    try:
        effective, permitted, inheritable, _ = capabilities
        _, kept, _ = capability.capget()
        capability.capset(effective & permitted & kept, permitted & kept, inheritable & kept)
        process.set_process_name("corten-init")
        process.set_command_line("corten-init")
        os.chdir("/")
        os.closerange(0, 3)
        process.close_range(3)
        forwarded = set(_signal.valid_signals()) - _NOT_FORWARDED
        waited = forwarded | {_signal.SIGCHLD}
        _signal.pthread_sigmask(_signal.SIG_BLOCK, waited)
        _reap(child)  # it may have ended before its signal was blocked
        while True:
            signo = _signal.sigwait(waited)
            if signo == _signal.SIGCHLD:
                _reap(child)
            else:
                _forward(child, signo)
    except BaseException:
        pass
    finally:
        os._exit(1)


def take_terminal(ctx: Context) -> None:
    """In the child: a process group of its own, the terminal's foreground one, as a program at a terminal expects."""
    if not ctx.terminal:
        return
    os.setpgid(0, 0)
    _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)  # else setting the foreground group stops the one who is not in it
    fcntl.ioctl(0, termios.TIOCSPGRP, struct.pack("i", os.getpid()))
    _signal.signal(_signal.SIGTTOU, _signal.SIG_DFL)


def _forward(child: int, signo: int) -> None:
    try:
        os.kill(child, signo)
    except ProcessLookupError:
        return


def _reap(child: int) -> None:
    """Collect all that have ended; when the child is among them, end with its status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(0)
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
