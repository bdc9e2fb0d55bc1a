"""A seccomp agent for tests: takes listeners from a runtime and answers what containers ask."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from corten.linux.scm import recv_fds
from tests.kernel.boxes import DEADLINE

# linux/seccomp.h
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESP = struct.Struct("=QqiI")
MKDIR = (83, 258)


class Agent:
    """Emulates mkdir, which succeeds and makes nothing, and lets all other calls go on."""

    def __init__(self, path: Path) -> None:
        self.states: list[dict[str, Any]] = []
        self.extra = 0
        self.asked: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._stop, self._stopped = os.pipe()
        self._fds: list[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join(DEADLINE)
        for fd in (*self._fds, self._stop):
            os.close(fd)
        self._listener.close()

    def _serve(self) -> None:
        poll = select.poll()
        for fd in (self._stop, self._listener.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == self._stop:
                    return
                if fd == self._listener.fileno():
                    poll.register(self._take(), select.POLLIN)
                elif events & select.POLLIN:
                    self._answer(fd)
                else:  # nobody is left who could ask
                    poll.unregister(fd)

    def _take(self) -> int:
        connection, _ = self._listener.accept()
        with connection:
            data, (fd,) = recv_fds(connection, 1 << 16, 4)
            self.extra += len(connection.recv(10))  # one state a connection, and its end
        self.states.append(json.loads(data))
        self._fds.append(fd)
        return fd

    def _answer(self, fd: int) -> None:
        buffer = bytearray(_NOTIF.size)
        try:
            fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, buffer)
            ident, _, _, number, *_ = _NOTIF.unpack(buffer)
            self.asked.append(number)
            flags = 0 if number in MKDIR else SECCOMP_USER_NOTIF_FLAG_CONTINUE
            fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, _RESP.pack(ident, 0, 0, flags))
        except FileNotFoundError:  # who asked is gone
            return
