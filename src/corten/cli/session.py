"""What `run`, `start -a`, `attach` and `exec` share: signals, the window's size, the loop over the streams."""

from __future__ import annotations

import signal
import sys

from corten.cli.context import say_error
from corten.cli.errors import CliError, Exit
from corten.cli.streams import Loop, Signals, watched_signals
from corten.cli.terminal import DetachKeys, RawMode, is_terminal, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.client.client import Client
    from corten.client.session import Response


PATIENCE = 3


class Attachment:
    """What the user's end looks like: `tty` the container has one, `stdin` is copied, signals are passed on."""

    __slots__ = ("keys", "proxy", "stdin", "tty")

    def __init__(self, *, tty: bool, stdin: bool, proxy: bool, keys: str = "") -> None:
        self.tty, self.stdin, self.proxy, self.keys = tty, stdin, proxy, keys


def check_tty(*, tty: bool, stdin: bool) -> None:
    """A TTY in the container wants one here to be typed at."""
    if tty and stdin and not is_terminal(0):
        raise CliError("the input device is not a TTY")


class Conversation:
    """Ours with a container: `kill` and `resize` reach it, whichever way it was attached to."""

    def __init__(
        self,
        attachment: Attachment,
        *,
        kill: Callable[[str], None] | None,
        resize: Callable[[int, int], None],
    ) -> None:
        self._attachment, self._kill, self._resize = attachment, kill, resize
        self._asked_to_end = 0

    def hold(
        self, stream: Response, wait: Response | None, begin: Callable[[], None], *, until_stream_ends: bool = False
    ) -> tuple[Any, bool]:
        """Calls `begin` once everything is in place, then passes bytes and signals until both have ended.

        Returns what the wait said (None without one), and whether the user detached.
        """
        attachment = self._attachment
        watched = watched_signals(proxy=attachment.proxy and self._kill is not None, resize=attachment.tty)
        keys = DetachKeys(attachment.keys) if attachment.tty and attachment.stdin else None
        sys.stdout.flush()
        with Signals(watched) as signals, RawMode(0, wanted=attachment.tty and attachment.stdin):
            loop = Loop(signals, self.signalled)
            sock, early = stream.detach()
            begin()
            if attachment.tty:
                self._resized()
            loop.add_stream(sock, early, tty=attachment.tty, stdin=0 if attachment.stdin else None, keys=keys)
            if wait is not None:
                loop.add_wait(wait)
            if until_stream_ends:
                loop.run_stream()
            else:
                loop.run()
        return loop.status, loop.detached

    def signalled(self, number: int) -> None:
        """Passes a signal on to the container. Raises Exit at the third that asks it to end."""
        if number == signal.SIGWINCH:
            self._resized()
            return
        if number in (signal.SIGINT, signal.SIGTERM):
            # A container that does not mind signals (its first process may have no handler) must not hold the user.
            self._asked_to_end += 1
            if self._asked_to_end == PATIENCE:
                say_error(f"\ngot {PATIENCE} SIGTERM/SIGINTs, forcefully exiting")
                raise Exit(1)
        if self._kill is not None:
            try:
                self._kill(signal.Signals(number).name.removeprefix("SIG"))
            except Exception:
                return  # The container has gone meanwhile: its status is on the way.

    def _resized(self) -> None:
        found = size(1) or size(0)
        if found is None:
            return
        try:
            self._resize(*found)
        except Exception:
            return  # Too early or too late: the size at creation, or the next change, serves.


def kill_of(client: Client, container: str) -> Callable[[str], None]:
    return lambda name: client.containers.kill(container, signal=name)


def resize_of(client: Client, container: str) -> Callable[[int, int], None]:
    return lambda rows, columns: client.container_io.resize(container, height=rows, width=columns)
