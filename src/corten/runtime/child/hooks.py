"""Running hooks: programs that a specification names for points of a container's life.

Imported only where there are hooks, before the clone, as the files are out of reach after it.

A hook gets the container's state on its stdin, as a file in memory: nobody has to write while it reads or does not.
What it prints is kept for the message of its failure. It is over when its process is; what it leaves in the background
is not waited for. Cut short, all of its session is killed.
"""

from __future__ import annotations

import errno
import os
import select
import time

from corten.linux import process
from corten.linux.memfd import MFD_CLOEXEC
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.parent import default_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import NoReturn

    Entry = tuple[str, tuple[str, ...], tuple[str, ...], float]
    """path, args, env, seconds (0 for as long as it takes)."""
    Hooks = tuple[str, tuple[Entry, ...], bytes, bytes]
    """The kind as the specification spells it, its hooks, and the state's JSON before and after the pid."""
else:
    import _signal  # signal would cost the import of enum

STEP = "hook"  # the step that a hook's failure names
PATIENCE = 30.0  # seconds that a hook has when its container has ended: it must not keep it from being deleted

_KEPT = 2000  # bytes of output that a message may have


def run(
    hooks: Hooks, pid: int, *, watch: int = -1, grace: float = 0, prepare: Callable[[], None] | None = None
) -> None:
    """Run all of one kind in their order, up to the first that fails: then ChildFailed.

    `pid` is the container's as the hook sees it. `watch` is the pidfd of a process without which the hooks have no
    purpose: they are cut short `grace` seconds after its end. `prepare` is called in the hook's process before its
    program.
    """
    for index in range(len(hooks[1])):
        _run_one(hooks, index, pid, watch=(watch, grace), prepare=prepare)


def run_all(hooks: Hooks, pid: int, patience: float) -> list[str]:
    """Run each of one kind whatever becomes of the others; what went wrong. None may take longer than `patience`
    seconds unless it has a time of its own."""
    failures = []
    for index in range(len(hooks[1])):
        try:
            _run_one(hooks, index, pid, patience=patience)
        except ChildFailed as failure:
            failures.append(failure.detail)
    return failures


def _run_one(
    hooks: Hooks,
    index: int,
    pid: int,
    *,
    watch: tuple[int, float] = (-1, 0),
    patience: float = 0,
    prepare: Callable[[], None] | None = None,
) -> None:
    kind, entries, head, tail = hooks
    entry = entries[index]
    stdin = _in_memory(head + b"%d" % pid + tail)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
        if child == 0:
            _become(entry, stdin, writer, tell, prepare)
    finally:
        for fd in (stdin, writer, tell):
            os.close(fd)
    try:
        # The other end is close-on-exec: nothing comes when the program runs.
        failure = _not_executed(child, code) if (code := os.read(told, 16)) else ""
        if not failure:
            observer = _Watch(child, reader, watch[0])
            try:
                failure = observer.follow(entry[3] or patience, watch[1])
            finally:
                observer.close()
    finally:
        os.close(told)
        os.close(reader)
    if failure:
        raise ChildFailed(STEP, 0, f"hooks.{kind}[{index}]: running {entry[0]}: {failure}")


def _not_executed(child: int, code: bytes) -> str:
    os.waitpid(child, 0)
    return os.strerror(int(code)).lower()


def reap_orphans() -> None:
    """Collect what the hooks have left to us, the first process of the container."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _in_memory(data: bytes) -> int:
    fd = os.memfd_create("state", MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _become(entry: Entry, stdin: int, output: int, tell: int, prepare: Callable[[], None] | None) -> NoReturn:
    """The hook's process, up to its program; an errno goes to `tell`."""
    path, args, env, _ = entry
    try:
        os.setsid()
        default_signals()
        if not os.access(path, os.X_OK, effective_ids=True):
            os.stat(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        execute = process.prepare_execve(path, args or (path,), env)
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
        process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
        if prepare is not None:
            prepare()
        execute()
    except (OSError, ChildFailed) as error:
        os.write(tell, b"%d" % (error.errno or errno.EIO))
    finally:
        os._exit(127)


class _Watch:
    """Waits for the end of a hook: its own, or an early one. Close it."""

    def __init__(self, child: int, reader: int, container: int) -> None:
        self._child, self._reader, self._container = child, reader, container
        self._pidfd = process.pidfd_open(child)
        self._output = b""
        self._poll = select.poll()
        for fd in (self._pidfd, reader, container):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)
        os.set_blocking(reader, False)

    def close(self) -> None:
        os.close(self._pidfd)

    def follow(self, seconds: float, grace: float) -> str:
        """What went wrong, "" for nothing. With `seconds` 0 it may take as long as it likes."""
        end = time.monotonic() + seconds if seconds else 0.0
        late = f"not done after {seconds:g} s"
        while True:
            left = max(0.0, end - time.monotonic()) * 1000 if end else None
            ready = [fd for fd, _ in self._poll.poll(left)]
            if self._reader in ready:
                self._read()
            if self._pidfd in ready:
                return self._ended()
            if self._container in ready:
                self._poll.unregister(self._container)
                last = time.monotonic() + grace
                if not end or last < end:
                    end, late = last, "the container has ended meanwhile"
            if end and time.monotonic() >= end:
                return self._cut_short(late)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._poll.unregister(self._reader)
            self._reader = -1
        self._output = (self._output + data)[:_KEPT]

    def _ended(self) -> str:
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if code == 0:
            return ""
        if self._reader >= 0:
            self._read()
        text = self._output.decode("utf-8", "replace").strip()
        return (f"exit status {code}" if code > 0 else f"killed by signal {-code}") + (f": {text}" if text else "")

    def _cut_short(self, why: str) -> str:
        for kill in (os.killpg, os.kill):  # it may not have come to its own session yet
            try:
                kill(self._child, _signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(self._child, 0)
        return why
