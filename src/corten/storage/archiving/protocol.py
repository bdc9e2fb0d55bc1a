"""What the daemon and the archive server say to each other: apart, so that the daemon does not load the server."""

from __future__ import annotations

import os

FORK = b"fork"
"""With the control socket of the worker that is to be made."""
MAX_MESSAGE = 1 << 20
METER = 9
"""Bytes before what was read of a body already, in the file that comes with its socket: how the worker gets on."""


def read_meter(fd: int) -> tuple[int, bool]:
    """How many bytes of a body were taken so far, and whether the next ones are waited for."""
    data = os.pread(fd, METER, 0)
    return int.from_bytes(data[:-1], "little"), data[-1:] != b"\0"
