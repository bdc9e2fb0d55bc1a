"""A tiny init as pid 1 of a container (`docker run --init`): forwards signals, reaps orphans, ends as its child does.

It is this forked interpreter itself. It splits off before the container is set up, so that nearly all its pages stay
shared with the spawner's, gives up every descriptor and every capability but CAP_KILL, and takes on the container's
seccomp filter. It stays non-dumpable, so that no process of the container can trace it or read its memory without
CAP_SYS_PTRACE on the host, and its /proc/PID/exe is the spawner's, a sealed copy. It takes no input but signals.
"""

from __future__ import annotations

import os

from corten.linux import capability, process
from corten.linux.imports import seal_imports
from corten.linux.seccomp import prepare_filter, without_listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal  # signal would cost the import of enum

# The child gets no copy of those that tell init itself something, or that the kernel raises for its own faults.
_NOT_FORWARDED = frozenset((
    _signal.SIGCHLD, _signal.SIGFPE, _signal.SIGILL, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGABRT, _signal.SIGTRAP,
    _signal.SIGSYS, _signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGKILL, _signal.SIGSTOP,
))  # fmt: skip


_FORWARDED = frozenset(_signal.valid_signals()) - _NOT_FORWARDED
_WAITED = _FORWARDED | {_signal.SIGCHLD}


def split(program: bytes, filter_flags: int) -> None:
    """Fork: the child returns and becomes the container's program, the parent stays as init and ends with it.

    Both have the root directory as theirs, which pivot_root then replaces for all who are in it. Signals are blocked
    already, so that none is lost before init waits for them; the child unblocks its own when it settles.
    """
    os.chdir("/")
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _WAITED)
    child = os.fork()
    if child:
        _be_init(child, program, filter_flags)


def _be_init(child: int, program: bytes, filter_flags: int) -> NoReturn:
    try:
        process.set_process_name("corten-init")
        process.set_command_line("corten-init")
        process.close_range(0)
        seal_imports()
        os.setsid()
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)  # in another container's pid namespace it is not pid 1
        if program:
            prepare_filter(program, without_listener(filter_flags))()
        kill = 1 << capability.NUMBERS["CAP_KILL"]
        capability.capset(kill, kill, 0)
        while True:
            signo = _signal.sigwait(_WAITED)
            if signo == _signal.SIGCHLD:
                _reap(child)
            else:
                _forward(child, signo)
    finally:
        os._exit(1)


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
