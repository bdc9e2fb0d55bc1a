"""What `run` and `exec` do while their program runs in the foreground: wait, pass signals on, and carry a terminal.

our stdin  --> master of the pty --> the program
our stdout <-- master of the pty <-- the program
a signal to us --> the program; SIGWINCH becomes the size of the terminal
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import termios
import tty

from corten.specs.oci_runtime import ConsoleSize, Process

# These say something to us alone, or cannot be caught. Go's runtime sends itself SIGURG all the time.
_OURS = frozenset((
    signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
    signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH,
))  # fmt: skip
_CHUNK = 1 << 16


def adopt_size(process: Process) -> None:
    """Have its terminal made as large as ours, if we have one, so that the program finds it so from the first."""
    size = _own_size()
    if size is not None:
        height, width, *_ = struct.unpack("HHHH", size)
        if height and width:
            process.console_size = ConsoleSize(height=height, width=width)


def _own_size() -> bytes | None:
    """The struct winsize of our own terminal; None without one."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            return fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    return None


def hold_signals() -> None:
    """Have what is sent to us from here on wait for `attend`: the program may run, and be heard, before we get there.

    Children that are made meanwhile set their own mask (`child.parent.default_signals`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OURS)


def attend(pid: int, console: int = -1) -> int:
    """Wait for `pid`, our child (or passed to us as a subreaper); its exit code, 128 + signal for a killed one.

    `console` is the master of its terminal, -1 without one; it is closed. Other children are reaped as they end.
    """
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for signo in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signo in (signal.SIGCHLD, signal.SIGWINCH) or signo not in _OURS:
            signal.signal(signo, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    terminal = _Terminal(console) if console >= 0 else None
    try:
        return _Loop(pid, woken, terminal).run()
    finally:
        signal.set_wakeup_fd(-1)
        os.close(woken)
        os.close(waker)
        if terminal is not None:
            terminal.close()


class _Loop:
    def __init__(self, pid: int, woken: int, terminal: _Terminal | None) -> None:
        self._pid, self._woken, self._terminal = pid, woken, terminal

    def run(self) -> int:
        code = self._reap()
        poll = select.poll()
        while code is None:
            wanted = {self._woken: select.POLLIN}
            if self._terminal is not None:
                wanted |= self._terminal.wanted()
            for fd in wanted:
                poll.register(fd, wanted[fd])
            ready = dict(poll.poll())
            for fd in wanted:
                poll.unregister(fd)
            # First, and whatever poll has said: a change of size that came before some input is seen before it.
            code = self._signals(self._caught())
            if self._terminal is not None:
                self._terminal.move(ready)
        return code

    def _caught(self) -> bytes:
        try:
            return os.read(self._woken, _CHUNK)
        except BlockingIOError:
            return b""

    def _signals(self, numbers: bytes) -> int | None:
        for signo in numbers:
            if signo == signal.SIGWINCH and self._terminal is not None:
                self._terminal.resize()
            elif signo not in _OURS:
                os.kill(self._pid, signo)  # not reaped yet, so that the number is still its own
        return self._reap() if signal.SIGCHLD in numbers else None

    def _reap(self) -> int | None:
        """The exit code, once the program has ended."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if ended == 0:
                return None
            if ended == self._pid:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code


class _Terminal:
    """The bytes on their way between our own standard streams and a pty."""

    def __init__(self, master: int) -> None:
        self._master = master
        os.set_blocking(master, False)
        self._input, self._output = b"", True
        self._reading = True
        self._before = None
        if os.isatty(0):
            self._before = termios.tcgetattr(0)
            tty.setraw(0)
        self.resize()

    def wanted(self) -> dict[int, int]:
        """Descriptors and the poll events that are waited for."""
        events = (select.POLLIN if self._output else 0) | (select.POLLOUT if self._input else 0)
        found = {self._master: events} if events else {}
        if self._reading and not self._input:
            found[0] = select.POLLIN
        return found

    def move(self, ready: dict[int, int]) -> None:
        if 0 in ready:
            self._input = os.read(0, _CHUNK)
            self._reading = bool(self._input)
        events = ready.get(self._master, 0)
        if self._input and events & select.POLLOUT:
            try:
                self._input = self._input[os.write(self._master, self._input) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self._input, self._reading = b"", False
        if events & ~select.POLLOUT:
            self._show()

    def resize(self) -> None:
        """Give the pty the size of our own terminal, if we have one."""
        size = _own_size()
        if size is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """Show what the program has left, and give our terminal its modes back."""
        while self._output and self._show():
            pass
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
        os.close(self._master)

    def _show(self) -> bool:
        """Whether there was something; EIO is the end of a pty."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._output = bool(data)
        while data:
            try:
                data = data[os.write(1, data) :]
            except OSError:  # nobody reads us any more; the program is to run on
                return True
        return self._output
