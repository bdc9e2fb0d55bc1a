"""Runs a victim and stops it where it is told to: the other end of the filter of `calls`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from corten.linux.process import PR_SET_PDEATHSIG, prctl
from corten.linux.scm import recv_fds, send_fds
from corten.linux.seccomp import (
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    prepare_filter,
)
from tests.durability import calls
from tests.waiting import patience

# linux/seccomp.h
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")

WAYS = ("kill", "eio", "enospc", "full", "power", "journal")
"""kill: SIGKILL. eio: this call fails with EIO. enospc: this call and all that need room fail until the operation has
answered. full: the disk really is full from here on, until then. power: what was not synced is lost. journal: the
same, but the file system had just written its own journal, so that names are there whose bytes are not.
"""
DEADLINE_SECONDS = 60
_SYNCS = ("fsync", "fdatasync", "syncfs")
LAST = "answered"
"""Instead of a call's label: the moment at which the operation has answered."""


@dataclass(frozen=True, slots=True)
class Point:
    """The `occurrence`-th call with this label (from 1), counted while the operation runs."""

    label: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.label} [{self.occurrence}]"


@dataclass(frozen=True, slots=True)
class Cut:
    """What is to happen, and how the disk below takes part: `cut` copies what it holds, `fill` and `clear` take all
    its room and give it back.
    """

    point: Point | None
    way: str
    cut: Callable[[bool], None]
    fill: Callable[[], None]
    clear: Callable[[], None]
    lying: bool = False
    """Whether syncs are answered and not made."""


@dataclass(slots=True)
class Run:
    """What became of it: `calls` that the operation made, the victim's `words`, and whether the point was `met`."""

    calls: list[str] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    met: bool = False
    answer: dict[str, Any] | None = None
    status: int = 0
    """What waitpid says of the victim's end."""


class Victim:
    """The child's side: says what happens on `sock`, in which everything that is said stays in order with the calls."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def say(self, **word: Any) -> None:
        self.sock.send(json.dumps(word).encode())

    def wait(self) -> None:
        """Until what was said has been taken note of."""
        if not self.sock.recv(1):
            os._exit(1)


def fork(work: Callable[[Victim], None], *, watched: bool) -> tuple[int, socket.socket, int]:
    """Run `work` in a child; its pid, the socket to it, and the listener of its filter (-1 unless `watched`)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _run_child(work, theirs, watched=watched)
    theirs.close()
    return pid, ours, recv_fds(ours, 16)[1][0] if watched else -1


def _run_child(work: Callable[[Victim], None], sock: socket.socket, *, watched: bool) -> NoReturn:
    status = 1
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        victim = Victim(sock)
        if watched:
            flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            listener = prepare_filter(calls.program(), flags)()
            send_fds(sock, b"listener", [listener])
            os.close(listener)
        work(victim)
        status = 0
    except BaseException as error:
        import traceback

        text = "".join(traceback.format_exception(error))
        with contextlib.suppress(OSError):
            victim.say(crash=text[-8000:])
    finally:
        os._exit(status)


class Supervisor:
    """One run of a victim. `root` is the store."""

    def __init__(self, root: str, cut: Cut) -> None:
        self._root, self._cut = root, cut
        self.run = Run()
        self._seen: Counter[str] = Counter()
        self._counting = False
        self._failing = self._ended = False

    def __call__(self, work: Callable[[Victim], None]) -> Run:
        """Until the victim and all of its processes are gone."""
        pid, sock, listener = fork(work, watched=True)
        self._pid, self._sock, self._listener = pid, sock, listener
        deadline = time.monotonic() + patience(DEADLINE_SECONDS)
        try:
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            poll.register(sock, select.POLLIN)
            while not self._ended:
                ready = dict(poll.poll(1000))
                if time.monotonic() > deadline:
                    raise AssertionError(f"the victim hangs; it said {self.run.words}, last did {self.run.calls[-5:]}")
                self._take_words()
                if ready.get(listener, 0) & select.POLLIN and not self._ended:
                    self._answer()
                elif ready.get(listener, 0) & select.POLLHUP:
                    break
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.run.status = os.waitpid(pid, 0)[1]
            self._until_all_are_gone()
            sock.close()
            os.close(listener)
            self._cut.clear()
        return self.run

    def _until_all_are_gone(self) -> None:
        """The kernel says so by hanging up the listener. A worker that has just begun may ask for something yet."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        self._counting = False
        while True:
            ready = poll.poll(patience(20) * 1000)
            assert ready, "a process of the victim does not end"
            if not ready[0][1] & select.POLLIN:
                return
            self._answer()

    def _take_words(self) -> None:
        while True:
            try:
                data = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                return
            word = json.loads(data)
            self.run.words.append(word)
            if word.get("go"):
                self._counting = True
            if "answer" in word:
                self._answered(word["answer"])
            if word.get("wait"):
                with contextlib.suppress(OSError):
                    self._sock.send(b"!")

    def _answered(self, answer: dict[str, Any]) -> None:
        if self.run.answer is None:
            self.run.answer = answer
        self._failing = False
        self._cut.clear()
        if self._cut.point is not None and self._cut.point.label == LAST and not self.run.met:
            self._happen(0)

    def _answer(self) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # whoever asked is dead
                return
            raise
        ident, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        call = calls.BY_NUMBER[number]
        said = ""
        if self._counting:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # whoever asked is dead
                said = calls.label(pid, call, tuple(arguments), self._root)
        if not said:
            self._respond(ident)
            return
        self._take_words()  # what was said before this call
        self.run.calls.append(said)
        self._seen[said] += 1
        point = self._cut.point
        if point is not None and said == point.label and self._seen[said] == point.occurrence:
            self._happen(ident)
        elif self._cut.lying and call.name in _SYNCS:
            self._reply(ident, 0, 0)
        else:
            self._respond(ident, errno.ENOSPC if self._failing and call.grows else 0)

    def _happen(self, ident: int) -> None:
        self.run.met = True
        way = self._cut.way
        if way in ("kill", "power", "journal"):
            if way != "kill":
                self._cut.cut(way == "journal")
            self._ended = True
        elif way == "full":
            if self.run.answer is None:
                self._cut.fill()
            self._respond(ident)
        else:
            self._failing = way == "enospc" and self.run.answer is None
            self._respond(ident, errno.EIO if way == "eio" else errno.ENOSPC)

    def _respond(self, ident: int, error: int = 0) -> None:
        self._reply(ident, -error, 0 if error else _CONTINUE)

    def _reply(self, ident: int, error: int, flags: int) -> None:
        response = _RESPONSE.pack(ident, 0, error, flags)
        with contextlib.suppress(FileNotFoundError):  # whoever asked is dead
            fcntl.ioctl(self._listener, _SEND, response)


def ask(work: Callable[[Victim], None]) -> list[dict[str, Any]]:
    """Run `work` in a child that nobody stops; what it said."""
    pid, sock, _ = fork(work, watched=False)
    words = []
    with sock:
        sock.settimeout(patience(DEADLINE_SECONDS))
        try:
            while data := sock.recv(1 << 20):
                words.append(json.loads(data))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return words
