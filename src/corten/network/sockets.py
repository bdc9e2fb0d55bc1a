"""Netlink sockets for many threads, and refusals of the kernel that are expected."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from corten.linux.netlink import NetlinkSocket


class Sockets:
    """Netlink sockets, each used by one thread at a time and kept for the next."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._idle: list[NetlinkSocket] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self) -> Iterator[NetlinkSocket]:
        with self._lock:
            socket = self._idle.pop() if self._idle else None
        socket = socket or NetlinkSocket(self._protocol)
        try:
            yield socket
        finally:
            with self._lock:
                self._idle.append(socket)

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()


@contextlib.contextmanager
def but(number: int) -> Iterator[None]:
    """Ignore one errno."""
    try:
        yield
    except OSError as refusal:
        if refusal.errno != number:
            raise
