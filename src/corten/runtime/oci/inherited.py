"""Descriptors that a caller wants the container's program to have, behind the standard streams."""

from __future__ import annotations

import os

from corten.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.oci.options import Options

FIRST = 3  # sd_listen_fds(3): where descriptors that are passed on begin


def count(options: Options) -> tuple[int, int]:
    """How many a service manager has passed to us (sd_listen_fds(3)), and how many --preserve-fds adds.

    Each must be open, else a descriptor of our own would come to be there, and reach the container: this is asked
    before any is opened. Raises InvalidArgument.
    """
    text = os.environ.get("LISTEN_FDS", "")
    listen = int(text) if text.isdigit() and os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    preserve = options.number("preserve-fds")
    if preserve < 0:
        raise InvalidArgument(f"--preserve-fds {preserve}: must not be negative")
    for fd in range(FIRST, FIRST + listen + preserve):
        try:
            os.fstat(fd)
        except OSError:
            name = "$LISTEN_FDS" if fd < FIRST + listen else "--preserve-fds"
            raise InvalidArgument(f"{name}: descriptor {fd} is not open") from None
    return listen, preserve
