"""What child and parent say to each other over a pair of sequenced-packet sockets.

     parent                                  child
       |  GO -->                               |   only where systemd has put the child into its group
       |  <-- WARNING text                     |   any number, at any time
       |  <-- CLONED pid + pidfd               |   from a helper that has made the child (`stage`), on a pair of its own
       |  <-- CONSOLE + fd of the pty's master |   with a terminal, once
       |  <-- NET_DEVICES (name, name)...      |   links that the parent is to move into the child's network namespace
       |  GO -->                               |
       |  <-- CREATED                          |   only with hooks for that time: everything is mounted
       |  GO -->                               |
       |  <-- READY                            |   only when the parent holds: nothing is left to do but execve
       |  GO -->                               |
       |  <-- LISTENER number + a page, a pidfd|   only with a filter that asks somebody; see `listener`
       |  <-- EXEC                             |   the next call is execve
       |  <-- FAILED step errno detail code    |   instead of any of the above, or after EXEC; the child exits
       |  <-- end of stream                    |   after EXEC: execve closed the socket, the program runs

An end of stream without EXEC means that the child was killed.
"""

from __future__ import annotations

import _socket
import marshal
import os

from corten.linux.scm import recv_fds, send_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.runtime.child.errors import ChildFailed

WARNING = 1
CONSOLE = 2
CREATED = 3
READY = 4
EXEC = 5
FAILED = 6
GO = 7
CLONED = 8
NET_DEVICES = 9
LISTENER = 10

_MAX_MESSAGE = 16384
_MAX_TEXT = 4096


class Channel:
    """One end. `close` it; the other end then reads the end of stream."""

    __slots__ = ("_socket",)

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock

    def send(self, kind: int, *values: Any, fds: tuple[int, ...] = ()) -> None:
        send_fds(self._socket, marshal.dumps((kind, *values)), fds)

    def warn(self, text: str) -> None:
        self.send(WARNING, text[:_MAX_TEXT])

    def fail(self, error: ChildFailed) -> None:
        self.send(FAILED, error.step, error.errno, error.detail[:_MAX_TEXT], error.exit_code)

    def receive(self) -> tuple[tuple[Any, ...] | None, list[int]]:
        """The next message and its descriptors; None at the end of the stream."""
        try:
            data, fds = recv_fds(self._socket, _MAX_MESSAGE, 2)
        except ConnectionResetError:  # the child died with a message of ours unread
            return None, []
        return (marshal.loads(data) if data else None), fds

    def await_go(self) -> None:
        """Wait for GO; a parent that has gone away ends the child."""
        message, _ = self.receive()
        if message is None or message[0] != GO:
            os._exit(1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def pair() -> tuple[Channel, Channel]:
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Channel(first), Channel(second)
