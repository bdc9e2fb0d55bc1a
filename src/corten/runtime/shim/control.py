"""The shim's side of its talk with cortend: connections, requests, and what is told without being asked."""

from __future__ import annotations

import _socket
import os
import sys

from corten.runtime import protocol
from corten.runtime.shim.loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.shim.loop import Loop

BACKLOG = 16


class Refusal(Exception):
    """A request that cannot be fulfilled; its fields cross to cortend as they are."""

    def __init__(self, kind: str, message: str, step: str = "", errno: int = 0, exit_code: int = 0) -> None:
        super().__init__(message)
        self.fields = (kind, message, step, errno, exit_code)


class Control:
    """At most one connection, the newest, and the socket where the next daemon knocks.

    `greet` gives the HELLO for a new connection; `handle(verb, arguments, fds)` the value of a REPLY, or raises Refusal
    or OSError; it owns the fds. `on_change` is called when a connection has come or gone.
    """

    def __init__(
        self,
        loop: Loop,
        greet: Callable[[], tuple[Any, ...]],
        handle: Callable[[str, tuple[Any, ...], list[int]], Any],
        on_change: Callable[[], None],
    ) -> None:
        self._loop, self._greet, self._handle, self._on_change = loop, greet, handle, on_change
        self._connection: _socket.socket | None = None
        self._listener: _socket.socket | None = None
        self._path = ""

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def adopt(self, connection: _socket.socket) -> None:
        """Speak with this one from now on."""
        self._hang_up()
        connection.setblocking(False)  # a daemon that is stopped must not stop the container
        self._connection = connection
        self._loop.watch(connection.fileno(), IN, self._readable)
        self.tell(self._greet())
        self._on_change()

    def listen(self, path: str) -> None:
        """Let later daemons find us at `path`."""
        short, directory = protocol.near(path)
        try:
            _unlink(short)
            listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            listener.bind(short)
            os.chmod(short, 0o600)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        finally:
            os.close(directory)
        self._listener, self._path = listener, path
        self._loop.watch(listener.fileno(), IN, self._knock)

    def deaf(self) -> None:
        """Listen no more and remove the socket."""
        if self._listener is None:
            return
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self._listener = None
        _unlink(self._path)

    def tell(self, message: tuple[Any, ...]) -> bool:
        """Send to the daemon. False when there is none; one that does not read is left, and finds us again."""
        if self._connection is None:
            return False
        try:
            protocol.send(self._connection, message)
        except OSError:
            self._hang_up()
            return False
        return True

    def close(self) -> None:
        self._hang_up()
        self.deaf()

    def _hang_up(self) -> None:
        if self._connection is None:
            return
        self._loop.unwatch(self._connection.fileno())
        self._connection.close()
        self._connection = None

    def _knock(self, events: int) -> None:
        assert self._listener is not None
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # of _socket.socket, which lacks accept
        except OSError:
            return
        self.adopt(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))

    def _readable(self, events: int) -> None:
        assert self._connection is not None
        try:
            received = protocol.receive(self._connection)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._hang_up()
            self._on_change()
            return
        (_, number, verb, *arguments), fds = received
        try:
            answer = (protocol.REPLY, number, self._handle(verb, tuple(arguments), fds))
        except Refusal as refusal:
            answer = (protocol.REFUSED, number, refusal.fields)
        except OSError as error:
            answer = (protocol.REFUSED, number, (protocol.FAULT, str(error), verb, error.errno or 0, 0))
        except Exception as error:
            # A fault of ours in one request must not take the container with it: it is told, and kept in shim.log.
            sys.excepthook(type(error), error, error.__traceback__)
            answer = (protocol.REFUSED, number, (protocol.FAULT, f"{type(error).__name__}: {error}", verb, 0, 0))
        self.tell(answer)
        if verb == protocol.FORGET:
            self._on_change()


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
