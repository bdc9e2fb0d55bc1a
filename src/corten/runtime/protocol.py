"""What cortend, the spawner and the shims say to each other, over SOCK_SEQPACKET.

    cortend                               spawner                          shim
       | -- FORK, fd of a control socket --> |                               |
       |                                     | -- fork (the shim has the socket) -->
       | -- LAUNCH, fds of streams and keep (waits in the socket until the shim is there) -->
       | <------------------------------------------------------------- HELLO  (nothing runs yet)
       | <------------------------------------------------------------- LAUNCHED, or FAILED and the end
       |                                                                     |
       | -- REQUEST (number, verb, arguments), fds ------------------------> |
       | <--------------------------------- REPLY (number), or REFUSED (number, why)
       | <------------------------------------------------------------- EXEC_EXITED, OOM, LOG_TROUBLE, DETACHED
       | <------------------------------------------------------------- EXITED  (the exit file is on disk)
       | -- REQUEST forget ------------------------------------------------> |
       | <-------------------------------------------------------------- REPLY, and the end

A daemon that comes later connects to `shim.sock` in the run directory and is greeted with HELLO, which says how things
stand; EXITED and EXEC_EXITED that no daemon has heard follow. The newest connection is the one that is spoken to.

A message is a tuple in `marshal` (format 2, which every Python reads alike) whose first member is its kind. One that
is too big for a packet travels as a memfd, the first of the descriptors that come with it. Errors cross as data:
REFUSED and FAILED carry (kind, message, step, errno, exit code).

Runs in the shim too: no costly imports.
"""

from __future__ import annotations

import marshal
import os

from corten.linux.scm import MAX_FDS, recv_fds, send_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.linux.scm import MessageSocket

VERSION = 1
FORK = b"fork"

# cortend to shim
LAUNCH = 1
REQUEST = 2

# shim to cortend
HELLO = 10
LAUNCHED = 11
FAILED = 12
REPLY = 13
REFUSED = 14
EXITED = 15
EXEC_EXITED = 16
OOM = 17  # the kernel has killed in the container for want of memory
LOG_TROUBLE = 18  # lines of the log are lost, or its other end is away: says what
DETACHED = 19  # a client has typed its detach keys: says from which target

# Verbs of a REQUEST, with their arguments. A target is "" for the container's first process, else the exec's id.
ATTACH = "attach"  # target, stream settings; the stream's fd
SIGNAL = "signal"  # target, number
RESIZE = "resize"  # target, height, width
PAUSE = "pause"
RESUME = "resume"
EXEC = "exec"  # exec's id, settings; the fds of its streams
FORGET = "forget"

# Kinds of error
START_FAILED = "start"
CONFLICT = "conflict"
FAULT = "fault"

PACKET = 64 * 1024
_FORMAT = 2
_INLINE = b"."
_IN_FILE = b"@"


def send(sock: MessageSocket, message: tuple[Any, ...], fds: Sequence[int] = ()) -> None:
    """Send one message; `fds` stay the sender's. Raises OSError (EPIPE when nobody listens, EAGAIN when not now)."""
    body = marshal.dumps(message, _FORMAT)
    if len(body) < PACKET:
        send_fds(sock, _INLINE + body, fds)
        return
    file = os.memfd_create("corten-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(file, view) :]
        send_fds(sock, _IN_FILE, [file, *fds])
    finally:
        os.close(file)


def receive(sock: MessageSocket, flags: int = 0) -> tuple[tuple[Any, ...], list[int]] | None:
    """The next message with its descriptors (close-on-exec, the caller's); None at the end."""
    packet, fds = recv_fds(sock, PACKET + 1, MAX_FDS, flags)
    if not packet:
        return None
    body = packet[1:]
    if packet[:1] == _IN_FILE:
        file = fds.pop(0)
        try:
            body = os.pread(file, os.fstat(file).st_size, 0)
        finally:
            os.close(file)
    message: tuple[Any, ...] = marshal.loads(body)
    return message, fds


def near(path: str) -> tuple[str, int]:
    """A path of a socket that fits the 108 bytes of sockaddr_un however long `path` is, and the fd that it leans on."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{name}", fd
