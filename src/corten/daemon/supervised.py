"""What systemd and the daemon tell each other: sockets that it listens on for us, and that we are ready.

The protocols are sd_listen_fds(3) and sd_notify(3), a few environment variables and one datagram; no library is worth
its import for them.
"""

from __future__ import annotations

import os
import socket

FIRST = 3
"""SD_LISTEN_FDS_START."""


def take_sockets() -> list[tuple[str, socket.socket]]:
    """The listening sockets that came with this process, each with its name in the unit ("" for none); once only.

    They are closed on exec from now on, and the variables are gone from the environment.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    taken = []
    for index in range(int(count)):
        sock = socket.socket(fileno=FIRST + index)
        sock.set_inheritable(False)
        taken.append((names[index] if index < len(names) else "", sock))
    return taken


def notify(state: str) -> None:
    """Say `state`, such as "READY=1", to whoever started this process, if it wants to know. A failure is no matter."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return
