"""Signal dispositions without the `signal` module, which would bring `enum` along."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal, for which no types are published
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# asm-generic/signal.h
SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGTERM, SIGCHLD = 1, 2, 3, 9, 13, 15, 17

IGNORED = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)  # by the spawner and the shims: only SIGKILL ends them


def ignore(signals: Iterable[int]) -> None:
    for signo in signals:
        _signal.signal(signo, _signal.SIG_IGN)


def child_bell() -> int:
    """A descriptor that becomes readable when a child has ended."""
    bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    _signal.signal(SIGCHLD, _nothing)
    return bell


def unhang_bell() -> None:
    """The end of `child_bell`, for a process that goes on without it. Its own end of the pipe is the caller's."""
    ring = _signal.set_wakeup_fd(-1)
    if ring >= 0:
        os.close(ring)


def restore(signo: int) -> None:
    _signal.signal(signo, _signal.SIG_DFL)


def _nothing(signo: int, frame: object) -> None:
    """The wake-up descriptor does the work; without a handler the kernel would not interrupt for it."""
