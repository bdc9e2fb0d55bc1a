"""The process's terminal: its size, and raw mode that is undone on every way out."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int = 1) -> tuple[int, int] | None:
    """Rows and columns; None when `fd` is no terminal or does not know."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


class _Mode:
    """While entered, the terminal at `fd` has its settings changed by `_change`. Does nothing to a file."""

    def __init__(self, fd: int, *, wanted: bool = True) -> None:
        self._fd = fd
        self._wanted = wanted and is_terminal(fd)
        self._saved: list[Any] | None = None

    def _change(self, mode: list[Any]) -> None:
        """`mode` as tcgetattr gives it."""
        raise NotImplementedError

    def __enter__(self) -> None:
        if self._wanted:
            import termios

            self._saved = termios.tcgetattr(self._fd)
            mode = termios.tcgetattr(self._fd)
            self._change(mode)
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
            self._saved = None


class RawMode(_Mode):
    """Every byte is passed as it is typed, Ctrl-C too."""

    def _change(self, mode: list[Any]) -> None:
        import termios as t

        mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        mode[1] &= ~t.OPOST
        mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0


class Hidden(_Mode):
    """What is typed is not shown. Ctrl-C goes on working."""

    def _change(self, mode: list[Any]) -> None:
        import termios

        mode[3] &= ~termios.ECHO


class DetachKeys:
    """Watches what is typed for the keys that detach; they do not reach the container, a false start does.

    Keys are written as Docker's: letters, or ctrl-@ … ctrl-_, with commas between.
    """

    def __init__(self, keys: str = "") -> None:
        self._sequence = parse_keys(keys or "ctrl-p,ctrl-q")
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete."""
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(out), True
                continue
            out += self._sequence[: self._matched]
            self._matched = 1 if byte == self._sequence[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out), False


def parse_keys(text: str) -> bytes:
    """Raises ValueError for a key that cannot be typed."""
    codes = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            codes += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and ("@" <= key[5].upper() <= "_"):
            codes.append(ord(key[5].upper()) - 64)
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(codes)
