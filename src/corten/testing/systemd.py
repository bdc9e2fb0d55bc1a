"""A system bus with a manager of scopes behind it, for tests of systemd as the cgroup driver on hosts without systemd.

It speaks D-Bus on a unix socket, keeps units in memory, and answers as systemd does: jobs end with a signal, told to
those who have asked for it; a unit that exists is refused, a failed one until it is reset. With a `layout` it makes the
scopes' control groups too, and moves processes there.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    Parser,
    new_error,
    new_method_return,
    new_signal,
)

from corten.runtime.cgroups import Layout

_MANAGER = DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
# The controllers that systemd manages on version 1.
_MANAGED = frozenset(("cpu", "cpuacct", "memory", "blkio", "devices", "pids", "name=systemd"))


class Refused(Exception):
    """An error as the bus has it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = f"org.freedesktop.systemd1.{name}"


@dataclass(slots=True)
class FakeUnit:
    """A scope: `properties` by name, as plain values; `failed` as after an end by the OOM killer."""

    properties: dict[str, Any]
    pids: list[int] = field(default_factory=list)
    failed: bool = False


class FakeSystemd:
    """Serves at `path` from `start` to `close`. `calls` are the manager's methods that were called, in order.

    `result` is what jobs end with; `early` has their ends told before the reply to the call, as happens. `busy` seconds
    it reads nothing after a greeting's OK; calls read together with BEGIN wait for what comes after them.
    """

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        self.path, self.units, self.calls = path, dict[str, FakeUnit](), list[str]()
        self.result, self.early, self.busy = "done", False, 0.0
        self._layout = layout
        self._jobs = itertools.count(1)
        self._listener = socket.socket(socket.AF_UNIX)
        self._subscribed: list[_Client] = []

    def start(self) -> None:
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> FakeSystemd:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=_Client(self, sock).serve, daemon=True).start()

    # -- the manager's methods ---------------------------------------------------------------------------------------

    def handle(self, client: _Client, message: Message) -> None:
        """Answer one call."""
        method = message.header.fields[HeaderFields.member]
        if message.header.fields.get(HeaderFields.interface) == "org.freedesktop.DBus":
            client.send(new_method_return(message, "s", (":1.7",)) if method == "Hello" else new_method_return(message))
            client.matching = client.matching or (method == "AddMatch" and "JobRemoved" in message.body[0])
            return
        self.calls.append(method)
        try:
            unit = self._do(method, message.body, client)
        except Refused as error:
            client.send(new_error(message, error.name, "s", (str(error),)))
            return
        if not unit:
            client.send(new_method_return(message))
            return
        number = next(self._jobs)
        job = f"/org/freedesktop/systemd1/job/{number}"
        replies = [new_method_return(message, "o", (job,))]
        ended = new_signal(_MANAGER, "JobRemoved", "uoss", (number, job, unit, self.result))
        if self in client.subscriptions and client.matching:
            replies.insert(0 if self.early else 1, ended)
        for reply in replies:
            client.send(reply)

    def _do(self, method: str, body: Any, client: _Client) -> str:
        """The unit that a job was started for, "" without one."""
        if method == "Subscribe":
            client.subscriptions.append(self)
            return ""
        name = body[0]
        if method == "StartTransientUnit":
            self._start(name, {key: value for key, (_, value) in body[2]})
            return str(name)
        if name not in self.units:
            raise Refused("NoSuchUnit", f"Unit {name} not loaded.")
        if method == "StopUnit":
            self._remove(name)
            return str(name)
        if method == "ResetFailedUnit":
            if self.units[name].failed:
                self._remove(name)
        elif method == "SetUnitProperties":
            self.units[name].properties |= {key: value for key, (_, value) in body[2]}
        else:
            raise Refused("NotSupported", method)
        return ""

    def _start(self, name: str, properties: dict[str, Any]) -> None:
        if name in self.units:
            raise Refused("UnitExists", f"Unit {name} was already loaded or has a fragment file.")
        pids = properties.pop("PIDs")
        self.units[name] = FakeUnit(properties, pids)
        for directory in self._directories(name):
            directory.mkdir(parents=True, exist_ok=True)
            for pid in pids:
                (directory / "cgroup.procs").write_text(str(pid))

    def _remove(self, name: str) -> None:
        directories = self._directories(name)
        del self.units[name]
        for directory in directories:
            for path in (directory, *directory.parents):
                try:
                    path.rmdir()
                except OSError:
                    break

    def _directories(self, name: str) -> list[Path]:
        """On this host, where the slice is at the top of all hierarchies."""
        if self._layout is None:
            return []
        tops = [h.mountpoint for h in self._layout.v1 if not _MANAGED.isdisjoint(h.controllers)]
        tops += [self._layout.unified] if self._layout.unified else []
        return [Path(top, self.units[name].properties["Slice"], name) for top in tops]


class _Client:
    """One connection to the bus."""

    def __init__(self, systemd: FakeSystemd, sock: socket.socket) -> None:
        self._systemd, self._sock = systemd, sock
        self._parser, self._serial = Parser(), itertools.count(1)
        self.matching = False
        self.subscriptions: list[FakeSystemd] = []

    def send(self, message: Message) -> None:
        self._sock.sendall(message.serialise(serial=next(self._serial)))

    def serve(self) -> None:
        with self._sock, suppress(OSError):
            if not self._greet():
                return
            while True:
                data = self._sock.recv(65536)
                if not data:
                    return
                self._parser.add_data(data)
                while (message := self._parser.get_next_message()) is not None:
                    if message.header.message_type is MessageType.method_call:
                        self._systemd.handle(self, message)

    def _greet(self) -> bool:
        """SASL, as root of this host."""
        held = b""
        if self._sock.recv(1) != b"\0":
            return False
        while True:
            data = self._sock.recv(4096)
            if not data:
                return False
            held += data
            while b"\r\n" in held:
                line, _, held = held.partition(b"\r\n")
                if line == b"AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode():
                    self._sock.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
                    time.sleep(self._systemd.busy)
                elif line == b"BEGIN":
                    self._parser.add_data(held)
                    return True
                else:
                    self._sock.sendall(b"REJECTED EXTERNAL\r\n")
