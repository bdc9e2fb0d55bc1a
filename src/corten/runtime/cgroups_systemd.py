"""systemd's manager over D-Bus: scopes are started, changed and stopped.

Imported only where systemd is the cgroup driver, and in the shim only by a fork of it that ends after one call. The
protocol is jeepney's, which does no input and output of its own but for the greeting.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.io.blocking import prep_socket

PRIVATE = "/run/systemd/private"
"""Where systemd takes calls of root without a bus."""
SYSTEM_BUS = "/run/dbus/system_bus_socket"
PATIENCE = 100.0  # seconds until a job is given up: systemd gives processes 90 to end by themselves
_GLANCE = 0.0005  # seconds between looks at whether what was written has been read: nothing tells
_MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_NO_SUCH = "org.freedesktop.systemd1.NoSuchUnit"

Property = tuple[str, str, Any]


class SystemdError(OSError):
    """systemd refused or failed. `name` is the error's name on the bus, "" for a job that failed."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(0, text)
        self.text, self.name = text, name

    def __str__(self) -> str:
        return self.text


def start_scope(address: str, unit: str, properties: Sequence[Property], pid: int) -> None:
    """Make a scope with `pid` in it, and wait until it is there. Raises OSError.

    What is left of a scope with this name that has failed is cleared away first.
    """
    given = [*properties, ("PIDs", "au", [pid])]
    body: tuple[Any, ...] = (unit, "fail", [(name, (signature, value)) for name, signature, value in given], [])
    with Manager(address) as manager:
        try:
            manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except SystemdError as error:
            if error.name != _EXISTS:
                raise
            manager.reset(unit)
            manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)


def set_properties(address: str, unit: str, properties: Sequence[Property]) -> None:
    """Change a scope until it ends. Raises OSError."""
    body = (unit, True, [(name, (signature, value)) for name, signature, value in properties])
    with Manager(address) as manager:
        manager.call("SetUnitProperties", "sba(sv)", body)


def stop_scope(address: str, unit: str) -> None:
    """End a scope and what systemd remembers of it. One that is gone is no error. Raises OSError."""
    with Manager(address) as manager:
        try:
            manager.job("StopUnit", "ss", (unit, "replace"))
        except SystemdError as error:
            if error.name != _NO_SUCH:
                raise
        manager.reset(unit)


class Manager:
    """A connection: to the system's bus where there is one, else to systemd itself. `address` is the socket's path."""

    def __init__(self, address: str = "") -> None:
        address = address or (SYSTEM_BUS if os.path.exists(SYSTEM_BUS) else PRIVATE)
        try:
            self._socket = prep_socket(address, timeout=PATIENCE)
        except OSError as error:
            raise SystemdError(f"systemd cannot be reached at {address}: {error.strerror or error}") from None
        self._parser, self._serial = Parser(), 0
        self._signals: deque[Message] = deque(maxlen=1000)
        self._deadline = time.monotonic() + PATIENCE
        self._listening = False
        self._direct = address == PRIVATE
        try:
            self._await_begin()
            if not self._direct:
                self._ask(new_method_call(_BUS, "Hello"))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def call(self, method: str, signature: str, body: tuple[Any, ...]) -> Any:
        """Call the manager; the reply's body. Raises SystemdError."""
        return self._ask(new_method_call(_MANAGER, method, signature, body))

    def job(self, method: str, signature: str, body: tuple[Any, ...]) -> None:
        """Call what starts a job, and wait for its end. Raises SystemdError."""
        self._listen()
        [path] = self.call(method, signature, body)
        while True:
            while self._signals:
                told = self._signals.popleft()
                if told.header.fields.get(HeaderFields.member) == "JobRemoved" and told.body[1] == path:
                    if told.body[3] != "done":
                        raise SystemdError(f"{method} of {body[0]} by systemd: {told.body[3]}")
                    return
            self._signals.append(self._receive())

    def reset(self, unit: str) -> None:
        """Forget a failed unit; others are no error."""
        try:
            self.call("ResetFailedUnit", "s", (unit,))
        except SystemdError as error:
            if not error.name:
                raise

    def _await_begin(self) -> None:
        """Wait until the greeting's last line, which is not answered, has been read.

        systemd 252 takes a call that it reads together with that line for later, and comes back to it only when more
        bytes arrive: the caller of one method would wait for ever. Seen on a busy machine; on an idle one systemd
        reads faster than we write.
        """
        while struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]:
            if time.monotonic() > self._deadline:
                raise SystemdError(f"systemd does not read within {PATIENCE:.0f} s")
            time.sleep(_GLANCE)

    def _listen(self) -> None:
        """Have the ends of jobs told: before the call, as they may come before its reply."""
        if self._listening:
            return
        self._listening = True
        if not self._direct:
            rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"
            self._ask(new_method_call(_BUS, "AddMatch", "s", (rule,)))
            self.call("Subscribe", "", ())

    def _ask(self, message: Message) -> Any:
        self._serial += 1
        self._socket.sendall(message.serialise(serial=self._serial))
        while True:
            reply = self._receive()
            if reply.header.fields.get(HeaderFields.reply_serial) != self._serial:
                self._signals.append(reply)
                continue
            if reply.header.message_type is MessageType.error:
                error = DBusErrorResponse(reply)
                text = str(reply.body[0]) if reply.body else error.name
                raise SystemdError(f"systemd refuses: {text}", error.name)
            return reply.body

    def _receive(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise SystemdError(f"systemd does not answer within {PATIENCE:.0f} s") from None
            if not data:
                raise SystemdError("systemd has closed the connection")
            self._parser.add_data(data)
        return message
