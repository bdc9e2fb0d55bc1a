"""The one thing that a network namespace made by the child needs: its loopback up."""

from __future__ import annotations

import _socket
import fcntl
import struct

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_IFREQ = "16sh22x"  # struct ifreq with ifr_flags


def set_link_up(name: str) -> None:
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, struct.pack(_IFREQ, name.encode(), 0))
        flags = struct.unpack(_IFREQ, request)[1] | IFF_UP
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, struct.pack(_IFREQ, name.encode(), flags))
    finally:
        sock.close()
