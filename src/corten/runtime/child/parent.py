"""The parent's side of a start, shared by launch and join."""

from __future__ import annotations

import fcntl
import gc
import os

from corten.linux import process
from corten.runtime.child import channel as messages
from corten.runtime.child.errors import ChildFailed, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.child.channel import Channel
else:
    import _signal  # signal would cost the import of enum


class Spawned:
    """A process that has been started: its pid on the host, a child of the caller, who waits for it.

    `pidfd` and `console` (the pty's master, -1 without a terminal) are the caller's to close. `warnings` say what was
    left out because the host does not allow it.
    """

    __slots__ = ("_channel", "_plan", "console", "pid", "pidfd", "warnings")

    def __init__(self, pid: int, pidfd: int, channel: Channel | None = None) -> None:
        self.pid, self.pidfd, self.console = pid, pidfd, -1
        self.warnings: list[str] = []
        self._channel = channel
        self._plan: dict[str, Any] = {}

    def hold(self, plan: dict[str, Any]) -> None:
        """Keep what `release` needs of the plan."""
        self._plan = {"listener": plan["listener"]}

    def release(self) -> None:
        """Let a held process execute its program. Raises ChildFailed, after which the process is gone and reaped."""
        channel = self._channel
        if channel is None:
            return
        self._channel = None
        try:
            channel.send(messages.GO)
            _follow(channel, self, self._plan, hold=False)
        except BrokenPipeError:
            reap(self.pid)
            raise ChildFailed("exec", 0, "the container's first process is gone") from None
        finally:
            channel.close()


def follow(channel: Channel, spawned: Spawned, plan: dict[str, Any], hold: bool) -> None:
    """Read the channel until the program runs, or with `hold` until only execve is left.

    Raises ChildFailed; then the child is dead and reaped and no descriptor is open.
    """
    try:
        done = _follow(channel, spawned, plan, hold)
    except BaseException:
        discard(spawned)
        channel.close()
        raise
    if done:
        channel.close()


def _follow(channel: Channel, spawned: Spawned, plan: dict[str, Any], hold: bool) -> bool:
    """Whether the stream has ended with the program running."""
    executing = False
    while True:
        message, fds = channel.receive()
        if message is None:
            if executing:
                return True
            raise ChildFailed("start", 0, _how_it_died(spawned.pid))
        kind, *values = message
        if kind == messages.CONSOLE:
            spawned.console = fds[0]
        elif kind == messages.WARNING:
            spawned.warnings.append(values[0])
        elif kind == messages.CREATED:
            from corten.runtime.child.hooks import run  # for those who have hooks

            for hooks in plan["hooks"]["created"]:
                run(hooks, spawned.pid, watch=spawned.pidfd)
            channel.send(messages.GO)
        elif kind == messages.NET_DEVICES:
            from corten.runtime.child import netdevices

            netdevices.move(values[0], spawned.pid)
            channel.send(messages.GO)
        elif kind == messages.READY and hold:
            return False
        elif kind == messages.READY:
            channel.send(messages.GO)
        elif kind == messages.LISTENER:
            _hand_over(spawned, plan, values[0], fds)
        elif kind == messages.EXEC:
            executing = True
        elif kind == messages.FAILED:
            reap(spawned.pid)
            raise ChildFailed(*values)


def _hand_over(spawned: Spawned, plan: dict[str, Any], number: int, fds: list[int]) -> None:
    from corten.runtime.child.listener import hand_over  # for those who have one

    try:
        hand_over(plan["listener"], number, fds, plan.get("container", spawned.pid))
    except ChildFailed:
        process.pidfd_send_signal(spawned.pidfd, _signal.SIGKILL)
        reap(spawned.pid)
        raise
    finally:
        for fd in fds:
            os.close(fd)


def reap(pid: int) -> int:
    """Wait for a child; its status, or 0 when a SIGCHLD handler of the caller was faster."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def _how_it_died(pid: int) -> str:
    status = reap(pid)
    if os.WIFSIGNALED(status):
        hint = " (memory limit too low?)" if os.WTERMSIG(status) == _signal.SIGKILL else ""
        return f"container init was killed by signal {os.WTERMSIG(status)}{hint}"
    return "container init ended before it could execute its program"


def discard(spawned: Spawned) -> None:
    """Kill it, wait for its end, close what there is of it."""
    try:
        process.pidfd_send_signal(spawned.pidfd, _signal.SIGKILL)
        reap(spawned.pid)
    except ProcessLookupError:
        pass
    os.close(spawned.pidfd)
    spawned.pidfd = -1
    if spawned.console >= 0:
        os.close(spawned.console)
        spawned.console = -1


def settle(stdio: tuple[int, int, int]) -> None:
    """Its own streams, default signals, a session of its own."""
    default_signals()
    os.setsid()
    os.umask(0)
    copies = [_above_stdio(fd) for fd in stdio]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
        os.close(copy)


def default_signals() -> None:
    for signo in _signal.valid_signals():
        # execve keeps what is ignored, and Python ignores SIGPIPE and SIGXFSZ; handlers it resets by itself.
        if _signal.getsignal(signo) == _signal.SIG_IGN:
            _signal.signal(signo, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _above_stdio(fd: int) -> int:
    if fd < 0:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def run_child(
    channel: Channel,
    stdio: tuple[int, int, int],
    bodies: tuple[Callable[[], Any], Callable[[], Any]],
    step: Callable[[], str],
) -> None:
    """Run the child's two bodies, before and after it gets its own streams; report what they raise and exit.

    Never returns. `step` names what is being done, for an error that does not say so itself.
    """
    enter, body = bodies

    def whole() -> None:
        enter()
        settle(stdio)
        body()

    run_reporting(channel, whole, step)


def run_reporting(channel: Channel, body: Callable[[], None], step: Callable[[], str]) -> None:
    """Run the body of a forked process, report what it raises, and exit. Never returns."""
    try:
        try:
            gc.disable()
            body()
        except ChildFailed as error:
            channel.fail(error)
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            channel.fail(ChildFailed(step(), error.errno or 0, f"{step()}{where}: {reason(error)}"))
        except BaseException as error:
            channel.fail(ChildFailed(step(), 0, f"{step()}: {type(error).__name__}: {error}"))
    finally:
        os._exit(1)
