"""Signals by the names and numbers that users type."""

from __future__ import annotations

import signal

from corten.errors import InvalidArgument, clip

DEFAULT_STOP = "TERM"

_NUMBERS = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}
_NUMBERS |= {
    "RTMIN": 34,
    "RTMAX": 64,
    "CLD": int(signal.SIGCHLD),
    "POLL": int(signal.SIGIO),
    "IOT": int(signal.SIGABRT),
}
_NUMBERS |= {f"RTMIN+{n}": 34 + n for n in range(1, 16)} | {f"RTMAX-{n}": 64 - n for n in range(1, 15)}


def parse(text: str) -> int:
    """The number of "TERM", "SIGTERM", "term" or "15". Raises InvalidArgument in Docker's words."""
    if text.isascii() and text.isdigit():
        if 0 < int(text) <= 64:
            return int(text)
    elif (number := _NUMBERS.get(text.upper().removeprefix("SIG"))) is not None:
        return number
    raise InvalidArgument(f"invalid signal: {clip(text, 40)}")
