"""Passing descriptors over a unix socket (SCM_RIGHTS). Works on `_socket.socket`, which costs no imports."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    class MessageSocket(Protocol):
        """The part of a socket that is used here."""

        def sendmsg(self, buffers: Any, ancdata: Any = ..., flags: int = ..., /) -> int: ...

        def recvmsg(self, bufsize: int, ancbufsize: int = ..., flags: int = ..., /) -> tuple[bytes, Any, int, Any]: ...


# linux/socket.h
SOL_SOCKET = 1
SCM_RIGHTS = 1
MSG_CTRUNC = 0x8
MSG_TRUNC = 0x20
MSG_NOSIGNAL = 0x4000
MSG_CMSG_CLOEXEC = 0x40000000
MAX_FDS = 253  # SCM_MAX_FD of net/scm.h

_FD_SIZE = 4  # an int; `array` and `struct` would cost imports


def send_fds(sock: MessageSocket, data: bytes, fds: Sequence[int] = ()) -> int:
    """Send one message; the receiver gets duplicates of `fds`, which stay the sender's. Bytes sent."""
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, b"".join(fd.to_bytes(_FD_SIZE, sys.byteorder) for fd in fds))] if fds else []
    return sock.sendmsg([data], ancillary, MSG_NOSIGNAL)


def recv_fds(sock: MessageSocket, size: int, max_fds: int = 16, flags: int = 0) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it: close-on-exec and owned by the caller.

    Empty bytes are the end of the stream. Raises OSError (EMSGSIZE) when data or descriptors did not fit; then none
    is kept open.
    """
    space = _cmsg_space(max_fds * _FD_SIZE)
    data, ancillary, result, _ = sock.recvmsg(size, space, flags | MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(payload) - len(payload) % _FD_SIZE
            fds += [int.from_bytes(payload[at : at + _FD_SIZE], sys.byteorder) for at in range(0, whole, _FD_SIZE)]
    if result & (MSG_TRUNC | MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(90, "message too long for its receiver")  # EMSGSIZE
    return data, fds


def _cmsg_space(length: int) -> int:
    """CMSG_SPACE of 64-bit Linux: a header of 16 bytes, data padded to 8."""
    return 16 + (length + 7 & ~7)
