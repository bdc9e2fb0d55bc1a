"""The process that stands between `create` and `start`.

OCI's create returns while the container's first process waits before its execve. What it waits for is a message on a
socket whose other end must live somewhere: here.

    create                          keeper                         container
       | -- fork ------------------> |
       |                             | -- launch(hold) -----------> | (all but execve)
       | <----- "pid" or the error   |                              |
    start                            |                              |
       | -- connect to start.sock -> | -- GO ---------------------> | execve
       | <----- "" or the error      |                              |
                                   ends; the container passes to the caller's subreaper

The hooks before `start` are run by the keeper and by the container; `start` runs the poststart hooks.

If the container dies before its start the keeper ends too, so that whoever waits for it gets its zombie.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec import json

from corten.errors import StartFailed
from corten.runtime import protocol
from corten.runtime.child.errors import ChildFailed
from corten.runtime.child.launch import launch
from corten.runtime.child.parent import Spawned
from corten.runtime.oci.callers import send_console, send_pidfd
from corten.runtime.oci.transitions import STARTING, WAITING

Report = tuple[str, str, int, int, int, list[str]]
"""What went wrong (message, step, errno, exit code), "" for nothing, the pid, and warnings."""

STEP = "keep"  # the step of a failure that may have left something running


def create(
    wire: bytes, directory: Path, sockets: tuple[str, str], on_fork: Callable[[int], None]
) -> tuple[int, list[str]]:
    """Launch in a keeper and leave it; the container's pid, and warnings. Raises StartFailed.

    `sockets` are the paths of those for the console and for the pidfd, "" for none. `on_fork` is called with the
    keeper's pid.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        os.close(reader)
        _keep(wire, directory, sockets, writer)
    os.close(writer)
    try:
        on_fork(keeper)
        # One message, not up to the end: the waiting container has a copy of the writing end until its execve.
        return _outcome(os.read(reader, 1 << 16))
    finally:
        os.close(reader)


def start(directory: Path) -> None:
    """Let a created container run. Raises StartFailed."""
    short, anchor = protocol.near(str(directory / WAITING))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(short)
        except OSError as error:
            raise StartFailed(f"the container cannot be started: {error.strerror}", step="start") from None
        finally:
            os.close(anchor)
        with sock.makefile("rb") as answer:
            _outcome(answer.read())


def _outcome(answer: bytes) -> tuple[int, list[str]]:
    if not answer:
        raise StartFailed("the container's keeper has ended", step=STEP)
    report: Report = json.decode(answer, type=Report)
    message, step, errno, exit_code, pid, warnings = report
    if message:
        raise StartFailed(message, step=step, errno=errno, exit_code=exit_code)
    return pid, warnings


def _report(fd: int, failure: ChildFailed | None, spawned: Spawned | None = None) -> None:
    pid, warnings = (0, []) if spawned is None else (spawned.pid, spawned.warnings)
    report: Report = ("", "", 0, 0, pid, warnings)
    if failure is not None:
        report = (failure.detail or failure.step, failure.step, failure.errno, failure.exit_code, pid, warnings)
    os.write(fd, json.encode(report))
    os.close(fd)


def _keep(wire: bytes, directory: Path, sockets: tuple[str, str], answer: int) -> None:
    """The keeper's life. Never returns."""
    try:
        os.setsid()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            short, anchor = protocol.near(str(directory / WAITING))
            listener.bind(short)
            listener.listen(1)
            os.close(anchor)
            try:
                spawned = launch(wire, 0, 1, 2, hold=True)
            except ChildFailed as failure:
                _report(answer, failure)
                return
            try:
                hand_over(spawned, *sockets)
            except ChildFailed as failure:
                _report(answer, failure)
                return
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):  # they are the container's: who reads them is to see their end with it
                os.dup2(null, number)
            _report(answer, None, spawned)
            _serve(listener, directory, spawned)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def hand_over(spawned: Spawned, console_socket: str, pidfd_socket: str) -> int:
    """Send the console and the pidfd where they are wanted; a console that nobody wants is returned, else -1.

    Raises ChildFailed with the step STEP.
    """
    flag, path = "", ""
    try:
        if pidfd_socket:
            flag, path = "--pidfd-socket", pidfd_socket
            send_pidfd(path, spawned.pidfd, b"standard")
        if console_socket:
            flag, path = "--console-socket", console_socket
            send_console(path, spawned.console)
            return -1
    except OSError as error:
        raise ChildFailed(STEP, error.errno or 0, f"{flag} {path}: {error.strerror}") from None
    return spawned.console


def _serve(listener: socket.socket, directory: Path, spawned: Spawned) -> None:
    """Until somebody wants the container started, or it is dead."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(spawned.pidfd, select.POLLIN)
    ready = [fd for fd, _ in poll.poll()]
    if listener.fileno() not in ready:
        (directory / WAITING).unlink(missing_ok=True)
        return
    (directory / WAITING).rename(directory / STARTING)
    connection, _ = listener.accept()
    spawned.warnings.clear()  # those were told
    failure = None
    try:
        spawned.release()
    except ChildFailed as caught:
        failure = caught
    (directory / STARTING).unlink(missing_ok=True)
    _report(connection.detach(), failure, spawned)
